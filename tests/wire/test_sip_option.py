# SPDX-License-Identifier: BSD-3-Clause
"""Source routing and fragmentation headers, and the way through them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.errors import Malformed, Truncated
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.header import SipHeader, SipView
from isthmus.wire.sip.option import (
    FRAGMENT,
    MOST_OPTIONS,
    SOURCE_ROUTE,
    Fragmentation,
    OptionLayout,
    SourceRoute,
    walk,
)
from isthmus.wire.sip.pseudo import ChecksumProfile, fits, transport_rule
from wire.sip_samples import VECTORS, fragmentations, sip, source_routes

layouts = st.sampled_from(OptionLayout)
ROUTED = VECTORS["lsrr_sip_sr"]
SRC, DST = sip("1.213.77.5/192.3.4.1"), sip("1.2.2.8/201.5.7.250")


def packet(payload_type: int, payload: bytes, dst: Address = DST) -> SipView:
    header = SipHeader(payload_length=len(payload), payload_type=payload_type, src=SRC, dst=dst)
    return SipView.parse(header.emit() + payload)


@pytest.mark.rfc("8507", "6")
@given(route=source_routes, layout=layouts, more=st.binary(max_size=9))
def test_a_source_route_is_lossless_in_both_layouts(route: SourceRoute, layout: OptionLayout, more: bytes) -> None:
    octets = route.emit(layout)
    assert len(octets) == route.octets
    assert SourceRoute.parse(octets + more, layout=layout) == route


@pytest.mark.rfc("8507", "7")
@given(part=fragmentations, layout=layouts, more=st.binary(max_size=9))
def test_a_fragmentation_header_is_lossless_in_both_layouts(
    part: Fragmentation, layout: OptionLayout, more: bytes
) -> None:
    octets = part.emit(layout)
    assert len(octets) == 8
    assert Fragmentation.parse(octets + more, layout=layout) == part


@pytest.mark.rfc("8507", "6")
@pytest.mark.parametrize("vector", ROUTED, ids=lambda each: str(each["lsrr_pointer"]))
def test_source_routes_of_the_vectors(vector: dict[str, object]) -> None:
    octets = bytes.fromhex(vector["sip"])
    view = SipView.parse(octets)
    found = walk(view)
    assert found.source_route is not None
    assert len(found.source_route.addresses) == vector["num_addrs"]
    assert found.source_route.next_address == vector["sip_next_addr"]
    assert found.source_route_at == 24
    assert octets[: found.at] == bytes(view.header) + found.source_route.emit()
    assert found.payload_type == 17
    assert str(found.final_destination) == vector["pseudo_header_destination"]
    rule = transport_rule(view.src, found.final_destination, ChecksumProfile.IPAE)
    ends = {"src": view.src, "dst": found.final_destination, "payload_type": 17}
    assert fits(rule, **ends, octets=found.payload), "the checksum is that of IPv4, and it was not touched"
    datagram = Ipv4View.parse(bytes.fromhex(vector["ipv4"]))
    assert datagram.options[2] == 4 + 4 * found.source_route.next_address
    assert bytes(found.payload) == bytes(datagram.payload)


@pytest.mark.rfc("8507", "6")
def test_each_addressed_node_swaps_its_address_for_the_next() -> None:
    states = [SipView.parse(bytes.fromhex(each["sip"])) for each in ROUTED]
    for before, after in pairwise(states):
        route, then = walk(before).source_route, walk(after).source_route
        assert route is not None
        assert then is not None
        # The vectors have what a gateway makes of IPv4's record, one slot for one; a swap gives the same.
        assert route.swap(before.dst) == (after.dst, then)
    last = walk(states[-1]).source_route
    assert last is not None
    assert last.is_finished
    assert not last.is_contradictory
    with pytest.raises(ValueError):
        last.swap(states[-1].dst)
    assert replace(last, next_address=3).is_contradictory


@pytest.mark.rfc("8507", "7")
def test_fragments_of_the_vectors_in_both_layouts() -> None:
    vectors = VECTORS["fragments"]
    udp = bytes.fromhex("13881770040836e3") + bytes(each % 256 for each in range(vectors["udp_length"] - 8))
    assembled = bytearray(len(udp))
    for vector in vectors["fragments"]:
        header = bytes.fromhex(vector["sip_header_and_frag"])
        datagram = Ipv4View.parse(bytes.fromhex(vector["ipv4_in"].rstrip(".")), quoted=True)
        start = datagram.fragment_offset * 8
        view = SipView.parse(header + udp[start : start + datagram.total_length - 20])
        assert view.total_length == vector["sip_length"]
        found = walk(view)
        assert found.is_fragment
        assert found.at == 32
        part = found.fragmentation
        assert part is not None
        assert part.emit().hex() == vector["frag_header_1992"]
        assert part.emit(OptionLayout.SIPP94).hex() == vector["frag_header_1994"]
        assert Fragmentation.parse(bytes.fromhex(vector["frag_header_1994"]), layout=OptionLayout.SIPP94) == part
        assert part.identification == int(vectors["id"], 16) == datagram.identification
        assert (part.more, part.fragment_offset) == (datagram.mf, datagram.fragment_offset)
        assembled[start : start + len(found.payload)] = found.payload
    assert bytes(assembled) == udp
    src = walk(view).final_destination
    rule = transport_rule(view.src, src)
    assert rule == "compatible"
    assert fits(rule, src=view.src, dst=view.dst, payload_type=17, octets=assembled)


def test_a_whole_datagram_that_is_marked_is_no_fragment() -> None:
    vector = VECTORS["fragments"]["df0_whole_datagram_marked"]
    found = walk(SipView.parse(bytes.fromhex(vector["sip"])))
    assert found.fragmentation is not None
    assert not found.is_fragment
    assert found.payload_type == 17
    assert bytes(found.payload) == bytes(Ipv4View.parse(bytes.fromhex(vector["ipv4_out"])).payload)


def route(*stops: Address, next_address: int = 0, payload_type: int = 6) -> bytes:
    return SourceRoute(addresses=stops, next_address=next_address, payload_type=payload_type).emit()


@pytest.mark.rfc("8507", "8.3")
def test_the_final_destination_is_that_of_the_innermost_unfinished_route() -> None:
    one, two, three = (sip(f"1.2.3.{number}/10.0.0.1") for number in (1, 2, 3))
    assert walk(packet(6, b"")).final_destination == DST
    assert walk(packet(SOURCE_ROUTE, route(one, two))).final_destination == two
    assert walk(packet(SOURCE_ROUTE, route(one, two, next_address=2))).final_destination == DST
    assert walk(packet(SOURCE_ROUTE, route(one, next_address=9))).final_destination == DST
    nested = route(one, payload_type=SOURCE_ROUTE) + route(two, three)
    assert walk(packet(SOURCE_ROUTE, nested)).final_destination == three
    nested = route(one, payload_type=SOURCE_ROUTE) + route(two, three, next_address=2)
    found = walk(packet(SOURCE_ROUTE, nested))
    assert found.final_destination == one
    assert found.source_route is not None
    assert found.source_route.addresses == (one,), "the first is the one that the addressed node acts on"


def test_behind_a_fragmentation_header_of_a_part_nothing_is_a_header() -> None:
    part = Fragmentation(identification=1, fragment_offset=3, payload_type=SOURCE_ROUTE)
    found = walk(packet(FRAGMENT, part.emit() + b"data"))
    assert (found.payload_type, bytes(found.payload)) == (SOURCE_ROUTE, b"data")
    whole = replace(part, fragment_offset=0)
    found = walk(packet(FRAGMENT, whole.emit() + route(DST)))
    assert found.payload_type == 6
    assert found.source_route_at == 32


def test_chains_without_end_are_refused() -> None:
    routes = route(payload_type=SOURCE_ROUTE) * (MOST_OPTIONS - 1) + route()
    assert walk(packet(SOURCE_ROUTE, routes)).payload_type == 6
    with pytest.raises(Malformed, match="more than"):
        walk(packet(SOURCE_ROUTE, route(payload_type=SOURCE_ROUTE) + routes))
    twice = Fragmentation(identification=1, payload_type=FRAGMENT).emit() * 2
    with pytest.raises(Malformed, match="already"):
        walk(packet(FRAGMENT, twice))


@pytest.mark.rfc("8507", "6")
@pytest.mark.parametrize("length", [0, 7, 8, 15])
def test_a_route_must_fit_the_payload(length: int) -> None:
    with pytest.raises(Truncated) as caught:
        walk(packet(SOURCE_ROUTE, route(DST)[:length]))
    assert caught.value.at == 24
    with pytest.raises(Truncated):
        walk(packet(FRAGMENT, bytes(7)))


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError):
        SourceRoute(addresses=(Address.parse("1.2.3.4"),), payload_type=6)
    with pytest.raises(ValueError):
        SourceRoute(addresses=(DST,) * 256, payload_type=6)
    with pytest.raises(ValueError):
        SourceRoute(addresses=(), payload_type=256)
    with pytest.raises(ValueError):
        Fragmentation(identification=1, fragment_offset=0x2000, payload_type=6)
