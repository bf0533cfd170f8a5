# SPDX-License-Identifier: BSD-3-Clause
"""One table of the kernel's IPv6 routes, and what changes in it (rtnetlink, RFC 3549 §3.1.1).

The table is read whole once; then the kernel tells of every change. Where it could not, because changes came quicker
than they were read (``ENOBUFS``), and where an interface came, went or changed, the table is read whole again.

A route that replaces another is told of by itself; of several next systems of one prefix and metric, which
the kernel calls siblings, a new one is told of together with all others, and one that goes by itself.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from isthmus.address import Address, Family, Prefix
from isthmus.errors import PlaneError
from isthmus.ipae.routing import Hop, Offer

PROTOCOLS = {
    "boot": 3,
    "static": 4,
    "zebra": 11,
    "bird": 12,
    "babel": 42,
    "bgp": 186,
    "isis": 187,
    "ospf": 188,
    "rip": 189,
    "eigrp": 192,
}
"""Who enters routes, by the kernel's numbers (linux/rtnetlink.h); ``boot`` is ``ip route add`` without a protocol."""

_NEWLINK, _DELLINK, _NEWROUTE, _DELROUTE, _GETROUTE = 16, 17, 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_GROUPS = 0x1 | 0x400
"RTMGRP_LINK and RTMGRP_IPV6_ROUTE."
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_SO_RCVBUFFORCE = 33
_BUFFER_OCTETS = 4 << 20
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=8BI")
"struct rtmsg: family, destination length, source length, TOS, table, protocol, scope, type, flags."
_LINK = struct.Struct("=BxHiII")
_NEXT = struct.Struct("=HBBi")
"struct rtnexthop: length, flags, weight, interface."
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _TABLE = 1, 4, 5, 6, 9, 15
_UNICAST = 1
_KERNEL = 0
_DEAD, _LINK_DOWN, _CLONED = 0x1, 0x10, 0x200
_CARRIES = 0x1 | 0x10000
"IFF_UP and IFF_LOWER_UP."
_ATTEMPTS = 5
_AT_ONCE = 256
_Key = tuple[Prefix, int]
"Destination and metric: what tells routes of a table apart."
_Message = tuple[int, int, memoryview]
"Type, flags, and what follows the header."


