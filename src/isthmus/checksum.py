# SPDX-License-Identifier: BSD-3-Clause
"""The Internet checksum and its arithmetic (RFC 1071, RFC 1624).

One's complement sums of 16-bit words in network order. A sum is an ``int``
in 0..0xffff; a *checksum* is the complement of a sum, as it stands in a header.
"""

from __future__ import annotations

import struct


def fold(total: int) -> int:
    """Fold a sum of any size into 16 bits with end-around carry (RFC 1071 §1)."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ones_sum(octets: bytes | bytearray | memoryview, start: int = 0) -> int:
    """Add up octets as 16-bit words, an odd last octet padded with zero (RFC 1071 §1).

    Args:
        octets: The data.
        start: A sum to go on from, for instance that of a pseudo-header.
    """
    data = bytes(octets)
    if len(data) % 2:
        data += b"\0"
    return fold(start + sum(struct.unpack(f"!{len(data) // 2}H", data)))


def checksum(octets: bytes | bytearray | memoryview, start: int = 0) -> int:
    """Return the checksum that belongs into a header whose own field counts as zero (RFC 1071 §1)."""
    return ~ones_sum(octets, start) & 0xFFFF


def update(old: int, before: int, after: int) -> int:
    """Change a checksum for one 16-bit word that changes: HC' = ~(~HC + ~m + m') (RFC 1624 §3, eqn. 3)."""
    return ~fold((~old & 0xFFFF) + (~before & 0xFFFF) + after) & 0xFFFF


def pseudo_header(src: bytes, dst: bytes, protocol: int, length: int) -> int:
    """Return the sum of a transport pseudo-header (RFC 793 §3.1 for IPv4, RFC 8200 §8.1 for IPv6).

    Args:
        src: Source address, in the octets that the rule in use says.
        dst: Destination address, likewise.
        protocol: IP protocol number.
        length: Transport length in octets, header included.
    """
    return ones_sum(src + dst, protocol + (length >> 16) + (length & 0xFFFF))
