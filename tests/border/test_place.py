# SPDX-License-Identifier: BSD-3-Clause
"""Computed places: address and key say where a host is looked for first; everything else stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.border.place import GROUP_SLICES, Places
from isthmus.border.pool import Pool, PoolError, Quota, Shortage
from isthmus.border.ranges import Ranges
from isthmus.plane.kernel.pinned import BLOCK_SLICES

A, B, C = (Address(Family.IPV4, 0x9570F037 + number) for number in range(3))
SHARED = [(A, Ranges.parse("1001-1040")), (B, Ranges.parse("80,1000-1015,2000-2023")), (C, Ranges.parse("1-7"))]
PLACES = [(A, first) for first in (1008, 1016, 1024, 1032)] + [(B, first) for first in (1000, 1008, 2000, 2008, 2016)]
"""Of slices of eight ports, in their order without a key; C has none."""
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


def host(number, family=Family.IPV4):
    return Owner(1, Address(family, number))


def make(computed=True, **changes):
    """A pool that is told who holds what, as a gateway's is, and what it is told."""
    held = {}
    pool = Pool(2, **({"shared": SHARED, "slice_size": 8, "computed": computed, "seed": 5} | changes))
    pool.ask(lambda owner: held.get(owner, ()))
    return pool, held


def take(pool, held, owner, ports=8, now=0.0, **options):
    resource = pool.take_ports(owner, ports=ports, now=now, **options)
    held.setdefault(owner, []).append(resource)
    return resource.address, resource.ports.pairs[0][0]


def test_consecutive_hosts_have_consecutive_places_over_the_addresses_in_order():
    pool, held = make()
    found = [take(pool, held, host(9000 + number)) for number in range(9)]
    assert found == PLACES
    with pytest.raises(PoolError) as raised:
        take(pool, held, host(9009))
    assert raised.value.shortage is Shortage.NO_PORTS


def test_an_address_of_ipv6_computes_to_a_place_as_well():
    pool, held = make()
    number = Address.parse("2001:db8::7").number
    assert take(pool, held, host(number, Family.IPV6)) == PLACES[number % 9]


def test_runs_of_several_slices_have_places_of_their_own():
    pool, held = make()
    assert [take(pool, held, host(number), 16) for number in range(3)] == [(A, 1008), (A, 1024), (B, 2000)]


def test_who_was_away_gets_the_same_ports_again():
    pool, held = make(rest_seconds=120.0)
    alice = host(4)
    first = take(pool, held, alice)
    pool.release(alice, held.pop(alice)[0], now=10.0)
    assert take(pool, held, alice, now=129.0) != first, "it rests, also from its former holder"
    pool.release(alice, held.pop(alice)[0], now=129.0)
    assert take(pool, held, alice, now=130.0) == first


def test_a_place_that_is_taken_is_passed_over():
    pool, held = make()
    wanted = PLACES[4]
    pool.take_ports(host(1), address=wanted[0], ports=Ranges.of(wanted[1] + 3), now=0.0)
    assert take(pool, held, host(4)) in set(PLACES) - {wanted}


def test_further_leases_of_a_host_are_of_its_address():
    pool, held = make()
    found = [take(pool, held, host(2)) for _ in range(4)]
    assert found[0] == PLACES[2]
    assert {address for address, _ in found} == {A}


def test_an_address_that_is_named_is_the_one():
    pool, held = make()
    assert take(pool, held, host(4), address=A)[0] == A
    assert take(pool, held, host(5), address=B) == PLACES[5]


def test_less_than_a_slice_is_put_where_a_slice_is_begun():
    """So that many small leases leave whole slices to others."""
    pool, held = make(shared=[(A, Ranges.of((1000, 1799)))])
    begun = {take(pool, held, host(number * 8), 1)[1] // 8 for number in range(16)}
    assert len(begun) == 2


def test_a_quota_is_a_quota():
    pool, held = make(quota=Quota(bindings=1))
    take(pool, held, host(0))
    with pytest.raises(PoolError) as raised:
        take(pool, held, host(0))
    assert raised.value.shortage is Shortage.QUOTA


def test_without_being_told_a_pool_does_not_compute():
    """The choice is at random then: what a host gets is not known from its address (RFC 6056)."""
    found = set()
    for seed in range(20):
        pool, held = make(computed=False, seed=seed)
        found.add(take(pool, held, host(4)))
    assert len(found) > 3


OFFERED = st.lists(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40)), max_size=3).map(
        lambda pairs: Ranges.of(*((first, first + more) for first, more in pairs))
    ),
    max_size=4,
)


@given(OFFERED, st.sampled_from([1, 2, 8, 16]), st.integers(0, (1 << 128) - 1))
def test_without_a_key_places_are_in_the_order_of_addresses_and_ports(offered, size, first):
    places = Places(offered, size)
    count = places.count(size)
    found = [places.find(first + number, size) for number in range(count)]
    every = [(at, start) for at, ports in enumerate(offered) for start in ports.blocks(size)]
    assert sorted(found) == every
    turn = first % count if count else 0
    assert found == every[turn:] + every[:turn]
    assert count or places.find(first, size) is None


keys = st.sampled_from([None, KEY]) | st.binary(min_size=32, max_size=32)


@given(OFFERED, st.sampled_from([1, 2, 8, 16]), keys, st.integers(0, (1 << 128) - 1))
def test_with_any_key_as_many_hosts_as_there_are_places_have_a_place_each(offered, size, key, first):
    places = Places(offered, 1, key)
    found = [places.find(first + number, size) for number in range(places.count(size))]
    assert sorted(found) == [(at, start) for at, ports in enumerate(offered) for start in ports.blocks(size)]


