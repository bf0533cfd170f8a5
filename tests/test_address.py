# SPDX-License-Identifier: BSD-3-Clause
"""Addresses and prefixes in text, above all those of SIP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix, parse_upper, upper_text

VECTORS = json.loads((Path(__file__).parent / "vectors" / "ipae.json").read_text())["addresses"]
sip_addresses = st.integers(0, (1 << 64) - 1).map(lambda number: Address(Family.SIP, number))


@pytest.mark.rfc("ipae", "7")
@pytest.mark.rfc("8507", "4.1")
@pytest.mark.parametrize("vector", [each for each in VECTORS if "hex" in each], ids=lambda each: each["text"])
def test_every_notation_of_a_sip_address(vector):
    found = Address.parse_sip(vector["text"])
    assert found.hex == vector["hex"]
    assert str(found) == vector["canonical"]
    assert found.c_bit == bool(vector["c"])
    assert found.country == vector["country"]
    assert found.octets[1] == vector["metro"]
    assert int.from_bytes(found.octets[2:4], "big") == vector["site"]
    assert str(found.low) == vector["ip"]
    assert Address.parse_any(vector["text"]) == found


@pytest.mark.rfc("ipae", "7")
@pytest.mark.parametrize("vector", [each for each in VECTORS if each.get("error")], ids=lambda each: each["text"])
def test_what_is_no_notation_is_refused(vector):
    with pytest.raises(ValueError):
        Address.parse_sip(vector["text"])


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1.213.77.5/\n    192.3.4.1", "1.213.77.5/192.3.4.1"),
        (" 1 . 2.2.75 : 10.0.0.3", "1.2.2.75/10.0.0.3"),
        ("C1.2.2.8/010.000.000.007", "c1.2.2.8/10.0.0.7"),
        ("01d5:4d05:c003:0401", "1.213.77.5/192.3.4.1"),
        ("9404:3/129.144.1.1", "c20.4.0.3/129.144.1.1"),
    ],
)
def test_white_space_case_and_zeros_do_not_matter(text, canonical):
    assert str(Address.parse_sip(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "c129.2.2.8/1.2.3.4",
        "256.2.2.8/1.2.3.4",
        "1.2.2.8/1.2.3.256",
        "1.2.2.8.1.2.3.4",
        "c1404:1:1.2.3.4",
        "01D54:D05C0030401",
        "01D5:4D05:C003:040",
        "01D5::4D05:C003:0401",
        "\uff11.2.2.8/1.2.3.4",
        "",
        "1.2.2.8/",
        "fe80::1",
    ],
)
def test_more_that_is_no_sip_address(text):
    with pytest.raises(ValueError):
        Address.parse_sip(text)


@given(sip_addresses)
def test_both_printed_forms_are_read(address):
    assert Address.parse_sip(str(address)) == Address.parse_sip(address.hex) == address
    assert Address.parse_any(str(address)) == Address.parse_any(address.hex) == address
    assert str(address).startswith("c") == address.c_bit


@pytest.mark.parametrize("text", ["10.0.0.1", "2001:db8::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:10.0.0.1"])
def test_addresses_of_other_families_stay_what_they_are(text):
    assert Address.parse_any(text) == Address.parse(text)
    assert Address.parse(text).hex == str(Address.parse(text))


@pytest.mark.rfc("ipae", "3.2")
@pytest.mark.rfc("ipae", "4.1")
@given(sip_addresses)
def test_the_halves_and_the_c_bit(address):
    assert Address.of_halves(address.upper, address.low) == address
    assert address.low.octets == address.octets[4:]
    plain, marked = address.with_c_bit(c_bit=False), address.with_c_bit(c_bit=True)
    assert not plain.c_bit
    assert marked.c_bit
    assert plain.number ^ marked.number == 1 << 63
    assert plain.site == marked.site == address.site
    assert address.site.length == 32
    assert plain in address.site
    assert parse_upper(upper_text(address.upper)) == address.upper


def test_other_families_have_no_halves():
    address = Address.parse("10.0.0.1")
    assert not address.c_bit
    for take in (lambda: address.low, lambda: address.upper, lambda: address.site, lambda: address.country):
        with pytest.raises(ValueError):
            take()
    with pytest.raises(ValueError):
        Address.of_halves(1, Address.parse_sip("1.2.3.4/5.6.7.8"))
    with pytest.raises(ValueError):
        Address.of_halves(1 << 32, address)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("224.0.0.1", True),
        ("223.255.255.255", False),
        ("ff02::1", True),
        ("fe80::1", False),
        ("7F01:0000:0000:0001", True),
        ("FF0E:0000:E000:0005", True),
        ("7E01:0000:0000:0001", False),
    ],
)
def test_groups(text, group):
    assert Address.parse_any(text).is_multicast == group


@pytest.mark.parametrize(
    ("text", "canonical", "hexadecimal"),
    [
        ("1.213.77.5/192.3.4.0/56", "1.213.77.5/192.3.4.0/56", "01D5:4D05:C003:0400/56"),
        ("1.213.77.5/32", "1.213.77.5/32", "01D5:4D05:0000:0000/32"),
        ("c1.2.2.8/32", "c1.2.2.8/32", "8102:0208:0000:0000/32"),
        ("1404:1/32", "20.4.0.1/32", "1404:0001:0000:0000/32"),
        ("01D5:4D05:0000:0000/32", "1.213.77.5/32", "01D5:4D05:0000:0000/32"),
        ("1.213.77.", "1.213.77.0/24", "01D5:4D00:0000:0000/24"),
        ("1.213.77.5", "1.213.77.5/32", "01D5:4D05:0000:0000/32"),
        ("1:213:77:5:192.3.4.", "1.213.77.5/192.3.4.0/56", "01D5:4D05:C003:0400/56"),
        ("1.2.2.", "1.2.2.0/24", "0102:0200:0000:0000/24"),
        ("1.208/12", "1.208.0.0/12", "01D0:0000:0000:0000/12"),
        ("0/0", "0.0.0.0/0", "0000:0000:0000:0000/0"),
        ("c0/1", "c0.0.0.0/1", "8000:0000:0000:0000/1"),
        ("1.2.2.75/10.0.0.3", "1.2.2.75/10.0.0.3/64", "0102:024B:0A00:0003/64"),
        ("1404:1:192.9.0.0/48", "20.4.0.1/192.9.0.0/48", "1404:0001:C009:0000/48"),
    ],
)
def test_every_notation_of_a_sip_prefix(text, canonical, hexadecimal):
    found = Prefix.parse_sip(text)
    assert (str(found), found.hex) == (canonical, hexadecimal)
    assert Prefix.parse_sip(canonical) == Prefix.parse_sip(hexadecimal) == Prefix.parse_any(hexadecimal) == found


@pytest.mark.parametrize(
    "text", ["1.213", "1.213.77.5/24", "1.213.77.5/192.3.4.1/65", "1.2.2.8/", "1404:1/31", "", "1.2.3.4.5/32"]
)
def test_what_is_no_sip_prefix_is_refused(text):
    with pytest.raises(ValueError):
        Prefix.parse_sip(text)


@given(sip_addresses, st.integers(0, 64))
def test_prefixes_are_read_as_they_are_printed(address, length):
    number = address.number >> 64 - length << 64 - length
    prefix = Prefix(Address(Family.SIP, number), length)
    assert Prefix.parse_sip(str(prefix)) == Prefix.parse_any(prefix.hex) == prefix


@pytest.mark.parametrize("text", ["10.0.0.0/8", "1.2.3.4", "2001:db8::/32", "::/0"])
def test_prefixes_of_other_families_stay_what_they_are(text):
    assert Prefix.parse_any(text) == Prefix.parse(text)
    assert Prefix.parse(text).hex == str(Prefix.parse(text))


@given(st.text(alphabet="c0179aF.:/ ", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    for kind, parse in ((Address, Address.parse_sip), (Prefix, Prefix.parse_sip), (Prefix, Prefix.parse_any)):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert isinstance(found, kind)
        assert kind.parse_any(found.hex) == found
