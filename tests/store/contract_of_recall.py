# SPDX-License-Identifier: BSD-3-Clause
"""What every lease store must do for a gateway that keeps few hosts in memory. See ``store.contract``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address import Address
from isthmus.border.binding import FOREVER, Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind, Deregister, Ending, Prolong, Register
from isthmus.border.plain import PlainGroup
from isthmus.border.selector import Admit
from isthmus.errors import Conflict
from isthmus.store import Held, Recalled
from store.columns import as_rows
from store.factory import EVER, Factory
from store.material import (
    ANNA,
    BERT,
    GATEWAY,
    OTHER,
    PRIVATE,
    PUBLIC,
    SHARED,
    bind,
    key,
    ports,
    register,
    remember,
    spis,
    unbind,
    whole,
)

SIX = Owner(PRIVATE, Address.parse("2001:db8::4"))


def held(effect: Bind) -> Held:
    return Held(binding=effect.binding, lease=effect.lease)


def registered(owner: Owner, client_id: int) -> Register:
    return register(owner, client_id, expires_at=2000.0)


class RecallContract:
    """The tests, in terms of a fixture ``factory``."""

    def test_an_empty_store_recalls_nobody(self, factory: Factory) -> None:
        store = factory.open()
        assert store.recall([ANNA, BERT]) == store.recall([]) == Recalled(registrations=(), bindings=(), answers=())
        assert (store.soonest(), store.held_count(), store.registered_count()) == (None, 0, 0)
        assert not store.has_more(0, ended_since=0.0)
        assert store.due(before=FOREVER, limit=5) == store.holders(SHARED) == ()
        standing = as_rows(store.standing(rested_since=EVER))
        assert not any(standing.values())

    def test_a_host_is_recalled_with_all_that_it_has(self, factory: Factory) -> None:
        store = factory.open()
        plain, odd = bind(ANNA, ports("1-16"), bind_id=3), bind(ANNA, ports("40"), spis("7"), bind_id=2)
        of_six = bind(SIX, ports("50-59"))
        store.commit([register(BERT), remember(BERT), bind(BERT, ports("80"))], now=100.0)
        store.commit([register(ANNA), plain, odd, remember(ANNA, counter=9), registered(SIX, 61), of_six], now=100.0)
        store.commit([Prolong(owner=ANNA, expires_at=5000.0)], now=101.0)
        recalled = factory.reopen().recall([SIX, ANNA, ANNA])
        assert recalled == Recalled(
            registrations=(
                replace(register(ANNA, expires_at=5000.0).registration, last_bind_id=3),
                replace(registered(SIX, 61).registration, last_bind_id=1),
            ),
            bindings=(held(odd), held(plain), held(of_six)),
            answers=(remember(ANNA, counter=9),),
        )

    def test_who_has_left_is_recalled_by_the_last_answer(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([register(ANNA), remember(ANNA), register(BERT), remember(BERT)], now=100.0)
        store.commit([Deregister(owner=ANNA, ending=Ending.FREED), remember(ANNA, counter=2)], now=101.0)
        store.commit([Deregister(owner=BERT, ending=Ending.EXPIRED)], now=101.0)
        recalled = store.recall([ANNA, BERT])
        assert recalled == Recalled(registrations=(), bindings=(), answers=(remember(ANNA, counter=2),))
        assert store.standing(rested_since=EVER).departed == (remember(ANNA, counter=2),)
        assert store.standing(rested_since=101.5).departed == ()
        store.commit([register(ANNA)], now=102.0)
        assert store.recall([ANNA]).answers == (remember(ANNA, counter=2),)
        assert store.standing(rested_since=EVER).departed == ()

    def test_deadlines_come_soonest_first(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([register(ANNA, expires_at=900.0), bind(ANNA, ports("1"), expires_at=300.0)], now=100.0)
        store.commit([register(BERT, expires_at=200.0), registered(SIX, 61)], now=100.0)
        store.commit([bind(SIX, ports("9"), expires_at=250.0), bind(BERT, ports("3"), expires_at=FOREVER)], now=100.0)
        assert store.soonest() == 200.0
        assert store.due(before=1e9, limit=9) == (BERT, SIX, ANNA)
        assert store.due(before=300.0, limit=9) == (BERT, SIX)
        assert store.due(before=200.0, limit=9) == ()
        assert store.due(before=1e9, limit=1) == (BERT,)
        store.commit([unbind(SIX), Deregister(owner=BERT, ending=Ending.EXPIRED)], now=260.0)
        assert factory.reopen().due(before=1e9, limit=9) == (ANNA, SIX)
        assert factory.reopen().soonest() == 300.0

    def test_holders_are_found_by_address_and_port(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("10-20")), bind(ANNA, ports("30-40"), spis("9"), bind_id=2)], now=100.0)
        store.commit([bind(BERT, ports("15", realm=7)), bind(BERT, whole("149.112.240.0/28"), bind_id=2)], now=100.0)
        store.commit([bind(BERT, ports("21"), bind_id=3), unbind(BERT, 3)], now=101.0)
        store = factory.reopen()
        assert store.holders(SHARED) == (key(ANNA, 1), key(ANNA, 2), key(BERT, 1))
        assert store.holders(SHARED, 15) == (key(ANNA, 1), key(BERT, 1))
        assert store.holders(SHARED, 40) == (key(ANNA, 2),)
        assert store.holders(SHARED, 21) == store.holders(SHARED, 9) == store.holders(OTHER) == ()
        assert store.holders(Address.parse("149.112.240.7"), 80) == (key(BERT, 2),)
        assert (store.held_count(), store.registered_count()) == (4, 0)

    def test_what_stands_comes_in_columns(self, factory: Factory) -> None:
        store = factory.open()
        first, second = bind(ANNA, ports("1-16")), bind(BERT, ports("65535", OTHER), expires_at=FOREVER)
        elsewhere = bind(BERT, ports("1-16", realm=7), bind_id=2)
        odd = [bind(ANNA, spis("9"), bind_id=2), bind(BERT, ports("1,3", OTHER), bind_id=3)]
        given_back = [bind(ANNA, ports("100-131"), bind_id=8), bind(ANNA, spis("99"), bind_id=9)]
        store.commit([register(BERT), register(ANNA), registered(SIX, 61)], now=100.0)
        store.commit([first, second, elsewhere, *odd, *given_back], now=100.0)
        store.commit([unbind(ANNA, 8), unbind(ANNA, 9)], now=200.0)
        standing = factory.reopen().standing(rested_since=200.0)
        group = PlainGroup(realm=PUBLIC, near=PRIVATE, end=GATEWAY, kind=TunnelKind.IPIP, mtu=1480, admit=Admit.ANYONE)
        assert {each.group for each in standing.plain} == {group, replace(group, realm=7)}
        assert [str(each.local.dtype) for each in standing.plain] == ["uint32", "uint32"]
        assert as_rows(standing) == {
            "plain": [(each.binding, each.lease.expires_at) for each in (first, second, elsewhere)],
            "odd": (held(odd[0]), held(odd[1])),
            "hosts": {PRIVATE: ([ANNA.address.number, BERT.address.number], [41, 51])},
            "other hosts": (registered(SIX, 61).registration,),
            "departed": (),
            "resting": [(200.0, PUBLIC, SHARED.number, 100, 32)],
            "odd resting": ((200.0, factory.open().load(rested_since=200.0).resting[1][1]),),
        }

    def test_submitted_batches_have_outcomes(self, factory: Factory) -> None:
        store = factory.open()
        assert store.submit([bind(ANNA, ports("1"))], now=100.0).result(10) is None
        assert isinstance(store.submit([bind(BERT, ports("1"))], now=100.0).exception(10), Conflict)
        assert store.submit([], now=100.0).result(10) is None
        assert store.held_count() == 1

    @pytest.mark.parametrize("plain_first", [True, False])
    def test_plain_leases_and_others_do_not_lie_across_one_another(
        self, factory: Factory, *, plain_first: bool
    ) -> None:
        store = factory.open()
        pair = [bind(ANNA, ports("10-20")), bind(BERT, ports("20"), spis("5"))]
        first, second = pair if plain_first else pair[::-1]
        store.commit([first], now=100.0)
        with pytest.raises(Conflict):
            store.commit([second], now=101.0)
        with pytest.raises(Conflict):
            store.commit([bind(BERT, ports("1"), bind_id=7), second], now=101.0)
        assert store.held_count() == 1
        taken = [unbind(first.binding.key.owner), second, bind(BERT, ports("30"), bind_id=7)]
        store.commit(taken, now=102.0)
        assert store.held_count() == 2

    def test_what_is_ended_later_in_a_batch_is_in_the_way_until_then(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("10-20"))], now=100.0)
        with pytest.raises(Conflict):
            store.commit([bind(BERT, ports("20")), unbind(ANNA)], now=101.0)
        with pytest.raises(Conflict):
            store.commit([register(ANNA, 7), register(BERT, 7), Deregister(owner=ANNA, ending=Ending.FREED)], now=101.0)
        assert (store.held_count(), store.registered_count()) == (1, 0)

    def test_a_lease_that_becomes_plain_and_odd_goes_on(self, factory: Factory) -> None:
        plain = bind(ANNA, ports("10-20"))
        selector = replace(ports("10-20"), remote=replace(ports("10").remote, port=80))
        odd = bind(ANNA, selector, expires_at=1500.0)
        for each in (plain, odd, plain, odd):
            factory.open().commit([each], now=100.0)
            store = factory.reopen()
            assert store.recall([ANNA]).bindings == (held(each),)
            assert len(store.who_had(SHARED, port=15, at=None)) == 1
        assert store.standing(rested_since=EVER).odd == (held(odd),)
