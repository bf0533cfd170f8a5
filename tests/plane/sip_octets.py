# SPDX-License-Identifier: BSD-3-Clause
"""The octets of SIP packets in fixtures, written here a second time from RFC 8507 and spec 2: this knows nothing of isthmus.

A packet of SIP, or of an IPv6 socket, in the language of ``fixture``::

    sip = "c1.213.77.5/192.3.4.1 -> 1.2.2.8/201.5.7.250"      hop = 64, reserved
    sockets = "1.2.2.8/10.0.0.7 -> c1.213.77.5/192.3.4.1"      the same as IPv6, by the prefixes of spec 8.2; hop
    route = { stops = ["1.2.2.75/10.0.0.3"], next = 0 }       a source route; count: a lie about how many
    frag = { id = 48879, at = 0, more = false }               a fragmentation header; at is in octets
    slice = [0, 552]                                          the octets of the transport that are in this fragment; -1 for all
    fill = 1000                                               octets of payload behind the transport header
    zero_checksum = true                                      UDP without one
    wrong = "sum" | "version" | "long"                        an ICMP checksum, a version, a payload length that is wrong
    pseudo = "sip92" | "sipp94"    order = "seed"    layout = "sipp94"
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

Spec = dict[str, Any]

PF = int(ipaddress.IPv6Address("fd49:5041:4500:6d74::"))
PC = int(ipaddress.IPv6Address("fd53:4950:4300::"))


def address(text: str) -> int:
    """``c1.213.77.5/192.3.4.1``."""
    above, _, below = text.partition("/")
    first, *rest = above.removeprefix("c").split(".")
    octets = bytes([int(first) | 0x80 * text.startswith("c"), *map(int, rest)])
    return int.from_bytes(octets, "big") << 32 | int(ipaddress.IPv4Address(below))


def words(octets: bytes) -> int:
    """Sum of 16-bit words, folded."""
    total = sum(struct.unpack(f"!{len(octets + octets[:0]) // 2}H", octets[: len(octets) // 2 * 2]))
    if len(octets) % 2:
        total += octets[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ends(spec: Spec) -> tuple[int, int]:
    """Source and final destination."""
    src, dst = (address(each) for each in spec.get("sip", spec.get("sockets", "")).split(" -> "))
    route = spec.get("route")
    if route and route.get("next", 0) < len(route["stops"]):
        dst = address(route["stops"][-1])
    return src, dst


def sip(spec: Spec, number: int, transport: bytes) -> bytes:
    """A SIP packet around a transport whose checksum field is zero."""
    src, dst = (address(each) for each in spec["sip"].split(" -> "))
    payload = cut(spec, summed(spec, number, transport))
    kind, options = number, b""
    if "frag" in spec:
        options = fragmentation(spec, kind)
        kind = 44
    if "route" in spec:
        options = route(spec, kind) + options
        kind = 43
    if spec.get("damage"):
        payload = payload[:-1] + bytes([payload[-1] ^ 0x55])
    return header(spec, kind, len(options) + len(payload), src, dst) + options + payload


def header(spec: Spec, kind: int, length: int, src: int, dst: int) -> bytes:
    """The 24 octets."""
    version = 5 if spec.get("wrong") == "version" else 6
    length += 100 if spec.get("wrong") == "long" else 0
    hop = spec.get("hop", 64)
    pair = (hop, kind) if spec.get("order") == "seed" else (kind, hop)
    return struct.pack("!IHBBQQ", version << 28 | spec.get("reserved", 0), length, *pair, src, dst)


def fragmentation(spec: Spec, kind: int) -> bytes:
    """Payload type 44."""
    table = spec["frag"]
    place = bool(table.get("more")) << 13 | table.get("at", 0) // 8
    if spec.get("layout") == "sipp94":
        return struct.pack("!II", kind << 24 | place, table["id"])
    return struct.pack("!IHBB", table["id"], place, kind, 0)


def route(spec: Spec, kind: int) -> bytes:
    """Payload type 43."""
    table = spec["route"]
    stops = b"".join(struct.pack("!Q", address(each)) for each in table["stops"])
    count, following = table.get("count", len(table["stops"])), table.get("next", 0)
    if spec.get("layout") == "sipp94":
        return struct.pack("!BBB5x", kind, count, following) + stops
    return struct.pack("!IBBBB", 0, count, following, kind, 0) + stops


def summed(spec: Spec, number: int, transport: bytes) -> bytes:
    """A transport with its checksum: by the seed's rules, ICMP by ``pseudo``."""
    places = {6: 16, 17: 6, 1: 2}
    if number not in places or (number == 17 and spec.get("zero_checksum")):
        return transport
    src, dst = ends(spec)
    pair = [struct.pack("!Q", each) for each in (src, dst)]
    compatible = bool((src | dst) >> 63)
    start = number + len(transport)
    if number != 1:
        covered = b"".join(each[4:] if compatible else each for each in pair)
    elif spec.get("pseudo") == "sip92":
        covered = b"".join(each[4:] if each[0] & 0x80 else each for each in pair)
        start = (number << 8) + len(transport)
    else:
        covered = b"".join(pair)
        start -= len(transport) if compatible and spec.get("pseudo") == "sipp94" else 0
    return _with_sum(spec, number, places[number], transport, words(covered) + start)


def _with_sum(spec: Spec, number: int, place: int, transport: bytes, start: int) -> bytes:
    found = ~words(struct.pack("!I", start) + transport) & 0xFFFF
    if number == 17 and not found:
        found = 0xFFFF
    if spec.get("wrong") == "sum":
        found ^= 0x5555
    return transport[:place] + struct.pack("!H", found) + transport[place + 2 :]


def cut(spec: Spec, transport: bytes) -> bytes:
    """The octets of a transport that are in this fragment."""
    if "slice" not in spec:
        return transport
    first, length = spec["slice"]
    return transport[first:] if length < 0 else transport[first : first + length]


def socket_address(sip_address: int, *, compatible: bool) -> int:
    """An address as an IPv6 socket knows it."""
    if not compatible:
        return PF | sip_address
    octets = PC.to_bytes(16, "big")[:6] + struct.pack("!Q", sip_address)[:4]
    return PC | (~words(octets) & 0xFFFF) << 64 | sip_address


def sockets(spec: Spec, number: int, transport: bytes) -> bytes:
    """An IPv6 packet around a transport whose checksum field is zero; ICMP is ICMPv6 already."""
    pair = [address(each) for each in spec["sockets"].split(" -> ")]
    compatible = bool((pair[0] | pair[1]) >> 63)
    octets = [socket_address(each, compatible=compatible).to_bytes(16, "big") for each in pair]
    places = {6: 16, 17: 6, 58: 2}
    payload = transport
    if number in places and not spec.get("zero_checksum"):
        start = words(b"".join(octets)) + number + len(transport)
        payload = _with_sum(spec, number, places[number], transport, start)
    payload, kind, shim = cut(spec, payload), number, b""
    if "frag" in spec:
        table = spec["frag"]
        shim = struct.pack("!BBHI", number, 0, table.get("at", 0) | bool(table.get("more")), table["id"])
        kind = 44
    kind = spec.get("next_header", kind)
    length = len(shim) + len(payload)
    first = 6 << 28 | spec.get("tos", 0) << 20
    return struct.pack("!IHBB", first, length, kind, spec.get("hop", 64)) + b"".join(octets) + shim + payload
