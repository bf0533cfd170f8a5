# SPDX-License-Identifier: BSD-3-Clause
"""Which peers a host has written to, for bindings that admit no others (our reading of RFC 3102 §2).

Time is counted in epochs of 64 seconds, and a peer is remembered for 120 of them after
the one in which it was last written to: two hours and eight minutes, a little more than
the two hours of an idle TCP connection (RFC 1122 §4.2.3.6). Epochs instead of seconds
let the kernel plane keep a peer in one word.
"""

from __future__ import annotations

from typing import Protocol

from isthmus.address import Address
from isthmus.border.binding import Owner

EPOCH_SECONDS = 64
KEPT_EPOCHS = 120


class Contacts(Protocol):
    """A memory of peers."""

    def note(self, owner: Owner, local: Address, remote: Address, *, now: float) -> None:
        """The owner has written to a peer from one of its addresses."""

    def knows(self, owner: Owner, local: Address, remote: Address, *, now: float) -> bool:
        """Whether it has, lately."""


class ContactedPeers:
    """A memory of peers that forgets by time, and the longest silent ones when it is full.

    Args:
        capacity: Most peers that are kept, over all owners.
    """

    def __init__(self, capacity: int = 1 << 18) -> None:
        self._capacity = capacity
        self._epochs: dict[tuple[Owner, Address, Address], int] = {}

    def __len__(self) -> int:
        """How many peers are kept, forgotten ones included until their place is needed."""
        return len(self._epochs)

    def note(self, owner: Owner, local: Address, remote: Address, *, now: float) -> None:
        """The owner has written to a peer from one of its addresses."""
        key = (owner, local, remote)
        # Taken out first, so that the order of the dictionary is that of the last writing.
        self._epochs.pop(key, None)
        if len(self._epochs) >= self._capacity:
            del self._epochs[next(iter(self._epochs))]
        self._epochs[key] = epoch(now)

    def knows(self, owner: Owner, local: Address, remote: Address, *, now: float) -> bool:
        """Whether it has, in this epoch or the 120 before."""
        noted = self._epochs.get((owner, local, remote))
        return noted is not None and epoch(now) - noted <= KEPT_EPOCHS


def epoch(now: float) -> int:
    """Number of the epoch that a time lies in."""
    return int(now) // EPOCH_SECONDS
