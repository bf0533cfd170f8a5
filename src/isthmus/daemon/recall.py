# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's hosts between memory and store: who is asked for is recalled, who has been idle is folded.

A gateway has no I/O, so somebody must recall a folded host before a message, a violation, an operator or a deadline
concerns it. Deadlines are read from the store a moment ahead of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from isthmus.border.binding import Owner
from isthmus.daemon.lapses import Lapses
from isthmus.rsip.gateway import Gateway
from isthmus.store import LeaseStore

HOSTS_AT_HAND = 40_000
"""How many hosts stay in memory: 2,800 octets for each, with one lease."""
AHEAD_SECONDS = 0.25
"""How far ahead deadlines are read from the store."""
RECALLED_AT_ONCE = 512
_SPARE, _MOST_SPARE = 8, 1024
"""Hosts are folded when there is one more for each so many, but no more than so many in one go."""


class Recall:
    """Folds and recalls the hosts of one gateway."""

    def __init__(self, store: LeaseStore, *, keep: int = HOSTS_AT_HAND, lapses: Lapses | None = None) -> None:
        """Put the parts together.

        Args:
            store: What knows all hosts.
            keep: How many hosts may stay in memory.
            lapses: Ends very many that have run out; None: each is recalled.
        """
        self._store = store
        self._lapses = lapses
        self._keep = keep
        self._looked_until = -math.inf
        "Every folded host that has a deadline before this has been recalled."
        self._not_before = -math.inf
        self._most = RECALLED_AT_ONCE
        self._fold_beyond = keep + _spare(keep)
        "Hosts are folded when more are at hand."

    def begin(self) -> None:
        """Begin with a gateway that was just restored."""
        self._looked_until = self._not_before = -math.inf
        self._most = RECALLED_AT_ONCE
        self._fold_beyond = self._keep + _spare(self._keep)

    def need(self, gateway: Gateway, owners: Iterable[Owner], *, now: float) -> int:
        """Recall those of some hosts that are folded; returns how many.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        folding = gateway.folding
        wanted = [owner for owner in owners if owner in folding]
        if wanted:
            kept = self._store.recall(wanted)
            folding.recall(
                kept.registrations, ((each.binding, each.lease) for each in kept.bindings), kept.answers, now=now
            )
        return len(wanted)

    def look(self, gateway: Gateway, *, now: float) -> None:
        """Recall some of those whose deadline comes soon, the soonest first; where very many have passed, end those.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        until = now + AHEAD_SECONDS
        if not len(gateway.folding) or now < self._not_before or self._looked_until >= until - AHEAD_SECONDS / 2:
            return
        if self._lapses is not None and self._lapses.active:
            return
        due = self._store.due(before=until, limit=self._most)
        if len(due) == self._most:
            if self._lapses is not None and self._lapses.begin(gateway, now=now):
                return
            soonest = self._store.soonest()
            if soonest is not None and soonest > now:
                # So many at once are not to be recalled: they are ended as they are, when their time has come.
                self._not_before = soonest
                return
        recalled = self.need(gateway, due, now=now)
        if len(due) < self._most:
            self._looked_until, self._most = until, RECALLED_AT_ONCE
        elif not recalled:
            # Those who are here already and have not yet ended stand before the others.
            self._most *= 2

    def pause(self, *, until: float) -> None:
        """Take word that a store cannot be read: it is not asked for deadlines before this, in seconds since 1970."""
        self._not_before = until

    def timer(self, gateway: Gateway) -> float | None:
        """When to look again, in seconds since 1970."""
        if not len(gateway.folding) or (self._lapses is not None and self._lapses.active):
            return None
        return max(self._looked_until - AHEAD_SECONDS / 2, self._not_before)

    def fold(self, gateway: Gateway) -> None:
        """Fold idle hosts, if there are many; everything that was taken from the gateway must be in the store."""
        folding = gateway.folding
        if folding.at_hand > self._fold_beyond:
            folding.fold(keep=self._keep, until=self._looked_until)
            # Who has an open connection cannot be folded, and is not to be looked at with every batch.
            self._fold_beyond = max(folding.at_hand, self._keep) + _spare(self._keep)


def _spare(keep: int) -> int:
    """How many hosts more than these may be at hand for a while."""
    return min(keep // _SPARE, _MOST_SPARE)
