# SPDX-License-Identifier: BSD-3-Clause
"""Packets for people and for JSON: one line, an indented tree, or a dictionary.

``to_dict`` does the work and describes each layer with what is inside of it under
``payload``; the other two lay it out. Nothing here raises: what cannot be read
becomes a layer with an ``error``, since a decoder is for packets that are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from isthmus.errors import WireError
from isthmus.wire import gre, ike
from isthmus.wire.icmp import IcmpType, IcmpView
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.rsip import text as rsip_text
from isthmus.wire.rsip.codes import PORT
from isthmus.wire.signalling_text import describe_igmp, describe_ike, describe_slp
from isthmus.wire.sip import ipae
from isthmus.wire.sip import text as sip_text
from isthmus.wire.sip.header import HeaderOrder
from isthmus.wire.sip.option import SIP_IN_SIP, OptionLayout
from isthmus.wire.slp import codes as slp_codes
from isthmus.wire.transport import Protocol, TcpFlag, TcpHeader, UdpHeader, spi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Layer: TypeAlias = dict[str, Any]

_IGMP = 2
_DEEPEST = 8
"Layers beyond this depth are shown as octets; a packet can nest without end."


_ETHERTYPE_IPV4, _ETHERTYPE_IPV6 = gre.ETHERTYPE_IPV4, gre.ETHERTYPE_IPV6


@dataclass(frozen=True, slots=True, kw_only=True)
class SipReading:
    """How SIP is read; nothing in a packet says it (errata E2, spec 2.5)."""

    order: HeaderOrder = HeaderOrder.DEERING
    layout: OptionLayout = OptionLayout.SIP92


_USUAL = SipReading()


def to_dict(octets: bytes | bytearray | memoryview, *, ethertype: int | None = None, sip: SipReading = _USUAL) -> Layer:
    """Describe an IPv4, IPv6 or SIP packet; numbers, texts, lists and dictionaries only.

    Args:
        octets: The packet.
        ethertype: Of the frame that it was in. Version 6 is SIP under 0x0800 and IPv6 under 0x86DD (spec 2.7);
            without, SIP if its length says so, and IPv6 else (spec 9.2).
        sip: How SIP is read.
    """
    return _Reader(sip).ip(bytes(octets), depth=0, quoted=False, ethertype=ethertype)


def line(octets: bytes | bytearray | memoryview, *, ethertype: int | None = None, sip: SipReading = _USUAL) -> str:
    """Describe a packet on one line, outermost layer first; arguments as in ``to_dict``."""
    return " | ".join(_summary(layer) for layer in _layers(to_dict(octets, ethertype=ethertype, sip=sip)))


def tree(octets: bytes | bytearray | memoryview, *, ethertype: int | None = None, sip: SipReading = _USUAL) -> str:
    """Describe a packet with one line per field, layers indented into each other; arguments as in ``to_dict``."""
    return "\n".join(_branches(to_dict(octets, ethertype=ethertype, sip=sip), 0))


def rsip_to_dict(octets: bytes) -> Layer:
    """Describe one RSIP message without any packet around it."""
    return rsip_text.describe(octets)


def rsip_line(octets: bytes) -> str:
    """Describe one RSIP message on one line."""
    return _summary(rsip_text.describe(octets))


def rsip_tree(octets: bytes) -> str:
    """Describe one RSIP message with one line per parameter."""
    return "\n".join(_branches(rsip_text.describe(octets), 0))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what is inside of what."""

    sip: SipReading

    def ip(self, octets: bytes, *, depth: int, quoted: bool, ethertype: int | None = None) -> Layer:
        version = octets[0] >> 4 if octets else None
        if version == 4:
            return _guard("ipv4", octets, lambda: self.ipv4(octets, depth=depth, quoted=quoted))
        if version == 6 and _is_sip(octets, ethertype):
            return _guard("sip", octets, lambda: self.simple(octets, depth=depth, quoted=quoted))
        if version == 6:
            return _guard("ipv6", octets, lambda: self.ipv6(octets, depth=depth, quoted=quoted))
        return {"layer": "octets", "error": f"IP version {version}", "octets": octets.hex()}

    def ipv4(self, octets: bytes, *, depth: int, quoted: bool) -> Layer:
        view = Ipv4View.parse(octets, quoted=quoted)
        layer: Layer = {
            "layer": "ipv4",
            "src": str(view.src),
            "dst": str(view.dst),
            "protocol": _protocol(view.protocol),
            "ttl": view.ttl,
            "total_length": view.total_length,
            "identification": view.identification,
            "dscp": view.dscp,
            "ecn": view.ecn,
            "df": view.df,
            "mf": view.mf,
            "fragment_offset": view.fragment_offset,
            "header_checksum": view.header_checksum,
            "checksum_ok": view.checksum_ok,
        }
        if view.options:
            layer["options"] = bytes(view.options).hex()
        payload = bytes(view.payload)
        if view.fragment_offset:
            return _with(layer, _octets(payload))
        cut = quoted or view.mf
        if view.protocol == SIP_IN_SIP:
            inside = ipae.demultiplex(payload, view.total_length - view.ihl * 4)
            if inside is ipae.Version6.SIP:
                layer["protocol"] = "SIP"
                return _with(layer, self.ip(payload, depth=depth + 1, quoted=cut, ethertype=_ETHERTYPE_IPV4))
            return _with(layer, self.ip(payload, depth=depth + 1, quoted=cut, ethertype=_ETHERTYPE_IPV6))
        return _with(layer, self.payload(view.protocol, payload, depth=depth + 1, quoted=cut))

    def ipv6(self, octets: bytes, *, depth: int, quoted: bool) -> Layer:
        view = Ipv6View.parse(octets, quoted=quoted)
        layer: Layer = {
            "layer": "ipv6",
            "src": str(view.src),
            "dst": str(view.dst),
            "next_header": _protocol(view.next_header),
            "hop_limit": view.hop_limit,
            "payload_length": view.payload_length,
            "dscp": view.dscp,
            "ecn": view.ecn,
            "flow_label": view.flow_label,
        }
        return _with(layer, self.payload(view.next_header, bytes(view.payload), depth=depth + 1, quoted=quoted))

    def payload(self, protocol: int, octets: bytes, *, depth: int, quoted: bool) -> Layer | None:
        """Describe what an IP header carries; ``quoted`` where it may be cut short."""
        if depth > _DEEPEST:
            return _octets(octets)
        match protocol:
            case Protocol.IPIP | Protocol.IPV6:
                return self.ip(octets, depth=depth, quoted=quoted)
            case Protocol.GRE:
                return _guard("gre", octets, lambda: self.gre(octets, depth=depth, quoted=quoted))
            case Protocol.UDP:
                return _guard("udp", octets, lambda: _udp(octets))
            case Protocol.TCP:
                return _guard("tcp", octets, lambda: _tcp(octets))
            case Protocol.ICMP:
                return _guard("icmp", octets, lambda: self.icmp(octets, depth=depth))
            case Protocol.ESP | Protocol.AH:
                return {"layer": Protocol(protocol).name.lower(), "spi": spi(protocol, octets), "length": len(octets)}
            case _ if protocol == _IGMP:
                return _guard("igmp", octets, lambda: describe_igmp(octets))
            case _:
                return _octets(octets)

    def gre(self, octets: bytes, *, depth: int, quoted: bool) -> Layer:
        header = gre.GreHeader.parse(octets, verify=not quoted)
        layer: Layer = {"layer": "gre", "protocol_type": header.protocol_type, "reserved": header.reserved}
        if header.checksum is not None:
            layer |= {"checksum": header.checksum, "reserved1": header.reserved1}
        inner = octets[header.octets :]
        if header.protocol_type in (gre.ETHERTYPE_IPV4, gre.ETHERTYPE_IPV6):
            return _with(layer, self.ip(inner, depth=depth, quoted=quoted, ethertype=header.protocol_type))
        return _with(layer, _octets(inner))

    def icmp(self, octets: bytes, *, depth: int) -> Layer:
        view = IcmpView.parse(octets)
        layer: Layer = {
            "layer": "icmp",
            "type": IcmpType(view.type).name if view.type in set(IcmpType) else view.type,
            "code": view.code,
            "checksum": view.checksum,
            "checksum_ok": view.checksum_ok,
        }
        if view.is_error:
            if view.next_hop_mtu is not None:
                layer["next_hop_mtu"] = view.next_hop_mtu
            return _with(layer, self.ip(bytes(view.body), depth=depth, quoted=True))
        layer |= {"identifier": view.identifier, "sequence": view.sequence}
        return _with(layer, _octets(bytes(view.body)))

    def simple(self, octets: bytes, *, depth: int, quoted: bool) -> Layer:
        """Describe a SIP packet."""
        found = sip_text.describe(octets, order=self.sip.order, layout=self.sip.layout, quoted=quoted)
        inside = self.simple_payload(found, depth=depth + 1)
        if inside is not None and (rules := found.checksum_fits) is not None and "error" not in inside:
            inside = inside | {"checksum_fits": rules}
        for layer in reversed(found.layers):
            inside = _with(layer, inside)
        assert inside is not None
        return inside

    def simple_payload(self, found: sip_text.Described, *, depth: int) -> Layer | None:
        """Describe what SIP carries; ICMP and IGMP are not those of IPv4."""
        octets, kind = found.payload, found.payload_type
        if kind is None:
            return None
        if depth > _DEEPEST or (found.is_cut and not octets):
            return _octets(octets)
        part = found.layers[-1].get("fragment_offset")
        if part:
            return _octets(octets)
        match kind:
            case Protocol.ICMP:
                return _guard("sip_icmp", octets, lambda: self.simple_icmp(octets, depth=depth))
            case _ if kind == _IGMP:
                return _guard("sip_igmp", octets, lambda: sip_text.describe_igmp(octets))
            case _ if kind in (SIP_IN_SIP, Protocol.IPIP):
                return self.ip(octets, depth=depth, quoted=found.is_cut, ethertype=_ETHERTYPE_IPV4)
            case _:
                return self.payload(kind, octets, depth=depth, quoted=found.is_cut)

    def simple_icmp(self, octets: bytes, *, depth: int) -> Layer:
        layer, quote = sip_text.describe_icmp(octets)
        if quote is None:
            return layer
        return _with(layer, self.ip(quote, depth=depth + 1, quoted=True, ethertype=_ETHERTYPE_IPV4))


