# SPDX-License-Identifier: BSD-3-Clause
"""ICMP over SIP: messages, the errors that a border sends, redirects, router discovery (RFC 8507 §8.1).

The header is ICMPv4's, and so are the numbers of types and codes. Three things differ: the checksum
covers a pseudo-header, which every function here takes as a sum; errors quote the first 256 octets of the
SIP packet; addresses have 64 bits, and the pointer of "parameter problem" 16::

    +---------------+---------------+-------------------------------+
    |     Type      |     Code      |           Checksum            |
    +---------------+---------------+-------------------------------+
    |          unused               |  next-hop MTU, or pointer     |
    +-------------------------------+-------------------------------+
    |  Redirect only: Preferred Router (64)                         |
    +---------------------------------------------------------------+
    |  first 256 octets of the packet
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from isthmus.address import Address, Family
from isthmus.checksum import checksum
from isthmus.errors import Malformed, Truncated
from isthmus.wire.icmp import HEADER_OCTETS, IcmpType, TimeExceeded
from isthmus.wire.sip.header import HEADER_OCTETS as SIP_OCTETS
from isthmus.wire.sip.header import MINIMUM_MTU, HeaderOrder, SipView

if TYPE_CHECKING:
    Octets = bytes | bytearray | memoryview

PAYLOAD_TYPE = 1
"""That of ICMP (RFC 8507 §8.1)."""
QUOTE_OCTETS = 256
"""How much of a packet an error quotes (RFC 8507 §8.1)."""
_ROUTER_OCTETS = 8
_ENTRY_WORDS = 4
_HEAD_WORD = 4


class Unreachable(enum.IntEnum):
    """Codes of "destination unreachable" that SIP uses (RFC 8507 §8.1)."""

    ADDRESS = 1
    PAYLOAD_TYPE = 2
    PORT = 3
    PACKET_TOO_BIG = 4
    SOURCE_ROUTE_FAILED = 5
    ADDRESS_UNKNOWN = 7
    SOURCE_ISOLATED = 8
    ADMINISTRATIVELY_PROHIBITED = 13


REDIRECT_FOR_ADDRESS = 1
"""The only code of "redirect" (RFC 8507 §8.1)."""

ERRORS = frozenset(
    {
        IcmpType.DESTINATION_UNREACHABLE,
        IcmpType.REDIRECT,
        IcmpType.TIME_EXCEEDED,
        IcmpType.PARAMETER_PROBLEM,
    }
)
"""Types that quote a packet. No error is sent about these (RFC 1122 §3.2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SipIcmpMessage:
    """A message, every bit of it (RFC 792; RFC 8507 §8.1)."""

    type: int
    "See ``isthmus.wire.icmp.IcmpType``."
    code: int = 0
    rest: bytes = bytes(4)
    "The second word of the header."
    body: bytes = b""
    checksum: int | None = None
    "As it stands; None for the right one, which ``emit`` computes."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not (0 <= self.type <= 0xFF and 0 <= self.code <= 0xFF):
            raise ValueError(f"type {self.type}, code {self.code} do not fit in 8 bits each")
        if len(self.rest) != _HEAD_WORD:
            raise ValueError(f"rest of header has {len(self.rest)} octets, must be {_HEAD_WORD}")
        if self.checksum is not None and not 0 <= self.checksum <= 0xFFFF:
            raise ValueError(f"checksum {self.checksum} does not fit in 16 bits")

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Read a message; the payload behind the SIP headers is the whole of it.

        Raises:
            Truncated: fewer than eight octets.
        """
        if len(octets) < HEADER_OCTETS:
            raise Truncated("ICMP header", at=0, need=HEADER_OCTETS, have=len(octets))
        return cls(
            type=octets[0],
            code=octets[1],
            checksum=octets[2] << 8 | octets[3],
            rest=bytes(octets[4:HEADER_OCTETS]),
            body=bytes(octets[HEADER_OCTETS:]),
        )

    def emit(self, pseudo: int) -> bytes:
        """Write the message.

        Args:
            pseudo: Sum of the pseudo-header (``isthmus.wire.sip.pseudo.pseudo_sum``) over the addresses of the
                packet that it will be in, its length ``length``.
        """
        found = checksum(self._emit(0), pseudo) if self.checksum is None else self.checksum
        return self._emit(found)

    def _emit(self, found: int) -> bytes:
        return bytes((self.type, self.code)) + found.to_bytes(2, "big") + self.rest + self.body

    @property
    def length(self) -> int:
        """Length in octets, which the pseudo-header covers."""
        return HEADER_OCTETS + len(self.body)

    @property
    def is_error(self) -> bool:
        """Whether it reports about a packet, which it quotes."""
        return self.type in ERRORS

    @property
    def quote(self) -> bytes:
        """The octets of the packet that an error is about: SIP, or IPv4 from a system of IPv4 (spec 5.2, case 6)."""
        return self.body[_ROUTER_OCTETS:] if self.type == IcmpType.REDIRECT else self.body

    def quoted(self, order: HeaderOrder = HeaderOrder.DEERING) -> SipView:
        """See the SIP packet that an error is about, as far as it is quoted.

        Raises:
            Truncated: less than its header is there.
            Malformed: it is no SIP packet.
        """
        return SipView.parse(self.quote, order=order, quoted=True)

    @property
    def next_hop_mtu(self) -> int | None:
        """MTU in "packet too big" (RFC 8507 §8.1), else None."""
        if (self.type, self.code) != (IcmpType.DESTINATION_UNREACHABLE, Unreachable.PACKET_TOO_BIG):
            return None
        return int.from_bytes(self.rest[2:], "big")

    @property
    def pointer(self) -> int | None:
        """Offset of the octet that a parameter problem is about (RFC 8507 §8.1), else None."""
        return int.from_bytes(self.rest[2:], "big") if self.type == IcmpType.PARAMETER_PROBLEM else None

    @property
    def preferred_router(self) -> Address | None:
        """Where a redirect sends the packets (RFC 8507 §8.1), else None; None, too, if it is cut short."""
        if self.type != IcmpType.REDIRECT or len(self.body) < _ROUTER_OCTETS:
            return None
        return Address.from_octets(self.body[:_ROUTER_OCTETS])


def unreachable(quoted: Octets, code: int) -> SipIcmpMessage:
    """Say that a packet cannot be delivered (RFC 8507 §8.1).

    Args:
        quoted: The packet, from its SIP header on; cut here to what is quoted.
        code: See ``Unreachable``; for "packet too big" there is a function of its own.
    """
    return SipIcmpMessage(type=IcmpType.DESTINATION_UNREACHABLE, code=code, body=bytes(quoted[:QUOTE_OCTETS]))


def packet_too_big(quoted: Octets, mtu: int) -> SipIcmpMessage:
    """Say that a packet is too long, and what would not have been (RFC 8507 §8.1).

    Args:
        quoted: The packet, from its SIP header on.
        mtu: Largest SIP packet that would have got through, in octets; less than 576 is said as 576.
    """
    return SipIcmpMessage(
        type=IcmpType.DESTINATION_UNREACHABLE,
        code=Unreachable.PACKET_TOO_BIG,
        rest=bytes(2) + min(max(mtu, MINIMUM_MTU), 0xFFFF).to_bytes(2, "big"),
        body=bytes(quoted[:QUOTE_OCTETS]),
    )


def time_exceeded(quoted: Octets, code: int = TimeExceeded.IN_TRANSIT) -> SipIcmpMessage:
    """Say that a packet's hop limit, or the time of its reassembly, ran out (RFC 8507 §8.1)."""
    return SipIcmpMessage(type=IcmpType.TIME_EXCEEDED, code=code, body=bytes(quoted[:QUOTE_OCTETS]))


def parameter_problem(quoted: Octets, pointer: int) -> SipIcmpMessage:
    """Say which octet of a packet makes no sense (RFC 8507 §8.1).

    Args:
        quoted: The packet, from its SIP header on.
        pointer: Offset of the octet in it, 16 bits.
    """
    rest = bytes(2) + pointer.to_bytes(2, "big")
    return SipIcmpMessage(type=IcmpType.PARAMETER_PROBLEM, rest=rest, body=bytes(quoted[:QUOTE_OCTETS]))


def redirect(quoted: Octets, router: Address) -> SipIcmpMessage:
    """Say which router on the link is nearer to a packet's destination (RFC 8507 §8.1)."""
    if router.family is not Family.SIP:
        raise ValueError(f"{router} is no SIP address")
    body = router.octets + bytes(quoted[:QUOTE_OCTETS])
    return SipIcmpMessage(type=IcmpType.REDIRECT, code=REDIRECT_FOR_ADDRESS, body=body)


@dataclass(frozen=True, slots=True)
class Router:
    """A router in an advertisement (RFC 8507 §8.1; RFC 1256 §4)."""

    address: Address
    preference: int = 0
    "Higher is better; signed, 32 bits."
    reserved: int = 0
    "32 bits."


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterAdvertisement:
    """The routers of a link (RFC 8507 §8.1; RFC 1256 §3)."""

    lifetime: int
    "How long they may be believed to be there, in seconds, 16 bits."
    routers: tuple[Router, ...]

    @classmethod
    def of(cls, message: SipIcmpMessage) -> Self:
        """Read what an advertisement says; entries that are longer than ours are read in their first four words.

        Raises:
            Malformed: another type, or entries of fewer than four words.
            Truncated: fewer entries than it says.
        """
        if message.type != IcmpType.ROUTER_ADVERTISEMENT:
            raise Malformed("Type", at=0, problem=f"{message.type}, must be {IcmpType.ROUTER_ADVERTISEMENT}")
        number, words = message.rest[:2]
        if words < _ENTRY_WORDS:
            raise Malformed("Addr Entry Size", at=5, problem=f"{words}, must be at least {_ENTRY_WORDS}")
        need = number * words * 4
        if len(message.body) < need:
            raise Truncated("Router Address", at=HEADER_OCTETS, need=need, have=len(message.body))
        return cls(
            lifetime=int.from_bytes(message.rest[2:], "big"),
            routers=tuple(_router(message.body[at : at + 16]) for at in range(0, need, words * 4)),
        )

    def message(self) -> SipIcmpMessage:
        """Write it; up to 255 routers."""
        body = b"".join(
            each.address.octets + each.preference.to_bytes(4, "big", signed=True) + each.reserved.to_bytes(4, "big")
            for each in self.routers
        )
        rest = bytes((len(self.routers), _ENTRY_WORDS)) + self.lifetime.to_bytes(2, "big")
        return SipIcmpMessage(type=IcmpType.ROUTER_ADVERTISEMENT, rest=rest, body=body)


def _router(entry: bytes) -> Router:
    preference = int.from_bytes(entry[8:12], "big", signed=True)
    return Router(Address.from_octets(entry[:8]), preference, int.from_bytes(entry[12:16], "big"))


SOLICITATION = SipIcmpMessage(type=IcmpType.ROUTER_SOLICITATION)
"""Asks the routers of a link for an advertisement; as over IPv4 (RFC 8507 §8.1)."""


def may_report(packet: SipView, *, fragment_offset: int, payload_type: int, payload: Octets) -> bool:
    """Whether an error may be sent about a packet (RFC 1122 §3.2.2; spec 6.4).

    Never about an error, a group, a fragment that is not the first, or from nobody.

    Args:
        packet: The packet.
        fragment_offset: Of its fragmentation header, 0 without one.
        payload_type: What follows its option headers.
        payload: That.
    """
    is_error = payload_type == PAYLOAD_TYPE and len(payload) > 0 and payload[0] in ERRORS
    from_nobody = packet.src.number == 0 or packet.src.is_multicast
    return not (is_error or from_nobody or packet.dst.is_multicast or fragment_offset)


_IPV4_POINTERS = {
    0: 0,
    2: 4,
    3: 4,
    8: 7,
    9: 6,
    **dict.fromkeys(range(12, 16), 8),
    **dict.fromkeys(range(16, 20), 16),
}
"""Octets of the IPv4 header, and where SIP has the field in RFC 8507's order (spec 2.6)."""
_SIP_POINTERS = {
    **dict.fromkeys(range(4), 0),
    4: 2,
    5: 2,
    6: 9,
    7: 8,
    **dict.fromkeys(range(8, 16), 12),
    **dict.fromkeys(range(16, SIP_OCTETS), 16),
}
_SWAPPED = {6: 7, 7: 6}


def pointer_to_sip(pointer: int, order: HeaderOrder = HeaderOrder.DEERING) -> int | None:
    """Say where SIP has the field of the IPv4 header that an octet belongs to; None: nowhere (spec 2.6)."""
    found = _IPV4_POINTERS.get(pointer)
    return _SWAPPED.get(found, found) if found is not None and order is HeaderOrder.SEED else found


def pointer_to_ipv4(pointer: int, order: HeaderOrder = HeaderOrder.DEERING) -> int | None:
    """Say where IPv4 has the field of the SIP header that an octet belongs to; None: nowhere (spec 2.6)."""
    return _SIP_POINTERS.get(_SWAPPED.get(pointer, pointer) if order is HeaderOrder.SEED else pointer)


# Silent: RFC 8507 lists what SIP has not, and not what a gateway says instead; this is in the manner of RFC 7915 §4.2.
_NOT_IN_SIP = {0: 1, 6: 7, 9: 13, 10: 13, 11: 1, 12: 1}
"""Codes of "destination unreachable" that SIP has not, and what is said instead (spec 2.6)."""
_COUNTERPARTS = frozenset({IcmpType.ECHO_REPLY, IcmpType.ECHO, IcmpType.TIME_EXCEEDED, IcmpType.PARAMETER_PROBLEM})


def kind_to_sip(kind: int, code: int) -> tuple[int, int] | None:
    """Say what type and code of SIP have the meaning of an ICMPv4 message (RFC 8507 §8.1; spec 2.6).

    Returns:
        Type and code, or None for a message that is dropped: of the link, or with no counterpart.
    """
    if kind == IcmpType.DESTINATION_UNREACHABLE:
        known = _NOT_IN_SIP.get(code, code)
        return (kind, known) if known in set(Unreachable) else None
    return (kind, code) if kind in _COUNTERPARTS else None


def kind_to_ipv4(kind: int, code: int) -> tuple[int, int] | None:
    """Say what type and code of ICMPv4 have the meaning of a message of SIP (RFC 8507 §8.1; spec 2.6).

    Returns:
        Type and code, or None for a message that is dropped.
    """
    if kind == IcmpType.DESTINATION_UNREACHABLE:
        return (kind, code) if code in set(Unreachable) else None
    return (kind, code) if kind in _COUNTERPARTS else None
