# SPDX-License-Identifier: BSD-3-Clause
"""The octets of a fixture's packets, built by scapy, which knows nothing of isthmus; ``fixture`` has the language."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_SSRR
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.isakmp import ISAKMP, ISAKMP_payload, ISAKMP_payload_ID
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from plane import sip_octets

Spec = dict[str, Any]

_OPTIONS: dict[str | None, list[Any]] = {
    None: [],
    "nop": [IPOption_NOP()] * 4,
    "record route": [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3)],
    # A copied one (security, RFC 1108) before one that is not: what later fragments keep.
    "security, record route": [
        IPOption(copy_flag=1, optclass=0, option=2, value=b"\xab\x01"),
        IPOption_RR(pointer=4, routers=["0.0.0.0"] * 2),
        IPOption_NOP(),
    ],
    "security": [IPOption(copy_flag=1, optclass=0, option=2, value=b"\xab\x01")],
}
_IPV6_OPTIONS: dict[str, Any] = {
    "limit": lambda: IPv6ExtHdrDestOpt(
        options=[HBHOptUnknown(otype=4, optlen=1, optdata=b"\x04"), PadN(optdata=b"\0")]
    ),
    "hop": lambda: IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")]),
    "routing": lambda: IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=0),
    "atomic": lambda: IPv6ExtHdrFragment(offset=0, m=0, id=1),
}


def _options(text: str | None) -> list[Any]:
    """Options by name, or ``lsrr 4 10.0.0.3 201.5.7.250``: the pointer, and the stops."""
    kind, _, rest = (text or "").partition(" ")
    if kind not in {"lsrr", "ssrr"}:
        return _OPTIONS[text]
    pointer, *stops = rest.split()
    return [(IPOption_LSRR if kind == "lsrr" else IPOption_SSRR)(pointer=int(pointer), routers=stops)]


def pair(text: str) -> tuple[str, str]:
    """``a -> b``."""
    src, dst = text.split(" -> ")
    return src, dst


def build(spec: Spec) -> bytes:
    """The octets that a packet is on the wire."""
    if "hex" in spec:
        return bytes.fromhex(spec["hex"]) + b"\xee" * spec.get("pad", 0)
    packet = inner(spec)
    if "outer" in spec:
        packet = tunnelled(spec["outer"], packet)
    return packet + b"\xee" * spec.get("pad", 0)


def parts(spec: Spec) -> list[Spec]:
    """A packet that arrives in parts, in the order in which they come."""
    outer = spec.get("outer", {})
    if "parts" in outer:
        rest = {key: value for key, value in outer.items() if key != "parts"}
        return [spec | {"outer": rest | {"part": part}} for part in outer["parts"]]
    if "parts" in spec:
        rest = {key: value for key, value in spec.items() if key != "parts"}
        return [rest | {"part": part} for part in spec["parts"]]
    return [spec]


def inner(spec: Spec) -> bytes:
    """The octets of a packet, or the part of it that is wanted, without its tunnel and padding."""
    content = whole(spec)
    return content if "part" not in spec else fragment(content, *spec["part"], spec)


def whole(spec: Spec) -> bytes:
    """The octets of a packet without its tunnel and padding."""
    if "sip" in spec or "sockets" in spec:
        return _of_sip(spec)
    header = _header(spec)
    number, transport = _transport(spec)
    header.proto = number
    payload = _payload(spec)
    if "size" in spec:
        payload = bytes(at & 0xFF for at in range(spec["size"] - len(bytes(header / transport))))
    content = bytes(header / transport / Raw(payload)) if payload else bytes(header / transport)
    start = (content[0] & 15) * 4
    if spec.get("damage"):  # the last octet, after all checksums
        content = content[:-1] + bytes([content[-1] ^ 0x55])
    if "cut" in spec:
        content = content[: start + spec["cut"]]
        header = _header(spec)
        header.proto = number
        content = bytes(header / Raw(content[start:])) if spec["cut"] else bytes(header)
    return content


def _of_sip(spec: Spec) -> bytes:
    """The octets of a SIP packet, or of the same as an IPv6 socket knows it."""
    if "sip" not in spec and not {"tcp", "udp", "esp", "ah", "protocol"} & spec.keys():
        return sip_octets.sockets(spec, 58, _icmpv6_of(spec))
    number, transport = _transport(spec)
    if number in {1, 6, 17}:
        transport.chksum = 0
    content = bytes(transport / Raw(_payload(spec)))
    if "pointer" in spec:
        content = content[:4] + spec["pointer"].to_bytes(4, "big") + content[8:]
    if "cut" in spec:
        content = content[: spec["cut"]]
    return (sip_octets.sip if "sip" in spec else sip_octets.sockets)(spec, number, content)


def _icmpv6_of(spec: Spec) -> bytes:
    """An ICMPv6 message whose checksum is zero."""
    for key, number in {"echo": 128, "echo_reply": 129}.items():
        if key in spec:
            return bytes((number, 0, 0, 0)) + spec[key].to_bytes(2, "big") + b"\0\1" + _payload(spec)
    number, code = spec["icmpv6"]
    return bytes((number, code, 0, 0)) + spec.get("mtu", 0).to_bytes(4, "big") + _payload(spec)


def fragment(content: bytes, first: int, length: int, spec: Spec) -> bytes:
    """A part of a packet: ``length`` octets of its payload from ``first`` on, to the end where it is -1."""
    start = (content[0] & 15) * 4
    payload = content[start:]
    last = len(payload) if length < 0 else first + length
    header = IP(content[:start])
    del header.len
    del header.chksum
    if "checksum" in spec:
        header.chksum = spec["checksum"]
    header.frag = first // 8
    more = spec.get("more", last < len(payload))
    header.flags = ("DF" if spec.get("df") else "") + ("+" if spec.get("df") and more else "") + ("MF" if more else "")
    if first and "later_options" in spec:
        header.options = _OPTIONS[spec["later_options"]]
        del header.ihl
    data = payload[first:last]
    if spec.get("other"):  # the same place, other octets
        data = bytes(octet ^ 0xFF for octet in data)
    return bytes(header / Raw(data)) if data else bytes(header)


def _payload(spec: Spec) -> bytes:
    if "quote" in spec:
        quote = spec["quote"]
        quoted = build(quote) if {"outer", "hex"} & quote.keys() else inner(quote)
        size = (quoted[0] & 15) * 4 if quoted[0] >> 4 == 4 else 24
        return quoted[: size + quote["octets"] if "octets" in quote else quote.get("all", size + 8)]
    if "fill" in spec:
        return bytes(at & 0xFF for at in range(spec["fill"]))
    if "ike" in spec:
        return _ike(spec["ike"])
    text: str = spec.get("payload", "" if "protocol" in spec else "hello")
    return text.encode()


def _ike(spec: Spec) -> bytes:
    message = ISAKMP(
        init_cookie=bytes.fromhex(spec["cookie"]),
        resp_cookie=bytes.fromhex(spec.get("responder", "00" * 8)),
        exch_type=spec.get("exchange", 2),
        version=spec.get("version", 0x10),
        flags=spec.get("flags", 0),
        next_payload=spec.get("first", 1),
    )
    if "identity" in spec:
        message.next_payload = 10
        chain = ISAKMP_payload(next_payload=5, load=bytes(16))
        chain /= ISAKMP_payload_ID(IDtype=spec.get("identity_type", 2), IdentData=spec["identity"].encode())
        message /= chain
    octets = bytes(message)
    return octets[: spec.get("octets", len(octets))]


def _header(spec: Spec) -> IP:
    src, dst = pair(spec["ipv4"])
    flags = ("DF" if spec.get("df") else "") + ("+" if spec.get("df") and spec.get("mf") else "")
    header = IP(
        src=src,
        dst=dst,
        ttl=spec.get("ttl", 64),
        tos=spec.get("tos", 0),
        id=spec.get("id", 0x1234),
        flags=flags + ("MF" if spec.get("mf") else ""),
        frag=spec.get("offset", 0),
        options=_options(spec.get("options")),
    )
    if "checksum" in spec:
        header.chksum = spec["checksum"]
    if "length" in spec:
        header.len = spec["length"]
    return header


def _transport(spec: Spec) -> tuple[int, Any]:
    if "tcp" in spec:
        sport, dport = pair(spec["tcp"])
        return 6, TCP(sport=int(sport), dport=int(dport), seq=1000, flags="PA", ack=2000)
    if "udp" in spec:
        sport, dport = pair(spec["udp"])
        return 17, UDP(sport=int(sport), dport=int(dport), chksum=0 if spec.get("zero_checksum") else None)
    if "esp" in spec:
        return 50, ESP(spi=spec["esp"], seq=1, data=b"sealed sealed.")
    if "ah" in spec:
        return 51, AH(nh=6, spi=spec["ah"], seq=1, icv=bytes(12))
    if "protocol" in spec:
        return spec["protocol"], Raw(b"something")
    return 1, _icmp(spec)


def _icmp(spec: Spec) -> ICMP:
    for key, number in {"echo": 8, "echo_reply": 0}.items():
        if key in spec:
            return ICMP(type=number, id=spec[key], seq=1)
    for key, number in {"unreachable": 3, "exceeded": 11, "problem": 12}.items():
        if key in spec:
            return (
                ICMP(type=number, code=spec[key], nexthopmtu=spec.get("mtu", 0))
                if key == "unreachable"
                else ICMP(type=number, code=spec[key], **({"ptr": spec["pointer"]} if "pointer" in spec else {}))
            )
    number, code, *identifier = spec["icmp"]
    return ICMP(type=number, code=code, id=identifier[0], seq=1) if identifier else ICMP(type=number, code=code)


def tunnelled(spec: Spec, content: bytes) -> bytes:
    """A packet in the tunnel that it comes in."""
    content += b"\xdd" * spec.get("trailing", 0)
    number = spec.get("protocol", 4)
    if spec.get("tunnel", "ipip") == "gre":
        number = 47
        shim = GRE(
            proto=spec.get("ethertype", 0x800),
            chksum_present=int(spec.get("gre_checksum", False)),
            key_present=int(spec.get("gre_key", False)),
            version=spec.get("gre_version", 0),
        )
        if "gre_sum" in spec:
            shim.chksum = spec["gre_sum"]
        content = bytes(shim / Raw(content))
        content = content[: spec.get("gre_cut", len(content))]
    if "too_big" in spec:
        return _too_big(spec, number, content)
    if "icmpv6" in spec:
        return _over_ipv6(spec, 58, _icmpv6(spec, number, content))
    if "ipv6" in spec:
        return _over_ipv6(spec, number, content)
    header = _header(spec)
    header.proto = number
    packet = bytes(header / Raw(content))
    return packet if "part" not in spec else fragment(packet, *spec["part"], spec)


def _icmpv6(spec: Spec, number: int, content: bytes) -> bytes:
    """An ICMPv6 message: an error about a tunnelled packet, quoted whole, or another that carries something."""
    if "about" in spec:
        src, dst = pair(spec["about"])
        content = bytes(IPv6(src=src, dst=dst, hlim=64, nh=number) / Raw(content))[: spec.get("octets")]
    kind, code = spec["icmpv6"]
    message = ICMPv6Unknown(type=kind, code=code, msgbody=spec.get("mtu", 0).to_bytes(4, "big") + content)
    src, dst = pair(spec["ipv6"])
    return bytes(IPv6(bytes(IPv6(src=src, dst=dst, nh=58) / message)).payload)


def _too_big(spec: Spec, number: int, content: bytes) -> bytes:
    """An ICMP error that says that a tunnelled packet was too large for the next link."""
    src, dst = pair(spec["about"])
    quoted = IP(src=src, dst=dst, ttl=63, id=0, proto=number, flags="" if spec.get("without_df") else "DF")
    quote = bytes(quoted / Raw(content))
    message = ICMP(type=3, code=4, nexthopmtu=spec["too_big"]) / Raw(quote[: spec.get("octets", 548)])
    if spec.get("damage"):
        message = ICMP(bytes(message)[:-1] + bytes([bytes(message)[-1] ^ 0x55]))
    return bytes(_header(spec) / message)


def _over_ipv6(spec: Spec, number: int, content: bytes) -> bytes:
    src, dst = pair(spec["ipv6"])
    packet: Packet = IPv6(src=src, dst=dst, hlim=spec.get("ttl", 64), tc=spec.get("tos", 0), fl=spec.get("label", 0))
    for name in spec.get("options", "").split():
        following = _IPV6_OPTIONS[name]()
        packet = packet / following
    if "part" in spec:
        first, length = spec["part"]
        end = len(content) if length < 0 else first + length
        more = spec.get("more", end < len(content))
        following = IPv6ExtHdrFragment(offset=first // 8, m=int(more), id=spec.get("id", 0x12345678))
        packet, content = packet / following, content[first:end]
    packet.lastlayer().nh = number
    if "length" in spec:
        packet.plen = spec["length"]
    return bytes(packet / Raw(content)) if content else bytes(packet)


def into_tunnel(ends: str, content: bytes, tos: int, out: Spec) -> bytes:
    """A packet in the tunnel that it must go out in."""
    src, dst = pair(ends)
    number = 4
    if out.get("kind") == "gre":
        number = 47
        content = bytes(GRE(proto=0x800, chksum_present=int(out.get("gre_checksum", False))) / Raw(content))
    if ":" in src:
        return bytes(IPv6(src=src, dst=dst, hlim=64, tc=tos, fl=0, nh=number) / Raw(content))
    return bytes(IP(src=src, dst=dst, ttl=64, tos=tos, id=0, flags="DF", proto=number) / Raw(content))
