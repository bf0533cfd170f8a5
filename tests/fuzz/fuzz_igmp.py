# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing IGMP: what hosts say about groups, or a WireError."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.checksum import checksum
from isthmus.errors import WireError
from isthmus.wire import igmp


def repair(octets: bytes) -> bytes:
    """Make the checksum right."""
    if len(octets) < 8:
        return octets
    blank = octets[:2] + bytes(2) + octets[4:]
    return blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]


def check(octets: bytes) -> None:
    """Read a message; nobody becomes a member of what is no group."""
    try:
        said = igmp.parse(octets)
    except WireError as error:
        stays_within(error, octets)
        return
    assert len(said) <= max(1, (len(octets) - 8) // 8)
    assert all(each.group.octets[0] >> 4 == 0xE for each in said)
