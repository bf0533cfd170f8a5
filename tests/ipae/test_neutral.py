# SPDX-License-Identifier: BSD-3-Clause
"""Checksum-neutral addresses: what a program's kernel writes is what the SIP rule asks for (spec 8.1, 8.2, 8.5)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.checksum import checksum, ones_sum, pseudo_header
from isthmus.ipae.neutral import (
    Sockets,
    alias_residue,
    compatible_prefix,
    full_prefix,
    is_neutral,
    lower_residue,
    unique_local,
    upper_residue,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())["mapping"]
SOCKETS = Sockets()
SEGMENT = bytes.fromhex("c0000007010203040506070850182000000000006869")
TCP, UDP = 6, 17

sip_ = st.integers(0, (1 << 64) - 1).map(lambda number: Address(Family.SIP, number))
ipv4_ = st.integers(0, (1 << 32) - 1).map(lambda number: Address(Family.IPV4, number))
segments_ = st.binary(min_size=1, max_size=40)
protocols_ = st.sampled_from([TCP, UDP, 136, 50])


def agree(one, other):
    """Whether two checksums are the same to a receiver: 0 and 65535 are one residue."""
    return (one - other) % 0xFFFF == 0


def written(src, dst, protocol, segment):
    """What an IPv4 or IPv6 stack writes, which knows nothing of SIP."""
    return checksum(segment, pseudo_header(src.octets, dst.octets, protocol, len(segment)))


def wanted(src, dst, protocol, segment):
    """What the SIP rule asks for: compatible if either C bit is 1 (erratum E8), else full."""
    ends = (src.octets, dst.octets)
    if src.c_bit or dst.c_bit:
        ends = tuple(bytes(4) + each[4:] for each in ends)
    return checksum(segment, pseudo_header(*ends, protocol, len(segment)))


def with_residue(residue, high=0x6440):
    """An IPv4 address whose words add up to a residue."""
    return Address(Family.IPV4, high << 16 | (residue - high) % 0xFFFF)


class TestPrefixes:
    def test_the_mnemonic_full_prefix_adds_up_to_ffff(self):
        prefix = Prefix.parse(VECTORS["full_prefix"]["prefix"])
        assert prefix == SOCKETS.full
        assert ones_sum(prefix.address.octets[:8]) == 0xFFFF
        assert is_neutral(prefix)

    def test_a_full_prefix_is_made_from_a_random_global_id(self):
        assert full_prefix(0x57B5B10DCE) == Prefix.parse(VECTORS["full_prefix_from_random_global_id"]["prefix"])

    @given(st.integers(0, (1 << 40) - 1))
    def test_every_global_id_gives_a_full_prefix(self, global_id):
        prefix = full_prefix(global_id)
        assert is_neutral(prefix)
        assert Prefix.parse("fd00::/8").covers(prefix)
        assert unique_local(global_id).covers(prefix)
        Sockets(full=prefix)

    def test_a_global_id_of_more_than_40_bits_is_refused(self):
        with pytest.raises(ValueError, match="40 bits"):
            full_prefix(1 << 40)

    @pytest.mark.parametrize(
        ("address", "prefix"),
        [("1.213.77.5/192.3.4.1", "fd53:4950:4300:2781::/64"), ("c1.2.2.8/201.5.7.250", "fd53:4950:4300:f350::/64")],
    )
    def test_the_compatible_prefix_makes_up_for_the_upper_half(self, address, prefix):
        assert compatible_prefix(SOCKETS.compatible, Address.parse_sip(address)) == Prefix.parse(prefix)

    @given(sip_)
    def test_the_upper_96_bits_add_up_to_nothing(self, address):
        octets = SOCKETS.to_ipv6(address, compatible=True).octets
        assert ones_sum(octets[:12]) == 0xFFFF
        assert octets[8:] == address.octets

    @pytest.mark.parametrize("text", ["64:ff9b::/64", "64:ff9b:0:0::/64"])
    def test_the_well_known_prefix_of_rfc_6052_is_neutral(self, text):
        assert is_neutral(Prefix.parse(text))

    def test_a_full_prefix_that_is_not_neutral_is_refused_and_the_right_one_named(self):
        with pytest.raises(ValueError, match="has to be 6d74"):
            Sockets(full=Prefix.parse("fd49:5041:4500:6d75::/64"))

    @pytest.mark.parametrize("text", ["fd53:4950:4300::/47", "10.0.0.0/8"])
    def test_a_compatible_base_is_48_bits_of_ipv6(self, text):
        with pytest.raises(ValueError, match=r"no /48|bits set"):
            Sockets(compatible=Prefix.parse(text))

    def test_the_two_prefixes_may_not_overlap(self):
        with pytest.raises(ValueError, match="could not be told"):
            Sockets(compatible=Prefix.parse("fd49:5041:4500::/48"))


class TestBothWays:
    @given(sip_, st.booleans())
    def test_an_address_comes_back(self, address, compatible):
        assert SOCKETS.to_sip(SOCKETS.to_ipv6(address, compatible=compatible)) == address

    @given(sip_, st.integers(1, 0xFFFF))
    def test_a_compatible_address_with_another_subnet_word_is_nobodys(self, address, other):
        image = SOCKETS.to_ipv6(address, compatible=True)
        assert SOCKETS.to_sip(Address(Family.IPV6, image.number ^ other << 64)) is None

    def test_other_addresses_are_nobodys(self):
        assert SOCKETS.to_sip(Address.parse("2001:db8::1")) is None
        assert SOCKETS.to_sip(Address.parse("10.0.0.1")) is None

    def test_programs_are_told_of_a_sip_host_by_pf_and_of_an_ipv4_host_by_pc(self):
        assert SOCKETS.name_of(Address.parse_sip("1.2.2.8/201.5.7.250")) in SOCKETS.full
        assert SOCKETS.name_of(Address.parse_sip("c1.2.2.8/201.5.7.250")) in SOCKETS.compatible


class TestIpv6Sockets:
    @pytest.mark.parametrize("row", VECTORS["ipv6_socket_rows"])
    def test_the_rows_of_the_vectors(self, row):
        src, dst = Address.parse_sip(row["src_sip"]), Address.parse_sip(row["dst_sip"])
        compatible = row["rule"] == "compat"
        assert str(SOCKETS.to_ipv6(src, compatible=compatible)) == row["src_v6"]
        assert str(SOCKETS.to_ipv6(dst, compatible=compatible)) == row["dst_v6"]

    @given(sip_, sip_, protocols_, segments_)
    def test_what_a_kernel_writes_is_what_sip_wants(self, src, dst, protocol, segment):
        compatible = src.c_bit or dst.c_bit
        images = [SOCKETS.to_ipv6(each, compatible=compatible) for each in (src, dst)]
        assert agree(written(*images, protocol, segment), wanted(src, dst, protocol, segment))

    @given(sip_, sip_, st.integers(0, (1 << 40) - 1), segments_)
    def test_any_neutral_prefix_will_do(self, src, dst, global_id, segment):
        sockets = Sockets(full=full_prefix(global_id), compatible=Prefix.parse("fdff:1:2::/48"))
        compatible = src.c_bit or dst.c_bit
        images = [sockets.to_ipv6(each, compatible=compatible) for each in (src, dst)]
        assert agree(written(*images, TCP, segment), wanted(src, dst, TCP, segment))

    def test_pf_is_wrong_for_an_ipv4_host(self):
        src, dst = Address.parse_sip("1.213.77.5/192.3.4.1"), Address.parse_sip("c1.2.2.8/201.5.7.250")
        images = [SOCKETS.to_ipv6(each, compatible=False) for each in (src, dst)]
        assert not agree(written(*images, TCP, SEGMENT), wanted(src, dst, TCP, SEGMENT))

    def test_a_prefix_that_is_not_neutral_spoils_the_checksum_by_its_own_sum_twice(self):
        src, dst = Address.parse_sip("1.213.77.5/192.3.4.1"), Address.parse_sip("1.2.2.8/201.5.7.250")
        prefix = Prefix.parse("fd49:5041:4500:6d75::/64").address.number
        images = [Address(Family.IPV6, prefix | each.number) for each in (src, dst)]
        assert agree(written(*images, TCP, SEGMENT) + 2, wanted(src, dst, TCP, SEGMENT))


class TestIpv4Sockets:
    @pytest.mark.parametrize("row", VECTORS["ipv4_alias_rows"])
    def test_the_residues_of_the_vectors(self, row):
        peer = Address.parse_sip(row["peer"])
        assert alias_residue(peer) == int(row["residue_mod_ffff"], 16)
        assert str(with_residue(alias_residue(peer))) == row["alias"]

    @given(ipv4_, sip_, protocols_, segments_)
    def test_an_alias_of_the_peers_residue_serves_an_ipv4_host(self, host, peer, protocol, segment):
        alias = with_residue(alias_residue(peer))
        src = Address.of_halves(0x81D54D05, host)
        assert agree(written(host, alias, protocol, segment), wanted(src, peer, protocol, segment))

    @given(ipv4_, sip_, st.integers(0, (1 << 31) - 1), protocols_, segments_)
    def test_an_alias_with_both_upper_halves_serves_an_ipv4_socket_of_a_sip_host(
        self, host, peer, upper, protocol, segment
    ):
        src = Address.of_halves(upper, host)
        alias = with_residue(alias_residue(peer, identity=src))
        assert agree(written(host, alias, protocol, segment), wanted(src, peer, protocol, segment))

    @given(ipv4_, sip_, st.integers(1, 0xFFFE), segments_)
    def test_an_alias_of_the_wrong_residue_fails(self, host, peer, off, segment):
        alias = with_residue((alias_residue(peer) + off) % 0xFFFF)
        src = Address.of_halves(0x81D54D05, host)
        assert not agree(written(host, alias, TCP, segment), wanted(src, peer, TCP, segment))

    @given(ipv4_, ipv4_, ipv4_, ipv4_, segments_)
    def test_with_ipv4_on_both_sides_both_aliases_must_be_right(self, one, other, any_one, any_other, segment):
        """V speaks to alias a, W hears from alias a' (spec 8.1, last row)."""
        alias, mirrored = with_residue(lower_residue(other)), with_residue(lower_residue(one), high=0x6441)
        assert agree(written(one, alias, TCP, segment), written(mirrored, other, TCP, segment))

    def test_zero_and_65535_are_one_residue(self):
        peer = Address.parse_sip("c1.2.2.8/255.255.0.0")
        assert alias_residue(peer) == alias_residue(Address.parse_sip("c1.2.2.8/0.0.0.0")) == 0

    def test_a_neutral_site_prefix_needs_neither(self):
        """1.213.254.42: the site word is the complement of the region word, so full and IPv4 sums are one (spec 8.5)."""
        row = VECTORS["neutral_site_prefix"]
        src, dst = Address.parse_sip(row["example"]), Address.parse_sip(row["peer"])
        assert upper_residue(src) == upper_residue(dst) == 0
        assert agree(written(src.low, dst.low, TCP, SEGMENT), wanted(src, dst, TCP, SEGMENT))
