# SPDX-License-Identifier: BSD-3-Clause
"""One message while a gateway judges it, and the error that it may end in (RFC 3103 §9.1, §10.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from isthmus.border.effect import Peer
from isthmus.wire.rsip.message import ErrorResponse
from isthmus.wire.rsip.parameter import BindId, ClientId, Error, MessageCounter

UNASKED = MessageCounter(0)
"""The counter of what a gateway sends by itself."""


@dataclass(slots=True, kw_only=True)
class Request:
    """Where a message came from, and what of it is known so far."""

    peer: Peer
    now: float
    counter: int | None = None
    client_id: int | None = None
    bind_id: int | None = None
    udp: bool = field(init=False)
    "Whether it came as a datagram."

    def __post_init__(self) -> None:
        """Look at the peer once."""
        self.udp = not self.peer.connection

    @property
    def echo(self) -> MessageCounter | None:
        """The counter for the answer: the request's (RFC 3103 §10.1)."""
        if self.counter is not None:
            return MessageCounter(self.counter)
        # Silent: 105 has no counter to echo; on UDP every message needs one, so 0 (spec 7).
        return UNASKED if self.udp else None

    def error(self, code: int) -> ErrorResponse:
        """The ERROR_RESPONSE. IDs must be in it where it is about them (RFC 3103 §9.1.1); they always are."""
        return ErrorResponse(
            error=Error(code),
            message_counter=self.echo,
            client_id=None if self.client_id is None else ClientId(self.client_id),
            bind_id=None if self.bind_id is None else BindId(self.bind_id),
        )


class Silence(Exception):
    """The message gets no answer.

    Args:
        why: What it is counted as (``Gateway.refusals``).
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Repeat(Exception):
    """The message was answered before.

    Args:
        answer: What was answered.
    """

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer
