# SPDX-License-Identifier: BSD-3-Clause
"""Which pseudo-header the checksums over SIP cover, and those checksums (seed IPAE 4.5.1; RFC 8507 §8.3).

Transports have two rules by the seed: everything between SIP systems, and what IPv4 would have covered
where one end speaks IPv4 only, so that a gateway leaves them alone. ICMP and IGMP have a
pseudo-header over SIP and none over IPv4, so a gateway changes their checksum; which one is a profile.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from isthmus.checksum import PseudoHeader, checksum, ones_sum, sip_pseudo_header
from isthmus.wire.transport import Protocol

if TYPE_CHECKING:
    from isthmus.address import Address

    Octets = bytes | bytearray | memoryview

_SOLID = 0xFFFF


class ChecksumProfile(enum.StrEnum):
    """Whose rules transports follow (erratum E3)."""

    IPAE = "ipae"
    "The seed's: full between SIP systems, compatible if either address has C set (errata E7, E8)."
    SIP92 = "sip92"
    "RFC 8507 §8.3, literally; no gateway leaves such a checksum right."


class IcmpProfile(enum.StrEnum):
    """Which pseudo-header ICMP and IGMP have (spec 2.6)."""

    IPAE = "ipae"
    "Full, whatever C says."
    SIP92 = "sip92"
    "RFC 8507 §8.3, literally."
    SIPP94_C1 = "sipp94-c1"
    "Full, without the length if either address has C set (draft-ietf-sipp-spec-00 §7.1)."


def transport_rule(src: Address, dst: Address, profile: ChecksumProfile = ChecksumProfile.IPAE) -> PseudoHeader:
    """Say what a transport checksum in a SIP packet covers (seed IPAE 4.5.1; errata E3, E7, E8).

    Args:
        src: SIP source address.
        dst: SIP final destination address.
        profile: Whose rules.
    """
    if profile is ChecksumProfile.SIP92:
        return PseudoHeader.SIP92
    # Deviation: the seed asks a sender about the destination's C bit and a receiver about the source's. Here either
    # bit is enough for both, which is the same in every correct case and survives a stale table (errata E7, E8).
    return PseudoHeader.COMPATIBLE if src.c_bit or dst.c_bit else PseudoHeader.FULL


def icmp_rule(src: Address, dst: Address, profile: IcmpProfile) -> PseudoHeader:
    """Say what the checksum of ICMP or IGMP in a SIP packet covers (RFC 8507 §8.1; spec 2.6)."""
    match profile:
        case IcmpProfile.IPAE:
            return PseudoHeader.FULL
        case IcmpProfile.SIP92:
            return PseudoHeader.SIP92
        case IcmpProfile.SIPP94_C1:
            return PseudoHeader.UNSIZED if src.c_bit or dst.c_bit else PseudoHeader.FULL


def pseudo_sum(rule: PseudoHeader, *, src: Address, dst: Address, payload_type: int, length: int) -> int:
    """Return the sum of the pseudo-header of a packet, by a rule.

    Args:
        rule: What is covered.
        src: SIP source address.
        dst: SIP final destination address (erratum E12).
        payload_type: That of the header in front of the transport.
        length: Transport length in octets, header included.
    """
    return sip_pseudo_header(rule, src=src.octets, dst=dst.octets, payload_type=payload_type, length=length)


def transport_checksum(rule: PseudoHeader, *, src: Address, dst: Address, payload_type: int, octets: Octets) -> int:
    """Compute a transport checksum whose own field is zero (RFC 8507 §8.3).

    Args:
        rule: What is covered besides.
        src: SIP source address.
        dst: SIP final destination address.
        payload_type: TCP, UDP, ICMP or IGMP.
        octets: Header and data.
    """
    start = pseudo_sum(rule, src=src, dst=dst, payload_type=payload_type, length=len(octets))
    computed = checksum(octets, start)
    # Zero means "no checksum" to UDP over IPv4, and every UDP packet over SIP has one (spec 5.1).
    return 0xFFFF if payload_type == Protocol.UDP and computed == 0 else computed


def fits(rule: PseudoHeader, *, src: Address, dst: Address, payload_type: int, octets: Octets) -> bool:
    """Whether the checksum in a transport packet is right by a rule; arguments as in ``transport_checksum``."""
    start = pseudo_sum(rule, src=src, dst=dst, payload_type=payload_type, length=len(octets))
    return ones_sum(octets, start) == _SOLID
