# SPDX-License-Identifier: BSD-3-Clause
"""In which format a host sends, and to which next IPAE node (seed IPAE 3.4, 8.2; spec 5.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.ipae.addressing import Format
from isthmus.ipae.format import NATIVE_SECONDS, FormatPolicy, NativeNeighbours, Scope, Sending, choose

ROUTER = Address.parse("192.3.4.2")
POLICY = FormatPolicy(
    site=Prefix.parse_sip("1.213.77.5/32"),
    subnets=(Prefix.parse_sip("1.213.77.5/192.3.4.0/56"),),
    border_router=ROUTER,
)
NEAR = Address.parse_sip("1.213.77.5/192.3.4.9")
FAR = Address.parse_sip("1.2.2.8/201.5.7.250")


def old(address):
    return address.with_c_bit(c_bit=True)


def send(destination, **changes):
    sending = choose(destination, replace(POLICY, **changes))
    return sending and (sending.packet_format, str(sending.next_node))


@pytest.mark.rfc("ipae", "3.4")
def test_an_ipv4_host_of_the_own_site_is_sent_ipv4():
    assert send(old(NEAR)) == (Format.IPV4, "192.3.4.9")


@pytest.mark.rfc("ipae", "3.4")
@pytest.mark.parametrize("scope", Scope)
def test_an_ipv4_host_elsewhere_is_for_the_gateway_of_its_site(scope):
    """Also where implicit tunnels reach it: it could not take an IPAE datagram."""
    assert send(old(FAR), implicit_scope=scope) == (Format.IPAE, str(ROUTER))


@pytest.mark.rfc("ipae", "8.2")
def test_hosts_of_one_domain_may_keep_to_ipv4_among_each_other():
    assert send(NEAR, intra_ad_ipv4=True) == (Format.IPV4, "192.3.4.9")
    assert send(FAR, intra_ad_ipv4=True) == (Format.IPAE, str(ROUTER))


def test_a_native_neighbour_is_sent_sip_by_itself():
    assert send(NEAR, native=frozenset({NEAR.low})) == (Format.SIP, "192.3.4.9")


def test_a_native_system_that_is_no_neighbour_is_behind_ipv4():
    other = Address.parse_sip("1.213.77.5/10.0.0.3")
    assert send(other, native=frozenset({other.low})) == (Format.IPAE, "10.0.0.3")


def test_a_host_of_the_site_behind_ipv4_routers_gets_ipae():
    assert send(NEAR) == (Format.IPAE, "192.3.4.9")


@pytest.mark.rfc("ipae", "4.2")
def test_while_ipv4_is_unique_tunnels_go_straight_to_the_destination():
    assert send(FAR, implicit_scope=Scope.ANY) == (Format.IPAE, "201.5.7.250")


def test_from_milestone_r_on_another_site_is_behind_the_border_router():
    assert send(FAR, implicit_scope=Scope.SITE) == (Format.IPAE, str(ROUTER))


def test_to_a_native_border_router_no_header_is_spent():
    assert send(FAR, native=frozenset({ROUTER})) == (Format.SIP, str(ROUTER))


def test_without_border_router_there_is_no_way_out():
    assert send(FAR, border_router=None) is None
    assert choose(NEAR, replace(POLICY, border_router=None)) == Sending(packet_format=Format.IPAE, next_node=NEAR.low)


def test_a_site_has_32_bits_and_no_c_bit():
    for text in ("1.213.77.", "c1.213.77.5/32"):
        with pytest.raises(ValueError, match="no site"):
            FormatPolicy(site=Prefix.parse_sip(text))


def test_a_frame_makes_a_neighbour_native_for_ten_minutes():
    neighbours = NativeNeighbours([ROUTER])
    neighbours.heard(NEAR.low, now=100)
    assert neighbours.known(now=100 + NATIVE_SECONDS - 1) == {ROUTER, NEAR.low}
    assert neighbours.known(now=100 + NATIVE_SECONDS) == {ROUTER}


def test_a_flood_of_neighbours_is_forgotten_oldest_first():
    neighbours = NativeNeighbours()
    for number in range(5000):
        neighbours.heard(Address(Family.IPV4, number), now=number / 1000)
    known = neighbours.known(now=5)
    assert len(known) == 4096
    assert max(each.number for each in known) == 4999
