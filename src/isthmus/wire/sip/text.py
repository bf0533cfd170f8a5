# SPDX-License-Identifier: BSD-3-Clause
"""What SIP headers, option headers, ICMP and IGMP over SIP say, as layers of ``isthmus.wire.text``.

A layer's ``text`` is its short form. The short forms say ``SIP/ICMP``: it has other fields than ICMP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.address import Address, Family
from isthmus.checksum import PseudoHeader
from isthmus.errors import WireError
from isthmus.wire.icmp import IcmpType
from isthmus.wire.sip import icmp, igmp
from isthmus.wire.sip.header import HEADER_OCTETS, HeaderOrder, SipView
from isthmus.wire.sip.option import FRAGMENT, SIP_IN_SIP, SOURCE_ROUTE, OptionLayout, walk
from isthmus.wire.sip.pseudo import fits
from isthmus.wire.transport import Protocol

_NAMES = {igmp.PAYLOAD_TYPE: "IGMP", SIP_IN_SIP: "SIP", SOURCE_ROUTE: "SIP-SR", FRAGMENT: "SIP-FRAG"}
_WITH_PSEUDO_HEADER = (Protocol.TCP, Protocol.UDP, Protocol.ICMP, igmp.PAYLOAD_TYPE)
_UDP_CHECKSUM = slice(6, 8)
_FIRST_OCTETS = 8


@dataclass(frozen=True, slots=True)
class Described:
    """The SIP headers of a packet as layers, outermost first, and what is behind them."""

    layers: list[dict[str, Any]]
    payload_type: int | None
    "None if the option headers cannot be read."
    payload: bytes
    src: Address
    final_destination: Address
    is_cut: bool
    "Whether the payload is a part of one."

    @property
    def checksum_fits(self) -> list[str] | None:
        """By which rules the checksum of the transport is right (spec 4.2); None if it has none, or is cut."""
        if self.is_cut or self.payload_type not in _WITH_PSEUDO_HEADER or len(self.payload) < _UDP_CHECKSUM.stop:
            return None
        if self.payload_type == Protocol.UDP and not any(self.payload[_UDP_CHECKSUM]):
            return None
        ends = {"src": self.src, "dst": self.final_destination}
        return [
            rule.value
            for rule in PseudoHeader
            if fits(rule, **ends, payload_type=self.payload_type, octets=self.payload)
        ]


def describe(octets: bytes, *, order: HeaderOrder, layout: OptionLayout, quoted: bool) -> Described:
    """Describe header and option headers.

    Args:
        octets: From the SIP header on.
        order: Of its octets 6 and 7.
        layout: Of option headers.
        quoted: Whether the packet may be cut short.

    Raises:
        WireError: the header cannot be read.
    """
    if quoted and _FIRST_OCTETS <= len(octets) < HEADER_OCTETS:
        nobody = Address(Family.SIP, 0)
        return Described([_beginning(octets, order)], None, b"", nobody, nobody, is_cut=True)
    view = SipView.parse(octets, order=order, quoted=quoted)
    layers = [_header(view)]
    try:
        chain = walk(view, layout=layout)
    except WireError as error:
        layers.append({"layer": "sip_option", "error": str(error), "octets": bytes(view.payload).hex()})
        return Described(layers, None, b"", view.src, view.dst, is_cut=True)
    if (route := chain.source_route) is not None:
        layers.append(
            {
                "layer": "sip_source_route",
                "next_address": route.next_address,
                "addresses": [str(each) for each in route.addresses],
                "payload_type": name(route.payload_type),
                "final_destination": str(chain.final_destination),
                "text": f"SR {route.next_address}/{len(route.addresses)} {' '.join(map(str, route.addresses))}",
            }
        )
    if (part := chain.fragmentation) is not None:
        layers.append(
            {
                "layer": "sip_fragment",
                "identification": part.identification,
                "more": part.more,
                "fragment_offset": part.fragment_offset,
                "payload_type": name(part.payload_type),
                "text": f"FRAG id {part.identification:#x} {part.fragment_offset * 8}{'+' if part.more else ''}",
            }
        )
    cut = quoted and view.total_length > len(octets)
    return Described(
        layers,
        chain.payload_type,
        bytes(chain.payload),
        view.src,
        chain.final_destination,
        is_cut=cut or chain.is_fragment,
    )


def _beginning(octets: bytes, order: HeaderOrder) -> dict[str, Any]:
    """What RFC 792 obliges a router to quote: eight octets, and no address among them (seed IPAE 4.3; spec 6.4)."""
    kind, hop_limit = name(octets[order.payload_type_at]), octets[order.hop_limit_at]
    return {
        "layer": "sip",
        "payload_type": kind,
        "hop_limit": hop_limit,
        "payload_length": int.from_bytes(octets[4:6], "big"),
        "quoted_octets": len(octets),
        "text": f"SIP {kind} hlim {hop_limit}, {len(octets)} octets quoted",
    }


def _header(view: SipView) -> dict[str, Any]:
    kind = name(view.payload_type)
    return {
        "layer": "sip",
        "src": str(view.src),
        "dst": str(view.dst),
        "src_hex": view.src.hex,
        "dst_hex": view.dst.hex,
        "payload_type": kind,
        "hop_limit": view.hop_limit,
        "payload_length": view.payload_length,
        "reserved": view.reserved,
        "text": f"SIP {view.src} > {view.dst} {kind} hlim {view.hop_limit}",
    }


def name(payload_type: int) -> str | int:
    """Name a payload type; those of SIP's own are not IPv6's."""
    if payload_type in _NAMES:
        return _NAMES[payload_type]
    return Protocol(payload_type).name if payload_type in set(Protocol) else payload_type


def describe_icmp(octets: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Describe an ICMP message over SIP; the packet that it quotes is given beside it.

    Raises:
        WireError: it cannot be read.
    """
    message = icmp.SipIcmpMessage.parse(octets)
    kind = IcmpType(message.type).name if message.type in set(IcmpType) else message.type
    layer: dict[str, Any] = {
        "layer": "sip_icmp",
        "type": kind,
        "code": message.code,
        "checksum": message.checksum,
    }
    more: dict[str, Any] = {}
    if message.next_hop_mtu is not None:
        more = {"next_hop_mtu": message.next_hop_mtu}
    elif message.pointer is not None:
        more = {"pointer": message.pointer}
    elif message.preferred_router is not None:
        more = {"preferred_router": str(message.preferred_router)}
    elif message.type == IcmpType.ROUTER_ADVERTISEMENT:
        said = icmp.RouterAdvertisement.of(message)
        routers = [f"{each.address} preference {each.preference}" for each in said.routers]
        more = {"lifetime": said.lifetime, "routers": routers}
    elif message.type in (IcmpType.ECHO, IcmpType.ECHO_REPLY):
        numbers = int.from_bytes(message.rest, "big")
        more = {"identifier": numbers >> 16, "sequence": numbers & 0xFFFF}
    words = " ".join(f"{key.replace('_', ' ')} {value}" for key, value in more.items())
    layer |= more | {"text": f"SIP/ICMP {kind} code {message.code} {words}".rstrip()}
    return layer, message.quote if message.is_error else None


def describe_igmp(octets: bytes) -> dict[str, Any]:
    """Describe an IGMP message over SIP.

    Raises:
        WireError: it cannot be read.
    """
    message = igmp.SipIgmpMessage.parse(octets)
    about = "" if message.group is None else f" {message.group}"
    return {
        "layer": "sip_igmp",
        "type": message.type.name,
        "group": None if message.group is None else str(message.group),
        "checksum": message.checksum,
        "text": f"SIP/IGMP {message.type.name}{about}",
    }
