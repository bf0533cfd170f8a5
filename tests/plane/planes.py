# SPDX-License-Identifier: BSD-3-Clause
"""The planes that every fixture runs on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Protocol

from isthmus.border.realm import Border
from isthmus.border.verdict import Drop, Forward, Pass, Punt, Reason, Reply, Verdict, Violation
from isthmus.plane import Programmable
from isthmus.plane.reference import ReferencePlane
from plane.fixture import Outcome


class PlaneUnderTest(Protocol):
    """What the tests need of a plane."""

    name: str

    def available(self) -> str | None:
        """None, or why it cannot run here."""

    def run(
        self, border: Border, effects: Iterable[Programmable], packets: Sequence[tuple[int, bytes]], now: float
    ) -> list[Outcome]:
        """Make a plane, apply the effects, and process the packets in order: (realm, octets) each.

        A plane that punts says ("punt", PUNTED, None, None); the test knows where that is right.
        """

    def violations(self) -> list[Violation] | None:
        """Those of the last run; None if the plane cannot say."""


class ReferenceUnderTest:
    """The reference plane."""

    name = "reference"

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self.verdicts: list[Verdict] = []

    def available(self) -> str | None:
        return None

    def run(
        self, border: Border, effects: Iterable[Programmable], packets: Sequence[tuple[int, bytes]], now: float
    ) -> list[Outcome]:
        plane = ReferencePlane(border)
        plane.apply(effects)
        self.verdicts = [plane.process(realm, packet, now=now) for realm, packet in packets]
        outcomes = [outcome(verdict) for verdict in self.verdicts]
        expected = dict.fromkeys(Reason, 0)
        for kind, reason, _realm, _packet in outcomes:
            expected[Reason.REPLIED if kind == "reply" else reason] += 1
        assert plane.counters() == expected, "every packet counts once"
        self._violations = plane.events()
        plane.close()
        return outcomes

    def violations(self) -> list[Violation] | None:
        return self._violations


def outcome(verdict: Verdict) -> Outcome:
    """A verdict as the tests compare it."""
    match verdict:
        case Forward(realm, packets, reason):
            (packet,) = packets
            return "forward", reason, realm, packet
        case Reply(realm, packet, reason):
            return "reply", reason, realm, packet
        case Drop(reason):
            return "drop", reason, None, None
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
        found.append(module.KernelUnderTest())
    return found
