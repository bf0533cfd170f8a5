# SPDX-License-Identifier: BSD-3-Clause
"""Packets of an edge network are told apart as scapy makes them."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrHopByHop

from isthmus.lab.capture import Captured
from isthmus.lab.edge import Carried, carried, payload, tally

_FOUR, _SIX = IP(src="10.0.0.4", dst="10.0.0.1"), IPv6(src="2001:db8::4", dst="2001:db8::1")
PACKETS = {
    "TCP": (_FOUR / TCP(), Carried.IPV4),
    "IP-IP": (_FOUR / IP() / TCP(), Carried.IPV4_IN_IPV4),
    "sit": (_FOUR / IPv6() / TCP(), Carried.IPV6_IN_IPV4),
    "TCP over IPv6": (_SIX / TCP(), Carried.IPV6),
    "an echo request over IPv6": (_SIX / ICMPv6EchoRequest(), Carried.IPV6),
    "packet too big": (_SIX / ICMPv6PacketTooBig(), Carried.IPV6),
    "IPv4 in IPv6": (_SIX / IP() / TCP(), Carried.IPV4_IN_IPV6),
    "a neighbour solicitation": (_SIX / ICMPv6ND_NS(), Carried.NEIGHBOURS),
    "a report of listeners": (_SIX / IPv6ExtHdrHopByHop(), Carried.NEIGHBOURS),
    "RSIP": (_FOUR / UDP(sport=4555, dport=40000), Carried.CONTROL),
    "RSIP over TCP over IPv6": (_SIX / TCP(sport=40000, dport=4555), Carried.CONTROL),
}


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_is_told_by_its_outermost_headers(name):
    packet, kind = PACKETS[name]
    assert carried(bytes(packet)) is kind


def test_what_only_keeps_the_network_going_is_no_payload():
    counted = tally(Captured(0.0, bytes(packet)) for packet, _ in PACKETS.values())
    assert counted[Carried.CONTROL] == 2
    assert payload(counted) == set(Carried) - {Carried.CONTROL, Carried.NEIGHBOURS}
