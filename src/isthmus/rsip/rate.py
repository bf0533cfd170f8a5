# SPDX-License-Identifier: BSD-3-Clause
"""Limits on how often something may happen, per key (RFC 3103 §11; spec 19)."""

from __future__ import annotations

from collections.abc import Hashable

_MOST_KEYS = 65536
"Keys held at a time; a flood of forged source addresses must not eat the memory."


class RateLimit:
    """So many a second on average, so many at once: one number is kept per key.

    The number is the time at which the key's credit would be full again (the generic cell
    rate algorithm), so that a key which has been quiet can be forgotten.
    """

    def __init__(self, per_second: float | None, *, burst: float = 1.0) -> None:
        """Start with full credit for everybody.

        Args:
            per_second: The rate; None: no limit.
            burst: How many at once, at least 1.
        """
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._credit = (burst - 1.0) * self._interval
        self._full_at: dict[Hashable, float] = {}
        self._tidy_at = 0.0

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._full_at)

    def allow(self, key: Hashable, *, now: float) -> bool:
        """Whether one more may happen now; if so it is counted."""
        if not self._interval:
            return True
        before = self._full_at.get(key)
        full_at = now if before is None or before < now else before
        # A microsecond of grace: full_at is a sum of intervals, and floats of today's date are that coarse.
        if full_at - now > self._credit + 1e-6:
            return False
        if before is None and len(self._full_at) >= _MOST_KEYS and not self._make_room(now):
            return False
        self._full_at[key] = full_at + self._interval
        return True

    def _make_room(self, now: float) -> bool:
        """Forget the quiet keys; not more than once a second, or a flood would make us do nothing else."""
        if now >= self._tidy_at:
            self._tidy_at = now + 1.0
            self._full_at = {each: at for each, at in self._full_at.items() if at > now}
        return len(self._full_at) < _MOST_KEYS
