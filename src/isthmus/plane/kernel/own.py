# SPDX-License-Identifier: BSD-3-Clause
"""Our own addresses, as IPAE's program knows them: entries of three tables, and a bit each that saves most lookups."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from isthmus.address import Address, Family
from isthmus.border.realm import Border

OWN_FACTOR = 0x9E3779B1
"""As in abi.h; tests/test_abi.py compares them."""


CHANGES = slice(32, 36)
"""Where ``struct rules`` counts the changes of ``by_prefix``."""


def sip_ends(border: Border) -> dict[tuple[int, Address], int]:
    """IPv4 addresses of ours by realm and address: the SIP realm that datagrams to it lead to, 0 if to none."""
    ends = border.tunnel_ends
    ours = {(end.realm, end.address): 0 for end in ends if end.address.family is Family.IPV4}
    for realm in border.realms:
        for node in border.nodes:
            if realm.site is not None and node.address.site == realm.site:
                ours[realm.number, node.address.low] = 0
    for end in ends:
        if border.realm(end.leads_to).family is Family.SIP:
            ours[end.realm, end.address] = end.leads_to
    return ours


def bits(border: Border) -> bytes:
    """What ``struct rules`` has after ``next``: which numbers are worth looking up as ends, nodes and sites."""
    return struct.pack(
        "=3Q",
        _bits(address.number for _, address in sip_ends(border)),
        _bits(node.address.number for node in border.nodes),
        _bits(realm.site.address.upper for realm in border.realms if realm.site is not None),
    )


def bit(number: int) -> int:
    """The bit of a number, of which the lower 32 bits count."""
    return 1 << ((number * OWN_FACTOR & 0xFFFFFFFF) >> 26)


def _bits(numbers: Iterable[int]) -> int:
    found = 0
    for each in numbers:
        found |= bit(each)
    return found
