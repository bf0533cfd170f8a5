# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing mapping files: a table, or every fault with its line."""

from __future__ import annotations

from isthmus.address import Prefix
from isthmus.ipae.mapping import Fault, MappingRefused, OwnNetwork, emit, parse

OWN = OwnNetwork(Prefix.parse("10.1.0.0/16"), Prefix.parse_sip("1.213.77.5/32"))


def in_the_file(faults: tuple[Fault, ...], octets: bytes) -> None:
    """See that there is a fault, and that each names a line that there is."""
    assert faults
    assert all(each.at == "digest" or 1 <= int(each.at) <= octets.count(b"\n") + 1 for each in faults)


def check(octets: bytes) -> None:
    """Read a file; what is taken is written and read again, and leads no own address elsewhere."""
    try:
        table = parse(octets, own=[OWN])
    except MappingRefused as error:
        in_the_file(error.faults, octets)
        return
    assert parse(emit(table).encode(), own=[OWN]) == table
    for number in (OWN.prefix.address, Prefix.parse("10.1.255.255/32").address):
        image = table.mapping.lookup(number)
        assert image is None or image.address.site == OWN.site
