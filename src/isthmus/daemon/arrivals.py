# SPDX-License-Identifier: BSD-3-Clause
"""Datagrams that have arrived and are not yet answered, each once however often its host has sent it.

A host that waits sends the same octets again (RFC 3103 §5). A copy that comes before the answer to the first has gone
out needs no answer of its own: that one is for both. And where so many wait that each would be answered late, those
that come then are lost, as any datagram may be: their hosts ask again. So a gateway that is asked for more than it can
do answers as many as it can, soon, and does not do the same things over and over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from isthmus.address import Address
from isthmus.border.effect import Peer

WAIT_SECONDS = 0.25
"""No datagram is put behind one that has waited longer."""
MOST_WAITING = 8192
"""Nor behind so many."""

Arrival = tuple[bytes, Peer]
"""Octets of a datagram, and from where it came."""


class Arrivals:
    """A queue of datagrams without copies."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._waiting: deque[Arrival] = deque()
        self._come: deque[tuple[float, int]] = deque()
        "When those that wait came, and how many then; of the first some may have been taken out."
        self._taken: list[Arrival] = []
        self._under_way: deque[list[Arrival]] = deque()
        self._last: dict[tuple[Address, int], bytes] = {}
        "By address and port: the last datagram from there, if it is not yet answered."
        self.refused: Counter[str] = Counter()
        """How many were left out: "duplicate" if they were copies, "busy" if too many waited."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, received: Iterable[Arrival], *, now: float) -> None:
        """Put datagrams behind those that wait, but for copies of the last one from the same address and port.

        Args:
            received: In the order in which they came.
            now: In seconds, by any clock.
        """
        last, waiting, before = self._last, self._waiting, len(self._waiting)
        most = MOST_WAITING if not self._come or now - self._come[0][0] <= WAIT_SECONDS else 0
        for each in received:
            data, peer = each
            source = (peer.address, peer.port)
            # Silent: RFC 3103 §10.1 has a duplicate answered again, and says nothing of one that comes before there is
            # an answer. The one that comes then is for both.
            if last.get(source) == data:
                self.refused["duplicate"] += 1
            elif len(waiting) >= most:
                self.refused["busy"] += 1
            else:
                last[source] = data
                waiting.append(each)
        if len(waiting) > before:
            self._come.append((now, len(waiting) - before))

    def take(self, most: int) -> Sequence[Arrival]:
        """Take out the first, as many as these at most."""
        pop = self._waiting.popleft
        taken = [pop() for _ in range(min(most, len(self._waiting)))]
        self._taken += taken
        left = len(taken)
        while left:
            at, count = self._come.popleft()
            if count > left:
                self._come.appendleft((at, count - left))
            left -= min(count, left)
        return taken

    def begin(self) -> None:
        """Take word that all that was taken out is being answered, as one batch; say ``answered`` when it is."""
        self._under_way.append(self._taken)
        self._taken = []

    def answered(self) -> None:
        """Take word that the answers of the batch that began first have gone out: copies now want one of their own."""
        last = self._last
        for data, peer in self._under_way.popleft():
            source = (peer.address, peer.port)
            if last.get(source) is data:
                del last[source]
