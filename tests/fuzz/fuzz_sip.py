# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing SIP: header, option headers in both layouts, and what ICMP, IGMP and IPAE make of the octets."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.errors import WireError
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.header import HEADER_OCTETS, HeaderOrder, SipHeader, SipView
from isthmus.wire.sip.ipae import Ipae, Version6, demultiplex, encapsulate
from isthmus.wire.sip.option import FRAGMENT, MOST_OPTIONS, SOURCE_ROUTE, OptionLayout, walk
from isthmus.wire.sip.special import unfit

_PROPERTIES = [name for name, each in vars(SipView).items() if isinstance(each, property)]


def repair(octets: bytes) -> bytes:
    """Make version and payload length right."""
    if len(octets) < HEADER_OCTETS:
        return octets
    length = min(len(octets) - HEADER_OCTETS, 0xFFFF)
    return bytes((0x60 | octets[0] & 0xF,)) + octets[1:4] + length.to_bytes(2, "big") + octets[6:]


def check(octets: bytes) -> None:
    """Read a packet as a whole one and as a quoted one, in both orders, and edit it."""
    for order in HeaderOrder:
        for quoted in (False, True):
            try:
                view = SipView.parse(octets, order=order, quoted=quoted)
            except WireError as error:
                stays_within(error, octets)
                continue
            for name in _PROPERTIES:
                getattr(view, name)
            assert len(view.payload) == min(view.payload_length, len(octets) - HEADER_OCTETS)
            assert SipHeader.parse(octets, order=order, quoted=quoted).emit(order) == bytes(view.header)
            unfit(view.src, view.dst)
            for layout in OptionLayout:
                _walk(view, layout)
            _edit(octets, order)
    _inside_of_ipv4(octets)


def _walk(view: SipView, layout: OptionLayout) -> None:
    """Whatever chain there is, it ends within the packet, and its headers are written as they were."""
    try:
        chain = walk(view, layout=layout)
    except WireError as error:
        stays_within(error, view.octets)
        return
    assert HEADER_OCTETS <= chain.at <= view.total_length
    assert bytes(view.octets[chain.at :]) == bytes(chain.payload)
    assert chain.at <= HEADER_OCTETS + MOST_OPTIONS * (8 + 255 * 8)
    assert chain.payload_type not in (SOURCE_ROUTE, FRAGMENT) or chain.is_fragment
    for header, at in (
        (chain.source_route, chain.source_route_at),
        (chain.fragmentation, chain.fragmentation_at),
    ):
        if header is not None:
            assert at is not None
            assert bytes(view.octets[at : at + header.octets]) == header.emit(layout)
    route = chain.source_route
    if route is not None and not route.is_finished and not route.is_contradictory:
        dst, then = route.swap(view.dst)
        assert then.addresses[route.next_address] == view.dst
        assert dst == route.addresses[route.next_address]


def _edit(octets: bytes, order: HeaderOrder) -> None:
    buffer = bytearray(octets)
    view = SipView.parse(buffer, order=order, quoted=True)
    view.hop_limit ^= 0x33
    view.src, view.dst = view.dst, view.src
    at = order.hop_limit_at
    assert buffer[:at] == octets[:at]
    assert buffer[at + 1 : 8] == octets[at + 1 : 8]
    assert buffer[8:24] == octets[16:24] + octets[8:16]
    assert buffer[24:] == octets[24:]


def _inside_of_ipv4(octets: bytes) -> None:
    """Encapsulation and back gives the same packet; and the octets may be a datagram themselves."""
    inside = demultiplex(octets)
    if inside is Version6.SIP and len(octets) <= 0xFFFF - 20:
        packet = SipView.parse(octets)
        outer = encapsulate(packet, src=packet.src.low, dst=packet.dst.low, identification=1)
        found = Ipae.parse(Ipv4View.parse(outer))
        assert bytes(found.inner.octets) == octets
        assert found.outer.ttl == found.inner.hop_limit
    try:
        found = Ipae.parse(Ipv4View.parse(octets))
    except WireError as error:
        stays_within(error, octets)
        return
    assert len(found.outer.payload) == found.inner.total_length
