# SPDX-License-Identifier: BSD-3-Clause
"""SIP routes carried as IPv6 routes: the mapping both ways, what is chosen, and what is refused (spec 2.4, 6.5, 9.4)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import Encapsulation, Native, Translate
from isthmus.border.effect import Bind, Unbind
from isthmus.border.table import BindingTable
from isthmus.ipae.border_router import Route, route_binding, standing
from isthmus.ipae.neutral import Sockets
from isthmus.ipae.routing import (
    Hop,
    Learned,
    Link,
    Offer,
    Policy,
    Refusal,
    carried,
    changes,
    learn,
    neighbour,
    sip_prefix,
)

FULL = Sockets().full
BIRD, KERNEL = 12, 2
SITE, WAN, LAN, SIP = 1, 2, 3, 4
OWN = Prefix.parse_sip("1.213.77.5")
LINKS = {
    10: Link(realm=SITE, site=OWN),
    11: Link(realm=WAN),
    12: Link(
        realm=LAN,
        ends=(
            (Address.parse("128.1.1.1"), Prefix.parse("128.1.1.0/24")),
            (Address.parse("128.9.1.1"), Prefix.parse("128.9.0.0/16")),
        ),
        mtu=1400,
    ),
}
NEXT = Address.parse("fe80::128.2.1.9")


def sip(text):
    return Prefix.parse_sip(text)


def offer(to, *hops, metric=32, protocol=BIRD):
    prefix = Prefix.parse(to) if "::" in to else carried(sip(to), FULL)
    return Offer(to=prefix, hops=hops or (Hop(11, NEXT),), metric=metric, protocol=protocol)


def learned(*offers, configured=(), most=100):
    policy = Policy(
        full=FULL, protocols=frozenset({BIRD}), sites=(OWN,), configured=frozenset(map(sip, configured)), most=most
    )
    return learn(offers, LINKS, policy)


def refused(*offers, **more):
    return {
        str(why): [str(sip_prefix(each, FULL) or each) for each in which]
        for why, which in learned(*offers, **more).refused.items()
    }


# --- what carries what ------------------------------------------------------------------------


@pytest.mark.rfc("ipae", "4.4")
@pytest.mark.parametrize(
    ("prefix", "route"),
    [
        ("1.2.2.8", "fd49:5041:4500:6d74:102:208::/96"),
        ("c1.2.2.8", "fd49:5041:4500:6d74:8102:208::/96"),
        ("1.2.2.8/201.5.7.0/56", "fd49:5041:4500:6d74:102:208:c905:700/120"),
        ("1.2.2.8/201.5.7.250", "fd49:5041:4500:6d74:102:208:c905:7fa/128"),
        ("1.213.", "fd49:5041:4500:6d74:1d5::/80"),
        ("0.0.0.0/0", "fd49:5041:4500:6d74::/64"),
    ],
)
def test_a_sip_prefix_is_carried_behind_64_bits(prefix, route):
    network = ipaddress.ip_network(route)
    assert str(carried(sip(prefix), FULL)) == str(network)
    assert sip_prefix(Prefix.parse(route), FULL) == sip(prefix)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 64))
def test_every_sip_prefix_comes_back(number, length):
    prefix = Prefix(Address(Family.SIP, number >> 64 - length << 64 - length), length)
    assert sip_prefix(carried(prefix, FULL), FULL) == prefix


@pytest.mark.parametrize("route", ["::/0", "fd49:5041:4500::/48", "2001:db8::/96", "fd49:5041:4500:6d75:102:208::/96"])
def test_other_prefixes_carry_none(route):
    assert sip_prefix(Prefix.parse(route), FULL) is None
    assert refused(offer(route)) == {"not-carried": [route]}


@pytest.mark.parametrize(
    ("gateway", "found"),
    [
        ("fe80::128.2.1.9", "128.2.1.9"),
        ("fe80::8002:109", "128.2.1.9"),
        ("fd49:5041:4500:6d74:102:208:8002:109", "128.2.1.9"),
        ("fe80::211:22ff:fe33:4455", None),
        ("fe80::1:8002:109", None),
        ("fe80:1::8002:109", None),
        ("2001:db8::8002:109", None),
        ("fe80::", None),
        ("fe80::127.0.0.1", None),
        ("fe80::224.0.0.5", None),
        ("fe80::255.255.255.255", None),
    ],
)
def test_a_next_system_is_known_by_the_low_32_bits(gateway, found):
    assert neighbour(Address.parse(gateway), FULL) == (found and Address.parse(found))


# --- what becomes a route ---------------------------------------------------------------------


@pytest.mark.rfc("ipae", "4.4")
def test_a_route_leads_to_a_neighbour_on_the_link_for_either_c():
    native = Native(realm=WAN, neighbour=Address.parse("128.2.1.9"))
    assert learned(offer("1.2.2.8")).routes == {sip("1.2.2.8"): native, sip("c1.2.2.8"): native}


def test_through_a_realm_of_ipv4_only_it_goes_inside_of_ipv4_from_the_address_of_the_same_network():
    near = offer("1.2.2.8", Hop(12, Address.parse("fe80::128.9.7.7")))
    far = offer("1.2.2.9", Hop(12, Address.parse("fd49:5041:4500:6d74:102:209:c801:101")))
    routes = learned(near, far).routes
    assert routes[sip("1.2.2.8")] == Encapsulation(
        realm=LAN, local=Address.parse("128.9.1.1"), remote=Address.parse("128.9.7.7"), mtu=1400
    )
    assert routes[sip("1.2.2.9")] == Encapsulation(
        realm=LAN, local=Address.parse("128.1.1.1"), remote=Address.parse("200.1.1.1"), mtu=1400
    )


def test_a_route_of_its_own_for_c_1_comes_before_the_one_for_either():
    other = Address.parse("fe80::128.2.1.10")
    routes = learned(offer("c1.2.2.8", Hop(11, other)), offer("1.2.2.8")).routes
    assert routes[sip("1.2.2.8")].neighbour == Address.parse("128.2.1.9")
    assert routes[sip("c1.2.2.8")].neighbour == Address.parse("128.2.1.10")


def test_the_default_route_is_one():
    assert list(learned(offer("0.0.0.0/0")).routes) == [sip("0.0.0.0/0")]


def test_what_is_configured_for_the_very_prefix_stays():
    assert list(learned(offer("1.2.2.8"), configured=["1.2.2.8"]).routes) == [sip("c1.2.2.8")]
    assert refused(offer("1.2.2.8"), configured=["1.2.2.8", "c1.2.2.8"]) == {"configured": ["1.2.2.8/32"]}
    assert sip("1.2.2.8") in learned(offer("1.2.2.8"), configured=["1.2.2."]).routes


def test_the_smaller_metric_counts_among_those_that_can_be_used():
    better, worse, useless = Hop(11, Address.parse("fe80::128.2.1.1")), Hop(11, NEXT), Hop(11, None)
    routes = learned(
        offer("1.2.2.8", worse, metric=64), offer("1.2.2.8", better, metric=32), offer("1.2.2.8", useless, metric=1)
    ).routes
    assert routes[sip("1.2.2.8")].neighbour == Address.parse("128.2.1.1")


def test_of_several_next_systems_the_first_that_can_be_used_is_taken_in_whatever_order_they_come():
    hops = [
        Hop(10, Address.parse("fe80::211:22ff:fe33:4455")),
        Hop(11, Address.parse("fe80::128.2.1.7"), down=True),
        Hop(11, Address.parse("fe80::128.2.1.8")),
        Hop(11, Address.parse("fe80::128.2.1.9")),
    ]
    for order in (hops, hops[::-1]):
        assert learned(offer("1.2.2.8", *order)).routes[sip("1.2.2.8")].neighbour == Address.parse("128.2.1.8")


# --- what does not ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "given"),
    [
        ("protocol", offer("1.2.2.8", protocol=KERNEL)),
        ("no-next-system", offer("1.2.2.8", Hop(11, None))),
        ("no-next-system", Offer(to=carried(sip("1.2.2.8"), FULL), protocol=BIRD)),
        ("other-link", offer("1.2.2.8", Hop(99, NEXT))),
        ("unreadable", offer("1.2.2.8", Hop(11, Address.parse("fe80::211:22ff:fe33:4455")))),
        ("link-down", offer("1.2.2.8", Hop(11, NEXT, down=True))),
    ],
)
def test_a_route_that_cannot_be_used_is_refused_with_its_reason(why, given):
    assert learned(given).routes == {}
    assert refused(given) == {why: ["1.2.2.8/32"]}


@pytest.mark.parametrize("to", ["127.", "c127.14.", "0.5.1.1", "c0."])
def test_groups_and_country_0_are_not_routed(to):
    assert learned(offer(to)).routes == {}
    assert list(refused(offer(to))) == ["reserved"]


@pytest.mark.rfc("ipae", "6.3")
@pytest.mark.parametrize("to", ["1.213.77.5", "c1.213.77.5", "1.213.77.5/10.0.0.0/40", "c1.213.77.5/10.0.0.7"])
def test_our_own_site_is_never_learned_from_outside(to):
    """Spec 9.4: own networks are never led elsewhere."""
    assert learned(offer(to)).routes == {}
    assert list(refused(offer(to))) == ["own-site"]
    inside = learned(offer(to, Hop(10, NEXT))).routes
    assert inside[sip(to)] == Native(realm=SITE, neighbour=Address.parse("128.2.1.9"))


def test_a_wider_prefix_may_cover_our_own_site():
    assert sip("1.213.") in learned(offer("1.213.")).routes


def test_no_more_than_the_limit_are_learned_and_the_shorter_ones_first():
    many = [offer(f"1.2.3.{n}") for n in range(9)] + [offer("1.")]
    found = learned(*many, most=4)
    assert {str(each) for each in found.routes if not each.address.c_bit} == {
        "1.0.0.0/8",
        *(f"1.2.3.{n}/32" for n in range(3)),
    }
    assert len(found.refused[Refusal.LIMIT]) == 6
    assert learned(*many[::-1], most=4).routes == found.routes


# --- from one table to the next ---------------------------------------------------------------


def test_changes_bind_what_is_new_or_other_and_unbind_what_is_gone():
    table = BindingTable()
    fixed = route_binding(
        SIP, Route(to=sip("1.213.77.5"), crossing=Translate(realm=SITE, image=Prefix.parse("0.0.0.0/0")))
    )
    table.apply(standing(fixed, now=0))
    one = learned(offer("1.2.2.8"), offer("1.3.")).routes
    two = learned(offer("1.2.2.8", Hop(11, Address.parse("fe80::128.2.1.1"))), offer("1.4.")).routes
    for before, after in (({}, one), (one, two), (two, two), (two, {})):
        effects = changes(before, after, sip=SIP, now=0)
        for effect in effects:
            table.apply(effect)
        kinds = [type(each) for each in effects]
        assert kinds == sorted(kinds, key=[Bind, Unbind].index)
        bound = {each.binding.selectors[0].local: each.binding.crossing for each in table}
        assert bound.pop(sip("1.213.77.5")) == fixed.crossing
        assert bound == after
    assert changes(two, two, sip=SIP, now=0) == ()


def test_nothing_is_learned_of_nothing():
    assert learned() == Learned()
