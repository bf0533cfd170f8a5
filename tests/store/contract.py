# SPDX-License-Identifier: BSD-3-Clause
"""What every lease store must do. A test module names a store and inherits all of this."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings

from isthmus.address import Address, Prefix
from isthmus.border.binding import FOREVER, Owner
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Prolong, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource
from isthmus.border.selector import Kind, Selector
from isthmus.errors import Conflict
from isthmus.store import Held, Tenure, open_store
from store.audit import audit
from store.contract_of_recall import RecallContract
from store.factory import EVER, Factory
from store.material import (
    ANNA,
    BERT,
    OTHER,
    PUBLIC,
    SHARED,
    bind,
    binds,
    key,
    ports,
    register,
    remember,
    spis,
    unbind,
    whole,
)


def held(effect: Bind) -> Held:
    return Held(binding=effect.binding, lease=effect.lease)


def names(tenures: tuple[Tenure, ...]) -> list[str]:
    return [str(each.key) for each in tenures]


class StoreContract(RecallContract):
    """The tests, in terms of a fixture ``factory``."""

    # What stands

    def test_a_new_store_is_empty(self, factory: Factory) -> None:
        snapshot = factory.open().load(rested_since=EVER)
        assert (snapshot.registrations, snapshot.bindings, snapshot.answers, snapshot.resting) == ((), (), (), ())

    def test_a_place_key_is_drawn_once_for_each_store(self, factory: Factory) -> None:
        key = factory.open().place_key()
        assert len(key) == 32
        factory.open().commit([register(ANNA), bind(ANNA, ports("1"))], now=100.0)
        assert factory.reopen().place_key() == key
        with closing(open_store("memory:")) as another:
            assert another.place_key() != key

    @pytest.mark.rfc("3102", "3.1")
    def test_what_was_committed_is_there_after_a_restart(self, factory: Factory) -> None:
        registered, bound, remembered = register(ANNA), bind(ANNA, ports("10000-10063")), remember(ANNA)
        factory.open().commit([registered, bound, remembered], now=100.0)
        snapshot = factory.reopen().load(rested_since=EVER)
        assert snapshot.registrations == (replace(registered.registration, last_bind_id=1),)
        assert snapshot.bindings == (held(bound),)
        assert snapshot.answers == (remembered,)

    @pytest.mark.rfc("3103", "7.3")
    def test_a_binding_comes_back_field_for_field(self, factory: Factory) -> None:
        @given(effect=binds)
        @settings(deadline=None, max_examples=200)
        def comes_back(effect: Bind) -> None:
            factory.open().commit([effect], now=effect.lease.granted_at)
            store = factory.reopen()
            try:
                assert store.leases() == (held(effect),)
                assert store.load(rested_since=EVER).bindings == (held(effect),)
            finally:
                store.commit([Unbind(key=effect.binding.key, ending=Ending.FREED)], now=effect.lease.granted_at)

        comes_back()

    def test_the_last_bind_id_of_a_registration_stays_when_its_binding_goes(self, factory: Factory) -> None:
        store = factory.open()
        effects = [register(ANNA), bind(ANNA, ports("1"), bind_id=7), bind(ANNA, ports("2"), bind_id=3)]
        store.commit([bind(BERT, ports("9"), bind_id=4), *effects, unbind(ANNA, 7)], now=100.0)
        (registration,) = factory.reopen().load(rested_since=EVER).registrations
        assert registration.last_bind_id == 7
        store = factory.reopen()
        store.commit([Deregister(owner=ANNA, ending=Ending.FREED), register(ANNA)], now=101.0)
        assert store.load(rested_since=EVER).registrations[0].last_bind_id == 0

    def test_ports_that_are_lent_are_held_by_who_listens(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-10"))], now=100.0)
        lender = replace(ports("2-10"), lent=Ranges.of(1))
        listening = [bind(ANNA, lender, granted_at=200.0), bind(ANNA, ports("1"), bind_id=2, granted_at=200.0)]
        store.commit(listening, now=200.0)
        assert factory.reopen().leases() == tuple(map(held, listening))
        store = factory.reopen()
        assert [each.key.bind_id for each in store.who_had(SHARED, port=1, at=300.0)] == [2]
        assert [each.key.bind_id for each in store.who_had(SHARED, port=1, at=150.0)] == [1]
        store.commit([unbind(ANNA, 2), bind(ANNA, ports("1-10"), granted_at=400.0)], now=400.0)
        assert [each.key.bind_id for each in store.who_had(SHARED, port=1, at=500.0)] == [1]
        assert store.load(rested_since=EVER).resting == ()

    def test_a_lease_may_lend_all_it_has(self, factory: Factory) -> None:
        store = factory.open()
        lender = bind(ANNA, replace(ports("1"), values=Ranges(()), lent=Ranges.of(1)))
        store.commit([lender, bind(ANNA, ports("1"), bind_id=2)], now=100.0)
        assert factory.reopen().leases()[0] == held(lender)
        assert [each.key.bind_id for each in factory.reopen().who_had(SHARED, port=None, at=200.0)] == [2]

    def test_ipsec_holds_ports_spis_and_port_500_by_cookie_in_one_binding(self, factory: Factory) -> None:
        cookie = Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.COOKIE)
        bound = [bind(ANNA, spis("4096-4099"), ports("7"), cookie), bind(BERT, spis("5000"), cookie)]
        factory.open().commit(bound, now=100.0)
        store = factory.reopen()
        assert store.leases() == tuple(map(held, bound))
        resource = Resource(realm=PUBLIC, address=SHARED, ports=Ranges.of(7), spis=Ranges.of((4096, 4099)), ike=True)
        assert [each.resource for each in store.who_had(SHARED, port=7, at=200.0)] == [resource]

    def test_leases_come_by_owner_and_bind_id(self, factory: Factory) -> None:
        low, high = (Owner(1, Address.parse(text)) for text in ("9.0.0.1", "10.0.0.1"))
        store = factory.open()
        wanted = [(low, 2), (low, 10), (high, 1)]
        for at, (owner, bind_id) in enumerate(reversed(wanted)):
            store.commit([bind(owner, ports(str(at)), bind_id=bind_id)], now=100.0)
        assert [each.binding.key for each in store.leases()] == [key(*each) for each in wanted]

    def test_a_key_bound_again_is_replaced(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-10"))], now=100.0)
        again = bind(ANNA, ports("5-20"), granted_at=200.0)
        store.commit([again, bind(BERT, ports("1-4"))], now=200.0)
        assert store.leases()[0] == held(again)

    def test_extend_moves_the_deadline_of_lease_and_history(self, factory: Factory) -> None:
        store = factory.open()
        bound = bind(ANNA, ports("1"), expires_at=200.0)
        store.commit([bound], now=100.0)
        store.commit([Extend(key=key(ANNA), expires_at=FOREVER)], now=150.0)
        (lease,) = factory.reopen().leases()
        assert lease.lease == replace(bound.lease, expires_at=FOREVER)
        assert [each.expires_at for each in factory.open().who_had(SHARED, port=1, at=5000.0)] == [FOREVER]

    def test_prolong_moves_the_deadline_of_a_registration(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([register(ANNA), register(BERT), Prolong(owner=ANNA, expires_at=2000.0)], now=100.0)
        assert [each.expires_at for each in store.load(rested_since=EVER).registrations] == [2000.0, 1000.0]

    def test_what_names_nothing_does_nothing(self, factory: Factory) -> None:
        store = factory.open()
        store.commit(
            [
                Extend(key=key(ANNA), expires_at=5.0),
                Prolong(owner=ANNA, expires_at=5.0),
                unbind(ANNA),
                Deregister(owner=ANNA, ending=Ending.FREED),
            ],
            now=100.0,
        )
        store.commit([], now=101.0)
        snapshot = factory.reopen().load(rested_since=EVER)
        assert (snapshot.registrations, snapshot.bindings, snapshot.answers, snapshot.resting) == ((), (), (), ())

    # Atomicity and conflicts

    @pytest.mark.parametrize(
        ("first", "second", "conflicts"),
        [
            (ports("10-20"), ports("20-30"), True),
            (ports("10-20"), ports("1-10"), True),
            (ports("10-20"), ports("15"), True),
            (ports("15"), ports("10-20"), True),
            (ports("1,10-20,40"), ports("2,30-45"), True),
            (ports("1,10-20,40"), ports("2-9,21-39,41"), False),
            (ports("10-20"), ports("10-20", OTHER), False),
            (ports("10-20"), ports("10-20", realm=7), False),
            (ports("10-20"), spis("10-20"), False),
            (spis("1000-4294967295"), spis("4294967295"), True),
            (whole("149.112.240.55"), whole("149.112.240.55"), True),
            (whole("149.112.240.0/24"), whole("149.112.240.0/24"), True),
            (whole("149.112.240.0/24"), whole("149.112.240.0/25"), False),
            (whole("149.112.240.55"), whole("149.112.240.55", realm=7), False),
            (whole("149.112.240.55"), ports("10-20"), False),
        ],
        ids=str,
    )
    def test_nobody_gets_what_another_key_holds(
        self, factory: Factory, first: Selector, second: Selector, conflicts: bool
    ) -> None:
        store = factory.open()
        store.commit([bind(ANNA, first)], now=100.0)
        if conflicts:
            with pytest.raises(Conflict) as caught:
                store.commit([bind(BERT, second)], now=101.0)
            assert caught.value.resource == str(second)
        else:
            store.commit([bind(BERT, second)], now=101.0)
        assert len(factory.reopen().leases()) == (1 if conflicts else 2)

    def test_identities_of_64_bits_conflict_like_anything_else(self, factory: Factory) -> None:
        def identities(*values: int | tuple[int, int]) -> Selector:
            return Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.IDENTITY, values=Ranges.of(*values))

        store = factory.open()
        store.commit([bind(ANNA, identities((1, (1 << 64) - 2)))], now=100.0)
        store.commit([bind(BERT, identities(0, (1 << 64) - 1))], now=100.0)
        with pytest.raises(Conflict):
            store.commit([bind(BERT, identities(1 << 63), bind_id=2)], now=101.0)
        (anna, _) = store.who_had(SHARED, port=None, at=500.0)[::-1]
        assert anna.resource == Resource(realm=PUBLIC, address=SHARED, identities=Ranges.of((1, (1 << 64) - 2)))
        assert store.who_had(SHARED, port=80, at=500.0) == ()

    def test_a_conflict_leaves_nothing_of_the_batch(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([register(ANNA), bind(ANNA, ports("1-10")), remember(ANNA)], now=100.0)
        before = store.load(rested_since=EVER)
        with pytest.raises(Conflict):
            store.commit(
                [
                    register(BERT),
                    remember(BERT),
                    bind(BERT, ports("11")),
                    Extend(key=key(ANNA), expires_at=5000.0),
                    Prolong(owner=ANNA, expires_at=5000.0),
                    bind(ANNA, ports("20-30"), granted_at=110.0),
                    remember(ANNA, counter=2),
                    unbind(BERT),
                    bind(BERT, ports("12,25")),
                    Deregister(owner=ANNA, ending=Ending.FREED),
                ],
                now=110.0,
            )
        for again in (False, True):
            each = factory.reopen() if again else store
            assert each.load(rested_since=EVER) == before
            assert each.owner_of(51) is None
            assert each.who_had(SHARED, port=11, at=None) == ()
            assert [t.expires_at for t in each.who_had(SHARED, port=None, at=None)] == [1000.0]
            audit(each, [SHARED])

    def test_what_a_failed_batch_gave_away_is_still_held(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-10")), bind(ANNA, ports("20"), bind_id=2)], now=100.0)
        for effects in (
            [unbind(ANNA), bind(BERT, ports("5")), bind(BERT, ports("20"), bind_id=2)],
            [bind(ANNA, ports("30"), granted_at=110.0), bind(BERT, ports("20"))],
        ):
            with pytest.raises(Conflict, match="port 20"):
                store.commit(effects, now=110.0)
            with pytest.raises(Conflict, match="port 5"):
                store.commit([bind(BERT, ports("5"))], now=110.0)
            store.commit([bind(BERT, ports("30")), unbind(BERT)], now=110.0)

    def test_a_batch_that_cannot_be_read_leaves_nothing(self, factory: Factory) -> None:
        def effects():
            yield register(ANNA)
            raise RuntimeError("halfway")

        store = factory.open()
        with pytest.raises(RuntimeError):
            store.commit(effects(), now=100.0)
        store.commit([register(BERT)], now=100.0)
        assert [each.owner for each in factory.reopen().load(rested_since=EVER).registrations] == [BERT]

    def test_a_resource_changes_hands_within_a_batch(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-10"))], now=100.0)
        taken = bind(BERT, ports("5-6"), granted_at=200.0)
        store.commit([unbind(ANNA), taken], now=200.0)
        store = factory.reopen()
        assert store.leases() == (held(taken),)
        assert names(store.who_had(SHARED, port=5, at=199.9)) == ["10.0.0.4#1"]
        assert names(store.who_had(SHARED, port=5, at=200.0)) == ["10.0.0.5#1"]

    # Hosts, client IDs and last answers

    def test_a_client_id_belongs_to_one_host(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([register(ANNA, 7)], now=100.0)
        with pytest.raises(Conflict, match="client ID 7 is already held"):
            store.commit([register(BERT, 7)], now=101.0)
        assert (store.owner_of(7), store.owner_of(8)) == (ANNA, None)
        store.commit([register(ANNA, 8), register(BERT, 7)], now=102.0)
        again = factory.reopen()
        assert (again.owner_of(7), again.owner_of(8)) == (BERT, ANNA)
        again.commit([Deregister(owner=BERT, ending=Ending.EXPIRED)], now=103.0)
        assert again.owner_of(7) is None

    def test_only_the_last_answer_of_a_host_is_kept(self, factory: Factory) -> None:
        store = factory.open()
        last = remember(ANNA, counter=(1 << 32) - 1, octets=bytes(range(256)))
        store.commit([register(ANNA), register(BERT), remember(ANNA), last, remember(BERT)], now=100.0)
        assert factory.reopen().load(rested_since=EVER).answers == (last, remember(BERT))

    @pytest.mark.rfc("3103", "10.1")
    @pytest.mark.parametrize("first", ["Deregister", "Remember"])
    def test_a_copy_of_the_last_request_of_all_gets_its_answer(self, factory: Factory, first: str) -> None:
        store = factory.open()
        store.commit([register(ANNA), remember(ANNA)], now=100.0)
        farewell = [Deregister(owner=ANNA, ending=Ending.FREED), remember(ANNA, counter=2)]
        store.commit(farewell if first == "Deregister" else farewell[::-1], now=200.0)
        store = factory.reopen()
        assert store.load(rested_since=200.0).answers == (remember(ANNA, counter=2),)
        assert store.load(rested_since=200.1).answers == ()
        store.commit([register(BERT)], now=260.0)
        assert store.load(rested_since=EVER).answers == (remember(ANNA, counter=2),)
        store.commit([Prolong(owner=BERT, expires_at=2000.0)], now=260.1)
        assert factory.reopen().load(rested_since=EVER).answers == ()

    @pytest.mark.parametrize("ending", [Ending.EXPIRED, Ending.REVOKED])
    def test_who_did_not_ask_to_go_leaves_no_answer(self, factory: Factory, ending: Ending) -> None:
        store = factory.open()
        store.commit([register(ANNA), remember(ANNA)], now=100.0)
        store.commit([Deregister(owner=ANNA, ending=ending)], now=101.0)
        assert store.load(rested_since=EVER).answers == ()

    def test_the_answer_of_who_comes_back_is_kept(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([register(ANNA), remember(ANNA), Deregister(owner=ANNA, ending=Ending.FREED)], now=100.0)
        store.commit([register(ANNA, 42)], now=110.0)
        store.commit([register(BERT)], now=500.0)
        assert factory.reopen().load(rested_since=400.0).answers == (remember(ANNA),)

    # History

    def test_a_tenure_lasts_from_grant_to_end_exclusive(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("80,10000-10063"))], now=100.0)
        store.commit([unbind(ANNA)], now=300.0)
        store = factory.reopen()
        for at, wanted in ((99.99, 0), (100.0, 1), (299.99, 1), (300.0, 0), (None, 1)):
            for port, holds in ((79, 0), (80, 1), (81, 0), (9999, 0), (10000, 1), (10063, 1), (10064, 0), (None, 1)):
                assert len(store.who_had(SHARED, port=port, at=at)) == wanted * holds, (at, port)
        (tenure,) = store.who_had(SHARED, port=80, at=200.0)
        assert tenure == Tenure(
            key=key(ANNA),
            client_id=41,
            resource=Resource(realm=PUBLIC, address=SHARED, ports=Ranges.parse("80,10000-10063")),
            granted_at=100.0,
            ended_at=300.0,
            ending=Ending.FREED,
            expires_at=1000.0,
        )
        assert store.who_had(OTHER, port=80, at=200.0) == ()

    def test_history_comes_newest_first(self, factory: Factory) -> None:
        store = factory.open()
        for at, owner in ((100.0, ANNA), (200.0, BERT), (300.0, ANNA)):
            store.commit([bind(owner, ports("1-64"), granted_at=at)], now=at)
            store.commit([unbind(owner, ending=Ending.REVOKED)], now=at + 50)
        tenures = store.who_had(SHARED, port=7, at=None)
        assert names(tenures) == ["10.0.0.4#1", "10.0.0.5#1", "10.0.0.4#1"]
        assert [each.ended_at for each in tenures] == [350.0, 250.0, 150.0]
        assert {each.ending for each in tenures} == {Ending.REVOKED}

    def test_what_expired_while_nobody_ran_ended_at_its_deadline(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1"), expires_at=400.0)], now=100.0)
        store = factory.reopen()
        assert names(store.who_had(SHARED, port=1, at=399.9)) == ["10.0.0.4#1"]
        assert store.who_had(SHARED, port=1, at=400.0) == ()
        (as_written,) = store.who_had(SHARED, port=1, at=None)
        assert (as_written.ended_at, as_written.ending, as_written.until) == (None, None, 400.0)
        (before,) = store.who_had(SHARED, port=1, at=None, now=399.9)
        assert before == as_written
        (expired,) = store.who_had(SHARED, port=1, at=None, now=90000.0)
        assert (expired.ended_at, expired.ending, expired.until) == (400.0, Ending.EXPIRED, 400.0)
        store.commit([unbind(ANNA, ending=Ending.EXPIRED)], now=90000.0)
        assert factory.reopen().who_had(SHARED, port=1, at=None) == (expired,)

    def test_a_clock_that_stepped_back_ends_nothing_before_it_began(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1"), granted_at=100.0)], now=100.0)
        store.commit([unbind(ANNA)], now=50.0)
        assert [each.ended_at for each in store.who_had(SHARED, port=1, at=None)] == [100.0]

    def test_who_held_the_whole_address_or_a_prefix_held_each_port(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, whole("149.112.240.55")), bind(BERT, whole("149.112.240.0/24"))], now=100.0)
        six, sip = Address.parse("2001:db8::1"), Address.from_octets(bytes.fromhex("4a00000200000009"))
        store.commit([bind(ANNA, Selector(realm=3, local=Prefix.of(six)), bind_id=2)], now=101.0)
        site = Prefix(Address.from_octets(bytes.fromhex("4a00000200000000")), 32)
        store.commit([bind(ANNA, Selector(realm=4, local=site), bind_id=3)], now=102.0)
        store = factory.reopen()
        assert names(store.who_had(SHARED, port=443, at=150.0)) == ["10.0.0.5#1", "10.0.0.4#1"]
        assert names(store.who_had(OTHER, port=None, at=150.0)) == ["10.0.0.5#1"]
        assert names(store.who_had(six, port=1, at=150.0)) == ["10.0.0.4#2"]
        assert names(store.who_had(sip, port=1, at=150.0)) == ["10.0.0.4#3"]
        assert store.who_had(Address.parse("149.112.241.0"), port=None, at=None) == ()

    def test_spis_are_history_of_their_address_and_no_ports(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, spis("256-511")), bind(BERT, ports("256"), spis("600"))], now=100.0)
        assert names(store.who_had(SHARED, port=256, at=150.0)) == ["10.0.0.5#1"]
        both = store.who_had(SHARED, port=None, at=150.0)
        assert {(str(each.resource.ports), str(each.resource.spis)) for each in both} == {
            ("None", "256-511"),
            ("256", "600"),
        }

    def test_every_realm_answers_for_its_address(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("80")), bind(BERT, ports("80", realm=7))], now=100.0)
        assert {each.resource.realm for each in store.who_had(SHARED, port=80, at=100.0)} == {PUBLIC, 7}

    def test_the_same_grant_bound_again_goes_on_in_its_tenure(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-9"))], now=100.0)
        store.commit([bind(ANNA, ports("1-9"), expires_at=5000.0)], now=200.0)
        assert [(each.granted_at, each.until) for each in store.who_had(SHARED, port=1, at=None)] == [(100.0, 5000.0)]
        audit(store, [SHARED])

    @pytest.mark.parametrize(
        ("deadline", "ending"), [(1000.0, Ending.REVOKED), (200.0, Ending.EXPIRED), (150.0, Ending.EXPIRED)]
    )
    def test_another_grant_under_the_same_key_ends_the_old_tenure(
        self, factory: Factory, deadline: float, ending: Ending
    ) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-9"), expires_at=deadline)], now=100.0)
        store.commit([bind(ANNA, ports("1-9"), granted_at=200.0)], now=200.0)
        new, old = store.who_had(SHARED, port=1, at=None)
        assert (old.ended_at, old.ending, new.granted_at) == (min(200.0, deadline), ending, 200.0)
        audit(store, [SHARED])

    def test_what_is_bound_and_ended_in_one_batch_is_history(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("5")), unbind(ANNA, ending=Ending.REVOKED)], now=100.0)
        assert store.leases() == ()
        assert [(each.granted_at, each.ended_at) for each in store.who_had(SHARED, port=5, at=None)] == [(100.0, 100.0)]
        assert store.who_had(SHARED, port=5, at=100.0) == ()

    # Resting

    @pytest.mark.rfc("3102", "6.1")
    def test_what_was_given_back_is_listed_oldest_first(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1"), bind_id=1), bind(ANNA, ports("2"), bind_id=2)], now=100.0)
        store.commit([bind(BERT, spis("700"), bind_id=3), bind(BERT, whole("149.112.240.56"), bind_id=4)], now=100.0)
        store.commit([unbind(ANNA, 2)], now=300.0)
        store.commit([unbind(ANNA, 1), unbind(BERT, 3)], now=310.0)
        store.commit([unbind(BERT, 4)], now=320.0)
        store = factory.reopen()
        assert [(at, str(each)) for at, each in store.load(rested_since=300.0).resting] == [
            (300.0, "149.112.240.55 ports 2"),
            (310.0, "149.112.240.55 ports 1"),
            (310.0, "149.112.240.55 SPIs 700"),
            (320.0, "149.112.240.56"),
        ]
        assert [at for at, _ in store.load(rested_since=310.5).resting] == [320.0]
        for since, ended in ((300.0, 4), (310.0, 3), (320.5, 0)):
            assert [store.has_more(than, ended_since=since) for than in (ended - 1, ended)] == [True, False]

    def test_what_is_held_again_does_not_rest(self, factory: Factory) -> None:
        store = factory.open()
        store.commit([bind(ANNA, ports("1-10")), bind(ANNA, whole("149.112.240.56"), bind_id=2)], now=100.0)
        store.commit([unbind(ANNA), unbind(ANNA, 2)], now=200.0)
        store.commit([bind(BERT, ports("4-6"), spis("9")), bind(BERT, whole("149.112.240.56"), bind_id=2)], now=201.0)
        assert [(at, str(each)) for at, each in store.load(rested_since=EVER).resting] == [
            (200.0, "149.112.240.55 ports 1-3,7-10")
        ]
