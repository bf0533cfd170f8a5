# SPDX-License-Identifier: BSD-3-Clause
"""Filters at interfaces: a clsact queueing discipline with our program as a direct-action filter.

The filter has a fixed preference and handle, so that attaching again replaces it in one
step and nothing of anybody else's is touched. libbpf 1.1 knows no tcx links, clsact is
everywhere (``tc-bpf(8)``).
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.errors import PlaneError, Unsupported

_INGRESS = 0xFFFFFFF2
_ETH_P_ALL = 3
_WHERE = {"parent": _INGRESS, "handle": 1, "prio": 0x1575, "protocol": _ETH_P_ALL}
"The preference is ours alone."
_SIOCGIFMTU, _SIOCGIFHWADDR = 0x8921, 0x8927
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


class Links(Protocol):
    """What a plane needs of interfaces."""

    def find(self, name: str) -> Link | None:
        """The interface of a name, if there is one."""

    def indexes(self) -> set[int]:
        """Every interface that there is."""

    def attach(self, index: int, program_fd: int) -> None:
        """Let a program see what arrives at an interface, in the place of the one before."""

    def detach(self, index: int) -> None:
        """Take our program away; an interface that has vanished is no error."""


class MachineLinks:
    """The interfaces of this network namespace."""

    def find(self, name: str) -> Link | None:
        """The interface of a name, if there is one (netdevice(7); works within any mount namespace, unlike /sys)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                index = socket.if_nametoindex(name)
                request = struct.pack("16s24x", name.encode())
                (kind,) = struct.unpack_from("=H", fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request), 16)
                (mtu,) = struct.unpack_from("=I", fcntl.ioctl(any_socket, _SIOCGIFMTU, request), 16)
            except OSError:
                return None
        return Link(index, kind in _BARE, mtu)

    def indexes(self) -> set[int]:
        """Every interface that there is."""
        return {index for index, _ in socket.if_nameindex()}

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

    def detach(self, index: int) -> None:
        """Take our program away; an interface that has vanished is no error."""

        def work(route: IPRoute) -> None:
            with suppress(NetlinkError):
                route.tc("del-filter", "bpf", index, **_WHERE)

        _by_netlink(work)


def _by_netlink(work: Callable[[IPRoute], None]) -> None:
    """Do something with netlink, in a thread: pyroute2 cannot be called where an event loop runs."""

    def thread() -> None:
        with IPRoute() as route:
            work(route)

    with ThreadPoolExecutor(1, "isthmus-netlink") as pool:
        pool.submit(thread).result()
