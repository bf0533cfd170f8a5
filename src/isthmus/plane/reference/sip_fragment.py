# SPDX-License-Identifier: BSD-3-Clause
"""Fragments of SIP packets: put together where they end or are translated, cut where they begin (RFC 8507 §7).

Routers do not cut. Who translates into SIP does, and who sends; both know the identification. The memory is that
of all fragments (``fragment``), with its limits.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from isthmus.plane.reference.classify import needed
from isthmus.plane.reference.dialect import Dialect
from isthmus.plane.reference.fragment import Part, Whole
from isthmus.wire.sip.header import HEADER_OCTETS, SipHeader, SipView
from isthmus.wire.sip.option import OPTION_OCTETS, Chain, Fragmentation

_LARGEST = 0xFFFF


def sip_part(packet: SipView, chain: Chain, dialect: Dialect, place: Hashable) -> Part:
    """See a fragment as a part of a packet (RFC 8507 §7).

    Args:
        packet: The fragment.
        chain: The way through its option headers.
        dialect: How SIP is written.
        place: Where it was met; the same packet met elsewhere is another.
    """
    part = chain.fragmentation
    assert part is not None
    header = replace(SipHeader.of(packet), payload_length=0, payload_type=chain.payload_type)
    start = dialect.write(header, b"", route=chain.source_route, part=replace(part, more=False, fragment_offset=0))
    return Part(
        key=(place, packet.src, packet.dst, part.identification, chain.payload_type),
        source=(place, packet.src),
        offset=part.fragment_offset * 8,
        more=part.more,
        header=start,
        data=bytes(chain.payload),
        octets=bytes(packet.octets),
        needed=needed(chain.payload_type),
        most=_LARGEST - (len(start) - HEADER_OCTETS),
    )


def whole_sip(whole: Whole) -> bytes:
    """Write a SIP packet that was put together; it keeps its fragmentation header, which now says that it is whole."""
    octets = bytearray(whole.header + whole.data)
    octets[4:6] = (len(octets) - HEADER_OCTETS).to_bytes(2, "big")
    return bytes(octets)


def cut_sip(packet: bytes, mtu: int, dialect: Dialect, identification: int) -> tuple[bytes, ...]:
    """Cut a packet that is ours to cut into fragments (RFC 8507 §7; spec 3.5).

    Args:
        packet: A packet with plain option headers, whole or a fragment.
        mtu: Largest fragment, at least 576 octets.
        dialect: How SIP is written.
        identification: For a packet that has no fragmentation header.

    Returns:
        The fragments in order; the packet itself, if it is not larger.
    """
    if len(packet) <= mtu:
        return (packet,)
    view = dialect.parse(packet)
    chain = dialect.walk(view)
    before = chain.fragmentation or Fragmentation(identification=identification, payload_type=0)
    header = replace(SipHeader.of(view), payload_length=0, payload_type=chain.payload_type)
    route = chain.source_route
    room = (mtu - HEADER_OCTETS - OPTION_OCTETS - (0 if route is None else route.octets)) // 8 * 8
    data, fragments = bytes(chain.payload), []
    for at in range(0, len(data), room):
        part = replace(
            before,
            fragment_offset=before.fragment_offset + at // 8,
            more=before.more or at + room < len(data),
        )
        fragments.append(dialect.write(header, data[at : at + room], route=route, part=part))
    return tuple(fragments)
