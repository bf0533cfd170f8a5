# SPDX-License-Identifier: BSD-3-Clause
"""SIP for programs that use IPv6 sockets: the header, fragments and ICMP both ways (spec 8.2).

::

    IPv6, 40                         SIP, 24
    prefix : 64 bits of SIP     ⇄    64 bits of SIP
    fragment header, 8          ⇄    fragmentation header, 8
    ICMPv6, 58                  ⇄    ICMP, 1: other types, other quotes, another checksum
    all other transports: untouched; the prefixes see to their checksums

Pairs with ``bpf/include/isthmus/translate_ipv6.h``.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.address import Address, Family
from isthmus.checksum import checksum, fold, move_pseudo_header, pseudo_header
from isthmus.errors import Malformed, WireError
from isthmus.plane.reference.classify import Octets
from isthmus.plane.reference.dialect import Dialect
from isthmus.plane.reference.translate_icmp import Ends
from isthmus.wire.icmp import IcmpType, IcmpView, Unreachable
from isthmus.wire.ipv6 import FRAGMENT, FRAGMENT_OCTETS, FragmentHeader, Ipv6Header, Ipv6View
from isthmus.wire.sip.header import MINIMUM_MTU, SipHeader, SipView
from isthmus.wire.sip.icmp import QUOTE_OCTETS as SIP_QUOTE_OCTETS
from isthmus.wire.sip.icmp import SipIcmpMessage
from isthmus.wire.sip.icmp import Unreachable as SipUnreachable
from isthmus.wire.sip.option import Chain, Fragmentation
from isthmus.wire.transport import Protocol

HEADER_DIFFERENCE = 16
"""Octets that a packet has less as SIP."""
LEAST_MTU = 1280
"""What every IPv6 link carries (RFC 8200 §5)."""
MOST_QUOTED = LEAST_MTU - 40 - 8
_EXTENSIONS = frozenset({0, 43, 60, 135, 139, 140})
"Hop-by-hop, routing, destination options, mobility, HIP, shim6: what only IPv6 understands."
_SIP = (1 << 64) - 1
_ECHO, _ECHO_REPLY = 128, 129
_UNREACHABLE, _TOO_BIG, _EXCEEDED, _PROBLEM = 1, 2, 3, 4

# Silent: spec 8.2 says that ICMPv6 is always translated, and not to what; this is in the manner of RFC 7915 §4.2, §5.2.
_UNREACHABLE_TO_SIP = {
    0: SipUnreachable.ADDRESS,
    1: SipUnreachable.ADMINISTRATIVELY_PROHIBITED,
    2: SipUnreachable.ADDRESS,
    3: SipUnreachable.ADDRESS,
    4: SipUnreachable.PORT,
    5: SipUnreachable.ADMINISTRATIVELY_PROHIBITED,
    6: SipUnreachable.ADMINISTRATIVELY_PROHIBITED,
}
_UNREACHABLE_TO_IPV6 = {
    SipUnreachable.ADDRESS: (_UNREACHABLE, 3),
    SipUnreachable.PAYLOAD_TYPE: (_PROBLEM, 1),
    SipUnreachable.PORT: (_UNREACHABLE, 4),
    SipUnreachable.PACKET_TOO_BIG: (_TOO_BIG, 0),
    SipUnreachable.SOURCE_ROUTE_FAILED: (_UNREACHABLE, 0),
    SipUnreachable.ADDRESS_UNKNOWN: (_UNREACHABLE, 0),
    SipUnreachable.SOURCE_ISOLATED: (_UNREACHABLE, 0),
    SipUnreachable.ADMINISTRATIVELY_PROHIBITED: (_UNREACHABLE, 1),
}
_POINTERS_TO_IPV6 = {
    **dict.fromkeys(range(4), 0),
    4: 4,
    5: 4,
    6: 6,
    7: 7,
    **dict.fromkeys(range(8, 16), 8),
    **dict.fromkeys(range(16, 24), 24),
}
_POINTERS_TO_SIP = {
    **dict.fromkeys(range(4), 0),
    4: 4,
    5: 4,
    6: 6,
    7: 7,
    **dict.fromkeys(range(8, 24), 8),
    **dict.fromkeys(range(24, 40), 16),
}
_NEXT_HEADER_AT = 6


def sip_of(address: Address) -> Address:
    """The SIP address in an IPv6 address: its last 64 bits (spec 8.2)."""
    return Address(Family.SIP, address.number & _SIP)


def read_ipv6(packet: Ipv6View) -> tuple[int, FragmentHeader | None, memoryview]:
    """What an IPv6 packet carries: the protocol, its fragment header, and the payload.

    Raises:
        Malformed: another extension header.
        Truncated: the fragment header is cut short.
    """
    kind, payload, part = packet.next_header, packet.payload, None
    if kind == FRAGMENT:
        part = FragmentHeader.parse(payload)
        kind, payload = part.next_header, payload[FRAGMENT_OCTETS:]
    if kind in _EXTENSIONS or (part is not None and kind == FRAGMENT):
        raise Malformed("Next Header", at=_NEXT_HEADER_AT, problem=f"{kind}, an extension that SIP does not have")
    return kind, part, payload


def to_sip(
    packet: Ipv6View,
    dialect: Dialect,
    ends: Ends,
    *,
    kind: int,
    part: FragmentHeader | None,
    payload: Octets,
    length: int | None = None,
) -> bytes:
    """Write an IPv6 packet, fragment or quote as SIP.

    Args:
        packet: What is translated.
        dialect: How SIP is written.
        ends: Source and destination there.
        kind: Payload type there.
        part: Its fragment header.
        payload: What it carries there.
        length: Octets of payload, if ``payload`` is cut short as in a quote.
    """
    header = SipHeader(
        reserved=packet.traffic_class if dialect.keep_tos else 0,
        payload_length=0,
        payload_type=kind,
        hop_limit=packet.hop_limit,
        src=ends[0],
        dst=ends[1],
    )
    fragmentation = None
    if part is not None:
        fragmentation = Fragmentation(
            identification=part.identification,
            more=part.more,
            fragment_offset=part.fragment_offset,
            payload_type=kind,
        )
    return dialect.write(header, payload, part=fragmentation, length=length)


def to_ipv6(
    packet: SipView,
    chain: Chain,
    dialect: Dialect,
    ends: Ends,
    *,
    kind: int,
    payload: Octets,
    length: int | None = None,
) -> bytes:
    """Write a SIP packet, fragment or quote as IPv6; a source route, which has ended here, is left out.

    Args:
        packet: What is translated.
        chain: The way through its option headers.
        dialect: How SIP is written.
        ends: Source and destination there.
        kind: Next header there.
        payload: What it carries there.
        length: Octets of payload, if ``payload`` is cut short as in a quote.

    Raises:
        ValueError: it is too long for an IPv6 packet.
    """
    part, shim, following = chain.fragmentation, b"", kind
    if part is not None and part.is_fragment:
        following = FRAGMENT
        shim = FragmentHeader(
            next_header=kind,
            fragment_offset=part.fragment_offset,
            more=part.more,
            identification=part.identification,
        ).emit()
    whole = not shim and length is None
    if kind == Protocol.UDP and whole and len(payload) >= 8 and not any(payload[6:8]):
        # IPv6 sockets refuse what IPv4 lets pass (RFC 8200 §8.1).
        found = checksum(payload, pseudo_header(ends[0].octets, ends[1].octets, kind, len(payload))) or 0xFFFF
        payload = bytes(payload[:6]) + found.to_bytes(2, "big") + bytes(payload[8:])
    header = Ipv6Header(
        traffic_class=packet.reserved & 0xFF if dialect.keep_tos else 0,
        payload_length=len(shim) + (len(payload) if length is None else length),
        next_header=following,
        hop_limit=packet.hop_limit,
        src=ends[0],
        dst=ends[1],
    )
    return header.emit() + shim + bytes(payload)


def icmp_to_sip(
    message: IcmpView, dialect: Dialect, ends: Ends, sip_ends: Ends, *, quoted_ends: Callable[[Ipv6View], Ends | None]
) -> bytes | None:
    """Write a whole ICMPv6 message as one of SIP.

    Args:
        message: The message; its checksum is right if it is an error.
        dialect: How SIP is written.
        ends: Source and destination of the packet.
        sip_ends: The same as SIP.
        quoted_ends: Those of a quoted packet as SIP; None if they have none.

    Returns:
        None if there is no such message of SIP.
    """
    length = 8 + len(message.body)
    sums = pseudo_header(ends[0].octets, ends[1].octets, Protocol.ICMPV6, length), dialect.icmp_sum(*sip_ends, length)
    if message.type in (_ECHO, _ECHO_REPLY):
        kind = IcmpType.ECHO if message.type == _ECHO else IcmpType.ECHO_REPLY
        return _echo(message, kind, sums)
    kind_and_rest = _error_to_sip(message)
    try:
        quoted = Ipv6View.parse(message.body, quoted=True)
        inner, part, payload = read_ipv6(quoted)
    except WireError:
        return None
    inside = quoted_ends(quoted)
    if kind_and_rest is None or inside is None:
        return None
    if inner == Protocol.ICMPV6 and part is None:
        payload = memoryview(_quoted_echo(payload, quoted, inside, dialect, to_sip=True))
    quote = to_sip(
        quoted,
        dialect,
        inside,
        kind=Protocol.ICMP if inner == Protocol.ICMPV6 else inner,
        part=part,
        payload=payload,
        length=quoted.payload_length - (FRAGMENT_OCTETS if part is not None else 0),
    )
    kind, code, rest = kind_and_rest
    told = SipIcmpMessage(type=kind, code=code, rest=rest, body=quote[:SIP_QUOTE_OCTETS])
    return told.emit(dialect.icmp_sum(*sip_ends, told.length))


def _error_to_sip(message: IcmpView) -> tuple[IcmpType, int, bytes] | None:
    number = int.from_bytes(message.rest, "big")
    match message.type:
        case 1 if message.code in _UNREACHABLE_TO_SIP:
            return IcmpType.DESTINATION_UNREACHABLE, _UNREACHABLE_TO_SIP[message.code], bytes(4)
        case 2:
            mtu = min(max(number - HEADER_DIFFERENCE, MINIMUM_MTU), 0xFFFF)
            return IcmpType.DESTINATION_UNREACHABLE, Unreachable.FRAGMENTATION_NEEDED, mtu.to_bytes(4, "big")
        case 3 if message.code in (0, 1):
            return IcmpType.TIME_EXCEEDED, message.code, bytes(4)
        case 4 if message.code == 0 and number in _POINTERS_TO_SIP:
            return IcmpType.PARAMETER_PROBLEM, 0, _POINTERS_TO_SIP[number].to_bytes(4, "big")
        case 4 if message.code == 1:
            return IcmpType.DESTINATION_UNREACHABLE, SipUnreachable.PAYLOAD_TYPE, bytes(4)
    return None


def icmp_to_ipv6(
    message: SipIcmpMessage,
    dialect: Dialect,
    sip_ends: Ends,
    ends: Ends,
    *,
    quoted_ends: Callable[[SipView], Ends],
) -> bytes | None:
    """Write a whole ICMP message of SIP as one of ICMPv6; the arguments are those of ``icmp_to_sip``, mirrored.

    Returns:
        None if there is no such message of ICMPv6.
    """
    sums = dialect.icmp_sum(*sip_ends, message.length), _icmpv6_sum(ends, message.length)
    if message.type in (IcmpType.ECHO, IcmpType.ECHO_REPLY):
        view = IcmpView.parse(message.emit(0))
        return _echo(view, _ECHO if message.type == IcmpType.ECHO else _ECHO_REPLY, sums)
    known = _error_to_ipv6(message)
    try:
        quoted = message.quoted(dialect.order)
        chain = dialect.walk(quoted)
    except WireError:
        return None
    if known is None:
        return None
    inside = quoted_ends(quoted)
    payload: Octets = chain.payload
    is_icmp = chain.payload_type == Protocol.ICMP
    if is_icmp and not chain.is_fragment:
        payload = _quoted_echo(payload, quoted, inside, dialect, to_sip=False)
    kind = Protocol.ICMPV6 if is_icmp else chain.payload_type
    length = min(quoted.total_length - chain.at, 0xFFFF - FRAGMENT_OCTETS)
    quote = to_ipv6(quoted, chain, dialect, inside, kind=kind, payload=payload, length=length)[:MOST_QUOTED]
    return error_message(known[0], known[1], known[2], quote, ends)


def error_message(kind: int, code: int, rest: int, quote: bytes, ends: Ends) -> bytes:
    """Write an ICMPv6 error (RFC 4443 §3)."""
    head = bytes((kind, code, 0, 0)) + rest.to_bytes(4, "big")
    found = checksum(head + quote, _icmpv6_sum(ends, len(head + quote)))
    return head[:2] + found.to_bytes(2, "big") + head[4:] + quote


def _icmpv6_sum(ends: Ends, length: int) -> int:
    return pseudo_header(ends[0].octets, ends[1].octets, Protocol.ICMPV6, length)


def _error_to_ipv6(message: SipIcmpMessage) -> tuple[int, int, int] | None:
    return kind_of_error(message.type, message.code, int.from_bytes(message.rest[2:], "big"))


def kind_of_error(kind: int, code: int, value: int) -> tuple[int, int, int] | None:
    """Type, code and second word of ICMPv6 for an error of SIP, whose MTU or pointer ``value`` is."""
    match kind:
        case IcmpType.DESTINATION_UNREACHABLE if code in _UNREACHABLE_TO_IPV6:
            found = _UNREACHABLE_TO_IPV6[SipUnreachable(code)]
            if found[0] == _TOO_BIG:
                return (*found, max(value + HEADER_DIFFERENCE, LEAST_MTU))
            return (*found, _NEXT_HEADER_AT if found[0] == _PROBLEM else 0)
        case IcmpType.TIME_EXCEEDED if code in (0, 1):
            return _EXCEEDED, code, 0
        case IcmpType.PARAMETER_PROBLEM if value in _POINTERS_TO_IPV6:
            return _PROBLEM, 0, _POINTERS_TO_IPV6[value]
    return None


def _echo(message: IcmpView, kind: int, sums: tuple[int, int]) -> bytes:
    before, after = fold(sums[0] + (message.type << 8)), fold(sums[1] + (kind << 8))
    moved = move_pseudo_header(message.checksum, before=before, after=after)
    head = bytes((kind, message.code)) + moved.to_bytes(2, "big")
    return head + bytes(message.rest) + bytes(message.body)


def _quoted_echo(payload: Octets, quoted: Ipv6View | SipView, inside: Ends, dialect: Dialect, *, to_sip: bool) -> bytes:
    """A quoted echo as the other side has it, if its header is there."""
    pairs = {_ECHO: IcmpType.ECHO, _ECHO_REPLY: IcmpType.ECHO_REPLY}
    kinds: dict[int, int] = dict(pairs) if to_sip else {there: here for here, there in pairs.items()}
    if len(payload) < 8 or payload[0] not in kinds:
        return bytes(payload)
    length, outside = quoted.payload_length, (quoted.src, quoted.dst)
    if isinstance(quoted, SipView):
        sums = dialect.icmp_sum(*outside, length), _icmpv6_sum(inside, length)
    else:
        sums = _icmpv6_sum(outside, length), dialect.icmp_sum(*inside, length)
    return _echo(IcmpView.parse(payload), kinds[payload[0]], sums)
