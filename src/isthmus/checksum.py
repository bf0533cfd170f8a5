# SPDX-License-Identifier: BSD-3-Clause
"""The Internet checksum and its arithmetic (RFC 1071, RFC 1624).

One's complement sums of 16-bit words in network order. A sum is an ``int``
in 0..0xffff; a *checksum* is the complement of a sum, as it stands in a header.
"""

from __future__ import annotations

import enum
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


class PseudoHeader(enum.StrEnum):
    """What a transport checksum covers of the IP header that it is sent in (seed IPAE 4.5.1; spec 4.2)."""

    IPV4 = "ipv4"
    "Low 32 bits of both addresses, zero, protocol, length (RFC 793 §3.1)."
    FULL = "full"
    "64 bits of both addresses, zero, payload type, length (seed IPAE 4.5.1)."
    COMPATIBLE = "compatible"
    "As IPV4, summed over zeros and the low 32 bits: whoever changes the header leaves the sum (seed IPAE 4.5.1)."
    SIP92 = "sip92"
    "32 bits of an address with C set and 64 of one without; payload type in the left octet (RFC 8507 §8.3)."
    UNSIZED = "unsized"
    "As FULL without the length, which a translator of fragments does not know (draft-ietf-sipp-spec-00 §7.1)."


_C_OCTET = 0x80


def sip_pseudo_header(rule: PseudoHeader, *, src: bytes, dst: bytes, payload_type: int, length: int) -> int:
    """Return the sum of the pseudo-header of a transport over SIP, by a rule.

    Args:
        rule: What is covered; ``isthmus.ipae.addressing`` says which one holds for a packet.
        src: SIP source address, 8 octets.
        dst: SIP final destination address, 8 octets (erratum E12).
        payload_type: That of the header in front of the transport.
        length: Transport length in octets, header included.
    """
    match rule:
        case PseudoHeader.IPV4 | PseudoHeader.COMPATIBLE:
            # Adding the zeros of the compatible form changes nothing: that is what makes it compatible (spec 4.3).
            return pseudo_header(src[4:], dst[4:], payload_type, length)
        case PseudoHeader.FULL:
            return pseudo_header(src, dst, payload_type, length)
        case PseudoHeader.SIP92:
            covered = b"".join(each[4:] if each[0] & _C_OCTET else each for each in (src, dst))
            return ones_sum(covered, (payload_type << 8) + length)
        case PseudoHeader.UNSIZED:
            return pseudo_header(src, dst, payload_type, 0)


def move_pseudo_header(old: int, *, before: int, after: int) -> int:
    """Change a checksum for a packet that gets another pseudo-header (RFC 1624 §3, eqn. 3; spec 2.6).

    Args:
        old: The checksum as it stands.
        before: Sum of the pseudo-header that it covers, 0 for none.
        after: Sum of the one that it shall cover, 0 for none.
    """
    return update(old, before, after)
