# SPDX-License-Identifier: BSD-3-Clause
"""Lets the kernel plane know which destinations go the same way, and follows the kernel's routes, rules and links.

What has changed is asked about packet by packet from then on, and a little later all routes are read anew. Where nobody
knows what has changed (rules, interfaces, our own addresses), and while nobody follows, that is so of all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from isthmus.address import Family
from isthmus.daemon.messages import Message, log
from isthmus.daemon.rtnetlink import (
    ATTRIBUTE,
    CLONED,
    DEAD,
    DELLINK,
    DELROUTE,
    GETROUTE,
    GETRULE,
    GROUP_IPV4_ADDRESS,
    GROUP_IPV4_ROUTE,
    GROUP_IPV4_RULE,
    GROUP_IPV6_ROUTE,
    GROUP_IPV6_RULE,
    GROUP_LINK,
    HEADER,
    LINK_DOWN,
    NEWLINK,
    NEWROUTE,
    NUMBER,
    ROUTE,
    UNRESOLVED,
    answers,
    ask,
    heard,
    link_state,
    listen,
    read_attributes,
)
from isthmus.errors import PlaneError

SETTLE_SECONDS = 0.05
"""How long changes are gathered."""
SHARE = 20
"""After reading a large table we rest for so many times as long as it took."""
AGAIN_SECONDS = 5.0
"""After the kernel has refused."""
BEAT_SECONDS, LIFE_SECONDS = 1.0, 3
"""How often we say that we follow, and for how long that is believed."""
_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _METRICS, _FLOW, _CACHE, _TABLE, _PREFERENCE = (
    1,
    4,
    5,
    6,
    7,
    8,
    11,
    12,
    15,
    20,
)
_MEANT = {_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _METRICS, _FLOW, _CACHE, _TABLE, _PREFERENCE}
"What a route may have besides; with anything else its ways may be several."
_EXPIRES_AT = 8
"In struct rta_cacheinfo: when a route that a router has told of is none any more, of which no news come."
_RULE_PRIORITY, _RULE_TABLE, _RULE_MEANT = 6, 15, {6, 14, 15, 21}
_UNICAST, _TO_TABLE = 1, 1
_LOCAL, _MAIN, _DEFAULT = 255, 254, 253
_AT_ONCE = 256
_OURS, _ELSEWHERE = -1, -2
_DST_AT, _ROUTE_AT = 40, HEADER.size


@dataclass(frozen=True, slots=True)
class _Kernel:
    """How the kernel's routes of a family are read."""

    number: int
    "AF_*."
    octets: int
    "Of an address."
    news: int
    "What is listened to besides ``GROUP_LINK``. Of IPv6 one hears of the routes to our own addresses, too."
    rules: list[tuple[int, int]]
    "Priority and table of those that Linux begins with."


_KERNEL = {
    Family.IPV4: _Kernel(
        socket.AF_INET,
        4,
        GROUP_IPV4_ADDRESS | GROUP_IPV4_ROUTE | GROUP_IPV4_RULE,
        [(0, _LOCAL), (32766, _MAIN), (32767, _DEFAULT)],
    ),
    Family.IPV6: _Kernel(socket.AF_INET6, 16, GROUP_IPV6_ROUTE | GROUP_IPV6_RULE, [(0, _LOCAL), (32766, _MAIN)]),
}


class Columns(Protocol):
    """Where routes are put."""

    @property
    def group(self) -> Iterable[int]:
        """The group of each."""

    def add(self, first: int, length: int, group: int) -> None:
        """Add a route: the lowest destination, how many bits its prefix has, its group."""


_C = TypeVar("_C", bound=Columns)
_L = TypeVar("_L")


class Destinations(Protocol[_C, _L]):
    """What the plane reads of the routes of one family: ``uniform.Groups``, ``uniform_ipv6.Groups6``."""

    family: Family

    def number(self, interface: int, gateway: int) -> int:
        """The group of an interface's index and a gateway."""

    def begin(self) -> _C:
        """Where to put routes."""

    def lay(self, routes: _C, ours: Iterable[tuple[int, int]]) -> _L:
        """What is to be written of them."""

    def take(self, laid: _L, used: set[int], changed: Iterable[tuple[int, int]]) -> bool:
        """Write it, where prefixes may have changed meanwhile; False: not with these."""

    def forget(self, first: int, length: int) -> None:
        """Let the kernel be asked about each destination of a prefix."""

    def trust(self, until: int) -> None:
        """Say until when what is written is true."""


