# SPDX-License-Identifier: BSD-3-Clause
"""Messages put together octet by octet, also such as nobody may send."""

from __future__ import annotations

import struct

from isthmus.wire.rsip.message import parse
from rsip.conversation import Raw, make_gateway, make_policy
from rsip.requests import code_of


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def message(kind: int, *parameters: bytes, version: int = 1, length: int | None = None) -> bytes:
    body = b"".join(parameters)
    return struct.pack("!BBH", version, kind, 4 + len(body) if length is None else length) + body


COUNTER = tlv(11, bytes((0, 0, 0, 2)))
ANY_ADDRESS, ANY_PORT = tlv(1, b"\x01"), tlv(2, b"\x01")


def client(client_id: int) -> bytes:
    return tlv(4, client_id.to_bytes(4, "big"))


def code(answers: list[bytes]) -> int:
    assert len(answers) == 1
    return code_of(parse(answers[0]))
