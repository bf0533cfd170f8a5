# SPDX-License-Identifier: BSD-3-Clause
"""``Pool``: nothing is leased twice, what is given back rests, and the seed decides."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from isthmus.address import Address, Prefix
from isthmus.border.binding import Owner
from isthmus.border.pool import ALL_SPIS, SPI_FIRST, Pool, PoolError, Quota, Resource, Shortage
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind

A, B = Address.parse("192.0.2.7"), Address.parse("192.0.2.8")
WHOLE = Prefix.parse("198.51.100.0/30")
ALICE, BOB = (Owner(1, Address.parse(f"10.0.0.{n}")) for n in (4, 5))
CAROL = Owner(1, Address.parse("2001:db8::6"))


THOUSAND = Ranges.of((1000, 1999))


def pool(ports: Ranges = THOUSAND, **changes) -> Pool:
    options = {
        "shared": [(A, ports), (B, ports)],
        "whole": [WHOLE],
        "spis": {A: ALL_SPIS, B: Ranges.of((0, 0xFFF))},
        "slice_size": 16,
        "seed": 5,
    }
    return Pool(2, **(options | changes))


def shortage(call, *arguments, **keywords) -> Shortage:
    with pytest.raises(PoolError) as raised:
        call(*arguments, **keywords)
    return raised.value.shortage


def outcome(call, *arguments, **keywords) -> tuple[Resource | None, Shortage | None]:
    """What came of a call: a resource, or the reason why not."""
    try:
        return call(*arguments, **keywords), None
    except PoolError as error:
        return None, error.shortage


class Leasing(RuleBasedStateMachine):
    """A pool beside a dictionary of who has what, and since when it rests."""

    @initialize(seed=st.integers(0, 99), slice_size=st.sampled_from([1, 8, 16]), computed=st.booleans())
    def begin(self, seed, slice_size, computed):
        self.computed = computed
        self.ours = {(address, port) for address in (A, B) for port in range(1003, 1061)}
        self.spis = {A: Ranges.of((0x1001, 0x1010)), B: Ranges.of((0x1000, 0x1003), (0x2000, 0x2005))}
        self.quota = Quota(bindings=8, ports=40, addresses=2, spis=12)
        self.pool = self._pool(seed, slice_size)
        self.held: dict = {}
        self.leases: list = []
        self.rest: dict = {}
        self.now = 0.0

    def _pool(self, seed, slice_size):
        options = {"slice_size": slice_size, "computed": self.computed, "quota": self.quota, "spis": self.spis}
        return pool(Ranges.of((1003, 1060)), seed=seed, ike=[A], **options)

    def _take(self, owner, resource):
        assert resource.realm == 2
        items = _items(resource)
        for item in items:
            assert item not in self.held, "leased twice"
            where, what = item
            assert item in self.ours or (what is None and where in WHOLE) or what[1] in self.spis[where]
            assert self.now - self.rest.get(item, -1e9) >= 120, "leased before it had rested"
        self.held |= dict.fromkeys(items, owner)
        self.leases.append((owner, resource))

    def _free(self, item):
        return item not in self.held and self.now - self.rest.get(item, -1e9) >= 120

    def _has_room(self, where, wanted):
        return all((where, port) in self.ours and self._free((where, port)) for port in wanted)

    @rule(owner=st.sampled_from([ALICE, BOB, CAROL]), count=st.integers(1, 20), address=st.sampled_from([None, A, B]))
    def any_ports(self, owner, count, address):
        size = 1 << (count - 1).bit_length()
        resource, refusal = outcome(self.pool.take_ports, owner, address=address, ports=count, now=self.now)
        if resource is None:
            assert refusal in (Shortage.NO_PORTS, Shortage.QUOTA)
            # A slice that is begun is only used for what is smaller than a slice.
            need = count if size < self.pool.slice_size else size
            room = any(
                self._has_room(where, range(start, start + need))
                for where in ([address] if address else [A, B])
                for start in range(0, 1100, size)
            )
            assert refusal is Shortage.QUOTA or not room
            return
        assert address in (None, resource.address)
        ((first, last),) = resource.ports.pairs
        assert first % size == 0
        assert last == first + count - 1
        self._take(owner, resource)

    @rule(
        owner=st.sampled_from([ALICE, BOB, CAROL]),
        first=st.integers(1000, 1062),
        count=st.integers(1, 3),
        address=st.sampled_from([None, A]),
    )
    def named_ports(self, owner, first, count, address):
        wanted = Ranges.of((first, first + count - 1))
        resource, refusal = outcome(self.pool.take_ports, owner, address=address, ports=wanted, now=self.now)
        if resource is None:
            inside = all((A, port) in self.ours for port in wanted)
            room = any(self._has_room(where, wanted) for where in ([address] if address else [A, B]))
            shortage = Shortage.PORTS_IN_USE if inside else Shortage.PORTS_NOT_OURS
            assert refusal is Shortage.QUOTA or (refusal is shortage and not room)
            return
        assert resource.ports == wanted
        self._take(owner, resource)

    @rule(owner=st.sampled_from([ALICE, BOB, CAROL]), n=st.sampled_from([None, 0, 1]))
    def an_address(self, owner, n):
        address = None if n is None else Address(WHOLE.family, WHOLE.address.number + n)
        resource, refusal = outcome(self.pool.take_address, owner, address=address, now=self.now)
        if resource is not None:
            self._take(owner, resource)
        elif address is not None:
            assert refusal is Shortage.QUOTA or (refusal is Shortage.ADDRESS_IN_USE and not self._free((address, None)))
        else:
            free = any(self._free((each, None)) for each in WHOLE)
            assert refusal is Shortage.QUOTA or (refusal is Shortage.NO_ADDRESS and not free)

    @rule(
        owner=st.sampled_from([ALICE, BOB, CAROL]),
        spis=st.sampled_from([1, 2, 3, 8, Ranges.of(0x1001), Ranges.of((0x1002, 0x1004)), Ranges.of(0x1001, 0x2001)]),
        ports=st.sampled_from([None, 1, 5, Ranges.of((1010, 1012))]),
        address=st.sampled_from([None, A, B]),
    )
    def some_spis(self, owner, spis, ports, address):
        resource, refusal = outcome(self.pool.take_spis, owner, address=address, spis=spis, ports=ports, now=self.now)
        if resource is None:
            assert refusal in (
                Shortage.NO_PORTS,
                Shortage.PORTS_IN_USE,
                Shortage.NO_SPI,
                Shortage.SPI_IN_USE,
                Shortage.SPI_NOT_OURS,
                Shortage.QUOTA,
            )
            return
        assert address in (None, resource.address)
        assert resource.ike == (resource.address == A)
        assert len(resource.spis) == (spis if isinstance(spis, int) else len(spis))
        if isinstance(spis, int):
            assert resource.spis.pairs[0][0] % (1 << (spis - 1).bit_length()) == 0
        assert (resource.ports is None) == (ports is None)
        self._take(owner, resource)

    @rule(data=st.data())
    def give_back(self, data):
        if self.leases:
            owner, resource = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
            self.pool.release(owner, resource, now=self.now)
            for item in _items(resource):
                del self.held[item]
                self.rest[item] = self.now

    @rule(seconds=st.sampled_from([1, 30, 119, 120, 121]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def restart(self):
        """The same contents in a new pool, as after a restart of the gateway."""
        fresh = self._pool(1, self.pool.slice_size)
        for owner, resource in self.leases:
            fresh.restore(owner, resource)
        for item, at in sorted(self.rest.items(), key=lambda pair: pair[1]):
            if item not in self.held and at + 120 > self.now:
                where, what = item
                held = {"spis": Ranges.of(what[1])} if isinstance(what, tuple) else {}
                held |= {"ports": Ranges.of(what)} if isinstance(what, int) else {}
                fresh.restore_resting(Resource(realm=2, address=where, **held), until=at + 120)
        self.pool = fresh

    @invariant()
    def nobody_has_more_than_the_quota(self):
        for owner in (ALICE, BOB, CAROL):
            mine = [resource for each, resource in getattr(self, "leases", []) if each == owner]
            assert len(mine) <= 8
            assert sum(len(each.ports or ()) for each in mine) <= 40
            assert sum(len(each.spis or ()) for each in mine) <= 12
            assert sum(each.whole for each in mine) <= 2


def _items(resource):
    """What is held, one by one: ports as numbers, SPIs as pairs, a whole address as nothing."""
    if resource.whole:
        return [(resource.address, None)]
    spis = [(resource.address, ("spi", spi)) for spi in resource.spis or ()]
    return spis + [(resource.address, port) for port in resource.ports or ()]


Leasing.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestLeasing = Leasing.TestCase


@pytest.mark.parametrize(
    ("count", "alignment"), [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (64, 64), (100, 128), (255, 256)]
)
def test_any_ports_begin_at_a_power_of_two(count, alignment):
    for seed in range(5):
        resource = pool(Ranges.of((1024, 4095)), seed=seed).take_ports(ALICE, ports=count, now=0.0)
        ((first, last),) = resource.ports.pairs
        assert first % alignment == 0
        assert last - first + 1 == count


def test_the_same_seed_gives_the_same_and_another_seed_something_else():
    def play(seed):
        one = pool(Ranges.of((1024, 9999)), seed=seed)
        return [one.take_ports(owner, ports=8, now=0.0) for owner in (ALICE, BOB) * 10] + [
            one.take_address(ALICE, now=0.0)
        ]

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_a_host_stays_on_its_address():
    one = pool()
    first = one.take_ports(ALICE, ports=4, now=0.0).address
    assert {one.take_ports(ALICE, ports=4, now=0.0).address for _ in range(30)} == {first}


@pytest.mark.rfc("3103", "11")
@pytest.mark.parametrize(
    ("quota", "calls", "last"),
    [
        (Quota(bindings=2), 2, {"ports": 1}),
        (Quota(ports=8), 2, {"ports": 4}),
    ],
)
def test_quotas_are_for_every_single_host(quota, calls, last):
    one = pool(quota=quota)
    for _ in range(calls):
        one.take_ports(ALICE, ports=4, now=0.0)
    assert shortage(one.take_ports, ALICE, now=0.0, **last) is Shortage.QUOTA
    resource = one.take_ports(BOB, ports=4, now=0.0)
    one.release(BOB, resource, now=0.0)
    for _ in range(calls):
        one.take_ports(BOB, ports=4, now=0.0)


def test_quota_of_addresses_and_spis():
    one = pool(quota=Quota(addresses=1, spis=3))
    one.take_address(ALICE, now=0.0)
    assert shortage(one.take_address, ALICE, now=0.0) is Shortage.QUOTA
    one.take_spis(ALICE, address=A, spis=2, now=0.0)
    assert shortage(one.take_spis, ALICE, address=A, spis=2, now=0.0) is Shortage.QUOTA


def test_shortages_are_named():
    one = pool(Ranges.of((1000, 1015)))
    assert shortage(one.take_address, ALICE, address=A, now=0.0) is Shortage.ADDRESS_NOT_OURS
    assert shortage(one.take_ports, ALICE, address=WHOLE.address, now=0.0) is Shortage.ADDRESS_NOT_OURS
    assert shortage(one.take_ports, ALICE, ports=Ranges.of(80), now=0.0) is Shortage.PORTS_NOT_OURS
    assert shortage(one.take_ports, ALICE, ports=17, now=0.0) is Shortage.NO_PORTS
    assert shortage(Pool(2).take_ports, ALICE, now=0.0) is Shortage.NO_ADDRESS
    assert shortage(Pool(2).take_address, ALICE, now=0.0) is Shortage.NO_ADDRESS
    one.take_address(ALICE, address=WHOLE.address, now=0.0)
    assert shortage(one.take_address, BOB, address=WHOLE.address, now=0.0) is Shortage.ADDRESS_IN_USE
    one.take_ports(ALICE, address=A, ports=Ranges.of(1001), now=0.0)
    assert shortage(one.take_ports, BOB, address=A, ports=Ranges.of(1001, 1002), now=0.0) is Shortage.PORTS_IN_USE


def test_a_refusal_changes_nothing():
    one = pool(quota=Quota(ports=4))
    free = one.free_ports(), one.free_addresses()
    for ports in (5, Ranges.of(80), Ranges.of((1000, 1004)), 5000):
        shortage(one.take_ports, ALICE, ports=ports, now=0.0)
    assert (one.free_ports(), one.free_addresses()) == free


def test_what_is_given_back_rests_and_then_is_free():
    one = pool()
    ports, addresses = one.free_ports(), one.free_addresses()
    leases = [
        one.take_ports(ALICE, ports=7, now=0.0),
        one.take_address(ALICE, now=0.0),
        one.take_spis(ALICE, address=A, spis=4, now=0.0),
    ]
    for resource in leases:
        one.release(ALICE, resource, now=10.0)
    assert (one.free_ports(), one.free_addresses()) == (ports - 7, addresses - 1)
    assert shortage(one.take_spis, BOB, address=A, spis=leases[2].spis, now=129.9) is Shortage.SPI_IN_USE
    one.take_spis(BOB, address=A, spis=leases[2].spis, now=130.0)
    assert (one.free_ports(), one.free_addresses()) == (ports, addresses)


def test_spis_are_aligned_random_and_never_reserved():
    one = pool()
    resource = one.take_spis(ALICE, address=A, spis=6, now=0.0)
    ((first, last),) = resource.spis.pairs
    assert first % 8 == 0
    assert (first >= SPI_FIRST, last - first) == (True, 5)
    resource = one.take_spis(ALICE, address=A, spis=Ranges.of(0x800, 0x900), now=0.0)
    assert shortage(one.take_spis, ALICE, address=A, spis=Ranges.of(255), now=0.0) is Shortage.SPI_NOT_OURS
    assert shortage(one.take_spis, ALICE, address=WHOLE.address, spis=1, now=0.0) is Shortage.ADDRESS_NOT_OURS
    assert shortage(one.take_spis, BOB, address=A, spis=resource.spis, now=0.0) is Shortage.SPI_IN_USE
    assert one.take_spis(BOB, address=B, spis=resource.spis, now=0.0).address == B


def test_claims_are_everything_that_may_be_leased():
    claims = pool(ike=[B]).claims
    assert [(claim.kind, str(claim.local), str(claim.values)) for claim in claims] == [
        (Kind.PORT, f"{A}/32", "1000-1999"),
        (Kind.SPI, f"{A}/32", "256-4294967295"),
        (Kind.PORT, f"{B}/32", "1000-1999"),
        (Kind.SPI, f"{B}/32", "256-4095"),
        (Kind.COOKIE, f"{B}/32", ""),
        (None, str(WHOLE), ""),
    ]
    assert all(claim.realm == 2 for claim in claims)


@pytest.mark.rfc("3104", "6.1")
def test_port_500_that_is_shared_by_cookie_is_never_leased():
    one = pool(Ranges.of((490, 510)), ike=[A])
    assert shortage(one.take_ports, ALICE, address=A, ports=Ranges.of(500), now=0.0) is Shortage.PORTS_NOT_OURS
    assert one.take_ports(ALICE, address=B, ports=Ranges.of(500), now=0.0).ports == Ranges.of(500)
    assert one.free_ports() == 40
    assert one.take_spis(ALICE, address=A, spis=1, now=0.0).ike
    assert not one.take_spis(ALICE, address=B, spis=1, now=0.0).ike
    assert not one.take_ports(ALICE, address=A, now=0.0).ike


def test_spis_and_ports_are_of_one_address_and_taken_together_or_not_at_all():
    one = pool(Ranges.of((1000, 1015)), spis={B: Ranges.of((0x1000, 0x1007))})
    resource = one.take_spis(ALICE, spis=4, ports=8, now=0.0)
    assert (resource.address, len(resource.spis), len(resource.ports)) == (B, 4, 8)
    free = one.free_ports()
    assert shortage(one.take_spis, BOB, spis=5, ports=8, now=0.0) is Shortage.NO_SPI
    assert shortage(one.take_spis, BOB, spis=4, ports=9, now=0.0) is Shortage.NO_PORTS
    assert shortage(one.take_spis, BOB, address=A, spis=1, now=0.0) is Shortage.ADDRESS_NOT_OURS
    assert one.free_ports() == free
    assert one.take_spis(BOB, spis=4, ports=8, now=0.0).address == B
    assert shortage(one.take_spis, BOB, spis=1, now=0.0) is Shortage.NO_SPI
    assert shortage(Pool(2, shared=[(A, THOUSAND)]).take_spis, BOB, spis=1, now=0.0) is Shortage.NO_ADDRESS


def test_any_spis_are_found_in_what_is_offered_even_where_little_is_left():
    one = pool(spis={A: Ranges.of((0x1001, 0x101F), (0x2000, 0x2003))}, quota=Quota(spis=99))
    got = [one.take_spis(ALICE, spis=4, now=0.0).spis for _ in range(8)]
    assert {each.pairs[0][0] for each in got} == {*range(0x1004, 0x101D, 4), 0x2000}
    assert shortage(one.take_spis, ALICE, spis=4, now=0.0) is Shortage.NO_SPI
    assert one.take_spis(ALICE, spis=2, now=0.0).spis == Ranges.of((0x1002, 0x1003))


def test_an_initiator_is_listened_for_once_at_an_address():
    one = pool(ike=[A, B])
    first, second = (one.take_identity(owner, identity=7, now=0.0) for owner in (ALICE, BOB))
    assert {first.address, second.address} == {A, B}
    assert shortage(one.take_identity, ALICE, identity=7, now=0.0) is Shortage.IDENTITY_IN_USE
    assert one.take_identity(ALICE, address=A, identity=8, now=0.0).identities == Ranges.of(8)
    one.release(ALICE, first, now=0.0)
    assert one.take_identity(BOB, address=first.address, identity=7, now=0.0).ike
    assert shortage(pool().take_identity, ALICE, identity=7, now=0.0) is Shortage.NO_ADDRESS


def test_what_nobody_has_heard_of_does_not_rest():
    one = pool(Ranges.of((1000, 1003)), ike=[A])
    for resource in (
        one.take_spis(ALICE, address=A, spis=Ranges.of(300), ports=4, now=0.0),
        one.take_address(ALICE, address=WHOLE.address, now=0.0),
        one.take_identity(ALICE, address=A, identity=5, now=0.0),
    ):
        one.cancel(ALICE, resource)
    one.take_spis(BOB, address=A, spis=Ranges.of(300), ports=4, now=0.0)
    one.take_address(BOB, address=WHOLE.address, now=0.0)
    one.take_identity(BOB, address=A, identity=5, now=0.0)


@pytest.mark.parametrize("wrong", [{"ike": [WHOLE.address]}, {"spis": {WHOLE.address: ALL_SPIS}}])
def test_only_shared_addresses_offer_spis_and_ike(wrong):
    with pytest.raises(ValueError, match="no shared address"):
        pool(**wrong)


def test_what_a_store_says_is_entered_whatever_the_pool_looks_like_by_now():
    one = pool()
    gone = Resource(realm=2, address=Address.parse("203.0.113.1"), ports=Ranges.of(5))
    outside = Resource(realm=2, address=A, ports=Ranges.of(80))
    for resource in (gone, outside):
        one.restore(ALICE, resource)
        one.release(ALICE, resource, now=0.0)
    one.take_ports(BOB, ports=1, now=200.0)
    assert shortage(one.take_ports, BOB, address=A, ports=Ranges.of(80), now=200.0) is Shortage.PORTS_NOT_OURS


@pytest.mark.parametrize("slice_size", [0, 3, 8192, -4])
def test_a_slice_is_a_power_of_two(slice_size):
    with pytest.raises(ValueError, match="slice"):
        pool(slice_size=slice_size)


def test_an_address_is_not_leased_both_ways():
    with pytest.raises(ValueError, match="both whole and by port"):
        pool(whole=[Prefix.of(A)])


def test_a_resource_says_what_it_is():
    assert str(Resource(realm=2, address=A)) == "192.0.2.7"
    assert (
        str(Resource(realm=2, address=A, ports=Ranges.of((5, 9)), spis=Ranges.of(300)))
        == "192.0.2.7 ports 5-9 SPIs 300"
    )
    initiator = Resource(realm=2, address=A, ike=True, identities=Ranges.of(7))
    assert (str(initiator), initiator.whole) == ("192.0.2.7 IKE IKE initiators 7", False)


def test_the_leased_share_counts_what_is_not_to_be_had():
    one, whole = pool(Ranges.of((1000, 1099))), Pool(2, whole=[WHOLE])
    assert (one.leased_share(), whole.leased_share(), Pool(2).leased_share()) == (0, 0, 0)
    one.release(ALICE, one.take_ports(ALICE, ports=1, now=0.0), now=0.0)
    whole.take_address(ALICE, now=0.0)
    assert (one.leased_share(), whole.leased_share()) == (1, 25)


def test_very_much_that_has_rested_is_free_when_it_is_needed():
    one = Pool(2, shared=[(A, Ranges.of((0, 32767)))], slice_size=1, seed=5)
    one.ask(lambda _owner: ())
    leases = [one.take_ports(ALICE, ports=1, now=0.0) for _ in range(1 << 15)]
    assert shortage(one.take_ports, ALICE, ports=1, now=0.0) is Shortage.NO_PORTS
    for each in leases:
        one.release(ALICE, each, now=1.0)
    assert len(one.take_ports(ALICE, ports=255, now=121.0).ports) == 255
