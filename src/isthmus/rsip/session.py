# SPDX-License-Identifier: BSD-3-Clause
"""Where a host stands with its gateway, and how it falls back (RFC 3103 §10.2, appendix D; spec 12.1).

``host`` asks, ``answers`` hears; what both change is here: the state, the Client ID, what is
held, what is on its way, and the events that the program has not read yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.border.effect import Ending, Peer
from isthmus.rsip.events import Deregistered, Event, Freed, Lost, Refused
from isthmus.rsip.holding import Holding, Holdings
from isthmus.rsip.outbox import Outbox, Task
from isthmus.rsip.states import HostEvent, HostState, Transition, next_host_state
from isthmus.wire.rsip.codes import ErrorCode, RemotePolicy

_ASKED = (HostEvent.SEND_ASSIGN, HostEvent.SEND_QUERY)
"""Requests that make sense after a new registration, too."""


@dataclass(slots=True, kw_only=True)
class Session:
    """One host at one gateway."""

    gateway: Peer
    keep: bool
    "Whether to ask for the same bindings again when the gateway has forgotten them."
    out: Outbox
    trace: Callable[[Transition], None] | None = None
    state: HostState = HostState.UNREGISTERED
    client_id: int | None = None
    remote_policy: RemotePolicy | int = RemotePolicy.NONE
    held: Holdings = field(default_factory=Holdings)
    events: deque[Event] = field(default_factory=deque)

    @property
    def udp(self) -> bool:
        """Whether messages are datagrams."""
        return not self.gateway.connection

    def transit(self, event: HostEvent, now: float) -> None:
        """Follow the table, and leave a record."""
        before, self.state = self.state, next_host_state(self.state, event)
        if self.trace is not None:
            who, count = str(self.gateway.address), len(self.out.octets)
            self.trace(Transition(now=now, who=who, state=before, event=event, after=self.state, effects=count))

    # Requests that come to nothing

    def refuse(self, task: Task, code: ErrorCode | int | None, problem: str) -> None:
        """Tell the program, unless it never asked and nothing is lost by it."""
        if task.request or task.kind is HostEvent.SEND_REGISTER:
            self.events.append(Refused(request=task.request, code=code, problem=problem))

    def time_out(self, now: float) -> None:
        """Seven transmissions and no answer: fall back (RFC 3103 §5, appendix D)."""
        pending, self.out.pending = self.out.pending, None
        assert pending is not None
        task = pending.task
        self.transit(HostEvent.TIMED_OUT, now)
        match task.kind:
            case HostEvent.SEND_DEREGISTER:
                self.forget_all(Ending.FREED)
            case HostEvent.SEND_FREE:
                # Silent: whether the gateway heard is not known; we do not use it any more, and its lease will end.
                if task.bind_id is not None and task.bind_id in self.held:
                    self.drop(task.bind_id, Ending.FREED, now)
            case HostEvent.SEND_RESYNC:
                pass
            case _:
                self.refuse(task, None, "no answer")

    # Loss of state

    def lose_binding(self, task: Task, bind_id: int, now: float) -> None:
        """306: the gateway does not know the binding. To free it has succeeded; else it is lost (RFC 3103 §9.12.3)."""
        holding = self.held.get(bind_id)
        if holding is None:
            return
        if task.kind is HostEvent.SEND_FREE or holding.event is None:
            self.drop(bind_id, Ending.FREED, now)
            return
        self._end_binding(bind_id, now)
        self.events.append(Lost(request=holding.task.request, bind_id=bind_id))
        if self.keep:
            self.out.queue.append(holding.same_again())

    def lose_sync(self, now: float, task: Task | None = None) -> None:
        """301: deregister the old ID, register, ask for the same again (RFC 3103 §10.2.2)."""
        client_id = self.client_id
        self.transit(HostEvent.REGISTRATION_ENDED, now)
        queue = []
        for holding in self.forget_all():
            event = holding.event
            if event is None:
                continue
            if task is not None and task.kind is HostEvent.SEND_FREE and task.bind_id == event.bind_id:
                self.events.append(Freed(bind_id=event.bind_id, ending=Ending.FREED))
                continue
            self.events.append(Lost(request=holding.task.request, bind_id=event.bind_id))
            if self.keep:
                queue.append(holding.same_again())
        if task is not None and task.kind in _ASKED:
            queue.append(task)
        self.out.queue.extendleft(reversed(queue))
        self.resync(client_id, Task(kind=HostEvent.SEND_REGISTER, tries=task.tries if task else 0))

    def resync(self, client_id: int | None, register: Task) -> None:
        """Queue the DE-REGISTER of an ID that only one of us believes in, and the REGISTER after it."""
        register.tries += 1
        self.out.queue.appendleft(register)
        self.out.queue.appendleft(Task(kind=HostEvent.SEND_RESYNC, client_id=client_id))

    # Endings

    def drop(self, bind_id: int, ending: Ending, now: float) -> None:
        """A binding is over: say so, unless it was only to be given back."""
        if self._end_binding(bind_id, now).event is not None:
            self.events.append(Freed(bind_id=bind_id, ending=ending))

    def _end_binding(self, bind_id: int, now: float) -> Holding:
        holding = self.held.drop(bind_id)
        self.transit(HostEvent.BINDING_ENDED if self.held else HostEvent.LAST_BINDING_ENDED, now)
        return holding

    def leave(self, ending: Ending, now: float) -> None:
        """The registration is over without our asking."""
        pending, self.out.pending = self.out.pending, None
        self.transit(HostEvent.REGISTRATION_ENDED, now)
        self.forget_all(ending)
        if pending is not None and pending.task.kind is not HostEvent.SEND_DEREGISTER:
            self.refuse(pending.task, ErrorCode.REGISTER_FIRST, "the registration ended")

    def forget_all(self, ending: Ending | None = None) -> list[Holding]:
        """Hold nothing any more; with ``ending`` the program is told."""
        self.client_id = None
        if ending is not None:
            self.events.append(Deregistered(ending=ending))
        return self.held.drop_all()