@given(OFFERED, st.sampled_from([1, 2, 8, 16]), st.sampled_from([1, 2]), keys)
def test_hosts_that_follow_one_another_do_so_within_a_group_of_places(offered, size, slice_size, key):
    """Which is what the kernel plane has one rule for: 64 slices of an address, aligned."""
    places = Places(offered, slice_size, key)
    count = places.count(size)
    hosts = {places.find(number, size): number for number in range(count)}
    for (at, start), number in hosts.items():
        after = at, start + size
        if after in hosts and start // (GROUP_SLICES * slice_size) == after[1] // (GROUP_SLICES * slice_size):
            assert hosts[after] == (number + 1) % count


def test_a_group_is_what_the_kernel_plane_has_one_rule_for():
    assert GROUP_SLICES == BLOCK_SLICES


def test_a_key_is_an_order_that_another_does_not_have():
    offered = [Ranges.parse("1024-65535")] * 4
    orders = []
    for key in (KEY, OTHER_KEY, None):
        places = Places(offered, 16, key)
        orders.append([places.find(number, 16) for number in range(places.count(16))])
        again = Places(offered, 16, key)
        assert [again.find(number, 16) for number in range(again.count(16))] == orders[-1]
    assert sorted(orders[0]) == sorted(orders[1]) == orders[2]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        alike = sum(a == b for a, b in zip(orders[one], orders[other], strict=True))
        assert alike < len(orders[0]) / 8


def test_a_key_gives_these_places_on_every_machine():
    """Or hosts would lose theirs with another Python."""
    places = Places([Ranges.parse("1024-65535")] * 2, 64, KEY)
    assert [places.find(number, 64) for number in (0, 1, 100, 1000)] == [(0, 62400), (0, 62464), (1, 15552), (1, 60864)]


def test_one_group_is_turned_by_its_key():
    """A small pool has but one: where in it an address is, is not known either."""
    firsts = {Places([Ranges.parse("1024-2047")], 16, bytes([number] * 32)).find(7, 16) for number in range(40)}
    assert len(firsts) > 10


def test_lengths_have_orders_of_their_own():
    places = Places([Ranges.parse("0-65535")] * 8, 16, KEY)
    groups = [[places.find(number * 1024 // size, size) for number in range(512)] for size in (16, 32)]
    assert sum(a[1] // 1024 == b[1] // 1024 and a[0] == b[0] for a, b in zip(*groups, strict=True)) < 64


def test_what_is_longer_than_a_group_has_places_and_what_is_less_than_a_slice_none():
    places = Places([Ranges.parse("0-65535")] * 2, 2, KEY)
    found = {places.find(number, 4096) for number in range(32)}
    assert found == {(at, first) for at in range(2) for first in range(0, 65536, 4096)}
    assert (places.count(1), places.find(5, 1)) == (0, None)


def test_a_pool_has_the_places_of_its_key():
    shared = [(A, Ranges.parse("1024-65535")), (B, Ranges.parse("1024-65535"))]
    found = []
    for key in (KEY, KEY, OTHER_KEY):
        pool, held = make(shared=shared, place_key=key)
        found.append([take(pool, held, host(0x0A000001 + number)) for number in range(100)])
    assert found[0] == found[1] != found[2]
    places = Places([ports for _, ports in shared], 8, KEY)
    computed = [places.find(0x0A000001 + number, 8) for number in range(100)]
    assert found[0] == [((A, B)[at], first) for at, first in computed]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1, 3, 8, 13, 16])), max_size=60),
    st.lists(st.integers(0, 59), max_size=20),
)
def test_the_last_slice_is_leased_and_nothing_twice_or_before_it_has_rested(asked, given_back):
    pool, held = make(rest_seconds=50.0)
    leased, rests = {}, set()
    for number, count in asked:
        if host(number) in held:
            continue
        try:
            address, first = take(pool, held, host(number), count)
        except PoolError:
            continue
        leased |= {(address, port): number for port in range(first, first + count)}
    assert len(leased) == sum(len(each.ports) for resources in held.values() for each in resources)
    for number in given_back:
        for each in held.pop(host(number), ()):
            pool.release(host(number), each, now=0.0)
            rests |= {(each.address, port) for port in each.ports}
    for number in range(100, 200):
        try:
            address, first = take(pool, held, host(number), 1, now=49.0)
        except PoolError:
            break
        assert (address, first) not in leased
        leased[address, first] = number
    assert pool.free_ports() == 0
    for number in range(200, 200 + len(rests)):
        leased_again = take(pool, held, host(number), 1, now=50.0)
        assert leased_again in rests
        rests.remove(leased_again)


@given(st.lists(st.integers(0, 40), max_size=12, unique=True))
def test_a_restart_gives_the_same_answers(numbers):
    """Whatever the seed is by then: where a place is free, nothing is drawn."""
    one, held = make()
    for number in numbers[:6]:
        take(one, held, host(number))
    two, same = make(seed=77)
    for owner, (resource,) in list(held.items()):
        two.restore(owner, resource)
        same[owner] = [resource]
    taken = {(each.address, each.ports.pairs[0][0]) for resources in held.values() for each in resources}
    for number in numbers[6:]:
        place = PLACES[number % 9]
        if place not in taken:
            assert take(one, held, host(number)) == take(two, same, host(number)) == place
            taken.add(place)
