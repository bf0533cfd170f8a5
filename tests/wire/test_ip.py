# SPDX-License-Identifier: BSD-3-Clause
"""IPv4 and IPv6 headers, with scapy as second opinion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, IPOption
from scapy.layers.inet6 import IPv6

from isthmus.address import Address
from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.ipv6 import Ipv6Header, Ipv6View
from wire.strategies import ipv4_addresses, ipv4_headers, ipv6_addresses, ipv6_headers, u8, u16, unhurried

PACKET = bytes.fromhex("45b8001c1234400040110000 0a000001 c0000207".replace(" ", "")) + b"payload!"


def packet() -> bytearray:
    octets = bytearray(PACKET)
    Ipv4View.parse(octets).fix_checksum()
    return octets


@pytest.mark.rfc("791", "3.1")
def test_a_view_reads_every_field() -> None:
    view = Ipv4View.parse(packet() + b"trailer of the link")
    assert (view.ihl, view.tos, view.dscp, view.ecn) == (5, 0xB8, 46, 0)
    assert (view.total_length, view.identification, view.flags) == (28, 0x1234, 2)
    assert (view.df, view.mf, view.fragment_offset, view.is_fragment) == (True, False, 0, False)
    assert (view.ttl, view.protocol) == (64, 17)
    assert (str(view.src), str(view.dst)) == ("10.0.0.1", "192.0.2.7")
    assert (bytes(view.header), bytes(view.payload)) == (bytes(packet()[:20]), b"payload!")
    assert bytes(view.octets) == packet()
    assert view.checksum_ok
    assert bytes(view.options) == b""


@pytest.mark.rfc("791", "3.1")
@pytest.mark.parametrize(
    ("at", "octets", "error"),
    [
        (0, "65", Malformed),
        (0, "44", Malformed),
        (0, "4f", Truncated),
        (2, "0013", Malformed),
        (2, "001d", Truncated),
    ],
)
def test_lengths_and_version_are_checked(at: int, octets: str, error: type[WireError]) -> None:
    broken = packet()
    broken[at : at + len(octets) // 2] = bytes.fromhex(octets)
    for read in (Ipv4View.parse, Ipv4Header.parse):
        with pytest.raises(error):
            read(broken)


def test_every_truncation_is_noticed_unless_it_is_a_quotation() -> None:
    whole = packet()
    for n in range(len(whole)):
        with pytest.raises(Truncated):
            Ipv4View.parse(whole[:n])
    quoted = Ipv4View.parse(whole[:24], quoted=True)
    assert (quoted.total_length, bytes(quoted.payload)) == (28, b"payl")


@pytest.mark.rfc("791", "3.2")
def test_fragments_are_recognised() -> None:
    first, last = packet(), packet()
    first[6:8], last[6:8] = b"\x20\x00", b"\x00\x05"
    assert Ipv4View.parse(first).is_fragment
    assert Ipv4View.parse(first).mf
    assert Ipv4View.parse(last).is_fragment
    assert Ipv4View.parse(last).fragment_offset == 5


@pytest.mark.rfc("1624", "3")
@unhurried
@given(ipv4_headers, u8, u8)
def test_setters_keep_the_checksum_and_every_other_bit(header: Ipv4Header, ttl: int, tos: int) -> None:
    octets = bytearray(header.emit())
    view = Ipv4View.parse(octets, quoted=True)
    right = view.checksum_ok
    view.ttl, view.tos = ttl, tos
    assert (view.ttl, view.tos) == (ttl, tos)
    assert view.checksum_ok == right
    before = bytearray(header.emit())
    before[1], before[8], before[10:12] = tos, ttl, octets[10:12]
    assert octets == before


def test_a_view_of_bytes_cannot_be_set() -> None:
    with pytest.raises(TypeError):
        Ipv4View.parse(bytes(packet())).ttl = 1


@unhurried
@given(ipv4_headers)
def test_any_ipv4_header_survives(header: Ipv4Header) -> None:
    octets = header.emit()
    assert len(octets) == header.octets
    assert Ipv4Header.parse(octets, quoted=True) == header
    assert Ipv4Header.parse(octets, quoted=True).emit() == octets


@unhurried
@given(st.binary(max_size=80), st.booleans())
def test_any_octets_are_an_ipv4_header_or_a_wire_error(octets: bytes, quoted: bool) -> None:
    octets = b"\x45" + octets
    try:
        header = Ipv4Header.parse(octets, quoted=quoted)
    except WireError:
        return
    assert header.emit() == octets[: header.octets]


def test_a_wrong_checksum_is_kept_and_a_right_one_computed() -> None:
    octets = packet()
    assert Ipv4Header.parse(octets).header_checksum is None
    octets[10] ^= 1
    assert Ipv4Header.parse(octets).header_checksum == octets[10] << 8 | octets[11]
    assert Ipv4Header.parse(octets).emit() == octets[:20]


@pytest.mark.parametrize(
    "changes",
    [{"ttl": 256}, {"total_length": 19}, {"options": b"\1"}, {"options": bytes(44)}, {"fragment_offset": 1 << 13}, {"header_checksum": -1}, {"src": Address.parse("::1")}],
)  # fmt: skip
def test_a_header_that_exists_is_valid(changes: dict[str, object]) -> None:
    values = {"total_length": 20, "protocol": 4, "src": Address.parse("10.0.0.1"), "dst": Address.parse("10.0.0.2")}
    assert Ipv4Header(**values)
    with pytest.raises(ValueError):
        Ipv4Header(**values | changes)


@unhurried
@given(
    ipv4_addresses, ipv4_addresses, u8, u8, u16, st.integers(0, 7), st.integers(0, 0x1FFF), st.sampled_from([0, 4, 8])
)
def test_scapy_builds_what_we_read(
    src: Address, dst: Address, tos: int, ttl: int, ident: int, flags: int, offset: int, options: int
) -> None:
    built = bytes(
        IP(src=str(src), dst=str(dst), tos=tos, ttl=ttl, id=ident, flags=flags, frag=offset, proto=253,
           options=[IPOption(b"\x01" * options)] if options else []) / b"payload"
    )  # fmt: skip
    header = Ipv4Header.parse(built)
    assert (header.src, header.dst, header.tos, header.ttl, header.identification) == (src, dst, tos, ttl, ident)
    assert (header.reserved << 2 | header.df << 1 | header.mf, header.fragment_offset) == (flags, offset)
    assert (header.header_checksum, header.octets) == (None, 20 + options)
    assert header.emit() + b"payload" == built


@unhurried
@given(ipv6_headers)
def test_any_ipv6_header_survives(header: Ipv6Header) -> None:
    octets = header.emit()
    assert Ipv6Header.parse(octets, quoted=True) == header
    seen = IPv6(octets)
    assert (seen.tc, seen.fl, seen.plen, seen.nh, seen.hlim) == (
        header.traffic_class,
        header.flow_label,
        header.payload_length,
        header.next_header,
        header.hop_limit,
    )
    assert Address.parse(seen.src) == header.src
    assert Address.parse(seen.dst) == header.dst


@pytest.mark.rfc("8200", "3")
@unhurried
@given(ipv6_addresses, u8, u8)
def test_an_ipv6_view_edits_in_place(src: Address, traffic_class: int, hop_limit: int) -> None:
    octets = bytearray(
        Ipv6Header(flow_label=0xABCDE, payload_length=3, next_header=4, src=src, dst=src).emit() + b"abcde"
    )
    view = Ipv6View.parse(octets)
    view.traffic_class, view.hop_limit = traffic_class, hop_limit
    assert (view.traffic_class, view.dscp, view.ecn) == (traffic_class, traffic_class >> 2, traffic_class & 3)
    assert (view.hop_limit, view.flow_label, view.payload_length, view.next_header) == (hop_limit, 0xABCDE, 3, 4)
    assert (bytes(view.payload), len(view.header), len(view.octets)) == (b"abc", 40, 43)
    assert view.src == view.dst == src
    with pytest.raises(ValueError, match="8 bits"):
        view.traffic_class = 256


def test_ipv6_lengths_and_version_are_checked() -> None:
    whole = (
        Ipv6Header(payload_length=3, next_header=4, src=Address.parse("::1"), dst=Address.parse("::2")).emit() + b"abc"
    )
    for n in range(len(whole)):
        with pytest.raises(Truncated):
            Ipv6View.parse(whole[:n])
    assert bytes(Ipv6View.parse(whole[:41], quoted=True).payload) == b"a"
    with pytest.raises(Malformed, match="must be 6"):
        Ipv6View.parse(b"\x45" + whole[1:])
    for changes in ({"hop_limit": 256}, {"flow_label": 1 << 20}, {"src": Address.parse("10.0.0.1")}):
        values = {"payload_length": 0, "next_header": 4, "src": Address.parse("::1"), "dst": Address.parse("::2")}
        with pytest.raises(ValueError):
            Ipv6Header(**values | changes)
