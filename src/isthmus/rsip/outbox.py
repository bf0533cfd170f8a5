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
from isthmus.rsip.wish import BindResponse, Wish
from isthmus.wire.rsip.codes import ErrorCode, RemotePolicy
from isthmus.wire.rsip.message import (
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    AssignResponseRsipsec,
    DeregisterRequest,
    DeregisterResponse,
    ErrorResponse,
    ExtendRequest,
    ExtendResponse,
    FreeRequest,
    FreeResponse,
    ListenResponse,
    ListenResponseRsipIke,
    Message,
    QueryRequest,
    QueryResponse,
    QueryTuple,
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
    query: tuple[QueryTuple, ...] = ()
    "What SEND_QUERY asks; nothing: everything."
    client_id: int | None = None
    "The Client ID to send; None: the present one."
    tries: int = 0
    "How often the gateway and we disagreed about who is registered."

    def message(self, client_id: int, counter: int, *, remote_policy: int = RemotePolicy.NONE) -> Message:
        """The request that it makes, under the host's remote flow policy."""
        ours, bind_id, count = ClientId(client_id), BindId(self.bind_id or 0), MessageCounter(counter)
        if self.wish is not None:
            return self.wish.message(client_id, counter, remote_policy=remote_policy)
        match self.kind:
            case HostEvent.SEND_REGISTER:
                return RegisterRequest(message_counter=count)
            case HostEvent.SEND_EXTEND:
                lease = None if self.lease_seconds is None else LeaseTime(self.lease_seconds)
                return ExtendRequest(client_id=ours, bind_id=bind_id, lease_time=lease, message_counter=count)
            case HostEvent.SEND_FREE:
                return FreeRequest(client_id=ours, bind_id=bind_id, message_counter=count)
            case HostEvent.SEND_QUERY:
                return QueryRequest(client_id=ours, tuples=self.query, message_counter=count)
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
            return self._is_refused_by(message)
        # An ASSIGN answered as another method is its answer nevertheless: what came is then given back.
        if not isinstance(message, _ANSWERS[self.task.kind]):
            return False
        if isinstance(message, RegisterResponse):
            return True
        if message.client_id.value != self.client_id:
            return False
        if isinstance(message, ExtendResponse | FreeResponse):
            return message.bind_id.value == self.task.bind_id
        return True

    def _is_refused_by(self, error: ErrorResponse) -> bool:
        """Whether an error with our counter is about us: what it names must be ours, or the dispute is about that."""
        if error.error.value in _ABOUT_IDS:
            return True
        if error.client_id is not None and self.client_id is not None and error.client_id.value != self.client_id:
            return False
        about = self.task.bind_id
        return about is None or error.bind_id is None or error.bind_id.value == about


_ABOUT_IDS = (ErrorCode.REGISTER_FIRST, ErrorCode.ALREADY_REGISTERED, ErrorCode.BAD_CLIENT_ID, ErrorCode.BAD_BIND_ID)
_Answer = RegisterResponse | DeregisterResponse | BindResponse | ExtendResponse | FreeResponse | QueryResponse
_ANSWERS: dict[HostEvent, tuple[type[_Answer], ...]] = {
    HostEvent.SEND_REGISTER: (RegisterResponse,),
    HostEvent.SEND_ASSIGN: (
        AssignResponseRsaIp,
        AssignResponseRsapIp,
        AssignResponseRsipsec,
        ListenResponse,
        ListenResponseRsipIke,
    ),
    # A gateway may refuse to extend by freeing (RFC 3103 §9.10.3).
    HostEvent.SEND_EXTEND: (ExtendResponse, FreeResponse),
    HostEvent.SEND_FREE: (FreeResponse,),
    HostEvent.SEND_QUERY: (QueryResponse,),
    HostEvent.SEND_DEREGISTER: (DeregisterResponse,),
    HostEvent.SEND_RESYNC: (DeregisterResponse,),
}


class Outbox:
    """The queue of requests, the one under way, and the octets to send now."""

    def __init__(
        self, *, udp: bool, retransmission: Retransmission, response_seconds: float, last_counter: int = 0
    ) -> None:
        """Start empty; a fresh session counts from 1 (RFC 3103 §10.1)."""
        self._udp = udp
        self._retransmission = retransmission
        self._response_seconds = response_seconds
        self._counter = last_counter
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
