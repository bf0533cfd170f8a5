# SPDX-License-Identifier: BSD-3-Clause
"""Nothing that a host can ask for keeps the gateway from starting again.

Conversations out of the fuzzer's corpus, mutated, with a real file as store: it is opened anew after every change
of a lease, and a gateway is started with what it has (``fuzz_gateway.Talk.carry_out``).
"""

from __future__ import annotations

import random

import pytest

from fuzz.fuzz_gateway import Talk, hold
from fuzz.target import Target
from isthmus.store.sqlite import SqliteStore

CONVERSATIONS = 120


class ReopenedStore:
    """A store that is closed and opened before each reading."""

    def __init__(self, path):
        self._path = path
        self._store = SqliteStore(path)
        self.opened = 1

    def __getattr__(self, name):
        return getattr(self._store, name)

    def load(self, *, rested_since):
        self._store.close()
        self._store = SqliteStore(self._path)
        self.opened += 1
        return self._store.load(rested_since=rested_since)


@pytest.mark.rfc("3103", "11")
def test_the_store_loads_again_after_every_fuzzed_lease(tmp_path):
    target, rng = Target.load("gateway"), random.Random(4555)
    opened, seen = 0, set()
    for number in range(CONVERSATIONS):
        octets = rng.choice(target.corpus)
        for _ in range(number % 4):
            octets = target.mutate(octets, rng)
        store = ReopenedStore(tmp_path / f"{number}.db")
        talk = hold(octets, store=store)
        seen |= {type(each).__name__ for each in talk.ledger.history}
        opened += store.opened
        store.close()
    assert opened > 2 * CONVERSATIONS, "leases must have been granted"
    assert {"Bind", "Register", "Send", "Remember"} <= seen


def test_what_was_kept_is_what_is_started_with(tmp_path):
    for octets in Target.load("gateway").corpus:
        talk: Talk = hold(octets, store=ReopenedStore(tmp_path / "leases.db"))
        assert {held.binding.key for held in talk.store.leases()} == set(talk.ledger.leases)
        assert len(talk.started(seed=3)) == len(talk.gateway)
        talk.store.close()
        (tmp_path / "leases.db").unlink()
