# SPDX-License-Identifier: BSD-3-Clause
"""What a packet costs a core that forwards, of counters that were read while it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apart import NEAR

MOST_IDLE = 0.05
"""What the core may idle in a window that counts; the kernel says to 4 ms how long a thread has run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run has shown, in the windows of it that count."""

    cost: float
    "Nanoseconds of the gateway's core for one packet forwarded."
    rate: float
    "Packets forwarded a second."
    busy: float
    "How much of the time that core was at work."
    idle: float
    "How much of the time it had nothing to do; for the rest others held it up."
    offered: float
    "Packets sent a second meanwhile; those that were too many were dropped before the gateway's core saw them."
    apart: int
    "How far that core was from the generator's, in nanoseconds there and back."
    used: float
    "How many of the windows count, of 1."


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment; nanoseconds."""

    at: int
    made: int
    "Packets sent."
    sunk: int
    "Packets forwarded."
    run: int
    "That the gateway's core was at work."
    held_up: int
    "That it could not, since others were."
    naps: int
    "How often it found nothing to do."

    def __sub__(self, earlier: Reading) -> Reading:
        return Reading(*(getattr(self, each) - getattr(earlier, each) for each in self.__slots__))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a run."""

    grown: Reading
    "What the counters have grown by."
    apart: int
    "How far the cores were from each other, before or after, in nanoseconds there and back."

    @property
    def idle(self) -> float:
        """How much of the time the core had nothing to do, at most: if it ever had, what interrupts took is in it."""
        grown = self.grown
        return max(0.0, 1 - (grown.run + grown.held_up) / grown.at) if grown.naps else 0.0

    @property
    def counts(self) -> bool:
        """Whether it says what a packet costs.

        A core that waits for packets takes fewer of them at once, and each costs more; one that is far from the
        generator's waits for memory.
        """
        return self.idle <= MOST_IDLE and self.apart <= NEAR


def sampled(windows: Sequence[Window]) -> Sample:
    """Make one of the windows of a run: those that count, if there are any."""
    used = [each for each in windows if each.counts]
    counted = used or windows
    whole = Reading(*(sum(getattr(each.grown, name) for each in counted) for name in Reading.__slots__))
    return Sample(
        cost=whole.run / whole.sunk,
        rate=whole.sunk / whole.at * 1e9,
        busy=whole.run / whole.at,
        idle=sum(each.idle * each.grown.at for each in counted) / whole.at,
        offered=whole.made / whole.at * 1e9,
        apart=max(each.apart for each in counted),
        used=len(used) / len(windows),
    )
