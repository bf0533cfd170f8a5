# SPDX-License-Identifier: BSD-3-Clause
"""Captures: reading pcap and pcapng, writing pcapng, on a file object given in.

pcapng is draft-ietf-opsawg-pcapng, pcap is draft-ietf-opsawg-pcap. Times are whole
nanoseconds since 1970. There is no file name and no clock here; the caller has both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from isthmus.errors import Malformed, Truncated

if TYPE_CHECKING:
    from collections.abc import Iterator

ETHERNET = 1
RAW = 101
LINUX_SLL = 113
IPV4 = 228
IPV6 = 229
LINUX_SLL2 = 276

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE_PACKET = 3
_ENHANCED_PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_PCAP_MAGIC = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_LONGEST = 1 << 24
"No block or frame is longer; a length beyond this is damage, not data."
_SECOND = 10**9
_ETHERTYPE_IPV4, _ETHERTYPE_IPV6 = 0x0800, 0x86DD
_VLAN_ETHERTYPES = (0x8100, 0x88A8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One captured frame."""

    octets: bytes
    link_type: int = RAW
    time_ns: int = 0
    "Nanoseconds since 1970; 0 where the capture has no time."
    original_octets: int | None = None
    "Length on the link, if the capture holds less of it."
    interface: int = 0
    "Which interface of its section, counted from 0."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    link_type: int
    snap_octets: int = 0
    ticks_per_second: int = 10**6
    offset_seconds: int = 0

    def time_ns(self, ticks: int) -> int:
        return self.offset_seconds * _SECOND + ticks * _SECOND // self.ticks_per_second


def read(file: BinaryIO) -> Iterator[Frame]:
    """Read every frame of a pcap or pcapng file, in the order of the file.

    Raises:
        Truncated: the file ends inside of something.
        Malformed: it is neither, or contradicts itself.
    """
    source = _Source(file)
    magic = source.take(4, "magic number")
    if magic in _PCAP_MAGIC:
        yield from _read_pcap(source, *_PCAP_MAGIC[magic])
    elif magic == _SECTION.to_bytes(4, "big"):
        yield from _read_pcapng(source)
    else:
        raise Malformed("magic number", at=0, problem=f"{magic.hex()} is neither pcap nor pcapng")


