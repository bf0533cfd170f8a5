# SPDX-License-Identifier: BSD-3-Clause
"""ICMP errors: whose they are, which are forged, and those that we send (RFC 3102 §6.2; RFC 1812 §4.3).

An error that passes through is found by the packet that it quotes (``classify.quoted_ends``)
and travels like any other packet; nothing in it is rewritten. What has to be checked is that
the error and its quote belong together, because the quote is all that the table is asked about:

===========  =============================  ==========================================
way          who wrote the quoted packet    the error's own address that must match it
===========  =============================  ==========================================
inward       the holder of the binding      destination = quoted source
outward      the peer                       source = quoted destination
===========  =============================  ==========================================

Pairs with ``bpf/include/isthmus/icmp_relay.h``; replies are made here only, the kernel plane punts.
"""

from __future__ import annotations

from isthmus.address import Address, Prefix
from isthmus.plane.reference.classify import Ends
from isthmus.wire import icmp
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol

_NO_HOST = (Prefix.parse("0.0.0.0/8"), Prefix.parse("127.0.0.0/8"), Prefix.parse("224.0.0.0/3"))
"""Sources that nobody can be told about, destinations that no packet may leave for."""

_LARGEST_ERROR = 576
_TTL = 64


def is_forged_inward(packet: Ipv4View, both: Ends) -> bool:
    """Whether an error from outside quotes a packet of somebody else than its addressee (RFC 3102 §6.2)."""
    return both.quoted and packet.dst != both.dst


def is_forged_outward(packet: Ipv4View, both: Ends) -> bool:
    """Whether an error from a host quotes a packet that was not addressed to its sender (RFC 3102 §6.2)."""
    return both.quoted and packet.src != both.src


def is_no_host(address: Address) -> bool:
    """Whether an address is zero, loopback, multicast, reserved or broadcast (RFC 1812 §5.3.7)."""
    return any(address in prefix for prefix in _NO_HOST)


def may_answer(packet: Ipv4View) -> bool:
    """Whether an ICMP error may be sent about a packet (RFC 1812 §4.3.2.7; RFC 1122 §3.2.2).

    Fragments do not come this far.
    """
    if is_no_host(packet.src):
        return False
    return packet.protocol != Protocol.ICMP or not icmp.IcmpView.parse(packet.payload).is_error


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
