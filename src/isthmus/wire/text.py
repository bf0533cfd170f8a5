# SPDX-License-Identifier: BSD-3-Clause
"""Packets for people and for JSON: one line, an indented tree, or a dictionary.

``to_dict`` does the work and describes each layer with what is inside of it under
``payload``; the other two lay it out. Nothing here raises: what cannot be read
becomes a layer with an ``error``, since a decoder is for packets that are wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from isthmus.errors import WireError
from isthmus.wire import gre, ike
from isthmus.wire.icmp import IcmpType, IcmpView
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.rsip import text as rsip_text
from isthmus.wire.rsip.codes import PORT
from isthmus.wire.signalling_text import describe_igmp, describe_ike, describe_slp
from isthmus.wire.slp import codes as slp_codes
from isthmus.wire.transport import Protocol, TcpFlag, TcpHeader, UdpHeader, spi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Layer: TypeAlias = dict[str, Any]

_IGMP = 2
_DEEPEST = 8
"Layers beyond this depth are shown as octets; a packet can nest without end."


def to_dict(octets: bytes | bytearray | memoryview) -> Layer:
    """Describe an IPv4 or IPv6 packet; numbers, texts, lists and dictionaries only."""
    return _ip(bytes(octets), depth=0, quoted=False)


def line(octets: bytes | bytearray | memoryview) -> str:
    """Describe a packet on one line, outermost layer first."""
    return " | ".join(_summary(layer) for layer in _layers(to_dict(octets)))


def tree(octets: bytes | bytearray | memoryview) -> str:
    """Describe a packet with one line per field, layers indented into each other."""
    return "\n".join(_branches(to_dict(octets), 0))


def rsip_to_dict(octets: bytes) -> Layer:
    """Describe one RSIP message without any packet around it."""
    return rsip_text.describe(octets)


def rsip_line(octets: bytes) -> str:
    """Describe one RSIP message on one line."""
    return _summary(rsip_text.describe(octets))


def rsip_tree(octets: bytes) -> str:
    """Describe one RSIP message with one line per parameter."""
    return "\n".join(_branches(rsip_text.describe(octets), 0))


def _ip(octets: bytes, *, depth: int, quoted: bool) -> Layer:
    version = octets[0] >> 4 if octets else None
    if version == 4:
        return _guard("ipv4", octets, lambda: _ipv4(octets, depth=depth, quoted=quoted))
    if version == 6:
        return _guard("ipv6", octets, lambda: _ipv6(octets, depth=depth, quoted=quoted))
    return {"layer": "octets", "error": f"IP version {version}", "octets": octets.hex()}


def _guard(name: str, octets: bytes, describe: Callable[[], Layer]) -> Layer:
    try:
        return describe()
    except WireError as error:
        return {"layer": name, "error": str(error), "octets": octets.hex()}


def _ipv4(octets: bytes, *, depth: int, quoted: bool) -> Layer:
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
    return _with(layer, _payload(view.protocol, payload, depth=depth + 1, quoted=cut))


def _ipv6(octets: bytes, *, depth: int, quoted: bool) -> Layer:
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
    return _with(layer, _payload(view.next_header, bytes(view.payload), depth=depth + 1, quoted=quoted))


def _payload(protocol: int, octets: bytes, *, depth: int, quoted: bool) -> Layer | None:
    """Describe what an IP header carries; ``quoted`` where it may be cut short."""
    if depth > _DEEPEST:
        return _octets(octets)
    match protocol:
        case Protocol.IPIP | Protocol.IPV6:
            return _ip(octets, depth=depth, quoted=quoted)
        case Protocol.GRE:
            return _guard("gre", octets, lambda: _gre(octets, depth=depth, quoted=quoted))
        case Protocol.UDP:
            return _guard("udp", octets, lambda: _udp(octets))
        case Protocol.TCP:
            return _guard("tcp", octets, lambda: _tcp(octets))
        case Protocol.ICMP:
            return _guard("icmp", octets, lambda: _icmp(octets, depth=depth))
        case Protocol.ESP | Protocol.AH:
            return {"layer": Protocol(protocol).name.lower(), "spi": spi(protocol, octets), "length": len(octets)}
        case _ if protocol == _IGMP:
            return _guard("igmp", octets, lambda: describe_igmp(octets))
        case _:
            return _octets(octets)


def _gre(octets: bytes, *, depth: int, quoted: bool) -> Layer:
    header = gre.GreHeader.parse(octets, verify=not quoted)
    layer: Layer = {"layer": "gre", "protocol_type": header.protocol_type, "reserved": header.reserved}
    if header.checksum is not None:
        layer |= {"checksum": header.checksum, "reserved1": header.reserved1}
    inner = octets[header.octets :]
    if header.protocol_type in (gre.ETHERTYPE_IPV4, gre.ETHERTYPE_IPV6):
        return _with(layer, _ip(inner, depth=depth, quoted=quoted))
    return _with(layer, _octets(inner))


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


def _icmp(octets: bytes, *, depth: int) -> Layer:
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
        return _with(layer, _ip(bytes(view.body), depth=depth, quoted=True))
    layer |= {"identifier": view.identifier, "sequence": view.sequence}
    return _with(layer, _octets(bytes(view.body)))


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
