# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing the GRE header: a value or a WireError, and the same octets again."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.checksum import checksum
from isthmus.errors import WireError
from isthmus.wire.gre import GreHeader


def repair(octets: bytes) -> bytes:
    """Make the checksum right where there is one."""
    if len(octets) < 8 or not octets[0] & 0x80:
        return octets
    blank = octets[:4] + bytes(2) + octets[6:]
    return blank[:4] + checksum(blank).to_bytes(2, "big") + blank[6:]


def check(octets: bytes) -> None:
    """Read it with its checksum and without."""
    read = []
    for verify in (False, True):
        try:
            header = GreHeader.parse(octets, verify=verify)
        except WireError as error:
            stays_within(error, octets)
            continue
        assert header.emit() == octets[: header.octets]
        read.append(header)
    assert len(set(read)) <= 1, "verifying may refuse more, and must not read differently"
