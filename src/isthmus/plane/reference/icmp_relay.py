# SPDX-License-Identifier: BSD-3-Clause
"""ICMP errors: whose they are, which are forged, and those that we send (RFC 3102 §6.2; RFC 1812 §4.3).

An error that passes through is found by the packet that it quotes (``classify.quoted_ends``)
and travels like any other packet; nothing in it is rewritten. What has to be checked is that
the error and its quote belong together, because the quote is all that the table is asked about:

===========  =============================  ===================================================
way          who wrote the quoted packet    the error's own address that must match it
===========  =============================  ===================================================
inward       the holder of the binding      destination = quoted source
outward      the peer                       source = quoted destination, destination = quoted source
===========  =============================  ===================================================

A host is the end of its flows, and answers whom it heard from: were its error to go elsewhere, the limit on its peers
would be asked about the quote and the packet would go to anybody.

Pairs with ``bpf/include/isthmus/icmp_relay.h``; replies are made here only, the kernel plane punts.
"""

from __future__ import annotations

from dataclasses import replace

from isthmus.address import Address, Family
from isthmus.plane.reference.classify import Ends
from isthmus.wire import icmp
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol

_LINK_GROUPS = 0xE00000
_TO_HOSTS_ONLY = frozenset({Protocol.ICMP, Protocol.ESP, Protocol.AH})

UNNUMBERED = Address.parse("192.0.0.8")
"""Who speaks where there is no IPv4 address to speak from (RFC 7600 §4.8)."""

_LARGEST_ERROR = 576
_TTL = 64


def is_forged_inward(packet: Ipv4View, both: Ends) -> bool:
    """Whether an error from outside quotes a packet of somebody else than its addressee (RFC 3102 §6.2)."""
    return both.quoted and packet.dst != both.dst


def is_forged_outward(packet: Ipv4View, both: Ends) -> bool:
    """Whether an error from a host quotes a packet that its addressee did not send to its sender (RFC 3102 §6.2)."""
    return both.quoted and (packet.src, packet.dst) != (both.src, both.dst)


def is_no_host(address: Address) -> bool:
    """Whether an IPv4 address is in 0/8, 127/8 or 224/3, so that nobody can be told (RFC 1812 §5.3.7)."""
    first = address.number >> 24
    return first in {0, 127} or first >= 224


def is_forbidden(packet: Ipv4View) -> bool:
    """Whether no packet of a host may leave for this destination (RFC 1812 §5.3.7; RFC 3102 §5.4).

    0/8, 127/8, 240/4, and the groups of the link, 224.0.0/24 (RFC 5771 §4); other groups for ICMP, ESP and AH.
    """
    destination = packet.dst.number
    first = destination >> 24
    if first in {0, 127} or first >= 240 or destination >> 8 == _LINK_GROUPS:
        return True
    return first >= 224 and packet.protocol in _TO_HOSTS_ONLY


def is_group(address: Address) -> bool:
    """Whether an IPv4 address is in 224/4, a multicast group (RFC 1112 §4)."""
    return address.number >> 28 == 0xE


def may_answer(packet: Ipv4View) -> bool:
    """Whether an ICMP error may be sent about a whole packet (RFC 1812 §4.3.2.7; RFC 1122 §3.2.2)."""
    if is_no_host(packet.src) or is_group(packet.dst):
        return False
    return packet.protocol != Protocol.ICMP or not icmp.IcmpView.parse(packet.payload).is_error


def speaker(end: Address) -> Address:
    """Who we are to the far end of a tunnel: our end's address, if it is of IPv4 (RFC 7600 §4.8)."""
    return end if end.family is Family.IPV4 else UNNUMBERED


def echo_reply(packet: Ipv4View) -> bytes | None:
    """Write the answer to an echo request (RFC 792; RFC 1122 §3.2.2.6; RFC 3102 §6.2).

    Returns:
        None if it is another request; the identification is the request's, since the reply may have to be cut.
    """
    request = icmp.IcmpMessage.parse(packet.payload)
    if request.type != icmp.IcmpType.ECHO:
        return None
    header = Ipv4Header(
        tos=packet.tos,
        total_length=20 + len(packet.payload),
        identification=packet.identification,
        ttl=_TTL,
        protocol=Protocol.ICMP,
        src=packet.dst,
        dst=packet.src,
    )
    return header.emit() + replace(request, type=icmp.IcmpType.ECHO_REPLY, checksum=None).emit()


def is_damaged(packet: Ipv4View) -> bool:
    """Whether a checksum of an ICMP message or of its IP header is wrong (RFC 792; RFC 1122 §3.2.2)."""
    return not packet.checksum_ok or not icmp.IcmpView.parse(packet.payload).checksum_ok


def time_exceeded(packet: Ipv4View, source: Address, *, limit: int = _LARGEST_ERROR) -> bytes:
    """Write "time exceeded in transit" to the sender of a packet (RFC 792; RFC 1812 §5.3.1).

    Args:
        packet: The packet as it came in.
        source: Who we are to its sender.
        limit: Largest packet that the way back carries.
    """
    return _error(packet, source, icmp.time_exceeded(_quote(packet, limit)))


def fragmentation_needed(packet: Ipv4View, source: Address, mtu: int, *, limit: int = _LARGEST_ERROR) -> bytes:
    """Write "fragmentation needed and DF set" to the sender of a packet (RFC 1191 §4).

    Args:
        packet: The packet as it came in.
        source: Who we are to its sender.
        mtu: Largest packet that the tunnel carries.
        limit: Largest packet that the way back carries.
    """
    return _error(packet, source, icmp.fragmentation_needed(_quote(packet, limit), mtu))


def _quote(packet: Ipv4View, limit: int) -> bytes:
    """As much of a packet as an error may hold (RFC 1812 §4.3.2.3)."""
    return bytes(packet.octets[: min(limit, _LARGEST_ERROR) - 20 - icmp.HEADER_OCTETS])


def _error(packet: Ipv4View, source: Address, message: bytes) -> bytes:
    # Deviation: RFC 1812 §4.3.2.5 asks for precedence 6 or that of the packet; we send TOS 0.
    header = Ipv4Header(total_length=20 + len(message), ttl=_TTL, protocol=Protocol.ICMP, src=source, dst=packet.src)
    return header.emit() + message
