# SPDX-License-Identifier: BSD-3-Clause
"""The host's end of RSIP, without I/O and without a clock (RFC 3103 §5, §6, §9, §10, appendix D).

Its user asks (``register``, ``assign_ports`` …), feeds it what arrives and the time, sends
what it has to send, and reads events. Requests wait in a queue and go out one by one, since
RSIP has one outstanding request per session. By itself the host

* renews every binding at 50 % and, should that fail, at 87.5 % of its lease;
* ends bindings and its registration by timers of its own, counted from when it asked;
* gives back what is not what it asked for (RFC 3103 §9.7.3, §9.9.3);
* when the gateway knows it under an old Client ID (302), deregisters that and registers anew;
* when the gateway does not know it any more (301), does the same, and asks for the same
  bindings again if it was told to ``keep`` them (RFC 3103 §10.2).

What does not come from the gateway's address and port, does not parse, or is about another
Client ID is dropped without a word (RFC 3103 §9.1, §10.2.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from isthmus.address import Address
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending, Peer
from isthmus.border.ranges import Ranges
from isthmus.errors import LocalProtocolError
from isthmus.rsip.events import Assigned, Deregistered, Event, Extended, Freed, Lost, Refused, Registered, Warned
from isthmus.rsip.holding import Holding, Holdings, What
from isthmus.rsip.outbox import Outbox, Pending, Task
from isthmus.rsip.reliability import Retransmission
from isthmus.rsip.request import UNASKED
from isthmus.rsip.states import HOST_REFUSAL, HostEvent, HostState, Transition, next_host_state
from isthmus.rsip.wish import AssignResponse, Wish
from isthmus.wire.rsip.codes import ErrorCode, MessageType, RemotePolicy
from isthmus.wire.rsip.message import (
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    DeregisterResponse,
    ErrorResponse,
    ExtendResponse,
    FreeResponse,
    Message,
    MessageError,
    RegisterResponse,
    emit,
    parse,
)

_MOST_RESYNCS = 2
"""How often one request may find the two ends in disagreement before it is given up."""
_DOUBT_SECONDS = 10.0
_LOST_SYNC = (ErrorCode.REGISTER_FIRST, ErrorCode.BAD_CLIENT_ID)
_GONE = (ErrorCode.REGISTER_FIRST, ErrorCode.ALREADY_UNREGISTERED)
_ASSIGN_RESPONSES = (MessageType.ASSIGN_RESPONSE_RSA_IP, MessageType.ASSIGN_RESPONSE_RSAP_IP)
_NAMES_BINDING = (HostEvent.SEND_EXTEND, HostEvent.SEND_FREE)


class Host:
    """One host at one gateway."""

    def __init__(
        self,
        *,
        gateway: Peer,
        keep: bool = True,
        retransmission: Retransmission | None = None,
        response_seconds: float = 5.0,
        trace: Callable[[Transition], None] | None = None,
    ) -> None:
        """Start unregistered, with nothing to send.

        Args:
            gateway: Where requests go, and the only place that answers are taken from. With a
                ``connection`` other than 0 the transport is TCP.
            keep: Whether to ask for the same bindings again when the gateway has forgotten them.
            retransmission: The waits on UDP; None: from 100 ms.
            response_seconds: How long an answer may take on TCP.
            trace: Gets one record for every change of state.
        """
        self.gateway = gateway
        self._keep = keep
        self._udp = not gateway.connection
        waits = retransmission or Retransmission()
        self._out = Outbox(udp=self._udp, retransmission=waits, response_seconds=response_seconds)
        self._trace = trace
        self._state = HostState.UNREGISTERED
        self._client_id: int | None = None
        self._believed_until = 0.0
        self._remote_policy: RemotePolicy | int = RemotePolicy.NONE
        self._held = Holdings()
        self._events: deque[Event] = deque()
        self._requests = 0

    @property
    def state(self) -> HostState:
        """Where the host stands (RFC 3103 appendix D)."""
        return self._state

    @property
    def client_id(self) -> int | None:
        """The Client ID, while registered."""
        return self._client_id

    @property
    def bindings(self) -> dict[int, Assigned]:
        """What is held now, by Bind ID, with the deadlines as extended."""
        return self._held.events()

    # What the program asks for; each returns the number that events will name

    def register(self) -> int:
        """Register (RFC 3103 §9.2); must come before everything else."""
        return self._ask(Task(kind=HostEvent.SEND_REGISTER))

    def assign_ports(
        self,
        ports: int | Ranges = 1,
        *,
        address: Address | None = None,
        remote: Address | str | None = None,
        remote_port: int | None = None,
        lease_seconds: int | None = None,
        tunnel: TunnelKind | None = None,
    ) -> int:
        """Ask for ports of a shared address, RSAP-IP (RFC 3103 §9.8).

        Args:
            ports: How many of any, at most 255, or the very ones.
            address: The address; None: any.
            remote: The only peer, by address or name; needed under a remote flow policy.
            remote_port: The peer's port; needed under remote micro-flow policy.
            lease_seconds: For how long; the gateway decides.
            tunnel: In which tunnel; None: as the gateway thinks fit.
        """
        wish = Wish(
            method=Method.RSAP_IP,
            address=address,
            ports=ports,
            remote=remote,
            remote_port=remote_port,
            lease_seconds=lease_seconds,
            tunnel=tunnel,
        )
        return self._ask(Task(kind=HostEvent.SEND_ASSIGN, wish=wish))

    def assign_address(
        self,
        address: Address | None = None,
        *,
        remote: Address | str | None = None,
        remote_port: int | None = None,
        lease_seconds: int | None = None,
        tunnel: TunnelKind | None = None,
    ) -> int:
        """Ask for a whole address, RSA-IP (RFC 3103 §9.6); arguments as in ``assign_ports``."""
        wish = Wish(
            method=Method.RSA_IP,
            address=address,
            remote=remote,
            remote_port=remote_port,
            lease_seconds=lease_seconds,
            tunnel=tunnel,
        )
        return self._ask(Task(kind=HostEvent.SEND_ASSIGN, wish=wish))

    def extend(self, bind_id: int, *, lease_seconds: int | None = None) -> int:
        """Ask for more time now (RFC 3103 §9.10); the host does so by itself anyway.

        Raises:
            LocalProtocolError: no such binding.
        """
        self._require(bind_id)
        return self._ask(Task(kind=HostEvent.SEND_EXTEND, bind_id=bind_id, lease_seconds=lease_seconds))

    def free(self, bind_id: int) -> int:
        """Give a binding back (RFC 3103 §9.12).

        Raises:
            LocalProtocolError: no such binding.
        """
        self._require(bind_id)
        return self._ask(Task(kind=HostEvent.SEND_FREE, bind_id=bind_id))

    def deregister(self) -> int:
        """Give back everything (RFC 3103 §9.4)."""
        return self._ask(Task(kind=HostEvent.SEND_DEREGISTER))

    # The five verbs

    def receive_datagram(self, data: bytes, source: Peer, *, now: float) -> None:
        """Take one datagram; only the gateway's count (spec 19)."""
        if source == self.gateway:
            self._receive(data, now)

    def receive_message(self, data: bytes, *, now: float) -> None:
        """Take one message that was cut from the TCP connection to the gateway."""
        self._receive(data, now)

    def connection_lost(self, *, now: float) -> None:
        """Take word that the TCP connection ended: the request under way has no answer. Bindings stay (spec 2)."""
        self._out.octets.clear()
        if self._out.pending is not None:
            self._time_out(now)

    def datagrams_to_send(self, *, now: float) -> list[bytes]:
        """Take what is to be sent now: datagrams, or messages for the connection."""
        while self._out.pending is None and self._out.queue:
            self._start(self._out.queue.popleft(), now)
        octets, self._out.octets = self._out.octets, []
        return octets

    def get_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called next, in seconds since 1970."""
        times = [self._held.next_at(), self._out.pending.deadline if self._out.pending else None]
        return min((each for each in times if each is not None), default=None)

    def handle_timer(self, *, now: float) -> None:
        """Repeat, give up, renew and end what is due; then ask ``datagrams_to_send``."""
        while self._out.pending is not None and self._out.pending.deadline <= now:
            if not self._out.repeat(now=now):
                self._time_out(now)
        while (due := self._held.pop_due(now)) is not None:
            match due.what:
                case What.REGISTRATION:
                    self._leave(Ending.EXPIRED, now)
                case What.END:
                    self._drop(due.bind_id, Ending.EXPIRED, now)
                case What.RENEW:
                    self._renew(due.bind_id)

    def next_event(self) -> Event | None:
        """Take the oldest event; None if there is none."""
        return self._events.popleft() if self._events else None

    # Sending

    def _ask(self, task: Task) -> int:
        self._requests += 1
        task.request = self._requests
        self._out.queue.append(task)
        return task.request

    def _require(self, bind_id: int) -> None:
        holding = self._held.get(bind_id)
        if holding is None or holding.event is None:
            raise LocalProtocolError(ErrorCode.BAD_BIND_ID, f"bind ID {bind_id} is not held")

    def _start(self, task: Task, now: float) -> None:
        """Send a request for the first time, if the state table and the facts allow it."""
        code = HOST_REFUSAL[self._state].get(task.kind)
        if code is None and task.kind in _NAMES_BINDING and task.bind_id not in self._held:
            code = ErrorCode.BAD_BIND_ID
        if code is not None:
            self._refuse(task, code, f"not sent: {task.kind} in state {self._state}")
            return
        self._transit(task.kind, now)
        counter, client_id = self._out.next_counter(), self._client_id if task.client_id is None else task.client_id
        data = emit(task.message(client_id or 0, counter))
        self._out.start(task, data, counter=counter, client_id=client_id, now=now)

    def _renew(self, bind_id: int) -> None:
        """Queue one renewal; should it fail, a timer brings us here again."""
        holding = self._held.renewed(bind_id)
        if not self._out.is_renewing(bind_id):
            seconds = holding.task.wish.lease_seconds if holding.task.wish else None
            self._out.queue.append(Task(kind=HostEvent.SEND_EXTEND, bind_id=bind_id, lease_seconds=seconds))

    # Receiving

    def _receive(self, data: bytes, now: float) -> None:
        pending = self._out.pending
        try:
            message = parse(data, strict=False)
        except MessageError as error:
            if pending is not None and error.message_counter == pending.counter:
                self._give_back(error, pending, now)
            return
        if pending is not None and pending.is_answered_by(message, udp=self._udp):
            self._out.pending = None
            if isinstance(message, ErrorResponse):
                self._refused(pending, message, now)
            else:
                self._granted(pending, message, now)
        elif message.message_counter == UNASKED or (message.message_counter is None and not self._udp):
            self._receive_unasked(message, now)

    def _receive_unasked(self, message: Message, now: float) -> None:
        """The three messages that a gateway may send by itself (RFC 3103 §9.1, §9.5, §9.13)."""
        client_id = getattr(message, "client_id", None)
        if client_id is None and isinstance(message, ErrorResponse) and message.error.value == ErrorCode.REGISTER_FIRST:
            self._doubt(now)
        if client_id is None or client_id.value != self._client_id:
            return
        match message:
            case FreeResponse():
                if message.bind_id.value in self._held:
                    self._drop(message.bind_id.value, Ending.REVOKED, now)
            case DeregisterResponse():
                self._leave(Ending.REVOKED, now)
            case ErrorResponse():
                bind_id = None if message.bind_id is None else message.bind_id.value
                self._events.append(Warned(code=message.error.value, bind_id=bind_id))
                if message.error.value == ErrorCode.REGISTER_FIRST and self._out.pending is None:
                    self._lose_sync(now)
            case _:
                pass

    def _doubt(self, now: float) -> None:
        """Take 301 about our packets, which names nobody, as a hint: ask about a binding, and believe the answer."""
        if self._held and self._out.pending is None and now >= self._believed_until:
            self._believed_until = now + _DOUBT_SECONDS
            self._out.queue.append(Task(kind=HostEvent.SEND_EXTEND, bind_id=next(iter(self._held))))

    def _granted(self, pending: Pending, message: Message, now: float) -> None:
        """The response to the request under way; the transition comes first, then what follows from it."""
        task = pending.task
        # FREE_RESPONSE to an EXTEND_REQUEST says no (RFC 3103 §9.10.3).
        no = task.kind is HostEvent.SEND_EXTEND and isinstance(message, FreeResponse)
        self._transit(HostEvent.REFUSED if no else HostEvent.GRANTED, now)
        match message:
            case RegisterResponse():
                self._registered(pending, message)
            case AssignResponseRsaIp() | AssignResponseRsapIp():
                self._assigned(pending, message)
            case ExtendResponse():
                self._extended(pending, message)
            case FreeResponse():
                if message.bind_id.value in self._held:
                    self._drop(message.bind_id.value, Ending.REVOKED if no else Ending.FREED, now)
            case DeregisterResponse():
                if task.kind is HostEvent.SEND_DEREGISTER:
                    self._forget_all(Ending.FREED)
            case _:
                pass

    def _registered(self, pending: Pending, message: RegisterResponse) -> None:
        self._client_id = message.client_id.value
        self._remote_policy = message.flow_policy.remote
        self._held.register(pending.sent_at + message.lease_time.value)
        until = self._held.registered_until
        self._events.append(Registered.by(message, request=pending.task.request, expires_at=until))

    def _assigned(self, pending: Pending, message: AssignResponse) -> None:
        """Take what was asked for, or give back what was not (RFC 3103 §9.7.3, §9.9.3)."""
        task, bind_id, wish = pending.task, message.bind_id.value, pending.task.wish
        assert wish is not None
        problem = wish.mismatch(message, remote_policy=self._remote_policy)
        if problem is not None or bind_id in self._held:
            self._unwanted(task, bind_id, problem or f"bind ID {bind_id} is held already")
            return
        event = wish.granted(message, request=task.request, gateway=self.gateway.address, sent_at=pending.sent_at)
        self._held[bind_id] = Holding(task=task, event=event)
        self._held.lease(bind_id, started_at=pending.sent_at, until=event.expires_at)
        self._events.append(event)

    def _extended(self, pending: Pending, message: ExtendResponse) -> None:
        bind_id, until = message.bind_id.value, pending.sent_at + message.lease_time.value
        if bind_id in self._held:
            self._held.lease(bind_id, started_at=pending.sent_at, until=until)
            self._events.append(Extended(request=pending.task.request, bind_id=bind_id, expires_at=until))

    def _give_back(self, error: MessageError, pending: Pending, now: float) -> None:
        """An ASSIGN_RESPONSE that cannot be read is given back, if it says what (RFC 3103 §9.7.3, §9.9.3)."""
        assign = pending.task.kind is HostEvent.SEND_ASSIGN and error.message_type in _ASSIGN_RESPONSES
        if assign and error.bind_id is not None and error.client_id == self._client_id:
            self._out.pending = None
            self._transit(HostEvent.GRANTED, now)
            self._unwanted(pending.task, error.bind_id, str(error))

    def _unwanted(self, task: Task, bind_id: int, problem: str) -> None:
        if bind_id not in self._held:
            self._held[bind_id] = Holding(task=task)
            self._out.queue.appendleft(Task(kind=HostEvent.SEND_FREE, bind_id=bind_id))
        self._events.append(Refused(request=task.request, code=None, problem=problem))

    # Refusals, and silence

    def _refused(self, pending: Pending, message: ErrorResponse, now: float) -> None:
        task, code = pending.task, message.error.value
        if task.kind is HostEvent.SEND_DEREGISTER and code in _GONE:
            self._transit(HostEvent.REGISTRATION_ENDED, now)
            self._forget_all(Ending.FREED)
            return
        self._transit(HostEvent.REFUSED, now)
        if task.kind is HostEvent.SEND_RESYNC:
            return
        if task.kind is HostEvent.SEND_REGISTER:
            if code == ErrorCode.ALREADY_REGISTERED and message.client_id is not None and task.tries < _MOST_RESYNCS:
                self._resync(message.client_id.value, task)
                return
        elif code in _LOST_SYNC and task.kind is not HostEvent.SEND_DEREGISTER and task.tries < _MOST_RESYNCS:
            task.tries += 1
            self._lose_sync(now, task)
            return
        if task.bind_id is not None and code == ErrorCode.BAD_BIND_ID:
            self._lose_binding(task, task.bind_id, now)
            return
        if task.again is not None:
            self._out.queue.appendleft(replace(task, wish=task.again, again=None))
            return
        self._refuse(task, code, str(message.error))

    def _time_out(self, now: float) -> None:
        """Seven transmissions and no answer: fall back (RFC 3103 §5, appendix D)."""
        pending, self._out.pending = self._out.pending, None
        assert pending is not None
        task = pending.task
        self._transit(HostEvent.TIMED_OUT, now)
        match task.kind:
            case HostEvent.SEND_DEREGISTER:
                self._forget_all(Ending.FREED)
            case HostEvent.SEND_FREE:
                # Silent: whether the gateway heard is not known; we do not use it any more, and its lease will end.
                if task.bind_id is not None and task.bind_id in self._held:
                    self._drop(task.bind_id, Ending.FREED, now)
            case HostEvent.SEND_RESYNC:
                pass
            case _:
                self._refuse(task, None, "no answer")

    def _refuse(self, task: Task, code: ErrorCode | int | None, problem: str) -> None:
        """Tell the program, unless it never asked and nothing is lost by it."""
        if task.request or task.kind is HostEvent.SEND_REGISTER:
            self._events.append(Refused(request=task.request, code=code, problem=problem))

    def _lose_binding(self, task: Task, bind_id: int, now: float) -> None:
        """306: the gateway does not know the binding. To free it has succeeded; else it is lost (RFC 3103 §9.12.3)."""
        holding = self._held.get(bind_id)
        if holding is None:
            return
        if task.kind is HostEvent.SEND_FREE or holding.event is None:
            self._drop(bind_id, Ending.FREED, now)
            return
        self._end_binding(bind_id, now)
        self._events.append(Lost(request=holding.task.request, bind_id=bind_id))
        if self._keep:
            self._out.queue.append(holding.same_again())

    def _lose_sync(self, now: float, task: Task | None = None) -> None:
        """301: deregister the old ID, register, ask for the same again (RFC 3103 §10.2.2)."""
        client_id = self._client_id
        self._transit(HostEvent.REGISTRATION_ENDED, now)
        queue = []
        for holding in self._forget_all():
            event = holding.event
            if event is None:
                continue
            if task is not None and task.kind is HostEvent.SEND_FREE and task.bind_id == event.bind_id:
                self._events.append(Freed(bind_id=event.bind_id, ending=Ending.FREED))
                continue
            self._events.append(Lost(request=holding.task.request, bind_id=event.bind_id))
            if self._keep:
                queue.append(holding.same_again())
        if task is not None and task.kind is HostEvent.SEND_ASSIGN:
            queue.append(task)
        self._out.queue.extendleft(reversed(queue))
        self._resync(client_id, Task(kind=HostEvent.SEND_REGISTER, tries=task.tries if task else 0))

    def _resync(self, client_id: int | None, register: Task) -> None:
        """Queue the DE-REGISTER of an ID that only one of us believes in, and the REGISTER after it."""
        register.tries += 1
        self._out.queue.appendleft(register)
        self._out.queue.appendleft(Task(kind=HostEvent.SEND_RESYNC, client_id=client_id))

    # Endings

    def _drop(self, bind_id: int, ending: Ending, now: float) -> None:
        """A binding is over: say so, unless it was only to be given back."""
        if self._end_binding(bind_id, now).event is not None:
            self._events.append(Freed(bind_id=bind_id, ending=ending))

    def _end_binding(self, bind_id: int, now: float) -> Holding:
        holding = self._held.drop(bind_id)
        self._transit(HostEvent.BINDING_ENDED if self._held else HostEvent.LAST_BINDING_ENDED, now)
        return holding

    def _leave(self, ending: Ending, now: float) -> None:
        """The registration is over without our asking."""
        pending, self._out.pending = self._out.pending, None
        self._transit(HostEvent.REGISTRATION_ENDED, now)
        self._forget_all(ending)
        if pending is not None and pending.task.kind is not HostEvent.SEND_DEREGISTER:
            self._refuse(pending.task, ErrorCode.REGISTER_FIRST, "the registration ended")

    def _forget_all(self, ending: Ending | None = None) -> list[Holding]:
        """Hold nothing any more; with ``ending`` the program is told."""
        self._client_id = None
        if ending is not None:
            self._events.append(Deregistered(ending=ending))
        return self._held.drop_all()

    def _transit(self, event: HostEvent, now: float) -> None:
        before, self._state = self._state, next_host_state(self._state, event)
        if self._trace is not None:
            who, count = str(self.gateway.address), len(self._out.octets)
            self._trace(Transition(now=now, who=who, state=before, event=event, after=self._state, effects=count))
