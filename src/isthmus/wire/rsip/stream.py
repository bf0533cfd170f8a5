# SPDX-License-Identifier: BSD-3-Clause
"""Cutting a TCP byte stream into messages (RFC 3103 §9).

# Silent: the RFC says one message per packet and nothing about streams; Overall Length delimits.
"""

from __future__ import annotations

from isthmus.wire.rsip.codes import VERSION, ErrorCode
from isthmus.wire.rsip.envelope import HEADER_OCTETS, MessageError


class MessageStream:
    """One direction of one connection.

    After a header that cannot be right nothing can be found any more: the stream is
    broken. Messages in front of that header are still returned; the error is raised once,
    by the same ``feed`` if there is nothing to return, or else by the next one.
    """

    __slots__ = ("_buffer", "_error", "broken")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._error: MessageError | None = None
        self.broken = False
        "Whether a wrong header has been met; whatever follows it is dropped."

    @property
    def pending(self) -> int:
        """How many octets of an unfinished message are waiting."""
        return len(self._buffer)

    def feed(self, octets: bytes | bytearray | memoryview) -> list[bytes]:
        """Take octets as they arrive and return the messages that are complete now.

        Raises:
            MessageError: the stream is broken; BAD_MESSAGE or UNSUPPORTED_RSIP_VERSION. Raised once.
        """
        messages: list[bytes] = []
        if not self.broken:
            self._buffer += octets
            messages = self._cut()
        if self._error is not None and not messages:
            error, self._error = self._error, None
            raise error
        return messages

    def _cut(self) -> list[bytes]:
        messages: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER_OCTETS:
            length = int.from_bytes(self._buffer[start + 2 : start + 4], "big")
            self._error = _judge(self._buffer[start], self._buffer[start + 1], length)
            if self._error is not None:
                self.broken = True
                self._buffer.clear()
                return messages
            if len(self._buffer) - start < length:
                break
            messages.append(bytes(self._buffer[start : start + length]))
            start += length
        del self._buffer[:start]
        return messages


def _judge(version: int, message_type: int, length: int) -> MessageError | None:
    """Say what is wrong with a header, in the order in which ``parse_envelope`` finds it."""
    if length < HEADER_OCTETS:
        return MessageError(
            ErrorCode.BAD_MESSAGE,
            "Overall length",
            at=2,
            problem=f"{length}, must be at least {HEADER_OCTETS}",
            message_type=message_type if version == VERSION else None,
        )
    if version != VERSION:
        code = ErrorCode.UNSUPPORTED_RSIP_VERSION
        return MessageError(code, "Version", at=0, problem=f"{version}, must be {VERSION}")
    return None
