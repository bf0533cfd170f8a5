# SPDX-License-Identifier: BSD-3-Clause
"""As much of IKE as a border looks at: cookies, exchange type, and the identity of an aggressive initiator.

RFC 2408 §3.1 for the header, which RFC 7296 §3.1 kept in shape, §3.2 for the chain of payloads;
RFC 2407 §4.6.2 for the identification payload.

::

    +---------------------------------------------------------------+
    |                  Initiator Cookie (64 bits)                   |
    +---------------------------------------------------------------+
    |                  Responder Cookie (64 bits)                   |
    +---------------+-------+-------+---------------+---------------+
    | Next Payload  | MjVer | MnVer | Exchange Type |     Flags     |
    +---------------+-------+-------+---------------+---------------+
    |                          Message ID                           |
    +---------------------------------------------------------------+
    |                            Length                             |
    +---------------+---------------+-------------------------------+
    | Next Payload  |   RESERVED    |        Payload Length         |   of each payload
    +---------------+---------------+-------------------------------+
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from isthmus.errors import Malformed, Truncated

PORT = 500
COOKIE_OCTETS = 8
HEADER_OCTETS = 28
AGGRESSIVE = 4
"""Exchange type of IKE version 1 (RFC 2408 §3.1)."""
IDENTIFICATION = 5
"""Payload type (RFC 2408 §3.1)."""
_ENCRYPTED = 0x01
_GENERIC_OCTETS = 4
_IDENTITY_OCTETS = 4
"Type, protocol and port, before the identification data (RFC 2407 §4.6.2)."
_MOST_PAYLOADS = 32

Octets = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeHeader:
    """A header, every bit of it (RFC 2408 §3.1)."""

    initiator_cookie: bytes
    responder_cookie: bytes = bytes(COOKIE_OCTETS)
    next_payload: int
    version: int = 0x10
    "Major version in the upper four bits, minor in the lower."
    exchange_type: int
    flags: int = 0
    message_id: int = 0
    length: int
    "Of the whole message, in octets."

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if len(self.initiator_cookie) != COOKIE_OCTETS or len(self.responder_cookie) != COOKIE_OCTETS:
            raise ValueError("a cookie has eight octets")
        limits = {"next_payload": 8, "version": 8, "exchange_type": 8, "flags": 8, "message_id": 32, "length": 32}
        for name, bits in limits.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise ValueError(f"{name} {getattr(self, name)} does not fit in {bits} bits")

    @property
    def major_version(self) -> int:
        """1 or 2."""
        return self.version >> 4

    @property
    def is_encrypted(self) -> bool:
        """Whether the payloads of a version 1 message are (RFC 2408 §3.1, flag E)."""
        return bool(self.flags & _ENCRYPTED)

    @classmethod
    def parse(cls, octets: Octets) -> Self:
        """Read the header of a message.

        Args:
            octets: The payload of the UDP datagram.

        Raises:
            Truncated: fewer than 28 octets, or fewer than the length says.
            Malformed: a length that does not even cover the header.
        """
        if len(octets) < HEADER_OCTETS:
            raise Truncated("IKE header", at=0, need=HEADER_OCTETS, have=len(octets))
        initiator, responder, following, version, exchange, flags, message, length = struct.unpack_from(
            "!8s8sBBBBLL", octets
        )
        if length < HEADER_OCTETS:
            raise Malformed("Length", at=24, problem=f"{length}, the header alone has {HEADER_OCTETS}")
        if length > len(octets):
            raise Truncated("IKE message", at=0, need=length, have=len(octets))
        return cls(
            initiator_cookie=initiator,
            responder_cookie=responder,
            next_payload=following,
            version=version,
            exchange_type=exchange,
            flags=flags,
            message_id=message,
            length=length,
        )

    def emit(self) -> bytes:
        """Write the header."""
        return struct.pack(
            "!8s8sBBBBLL",
            self.initiator_cookie,
            self.responder_cookie,
            self.next_payload,
            self.version,
            self.exchange_type,
            self.flags,
            self.message_id,
            self.length,
        )


def initiator_cookie(octets: Octets) -> bytes | None:
    """The first eight octets of a message: the initiator cookie, or the initiator's SPI of IKEv2 (RFC 7296 §3.1).

    Returns:
        None if they are not all there, or zero, which no initiator may choose (RFC 2408 §2.5.3).
    """
    cookie = bytes(octets[:COOKIE_OCTETS])
    return cookie if len(cookie) == COOKIE_OCTETS and any(cookie) else None


def payloads(octets: Octets, header: IkeHeader) -> Iterator[tuple[int, memoryview]]:
    """Give type and body of each payload of a message that is not encrypted (RFC 2408 §3.2).

    Args:
        octets: The whole message.
        header: Its header.

    Raises:
        Truncated: a payload goes beyond the message.
        Malformed: a payload shorter than its own header, or more payloads than any message has.
    """
    message, at, kind = memoryview(octets)[: header.length], HEADER_OCTETS, header.next_payload
    for _ in range(_MOST_PAYLOADS):
        if kind == 0:
            return
        if len(message) < at + _GENERIC_OCTETS:
            raise Truncated("generic payload header", at=at, need=_GENERIC_OCTETS, have=len(message) - at)
        following, length = message[at], message[at + 2] << 8 | message[at + 3]
        if length < _GENERIC_OCTETS:
            raise Malformed("Payload Length", at=at + 2, problem=f"{length}, must be at least {_GENERIC_OCTETS}")
        if len(message) < at + length:
            raise Truncated("payload", at=at, need=length, have=len(message) - at)
        yield kind, message[at + _GENERIC_OCTETS : at + length]
        kind, at = following, at + length
    raise Malformed("Next Payload", at=at, problem=f"more than {_MOST_PAYLOADS} payloads")


def opening_identity(octets: Octets) -> tuple[int, bytes] | None:
    """The identity with which an initiator opens an aggressive exchange (RFC 2409 §5; RFC 2407 §4.6.2).

    Args:
        octets: The payload of the UDP datagram.

    Returns:
        ID type and identification data; None if the message opens no aggressive exchange of version 1, or
        has no identity.

    Raises:
        WireError: header or payloads do not parse.
    """
    header = IkeHeader.parse(octets)
    opens = header.major_version == 1 and header.exchange_type == AGGRESSIVE and not any(header.responder_cookie)
    if not opens or header.is_encrypted:
        return None
    for kind, body in payloads(octets, header):
        if kind == IDENTIFICATION:
            if len(body) < _IDENTITY_OCTETS:
                raise Truncated("identification payload", at=0, need=_IDENTITY_OCTETS, have=len(body))
            return body[0], bytes(body[_IDENTITY_OCTETS:])
    return None
