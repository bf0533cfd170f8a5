# SPDX-License-Identifier: BSD-3-Clause
"""The store that forgets: the specification of the others, and a store for tests and laboratories.

Every table is a dictionary, and every change of one notes what stood there before, so that
a batch that fails is taken back line by line.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar, assert_never

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import BindingKey, Owner, Registration
from isthmus.border.effect import Bind, Deregister, Durable, Ending, Extend, Prolong, Register, Remember, Unbind
from isthmus.border.plain import Single, one_by_one
from isthmus.border.resource import Resource, resource_of
from isthmus.border.table import BindingTable
from isthmus.errors import Conflict
from isthmus.store import DEPARTED_SECONDS, Held, Lapsing, LapsingMark, Recalled, Snapshot, Standing, Tenure
from isthmus.store.entry import place_of
from isthmus.store.holding import covers, not_held
from isthmus.store.outcome import done

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Answer:
    remember: Remember
    departed_at: float | None
    "None: its host is registered."


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of history, with the prefix that a Resource cannot tell."""

    tenure: Tenure
    local: Prefix


class MemoryStore:
    """Keeps leases in dictionaries."""

    def __init__(self) -> None:
        """Start empty."""
        self._registrations: dict[Owner, Registration] = {}
        self._clients: dict[int, Owner] = {}
        self._held: dict[BindingKey, Held] = {}
        self._tenures: dict[BindingKey, int] = {}
        "Where in the history the tenure of a held binding stands."
        self._history: dict[int, _Row] = {}
        self._answers: dict[Owner, _Answer] = {}
        self._departed: dict[Owner, float] = {}
        "The answers whose hosts have left, earliest first."
        self._table = BindingTable()
        self._place_key = secrets.token_bytes(32)
        self._undo: list[Callable[[], object]] = []

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands (see ``LeaseStore``)."""
        held = self.leases()
        return Snapshot(
            registrations=tuple(self._registrations[owner] for owner in sorted(self._registrations)),
            bindings=held,
            answers=tuple(
                answer.remember
                for _, answer in sorted(self._answers.items())
                if answer.departed_at is None or answer.departed_at >= rested_since
            ),
            resting=not_held(self._ended(rested_since), (resource_of(h.binding) for h in held)),
        )

    def recall(self, owners: Sequence[Owner]) -> Recalled:
        """Read what stands of some hosts (see ``LeaseStore``)."""
        asked = sorted(set(owners))
        return Recalled(
            registrations=tuple(self._registrations[each] for each in asked if each in self._registrations),
            bindings=tuple(each for each in self.leases() if each.binding.key.owner in asked),
            answers=tuple(self._answers[each].remember for each in asked if each in self._answers),
        )

    def standing(self, *, rested_since: float) -> Standing:
        """Read everything that stands, as columns where it can be (see ``LeaseStore``)."""
        from isthmus.store.columns import standing_of

        return standing_of(
            registrations=(self._registrations[owner] for owner in sorted(self._registrations)),
            held=self.leases(),
            departed=[
                answer.remember
                for _, answer in sorted(self._answers.items())
                if answer.departed_at is not None and answer.departed_at >= rested_since
            ],
            ended=self._ended(rested_since),
        )

    def due(self, *, before: float, limit: int) -> tuple[Owner, ...]:
        """Tell whose deadline is before a time, soonest first (see ``LeaseStore``)."""
        found = sorted((deadline, owner) for owner, deadline in self._soonest(before).items())
        return tuple(owner for _, owner in found[:limit])

    def _soonest(self, before: float) -> dict[Owner, float]:
        """The soonest deadline of each host, where that is before a time."""
        soonest: dict[Owner, float] = {}
        for owner, deadline in self._deadlines():
            soonest[owner] = min(deadline, soonest.get(owner, deadline))
        return {owner: deadline for owner, deadline in soonest.items() if deadline < before}

    def lapsing(self, near: int, *, before: float, limit: int, after: LapsingMark | None = None) -> Lapsing:
        """Tell what runs out (see ``LeaseStore``)."""
        from isthmus.store.lapsing import is_host, lapsing_of

        due = self._soonest(before).items()
        found = sorted((at, owner.address.number) for owner, at in due if is_host(owner, near))
        rest = [each for each in found if after is None or each > (after.deadline, after.number)]
        page = rest[:limit]
        owners = [Owner(near, Address(Family.IPV4, number)) for _, number in page]
        mark = LapsingMark(stays=False, deadline=page[-1][0], number=page[-1][1]) if len(rest) > limit else None
        return lapsing_of(self.recall(owners), near, before=before, after=mark)

    def soonest(self) -> float | None:
        """The soonest deadline of a binding or a registration."""
        return min((deadline for _, deadline in self._deadlines()), default=None)

    def holders(self, address: Address, port: int | None = None) -> tuple[BindingKey, ...]:
        """Tell which bindings hold an address, or a port of it, now (see ``LeaseStore``)."""
        return tuple(
            each.binding.key
            for each in self.leases()
            if address in each.binding.selectors[0].local and covers(resource_of(each.binding), port)
        )

    def held_count(self) -> int:
        """How many bindings stand."""
        return len(self._held)

    def registered_count(self) -> int:
        """How many hosts are registered."""
        return len(self._registrations)

    def has_more(self, than: int, *, ended_since: float) -> bool:
        """Tell whether there is more than so much of anything (see ``LeaseStore``)."""
        return max(len(self._registrations), len(self._held), len(self._ended(ended_since))) > than

    def submit(self, effects: Iterable[Durable], *, now: float) -> Future[None]:
        """Write a batch at once (see ``LeaseStore``)."""
        return done(lambda: self.commit(effects, now=now))

    def _deadlines(self) -> Iterator[tuple[Owner, float]]:
        yield from ((each.owner, each.expires_at) for each in self._registrations.values())
        yield from ((each.binding.key.owner, each.lease.expires_at) for each in self._held.values())

    def _ended(self, since: float) -> list[tuple[float, Resource]]:
        """What was given back at or after a time, oldest first."""
        ended = sorted(
            (
                (row.tenure.ended_at, number, row.tenure.resource)
                for number, row in self._history.items()
                if row.tenure.ended_at is not None and row.tenure.ended_at >= since
            ),
            key=lambda each: each[:2],
        )
        return [(at, resource) for at, _, resource in ended]

    def commit(self, effects: Iterable[Durable], *, now: float) -> None:
        """Write a batch: all of it or nothing (see ``LeaseStore``)."""
        batch = tuple(one_by_one(effects))
        self._undo.clear()
        try:
            for effect in batch:
                self._write(effect, now)
        except BaseException:
            for step in reversed(self._undo):
                step()
            raise
        if batch:
            self._prune(now)

    def who_had(
        self, address: Address, *, port: int | None, at: float | None, now: float | None = None
    ) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it (see ``LeaseStore``)."""
        found = sorted(
            (
                (row.tenure.granted_at, number, row.tenure)
                for number, row in self._history.items()
                if address in row.local
                and covers(row.tenure.resource, port)
                and (at is None or row.tenure.granted_at <= at < row.tenure.until)
            ),
            key=lambda each: each[:2],
            reverse=True,
        )
        return tuple(tenure if now is None else tenure.as_of(now) for _, _, tenure in found)

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""
        return tuple(self._held[key] for key in sorted(self._held))

    def page(self, *, after: BindingKey | None, limit: int) -> tuple[Held, ...]:
        """Some of what is held now (see ``LeaseStore``)."""
        keys = sorted(self._held, key=place_of)
        return tuple(self._held[key] for key in keys if after is None or place_of(key) > place_of(after))[:limit]

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""
        return self._clients.get(client_id)

    def place_key(self) -> bytes:
        """What keeps places secret (see ``LeaseStore``)."""
        return self._place_key

    def close(self) -> None:
        """Do nothing: what is in memory goes with the object."""

    def _write(self, effect: Single, now: float) -> None:
        match effect:
            case Register():
                self._register(effect.registration)
            case Deregister():
                self._deregister(effect, now)
            case Bind():
                self._bind(effect, now)
            case Extend():
                self._extend(effect.key, effect.expires_at)
            case Prolong():
                registration = self._registrations.get(effect.owner)
                if registration is not None:
                    prolonged = replace(registration, expires_at=effect.expires_at)
                    self._put(self._registrations, effect.owner, prolonged)
            case Unbind():
                self._unbind(effect.key, effect.ending, now)
            case Remember():
                departed_at = None if effect.owner in self._registrations else now
                self._answer(effect.owner, _Answer(effect, departed_at))
            case _:
                assert_never(effect)

    def _register(self, registration: Registration) -> None:
        owner, client_id = registration.owner, registration.client_id
        if self._clients.get(client_id, owner) != owner:
            raise Conflict(f"client ID {client_id}")
        before = self._registrations.get(owner)
        if before is not None:
            self._put(self._clients, before.client_id, None)
        self._put(self._clients, client_id, owner)
        self._put(self._registrations, owner, registration)
        answer = self._answers.get(owner)
        if answer is not None:
            self._answer(owner, replace(answer, departed_at=None))

    def _deregister(self, effect: Deregister, now: float) -> None:
        registration = self._registrations.get(effect.owner)
        if registration is None:
            return
        self._put(self._clients, registration.client_id, None)
        self._put(self._registrations, effect.owner, None)
        answer = self._answers.get(effect.owner)
        if answer is not None:
            kept = replace(answer, departed_at=now) if effect.ending is Ending.FREED else None
            self._answer(effect.owner, kept)

    def _bind(self, effect: Bind, now: float) -> None:
        binding, lease = effect.binding, effect.lease
        tenure = Tenure(
            key=binding.key,
            client_id=lease.client_id,
            resource=resource_of(binding),
            granted_at=lease.granted_at,
            ended_at=None,
            ending=None,
            expires_at=lease.expires_at,
        )
        row = _Row(tenure, binding.selectors[0].local)
        before = self._tenures.get(binding.key)
        if before is not None and _same_grant(self._history[before], row):
            number = before
        else:
            number = len(self._history) + 1
            if before is not None:
                expired = self._history[before].tenure.expires_at <= now
                self._end(before, Ending.EXPIRED if expired else Ending.REVOKED, now)
        self._rebind(Held(binding=binding, lease=lease))
        self._put(self._history, number, row)
        self._put(self._tenures, binding.key, number)
        registration = self._registrations.get(binding.key.owner)
        if registration is not None and registration.last_bind_id < binding.key.bind_id:
            raised = replace(registration, last_bind_id=binding.key.bind_id)
            self._put(self._registrations, binding.key.owner, raised)

    def _rebind(self, held: Held) -> None:
        """Replace a binding in the table and note how to take that back."""
        key = held.binding.key
        before = self._held.get(key)
        self._table.bind(held.binding, expires_at=held.lease.expires_at)
        if before is None:
            self._undo.append(lambda: self._table.unbind(key))
        else:
            old = before
            self._undo.append(lambda: self._table.bind(old.binding, expires_at=old.lease.expires_at))
        self._put(self._held, key, held)

    def _extend(self, key: BindingKey, expires_at: float) -> None:
        held = self._held.get(key)
        if held is None:
            return
        self._put(self._held, key, replace(held, lease=replace(held.lease, expires_at=expires_at)))
        number = self._tenures[key]
        row = self._history[number]
        self._put(self._history, number, replace(row, tenure=replace(row.tenure, expires_at=expires_at)))

    def _unbind(self, key: BindingKey, ending: Ending, now: float) -> None:
        held = self._held.get(key)
        if held is None:
            return
        self._table.unbind(key)
        self._undo.append(lambda: self._table.bind(held.binding, expires_at=held.lease.expires_at))
        self._put(self._held, key, None)
        self._end(self._tenures[key], ending, now)
        self._put(self._tenures, key, None)

    def _end(self, number: int, ending: Ending, now: float) -> None:
        row = self._history[number]
        ended_at = max(row.tenure.granted_at, min(now, row.tenure.expires_at))
        self._put(self._history, number, replace(row, tenure=replace(row.tenure, ended_at=ended_at, ending=ending)))

    def _answer(self, owner: Owner, answer: _Answer | None) -> None:
        self._put(self._answers, owner, answer)
        self._put(self._departed, owner, None)
        if answer is not None and answer.departed_at is not None:
            self._put(self._departed, owner, answer.departed_at)

    def _prune(self, now: float) -> None:
        for owner, departed_at in tuple(self._departed.items()):
            if departed_at < now - DEPARTED_SECONDS:
                del self._answers[owner], self._departed[owner]

    def _put(self, table: dict[_K, _V], key: _K, value: _V | None) -> None:
        """Enter a value, or with None remove the key, and note how to take that back."""
        if key in table:
            before = table[key]
            self._undo.append(lambda: table.__setitem__(key, before))
        else:
            self._undo.append(lambda: table.pop(key, None))
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def _same_grant(before: _Row, after: _Row) -> bool:
    old, new = before.tenure, after.tenure
    return (before.local, old.client_id, old.resource, old.granted_at) == (
        after.local,
        new.client_id,
        new.resource,
        new.granted_at,
    )