def _is_sip(octets: bytes, ethertype: int | None) -> bool:
    if ethertype is None:
        return ipae.demultiplex(octets) is ipae.Version6.SIP
    return ethertype == _ETHERTYPE_IPV4


def _guard(name: str, octets: bytes, describe: Callable[[], Layer]) -> Layer:
    try:
        return describe()
    except WireError as error:
        return {"layer": name, "error": str(error), "octets": octets.hex()}


def _udp(octets: bytes) -> Layer:
    header = UdpHeader.parse(octets)
    layer: Layer = {
        "layer": "udp",
        "src_port": header.src_port,
        "dst_port": header.dst_port,
        "length": header.length,
        "checksum": header.checksum,
    }
    data = octets[8 : header.length]
    ports = (header.src_port, header.dst_port)
    if _is_rsip(header) and data:
        return _with(layer, rsip_text.describe(data))
    if slp_codes.PORT in ports and data:
        return _with(layer, _guard("slp", data, lambda: describe_slp(data)))
    if ike.PORT in ports and data:
        return _with(layer, _guard("ike", data, lambda: describe_ike(data)))
    return _with(layer, _octets(data))


def _tcp(octets: bytes) -> Layer:
    header = TcpHeader.parse(octets)
    flags = [flag.name for flag in TcpFlag if header.flags & flag]
    layer: Layer = {
        "layer": "tcp",
        "src_port": header.src_port,
        "dst_port": header.dst_port,
        "flags": flags,
        "sequence": header.sequence,
        "acknowledgement": header.acknowledgement,
        "window": header.window,
        "checksum": header.checksum,
    }
    if header.options:
        layer["options"] = header.options.hex()
    data = octets[header.octets :]
    # A segment may hold half a message, or two; it is described as if it held one, which is what senders do.
    return _with(layer, rsip_text.describe(data) if _is_rsip(header) and data else _octets(data))


