# SPDX-License-Identifier: BSD-3-Clause
"""Reliability over UDP: stop and wait, message counters, duplicates (RFC 3103 §5, §10.1; spec 7).

A host sends request *n* and repeats the very same octets until the answer with counter
*n* comes; only then does it go on to *n + 1*. A gateway keeps the last answer for each
source address and port, and gives it again to a copy of the request, without acting again.

::

    host                                   gateway
     │ ASSIGN_REQUEST n  ────────────────▶  │ acts, answers, keeps (request, answer)
     │            X ◀──── ASSIGN_RESPONSE n │
     │ 12.5 ms …                            │
     │ ASSIGN_REQUEST n  ────────────────▶  │ the same octets: answers again, does nothing
     │ ◀────────────────  ASSIGN_RESPONSE n │

Counter 0 is for what a gateway sends unasked (RFC 3103 §10.1); such messages never take
the place of the answer that is kept. After 2^32 - 1 comes 1.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from isthmus.border.binding import Owner
from isthmus.border.effect import Remember
from isthmus.wire.rsip.codes import MessageType

RFC_INITIAL_SECONDS = 0.0125
"""The first wait that RFC 3103 §5 proposes."""

LAST_COUNTER = (1 << 32) - 1
KEEP_SECONDS = 16.0
"""How long answers outlive a registration: more than all seven waits from 100 ms, and than the 2 s of spec 7."""

_PORTS_PER_OWNER = 16


def next_counter(counter: int) -> int:
    """The counter after this one; 0 is skipped (RFC 3103 §10.1)."""
    return 1 if counter >= LAST_COUNTER else counter + 1


def is_newer(counter: int, last: int) -> bool:
    """Whether a counter comes after another, on the circle of 2^32 - 1 numbers."""
    return 0 < (counter - last) % LAST_COUNTER < 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Retransmission:
    """How often and when a host repeats itself (RFC 3103 §5)."""

    # Deviation: RFC 3103 §5 begins with 12.5 ms, which it calls tunable; Wi-Fi and a busy gateway need more.
    initial_seconds: float = 0.1
    "The first wait; each is twice the one before."
    transmissions: int = 7
    "How often a request is sent in all."

    def __post_init__(self) -> None:
        """Refuse waits and counts that are not positive."""
        if self.initial_seconds <= 0 or self.transmissions < 1:
            raise ValueError(f"{self.transmissions} transmissions, the first wait {self.initial_seconds} s")

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the transmission of that number, counted from 1."""
        return float(self.initial_seconds * 2 ** (attempt - 1))

    @property
    def total_seconds(self) -> float:
        """How long a request is tried before it has failed; 1.5875 s with the RFC's numbers."""
        return sum(self.wait(attempt) for attempt in range(1, self.transmissions + 1))


class Freshness(enum.Enum):
    """What a request is, compared to the last one from the same address and port."""

    FRESH = enum.auto()
    DUPLICATE = enum.auto()
    "The same octets with the same counter: repeat the answer."
    STALE = enum.auto()
    "An old datagram that took the long way: say nothing."
    RESTART = enum.auto()
    "An old counter, on a message that a host begins anew with."


class _Last(NamedTuple):
    """The last request from one address and port, and its answer."""

    counter: int
    request: bytes
    answer: bytes
    durable: bool
    "Whether a store has it, too."


class AnswerCache:
    """The last answer for every UDP source of every host that is, or just was, registered.

    A duplicate is the same octets with the same counter from the same address and port.
    The counter alone would misfire when a host restarts and counts from 1 again (spec I12).
    """

    def __init__(self, *, keep_seconds: float = KEEP_SECONDS) -> None:
        """Start empty.

        Args:
            keep_seconds: How long answers are kept once their host is not registered any more.
        """
        self._keep_seconds = keep_seconds
        self._last: dict[Owner, dict[int, _Last]] = {}
        self._leaving: dict[Owner, float] = {}
        "Hosts that are not registered any more, and when they are forgotten."
        self._queue: deque[tuple[float, Owner]] = deque()

    def __len__(self) -> int:
        """How many hosts have answers here."""
        return len(self._last)

    def judge(
        self, owner: Owner, port: int, *, counter: int, kind: MessageType, request: bytes, now: float
    ) -> tuple[Freshness, bytes]:
        """Compare a request to the last one.

        Returns:
            What it is; with DUPLICATE the answer to repeat, else nothing.
        """
        self._forget(now)
        last = self._last.get(owner, {}).get(port)
        if last is None or is_newer(counter, last.counter):
            return Freshness.FRESH, b""
        if counter == last.counter:
            # Silent: one counter on two messages is a host that restarted on the same port; take the new one.
            return (Freshness.DUPLICATE, last.answer) if request == last.request else (Freshness.FRESH, b"")
        # Silent: a restarted host counts from 1 again and must not be shut out. An old REGISTER or DE-REGISTER
        # does no harm: Client IDs are random, so it ends in 302, 301 or 305.
        if kind in (MessageType.REGISTER_REQUEST, MessageType.DE_REGISTER_REQUEST):
            return Freshness.RESTART, b""
        return Freshness.STALE, b""

    def is_fresh(self, owner: Owner, port: int, *, counter: int, now: float) -> bool:
        """Whether a request is newer than the last one that was answered, if there is one: no copy, and not old."""
        self._forget(now)
        ports = self._last.get(owner)
        last = None if ports is None else ports.get(port)
        return last is None or is_newer(counter, last.counter)

    def keep(self, remember: Remember, *, durable: bool = True) -> None:
        """Keep an answer; it takes the place of the one before from that address and port.

        Args:
            remember: The answer and its request.
            durable: Whether a store keeps it, too; of each host it keeps the last one that it was given.
        """
        ports = self._last.get(remember.owner)
        if ports is None:
            ports = self._last[remember.owner] = {}
        ports.pop(remember.port, None)
        if durable and ports:
            for port in [port for port, last in ports.items() if last.durable]:
                ports[port] = ports[port]._replace(durable=False)
        ports[remember.port] = _Last(remember.counter, remember.request, remember.answer, durable)
        if len(ports) > _PORTS_PER_OWNER:
            del ports[next(iter(ports))]

    def fold(self, owner: Owner) -> int | None:
        """Forget the answers of a host if a store has all of them.

        Returns:
            The port that the answer went to; None if nothing was forgotten, since there
            are none, or more than a store has.
        """
        ports = self._last.get(owner)
        if ports is None or len(ports) != 1:
            return None
        ((port, last),) = ports.items()
        if not last.durable:
            return None
        del self._last[owner]
        return port

    def has(self, owner: Owner) -> bool:
        """Whether there are answers for a host."""
        return owner in self._last

    def last_port(self, owner: Owner, *, now: float) -> int | None:
        """The source port of the last request that was answered and is not forgotten."""
        self._forget(now)
        return next(reversed(self._last.get(owner, {})), None)

    def stay(self, owner: Owner) -> None:
        """Keep a host's answers for good: it has registered."""
        if self._leaving:
            self._leaving.pop(owner, None)

    def leave(self, owner: Owner, *, now: float) -> None:
        """Forget a host's answers in a while: it is not registered any more."""
        until = now + self._keep_seconds
        self._leaving[owner] = until
        self._queue.append((until, owner))

    def _forget(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            until, owner = self._queue.popleft()
            if self._leaving.get(owner) == until:
                del self._leaving[owner]
                self._last.pop(owner, None)
