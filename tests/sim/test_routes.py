# SPDX-License-Identifier: BSD-3-Clause
"""Both tables of a population lead every destination to where it belongs, and are as large as the formula says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.sim import generator
from isthmus.sim.generator import Shape, exponent_for, generate, zipf
from isthmus.sim.lookup import NO_ROUTE, Routes, Table
from isthmus.sim.move import move
from isthmus.sim.router import NONE, Router, spread
from isthmus.sim.routing import Wish, measure

SMALL = Shape(countries=12, prefixes=6_000, sites=800)


@pytest.fixture(scope="module")
def people():
    return generate(SMALL, seed=3)


def routes_of(prefixes, bits):
    numbers = [number >> bits - length << bits - length for number, length in prefixes]
    return Routes(
        number=np.array(numbers, np.uint64), length=np.array([length for _, length in prefixes], np.uint8), bits=bits
    )


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)), max_size=30),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30),
)
def test_the_longest_prefix_wins(prefixes, addresses):
    given_routes = {(number >> 32 - length, length) for number, length in prefixes}
    unique = [(number << 32 - length, length) for number, length in sorted(given_routes)]
    asked = [*addresses, *(number for number, _ in unique)]
    found = Table.of(routes_of(unique, 32)).lookup(np.array(asked, np.uint64))
    for address, at in zip(asked, found.tolist(), strict=True):
        covering = [each for each in unique if address >> 32 - each[1] == each[0] >> 32 - each[1]]
        best = max(covering, key=lambda each: each[1], default=None)
        assert (None if at == NO_ROUTE else unique[at]) == best


def test_networks_that_nest_cost_at_most_two_ranges_each(people):
    table = Table.of(people.flat())
    assert people.networks < len(table.first) <= 2 * people.networks + 1
    assert table.octets == 12 * len(table.first)


def test_the_same_seed_gives_the_same_internet_and_another_one_another():
    one, same, other = (generate(SMALL, seed) for seed in (1, 1, 2))
    assert (one.number == same.number).all()
    assert (one.site == same.site).all()
    assert not np.array_equal(np.sort(one.number), np.sort(other.number))


def test_what_is_built_has_the_numbers_that_were_asked_for(people):
    assert (people.networks, people.sites, len(np.unique(people.country))) == (6_000, 800, 12)
    assert len(people.flat().keys()) == 6_000
    largest = np.bincount(people.country).max() / people.sites
    assert largest == pytest.approx(0.3, abs=0.02)
    assert len(np.unique(people.upper)) == people.sites
    for values in (people.country, people.region, people.code):
        assert values.min() == 1, "0 is reserved at every level (RFC 8507 §4.4)"


@given(st.integers(1, 50), st.integers(0, 5_000), st.floats(0, 3))
def test_zipf_shares_out_everything(ranks, more, exponent):
    shares = zipf(ranks + more, ranks, exponent)
    assert shares.sum() == ranks + more
    assert shares.min() >= 1
    assert (np.diff(shares) <= 0).all()


def test_the_exponent_gives_the_first_its_share():
    exponent = exponent_for(0.3, 230)
    assert 1 / sum(rank**-exponent for rank in range(1, 231)) == pytest.approx(0.3)
    assert exponent_for(0.3, 2) == pytest.approx(0, abs=1e-6)
    assert exponent_for(0.3, 1) == 0


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 300), st.integers(0, 9))
def test_every_shape_however_small_gives_networks_that_differ(countries, sites, prefixes, seed):
    people = generate(Shape(countries=countries, sites=countries + sites, prefixes=countries + sites + prefixes), seed)
    assert len(people.flat().keys()) == people.networks == countries + sites + prefixes
    assert (people.networks_of > 0).all()
    assert not (people.number & ((np.uint64(1) << (32 - people.length).astype(np.uint64)) - np.uint64(1))).any()
    assert people.number.max() < 224 << 24
    assert len(np.unique(people.upper)) == people.sites


def test_networks_that_do_not_fit_into_ipv4_are_refused(monkeypatch):
    monkeypatch.setattr(generator, "LENGTHS", {9: 1.0})
    with pytest.raises(ValueError, match="do not fit into the IPv4 addresses"):
        generate(Shape(countries=1, sites=500, prefixes=500))
    with pytest.raises(ValueError, match="larger than a /8"):
        generate(Shape(countries=1, sites=1, prefixes=100_000))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"countries": 10, "sites": 5, "prefixes": 100}, "each country needs a site"),
        ({"countries": 2, "sites": 10, "prefixes": 9}, "each site a prefix"),
        ({"countries": 2, "largest_country": 1.0}, "cannot have"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        Shape(**shape)


@pytest.mark.rfc("ipae", "4.1")
@pytest.mark.rfc("ipae", "2.1")
@pytest.mark.parametrize("region_level", [True, False])
def test_each_destination_has_the_route_of_its_own_level(people, region_level):
    router = Router(population=people, site=17, region_level=region_level)
    routes = router.sip()
    _, sip = people.addresses(3_000, seed=5)
    found = Table.of(routes).lookup(sip)
    assert (found != NO_ROUTE).all()
    lengths = routes.length[found]
    sites = np.searchsorted(np.sort(people.upper), sip >> np.uint64(32))
    sites = np.argsort(people.upper)[sites]
    abroad = people.country[sites] != people.country[17]
    near = people.place[sites] == people.place[17]
    assert (lengths[abroad] == people.plan.country_length).all()
    if region_level:
        assert (lengths[~abroad & ~near] == people.plan.region_length).all()
        assert (lengths[near & (sites != 17)] == 32).all()
    else:
        assert (lengths[~abroad & (sites != 17)] == 32).all()
    assert (lengths[sites == 17] > 32).all()


@pytest.mark.rfc("ipae", "8.1")
@pytest.mark.rfc("ipae", "2.2")
def test_a_router_has_as_many_routes_as_the_formula_says(people):
    """(K - 1) + (P - 1) + (S - 1) + L of spec 7.1, with the numbers of this very router."""
    for site in (0, 17, 799):
        country, place = people.country[site], people.place[site]
        countries = len(np.unique(people.country))
        regions = len(np.unique(people.region[people.country == country]))
        sites = int((people.place == place).sum())
        local = int(people.networks_of[site])
        router = Router(population=people, site=site)
        assert len(router.sip()) == router.entries() == countries - 1 + regions - 1 + sites - 1 + local


def test_exceptions_are_routes_of_their_own_unless_they_are_seen_anyway(people):
    router = Router(population=people, site=17)
    own = np.flatnonzero(people.site == 17)
    far = np.flatnonzero(people.country != people.country[17])
    networks = np.concatenate((own, np.flatnonzero(people.site == far[0])))
    assert len(router.sip(networks)) == router.entries() + len(networks) - len(own)
    near = np.flatnonzero(people.place == people.place[17])
    routes = router.sip(NONE, np.concatenate((near, far[:5])))
    assert len(routes) == router.entries() + 5
    found = Table.of(routes).lookup(people.upper[far[:5]] << np.uint64(32))
    assert (routes.length[found] == 32).all()


def test_the_spread_counts_what_the_routers_have(people):
    for region_level in (True, False):
        counted = spread(people, local=8, region_level=region_level)
        places = np.unique(people.place, return_index=True)[1].tolist()
        built = [Router(population=people, site=site, region_level=region_level) for site in places]
        entries = [router.entries() - int(people.networks_of[router.site]) + 8 for router in built]
        assert (counted.least, counted.most) == (min(entries), max(entries))
        assert counted.regions == len(places)


@pytest.mark.rfc("ipae", "8.1")
def test_a_mapping_table_needs_no_entry_inside_another_one_of_its_site(people):
    needed = people.without_needless()
    assert needed.sum() < people.networks
    chosen = np.flatnonzero(needed)
    ipv4, sip = people.addresses(3_000, seed=6)
    mapping = Routes(number=people.number[chosen], length=people.length[chosen], bits=32)
    site = people.site[chosen][Table.of(mapping).lookup(ipv4)]
    assert (people.upper[site] == sip >> np.uint64(32)).all()


def test_a_network_of_another_site_inside_one_is_needed_and_what_is_inside_that_too():
    few = generate(Shape(countries=1, prefixes=4, sites=2), seed=0)
    nested = type(few)(
        plan=few.plan,
        number=np.array([10 << 24, 10 << 24, (10 << 24) + 256, 10 << 24], np.uint64),
        length=np.array([8, 16, 24, 25], np.uint8),
        site=np.array([0, 1, 0, 1]),
        country=few.country,
        region=few.region,
        code=few.code,
        several=np.zeros(4, bool),
    )
    assert nested.without_needless().tolist() == [True, True, True, False]


@pytest.mark.rfc("ipae", "8.1")
def test_a_move_is_seen_everywhere_in_ipv4_and_by_two_regions_in_ipae(people):
    site = int(np.flatnonzero(people.place == people.place[17])[-1])
    elsewhere = int(np.flatnonzero(people.country != people.country[site])[0])
    country, region = int(people.country[elsewhere]), int(people.region[elsewhere])
    found = move(people, site, country, region)
    left = int((people.place == people.place[site]).sum()) - 1
    entered = int((people.place == people.place[elsewhere]).sum())
    assert found.flat == people.networks_of[site] * (people.sites - 1)
    assert found.renumbered == left + entered
    assert found.keeping == people.sites - 1
    assert 1 <= found.mapping <= found.networks
    assert sum(share.routers for share in found.shares) == people.sites - 1


def test_a_region_that_loses_its_last_site_disappears_from_its_country():
    one = generate(Shape(countries=2, prefixes=60, sites=6, largest_country=0.6, region_sites=1), seed=1)
    places, counts = np.unique(one.place, return_counts=True)
    site = int(np.flatnonzero(one.place == places[counts == 1][0])[0])
    elsewhere = int(np.flatnonzero(one.country != one.country[site])[0])
    found = move(one, site, int(one.country[elsewhere]), int(one.region[elsewhere]))
    assert next(share.changed for share in found.shares if share.where.startswith("other regions")) == 1


def test_a_site_that_stays_has_not_moved(people):
    with pytest.raises(ValueError, match="already"):
        move(people, 17, int(people.country[17]), int(people.region[17]))


@pytest.mark.rfc("ipae", "8.1")
def test_the_failing_share_is_where_the_tenth_part_is_passed(people):
    result = measure(people, Wish(lookups=500, rounds=1, exceptions=()))
    at = round(result.failing_prefixes * people.networks)
    steps = [
        measure(people, Wish(lookups=500, rounds=1, exceptions=(count / people.networks,))).steps[0]
        for count in (at, at + 1)
    ]
    assert steps[0].ratio >= 10 > steps[1].ratio


def test_no_table_leaves_a_destination_without_a_route(people):
    result = measure(people, Wish(lookups=2_000, rounds=1, moved=0.1, multihomed=0.2))
    sizes = [result.flat, result.sip, result.sip_without_regions, result.mapping, *(each.size for each in result.steps)]
    assert [size.unreached for size in sizes] == [0] * len(sizes)
    assert all(size.nanoseconds > 0 for size in sizes)
    assert result.flat.entries == people.networks
    assert result.mapping.entries == result.aggregated
    assert [each.kind for each in result.kept] == ["moved", "multi-homed", "all of these"]
    assert [each.sites for each in result.kept] == [80, 160, 240]
    assert all(each.by_site > each.by_network for each in result.kept)


def test_an_internet_of_one_region_has_nowhere_to_move_to():
    one = generate(Shape(countries=1, prefixes=20, sites=5), seed=0)
    result = measure(one, Wish(lookups=100, rounds=1))
    assert result.move is None
    assert result.failing_prefixes == 0
