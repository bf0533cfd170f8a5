# SPDX-License-Identifier: BSD-3-Clause
"""Deadlines: one heap for all leases, with lazy deletion.

Moving a deadline, or taking it away, does not search the heap: the old entry stays and is
put right when it comes to the top. Where most leases are extended or freed long before
they end, that costs next to nothing; when the heap is mostly such remains it is rebuilt.
"""

from __future__ import annotations

import heapq
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Any)

_SPARE = 64
"Remains that are never worth a rebuild."


class Deadlines(Generic[K]):
    """When each key is due. Keys that are due at the same time come in their own order."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, K]] = []
        self._at: dict[K, float] = {}

    def __len__(self) -> int:
        """How many keys have a deadline."""
        return len(self._at)

    def set(self, key: K, at: float) -> None:
        """Set or move a deadline."""
        before = self._at.get(key)
        self._at[key] = at
        # An entry that is too early is put right when it surfaces; one that is too late would be missed.
        if before is None or at < before:
            heapq.heappush(self._heap, (at, key))
            if before is not None:
                self._rebuild()

    def discard(self, key: K) -> None:
        """Take a deadline away; a key that has none is no error."""
        self._at.pop(key, None)
        self._rebuild()

    def next_at(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            at, key = self._heap[0]
            now_at = self._at.get(key)
            if now_at == at:
                return at
            heapq.heappop(self._heap)
            if now_at is not None and now_at > at:
                heapq.heappush(self._heap, (now_at, key))
        return None

    def may_be_due(self, now: float) -> bool:
        """Whether anything could be due: no entry is later than its key's deadline, so this is soon said."""
        return bool(self._heap) and self._heap[0][0] <= now

    def pop_due(self, now: float) -> K | None:
        """Take out the key with the earliest deadline, if that has come."""
        if not self.may_be_due(now):
            return None
        at = self.next_at()
        if at is None or at > now:
            return None
        key = heapq.heappop(self._heap)[1]
        del self._at[key]
        return key

    def _rebuild(self) -> None:
        if len(self._heap) > 2 * len(self._at) + _SPARE:
            self._heap = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._heap)
