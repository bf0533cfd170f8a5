# SPDX-License-Identifier: BSD-3-Clause
"""Lets the kernel plane know which destinations go the same way, and follows the kernel's IPv4 routes, rules and links.

What has changed is asked about packet by packet from then on, and a little later all routes are read anew. Where nobody
knows what has changed (rules, interfaces, our own addresses), and while nobody follows, that is so of all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable

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
from isthmus.plane.kernel.uniform import Groups, Nodes, Routes, exact, lay, leaf

SETTLE_SECONDS = 0.05
"""How long changes are gathered."""
SHARE = 20
"""After reading a large table we rest for so many times as long as it took."""
AGAIN_SECONDS = 5.0
"""After the kernel has refused."""
BEAT_SECONDS, LIFE_SECONDS = 1.0, 3
"""How often we say that we follow, and for how long that is believed."""
_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _METRICS, _FLOW, _TABLE = 1, 4, 5, 6, 7, 8, 11, 15
_MEANT = {_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _METRICS, _FLOW, _TABLE}
"What a route may have besides; with anything else its ways may be several."
_RULE_PRIORITY, _RULE_TABLE, _RULE_MEANT = 6, 15, {6, 14, 15, 21}
_UNICAST, _TO_TABLE = 1, 1
_LOCAL, _MAIN, _DEFAULT = 255, 254, 253
_RULES = [(0, _LOCAL), (32766, _MAIN), (32767, _DEFAULT)]
_AT_ONCE = 256
_OURS, _ELSEWHERE = -1, -2
_DST_AT, _ROUTE_AT = 40, HEADER.size
_DST_HEADER = ATTRIBUTE.pack(8, _DST)
_ALL_ZERO = ROUTE.pack(socket.AF_INET, *bytes(8))


class Table:
    """What the kernel says of its routes, message by message.

    A full table has a million of them, but few kinds: two that differ in nothing but the prefix go the same way.

    Args:
        number: The group of an interface's index and a gateway.
    """

    def __init__(self, number: Callable[[int, int], int]) -> None:
        self.routes = Routes()
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
        first = int.from_bytes(message[_DST_AT : _DST_AT + 4], "big") if length else 0
        kind = message[4:17] + (message[18:_DST_AT] + message[_DST_AT + 4 :] if length else message[17:])
        group = self._kinds.get(kind)
        if group is None:
            group = self._kinds[kind] = self._group(message)
        if group >= 0:
            self.routes.add(first, length, group)
        elif group == _OURS:
            self.ours.append((first, length))

    def _group(self, message: bytes) -> int:
        _, length, _, tos, table, _, _, kind, flags = ROUTE.unpack_from(message, _ROUTE_AT)
        attributes = dict(read_attributes(memoryview(message)[_ROUTE_AT + ROUTE.size :]))
        if length and message[_DST_AT - 4 : _DST_AT] != _DST_HEADER:
            raise PlaneError("routes of the kernel: the destination is not where it was expected")
        table = NUMBER.unpack(attributes[_TABLE])[0] if _TABLE in attributes else table
        if table != _MAIN:
            # What is in no table but the last is in no group anyway.
            return _OURS if table == _LOCAL else _ELSEWHERE
        down = flags & (DEAD | LINK_DOWN | UNRESOLVED | CLONED)
        if kind != _UNICAST or tos or down or attributes.keys() - _MEANT or not {_OIF, _GATEWAY} <= attributes.keys():
            return 0
        return self._number(NUMBER.unpack(attributes[_OIF])[0], int.from_bytes(attributes[_GATEWAY], "big"))


def are_default(rules: Iterable[bytes]) -> bool:
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
    return sorted(found) == _RULES


def ask_routes() -> tuple[socket.socket, socket.socket]:
    """Ask the kernel for rules and routes of this thread's network namespace.

    Raises:
        OSError: it refuses.
    """
    return ask(GETRULE, _ALL_ZERO), ask(GETROUTE, _ALL_ZERO)


def read_routes(groups: Groups, rules: socket.socket, routes: socket.socket) -> tuple[Nodes, set[int]] | None:
    """Find what goes the same way, in any thread.

    Args:
        groups: Has the numbers.
        rules: With ``routes``, what ``ask_routes`` returned; they are closed.
        routes: See there.

    Returns:
        What ``groups.change`` wants; None: not only destinations decide.

    Raises:
        InterruptedError: rules changed meanwhile. Of routes that do one hears.
        OSError: the kernel does not give them.
        PlaneError: they look like none that we know.
    """
    with rules, routes:
        if not are_default(answers(rules)):
            return None
        table = Table(groups.number)
        with contextlib.suppress(InterruptedError):
            for message in answers(routes):
                table.take(message)
    nodes = lay(table.routes)
    exact(nodes, table.ours)
    return nodes, set(table.routes.group)


class UniformRoutes:
    """Follows the routes of the network namespace that it is made in.

    Args:
        groups: What the plane reads.

    Raises:
        PlaneError: the kernel refuses the sockets.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
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
            self._news = listen(GROUP_LINK | GROUP_IPV4_ADDRESS | GROUP_IPV4_ROUTE | GROUP_IPV4_RULE)
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
        if family == socket.AF_INET and not flags & CLONED:
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
            asked = ask_routes()
        except OSError as error:
            self._failed(error)
            return
        reading = loop.run_in_executor(None, read_routes, self._groups, *asked)
        reading.add_done_callback(lambda done: self._end(done, upheavals, started))

    def _end(self, done: asyncio.Future[tuple[Nodes, set[int]] | None], upheavals: int, started: float) -> None:
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
            nodes, used = found
            # The kernel keeps routes that begin alike in one place, and may have left others out where one changed.
            exact(nodes, (leaf(first) for first, _ in self._changed))
            self._groups.change(nodes, used)
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
