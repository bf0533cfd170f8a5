# SPDX-License-Identifier: BSD-3-Clause
"""A port of one's own: a veth pair used where others use a TUN device.

``/dev/net/tun`` may be closed to us, a veth pair never is: it needs CAP_NET_ADMIN and CAP_NET_RAW
only, also inside of a user namespace. ``NAME`` belongs to the machine's IP stack, ``NAMEp`` to the plane.

* What the kernel sends to ``NAME`` - by an nftables ``fwd``, by a redirect of the kernel plane - is
  read at ``NAMEp``. Its offloads are off: the kernel has cut large segments and finished checksums before.
* What is written at ``NAMEp`` arrives on ``NAME`` and is routed by the machine. Sources that
  are the machine's own are no martians there (``accept_local``), and it forwards.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import secrets
import socket
import struct
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.link.packet import PacketPort

LONGEST_NAME = 14
"""Octets of an interface name, less the letter that the plane's end has more."""

_MTU = 65535
"Whatever fits into a realm's interface fits into its port."
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"receive merging": 0x2C, "TCP segmentation": 0x1F, "segmentation": 0x24, "checksums": 0x17}
"ETHTOOL_SGRO, _STSO, _SGSO, _STXCSUM."
_STACK_END = {
    "accept_local": "1",
    "rp_filter": "0",
    "forwarding": "1",
    "send_redirects": "0",
    "accept_redirects": "0",
    "arp_ignore": "8",
}
_PLANE_END = {"forwarding": "0", "arp_ignore": "8"}


class PuntPort(PacketPort):
    """Makes a veth pair in the current network namespace, and reads and writes its plane's end.

    Args:
        name: What the machine's end is called; what has this name already is replaced.
        mtu: Of both ends, in octets.

    Raises:
        PlaneError: a name that is too long.
        Unsupported: the kernel refuses; says what is missing.
    """

    def __init__(self, name: str, *, mtu: int = _MTU) -> None:
        if not 0 < len(name) <= LONGEST_NAME:
            raise PlaneError(f"port name {name!r} has {len(name)} characters; 1 to {LONGEST_NAME} are possible")
        self._stack_end = name
        _create(name, mtu)
        try:
            turn_offloads_off(name)
            _turn_off(f"{name}p", "receive merging", _OFFLOADS["receive merging"])
            _configure(name, _STACK_END)
            _configure(f"{name}p", _PLANE_END)
            _check_source_filter()
            super().__init__(f"{name}p")
        except BaseException:
            _remove(name)
            raise

    @property
    def name(self) -> str:
        """The machine's end."""
        return self._stack_end

    @property
    def index(self) -> int:
        """Interface index of the machine's end: where a fast path sends what it punts.

        Raises:
            PlaneError: the pair has vanished.
        """
        try:
            return socket.if_nametoindex(self._stack_end)
        except OSError as error:
            raise PlaneError(f"port {self._stack_end} has vanished") from error

    def close(self) -> None:
        """Remove the pair, unless another has replaced it."""
        super().close()
        if not self.vanished:
            _remove(self._stack_end)


def _create(name: str, mtu: int) -> None:
    mac = "02:" + ":".join(f"{octet:02x}" for octet in secrets.token_bytes(5))
    try:
        with IPRoute() as links:
            for index in links.link_lookup(ifname=name):
                links.link("del", index=index)
            peer = {"ifname": f"{name}p", "address": mac, "mtu": mtu}
            links.link("add", ifname=name, kind="veth", address=mac, mtu=mtu, peer=peer)
            for end in (name, f"{name}p"):
                links.link("set", index=links.link_lookup(ifname=end)[0], state="up", arp=False)
    except NetlinkError as error:
        remedy = "needs CAP_NET_ADMIN: run as root" if error.code == 1 else f"the kernel says {error}"
        raise Unsupported(f"port {name}", remedy=remedy) from error


def _remove(name: str) -> None:
    with contextlib.suppress(NetlinkError), IPRoute() as links:
        for index in links.link_lookup(ifname=name):
            links.link("del", index=index)


def _configure(end: str, settings: dict[str, str]) -> None:
    try:
        for key, value in settings.items():
            Path("/proc/sys/net/ipv4/conf", end, key).write_text(value, encoding="ascii")
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys/net/ipv6/conf", end, "disable_ipv6").write_text("1", encoding="ascii")
    except OSError as error:
        remedy = f"let /proc/sys/net be written ({error.strerror})"
        raise Unsupported(f"settings of {end}", remedy=remedy) from error


def _check_source_filter() -> None:
    """Refuse a machine whose strict source filter for all interfaces overrules ours (RFC 3704 §2.2)."""
    if Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text(encoding="ascii").strip() == "1":
        raise Unsupported("net.ipv4.conf.all.rp_filter = 1", remedy="set it to 0, and per interface where it is wanted")


def turn_offloads_off(name: str) -> None:
    """Let the kernel finish packets before an interface passes them on, for whoever reads them in user space.

    Raises:
        Unsupported: the interface, or its driver, will not.
    """
    for offload, command in _OFFLOADS.items():
        _turn_off(name, offload, command)


def _turn_off(name: str, offload: str, command: int) -> None:
    """Turn one offload off, so that the kernel itself does its work before a packet is handed on (ethtool)."""
    value = array.array("I", (command, 0))
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError as error:
            raise Unsupported(f"turning {offload} off on {name}", remedy=str(error.strerror)) from error