class Table:
    """What the kernel says of its routes, message by message.

    A full table has a million of them, but few kinds: two that differ in nothing but the prefix go the same way.

    Args:
        routes: Where they go.
        number: The group of an interface's index and a gateway.
        family: Theirs.
    """

    def __init__(self, routes: Columns, number: Callable[[int, int], int], family: Family = Family.IPV4) -> None:
        self.routes = routes
        self._end = _DST_AT + _KERNEL[family].octets
        self._header = ATTRIBUTE.pack(ATTRIBUTE.size + _KERNEL[family].octets, _DST)
        self.ours: list[tuple[int, int]] = []
        "What is this machine's own, and what else the kernel keeps beside it."
        self._number = number
        self._kinds: dict[bytes, int] = {}

    def take(self, message: bytes) -> None:
        """Take in one route.

        Raises:
            PlaneError: it looks like none that we know.
        """
        length = message[_ROUTE_AT + 1]
        first = int.from_bytes(message[_DST_AT : self._end], "big") if length else 0
        kind = message[4:17] + (message[18:_DST_AT] + message[self._end :] if length else message[17:])
        group = self._kinds.get(kind)
        if group is None:
            group = self._kinds[kind] = self._group(message)
        if group >= 0:
            self.routes.add(first, length, group)
        elif group == _OURS:
            self.ours.append((first, length))

    def _group(self, message: bytes) -> int:
        _, length, source, tos, table, _, _, kind, flags = ROUTE.unpack_from(message, _ROUTE_AT)
        attributes = dict(read_attributes(memoryview(message)[_ROUTE_AT + ROUTE.size :]))
        if length and message[_DST_AT - ATTRIBUTE.size : _DST_AT] != self._header:
            raise PlaneError("routes of the kernel: the destination is not where it was expected")
        table = NUMBER.unpack(attributes[_TABLE])[0] if _TABLE in attributes else table
        if table != _MAIN:
            # What is in no table but the last is in no group anyway.
            return _OURS if table == _LOCAL else _ELSEWHERE
        down = flags & (DEAD | LINK_DOWN | UNRESOLVED | CLONED)
        if kind != _UNICAST or source or tos or down or attributes.keys() - _MEANT:
            return 0
        if not {_OIF, _GATEWAY} <= attributes.keys() or _expires(attributes):
            return 0
        return self._number(NUMBER.unpack(attributes[_OIF])[0], int.from_bytes(attributes[_GATEWAY], "big"))


def _expires(attributes: dict[int, memoryview]) -> bool:
    octets = attributes.get(_CACHE, b"")[_EXPIRES_AT : _EXPIRES_AT + NUMBER.size]
    return any(octets)


def are_default(rules: Iterable[bytes], family: Family = Family.IPV4) -> bool:
    """Whether destinations alone decide: the rules are those that Linux begins with."""
    found = []
    for message in rules:
        _, to, source, tos, table, _, _, action, _ = ROUTE.unpack_from(message, _ROUTE_AT)
        attributes = dict(read_attributes(memoryview(message)[_ROUTE_AT + ROUTE.size :]))
        table = NUMBER.unpack(attributes[_RULE_TABLE])[0] if _RULE_TABLE in attributes else table
        priority = NUMBER.unpack(attributes[_RULE_PRIORITY])[0] if _RULE_PRIORITY in attributes else 0
        if to or source or tos or action != _TO_TABLE or attributes.keys() - _RULE_MEANT:
            return False
        found.append((priority, table))
    return sorted(found) == _KERNEL[family].rules


def ask_routes(family: Family = Family.IPV4) -> tuple[socket.socket, socket.socket]:
    """Ask the kernel for rules and routes of this thread's network namespace.

    Raises:
        OSError: it refuses.
    """
    every = ROUTE.pack(_KERNEL[family].number, *bytes(8))
    return ask(GETRULE, every), ask(GETROUTE, every)


def read_routes(
    groups: Destinations[_C, _L], rules: socket.socket, routes: socket.socket
) -> tuple[_L, set[int]] | None:
    """Find what goes the same way, in any thread.

    Args:
        groups: Has the numbers, and the family.
        rules: With ``routes``, what ``ask_routes`` returned; they are closed.
        routes: See there.

    Returns:
        What ``groups.take`` wants; None: not only destinations decide.

    Raises:
        InterruptedError: rules changed meanwhile. Of routes that do one hears.
        OSError: the kernel does not give them.
        PlaneError: they look like none that we know.
    """
    columns = groups.begin()
    with rules, routes:
        if not are_default(answers(rules), groups.family):
            return None
        table = Table(columns, groups.number, groups.family)
        with contextlib.suppress(InterruptedError):
            for message in answers(routes):
                table.take(message)
    return groups.lay(columns, table.ours), set(columns.group)


