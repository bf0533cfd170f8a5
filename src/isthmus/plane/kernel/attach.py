# SPDX-License-Identifier: BSD-3-Clause
"""Programs at interfaces: a clsact queueing discipline with ours as a direct-action filter, and one before it at XDP.

The filter has a fixed preference and handle, so that attaching again replaces it in one
step and nothing of anybody else's is touched. libbpf 1.1 knows no tcx links, clsact is
everywhere (``tc-bpf(8)``). At XDP there is one program for an interface: if that is another's it
stays, and all packets take the way through TC.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.kernel.libbpf import libbpf
from isthmus.plane.kernel.loader import Program
from isthmus.plane.kernel.peer import peer_of

_INGRESS = 0xFFFFFFF2
_ETH_P_ALL = 3
_WHERE = {"parent": _INGRESS, "handle": 1, "prio": 0x1575, "protocol": _ETH_P_ALL}
"The preference is ours alone."
_SIOCGIFMTU, _SIOCGIFHWADDR, _SIOCETHTOOL = 0x8921, 0x8927, 0x8946
_GET_FLAGS, _SET_FLAGS, _TAKES_TAGS = 0x25, 0x26, 1 << 8
"ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_RXVLAN (linux/ethtool.h)."
_XDP_NATIVE = 1 << 2
"XDP_FLAGS_DRV_MODE (linux/if_link.h)."
_XDP_NAMES = frozenset({"border", "ipae"})
_BARE = frozenset({0xFFFE, 519, 768, 512})
"Link types without a link header: none (TUN, WireGuard), raw IP, tunnel, PPP."
_NAME = "isthmus"


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as it is now."""

    index: int
    bare: bool
    "Packets begin with the IP header."
    mtu: int
    "Largest packet that it carries, in octets."
    address: bytes = bytes(6)
    "The link address, six octets; zero where it has none."


class Links(Protocol):
    """What a plane needs of interfaces."""

    def find(self, name: str) -> Link | None:
        """The interface of a name, if there is one."""

    def indexes(self) -> set[int]:
        """Every interface that there is."""

    def peer(self, index: int) -> int:
        """The index of the other end of a veth pair; ``peer.AWAY`` in another network namespace; 0 if unknown."""

    def attach(self, index: int, program_fd: int) -> None:
        """Let a program see what arrives at an interface, in the place of the one before."""

    def attach_xdp(self, index: int, program_fd: int) -> str:
        """Let a program see what arrives before there is a packet of the IP stack, in the place of ours before.

        Returns:
            Why it cannot be; "" if it can.
        """

    def detach(self, index: int) -> None:
        """Take our programs away; an interface that has vanished is no error."""

    def detach_xdp(self, index: int) -> None:
        """Take away the one at XDP; another's stays."""


class MachineLinks:
    """The interfaces of this network namespace."""

    def find(self, name: str) -> Link | None:
        """The interface of a name, if there is one (netdevice(7); works within any mount namespace, unlike /sys)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                index = socket.if_nametoindex(name)
                request = struct.pack("16s24x", name.encode())
                kind, address = struct.unpack_from("=H6s", fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request), 16)
                (mtu,) = struct.unpack_from("=I", fcntl.ioctl(any_socket, _SIOCGIFMTU, request), 16)
            except OSError:
                return None
        return Link(index, kind in _BARE, mtu, bytes(6) if kind in _BARE else address)

    def indexes(self) -> set[int]:
        """Every interface that there is."""
        return {index for index, _ in socket.if_nameindex()}

    def peer(self, index: int) -> int:
        """The index of the other end of a veth pair; ``peer.AWAY`` in another network namespace; 0 if unknown."""
        try:
            return peer_of(index)
        except OSError:
            return 0

    def attach(self, index: int, program_fd: int) -> None:
        """Let a program see what arrives at an interface, in the place of the one before.

        Raises:
            PlaneError: the kernel refuses.
        """

        def work(route: IPRoute) -> None:
            with suppress(NetlinkError):
                route.tc("add", "clsact", index)
            route.tc("replace-filter", "bpf", index, fd=program_fd, name=_NAME, direct_action=True, **_WHERE)

        try:
            _by_netlink(work)
        except NetlinkError as error:
            if error.code == errno.EPERM:
                raise Unsupported("filter at an interface: not permitted", remedy="run as root") from error
            raise PlaneError(f"filter at interface {index}: {error}") from error

    def attach_xdp(self, index: int, program_fd: int) -> str:
        """Let a program see what arrives before there is a packet of the IP stack, in the place of ours before.

        Only in the driver: what the kernel offers instead ("generic") is slower than TC. VLAN tags have to stay in the
        frames then, because a program at XDP does not see what the hardware has taken off.

        Returns:
            Why it cannot be; "" if it can.
        """
        there = _xdp_program(index)
        if there not in (None, *_XDP_NAMES):
            return f"another XDP program, {there}, is there"
        if not _keep_tags(index):
            return "its driver takes VLAN tags off: ethtool -K INTERFACE rxvlan off"
        status = libbpf().bpf_xdp_attach(index, program_fd, _XDP_NATIVE, None)
        if status == -errno.EOPNOTSUPP:
            return "its driver has no XDP"
        if status in (-errno.EINVAL, -errno.ERANGE):
            return "its driver refuses, perhaps because of its MTU or because segments are merged (lro)"
        return os.strerror(-status) if status else ""

    def detach_xdp(self, index: int) -> None:
        """Take away the one at XDP; another's stays."""
        if _xdp_program(index) in _XDP_NAMES:
            libbpf().bpf_xdp_detach(index, _XDP_NATIVE, None)

    def detach(self, index: int) -> None:
        """Take our programs away; an interface that has vanished is no error."""
        self.detach_xdp(index)

        def work(route: IPRoute) -> None:
            with suppress(NetlinkError):
                route.tc("del-filter", "bpf", index, **_WHERE)

        _by_netlink(work)


def _xdp_program(index: int) -> str | None:
    """What is attached in the driver of an interface, by its name."""
    number = ctypes.c_uint32()
    if libbpf().bpf_xdp_query_id(index, _XDP_NATIVE, ctypes.byref(number)) or not number.value:
        return None
    try:
        with closing(Program.numbered(number.value)) as program:
            return program.name
    except PlaneError:
        return f"number {number.value}"


def _keep_tags(index: int) -> bool:
    """Let VLAN tags stay where they are in a frame; whether they do (ethtool(8), rxvlan)."""
    value = ctypes.create_string_buffer(8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
        request = struct.pack("16sP16x", socket.if_indextoname(index).encode(), ctypes.addressof(value))
        value.raw = struct.pack("=II", _GET_FLAGS, 0)
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        (flags,) = struct.unpack_from("=I", value.raw, 4)
        if flags & _TAKES_TAGS:
            value.raw = struct.pack("=II", _SET_FLAGS, flags & ~_TAKES_TAGS)
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
            value.raw = struct.pack("=II", _GET_FLAGS, 0)
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return not struct.unpack_from("=I", value.raw, 4)[0] & _TAKES_TAGS


def _by_netlink(work: Callable[[IPRoute], None]) -> None:
    """Do something with netlink, in a thread: pyroute2 cannot be called where an event loop runs."""

    def thread() -> None:
        with IPRoute() as route:
            work(route)

    with ThreadPoolExecutor(1, "isthmus-netlink") as pool:
        pool.submit(thread).result()
