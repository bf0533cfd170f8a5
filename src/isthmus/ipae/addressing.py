# SPDX-License-Identifier: BSD-3-Clause
"""What an IPAE system concludes from formats and C bits, which checksum rule holds; and which addresses are its own.

Format first (erratum E9): what came or goes as IPv4 has IPv4's pseudo-header, whoever the peer is.
Over SIP, native or inside of IPv4, the C bits decide (seed IPAE 4.5.1; errata E7, E8).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from isthmus.address import Address, Prefix
from isthmus.checksum import PseudoHeader
from isthmus.wire.sip import special
from isthmus.wire.sip.pseudo import ChecksumProfile, IcmpProfile, icmp_rule, transport_rule
from isthmus.wire.transport import Protocol

_IGMP = 2
_SITE_BITS = 32
_LONGEST_SUBNET = 30
"Longer ones have no address to spare."


class Format(enum.Enum):
    """How a packet travels on the link (seed IPAE 4.5, 6.1; spec 5.1)."""

    IPV4 = "ipv4"
    IPAE = "ipae"
    "SIP inside of IPv4; above the internet layer the same as SIP."
    SIP = "sip"


def is_compatible(packet_format: Format, src: Address, dst: Address) -> bool:
    """Whether a packet is the affair of 32 bits: IPv4, or a C bit in either address (spec 5.2, erratum E8).

    Args:
        packet_format: As it travelled; the addresses do not matter for IPv4.
        src: SIP source address.
        dst: SIP final destination address.
    """
    return packet_format is Format.IPV4 or src.c_bit or dst.c_bit


def checksum_rule(
    packet_format: Format,
    src: Address,
    dst: Address,
    *,
    protocol: int = Protocol.TCP,
    profile: ChecksumProfile = ChecksumProfile.IPAE,
    icmp: IcmpProfile = IcmpProfile.IPAE,
) -> PseudoHeader | None:
    """Say what the checksum of a transport covers besides the transport (seed IPAE 4.5.1; errata E3, E7 to E9).

    Args:
        packet_format: As it travels.
        src: SIP source address; for IPv4 it does not matter.
        dst: SIP final destination address (erratum E12).
        protocol: Protocol or payload type of the transport.
        profile: Whose rule for transports over SIP.
        icmp: Whose rule for ICMP and IGMP over SIP.

    Returns:
        The rule; None for ICMP and IGMP over IPv4, which have no pseudo-header.
    """
    has_profile = protocol in (Protocol.ICMP, _IGMP)
    if packet_format is Format.IPV4:
        return None if has_profile else PseudoHeader.IPV4
    return icmp_rule(src, dst, icmp) if has_profile else transport_rule(src, dst, profile)


def may_lack_checksum(packet_format: Format, src: Address) -> bool:
    """Whether a UDP checksum of zero is accepted: over IPv4, or from an IPv4 system (spec 5.1)."""
    return packet_format is Format.IPV4 or src.c_bit


def anyone(addresses: Iterable[Address], networks: Iterable[Prefix], *, router: bool) -> tuple[Address, ...]:
    """Return the Anyone addresses that a system takes for its own (RFC 8507 §4.4).

    Args:
        addresses: Its own SIP addresses.
        networks: The IPv4 networks of its interfaces, which are its subnets under the sites of its addresses.
        router: Whether it is a router, which knows of its site as well.
    """
    links = tuple(each for each in networks if each.length <= _LONGEST_SUBNET)
    found = []
    for own in addresses:
        subnets = [
            Prefix(Address.of_halves(own.upper, link.address), _SITE_BITS + link.length)
            for link in links
            if own.low in link
        ]
        found += [special.anyone(each) for each in (*subnets, *((own.site,) if router else ()))]
    return tuple(dict.fromkeys(found))