class _Source:
    """A file read forwards, with errors that say where."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0

    def take(self, n: int, field: str) -> bytes:
        octets = self.take_or_end(n, field)
        if not octets and n:
            raise Truncated(field, at=self.position, need=n, have=0)
        return octets

    def take_or_end(self, n: int, field: str) -> bytes:
        """Read ``n`` octets, or none at the end of the file."""
        if n > _LONGEST:
            raise Malformed(field, at=self.position, problem=f"{n} octets, more than {_LONGEST}")
        octets = self._file.read(n)
        if octets and len(octets) < n:
            raise Truncated(field, at=self.position, need=n, have=len(octets))
        self.position += len(octets)
        return octets


def _read_pcap(source: _Source, order: str, nanoseconds: int) -> Iterator[Frame]:
    *_, link_type = struct.unpack(order + "HHLLLL", source.take(20, "pcap header"))
    link_type &= 0x0FFFFFFF
    while header := source.take_or_end(16, "packet header"):
        seconds, fraction, captured, original = struct.unpack(order + "LLLL", header)
        yield Frame(
            octets=source.take(captured, "packet"),
            link_type=link_type,
            time_ns=seconds * _SECOND + fraction * nanoseconds,
            original_octets=original if original != captured else None,
        )


def _read_pcapng(source: _Source) -> Iterator[Frame]:
    order = ">"
    interfaces: list[_Interface] = []
    head = _SECTION.to_bytes(4, "big")
    while head:
        at = source.position - 4
        kind = struct.unpack(order + "L", head)[0]
        length_octets = source.take(4, "block length")
        if kind == _SECTION:
            magic = source.take(4, "byte-order magic")
            order = next((o for o in "<>" if struct.unpack(o + "L", magic)[0] == _BYTE_ORDER), "")
            if not order:
                raise Malformed("byte-order magic", at=at + 8, problem=f"{magic.hex()} is no byte order")
            interfaces = []
        length = struct.unpack(order + "L", length_octets)[0]
        taken = source.position - at
        if length % 4 or length < taken + 4:
            raise Malformed("block length", at=at + 4, problem=f"{length}, must be a multiple of 4 and hold the block")
        body = source.take(length - taken - 4, "block body")
        if source.take(4, "trailing block length") != length_octets:
            raise Malformed("trailing block length", at=at + length - 4, problem=f"is not {length} as in front")
        if kind == _INTERFACE:
            interfaces.append(_parse_interface(body, order, at))
        elif kind in (_OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET):
            yield _parse_packet(kind, body, order, interfaces, at)
        head = source.take_or_end(4, "block type")


def _parse_interface(body: bytes, order: str, at: int) -> _Interface:
    if len(body) < 8:
        raise Truncated("interface description", at=at + 8, need=8, have=len(body))
    link_type, _, snap_octets = struct.unpack_from(order + "HHL", body)
    ticks, offset = 10**6, 0
    position = 8
    while position + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, position)
        value = body[position + 4 : position + 4 + length]
        if code == 9 and len(value) == 1:
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == 14 and len(value) == 8:
            offset = struct.unpack(order + "q", value)[0]
        position += 4 + (length + 3) // 4 * 4
    return _Interface(link_type=link_type, snap_octets=snap_octets, ticks_per_second=ticks, offset_seconds=offset)


def _parse_packet(kind: int, body: bytes, order: str, interfaces: list[_Interface], at: int) -> Frame:
    number, high, low = 0, 0, 0
    layout = {_SIMPLE_PACKET: "L", _ENHANCED_PACKET: "LLLLL", _OLD_PACKET: "HHLLLL"}[kind]
    need = struct.calcsize(order + layout)
    if len(body) < need:
        raise Truncated("packet block", at=at + 8, need=need, have=len(body))
    if kind == _SIMPLE_PACKET:
        (original,) = struct.unpack_from(order + layout, body)
        captured = original
    elif kind == _ENHANCED_PACKET:
        number, high, low, captured, original = struct.unpack_from(order + layout, body)
    else:
        number, _, high, low, captured, original = struct.unpack_from(order + layout, body)
    if number >= len(interfaces):
        raise Malformed("interface", at=at + 8, problem=f"{number}, the section has {len(interfaces)}")
    interface = interfaces[number]
    if kind == _SIMPLE_PACKET and interface.snap_octets:
        captured = min(captured, interface.snap_octets)
    octets = body[need : need + captured]
    if len(octets) < captured:
        raise Truncated("packet", at=at + 8 + need, need=captured, have=len(octets))
    return Frame(
        octets=octets,
        link_type=interface.link_type,
        time_ns=interface.time_ns(high << 32 | low) if kind != _SIMPLE_PACKET else 0,
        original_octets=original if original != captured else None,
        interface=number,
    )


class CaptureWriter:
    """Writes pcapng, big-endian, in nanoseconds; one section.

    Args:
        file: Where to; neither opened nor closed here.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._link_types: list[int] = []
        self._block(_SECTION, struct.pack(">LHHq", _BYTE_ORDER, 1, 0, -1))

    def add_interface(self, link_type: int = RAW, *, name: str = "") -> int:
        """Declare an interface and return its number, for ``Frame.interface``."""
        options = _option(9, b"\x09")
        if name:
            options = _option(2, name.encode()) + options
        self._block(_INTERFACE, struct.pack(">HHL", link_type, 0, 0) + options + _option(0, b""))
        self._link_types.append(link_type)
        return len(self._link_types) - 1

    def write(self, frame: Frame) -> None:
        """Append a frame; its interface must have been added, with the same link type.

        Raises:
            ValueError: it has not.
        """
        if not 0 <= frame.interface < len(self._link_types):
            raise ValueError(f"interface {frame.interface} has not been added")
        if frame.link_type != self._link_types[frame.interface]:
            raise ValueError(f"interface {frame.interface} has link type {self._link_types[frame.interface]}")
        if not 0 <= frame.time_ns < 1 << 64:
            raise ValueError(f"time {frame.time_ns} ns does not fit in 64 bits")
        captured = len(frame.octets)
        original = captured if frame.original_octets is None else frame.original_octets
        header = struct.pack(">LQLL", frame.interface, frame.time_ns, captured, original)
        self._block(_ENHANCED_PACKET, header + frame.octets + bytes(-captured % 4))

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack(">L", 12 + len(body))
        self._file.write(struct.pack(">L", kind) + length + body + length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value + bytes(-len(value) % 4)


def ip_octets(frame: Frame) -> bytes | None:
    """Return the IPv4, IPv6 or SIP packet in a frame, without the link's header; None if there is none."""
    found = network(frame)
    return None if found is None else found[1]


def network(frame: Frame) -> tuple[int | None, bytes] | None:
    """Return EtherType and packet of a frame with IPv4, IPv6 or SIP, which has IPv4's (seed IPAE 4.2.1).

    The EtherType is None where the link has none; None if there is no such packet.
    """
    octets = frame.octets
    if frame.link_type in (RAW, IPV4, IPV6):
        known = {IPV4: _ETHERTYPE_IPV4, IPV6: _ETHERTYPE_IPV6}.get(frame.link_type)
        return (known, octets) if octets and octets[0] >> 4 in (4, 6) else None
    if frame.link_type == ETHERNET:
        at = 12
        while _ethertype(octets, at) in _VLAN_ETHERTYPES:
            at += 4
        start = at + 2
    elif frame.link_type == LINUX_SLL:
        at, start = 14, 16
    elif frame.link_type == LINUX_SLL2:
        at, start = 0, 20
    else:
        return None
    kind = _ethertype(octets, at)
    return (kind, octets[start:]) if kind in (_ETHERTYPE_IPV4, _ETHERTYPE_IPV6) and len(octets) > start else None


def _ethertype(octets: bytes, at: int) -> int | None:
    return octets[at] << 8 | octets[at + 1] if len(octets) >= at + 2 else None
