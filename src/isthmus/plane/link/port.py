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
import socket
import struct
from pathlib import Path

from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.link import pair
from isthmus.plane.link.packet import PacketPort

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
        pair.create(name, mtu=mtu)
        self._stack_end = name
        try:
            for offload, command in _OFFLOADS.items():
                _turn_off(name, offload, command)
            _turn_off(f"{name}p", "receive merging", _OFFLOADS["receive merging"])
            _configure(name, _STACK_END)
            _configure(f"{name}p", _PLANE_END)
            _check_source_filter()
            super().__init__(f"{name}p")
        except BaseException:
            pair.remove(name)
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
            pair.remove(self._stack_end)


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


def _turn_off(name: str, offload: str, command: int) -> None:
    """Turn one offload off, so that the kernel itself does its work before a packet is handed on (ethtool)."""
    value = array.array("I", (command, 0))
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError as error:
            raise Unsupported(f"turning {offload} off on {name}", remedy=str(error.strerror)) from error
