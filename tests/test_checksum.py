# SPDX-License-Identifier: BSD-3-Clause
"""Checksums by every rule, against the vectors and against each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.checksum import PseudoHeader, checksum, move_pseudo_header, ones_sum, sip_pseudo_header
from isthmus.ipae.addressing import Format, checksum_rule, is_compatible, may_lack_checksum
from isthmus.wire import transport
from isthmus.wire.sip.pseudo import (
    ChecksumProfile,
    IcmpProfile,
    fits,
    icmp_rule,
    pseudo_sum,
    transport_checksum,
    transport_rule,
)
from isthmus.wire.transport import Protocol

VECTORS = json.loads((Path(__file__).parent / "vectors" / "ipae.json").read_text())
SCENARIOS = {
    f"{each['scenario']} {each['transport']}": each for part in ("tcp", "udp") for each in VECTORS[f"scenarios_{part}"]
}
NAMES = {
    "v4": PseudoHeader.IPV4,
    "full": PseudoHeader.FULL,
    "compat": PseudoHeader.COMPATIBLE,
    "sip92": PseudoHeader.SIP92,
}
CHECKSUM_AT = {6: 16, 17: 6}

sip_addresses = st.integers(0, (1 << 64) - 1).map(lambda number: Address(Family.SIP, number))
compatible_pairs = st.builds(
    lambda src, dst, bits: (src.with_c_bit(c_bit=bits[0]), dst.with_c_bit(c_bit=bits[1])),
    sip_addresses,
    sip_addresses,
    st.sampled_from([(True, False), (False, True), (True, True)]),
)
segments = st.binary(min_size=20, max_size=60)


def without(segment: bytes, protocol: int) -> bytes:
    at = CHECKSUM_AT[protocol]
    return segment[:at] + bytes(2) + segment[at + 2 :]


@pytest.mark.rfc("ipae", "4.5.1")
@pytest.mark.parametrize("name", SCENARIOS)
def test_checksums_of_the_scenarios_under_each_rule(name):
    vector = SCENARIOS[name]
    src, dst = Address.parse_sip(vector["src_sip"]), Address.parse_sip(vector["dst_sip"])
    protocol = 6 if vector["transport"] == "TCP" else 17
    segment = bytes.fromhex(vector["transport_segment"])
    for rule, wanted in vector["checksum_under_each_rule"].items():
        found = transport_checksum(
            NAMES[rule], src=src, dst=dst, payload_type=protocol, octets=without(segment, protocol)
        )
        assert f"{found:04x}" == wanted, rule
    assert f"{int.from_bytes(segment[CHECKSUM_AT[protocol] :][:2], 'big'):04x}" == vector["checksum_in_packet"]
    for who in ("rule_used_by_sender", "rule_used_by_receiver"):
        assert fits(NAMES[vector[who]], src=src, dst=dst, payload_type=protocol, octets=segment)
    chosen = transport_rule(src, dst)
    assert fits(chosen, src=src, dst=dst, payload_type=protocol, octets=segment)
    ipv4 = vector["rule_used_by_sender"] == "v4"
    assert checksum_rule(Format.IPV4 if ipv4 else Format.SIP, src, dst) == NAMES[vector["rule_used_by_sender"]]


@pytest.mark.rfc("ipae", "4.5.1")
@pytest.mark.parametrize("row", VECTORS["neutrality"]["rows"], ids=lambda row: f"{row['src_c']}{row['dst_c']}")
def test_neutrality_for_all_four_c_bits(row):
    src = Address.parse_sip("1.213.77.5/192.3.4.1").with_c_bit(c_bit=bool(row["src_c"]))
    dst = Address.parse_sip("1.2.2.8/201.5.7.250").with_c_bit(c_bit=bool(row["dst_c"]))
    assert transport_rule(src, dst) == NAMES[row["recommended_rule"]]
    ends = {"src": src, "dst": dst, "payload_type": 6}
    octets = _segment_of_neutrality(row, ends)
    for name, wanted in row["checksums"].items():
        assert f"{transport_checksum(NAMES[name], **ends, octets=octets):04x}" == wanted
    same = {name for name, wanted in row["checksums"].items() if wanted == row["checksums"]["v4"]}
    assert same == set(row["equals_v4"])


def _segment_of_neutrality(row, ends):
    """A segment, its checksum blank, that has the checksum of the row under IPv4: only the sum of it matters."""
    blank = bytes(20)
    found = transport_checksum(PseudoHeader.IPV4, **ends, octets=blank)
    missing = (found - int(row["checksums"]["v4"], 16)) % 0xFFFF
    return missing.to_bytes(2, "big") + blank[2:]


@pytest.mark.rfc("ipae", "4.5.1")
@given(compatible_pairs, segments, st.sampled_from([6, 17, 33, 50, 136]))
def test_a_gateway_leaves_the_transport_alone_between_compatible_peers(pair, segment, protocol):
    src, dst = pair
    ends = {"src": src, "dst": dst, "payload_type": protocol}
    over_ipv4 = transport.transport_checksum(src=src.low, dst=dst.low, protocol=protocol, octets=segment)
    assert transport_checksum(transport_rule(src, dst), **ends, octets=segment) == over_ipv4
    # What a receiver finds out is the same, too, whatever stands in the checksum.
    valid_over_ipv4 = ones_sum(src.low.octets + dst.low.octets + segment, protocol + len(segment)) == 0xFFFF
    assert fits(transport_rule(src, dst), **ends, octets=segment) == valid_over_ipv4


@given(compatible_pairs, segments)
def test_the_profile_sip92_breaks_it(pair, segment):
    src, dst = pair
    rule = transport_rule(src, dst, ChecksumProfile.SIP92)
    ends = {"src": src, "dst": dst, "payload_type": Protocol.TCP, "octets": segment}
    over_sip92 = sip_pseudo_header(rule, src=src.octets, dst=dst.octets, payload_type=6, length=len(segment))
    over_ipv4 = pseudo_sum(PseudoHeader.IPV4, src=src, dst=dst, payload_type=6, length=len(segment))
    upper = sum(ones_sum(each.octets[:4]) for each in (src, dst) if not each.c_bit)
    assert (over_sip92 - over_ipv4 - 255 * 6 - upper) % 0xFFFF == 0
    if (255 * 6 + upper) % 0xFFFF:
        assert transport_checksum(rule, **ends) != transport_checksum(PseudoHeader.IPV4, **ends)


@given(sip_addresses, sip_addresses, segments)
def test_the_full_rule_is_ipv4s_only_where_the_upper_halves_add_up_to_nothing(src, dst, segment):
    ends = {"src": src, "dst": dst, "payload_type": Protocol.TCP, "octets": segment}
    same = transport_checksum(PseudoHeader.FULL, **ends) == transport_checksum(PseudoHeader.IPV4, **ends)
    assert same == (ones_sum(src.octets[:4] + dst.octets[:4]) % 0xFFFF == 0)


@pytest.mark.rfc("8507", "8.3")
def test_udp_over_sip_has_a_checksum_even_if_it_is_zero():
    src, dst = Address.parse_sip("1.213.77.5/192.3.4.1"), Address.parse_sip("1.2.2.8/201.5.7.250")
    start = pseudo_sum(PseudoHeader.FULL, src=src, dst=dst, payload_type=17, length=10)
    octets = bytes(8) + (~start & 0xFFFF).to_bytes(2, "big")
    ends = {"src": src, "dst": dst, "payload_type": 17}
    assert checksum(octets, start) == 0
    assert transport_checksum(PseudoHeader.FULL, **ends, octets=octets) == 0xFFFF
    assert may_lack_checksum(Format.IPV4, src)
    assert may_lack_checksum(Format.SIP, src.with_c_bit(c_bit=True))
    assert not may_lack_checksum(Format.IPAE, src)


@pytest.mark.rfc("8507", "8.1")
@pytest.mark.parametrize("profile", IcmpProfile)
def test_icmp_gets_a_pseudo_header_at_the_gateway(profile):
    vector = VECTORS["icmp_translate"][profile]
    packet = bytes.fromhex(vector["sip_packet"])
    src, dst = Address.from_octets(packet[8:16]), Address.from_octets(packet[16:24])
    message = packet[24:]
    rule = icmp_rule(src, dst, profile)
    assert checksum_rule(Format.SIP, src, dst, protocol=1, icmp=profile) == rule
    start = pseudo_sum(rule, src=src, dst=dst, payload_type=1, length=len(message))
    assert f"{start:04x}" == vector["pseudo_sum"]
    over_ipv4 = int(vector["icmp_checksum_v4"], 16)
    moved = move_pseudo_header(over_ipv4, before=0, after=start)
    assert f"{moved:04x}" == vector["icmp_checksum_sip"]
    assert move_pseudo_header(moved, before=start, after=0) == over_ipv4
    assert fits(rule, src=src, dst=dst, payload_type=1, octets=message)
    assert checksum(message[:2] + over_ipv4.to_bytes(2, "big") + message[4:]) == 0


@given(sip_addresses, sip_addresses, st.integers(8, 2000), st.integers(8, 2000))
def test_the_unsized_rule_does_not_know_the_length(src, dst, one, other):
    assert pseudo_sum(PseudoHeader.UNSIZED, src=src, dst=dst, payload_type=1, length=one) == pseudo_sum(
        PseudoHeader.UNSIZED, src=src, dst=dst, payload_type=1, length=other
    )
    both = not (src.c_bit or dst.c_bit)
    assert (icmp_rule(src, dst, IcmpProfile.SIPP94_C1) is PseudoHeader.FULL) == both


@given(sip_addresses, sip_addresses)
def test_the_format_decides_before_the_c_bits(src, dst):
    either = src.c_bit or dst.c_bit
    assert is_compatible(Format.IPV4, src, dst)
    assert checksum_rule(Format.IPV4, src, dst) is PseudoHeader.IPV4
    assert checksum_rule(Format.IPV4, src, dst, profile=ChecksumProfile.SIP92) is PseudoHeader.IPV4
    assert checksum_rule(Format.IPV4, src, dst, protocol=Protocol.ICMP) is None
    for packet_format in (Format.SIP, Format.IPAE):
        assert is_compatible(packet_format, src, dst) == either
        wanted = PseudoHeader.COMPATIBLE if either else PseudoHeader.FULL
        assert checksum_rule(packet_format, src, dst) is wanted
        assert checksum_rule(packet_format, src, dst, protocol=2) is PseudoHeader.FULL
        assert checksum_rule(packet_format, src, dst, profile=ChecksumProfile.SIP92) is PseudoHeader.SIP92
