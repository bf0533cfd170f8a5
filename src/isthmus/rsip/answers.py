# SPDX-License-Identifier: BSD-3-Clause
"""What a host makes of what it hears (RFC 3103 §9, §10; spec 11, 12.1).

Nothing is ever said about a message that is wrong (RFC 3103 §9.1, §10.2.1): it is counted in
``Answers.ignored`` by the first thing that is wrong with it. The one exception is a grant
that cannot be read, which is given back (RFC 3103 §9.7.3, §9.9.3).
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import replace

from isthmus.border.effect import Ending
from isthmus.rsip.events import Answered, Extended, Refused, Registered, Warned
from isthmus.rsip.holding import Holding
from isthmus.rsip.outbox import Pending, Task
from isthmus.rsip.request import UNASKED
from isthmus.rsip.session import Session
from isthmus.rsip.states import HostEvent
from isthmus.rsip.wish import BindResponse
from isthmus.wire.rsip.codes import ErrorCode, MessageType
from isthmus.wire.rsip.message import (
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    AssignResponseRsipsec,
    DeregisterResponse,
    ErrorResponse,
    ExtendResponse,
    FreeResponse,
    ListenResponse,
    ListenResponseRsipIke,
    Message,
    MessageError,
    QueryResponse,
    RegisterResponse,
    parse,
)

_MOST_RESYNCS = 2
"""How often one request may find the two ends in disagreement before it is given up."""
_DOUBT_SECONDS = 10.0
_LOST_SYNC = (ErrorCode.REGISTER_FIRST, ErrorCode.BAD_CLIENT_ID)
_GONE = (ErrorCode.REGISTER_FIRST, ErrorCode.ALREADY_UNREGISTERED)
_BIND_RESPONSES = (
    MessageType.ASSIGN_RESPONSE_RSA_IP,
    MessageType.ASSIGN_RESPONSE_RSAP_IP,
    MessageType.ASSIGN_RESPONSE_RSIPSEC,
    MessageType.LISTEN_RESPONSE,
    MessageType.LISTEN_RESPONSE_RSIP_IKE,
)


class Ignored(enum.StrEnum):
    """Why a message was dropped without a word."""

    STRANGER = "stranger"
    "It did not come from the gateway's address and port (spec 19)."
    MALFORMED = "malformed"
    "It cannot be read."
    COUNTER = "counter"
    "No request under way has its Message Counter: late, repeated or made up."
    CLIENT_ID = "client_id"
    "It is about another Client ID (RFC 3103 §10.2.1), or names none."
    BIND_ID = "bind_id"
    "It is about a Bind ID that is not held."
    UNEXPECTED = "unexpected"
    "A message of this type says nothing to a host now."


class Answers:
    """The hearing half of a host.

    Args:
        session: Where the host stands.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._believed_until = 0.0
        self.ignored: Counter[str] = Counter()
        "Messages dropped without a word, by ``Ignored``."

    def receive(self, data: bytes, now: float) -> None:
        """Take what came from the gateway."""
        out = self._session.out
        pending = out.pending
        try:
            message = parse(data, strict=False)
        except MessageError as error:
            known = pending is not None and error.message_counter == pending.counter
            if pending is None or not known or not self._give_back(error, pending, now):
                self._ignore(Ignored.MALFORMED)
            return
        if pending is not None and pending.is_answered_by(message, udp=self._session.udp):
            out.pending = None
            if isinstance(message, ErrorResponse):
                self._refused(pending, message, now)
            else:
                self._granted(pending, message, now)
        elif message.message_counter == UNASKED or (message.message_counter is None and not self._session.udp):
            self._receive_unasked(message, now)
        else:
            self._ignore(self._fault(message))

    def _ignore(self, why: Ignored) -> None:
        self.ignored[why] += 1

    def _fault(self, message: Message) -> Ignored:
        """What is wrong with a message that answers nothing."""
        pending, counter = self._session.out.pending, message.message_counter
        if pending is None or counter is None or counter.value != pending.counter:
            return Ignored.COUNTER
        client_id, bind_id = getattr(message, "client_id", None), getattr(message, "bind_id", None)
        if client_id is not None and client_id.value != pending.client_id:
            return Ignored.CLIENT_ID
        if bind_id is not None and pending.task.bind_id not in (None, bind_id.value):
            return Ignored.BIND_ID
        return Ignored.UNEXPECTED

    def _receive_unasked(self, message: Message, now: float) -> None:
        """The three messages that a gateway may send by itself (RFC 3103 §9.1, §9.5, §9.13)."""
        session = self._session
        if not isinstance(message, FreeResponse | DeregisterResponse | ErrorResponse):
            self._ignore(Ignored.UNEXPECTED)
            return
        if message.client_id is None and message.error.value == ErrorCode.REGISTER_FIRST:
            self._doubt(now)
            return
        if message.client_id is None or message.client_id.value != session.client_id:
            self._ignore(Ignored.CLIENT_ID)
            return
        match message:
            case FreeResponse():
                if message.bind_id.value in session.held:
                    session.drop(message.bind_id.value, Ending.REVOKED, now)
                else:
                    self._ignore(Ignored.BIND_ID)
            case DeregisterResponse():
                session.leave(Ending.REVOKED, now)
            case ErrorResponse():
                bind_id = None if message.bind_id is None else message.bind_id.value
                session.events.append(Warned(code=message.error.value, bind_id=bind_id))
                if message.error.value == ErrorCode.REGISTER_FIRST and session.out.pending is None:
                    session.lose_sync(now)

    def _doubt(self, now: float) -> None:
        """Take 301 about our packets, which names nobody, as a hint: ask about a binding, and believe the answer."""
        session = self._session
        if session.held and session.out.pending is None and now >= self._believed_until:
            self._believed_until = now + _DOUBT_SECONDS
            session.out.queue.append(Task(kind=HostEvent.SEND_EXTEND, bind_id=next(iter(session.held))))

    # The request under way was granted

    def _granted(self, pending: Pending, message: Message, now: float) -> None:
        """The response to the request under way; the transition comes first, then what follows from it."""
        session, task = self._session, pending.task
        # FREE_RESPONSE to an EXTEND_REQUEST says no (RFC 3103 §9.10.3).
        no = task.kind is HostEvent.SEND_EXTEND and isinstance(message, FreeResponse)
        session.transit(HostEvent.REFUSED if no else HostEvent.GRANTED, now)
        match message:
            case RegisterResponse():
                self._registered(pending, message)
            case (
                AssignResponseRsaIp()
                | AssignResponseRsapIp()
                | AssignResponseRsipsec()
                | ListenResponse()
                | ListenResponseRsipIke()
            ):
                self._assigned(pending, message)
            case ExtendResponse():
                self._extended(pending, message)
            case QueryResponse():
                session.events.append(Answered.by(message, request=task.request))
            case FreeResponse():
                if message.bind_id.value in session.held:
                    session.drop(message.bind_id.value, Ending.REVOKED if no else Ending.FREED, now)
            case DeregisterResponse():
                if task.kind is HostEvent.SEND_DEREGISTER:
                    session.forget_all(Ending.FREED)
            case _:
                pass

    def _registered(self, pending: Pending, message: RegisterResponse) -> None:
        session = self._session
        session.client_id = message.client_id.value
        session.remote_policy = message.flow_policy.remote
        session.held.register(pending.sent_at + message.lease_time.value)
        until = session.held.registered_until
        session.events.append(Registered.by(message, request=pending.task.request, expires_at=until))

    def _assigned(self, pending: Pending, message: BindResponse) -> None:
        """Take what was asked for, or give back what was not (RFC 3103 §9.7.3, §9.9.3)."""
        session, task = self._session, pending.task
        bind_id, wish = message.bind_id.value, task.wish
        assert wish is not None
        problem = wish.mismatch(message, remote_policy=session.remote_policy)
        if problem is not None or bind_id in session.held:
            self._unwanted(task, bind_id, problem or f"bind ID {bind_id} is held already")
            return
        event = wish.granted(message, request=task.request, gateway=session.gateway.address, sent_at=pending.sent_at)
        session.held[bind_id] = Holding(task=task, event=event)
        session.held.lease(bind_id, started_at=pending.sent_at, until=event.expires_at)
        session.events.append(event)

    def _extended(self, pending: Pending, message: ExtendResponse) -> None:
        held, bind_id = self._session.held, message.bind_id.value
        until = pending.sent_at + message.lease_time.value
        if bind_id in held:
            held.lease(bind_id, started_at=pending.sent_at, until=until)
            self._session.events.append(Extended(request=pending.task.request, bind_id=bind_id, expires_at=until))

    def _give_back(self, error: MessageError, pending: Pending, now: float) -> bool:
        """A grant that cannot be read is given back, if it says what it grants (RFC 3103 §9.7.3, §9.9.3)."""
        session = self._session
        grant = pending.task.kind is HostEvent.SEND_ASSIGN and error.message_type in _BIND_RESPONSES
        if not grant or error.bind_id is None or error.client_id != session.client_id:
            return False
        session.out.pending = None
        session.transit(HostEvent.GRANTED, now)
        self._unwanted(pending.task, error.bind_id, str(error))
        return True

    def _unwanted(self, task: Task, bind_id: int, problem: str) -> None:
        session = self._session
        if bind_id not in session.held:
            session.held[bind_id] = Holding(task=task)
            session.out.queue.appendleft(Task(kind=HostEvent.SEND_FREE, bind_id=bind_id))
        session.events.append(Refused(request=task.request, code=None, problem=problem))

    # The request under way was refused

    def _refused(self, pending: Pending, message: ErrorResponse, now: float) -> None:
        session, task, code = self._session, pending.task, message.error.value
        if task.kind is HostEvent.SEND_DEREGISTER and code in _GONE:
            session.transit(HostEvent.REGISTRATION_ENDED, now)
            session.forget_all(Ending.FREED)
            return
        session.transit(HostEvent.REFUSED, now)
        if task.kind is HostEvent.SEND_RESYNC:
            return
        if task.kind is HostEvent.SEND_REGISTER:
            if code == ErrorCode.ALREADY_REGISTERED and message.client_id is not None and task.tries < _MOST_RESYNCS:
                session.resync(message.client_id.value, task)
                return
        elif code in _LOST_SYNC and task.kind is not HostEvent.SEND_DEREGISTER and task.tries < _MOST_RESYNCS:
            task.tries += 1
            session.lose_sync(now, task)
            return
        if task.bind_id is not None and code == ErrorCode.BAD_BIND_ID:
            session.lose_binding(task, task.bind_id, now)
            return
        if task.again is not None:
            session.out.queue.appendleft(replace(task, wish=task.again, again=None))
            return
        session.refuse(task, code, str(message.error))
