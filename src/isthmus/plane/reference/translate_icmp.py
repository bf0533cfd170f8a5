# SPDX-License-Identifier: BSD-3-Clause
"""ICMP between IPv4 and SIP: types, what errors say and quote, and the checksum (RFC 8507 §8.1; spec 2.6).

A message of SIP has a pseudo-header in its checksum and one of IPv4 has not, so that ICMP is the one transport that
a gateway cannot leave alone. What an error quotes is a packet of the other side, and is translated, too.

Pairs with ``bpf/include/isthmus/translate.h``, which does echo only.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.address import Address
from isthmus.checksum import move_pseudo_header, ones_sum
from isthmus.errors import WireError
from isthmus.plane.reference import translate
from isthmus.plane.reference.classify import Octets
from isthmus.plane.reference.dialect import Dialect, is_plain
from isthmus.plane.reference.path_mtu import plateau_below
from isthmus.wire.icmp import QUOTE_OCTETS, IcmpMessage, IcmpType, IcmpView
from isthmus.wire.ipv4 import MINIMUM_OCTETS, Ipv4View
from isthmus.wire.sip.header import MINIMUM_MTU, SipView
from isthmus.wire.sip.icmp import QUOTE_OCTETS as SIP_QUOTE_OCTETS
from isthmus.wire.sip.icmp import SipIcmpMessage, kind_to_ipv4, kind_to_sip, pointer_to_ipv4, pointer_to_sip
from isthmus.wire.sip.option import OPTION_OCTETS, Chain
from isthmus.wire.transport import Protocol

ECHOES = frozenset({IcmpType.ECHO, IcmpType.ECHO_REPLY})
"""What has the same octets on both sides, but for the checksum."""
HEADER_DIFFERENCE = 4
"""Octets that a packet has more as SIP."""
_LEAST_MTU = 68
_LARGEST = 0xFFFF

Ends = tuple[Address, Address]
"""Source and destination of a quoted packet, as the other side knows them."""


def to_sip(
    message: IcmpView, dialect: Dialect, ends: Ends, *, quoted_ends: Callable[[Ipv4View], Ends | None]
) -> bytes | None:
    """Write a whole ICMPv4 message, whose checksum is right if it is an error, as one of SIP.

    Args:
        message: The message.
        dialect: How SIP is written.
        ends: Source and final destination of the packet as SIP.
        quoted_ends: Those of a quoted packet; None if they have no SIP addresses.

    Returns:
        None if there is no such message of SIP.
    """
    kind = kind_to_sip(message.type, message.code)
    if kind is None:
        return None
    octets = bytes(message.rest) + bytes(message.body)
    if kind[0] in ECHOES:
        after = dialect.icmp_sum(*ends, 4 + len(octets))
        moved = move_pseudo_header(message.checksum, before=0, after=after)
        return bytes((message.type, message.code)) + moved.to_bytes(2, "big") + octets
    try:
        quoted = Ipv4View.parse(message.body, quoted=True)
    except WireError:
        return None
    inside = quoted_ends(quoted)
    rest = _rest_to_sip(message, dialect, quoted, inside) if inside is not None else None
    if inside is None or rest is None:
        return None
    quote = _quote_to_sip(quoted, dialect, inside)[:SIP_QUOTE_OCTETS]
    told = SipIcmpMessage(type=kind[0], code=kind[1], rest=rest, body=quote)
    return told.emit(dialect.icmp_sum(*ends, told.length))


def _rest_to_sip(message: IcmpView, dialect: Dialect, quoted: Ipv4View, inside: Ends) -> bytes | None:
    if message.next_hop_mtu is not None:
        mtu = message.next_hop_mtu or plateau_below(quoted.total_length)
        more = OPTION_OCTETS if _has_part(quoted, inside[0]) else 0
        # Deviation: P94 5 tells a source of less than 576 octets, so that it cuts; in RFC 8507 no source does.
        return min(max(mtu + HEADER_DIFFERENCE + more, MINIMUM_MTU), _LARGEST).to_bytes(4, "big")
    if message.type == IcmpType.PARAMETER_PROBLEM:
        pointer = pointer_to_sip(message.rest[0], dialect.order)
        return None if pointer is None else pointer.to_bytes(4, "big")
    return bytes(4)


def _has_part(quoted: Ipv4View, source: Address) -> bool:
    """Whether a quoted packet had a fragmentation header as SIP: the other gateway gave it one if DF was 0."""
    return quoted.is_fragment or (not quoted.df and source.c_bit)


def _quote_to_sip(quoted: Ipv4View, dialect: Dialect, inside: Ends) -> bytes:
    payload, length = bytes(quoted.payload), quoted.total_length - len(quoted.header)
    if quoted.protocol == Protocol.ICMP and not quoted.is_fragment:
        after = dialect.icmp_sum(*inside, length)
        payload = _moved(payload, before=0, after=after)
    return translate.to_sip(
        quoted,
        dialect,
        src=inside[0],
        dst=inside[1],
        hop_limit=quoted.ttl,
        marked=_has_part(quoted, inside[0]),
        payload=payload,
        length=length,
    )


def to_ipv4(
    message: SipIcmpMessage, dialect: Dialect, ends: Ends, *, quoted_ends: Callable[[SipView, Chain], Ends | None]
) -> bytes | None:
    """Write a whole ICMP message of SIP, whose checksum is right if it is an error, as one of IPv4.

    Args:
        message: The message.
        dialect: How SIP is written.
        ends: Source and final destination of the packet as SIP.
        quoted_ends: Those of a quoted packet as IPv4; None if they have no IPv4 addresses.

    Returns:
        None if there is no such message of IPv4.
    """
    kind = kind_to_ipv4(message.type, message.code)
    if kind is None:
        return None
    if kind[0] in ECHOES:
        before = dialect.icmp_sum(*ends, message.length)
        moved = move_pseudo_header(message.checksum or 0, before=before, after=0)
        return bytes((message.type, message.code)) + moved.to_bytes(2, "big") + message.rest + message.body
    read = _read_quote(message, dialect)
    if read is None:
        return None
    if isinstance(read, bytes):
        return IcmpMessage(type=kind[0], code=kind[1], rest=message.rest, body=read[:QUOTE_OCTETS]).emit()
    inside = quoted_ends(*read)
    rest = _rest_to_ipv4(message, dialect, read[1])
    if inside is None or rest is None:
        return None
    quote = _quote_to_ipv4(*read, dialect, inside)
    return IcmpMessage(type=kind[0], code=kind[1], rest=rest, body=quote[:QUOTE_OCTETS]).emit()


def _read_quote(message: SipIcmpMessage, dialect: Dialect) -> tuple[SipView, Chain] | bytes | None:
    """The quoted packet; octets if it is of IPv4 already, which T93 4.6 lets senders do."""
    try:
        if message.quote[:1] and message.quote[0] >> 4 == 4:
            return bytes(Ipv4View.parse(message.quote, quoted=True).octets)
        quoted = message.quoted(dialect.order)
        chain = dialect.walk(quoted)
    except WireError:
        return None
    return (quoted, chain) if is_plain(chain) else None


def _rest_to_ipv4(message: SipIcmpMessage, dialect: Dialect, chain: Chain) -> bytes | None:
    if message.next_hop_mtu is not None:
        less = HEADER_DIFFERENCE + (OPTION_OCTETS if chain.fragmentation is not None else 0)
        return max(message.next_hop_mtu - less, _LEAST_MTU).to_bytes(4, "big")
    if message.type == IcmpType.PARAMETER_PROBLEM:
        pointer = pointer_to_ipv4(message.pointer or 0, dialect.order)
        return None if pointer is None else bytes((pointer, 0, 0, 0))
    return bytes(4)


def _quote_to_ipv4(quoted: SipView, chain: Chain, dialect: Dialect, inside: Ends) -> bytes:
    payload, length = bytes(chain.payload), quoted.total_length - chain.at
    if chain.payload_type == Protocol.ICMP and not chain.is_fragment:
        before = dialect.icmp_sum(quoted.src, chain.final_destination, length)
        payload = _moved(payload, before=before, after=0)
    return translate.to_ipv4(
        quoted,
        chain,
        dialect,
        src=inside[0],
        dst=inside[1],
        hop_limit=quoted.hop_limit,
        identification=0,
        payload=payload,
        # IPv4 has no room for the last few octets that SIP has.
        length=min(length, _LARGEST - MINIMUM_OCTETS),
    )


def _moved(payload: bytes, *, before: int, after: int) -> bytes:
    """A quoted echo with the checksum that it has on the other side, if as much of it is there."""
    if len(payload) < 4 or payload[0] not in ECHOES:
        return payload
    checksum = move_pseudo_header(payload[2] << 8 | payload[3], before=before, after=after)
    return payload[:2] + checksum.to_bytes(2, "big") + payload[4:]


def is_sound(message: Octets, start: int = 0) -> bool:
    """Whether the checksum of an ICMP message is right; ``start`` is the sum of its pseudo-header, if it has one."""
    return ones_sum(message, start) == _LARGEST
