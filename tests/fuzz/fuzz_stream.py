# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing RSIP over a byte stream: the same messages however it is cut, or the same fault."""

from __future__ import annotations

from isthmus.errors import WireError
from isthmus.wire.rsip.stream import MessageStream


def _read(pieces: list[bytes]) -> tuple[list[bytes], int | None]:
    """The messages, and the code of the fault that ended them."""
    stream, messages = MessageStream(), list[bytes]()
    for piece in pieces:
        try:
            messages += stream.feed(piece)
        except WireError as error:
            return messages, error.code  # type: ignore[attr-defined]
        assert stream.pending <= 0xFFFF
    return messages, None


def check(octets: bytes) -> None:
    """Read a stream whole, octet by octet, and in two pieces."""
    whole, fault = _read([octets, b""])
    for pieces in ([octets[at : at + 1] for at in range(len(octets))], [octets[:7], octets[7:]]):
        assert _read([*pieces, b""]) == (whole, fault)
    assert b"".join(whole) == octets[: sum(map(len, whole))]