def _is_rsip(header: UdpHeader | TcpHeader) -> bool:
    return PORT in (header.src_port, header.dst_port)


def _protocol(number: int) -> str | int:
    return Protocol(number).name if number in set(Protocol) else number


def _octets(octets: bytes) -> Layer | None:
    return {"layer": "octets", "length": len(octets), "octets": octets.hex()} if octets else None


def _with(layer: Layer, payload: Layer | None) -> Layer:
    return layer if payload is None else layer | {"payload": payload}


def _layers(layer: Layer | None) -> Iterator[Layer]:
    while layer is not None:
        yield layer
        layer = layer.get("payload")


def _summary(layer: Layer) -> str:
    """One layer in a few words."""
    bad = " bad checksum" if layer.get("checksum_fits") == [] else ""
    return _words(layer) + bad


def _words(layer: Layer) -> str:
    name = str(layer["layer"])
    if name == "rsip":
        return rsip_text.summary(layer)
    if "error" in layer:
        return f"{name} [{layer['error']}]"
    if "text" in layer:
        return str(layer["text"])
    match name:
        case "ipv4":
            more = f" frag {layer['fragment_offset'] * 8}{'+' if layer['mf'] else ''}"
            fragment = more if layer["mf"] or layer["fragment_offset"] else ""
            bad = "" if layer["checksum_ok"] else " bad checksum"
            df = " DF" if layer["df"] else ""
            return f"IP {layer['src']} > {layer['dst']} {layer['protocol']} ttl {layer['ttl']}{df}{fragment}{bad}"
        case "ipv6":
            return f"IP6 {layer['src']} > {layer['dst']} {layer['next_header']} hlim {layer['hop_limit']}"
        case "udp":
            return f"UDP {layer['src_port']} > {layer['dst_port']} length {layer['length'] - 8}"
        case "tcp":
            flags = ",".join(layer["flags"]) or "none"
            return f"TCP {layer['src_port']} > {layer['dst_port']} {flags} seq {layer['sequence']}"
        case "icmp":
            mtu = f" mtu {layer['next_hop_mtu']}" if "next_hop_mtu" in layer else ""
            query = f" id {layer['identifier']} seq {layer['sequence']}" if "identifier" in layer else ""
            return f"ICMP {layer['type']} code {layer['code']}{mtu}{query}"
        case "gre":
            return f"GRE {layer['protocol_type']:#06x}"
        case "esp" | "ah":
            number = "cut short" if layer["spi"] is None else f"{layer['spi']:#010x}"
            return f"{name.upper()} spi {number}"
        case _:
            return f"{layer['length']} octets"


def _branches(layer: Layer, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield indent + _title(layer)
    for key, value in layer.items():
        if key == "parameters":
            for parameter in value:
                yield f"{indent}  {parameter['parameter']}: {parameter['text']}"
        elif key not in ("layer", "payload", "text"):
            yield f"{indent}  {key}: {value}"
    if "payload" in layer:
        yield from _branches(layer["payload"], depth + 1)


def _title(layer: Layer) -> str:
    if layer["layer"] == "rsip":
        return f"RSIP {layer.get('type', 'message')}"
    return _summary(layer)
