# SPDX-License-Identifier: BSD-3-Clause
"""What a host holds, and the timers of it (RFC 3103 §6; spec 8).

A host must not rely on being told: FREE_RESPONSE and DE-REGISTER_RESPONSE get lost. It
counts by itself, from the moment when the request was sent, so that it stops before the
gateway does. A binding is renewed at 50 % of its lease, and at 87.5 % if that came to
nothing; the registration ends with the last of them, R = max(R, Bi).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

from isthmus.rsip.deadline import Deadlines
from isthmus.rsip.events import Assigned
from isthmus.rsip.outbox import Task
from isthmus.rsip.states import HostEvent

RENEWALS = (0.5, 0.875)
"""Where in a lease it is renewed."""
_SHORTEST = 1.0
"""Seconds; a shorter lease is not worth a renewal."""


class What(enum.IntEnum):
    """What a timer is for, in the order in which those go off that are due at the same time."""

    REGISTRATION = enum.auto()
    RENEW = enum.auto()
    END = enum.auto()


class Timer(NamedTuple):
    """One timer of a host."""

    what: What
    bind_id: int = 0


@dataclass(slots=True, kw_only=True)
class Holding:
    """One binding of a host; without ``event`` one that it is about to give back."""

    task: Task
    event: Assigned | None = None
    started_at: float = 0.0
    expires_at: float = 0.0
    renewals: int = 0
    "How often it was tried in this lease."

    def same_again(self) -> Task:
        """Ask for the very same, and if that is not to be had for what was asked for at first."""
        event, asked = self.event, self.task.again or self.task.wish
        assert event is not None
        assert asked is not None
        wish = replace(asked, address=event.address, ports=event.ports, spis=event.spis)
        return Task(kind=HostEvent.SEND_ASSIGN, request=self.task.request, wish=wish, again=asked)


class Holdings(dict[int, Holding]):
    """The bindings of a host by Bind ID, and every timer."""

    def __init__(self) -> None:
        super().__init__()
        self._deadlines: Deadlines[Timer] = Deadlines()
        self.registered_until = 0.0

    def events(self) -> dict[int, Assigned]:
        """What the program may use now, with the deadlines as extended."""
        return {
            bind_id: replace(each.event, expires_at=each.expires_at)
            for bind_id, each in self.items()
            if each.event is not None
        }

    def next_at(self) -> float | None:
        """When the next timer is due."""
        return self._deadlines.next_at()

    def pop_due(self, now: float) -> Timer | None:
        """A timer that is due."""
        return self._deadlines.pop_due(now)

    def register(self, until: float) -> None:
        """Set or move the end of the registration."""
        self.registered_until = until
        self._deadlines.set(Timer(What.REGISTRATION), until)

    def lease(self, bind_id: int, *, started_at: float, until: float) -> None:
        """Begin a lease of a binding, the first or a renewed one."""
        holding = self[bind_id]
        holding.started_at, holding.expires_at, holding.renewals = started_at, until, 0
        self._deadlines.set(Timer(What.END, bind_id), until)
        self._set_renewal(bind_id, holding)
        if until > self.registered_until:
            self.register(until)

    def renewed(self, bind_id: int) -> Holding:
        """Note that a renewal is tried, and set the timer for the next."""
        holding = self[bind_id]
        holding.renewals += 1
        self._set_renewal(bind_id, holding)
        return holding

    def drop(self, bind_id: int) -> Holding:
        """Take out a binding and its timers."""
        self._deadlines.discard(Timer(What.END, bind_id))
        self._deadlines.discard(Timer(What.RENEW, bind_id))
        return self.pop(bind_id)

    def drop_all(self) -> list[Holding]:
        """Take out everything, the registration too; in the order of granting."""
        self._deadlines.discard(Timer(What.REGISTRATION))
        self.registered_until = 0.0
        return [self.drop(bind_id) for bind_id in tuple(self)]

    def _set_renewal(self, bind_id: int, holding: Holding) -> None:
        timer, length = Timer(What.RENEW, bind_id), holding.expires_at - holding.started_at
        if holding.renewals < len(RENEWALS) and length >= _SHORTEST:
            self._deadlines.set(timer, holding.started_at + length * RENEWALS[holding.renewals])
        else:
            self._deadlines.discard(timer)
