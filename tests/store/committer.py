# SPDX-License-Identifier: BSD-3-Clause
"""A process that commits numbered batches and tells which of them were acknowledged.

    python committer.py PATH DESCRIPTOR FIRST [apart]

writes the number of each batch to the descriptor as four octets, once its commit has
returned, until somebody kills it.
"""

from __future__ import annotations

import itertools
import os
import sys

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.effect import Deregister, Durable, Ending, Extend, Prolong
from isthmus.store import LeaseStore
from isthmus.store.apart import ApartStore
from isthmus.store.sqlite import SqliteStore
from store.material import OTHER, PRIVATE, SHARED, bind, key, ports, register, remember, spis, unbind

ADDRESSES = [SHARED, OTHER]
_LIFE = 3
"Batches that a binding stands for."


def host(number: int) -> Owner:
    return Owner(PRIVATE, Address.parse(f"10.0.1.{number % 16 + 1}"))


def begins(number: int) -> float:
    return 1000.0 + number


def batch(number: int) -> list[Durable]:
    """Some of everything; resources come round every four batches, so that what is half undone would conflict."""
    owner, slot = host(number), number % 4
    effects: list[Durable] = []
    if number >= _LIFE:
        gone = number - _LIFE
        effects += [
            unbind(host(gone), bind_id, Ending.EXPIRED if gone % 2 else Ending.FREED) for bind_id in range(1, 6)
        ]
        effects.append(Deregister(owner=host(gone), ending=Ending.FREED))
    effects.append(register(owner, client_id=number % 16 + 1, expires_at=begins(number) + 50))
    for bind_id in range(1, 5):
        base = 2000 * (slot + 1) + 100 * bind_id
        some = ports(f"{base}-{base + 63},{base + 70},{base + 80}", SHARED if bind_id % 2 else OTHER)
        effects.append(bind(owner, some, bind_id=bind_id, granted_at=begins(number), client_id=number % 16 + 1))
    secret = spis(f"{256 + 16 * slot}-{263 + 16 * slot}")
    effects.append(bind(owner, secret, bind_id=5, granted_at=begins(number), client_id=number % 16 + 1))
    if number >= 1:
        effects.append(Extend(key=key(host(number - 1), 3), expires_at=5000.0 + number))
        effects.append(Prolong(owner=host(number - 1), expires_at=5000.0 + number))
    effects.append(remember(owner, counter=number))
    return effects


def commit_from(store: LeaseStore, first: int, acknowledge: int, count: int | None = None) -> None:
    numbers = itertools.count(first) if count is None else range(first, first + count)
    for number in numbers:
        store.commit(batch(number), now=begins(number))
        os.write(acknowledge, number.to_bytes(4, "big"))


if __name__ == "__main__":
    store = ApartStore(sys.argv[1]) if sys.argv[4:] == ["apart"] else SqliteStore(sys.argv[1])
    commit_from(store, int(sys.argv[3]), int(sys.argv[2]))
