# SPDX-License-Identifier: BSD-3-Clause
"""One table of the kernel's IPv6 routes, and what changes in it (rtnetlink, RFC 3549 §3.1.1).

The table is read whole once; then the kernel tells of every change. Where it could not, because changes came quicker
than they were read (``ENOBUFS``), and where an interface came, went or changed, the table is read whole again.

A route that replaces another is told of by itself; of several next systems of one prefix and metric, which
the kernel calls siblings, a new one is told of together with all others, and one that goes by itself.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from isthmus.address import Address, Family, Prefix
from isthmus.daemon.rtnetlink import (
    ATTRIBUTE,
    CLONED,
    DEAD,
    DELLINK,
    DELROUTE,
    GETROUTE,
    GROUP_IPV6_ROUTE,
    GROUP_LINK,
    HEADER,
    LINK_DOWN,
    NEWLINK,
    NEWROUTE,
    NEXT,
    NUMBER,
    ROUTE,
    answers,
    ask,
    heard,
    link_state,
    listen,
    read_attributes,
)
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

_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _TABLE = 1, 4, 5, 6, 9, 15
_UNICAST = 1
_ATTEMPTS = 5
_AT_ONCE = 256
_Key = tuple[Prefix, int]
"Destination and metric: what tells routes of a table apart."


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
            # First the news, then the table: what changes in between is heard of twice, and never missed.
            self._news = listen(GROUP_LINK | GROUP_IPV6_ROUTE)
        except OSError as error:
            raise PlaneError(f"routes of table {table}: {error.strerror}") from error

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
        body = (
            ROUTE.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0) + ATTRIBUTE.pack(8, _TABLE) + NUMBER.pack(self._table)
        )
        try:
            for message in answers(ask(GETROUTE, body)):
                self._take(found, NEWROUTE, memoryview(message)[HEADER.size :])
        except InterruptedError:
            return False
        return True

    def read_news(self) -> bool:
        """Take in what has changed; say whether any of it concerns the table.

        Raises:
            PlaneError: the table had to be read whole, and the kernel does not give it.
        """
        changed = anew = False
        try:
            for message in heard(self._news, _AT_ONCE):
                if message is None:
                    self.overruns += 1
                    anew = True
                elif message[0] in {NEWROUTE, DELROUTE}:
                    changed = self._take(self._routes, *message) or changed
                elif message[0] in {NEWLINK, DELLINK}:
                    anew = self._link_changed(*message) or anew
        except OSError as error:
            raise PlaneError(f"routes of table {self._table}: {error.strerror}") from error
        if anew:
            self.read_whole()
        return changed or anew

    def _link_changed(self, kind: int, payload: memoryview) -> bool:
        """Whether an interface came, went, or carries now and did not before, or the other way round."""
        found = link_state(kind, payload)
        if found is None:
            return False
        index, state = found
        before, self._links[index] = self._links.get(index), state
        if kind == DELLINK:
            del self._links[index]
        return before != state

    def _take(self, routes: dict[_Key, Offer], kind: int, payload: memoryview) -> bool:
        """Take in one route that is there, or is gone; False if it is of another table."""
        family, length, _, _, table, protocol, _, type_, flags = ROUTE.unpack_from(payload)
        attributes = dict(read_attributes(payload[ROUTE.size :]))
        if _TABLE in attributes:
            table = NUMBER.unpack(attributes[_TABLE])[0]
        if family != socket.AF_INET6 or table != self._table or flags & CLONED:
            return False
        to = Prefix(Address(Family.IPV6, int.from_bytes(attributes.get(_DST, b""), "big")), length)
        metric = NUMBER.unpack(attributes[_PRIORITY])[0] if _PRIORITY in attributes else 0
        hops = tuple(_hops(attributes, flags)) if type_ == _UNICAST else ()
        key = to, metric
        if kind == NEWROUTE:
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
        while len(rest) >= NEXT.size:
            length, each_flags, _, interface = NEXT.unpack_from(rest)
            inside = dict(read_attributes(rest[NEXT.size : length]))
            yield _hop(interface, inside.get(_GATEWAY), each_flags)
            rest = rest[max(length + 3 & ~3, NEXT.size) :]
    elif _OIF in attributes:
        yield _hop(NUMBER.unpack(attributes[_OIF])[0], attributes.get(_GATEWAY), flags)


def _hop(interface: int, gateway: memoryview | None, flags: int) -> Hop:
    address = None if gateway is None else Address.from_octets(gateway)
    return Hop(interface, address, down=bool(flags & (DEAD | LINK_DOWN)))
