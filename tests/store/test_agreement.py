# SPDX-License-Identifier: BSD-3-Clause
"""The two stores against each other: whatever the batches, they say the same."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given, settings

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.effect import Durable
from isthmus.errors import Conflict
from isthmus.store import LeaseStore
from isthmus.store.memory import MemoryStore
from isthmus.store.sqlite import SqliteStore
from store.audit import audit, history
from store.columns import as_rows
from store.material import ANNA, BERT, OTHER, SHARED, batches

STRANGER = Owner(3, ANNA.address)
ADDRESSES = [SHARED, OTHER, Address.parse("149.112.1.1")]


def outcome(store: LeaseStore, effects: Iterable[Durable], now: float) -> str | None:
    try:
        store.commit(effects, now=now)
    except Conflict as conflict:
        return str(conflict)
    return None


def everything(store: LeaseStore, now: float) -> dict[str, object]:
    questions = [(address, port, at) for address in ADDRESSES for port in (1, 5, 12) for at in (50.0, now - 30, now)]
    return {
        "snapshot": store.load(rested_since=now - 120),
        "leases": store.leases(),
        "clients": [store.owner_of(client_id) for client_id in range(6)],
        "history": history(store, ADDRESSES),
        "answers": [store.who_had(a, port=p, at=t, now=now) for a, p, t in questions],
        "recalled": [store.recall(owners) for owners in ([], [ANNA], [BERT, STRANGER, ANNA])],
        "standing": as_rows(store.standing(rested_since=now - 120)),
        "due": [set(store.due(before=at, limit=100)) for at in (0.0, now, math.inf)],
        "soonest": store.soonest(),
        "holders": [store.holders(SHARED), store.holders(SHARED, 5), store.holders(OTHER, 5)],
        "counts": (store.held_count(), store.registered_count()),
    }


@given(story=batches)
@settings(deadline=None, max_examples=200)
def test_sqlite_does_what_memory_says(story: list[tuple[list[Durable], float]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "leases.db"
        memory, sqlite = MemoryStore(), SqliteStore(path)
        now = 100.0
        for effects, later in story:
            now += later
            assert outcome(sqlite, effects, now) == outcome(memory, effects, now)
            assert everything(sqlite, now) == everything(memory, now)
            audit(memory, [SHARED, OTHER])
        sqlite.close()
        again = SqliteStore(path)
        assert everything(again, now) == everything(memory, now)
        again.close()
