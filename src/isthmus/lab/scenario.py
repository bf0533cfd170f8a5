# SPDX-License-Identifier: BSD-3-Clause
"""Scenarios: a network, what is done in it, and what must hold.

A scenario *plays* by yielding checks. One that is not ok is a finding and the play goes on; a
``LabError`` ends it, and is a check of its own in the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from isthmus.lab.lab import Lab, standing
from isthmus.lab.topology import LabError, Network


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, and what was seen."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a scenario is to be played on this machine."""

    plane: str = "auto"
    "The plane that the daemons are told to use: auto, kernel or reference."
    root: bool = True
    "Whether all of the machine's privileges are there, or only those inside a user namespace."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Something to see in the lab."""

    name: str
    title: str
    shows: tuple[str, ...]
    "The clauses that it shows at work."
    network: Network
    start: Callable[[Lab, Setting], None]
    "Start the daemons: what ``lab up`` leaves standing."
    play: Callable[[Lab, Setting], Iterator[Check]]
    root: bool = False
    "Whether it needs more than a user namespace gives."

    def entry(self) -> dict[str, Any]:
        """Its line in ``lab list --json``."""
        return {"name": self.name, "title": self.title, "shows": list(self.shows)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of playing a scenario."""

    scenario: str
    checks: tuple[Check, ...]
    logs: str
    "The ends of what the daemons said, if something did not hold."
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether anything was checked and all of it held."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def entry(self) -> dict[str, Any]:
        """The object of ``lab run --json``."""
        return {"scenario": self.scenario, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


Watcher = Callable[[Check], None]
"""Told of each check as it is made."""

Stay = Callable[[Lab], None]
"""Called while the network still stands, after a play that held."""


def play(scenario: Scenario, setting: Setting, *, watcher: Watcher | None = None, stay: Stay | None = None) -> Result:
    """Build the network of a scenario, play it, and take everything away."""
    began = time.monotonic()
    checks: list[Check] = []
    logs = ""

    def note(check: Check) -> None:
        checks.append(check)
        if watcher:
            watcher(check)

    try:
        with standing(scenario.network) as lab:
            try:
                scenario.start(lab, setting)
                for check in scenario.play(lab, setting):
                    note(check)
            except LabError as error:
                note(Check("the scenario runs to its end", ok=False, detail=str(error)))
            if not all(check.ok for check in checks):
                logs = lab.logs()
            elif stay:
                stay(lab)
    except LabError as error:
        note(Check("the network can be built", ok=False, detail=str(error)))
    return Result(scenario=scenario.name, checks=tuple(checks), logs=logs, seconds=time.monotonic() - began)
