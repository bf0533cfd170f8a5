# SPDX-License-Identifier: BSD-3-Clause
"""What a packet says about itself: its ends, and from them its flow (RFC 3102 §3.2; RFC 3103 §7.3).

A packet has two ends, and each has an address and perhaps a value that tells hosts behind
the address apart: a port, an ICMP identifier, an SPI. Which end is the local one is not
written in the packet; it depends on the side it comes from, and ``flow`` is told.

An ICMP error speaks of another packet and quotes it. Its ends are those of the quoted
packet the other way round: the error goes to whom the quoted packet came from
(RFC 3102 §6.2).

Pairs with ``bpf/include/isthmus/classify.h``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from isthmus.address import Address
from isthmus.border.selector import Flow, Kind
from isthmus.errors import WireError
from isthmus.wire.icmp import IcmpType
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.transport import Protocol, icmp_identifier, ports, spi

Octets = bytes | bytearray | memoryview

ICMP_ERRORS = frozenset(
    {
        IcmpType.DESTINATION_UNREACHABLE,
        IcmpType.SOURCE_QUENCH,
        IcmpType.TIME_EXCEEDED,
        IcmpType.PARAMETER_PROBLEM,
    }
)
"""Errors that are relayed by what they quote (RFC 3102 §6.2); a redirect is meant for one link only."""

ICMP_REQUESTS = frozenset(
    {IcmpType.ECHO, IcmpType.TIMESTAMP, IcmpType.INFORMATION_REQUEST, IcmpType.ADDRESS_MASK_REQUEST}
)
"""Requests, which from outside are the gateway's own to answer (RFC 3102 §6.2)."""

_NEEDED: dict[int, int] = {Protocol.TCP: 4, Protocol.UDP: 4, Protocol.ICMP: 8, Protocol.ESP: 4, Protocol.AH: 8}
"Octets of the transport header that classification reads."


class Side(enum.Enum):
    """Which end of a packet is the local one."""

    SOURCE = "src"
    DESTINATION = "dst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of a packet, or of the conversation that an ICMP error is about."""

    src: Address
    dst: Address
    kind: Kind | None = None
    "None where nothing tells hosts behind one address apart."
    src_value: int = 0
    dst_value: int = 0
    has_ports: bool = False
    "Whether the values are ports: identifiers and SPIs do not limit a peer."
    icmp_type: int | None = None
    quoted: bool = False
    "Whether they were read, mirrored, from an ICMP error's quote."
    protocol: int = 0
    "Of the packet, or of the quoted one."
    transport: Octets = field(default=b"", repr=False, compare=False)
    "What the packet, or the quoted one, carries; the latter may be cut short."

    @property
    def is_request(self) -> bool:
        """Whether it is an ICMP request (RFC 3102 §6.2)."""
        return self.icmp_type in ICMP_REQUESTS

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP error that is relayed by its quote (RFC 3102 §6.2)."""
        return self.icmp_type in ICMP_ERRORS

    @property
    def is_sealed(self) -> bool:
        """Whether it is ESP or AH, or an error about it: the value is its receiver's (RFC 3104 §4)."""
        return self.kind is Kind.SPI


def parse(packet: Octets) -> Ipv4View | None:
    """See octets as an IPv4 packet: version, IHL and total length are sound (RFC 791 §3.1), or None."""
    try:
        return Ipv4View.parse(packet)
    except WireError:
        return None


def needed(protocol: int) -> int:
    """Octets of the transport header that classification reads (RFC 768, 793, 792, 4302, 4303)."""
    return _NEEDED.get(protocol, 0)


def is_cut_off(packet: Ipv4View) -> bool:
    """Whether the transport header ends before what classification reads."""
    return len(packet.payload) < needed(packet.protocol)


def ends(packet: Ipv4View) -> Ends:
    """Read both ends of a packet that is neither a fragment nor cut off (RFC 3102 §3.2, §6.2; RFC 3104 §4)."""
    if packet.protocol == Protocol.ICMP:
        return icmp_ends(packet)
    pair = ports(packet.protocol, packet.payload)
    if pair is not None:
        return Ends(
            src=packet.src,
            dst=packet.dst,
            kind=Kind.PORT,
            src_value=pair[0],
            dst_value=pair[1],
            has_ports=True,
            protocol=packet.protocol,
            transport=packet.payload,
        )
    index = spi(packet.protocol, packet.payload)
    kind, value = (Kind.SPI, index) if index is not None else (None, 0)
    return Ends(src=packet.src, dst=packet.dst, kind=kind, src_value=value, dst_value=value, protocol=packet.protocol)


def icmp_ends(packet: Ipv4View) -> Ends:
    """Read both ends of an ICMP message (RFC 792; RFC 3102 §6.2)."""
    message = packet.payload
    icmp_type = message[0]
    if icmp_type in ICMP_ERRORS:
        mirrored = quoted_ends(message[8:], icmp_type)
        if mirrored is not None:
            return mirrored
    identifier = icmp_identifier(message)
    kind, value = (Kind.PORT, identifier) if identifier is not None else (None, 0)
    return Ends(
        src=packet.src,
        dst=packet.dst,
        kind=kind,
        src_value=value,
        dst_value=value,
        icmp_type=icmp_type,
        protocol=packet.protocol,
    )


def quoted_ends(quote: Octets, icmp_type: int) -> Ends | None:
    """Read the ends of the packet that an ICMP error quotes, mirrored (RFC 792; RFC 1122 §3.2.2; RFC 3102 §6.2).

    Returns:
        None if the quote does not show them: a later fragment, too few octets (eight of the
        transport header are promised), a protocol without ports or SPI, an ICMP error.
    """
    try:
        packet = Ipv4View.parse(quote, quoted=True)
    except WireError:
        return None
    if packet.fragment_offset:
        return None
    pair = ports(packet.protocol, packet.payload)
    identifier = icmp_identifier(packet.payload) if packet.protocol == Protocol.ICMP else None
    index = spi(packet.protocol, packet.payload)
    single = identifier if index is None else index
    if pair is None and single is None:
        return None
    src_value, dst_value = pair if pair is not None else (single or 0, single or 0)
    return Ends(
        src=packet.dst,
        dst=packet.src,
        kind=Kind.PORT if index is None else Kind.SPI,
        src_value=dst_value,
        dst_value=src_value,
        has_ports=pair is not None,
        icmp_type=icmp_type,
        quoted=True,
        protocol=packet.protocol,
        transport=packet.payload,
    )


def flow(both: Ends, realm: int, local: Side) -> Flow:
    """Orient the ends of a packet: one is local, the other the peer (RFC 3103 §9.8.1)."""
    if local is Side.SOURCE:
        return Flow(
            realm=realm,
            local=both.src,
            remote=both.dst,
            kind=both.kind,
            value=both.src_value,
            remote_port=both.dst_value if both.has_ports else None,
        )
    return Flow(
        realm=realm,
        local=both.dst,
        remote=both.src,
        kind=both.kind,
        value=both.dst_value,
        remote_port=both.src_value if both.has_ports else None,
    )
