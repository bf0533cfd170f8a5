# SPDX-License-Identifier: BSD-3-Clause
"""Network and AA records: RDATA, names, zones."""

import dns.name
import dns.rdata
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.errors import WireError
from isthmus.ipae import records
from isthmus.ipae.mapping import MappingRefused, OwnNetwork, parse
from isthmus.ipae.records import Network, ZoneHead

ZONE = dns.name.from_text("map.example.")
FILE = b"129.144.0.0/16 c20.4.0.3\n10.16.0.0/12 c1.2.2.8\n192.9.5.0/24 c1.213.77.5\n192.9.5.2/32 1.213.77.5\n64.0.0.0/3 1.1.1.1\n"


def name(text):
    return dns.name.from_text(text, ZONE)


def test_a_network_record_has_six_octets():
    assert Network(16, 0x81D54D05).emit() == bytes.fromhex("0110 01d54d05")
    assert Network(24, 0x01D54D05).emit() == bytes.fromhex("0018 01d54d05")
    assert Network.parse(bytes.fromhex("0110 01d54d05")) == Network(16, 0x81D54D05)


@given(st.integers(1, 32), st.integers(0, 0xFFFFFFFF))
def test_a_network_record_comes_back(length, upper):
    network = Network(length, upper)
    assert Network.parse(network.emit()) == network
    assert Network.parse_text(network.emit_text()) == network


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        ("", "needs 6 octets, 0 left"),
        ("0110 01d54d", "needs 6 octets, 5 left"),
        ("0110 01d54d05 00", "7 octets instead of 6"),
        ("0310 01d54d05", "flags at octet 0: 0x03"),
        ("0100 01d54d05", "length at octet 1: 0 is not"),
        ("0121 01d54d05", "length at octet 1: 33 is not"),
        ("0110 81d54d05", "upper half at octet 2: its first bit is set"),
    ],
)
def test_network_records_that_are_none(octets, words):
    with pytest.raises(WireError, match=words):
        Network.parse(bytes.fromhex(octets))


def test_the_form_in_text():
    assert Network(24, 0x81D54D05).emit_text() == "ipae=1.213.77.5 c=1 len=24"
    assert Network.parse_text("ipae=1.213.77.5 c=0 len=24") == Network(24, 0x01D54D05)
    assert Network.parse_text("ipae=1.213.77.5 len=24") == Network(24, 0x81D54D05)
    assert Network.parse_text("v=spf1 -all") is None
    for wrong in (
        "ipae=1.213.77.5",
        "ipae=1.213 len=3",
        "ipae=1.2.3.4 len=33",
        "ipae=1.2.3.4 len=8 c=2",
        "ipae=1.2.3.4 len=8 x=1",
    ):
        with pytest.raises(WireError):
            Network.parse_text(wrong)


def test_an_aa_record_is_a_sip_address():
    address = Address.parse_sip("c1.213.77.5/192.3.4.1")
    assert records.emit_host(address) == bytes.fromhex("81d54d05c0030401")
    assert records.parse_host(records.emit_host(address)) == address
    for wrong in (b"", b"1234567", b"123456789"):
        with pytest.raises(WireError):
            records.parse_host(wrong)
    with pytest.raises(ValueError):
        records.emit_host(Address.parse("192.3.4.1"))


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("129.144.0.0/16", ["144.129"]),
        ("10.0.0.0/8", ["10"]),
        ("192.9.5.2/32", ["2.5.9.192"]),
        ("10.16.0.0/14", ["16.10", "17.10", "18.10", "19.10"]),
        ("192.9.5.128/31", ["128.5.9.192", "129.5.9.192"]),
    ],
)
def test_a_network_stands_at_the_names_of_its_octets(prefix, names):
    prefix = Prefix.parse(prefix)
    assert list(records.names_of(prefix, ZONE)) == [name(each) for each in names]
    for each in names:
        beginning = records.beginning_of(name(each), ZONE)
        assert records.network_at(beginning, prefix.length) == prefix


