# SPDX-License-Identifier: BSD-3-Clause
"""How many ICMP errors a border makes: 100 a second, 10 of them for one source (RFC 1812 §4.3.2.8; spec 6.4).

No time passes in here: whoever asks says what time it is.
"""

from __future__ import annotations

from isthmus.address import Address

PER_SECOND = 100
PER_SECOND_OF_ONE = 10
_MOST_SOURCES = 4096


class Allowance:
    """Two token buckets, each as large as a second's worth: of all, and of each source."""

    def __init__(self) -> None:
        self._all: tuple[float, float] | None = None
        # In the order of their last use.
        self._sources: dict[Address, tuple[float, float]] = {}

    def take(self, source: Address, *, now: float) -> bool:
        """Whether one more error may be made, about a packet of this source; if so, it is counted."""
        everybody = _level(self._all, PER_SECOND, now)
        own = _level(self._sources.pop(source, None), PER_SECOND_OF_ONE, now)
        allowed = everybody >= 1 and own >= 1
        if len(self._sources) >= _MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        self._sources[source] = (own - allowed, now)
        if allowed:
            self._all = (everybody - 1, now)
        return allowed


def _level(before: tuple[float, float] | None, rate: int, now: float) -> float:
    if before is None:
        return float(rate)
    level, at = before
    return min(float(rate), level + max(0.0, now - at) * rate)
