# SPDX-License-Identifier: BSD-3-Clause
"""The compact content of a mapping zone: what transfers write to it, and the mapping that comes of it."""

import dns.name
import dns.rdata
import dns.rdataset
import dns.transaction
import dns.zone
import pytest

from isthmus.address import Prefix
from isthmus.ipae import records
from isthmus.ipae.mapping import MappingRefused, OwnNetwork, parse
from isthmus.ipae.records import ZoneHead
from isthmus.ipae.zone_records import ZoneRecords

ZONE = dns.name.from_text("map.example.")
FILE = b"129.144.0.0/16 c20.4.0.3\n10.16.0.0/12 c1.2.2.8\n192.9.5.0/24 c1.213.77.5\n192.9.5.2/32 1.213.77.5\n"
HEAD = ["@ 600 SOA ns hostmaster 7 2 3 4 5", "@ 600 NS ns"]


def name(text):
    return dns.name.from_text(text, ZONE)


def zone(lines):
    return dns.zone.from_text("\n".join([*lines, ""]), origin=ZONE, relativize=False)


def content(lines):
    made = ZoneRecords(ZONE)
    with made.writer(replacement=True) as writing:
        for owner, rdataset in zone(lines).iterate_rdatasets():
            writing.add(owner, rdataset)
    return made


@pytest.mark.parametrize("as_text", [False, True])
def test_the_mapping_is_that_of_the_records(as_text):
    mapping = parse(FILE).mapping
    lines = list(records.zone_lines(mapping, ZoneHead(origin="map.example.", serial=5, server="ns"), as_text=as_text))
    made = content([*lines, "x 60 A 192.0.2.1", '1.2.3.4.5 60 TXT "ipae=1.2.3.4 len=32"', '9 60 TXT "about" " it"'])
    assert made.mapping() == mapping
    assert made.serial == 5


@pytest.mark.parametrize(
    "lines",
    [
        ["144.129 60 TYPE65400 \\# 6 011014040003", "1.10 60 TYPE65400 \\# 5 0110140400"],
        ["144.129 60 TYPE65400 \\# 6 011814040003"],
        ["144.129 60 TYPE65400 \\# 6 011014040003", '144.129 60 TXT "ipae=1.2.3.4" " len=16"'],
        ["8.144.129 60 TYPE65400 \\# 6 011814040003"],
        ["127 60 TYPE65400 \\# 6 010814040003"],
    ],
)
def test_what_is_wrong_is_what_is_wrong_with_the_records(lines):
    own = [OwnNetwork(Prefix.parse("129.144.8.0/24"))]
    pairs = [(owner, rdata) for owner, _, rdata in zone([*HEAD, *lines]).iterate_rdatas()]
    with pytest.raises(MappingRefused) as generic:
        records.mapping_of(pairs, ZONE, own=own)
    with pytest.raises(MappingRefused) as compact:
        content([*HEAD, *lines]).mapping(own)
    assert str(compact.value) == str(generic.value)


def test_increments_add_and_delete_records_of_a_set():
    made = content([*HEAD, "1.10 60 TYPE65400 \\# 6 011014040003", "16.10 60 TYPE65400 \\# 6 010C14040003"])
    more = dns.rdata.from_text("IN", "TYPE65400", "\\# 6 010C14040003")
    whole = dns.rdata.from_text("IN", "TYPE65400", "\\# 6 011014040003")
    with made.writer() as writing:
        writing.add(name("16.10"), 60, whole)
        writing.delete_exact(name("1.10"), whole)
        assert made.mapping() == parse(b"10.1.0.0/16 c20.4.0.3\n10.16.0.0/12 c20.4.0.3").mapping
    assert made.mapping() == parse(b"10.16.0.0/16 c20.4.0.3\n10.16.0.0/12 c20.4.0.3").mapping
    with made.writer() as writing:
        writing.delete_exact(name("16.10"), more)
    assert made.mapping() == parse(b"10.16.0.0/16 c20.4.0.3").mapping
    with made.writer() as writing, pytest.raises(dns.transaction.DeleteNotExact):
        writing.delete_exact(name("16.10"), more)
    with made.writer() as writing:
        writing.delete_exact(name("16.10"), whole)
        writing.add(name("16.10"), 60, whole)
    assert len(made.mapping()) == 1
    assert len(made) == 3


def test_what_is_not_finished_changes_nothing():
    made = content([*HEAD, "1.10 60 TYPE65400 \\# 6 011014040003"])
    before = dict(made.sets)
    writing = made.writer(replacement=True)
    writing.add(name("2.10"), 60, dns.rdata.from_text("IN", "TYPE65400", "\\# 6 011014040003"))
    assert writing.get(name("1.10"), "TYPE65400") is None
    assert writing.get(name("2.10"), "TYPE65400") is not None
    writing.rollback()
    assert made.sets == before


def test_the_least_ttl_is_that_of_network_records():
    assert content([*HEAD, "1.10 900 TYPE65400 \\# 6 011014040003", "x 5 A 192.0.2.1"]).least_ttl() == 900
    assert content(HEAD).least_ttl() == 86400
    assert ZoneRecords(ZONE).serial is None


def test_names_are_the_same_in_any_case():
    made = content([*HEAD, "NS 60 A 192.0.2.1"])
    assert made.reader().get(name("ns"), "A") is not None