@pytest.mark.parametrize("text", ["@", "ns", "256.10", "01.10", "1.2.3.4.5", "x.10", "144.129.in-addr.arpa."])
def test_other_names_of_a_zone_are_about_no_network(text):
    assert records.beginning_of(name(text), ZONE) is None


def test_the_reverse_tree_has_sixteen_nibbles():
    address = Address.parse_sip("1.213.77.5/192.3.4.1")
    reverse = records.reverse_name(address, dns.name.from_text("sip.arpa."))
    assert str(reverse) == "1.0.4.0.3.0.0.c.5.0.d.4.5.d.1.0.sip.arpa."
    assert records.parse_reverse_name(reverse, dns.name.from_text("sip.arpa.")) == address
    assert records.parse_reverse_name(reverse, ZONE) is None
    assert records.parse_reverse_name(name("1.2.3"), ZONE) is None


@given(st.integers(0, (1 << 64) - 1))
def test_reverse_names_come_back(number):
    address = Address(Family.SIP, number)
    assert records.parse_reverse_name(records.reverse_name(address, ZONE), ZONE) == address


def content(lines):
    zone = dns.zone.from_text("\n".join([*lines, ""]), origin=ZONE, relativize=False)
    return [(owner, rdata) for owner, _, rdata in zone.iterate_rdatas()]


@pytest.mark.rfc("ipae", "8.1")
@pytest.mark.parametrize("as_text", [False, True])
def test_a_table_goes_into_a_zone_and_comes_out_of_it(as_text):
    mapping = parse(FILE).mapping
    lines = list(records.zone_lines(mapping, ZoneHead(origin="map.example.", serial=5, server="ns"), as_text=as_text))
    assert records.mapping_of(content(lines), ZONE) == mapping
    assert ("144.129 TYPE65400 \\# 6 011014040003" in lines) is not as_text
    assert ('144.129 TXT "ipae=20.4.0.3 c=1 len=16"' in lines) is as_text


def refusal(*lines, own=()):
    head = ["@ 60 SOA ns hostmaster 1 2 3 4 5", "@ 60 NS ns"]
    with pytest.raises(MappingRefused) as refused:
        records.mapping_of(content([*head, *(f"{line}" for line in lines)]), ZONE, own=own)
    return [str(each) for each in refused.value.faults]


def test_a_zone_with_a_fault_is_refused_whole():
    assert refusal("144.129 60 TYPE65400 \\# 6 011014040003", "1.10 60 TYPE65400 \\# 5 0110140400") == [
        "1.10.map.example.: network record at octet 0: needs 6 octets, 5 left"
    ]
    assert refusal("144.129 60 TYPE65400 \\# 6 011814040003") == [
        "144.129.map.example.: a network of length 24 stands at names of 3 octets"
    ]
    assert refusal("144.129 60 TYPE65400 \\# 6 011014040003", '144.129 60 TXT "ipae=1.2.3.4 len=16"') == [
        "144.129.map.example.: 129.144.0.0/16 is mapped to c1.2.3.4, but to c20.4.0.3 at 144.129.map.example."
    ]
    own = OwnNetwork(Prefix.parse("129.144.1.0/24"))
    assert refusal("144.129 60 TYPE65400 \\# 6 011014040003", own=[own]) == [
        "144.129.map.example.: 129.144.0.0/16 is mapped to c20.4.0.3, but 129.144.1.0/24 is here"
    ]


def test_rdata_of_unknown_types():
    made = records.rdata(records.NETWORK, Network(16, 0x81D54D05).emit())
    assert made.rdtype == 65400
    assert made.to_text() == r"\# 6 011001d54d05"
    assert records.unknown_type_text(bytes.fromhex("011001d54d05")) == r"\# 6 011001D54D05"
    assert Network.of_rdata(made) == Network(16, 0x81D54D05)
    assert Network.of_rdata(dns.rdata.from_text("IN", "A", "192.0.2.1")) is None