class KernelRoutes:
    """The IPv6 routes of one table of the current network namespace.

    Something to wait on: when it becomes readable, ``read_news`` takes in what has changed.

    Args:
        table: The kernel's number of the table.

    Raises:
        PlaneError: the kernel refuses the sockets.
    """

    def __init__(self, table: int) -> None:
        self._table = table
        self._routes: dict[_Key, Offer] = {}
        self._links: dict[int, int] = {}
        self.overruns = 0
        "How often changes came too quickly, and the table was read whole for it."
        try:
            self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
            self._enlarge()
            # First the news, then the table: what changes in between is heard of twice, and never missed.
            self._news.bind((0, _GROUPS))
        except OSError as error:
            raise PlaneError(f"routes of table {table}: {error.strerror}") from error

    def _enlarge(self) -> None:
        try:
            self._news.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        except PermissionError:
            self._news.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)

    def fileno(self) -> int:
        """What becomes readable when something changes."""
        return self._news.fileno()

    @property
    def routes(self) -> tuple[Offer, ...]:
        """What is in the table, as far as it has been read."""
        return tuple(self._routes.values())

    def read_whole(self) -> None:
        """Read the table as it is now.

        Raises:
            PlaneError: the kernel does not give it.
        """
        try:
            for _ in range(_ATTEMPTS):
                found: dict[_Key, Offer] = {}
                if self._dump(found):
                    break
        except OSError as error:
            raise PlaneError(f"routes of table {self._table}: {error.strerror}") from error
        self._routes = found

    def _dump(self, found: dict[_Key, Offer]) -> bool:
        """Read the table once; False if it changed meanwhile."""
        body = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
        body += _ATTRIBUTE.pack(8, _TABLE) + _NUMBER.pack(self._table)
        whole = True
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
            # With strict checking the kernel gives this table only, and an error where there is none.
            asking.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
            asking.bind((0, 0))
            asking.sendto(_HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST | _DUMP, 1, 0) + body, (0, 0))
            while True:
                for kind, flags, payload in _messages(asking.recv(1 << 18)):
                    whole = whole and not flags & _INTERRUPTED
                    if kind in {_DONE, _ERROR}:
                        number = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                        if number not in {0, -errno.ENOENT}:
                            raise OSError(-number, errno.errorcode.get(-number, str(-number)))
                        return whole
                    if kind == _NEWROUTE:
                        self._take(found, kind, payload)

    def read_news(self) -> bool:
        """Take in what has changed; say whether any of it concerns the table.

        Raises:
            PlaneError: the table had to be read whole, and the kernel does not give it.
        """
        changed = anew = False
        for _ in range(_AT_ONCE):
            try:
                octets, (sender, _) = self._news.recvfrom(1 << 18)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise PlaneError(f"routes of table {self._table}: {error.strerror}") from error
                self.overruns += 1
                anew = True
                continue
            for kind, _, payload in _messages(octets if sender == _KERNEL else b""):
                if kind in {_NEWROUTE, _DELROUTE}:
                    changed = self._take(self._routes, kind, payload) or changed
                elif kind in {_NEWLINK, _DELLINK}:
                    anew = self._link_changed(kind, payload) or anew
        if anew:
            self.read_whole()
        return changed or anew

    def _link_changed(self, kind: int, payload: memoryview) -> bool:
        """Whether an interface came, went, or carries now and did not before, or the other way round."""
        family, _type, index, flags, _change = _LINK.unpack_from(payload)
        if family != socket.AF_UNSPEC:
            return False
        state = -1 if kind == _DELLINK else flags & _CARRIES
        before, self._links[index] = self._links.get(index), state
        if kind == _DELLINK:
            del self._links[index]
        return before != state

    def _take(self, routes: dict[_Key, Offer], kind: int, payload: memoryview) -> bool:
        """Take in one route that is there, or is gone; False if it is of another table."""
        family, length, _, _, table, protocol, _, type_, flags = _ROUTE.unpack_from(payload)
        attributes = dict(_attributes(payload[_ROUTE.size :]))
        if _TABLE in attributes:
            table = _NUMBER.unpack(attributes[_TABLE])[0]
        if family != socket.AF_INET6 or table != self._table or flags & _CLONED:
            return False
        to = Prefix(Address(Family.IPV6, int.from_bytes(attributes.get(_DST, b""), "big")), length)
        metric = _NUMBER.unpack(attributes[_PRIORITY])[0] if _PRIORITY in attributes else 0
        hops = tuple(_hops(attributes, flags)) if type_ == _UNICAST else ()
        key = to, metric
        if kind == _NEWROUTE:
            routes[key] = Offer(to=to, hops=hops, metric=metric, protocol=protocol)
            return True
        _remove(routes, key, hops)
        return True

    def close(self) -> None:
        """Let go."""
        self._news.close()


def _remove(routes: dict[_Key, Offer], key: _Key, hops: tuple[Hop, ...]) -> None:
    """Take away next systems of a route, and the route with the last of them."""
    standing = routes.pop(key, None)
    if standing is None:
        return
    gone = {(each.interface, each.gateway) for each in hops}
    left = tuple(each for each in standing.hops if (each.interface, each.gateway) not in gone)
    if left:
        routes[key] = Offer(to=standing.to, hops=left, metric=standing.metric, protocol=standing.protocol)


def _hops(attributes: dict[int, memoryview], flags: int) -> Iterator[Hop]:
    """The next systems of a route."""
    if _MULTIPATH in attributes:
        rest = attributes[_MULTIPATH]
        while len(rest) >= _NEXT.size:
            length, each_flags, _, interface = _NEXT.unpack_from(rest)
            inside = dict(_attributes(rest[_NEXT.size : length]))
            yield _hop(interface, inside.get(_GATEWAY), each_flags)
            rest = rest[max(length + 3 & ~3, _NEXT.size) :]
    elif _OIF in attributes:
        yield _hop(_NUMBER.unpack(attributes[_OIF])[0], attributes.get(_GATEWAY), flags)


def _hop(interface: int, gateway: memoryview | None, flags: int) -> Hop:
    address = None if gateway is None else Address.from_octets(gateway)
    return Hop(interface, address, down=bool(flags & (_DEAD | _LINK_DOWN)))


def _messages(octets: bytes) -> Iterator[_Message]:
    """The netlink messages of a datagram."""
    view = memoryview(octets)
    while len(view) >= _HEADER.size:
        length, kind, flags, _, _ = _HEADER.unpack_from(view)
        if not _HEADER.size <= length <= len(view):
            return
        yield kind, flags, view[_HEADER.size : length]
        view = view[length + 3 & ~3 :]


def _attributes(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Types and values of netlink attributes."""
    while len(view) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(view)
        if not _ATTRIBUTE.size <= length <= len(view):
            return
        yield kind & 0x3FFF, view[_ATTRIBUTE.size : length]
        view = view[length + 3 & ~3 :]
