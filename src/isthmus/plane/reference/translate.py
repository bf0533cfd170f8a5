# SPDX-License-Identifier: BSD-3-Clause
"""IPv4 to SIP and back: headers, options and fragments (seed IPAE 5.1, 5.2; spec 3.3 to 3.5).

::

    IPv4, 20                       SIP, 24
    +-------------------------+    +---------------------------+
    | TTL, protocol, length   | ⇄  | hop limit, type, length   |
    | source, destination     |    | 32 bits more above each   |
    +-------------------------+    +---------------------------+
    | LSRR                    | ⇄  | source route, 43          |
    | identification, offset, | ⇄  | fragmentation, 44, if     |
    | MF; DF = 0              |    | DF was 0                  |
    +-------------------------+    +---------------------------+
    | transport: untouched    |    | but ICMP: translate_icmp  |

Which addresses, and which way, is ``images`` and ``cross``. Pairs with ``bpf/include/isthmus/translate.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address
from isthmus.errors import Malformed
from isthmus.plane.reference.classify import Octets
from isthmus.plane.reference.dialect import Dialect
from isthmus.wire.ipv4 import MINIMUM_OCTETS, Ipv4Header, Ipv4View
from isthmus.wire.sip.header import SipHeader, SipView
from isthmus.wire.sip.option import Chain, Fragmentation, SourceRoute

MOST_STOPS = 9
"""Addresses that an IPv4 option has room for (RFC 791 §3.1)."""
_END, _NO_OPERATION, _LSRR, _SSRR = 0, 1, 131, 137
_FIRST_POINTER = 4
_OPTION_HEAD = 3
_LARGEST = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A loose source route of IPv4 (RFC 791 §3.1)."""

    stops: tuple[Address, ...]
    "Visited ones, as the routers recorded themselves, then those to come."
    next_stop: int
    "Index of the next; as many as there are stops when all were visited."


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What translation wants to know of IPv4's options (spec 3.3)."""

    route: Route | None = None
    is_strict: bool = False
    "Whether there is a strict source route, which nothing in SIP can keep."


def read_options(options: Octets) -> Options:
    """Read the options that translation does not just drop (RFC 791 §3.1).

    Raises:
        Malformed: a length that cannot be, or a pointer that points nowhere.
    """
    at, route, strict = 0, None, False
    while at < len(options) and options[at] != _END:
        if options[at] == _NO_OPERATION:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            raise Malformed("option length", at=at + 1, problem=f"{length}, of {len(options) - at} octets left")
        strict |= options[at] == _SSRR
        if options[at] == _LSRR:
            route = _route(options[at : at + length])
        at += length
    return Options(route=route, is_strict=strict)


def _route(option: Octets) -> Route:
    body = option[_OPTION_HEAD:]
    pointer = option[2] if len(option) >= _OPTION_HEAD else 0
    if len(body) % 4 or pointer < _FIRST_POINTER or (pointer - _FIRST_POINTER) % 4:
        raise Malformed("source route", at=2, problem=f"pointer {pointer} in {len(option)} octets")
    stops = tuple(Address.from_octets(body[at : at + 4]) for at in range(0, len(body), 4))
    # A pointer beyond the end says that the route is empty (RFC 791 §3.1): how far beyond has no meaning.
    return Route(stops=stops, next_stop=min((pointer - _FIRST_POINTER) // 4, len(stops)))


def to_sip(
    packet: Ipv4View,
    dialect: Dialect,
    *,
    src: Address,
    dst: Address,
    hop_limit: int,
    route: SourceRoute | None = None,
    marked: bool = False,
    payload: Octets | None = None,
    length: int | None = None,
) -> bytes:
    """Write an IPv4 packet, fragment or quote as SIP (seed IPAE 5.1; spec 3.3).

    Args:
        packet: What is translated.
        dialect: How SIP is written.
        src: Its source there.
        dst: Its destination there.
        hop_limit: What the TTL has become.
        route: Its source route there.
        marked: Whether a whole packet gets a fragmentation header, too: its DF is 0 (spec 3.5).
        payload: The transport, if it is not that of ``packet``.
        length: Octets of transport that the headers speak of, if it is cut short as in a quote.
    """
    header = SipHeader(
        reserved=packet.tos if dialect.keep_tos else 0,
        payload_length=0,
        payload_type=packet.protocol,
        hop_limit=hop_limit,
        src=src,
        dst=dst,
    )
    part = None
    if packet.is_fragment or marked:
        part = Fragmentation(
            identification=packet.identification,
            more=packet.mf,
            fragment_offset=packet.fragment_offset,
            payload_type=packet.protocol,
        )
    content = packet.payload if payload is None else payload
    return dialect.write(header, content, route=route, part=part, length=length)


def to_ipv4(
    packet: SipView,
    chain: Chain,
    dialect: Dialect,
    *,
    src: Address,
    dst: Address,
    hop_limit: int,
    identification: int,
    route: Route | None = None,
    payload: Octets | None = None,
    length: int | None = None,
) -> bytes:
    """Write a SIP packet, fragment or quote as IPv4 (seed IPAE 5.2; spec 3.4).

    Args:
        packet: What is translated.
        chain: The way through its option headers; a plain one.
        dialect: How SIP is written.
        src: Its source there.
        dst: Its destination there.
        hop_limit: What the TTL becomes.
        identification: For a packet without a fragmentation header.
        route: Its source route there, ``MOST_STOPS`` at most.
        payload: The transport, if it is not that of ``packet``.
        length: Octets of transport that the header speaks of, if it is cut short as in a quote.

    Raises:
        ValueError: it is too long for an IPv4 packet.
    """
    part = chain.fragmentation
    options = b"" if route is None else _lsrr(route)
    content = chain.payload if payload is None else payload
    header = Ipv4Header(
        tos=packet.reserved & 0xFF if dialect.keep_tos else 0,
        total_length=MINIMUM_OCTETS + len(options) + (len(content) if length is None else length),
        identification=identification if part is None else part.identification & _LARGEST,
        df=part is None and packet.src.c_bit,
        mf=part is not None and part.more,
        fragment_offset=0 if part is None else part.fragment_offset,
        ttl=hop_limit,
        protocol=chain.payload_type,
        src=src,
        dst=dst,
        options=options,
    )
    return header.emit() + bytes(content)


def _lsrr(route: Route) -> bytes:
    length = _OPTION_HEAD + 4 * len(route.stops)
    pointer = _FIRST_POINTER + 4 * route.next_stop
    option = bytes((_LSRR, length, pointer)) + b"".join(each.octets for each in route.stops)
    return option + bytes(-len(option) % 4)