class UniformRoutes(Generic[_C, _L]):
    """Follows the routes of one family, of the network namespace that it is made in.

    Args:
        groups: What the plane reads.

    Raises:
        PlaneError: the kernel refuses the sockets.
    """

    def __init__(self, groups: Destinations[_C, _L]) -> None:
        self._groups, self._kernel = groups, _KERNEL[groups.family]
        self._links: dict[int, int] = {}
        self._upheavals = 0
        "Changes of which nobody knows what they have changed."
        self._changed: list[tuple[int, int]] = []
        "What has changed since we began to read."
        self._true = self._reading = self._stale = False
        self._rests_until = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        try:
            self._news = listen(GROUP_LINK | self._kernel.news)
        except OSError as error:
            raise PlaneError(f"routes of the kernel: {error.strerror}") from error

    @property
    def is_true(self) -> bool:
        """Whether the plane knows all that is known of the routes."""
        return self._true and not self._stale and not self._reading

    def start(self) -> None:
        """Begin, from within the running event loop."""
        asyncio.get_running_loop().add_reader(self._news, self._news_come)
        self._beat()
        self._read_soon()

    def close(self) -> None:
        """Follow no longer."""
        for timer in (self._later, self._beating):
            if timer is not None:
                timer.cancel()
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._news)
        self._upheavals += 1
        self._true = False
        self._groups.trust(0)
        self._news.close()

    def _beat(self) -> None:
        if self._true:
            self._groups.trust(int(time.clock_gettime(time.CLOCK_BOOTTIME)) + LIFE_SECONDS)
        self._beating = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _news_come(self) -> None:
        if self._hear():
            self._read_soon()

    def _hear(self) -> bool:
        """Take in what has changed, so that nothing is done by what was true before; say whether anything has."""
        before = self._upheavals, len(self._changed)
        try:
            for message in heard(self._news, _AT_ONCE):
                if message is None:
                    self._upheavals += 1
                elif message[0] in {NEWROUTE, DELROUTE}:
                    self._route_changed(message[1])
                elif message[0] not in {NEWLINK, DELLINK} or self._link_changed(*message):
                    self._upheavals += 1
        except OSError:
            self._upheavals += 1
        if self._upheavals != before[0]:
            self._true = False
            self._groups.trust(0)
        return (self._upheavals, len(self._changed)) != before

    def _route_changed(self, payload: memoryview) -> None:
        family, length, *_, flags = ROUTE.unpack_from(payload)
        if family == self._kernel.number and not flags & CLONED:
            attributes = dict(read_attributes(payload[ROUTE.size :]))
            first = int.from_bytes(attributes.get(_DST, b""), "big")
            self._groups.forget(first, length)
            self._changed.append((first, length))

    def _link_changed(self, kind: int, payload: memoryview) -> bool:
        found = link_state(kind, payload)
        if found is None:
            return False
        before, self._links[found[0]] = self._links.get(found[0]), found[1]
        return before != found[1]

    def _read_soon(self, least: float = SETTLE_SECONDS) -> None:
        self._stale = True
        if self._later is None and not self._reading:
            delay = max(self._rests_until - time.monotonic(), least)
            self._later = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        """Read everything; in a thread, because it may be much."""
        self._later, self._reading, self._stale = None, True, False
        self._changed.clear()
        upheavals, started = self._upheavals, time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            asked = ask_routes(self._groups.family)
        except OSError as error:
            self._failed(error)
            return
        reading = loop.run_in_executor(None, read_routes, self._groups, *asked)
        reading.add_done_callback(lambda done: self._end(done, upheavals, started))

    def _end(self, done: asyncio.Future[tuple[_L, set[int]] | None], upheavals: int, started: float) -> None:
        if self._news.fileno() < 0 or done.cancelled():
            return
        self._reading = False
        self._rests_until = time.monotonic() + SHARE * (time.monotonic() - started)
        error = done.exception()
        if error is not None:
            self._failed(error)
            return
        self._hear()
        found = done.result()
        if self._upheavals != upheavals:
            self._read_soon()
        elif found is None:
            self._groups.trust(0)
        else:
            self._take(*found)

    def _take(self, laid: _L, used: set[int]) -> None:
        try:
            taken = self._groups.take(laid, used, self._changed)
        except PlaneError as error:
            self._failed(error)
            return
        if taken:
            self._true = True
            self._groups.trust(int(time.clock_gettime(time.CLOCK_BOOTTIME)) + LIFE_SECONDS)
        if self._changed:
            self._read_soon()

    def _failed(self, error: BaseException) -> None:
        self._reading, self._true = False, False
        self._groups.trust(0)
        if not isinstance(error, InterruptedError):
            log(Message.PLANE_FAILED, error=f"routes of the kernel: {error}")
        self._read_soon(SETTLE_SECONDS if isinstance(error, InterruptedError) else AGAIN_SECONDS)
