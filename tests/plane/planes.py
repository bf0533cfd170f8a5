# SPDX-License-Identifier: BSD-3-Clause
"""The planes that every fixture runs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from typing import Any, Protocol

from isthmus.border.realm import Border
from isthmus.border.verdict import Drop, Forward, Hold, Miss, Pass, Punt, Reason, Reply, Verdict, Violation
from isthmus.plane import Programmable
from isthmus.plane.reference import ReferencePlane
from plane.fixture import Outcome


class PlaneUnderTest(Protocol):
    """What the tests need of a plane."""

    name: str

    def available(self) -> str | None:
        """None, or why it cannot run here."""

    def run(
        self,
        border: Border,
        effects: Iterable[Programmable],
        packets: Sequence[tuple[int, bytes]],
        now: float,
        *,
        waits: Sequence[float] = (),
    ) -> list[Outcome]:
        """Make a plane, apply the effects, and process the packets in order: (realm, octets) each.

        A plane with a slow path says what became of a packet there, and counts it in ``punted``.
        """

    @property
    def punted(self) -> Sequence[int]:
        """Which packets of the last run went to the slow path, by their places."""

    def extra(self) -> dict[Reason, int]:
        """What the last run counted beside its outcomes."""

    def violations(self) -> list[Violation] | None:
        """Those of the last run; None if the plane cannot say."""


class ReferenceUnderTest:
    """The reference plane."""

    name = "reference"
    punted: Sequence[int] = ()

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._extra: dict[Reason, int] = {}
        self.verdicts: list[Verdict] = []
        self.misses: list[Miss] = []

    def available(self) -> str | None:
        return None

    def run(
        self,
        border: Border,
        effects: Iterable[Programmable],
        packets: Sequence[tuple[int, bytes]],
        now: float,
        *,
        waits: Sequence[float] = (),
    ) -> list[Outcome]:
        plane = ReferencePlane(border)
        plane.apply(effects)
        times = _times(now, waits, len(packets))
        self.verdicts = [arrive(plane, border, *each, time) for each, time in zip(packets, times, strict=True)]
        outcomes = [outcome(verdict) for verdict in self.verdicts]
        self._extra = _uncounted(plane.counters(), outcomes)
        assert set(self._extra) <= {Reason.FRAGMENT_TIMEOUT}, "every packet counts once"
        self._violations = plane.events()
        self.misses = plane.misses()
        plane.close()
        return outcomes

    def extra(self) -> dict[Reason, int]:
        return self._extra

    def violations(self) -> list[Violation] | None:
        return self._violations


class KernelWithReference:
    """The kernel plane, with the reference plane as its slow path; what both must remember the kernel remembers.

    Args:
        kernel: A ``KernelUnderTest``.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.name = kernel.name
        self.punted: list[int] = []
        self._extra: dict[Reason, int] = {}
        self._violations: list[Violation] = []

    def available(self) -> str | None:
        reason: str | None = self._kernel.available()
        return reason

    def run(
        self,
        border: Border,
        effects: Iterable[Programmable],
        packets: Sequence[tuple[int, bytes]],
        now: float,
        *,
        waits: Sequence[float] = (),
    ) -> list[Outcome]:
        given = tuple(effects)
        outcomes: list[Outcome] = self._kernel.bench().do(lambda: self._run(border, given, packets, now, waits))
        return outcomes

    def _run(
        self,
        border: Border,
        effects: tuple[Programmable, ...],
        packets: Sequence[tuple[int, bytes]],
        now: float,
        waits: Sequence[float],
    ) -> list[Outcome]:
        fast = self._kernel.open(border, now)
        try:
            fast.reconcile(effects)
            table = fast.table()
            memories = (getattr(fast, name, None) for name in ("contacts", "paths", "ring"))
            slow = ReferencePlane(border, *memories, table=table)
            slow.apply(table.left(effects))
            before, self.punted, outcomes, left = fast.counters(), [], [], []
            for at, (time, (realm, packet)) in enumerate(zip(_times(now, waits, len(packets)), packets, strict=True)):
                hand_on(slow, fast, time)
                found = self._kernel.one(fast, border, realm, packet)
                if found[0] == "punt":
                    self.punted.append(at)
                    found = outcome(arrive(slow, border, realm, packet, time))
                    left.append(found)
                outcomes.append(found)
            after = fast.counters()
            counted = {reason: after[reason] - before[reason] for reason in Reason}
            assert counted.pop(Reason.PUNTED) == len(left), "every packet counts once"
            self._extra = _uncounted(slow.counters(), left)
            assert not _uncounted(counted, _without(outcomes, self.punted)), "every packet counts once"
            self._violations = [*fast.events(), *slow.events()]
        finally:
            fast.close()
        return outcomes

    def extra(self) -> dict[Reason, int]:
        return self._extra

    def violations(self) -> list[Violation] | None:
        return self._violations


def hand_on(slow: ReferencePlane, fast: Any, now: float) -> None:
    """Tell the fast path what the slow one has learned of the ways, as ``daemon/planes.py`` does."""
    for way, octets in slow.path_mtus(now=now):
        fast.limit(way, octets)
    for way, condition in slow.way_changes(now=now):
        fast.condition(way, condition)


def arrive(plane: ReferencePlane, border: Border, realm: int, packet: bytes, now: float) -> Verdict:
    """Give a packet to the reference plane as who reads it from a link does: what is of version 6 on an IPv4 link is SIP."""
    sip = border.realm(realm).sip
    if sip is not None and packet and packet[0] >> 4 == 6:
        return plane.process(sip, packet, now=now, link=realm)
    return plane.process(realm, packet, now=now)


def _times(now: float, waits: Sequence[float], count: int) -> list[float]:
    return list(accumulate(waits or [0.0] * count, initial=now))[1:]


def _without(outcomes: list[Outcome], places: list[int]) -> list[Outcome]:
    return [each for at, each in enumerate(outcomes) if at not in places]


def _uncounted(counters: Mapping[Reason, int], outcomes: list[Outcome]) -> dict[Reason, int]:
    """What was counted beside the outcomes, or was not though it should have been."""
    left = Counter(counters)
    left.subtract(Reason.REPLIED if kind == "reply" else reason for kind, reason, _realm, _packet in outcomes)
    return {reason: count for reason, count in left.items() if count}


def outcome(verdict: Verdict) -> Outcome:
    """A verdict as the tests compare it."""
    match verdict:
        case Forward(realm, packets, reason):
            return "forward", reason, realm, b"".join(packets)
        case Reply(realm, packet, reason):
            return "reply", reason, realm, packet
        case Drop(reason):
            return "drop", reason, None, None
        case Hold():
            return "hold", Reason.HELD, None, None
        case Pass():
            return "pass", Reason.PASSED, None, None
        case Punt():
            return "punt", Reason.PUNTED, None, None


def planes() -> list[PlaneUnderTest]:
    """Every plane there is; the kernel's if its adapter is there."""
    found: list[PlaneUnderTest] = [ReferenceUnderTest()]
    try:
        module = import_module("plane.kernel_under_test")
    except ModuleNotFoundError as missing:
        if missing.name != "plane.kernel_under_test":
            raise
    else:
        found.append(KernelWithReference(module.KernelUnderTest()))
    return found
