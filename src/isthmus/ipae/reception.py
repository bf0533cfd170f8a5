# SPDX-License-Identifier: BSD-3-Clause
"""What arrives at an IPAE host, in any of the three formats, up to the lookup of its connection (spec 5.1).

::

    version 4, protocol 41  → IPAE: the hop limit is the smaller of both, then as SIP (seed IPAE 5.3)
    version 4               → IPv4
    version 6               → SIP: past the option headers, to the final destination (erratum E12)

Above this IPAE and SIP are the same. Whether the destination is ours, and putting fragments together, is the
business of whoever calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address, Prefix
from isthmus.checksum import ones_sum, pseudo_header
from isthmus.errors import Malformed, WireError
from isthmus.ipae.addressing import Format, checksum_rule, may_lack_checksum
from isthmus.ipae.connection import Quote, Segment
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.header import HeaderOrder, SipView
from isthmus.wire.sip.ipae import PROTOCOL, Ipae, Version6, demultiplex
from isthmus.wire.sip.option import walk
from isthmus.wire.sip.pseudo import fits
from isthmus.wire.transport import Protocol, ports

_SIP = 6
_UDP_CHECKSUM = slice(6, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """One whole packet, without its headers up to the transport's."""

    packet_format: Format
    hop_limit: int
    "TTL or hop limit; nothing is taken off at the receiver (spec 3.2)."
    protocol: int
    source: Address
    "IPv4 in the IPv4 format, else SIP."
    destination: Address
    "The final one."
    transport: memoryview

    @property
    def checksum_fits(self) -> bool:
        """Whether the checksum of TCP or UDP is right by format and C bits (seed IPAE 4.5.1; errata E8, E9)."""
        rule = checksum_rule(self.packet_format, self.source, self.destination)
        if self.protocol == Protocol.UDP and not any(self.transport[_UDP_CHECKSUM]):
            return may_lack_checksum(self.packet_format, self.source)
        if self.packet_format is Format.IPV4:
            covered = pseudo_header(self.source.octets, self.destination.octets, self.protocol, len(self.transport))
            return ones_sum(self.transport, covered) == 0xFFFF
        assert rule is not None
        return fits(
            rule, src=self.source, dst=self.destination, payload_type=self.protocol, octets=bytes(self.transport)
        )

    def segment(self, *, arrival: Prefix | None = None) -> Segment | None:
        """What the lookup of connections wants to know; None: the transport has no ports, or is cut short.

        Args:
            arrival: The site of the interface that the packet came by.
        """
        both = ports(self.protocol, self.transport)
        if both is None:
            return None
        return Segment(
            packet_format=self.packet_format,
            protocol=self.protocol,
            local=self.destination,
            local_port=both[1],
            remote=self.source,
            remote_port=both[0],
            arrival=arrival,
        )


def receive(octets: bytes | memoryview, *, order: HeaderOrder = HeaderOrder.DEERING) -> Reception:
    """Read a packet that the link has brought under EtherType 0x0800 (spec 5.1).

    Args:
        octets: The packet, whole.
        order: Of the SIP header.

    Raises:
        WireError: it does not parse, is a fragment, or its header checksum is wrong.
    """
    if len(octets) and octets[0] >> 4 == _SIP:
        view = SipView.parse(octets, order=order)
        return _of_sip(view, Format.SIP, view.hop_limit)
    outer = Ipv4View.parse(octets)
    if not outer.checksum_ok:
        raise Malformed("Header Checksum", at=10, problem="it does not fit the header")
    if outer.protocol == PROTOCOL:
        inner = Ipae.parse(outer, order=order).inner
        return _of_sip(inner, Format.IPAE, min(outer.ttl, inner.hop_limit))
    if outer.is_fragment:
        raise Malformed("Fragment Offset", at=6, problem="a part of a packet only")
    return Reception(
        packet_format=Format.IPV4,
        hop_limit=outer.ttl,
        protocol=outer.protocol,
        source=outer.src,
        destination=outer.dst,
        transport=outer.payload,
    )


def _of_sip(view: SipView, packet_format: Format, hop_limit: int) -> Reception:
    chain = walk(view)
    if chain.is_fragment:
        raise Malformed("fragmentation header", at=chain.fragmentation_at or 0, problem="a part of a packet only")
    return Reception(
        packet_format=packet_format,
        hop_limit=hop_limit,
        protocol=chain.payload_type,
        source=view.src,
        destination=chain.final_destination,
        transport=chain.payload,
    )


def read_quote(
    octets: bytes | memoryview, *, arrival: Prefix | None = None, order: HeaderOrder = HeaderOrder.DEERING
) -> Quote | None:
    """Read what an ICMP error quotes of a packet that we sent, IPv4 or SIP by its version (spec 5.2, 6).

    Args:
        octets: The quote, cut short as it may be.
        arrival: The site of the interface that the error came by.
        order: Of the SIP header.

    Returns:
        None: there are no addresses in it, as in the eight octets of an IPAE datagram that RFC 792 routers quote.
    """
    try:
        if len(octets) and octets[0] >> 4 == _SIP:
            return _quoted_sip(SipView.parse(octets, order=order, quoted=True), Format.SIP, arrival)
        outer = Ipv4View.parse(octets, quoted=True)
        if outer.protocol == PROTOCOL:
            if demultiplex(outer.payload, outer.total_length - 4 * outer.ihl) is not Version6.SIP:
                return None
            return _quoted_sip(SipView.parse(outer.payload, order=order, quoted=True), Format.IPAE, arrival)
    except WireError:
        return None
    whole = outer.fragment_offset == 0
    return Quote(
        packet_format=Format.IPV4,
        protocol=outer.protocol,
        source=outer.src,
        destination=outer.dst,
        ports=ports(outer.protocol, outer.payload) if whole else None,
        arrival=arrival,
    )


def _quoted_sip(view: SipView, packet_format: Format, arrival: Prefix | None) -> Quote:
    chain = walk(view)
    first = chain.fragmentation is None or chain.fragmentation.fragment_offset == 0
    return Quote(
        packet_format=packet_format,
        protocol=chain.payload_type,
        source=view.src,
        destination=chain.final_destination,
        ports=ports(chain.payload_type, chain.payload) if first else None,
        arrival=arrival,
    )
