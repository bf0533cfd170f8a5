# SPDX-License-Identifier: BSD-3-Clause
"""IGMP versions 1 to 3 as a router on the hosts' link needs it (RFC 1112, RFC 2236, RFC 3376).

Reports are read, of every version; queries are written, in the form of version 3, which older
hosts take for one of their own (RFC 3376 §7.2.1).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.checksum import checksum, ones_sum
from isthmus.errors import Malformed
from isthmus.wire.cursor import Reader, Writer

PROTOCOL = 2
"""IP protocol number."""
ALL_SYSTEMS = Address.parse("224.0.0.1")
"""Where general queries go (RFC 3376 §4.1.12)."""
ROUTER_ALERT = bytes.fromhex("94040000")
"""The IP option that every IGMP message has (RFC 2113)."""

_QUERY, _V1_REPORT, _V2_REPORT, _V2_LEAVE, _V3_REPORT = 0x11, 0x12, 0x16, 0x17, 0x22
_MULTICAST = 0xE
_MESSAGE_OCTETS = 8
_SOLID = 0xFFFF
_LARGEST_PLAIN_CODE = 128


class RecordType(enum.IntEnum):
    """What a group record of version 3 says (RFC 3376 §4.2.12)."""

    MODE_IS_INCLUDE = 1
    MODE_IS_EXCLUDE = 2
    CHANGE_TO_INCLUDE_MODE = 3
    CHANGE_TO_EXCLUDE_MODE = 4
    ALLOW_NEW_SOURCES = 5
    BLOCK_OLD_SOURCES = 6


@dataclass(frozen=True, slots=True)
class Membership:
    """What a host says about one group."""

    group: Address
    wanted: bool
    "Whether it wants to hear the group, from whatever source; else it may have left."


def parse(octets: bytes) -> tuple[Membership, ...]:
    """Read a report or a leave; a query, or a type that is not known, says nothing.

    Args:
        octets: The IGMP message, from its type on.

    Raises:
        Truncated: it is cut short.
        Malformed: its checksum is wrong, or a group is none.
    """
    reader = Reader(octets)
    if reader.left >= _MESSAGE_OCTETS and ones_sum(octets) != _SOLID:
        raise Malformed("checksum", at=2, problem="is wrong")
    kind = reader.u8("type")
    reader.take(3, "code and checksum")
    if kind == _V3_REPORT:
        reader.u16("reserved")
        return tuple(each for _ in range(reader.u16("number of group records")) for each in _record(reader))
    group = _group(reader, "group address") if kind in (_V1_REPORT, _V2_REPORT, _V2_LEAVE) else None
    return () if group is None else (Membership(group, wanted=kind != _V2_LEAVE),)


def _record(reader: Reader) -> tuple[Membership, ...]:
    """One group record (RFC 3376 §4.2.4); one of a type that is not known is ignored (§4.2.12)."""
    kind, auxiliary, sources = reader.u8("record type"), reader.u8("aux data length"), reader.u16("number of sources")
    group = _group(reader, "multicast address")
    reader.take(4 * (sources + auxiliary), "sources and auxiliary data")
    if kind in (RecordType.MODE_IS_EXCLUDE, RecordType.CHANGE_TO_EXCLUDE_MODE):
        return (Membership(group, wanted=True),)
    if kind in (RecordType.MODE_IS_INCLUDE, RecordType.CHANGE_TO_INCLUDE_MODE):
        return (Membership(group, wanted=sources > 0),)
    if kind == RecordType.ALLOW_NEW_SOURCES:
        return (Membership(group, wanted=True),)
    return ()


def _group(reader: Reader, field: str) -> Address:
    at = reader.position
    number = reader.u32(field)
    if number >> 28 != _MULTICAST:
        raise Malformed(field, at=at, problem=f"{Address(Family.IPV4, number)} is no group")
    return Address(Family.IPV4, number)


def emit_query(group: Address | None, *, response_tenths: int, interval_seconds: int, robustness: int) -> bytes:
    """Write a membership query (RFC 3376 §4.1).

    Args:
        group: The one that is asked about; None: all.
        response_tenths: How long hosts may take to answer, in tenths of a second, at most 127.
        interval_seconds: Between our general queries, at most 127 of them said.
        robustness: How many packets may be lost, less one: 1 to 7.
    """
    writer = Writer()
    writer.u8(_QUERY, "type")
    writer.u8(min(response_tenths, _LARGEST_PLAIN_CODE - 1), "max resp code")
    writer.u16(0, "checksum")
    writer.u32(0 if group is None else group.number, "group address")
    writer.u8(robustness, "S and QRV")
    writer.u8(min(interval_seconds, _LARGEST_PLAIN_CODE - 1), "QQIC")
    writer.u16(0, "number of sources")
    writer.patch_u16(2, checksum(bytes(writer)), "checksum")
    return bytes(writer)
