# SPDX-License-Identifier: BSD-3-Clause
"""Keeping a copy of a mapping zone up to date (seed IPAE 8.1: "periodically"; spec 6.3), without any I/O.

The serial number of the zone is asked for every refresh interval; if it is newer than ours (RFC 1982) the zone
is fetched, the whole of it or what changed, whichever the server gives (RFC 5936, RFC 1995). A zone with anything
wrong in it is refused whole, and the one before goes on. While nobody answers, the copy is used for three
times its TTL, counted from the first look that failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.border.mapping import Mapping
from isthmus.ipae.mapping import is_newer
from isthmus.ipae.resolve import STALE


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRules:
    """When a zone is asked about; None: as its SOA record says."""

    refresh: float | None = None
    "Seconds between two looks at the serial number."
    retry: float | None = None
    "Seconds after one that failed."
    at_first: float = 10.0
    "Retry before any SOA record was seen, in seconds."
    shortest: float = 1.0
    "Whatever the SOA record says, not more often than so many seconds."


@dataclass(frozen=True, slots=True, kw_only=True)
class Soa:
    """What a SOA record says."""

    serial: int
    refresh: int
    retry: int


@dataclass(frozen=True, slots=True)
class AskSerial:
    """Ask for the zone's SOA record: ``receive_soa`` or ``failed``."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch the zone: ``receive_zone``, ``refused`` or ``failed``."""

    have: int | None
    "The serial number of our copy, for an incremental transfer; None: we have none."


@dataclass(frozen=True, slots=True)
class Replace:
    """Program this mapping in place of the one before."""

    mapping: Mapping
    serial: int | None
    "None: the copy is too old to be used any longer, and the mapping is empty."


CopyEffect = AskSerial | Fetch | Replace


class ZoneCopy:
    """Our copy of one mapping zone. Time is an argument of every call: seconds, monotonic."""

    def __init__(self, rules: CopyRules, *, now: float) -> None:
        self._rules = rules
        self._start: Soa | None = None
        "What the last answer said, whether we have that version or not."
        self._refused: int | None = None
        self._next = now
        self._busy = False
        self._ends: float | None = None
        self._ttl = 0.0
        self._effects: list[CopyEffect] = []
        self.serial: int | None = None
        "Of the version that we have; None: of none."

    def get_timer(self) -> float | None:
        """When ``handle_timer`` is next to be called; None: not before something was received."""
        times = [] if self._ends is None else [self._ends]
        if not self._busy:
            times.append(self._next)
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Look whether there is a newer version, and give up a copy that is too old."""
        if self._ends is not None and now >= self._ends:
            self._ends = self.serial = None
            self._effects.append(Replace(Mapping.of(), None))
        if not self._busy and now >= self._next:
            self._busy = True
            self._effects.append(AskSerial())

    def look_now(self, now: float) -> None:
        """Look at once: a NOTIFY, or the operator."""
        self._next = min(self._next, now)
        self.handle_timer(now)

    def receive_soa(self, start: Soa, *, now: float) -> None:
        """Take the zone's SOA record."""
        self._start = start
        if self.serial is not None and not is_newer(start.serial, self.serial):
            self._confirm(now)
        elif start.serial == self._refused:
            self.refused(now=now)
        else:
            self._effects.append(Fetch(self.serial))

    def receive_zone(self, mapping: Mapping, *, serial: int, ttl: float, now: float) -> None:
        """Take a whole new version, checked.

        Args:
            mapping: All its entries.
            serial: Its serial number.
            ttl: The least TTL of its records, in seconds.
            now: The time.
        """
        self.serial, self._ttl, self._refused = serial, ttl, None
        self._effects.append(Replace(mapping, serial))
        self._confirm(now)

    def refused(self, *, now: float) -> None:
        """Say that the version is wrong: it is not fetched again, and ours goes on as if nobody had answered."""
        self._refused = self._start.serial if self._start else None
        self._age(now)
        self._rest(now)

    def failed(self, *, now: float) -> None:
        """Say that nobody answered, or not to the end."""
        self._age(now)
        self._busy = False
        self._next = now + self._seconds(
            self._rules.retry, self._start.retry if self._start else None, self._rules.at_first
        )

    def next_effects(self) -> list[CopyEffect]:
        """Take what is to be done, in this order."""
        effects, self._effects = self._effects, []
        return effects

    def _confirm(self, now: float) -> None:
        self._ends = None
        self._rest(now)

    def _age(self, now: float) -> None:
        """From the first look that failed the copy is used for three times its TTL."""
        if self.serial is not None and self._ends is None:
            self._ends = now + STALE * self._ttl

    def _rest(self, now: float) -> None:
        self._busy = False
        self._next = now + self._seconds(
            self._rules.refresh, self._start.refresh if self._start else None, self._rules.at_first
        )

    def _seconds(self, ours: float | None, theirs: int | None, otherwise: float) -> float:
        said = otherwise if theirs is None else float(theirs)
        return max(self._rules.shortest, said if ours is None else ours)
