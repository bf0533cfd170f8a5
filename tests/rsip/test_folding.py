# SPDX-License-Identifier: BSD-3-Clause
"""A folded host behaves as if it had never been folded: the model of ``test_model``, with two gateways instead of one.

Both hear the same. One keeps everybody in memory; the other forgets hosts at any moment and recalls them from a store.
They must say and do the same, and all that the model promises holds as well.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import invariant

from isthmus.address import Address
from isthmus.border.effect import Bind, Peer, Register, Send, in_order
from isthmus.border.plain import one_by_one
from isthmus.daemon.recall import Recall
from isthmus.store.memory import MemoryStore
from isthmus.wire.rsip.message import emit, parse
from rsip.conversation import NEAR, START, make_gateway, make_policy, make_pool
from rsip.requests import assign_ports, register
from rsip.test_model import Talk, small_pool, walk

SEEDS = 12


class Twins:
    """Two gateways that look like one, and a store."""

    def __init__(self, *arguments, **options):
        self.one, self.two = make_gateway(*arguments, **options), make_gateway(arguments[0], small_pool(), **options)
        self.store = MemoryStore()
        self.recall = Recall(self.store)
        self.rng = random.Random(5)
        self.now = 0.0
        self.folded = 0

    def __len__(self):
        assert len(self.one) == len(self.two)
        return len(self.one)

    @property
    def _pool(self):
        return self.one._pool

    def _have(self, owner, now):
        self.now = now
        if self.recall.timer(self.two) is not None:
            self.recall.begin()
            self.recall.look(self.two, now=now)
        self.recall.need(self.two, [owner] if owner else [], now=now)

    def _both(self, name, *arguments, owner=None, **options):
        self._have(owner, options.get("now", self.now))
        return self._same(*(getattr(each, name)(*arguments, **options) for each in (self.one, self.two)))

    def _same(self, one, two):
        assert one == two
        return one

    def receive_datagram(self, data, peer, *, now):
        self._both("receive_datagram", data, peer, owner=peer.owner, now=now)

    def receive_message(self, data, peer, *, now):
        self._both("receive_message", data, peer, owner=peer.owner, now=now)

    def connection_lost(self, peer):
        self._both("connection_lost", peer)

    def handle_timer(self, *, now):
        self._both("handle_timer", now=now)

    def revoke(self, key, *, now):
        return self._both("revoke", key, owner=key.owner, now=now)

    def dismiss(self, owner, *, now):
        return self._both("dismiss", owner, owner=owner, now=now)

    def get_timer(self):
        stored = self.store.soonest() if len(self.two.folding) else None
        timers = [each for each in (self.two.get_timer(), stored) if each is not None]
        assert self.one.get_timer() == min(timers, default=None)
        return self.one.get_timer()

    def next_effects(self):
        """What both want, carried out in the store; then some hosts are forgotten."""
        effects = self._same(self.one.next_effects(), self.two.next_effects())
        self.store.commit(in_order(effects).persist, now=self.now)
        for owner in [client.owner for client in self.two._roster]:
            if self.rng.random() < 0.7:
                self.folded += self.two.folding.forget(owner, until=self.now)
        return effects

    def restore(self, registrations, held, answers, resting, *, now):
        self.store.commit(
            (
                *(Register(registration=each) for each in registrations),
                *(Bind(binding=binding, lease=lease) for binding, lease in held),
                *answers,
            ),
            now=now,
        )
        for each in (self.one, self.two):
            each.restore(registrations, held, answers, resting, now=now)


class FoldedTalk(Talk):
    """The model, over twins."""

    make_gateway = Twins

    @invariant()
    def both_have_refused_the_same(self):
        if hasattr(self, "gateway"):
            assert self.gateway.one.refusals == self.gateway.two.refusals


FoldedTalk.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TestFoldedTalk = FoldedTalk.TestCase


def test_random_conversations_with_folded_hosts():
    """Longer walks, as in ``test_model``."""
    folded = 0
    for seed in range(SEEDS):
        talk = FoldedTalk()
        walk(talk, random.Random(seed), seed)
        folded += talk.gateway.folded
    assert folded > 100


@pytest.mark.parametrize("registration_lease", [60, 3600])
def test_what_lapses_is_what_would_end_one_by_one(registration_lease):
    policy = make_policy(lease_minimum=10, lease_default=60, registration_lease=registration_lease)
    one, two = make_gateway(policy, make_pool()), make_gateway(policy, make_pool())
    store, now = MemoryStore(), START
    hosts = [Peer(NEAR, Address.parse(f"10.0.{number}.4"), 4000 + number) for number in range(30)]

    def ask(message, peer):
        for each in (one, two):
            each.receive_datagram(emit(message), peer, now=now)
        effects = one.next_effects()
        assert two.next_effects() == effects
        store.commit(in_order(effects).persist, now=now)
        return parse(effects[-1].data)

    for peer in hosts:
        client_id = ask(register(1), peer).client_id.value
        ask(assign_ports(client_id, 2, ports=64), peer)
        assert two.folding.forget(peer.owner, until=now)
    now = START + 61
    one.handle_timer(now=now)
    found = store.lapsing(NEAR, before=now, limit=100)
    lapsed = two.folding.lapse(found.hosts, found.leases, now=now)
    said = [Send(data=data, peer=peer) for each in lapsed.farewells for data, peer in each.each()]
    expected, effects = one.next_effects(), (lapsed.effect, *said, *two.next_effects())
    assert sorted(map(repr, one_by_one(effects))) == sorted(map(repr, expected))
    assert len(one) == len(two)
    store.commit(in_order(effects).persist, now=now)
    assert not store.leases()
    for moment in (now, now + 121):
        now = moment
        assert ask(register(3), Peer(NEAR, Address.parse("10.1.1.1"), int(now) % 9999)) is not None
        assert one._pool.free_ports() == two._pool.free_ports()
