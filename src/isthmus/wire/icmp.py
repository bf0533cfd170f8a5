# SPDX-License-Identifier: BSD-3-Clause
"""ICMP for IPv4: messages, the packet quoted in an error, and the errors a border sends.

RFC 792 for the format, RFC 1191 §4 for the next-hop MTU, RFC 1812 §4.3.2.3 for how much
of a packet is quoted.

::

    +---------------+---------------+-------------------------------+
    |     Type      |     Code      |           Checksum            |
    +---------------+---------------+-------------------------------+
    |  rest of header: identifier and sequence, or unused and MTU   |
    +---------------------------------------------------------------+
    |  body: data, or the quoted packet
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from isthmus.checksum import checksum
from isthmus.errors import Truncated
from isthmus.wire.ipv4 import Ipv4View

if TYPE_CHECKING:
    Octets = bytes | bytearray | memoryview

HEADER_OCTETS = 8
QUOTE_OCTETS = 576 - 20 - HEADER_OCTETS
"Most that is quoted: the error with its IP header has 576 octets at most (RFC 1812 §4.3.2.3)."


class IcmpType(enum.IntEnum):
    """Types of messages (RFC 792, RFC 950, RFC 1256)."""

    ECHO_REPLY = 0
    DESTINATION_UNREACHABLE = 3
    SOURCE_QUENCH = 4
    REDIRECT = 5
    ECHO = 8
    ROUTER_ADVERTISEMENT = 9
    ROUTER_SOLICITATION = 10
    TIME_EXCEEDED = 11
    PARAMETER_PROBLEM = 12
    TIMESTAMP = 13
    TIMESTAMP_REPLY = 14
    INFORMATION_REQUEST = 15
    INFORMATION_REPLY = 16
    ADDRESS_MASK_REQUEST = 17
    ADDRESS_MASK_REPLY = 18


class Unreachable(enum.IntEnum):
    """Codes of "destination unreachable" (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1)."""

    NETWORK = 0
    HOST = 1
    PROTOCOL = 2
    PORT = 3
    FRAGMENTATION_NEEDED = 4
    SOURCE_ROUTE_FAILED = 5
    NETWORK_UNKNOWN = 6
    HOST_UNKNOWN = 7
    NETWORK_PROHIBITED = 9
    HOST_PROHIBITED = 10
    ADMINISTRATIVELY_PROHIBITED = 13


class TimeExceeded(enum.IntEnum):
    """Codes of "time exceeded" (RFC 792)."""

    IN_TRANSIT = 0
    REASSEMBLY = 1


_ERRORS = frozenset(
    {
        IcmpType.DESTINATION_UNREACHABLE,
        IcmpType.SOURCE_QUENCH,
        IcmpType.REDIRECT,
        IcmpType.TIME_EXCEEDED,
        IcmpType.PARAMETER_PROBLEM,
    }
)
_REQUESTS = frozenset(
    {
        IcmpType.ECHO,
        IcmpType.ROUTER_SOLICITATION,
        IcmpType.TIMESTAMP,
        IcmpType.INFORMATION_REQUEST,
        IcmpType.ADDRESS_MASK_REQUEST,
    }
)


class IcmpView:
    """A message seen in place; get one with ``parse``."""

    __slots__ = ("_octets",)

    def __init__(self, octets: memoryview) -> None:
        self._octets = octets

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Check that the header is there; the payload of the IP packet is the whole message.

        Raises:
            Truncated: fewer than eight octets.
        """
        if len(octets) < HEADER_OCTETS:
            raise Truncated("ICMP header", at=0, need=HEADER_OCTETS, have=len(octets))
        return cls(memoryview(octets))

    @property
    def type(self) -> int:
        """Type, see ``IcmpType``."""
        return self._octets[0]

    @property
    def code(self) -> int:
        """Code, whose meaning depends on the type."""
        return self._octets[1]

    @property
    def checksum(self) -> int:
        """The checksum as it stands."""
        return self._octets[2] << 8 | self._octets[3]

    @property
    def checksum_ok(self) -> bool:
        """Whether the checksum fits the message."""
        return checksum(self._octets) == 0

    @property
    def rest(self) -> memoryview:
        """Rest of the header, four octets."""
        return self._octets[4:HEADER_OCTETS]

    @property
    def body(self) -> memoryview:
        """What follows the header."""
        return self._octets[HEADER_OCTETS:]

    @property
    def identifier(self) -> int:
        """Identifier of a request or reply."""
        return self._octets[4] << 8 | self._octets[5]

    @property
    def sequence(self) -> int:
        """Sequence number of a request or reply."""
        return self._octets[6] << 8 | self._octets[7]

    @property
    def is_error(self) -> bool:
        """Whether it reports about a packet, which it quotes (RFC 1122 §3.2.2)."""
        return self.type in _ERRORS

    @property
    def is_request(self) -> bool:
        """Whether it asks for a reply (RFC 1122 §3.2.2)."""
        return self.type in _REQUESTS

    @property
    def next_hop_mtu(self) -> int | None:
        """MTU in "fragmentation needed" (RFC 1191 §4); 0 from routers that do not know; else None."""
        if self.type != IcmpType.DESTINATION_UNREACHABLE or self.code != Unreachable.FRAGMENTATION_NEEDED:
            return None
        return self.sequence

    def quoted(self) -> Ipv4View:
        """See the packet that an error is about, as far as it is quoted (RFC 792).

        Raises:
            Truncated: less than its header and eight octets (or all of it, if it is shorter) are there.
            Malformed: it is no IPv4 packet.
        """
        view = Ipv4View.parse(self.body, quoted=True)
        need = min(view.total_length, view.ihl * 4 + 8)
        if len(self.body) < need:
            raise Truncated("quoted packet", at=HEADER_OCTETS, need=need, have=len(self.body))
        return view


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpMessage:
    """A message, every bit of it (RFC 792)."""

    type: IcmpType | int
    code: int = 0
    rest: bytes = bytes(4)
    body: bytes = b""
    checksum: int | None = None
    "None for the right one, which ``emit`` computes; a number where a wrong one was found."

    def __post_init__(self) -> None:
        """Refuse what does not fit; forget a checksum that is right."""
        if not (0 <= self.type <= 0xFF and 0 <= self.code <= 0xFF):
            raise ValueError(f"type {self.type}, code {self.code} do not fit in 8 bits each")
        if len(self.rest) != HEADER_OCTETS - 4:
            raise ValueError(f"rest of header has {len(self.rest)} octets, must be 4")
        if self.checksum is not None and not 0 <= self.checksum <= 0xFFFF:
            raise ValueError(f"checksum {self.checksum} does not fit in 16 bits")
        if self.checksum == checksum(self._emit(0)):
            object.__setattr__(self, "checksum", None)

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Read a message.

        Raises:
            Truncated: fewer than eight octets.
        """
        view = IcmpView.parse(octets)
        number = view.type
        return cls(
            type=IcmpType(number) if number in _TYPES else number,
            code=view.code,
            rest=bytes(view.rest),
            body=bytes(view.body),
            checksum=view.checksum,
        )

    def emit(self) -> bytes:
        """Write the message."""
        return self._emit(checksum(self._emit(0)) if self.checksum is None else self.checksum)

    def _emit(self, found: int) -> bytes:
        return bytes((self.type, self.code)) + found.to_bytes(2, "big") + self.rest + self.body


_TYPES = frozenset(IcmpType)


def unreachable(quoted: Octets, code: int) -> bytes:
    """Write "destination unreachable" about a packet (RFC 792; RFC 1812 §5.2.7.1).

    Args:
        quoted: The packet, from its IPv4 header on; cut here to what may be quoted.
        code: See ``Unreachable``; for "fragmentation needed" there is a function of its own.
    """
    return _error(IcmpType.DESTINATION_UNREACHABLE, code, quoted)


def fragmentation_needed(quoted: Octets, mtu: int) -> bytes:
    """Write "fragmentation needed and DF set" about a packet (RFC 1191 §4).

    Args:
        quoted: The packet, from its IPv4 header on.
        mtu: Largest packet that would have got through, in octets.
    """
    rest = bytes(2) + min(mtu, 0xFFFF).to_bytes(2, "big")
    return _error(IcmpType.DESTINATION_UNREACHABLE, Unreachable.FRAGMENTATION_NEEDED, quoted, rest)


def time_exceeded(quoted: Octets, code: int = TimeExceeded.IN_TRANSIT) -> bytes:
    """Write "time exceeded" about a packet (RFC 792; RFC 1812 §5.2.7.3)."""
    return _error(IcmpType.TIME_EXCEEDED, code, quoted)


def _error(kind: IcmpType, code: int, quoted: Octets, rest: bytes = bytes(4)) -> bytes:
    body = bytes(quoted[:QUOTE_OCTETS])
    return IcmpMessage(type=kind, code=code, rest=rest, body=body).emit()
