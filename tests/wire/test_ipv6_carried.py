# SPDX-License-Identifier: BSD-3-Clause
"""What an IPv6 packet carries behind options and a fragment header (RFC 8200 §4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from isthmus.errors import Truncated, WireError
from isthmus.wire.ipv6 import Carried, FragmentHeader, Ipv6View, carried

BASE = IPv6(src="fd00::4", dst="fd00::1")
fragments = st.builds(
    FragmentHeader,
    next_header=st.integers(0, 255),
    fragment_offset=st.integers(0, 0x1FFF),
    more=st.booleans(),
    identification=st.integers(0, (1 << 32) - 1),
    reserved=st.integers(0, 255),
    reserved1=st.integers(0, 3),
)


def look(*headers: Packet, protocol: int = 4) -> Carried:
    packet = BASE.copy()
    for header in headers:
        packet = packet / header.copy()
    packet.lastlayer().nh = protocol
    return carried(Ipv6View.parse(bytes(packet / Raw(b"inner"))))


@pytest.mark.rfc("8200", "4.5")
@given(header=fragments)
def test_fragment_header_round_trip(header: FragmentHeader) -> None:
    assert FragmentHeader.parse(header.emit()) == header


@pytest.mark.rfc("8200", "4.6")
def test_options_are_passed_over() -> None:
    for headers in (
        (),
        (IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(10))]),),
        (IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(2))]), IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(2))])),
    ):
        found = look(*headers)
        assert (found.next_header, bytes(found.payload), found.fragment) == (4, b"inner", None)


@pytest.mark.rfc("8200", "4.4")
def test_other_headers_are_not() -> None:
    assert look(IPv6ExtHdrRouting(addresses=["fd00::9"])).next_header == 43
    assert look(protocol=58).next_header == 58


@pytest.mark.rfc("8200", "4.5")
def test_a_fragment_says_what_the_whole_carries() -> None:
    found = look(IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(offset=3, m=1, id=0x89ABCDEF), protocol=47)
    assert (found.next_header, bytes(found.payload)) == (47, b"inner")
    assert found.fragment == FragmentHeader(next_header=47, fragment_offset=3, more=True, identification=0x89ABCDEF)


@pytest.mark.rfc("6946", "4")
def test_a_fragment_header_for_nothing_makes_no_fragment() -> None:
    found = look(IPv6ExtHdrFragment(offset=0, m=0, id=7))
    assert (found.next_header, bytes(found.payload), found.fragment) == (4, b"inner", None)


@pytest.mark.rfc("8200", "4")
def test_headers_that_are_cut_short() -> None:
    packet = bytes(BASE / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(20))], nh=4))
    for length in (0, 1, 7, 8, 23):
        short = bytearray(packet[: 40 + length])
        short[4:6] = length.to_bytes(2, "big")
        with pytest.raises(Truncated, match="options header"):
            carried(Ipv6View.parse(bytes(short)))
    cut = bytearray(bytes(BASE / IPv6ExtHdrFragment(offset=1, m=1, id=1))[:47])
    cut[4:6] = (7).to_bytes(2, "big")
    with pytest.raises(Truncated, match="fragment header"):
        carried(Ipv6View.parse(bytes(cut)))


@given(octets=st.binary(max_size=120), following=st.sampled_from([0, 44, 60]))
def test_any_octets_are_carried_or_a_wire_error(octets: bytes, following: int) -> None:
    packet = bytearray(bytes(BASE / Raw(octets)))
    packet[6] = following
    try:
        found = carried(Ipv6View.parse(bytes(packet)))
    except WireError:
        return
    assert len(found.payload) <= len(octets)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="identification"):
        FragmentHeader(next_header=4, identification=1 << 32)
