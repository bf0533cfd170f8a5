# SPDX-License-Identifier: BSD-3-Clause
"""Misuses of the data plane in the log: a host that sends a million bad packets gets a line a second, not a million.

The first of a kind is logged at once; what follows within a second is one line with a number. Whoever forges many
sources gets no more than a few lines, and a number for the rest.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from isthmus.border.binding import Owner
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon.messages import Message, log

QUIET_SECONDS = 1.0
MOST_LINES = 16
"""Lines in one go."""
_MOST_KINDS = 1024
"""Hosts and reasons that are counted apart; others are counted together."""


class Misuses:
    """What is still to be logged."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._first: dict[tuple[Owner, Reason], Violation] = {}
        self._packets: Counter[tuple[Owner, Reason]] = Counter()
        self._others = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, violation: Violation, packets: int) -> None:
        """Count packets of one host that did the same; call it from within the event loop."""
        kind = violation.owner, violation.reason
        if kind in self._first or len(self._first) < _MOST_KINDS:
            self._first.setdefault(kind, violation)
            self._packets[kind] += packets
        else:
            self._others += packets
        if self._timer is None:
            self._write()

    def _write(self) -> None:
        """Log what there is, and nothing more for a while."""
        self._timer = None
        if not self._packets:
            return
        written = self._packets.most_common(MOST_LINES)
        for kind, packets in written:
            each = self._first[kind]
            flow = each.flow.text if each.flow is not None else ""
            log(Message.VIOLATION, reason=each.reason.name, host=str(each.owner), flow=flow, packets=packets)
        others = self._others + self._packets.total() - sum(packets for _, packets in written)
        if others:
            log(Message.VIOLATIONS, packets=others, hosts=len({owner for owner, _ in self._packets}))
        self._first.clear()
        self._packets.clear()
        self._others = 0
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._write)

    def close(self) -> None:
        """Log nothing more."""
        if self._timer is not None:
            self._timer.cancel()
