# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing ICMP and IGMP over SIP, the packets that errors quote, and their description."""

from __future__ import annotations

import json

from fuzz.promise import stays_within
from isthmus.address import Address
from isthmus.errors import WireError
from isthmus.wire import text
from isthmus.wire.sip.header import SipHeader, SipView
from isthmus.wire.sip.icmp import (
    QUOTE_OCTETS,
    RouterAdvertisement,
    SipIcmpMessage,
    kind_to_ipv4,
    kind_to_sip,
    may_report,
    pointer_to_ipv4,
    pointer_to_sip,
    time_exceeded,
)
from isthmus.wire.sip.igmp import SipIgmpMessage
from isthmus.wire.sip.option import walk

RUNS = 1_000
_SRC, _DST = Address.parse_sip("1.213.77.5/192.3.4.1"), Address.parse_sip("c1.2.2.8/201.5.7.250")


def check(octets: bytes) -> None:
    """Read a message, what it quotes, what it is over IPv4, and describe it in a packet."""
    try:
        message = SipIcmpMessage.parse(octets)
    except WireError as error:
        stays_within(error, octets)
    else:
        assert message.emit(0) == octets
        _counterparts(message)
        _routers(message)
        _quoted(message)
    try:
        assert SipIgmpMessage.parse(octets).emit(0) == octets
    except WireError as error:
        stays_within(error, octets)
    for payload_type in (1, 2):
        packet = SipHeader(payload_length=len(octets), payload_type=payload_type, src=_SRC, dst=_DST).emit() + octets
        json.dumps(text.to_dict(packet))
        text.tree(packet)
        text.line(packet)


def _counterparts(message: SipIcmpMessage) -> None:
    there = kind_to_sip(message.type, message.code)
    assert there is None or kind_to_ipv4(*there) == there
    if message.pointer is not None:
        pointer_to_sip(message.pointer)
        pointer_to_ipv4(message.pointer)
    assert message.preferred_router is None or message.type == 5


def _routers(message: SipIcmpMessage) -> None:
    try:
        said = RouterAdvertisement.of(message)
    except WireError as error:
        stays_within(error, bytes(8) + message.body)
        return
    assert len(said.routers) == message.rest[0]
    assert RouterAdvertisement.of(said.message()) == said


def _quoted(message: SipIcmpMessage) -> None:
    """No error begets an error, and none quotes more than it may."""
    try:
        view = message.quoted()
        chain = walk(view)
    except WireError as error:
        stays_within(error, message.quote)
        return
    assert isinstance(view, SipView)
    part = chain.fragmentation
    may_report(
        view,
        fragment_offset=part.fragment_offset if part else 0,
        payload_type=chain.payload_type,
        payload=chain.payload,
    )
    assert len(time_exceeded(message.quote).body) <= QUOTE_OCTETS
