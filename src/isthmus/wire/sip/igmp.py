# SPDX-License-Identifier: BSD-3-Clause
"""IGMP version 1 over SIP: who is in which group of a link (RFC 8507 §8.2; RFC 1112 App. I).

::

    +-------+-------+---------------+-------------------------------+
    |Version| Type  |    Reserved   |           Checksum            |
    +-------+-------+---------------+-------------------------------+
    |                           Reserved                            |
    +---------------------------------------------------------------+
    |  Report only: Multicast Address (64)                          |
    +---------------------------------------------------------------+

The checksum covers a pseudo-header. Neither message leaves its link or is translated.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from isthmus.address import Address, Family
from isthmus.checksum import checksum
from isthmus.errors import Malformed, Truncated

if TYPE_CHECKING:
    Octets = bytes | bytearray | memoryview

PAYLOAD_TYPE = 2
"""That of IGMP (RFC 8507 §8.2)."""
_VERSION = 1
_HEAD_OCTETS = 8
_REPORT_OCTETS = 16


class SipIgmpType(enum.IntEnum):
    """What a message is (RFC 1112 App. I)."""

    QUERY = 1
    REPORT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SipIgmpMessage:
    """A membership query, or a report about one group; every bit of it (RFC 8507 §8.2)."""

    group: Address | None = None
    "Of a report; None for a query."
    reserved: int = 0
    "8 bits."
    reserved1: int = 0
    "32 bits."
    rest: bytes = b""
    "Octets behind the message, which are not looked at."
    checksum: int | None = None
    "As it stands; None for the right one, which ``emit`` computes."

    def __post_init__(self) -> None:
        """Refuse groups that are none and what does not fit."""
        if self.group is not None and not (self.group.family is Family.SIP and self.group.is_multicast):
            raise ValueError(f"{self.group} is no group of SIP")
        for name, bits in (("reserved", 8), ("reserved1", 32)):
            if not 0 <= getattr(self, name) < 1 << bits:
                raise ValueError(f"{name} {getattr(self, name)} does not fit in {bits} bits")

    @property
    def type(self) -> SipIgmpType:
        """Query or report."""
        return SipIgmpType.QUERY if self.group is None else SipIgmpType.REPORT

    @property
    def length(self) -> int:
        """Length in octets, which the pseudo-header covers."""
        return (_HEAD_OCTETS if self.group is None else _REPORT_OCTETS) + len(self.rest)

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Read a message; the checksum is not verified.

        Raises:
            Truncated: it is cut short.
            Malformed: another version or type, or a report about what is no group.
        """
        if len(octets) < _HEAD_OCTETS:
            raise Truncated("IGMP message", at=0, need=_HEAD_OCTETS, have=len(octets))
        if octets[0] >> 4 != _VERSION:
            raise Malformed("Version", at=0, problem=f"{octets[0] >> 4}, must be {_VERSION}")
        kind, group, length = octets[0] & 0xF, None, _HEAD_OCTETS
        if kind == SipIgmpType.REPORT:
            if len(octets) < _REPORT_OCTETS:
                raise Truncated("Multicast Address", at=_HEAD_OCTETS, need=8, have=len(octets) - _HEAD_OCTETS)
            group, length = Address.from_octets(octets[_HEAD_OCTETS:_REPORT_OCTETS]), _REPORT_OCTETS
            if not group.is_multicast:
                raise Malformed("Multicast Address", at=_HEAD_OCTETS, problem=f"{group} is no group")
        elif kind != SipIgmpType.QUERY:
            raise Malformed("Type", at=0, problem=f"{kind}, must be 1 or 2")
        return cls(
            group=group,
            reserved=octets[1],
            checksum=octets[2] << 8 | octets[3],
            reserved1=int.from_bytes(octets[4:8], "big"),
            rest=bytes(octets[length:]),
        )

    def emit(self, pseudo: int) -> bytes:
        """Write the message.

        Args:
            pseudo: Sum of the pseudo-header (``isthmus.wire.sip.pseudo.pseudo_sum``).
        """
        return self._emit(checksum(self._emit(0), pseudo) if self.checksum is None else self.checksum)

    def _emit(self, found: int) -> bytes:
        head = bytes((_VERSION << 4 | self.type, self.reserved)) + found.to_bytes(2, "big")
        return head + self.reserved1.to_bytes(4, "big") + (self.group.octets if self.group else b"") + self.rest
