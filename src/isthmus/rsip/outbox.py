# SPDX-License-Identifier: BSD-3-Clause
"""A host's requests on their way: one at a time, repeated until answered (RFC 3103 §5, §10.1).

On TCP nothing is repeated; a request fails when its answer does not come in time. Message
Counters are sent there too, so that an answer cannot be taken for something unasked (spec 11).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from isthmus.rsip.reliability import Retransmission, next_counter
from isthmus.rsip.states import HostEvent
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.message import (
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    DeregisterRequest,
    DeregisterResponse,
    ErrorResponse,
    ExtendRequest,
    ExtendResponse,
    FreeRequest,
    FreeResponse,
    Message,
    RegisterRequest,
    RegisterResponse,
)
from isthmus.wire.rsip.parameter import BindId, ClientId, LeaseTime, MessageCounter


@dataclass(slots=True, kw_only=True)
class Task:
    """One request that is to be made, or is being made."""

    kind: HostEvent
    "SEND_REGISTER, SEND_ASSIGN, …"
    request: int = 0
    "The number that the asking method returned; 0: the host's own idea."
    wish: Wish | None = None
    again: Wish | None = None
    "What to ask for if the wish, which repeats an earlier grant, is refused."
    bind_id: int | None = None
    lease_seconds: int | None = None
    client_id: int | None = None
    "The Client ID to send; None: the present one."
    tries: int = 0
    "How often the gateway and we disagreed about who is registered."

    def message(self, client_id: int, counter: int) -> Message:
        """The request that it makes."""
        ours, bind_id, count = ClientId(client_id), BindId(self.bind_id or 0), MessageCounter(counter)
        if self.wish is not None:
            return self.wish.message(client_id, counter)
        match self.kind:
            case HostEvent.SEND_REGISTER:
                return RegisterRequest(message_counter=count)
            case HostEvent.SEND_EXTEND:
                lease = None if self.lease_seconds is None else LeaseTime(self.lease_seconds)
                return ExtendRequest(client_id=ours, bind_id=bind_id, lease_time=lease, message_counter=count)
            case HostEvent.SEND_FREE:
                return FreeRequest(client_id=ours, bind_id=bind_id, message_counter=count)
            case _:
                return DeregisterRequest(client_id=ours, message_counter=count)


@dataclass(slots=True, kw_only=True)
class Pending:
    """The request under way."""

    task: Task
    data: bytes
    counter: int
    client_id: int | None
    "The Client ID that was sent; None in REGISTER_REQUEST."
    sent_at: float
    "When it was sent first: leases count from here, to be on the safe side (spec 8)."
    attempt: int = 1
    deadline: float = 0.0

    def is_answered_by(self, message: Message, *, udp: bool) -> bool:
        """Whether a message is the answer: its counter, its type, and whom and what it is about."""
        counter = message.message_counter
        if (counter is None and udp) or (counter is not None and counter.value != self.counter):
            return False
        if isinstance(message, ErrorResponse):
            return True
        if not isinstance(message, _ANSWERS[self.task.kind]):
            return False
        if isinstance(message, RegisterResponse):
            return True
        if message.client_id.value != self.client_id:
            return False
        if isinstance(message, ExtendResponse | FreeResponse):
            return message.bind_id.value == self.task.bind_id
        return True


_Answer = (
    RegisterResponse | DeregisterResponse | AssignResponseRsaIp | AssignResponseRsapIp | ExtendResponse | FreeResponse
)
_ANSWERS: dict[HostEvent, tuple[type[_Answer], ...]] = {
    HostEvent.SEND_REGISTER: (RegisterResponse,),
    HostEvent.SEND_ASSIGN: (AssignResponseRsaIp, AssignResponseRsapIp),
    # A gateway may refuse to extend by freeing (RFC 3103 §9.10.3).
    HostEvent.SEND_EXTEND: (ExtendResponse, FreeResponse),
    HostEvent.SEND_FREE: (FreeResponse,),
    HostEvent.SEND_DEREGISTER: (DeregisterResponse,),
    HostEvent.SEND_RESYNC: (DeregisterResponse,),
}


class Outbox:
    """The queue of requests, the one under way, and the octets to send now."""

    def __init__(self, *, udp: bool, retransmission: Retransmission, response_seconds: float) -> None:
        """Start empty; a fresh session counts from 1 (RFC 3103 §10.1)."""
        self._udp = udp
        self._retransmission = retransmission
        self._response_seconds = response_seconds
        self._counter = 0
        self.queue: deque[Task] = deque()
        self.pending: Pending | None = None
        self.octets: list[bytes] = []

    def next_counter(self) -> int:
        """The counter of the next new request."""
        self._counter = next_counter(self._counter)
        return self._counter

    def start(self, task: Task, data: bytes, *, counter: int, client_id: int | None, now: float) -> None:
        """Send a request for the first time."""
        wait = self._retransmission.wait(1) if self._udp else self._response_seconds
        self.pending = Pending(
            task=task, data=data, counter=counter, client_id=client_id, sent_at=now, deadline=now + wait
        )
        self.octets.append(data)

    def repeat(self, *, now: float) -> bool:
        """Send the request under way once more, the same octets; False when that was done often enough."""
        pending = self.pending
        assert pending is not None
        if not self._udp or pending.attempt >= self._retransmission.transmissions:
            return False
        pending.attempt += 1
        pending.deadline = now + self._retransmission.wait(pending.attempt)
        self.octets.append(pending.data)
        return True

    def is_renewing(self, bind_id: int) -> bool:
        """Whether an EXTEND of that binding is under way or waiting."""
        tasks = [*self.queue, *([self.pending.task] if self.pending else [])]
        return any(each.kind is HostEvent.SEND_EXTEND and each.bind_id == bind_id for each in tasks)
