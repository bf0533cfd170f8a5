# SPDX-License-Identifier: BSD-3-Clause
"""The highest rate that a server keeps up with: the same search and the same rule for every server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_LATE = 0.025
"""The share of cycles that may be late at a rate that counts as kept up with."""
_CLIMB = 1.4
_SATURATED = 0.9
"""A load generator that gives less than this of what it was asked for has no more to give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one rate."""

    asked: float
    "Cycles begun a second."
    begun: float
    "Cycles really begun a second."
    in_time: float
    "Cycles begun a second that ended in time."
    late_ratio: float

    @property
    def kept_up(self) -> bool:
        """Whether few enough were late."""
        return self.late_ratio <= MOST_LATE


def highest(attempt: Callable[[float], Trial], start: float, *, precision: float = 0.04, climbs: int = 20) -> Trial:
    """Find the rate by climbing until it fails, and halving the interval then.

    A rate fails if it fails twice: the machine has moods.

    Args:
        attempt: Plays a rate, in cycles begun a second, against a fresh server.
        start: The rate to begin with.
        precision: The search ends when the interval is this part of the rate.
        climbs: How often the rate is raised at most.

    Returns:
        Of the trials that kept up the one with the most cycles in time; if none did, the last one.
    """

    def tried(rate: float) -> Trial:
        trial = attempt(rate)
        return trial if trial.kept_up else attempt(rate)

    low, high, best = 0.0, 0.0, None
    rate = start
    for _ in range(climbs):
        trial = tried(rate)
        if not trial.kept_up:
            high = rate
        else:
            low, best = rate, _better(best, trial)
            if trial.begun < _SATURATED * rate:
                return best
        if high and low:
            break
        rate = rate / _CLIMB if high else rate * _CLIMB
    while high and low and high / low > 1 + precision:
        rate = (high * low) ** 0.5
        trial = tried(rate)
        if trial.kept_up:
            low, best = rate, _better(best, trial)
        else:
            high = rate
    return best or trial


def _better(best: Trial | None, trial: Trial) -> Trial:
    return trial if best is None or trial.in_time > best.in_time else best
