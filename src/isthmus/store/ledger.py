# SPDX-License-Identifier: BSD-3-Clause
"""Effects into rows and rows into values, for whatever speaks the SQL of ``store.sql``.

Connections, transactions and the disk are the business of the store that owns the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, assert_never

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Durable, Ending, Extend, Prolong, Register, Remember, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, resource_of
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import Conflict
from isthmus.store import DEPARTED_SECONDS, Held, Snapshot, Tenure, sql
from isthmus.store.holding import not_held, ranges_of

Value = int | float | str | bytes | None
Execute = Callable[[str, tuple[Value, ...]], Iterator[tuple[Any, ...]]]
"""Run one statement with its values and iterate over what it answers: ``sqlite3.Connection.execute``."""

_Span = tuple[int, int, int]
"""Kind, first and last number."""
_WHOLE = 0
"""The kind that a whole prefix has in ``holding`` and ``tenure_range``: one range, 0 to 0."""
_PORT_SCALES = range(17)


class Ledger:
    """The tables of one store, inside a transaction that somebody else begins and ends."""

    def __init__(self, execute: Execute) -> None:
        """Use a connection.

        Args:
            execute: Runs one statement on it.
        """
        self._execute = execute

    def write(self, effect: Durable, *, now: float) -> None:
        """Write one effect.

        Raises:
            Conflict: see ``LeaseStore.commit``; the transaction must be taken back.
        """
        match effect:
            case Register():
                self._register(effect.registration)
            case Deregister():
                self._deregister(effect, now)
            case Bind():
                self._bind(effect, now)
            case Extend():
                self._execute(sql.EXTEND, (effect.expires_at, *_key(effect.key)))
            case Prolong():
                self._execute(sql.PROLONG, (effect.expires_at, *_owner(effect.owner)))
            case Unbind():
                held = self._held_tenure(effect.key)
                if held is not None:
                    self._end(held, effect.ending, now)
            case Remember():
                owner = _owner(effect.owner)
                row = (*owner, effect.port, effect.counter, effect.request, effect.answer, *owner, now)
                self._execute(sql.REMEMBER, row)
            case _:
                assert_never(effect)

    def prune(self, *, now: float) -> None:
        """Forget the answers to hosts that left long ago."""
        self._execute(sql.PRUNE, (now - DEPARTED_SECONDS,))

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands (see ``LeaseStore``)."""
        held = self.leases()
        registrations = (
            Registration(
                owner=_read_owner(realm, address),
                client_id=client_id,
                expires_at=expires_at,
                local_policy=local_policy,
                remote_policy=remote_policy,
                last_bind_id=last_bind_id,
            )
            for realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id in self._execute(
                sql.REGISTRATIONS, ()
            )
        )
        answers = (
            Remember(owner=_read_owner(realm, address), port=port, counter=counter, request=request, answer=answer)
            for realm, address, port, counter, request, answer in self._execute(sql.ANSWERS, (rested_since,))
        )
        ended = (
            (ended_at, _read_resource(realm, address, each))
            for ended_at, realm, address, *each in self._execute(sql.RESTING, (rested_since,))
        )
        return Snapshot(
            registrations=tuple(sorted(registrations, key=lambda each: each.owner)),
            bindings=held,
            answers=tuple(sorted(answers, key=lambda each: each.owner)),
            resting=not_held(ended, (resource_of(each.binding) for each in held)),
        )

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""
        selectors: dict[int, list[sql.SelectorRow]] = {}
        for raw in self._execute(sql.SELECTORS, ()):
            row = sql.SelectorRow._make(raw)
            selectors.setdefault(row.tenure, []).append(row)
        bindings = map(sql.BindingRow._make, self._execute(sql.BINDINGS, ()))
        held = (_read_held(row, selectors[row.tenure]) for row in bindings)
        return tuple(sorted(held, key=lambda each: each.binding.key))

    def who_had(self, address: Address, *, port: int | None, at: float | None) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it, as written down (see ``LeaseStore``)."""
        # Without a time: granted before the end of time, and not ended before its beginning.
        times = (math.inf, -math.inf) if at is None else (at, at)
        found: dict[int, sql.TenureRow] = {}
        for statement, values in _searches(address, port):
            for raw in self._execute(statement, (*values, *times)):
                row = sql.TenureRow._make(raw)
                found[row.number] = row
        newest_first = sorted(found.values(), key=lambda row: (row.granted_at, row.number), reverse=True)
        return tuple(_read_tenure(row) for row in newest_first)

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""
        row = self._row(sql.CLIENT, (client_id,))
        return None if row is None else _read_owner(*row)

    def _register(self, registration: Registration) -> None:
        if self.owner_of(registration.client_id) not in (None, registration.owner):
            raise Conflict(f"client ID {registration.client_id}")
        owner = _owner(registration.owner)
        policies = (registration.local_policy, registration.remote_policy, registration.last_bind_id)
        self._execute(sql.REGISTER, (*owner, registration.client_id, registration.expires_at, *policies))
        self._execute(sql.ARRIVE, owner)

    def _deregister(self, effect: Deregister, now: float) -> None:
        owner = _owner(effect.owner)
        if self._row(sql.DEREGISTER, owner) is None:
            return
        if effect.ending is Ending.FREED:
            self._execute(sql.DEPART, (now, *owner))
        else:
            self._execute(sql.FORGET, owner)

    def _bind(self, effect: Bind, now: float) -> None:
        binding, lease = effect.binding, effect.lease
        local, resource = binding.selectors[0].local, resource_of(binding)
        grant = (lease.client_id, binding.realm, *_prefix(local), *_resource(resource), lease.granted_at)
        spans = tuple(_spans(binding))
        before = self._held_tenure(binding.key)
        if before is not None and before[1:-1] == grant:
            number = before.number
            self._execute(sql.UNBIND, (number,))
            self._execute(sql.RENEW_TENURE, (lease.method, lease.expires_at, number))
        else:
            if before is not None:
                self._end(before, Ending.EXPIRED if before.expires_at <= now else Ending.REVOKED, now)
            number = self._next_number()
            row = (number, *_key(binding.key), lease.client_id, lease.method, *grant[1:], lease.expires_at)
            self._execute(sql.BEGIN_TENURE, row)
            for kind, first, last in spans:
                scale = (last - first).bit_length()
                self._execute(sql.ADD_RANGE, (number, *_prefix(local), kind, scale, first, last))
        self._enter(binding, number, spans)
        bind_id = binding.key.bind_id
        self._execute(sql.LAST_BIND_ID, (bind_id, *_owner(binding.key.owner), bind_id))

    def _enter(self, binding: Binding, number: int, spans: tuple[_Span, ...]) -> None:
        """Make a binding stand, unless something of it is held by then."""
        place = (binding.realm, *_prefix(binding.selectors[0].local))
        for selector in binding.selectors:
            for kind, first, last in _selector_spans(selector.kind, selector.values):
                below = self._row(sql.HOLDER, (*place, kind, last))
                if below is not None and below[0] >= first:
                    raise Conflict(str(selector))
        tunnel = binding.tunnel
        ends = (tunnel.local.octets, tunnel.remote.octets)
        way = (tunnel.kind, tunnel.mtu, tunnel.checksum)
        self._execute(sql.BIND, (number, tunnel.realm, *ends, *way, binding.device))
        for ordinal, selector in enumerate(binding.selectors):
            remote = selector.remote
            network = (None, None) if remote.network is None else _prefix(remote.network)
            numbers = (str(selector.values), str(selector.lent))
            self._execute(
                sql.ADD_SELECTOR, (number, ordinal, selector.kind, *numbers, *network, remote.port, remote.admit)
            )
        for kind, first, last in spans:
            self._execute(sql.ADD_HOLDING, (*place, kind, first, last, number))

    def _held_tenure(self, key: BindingKey) -> sql.HeldTenure | None:
        row = self._row(sql.HELD_TENURE, _key(key))
        return None if row is None else sql.HeldTenure._make(row)

    def _next_number(self) -> int:
        ((last,),) = self._execute(sql.LAST_TENURE, ())
        return int(last) + 1

    def _row(self, statement: str, values: tuple[Value, ...]) -> tuple[Any, ...] | None:
        """Run what answers with one row or none, to its end: a statement half read keeps a commit waiting."""
        rows = list(self._execute(statement, values))
        return rows[0] if rows else None

    def _end(self, held: sql.HeldTenure, ending: Ending, now: float) -> None:
        ended_at = max(held.granted_at, min(now, held.expires_at))
        self._execute(sql.END_TENURE, (ended_at, ending.value, held.number))
        self._execute(sql.UNBIND, (held.number,))


def _searches(address: Address, port: int | None) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """Everything to look up for one address: around it, and of it."""
    family = address.family
    for length in range(family.bits):
        shift = family.bits - length
        around = Address(family, address.number >> shift << shift)
        yield sql.WHO_HAD_ANY, (around.octets, length)
    if port is None:
        yield sql.WHO_HAD_ANY, (address.octets, family.bits)
        return
    yield sql.WHO_HAD, (address.octets, family.bits, _WHOLE, 0, 0, 0, 0)
    for scale in _PORT_SCALES:
        lowest = port - (1 << scale) + 1
        yield sql.WHO_HAD, (address.octets, family.bits, Kind.PORT, scale, lowest, port, port)


def _spans(binding: Binding) -> Iterator[_Span]:
    """Everything that a binding holds, nothing twice."""
    for kind, values in ranges_of(binding):
        yield from _selector_spans(kind, values)


def _selector_spans(kind: Kind | None, values: Ranges) -> Iterator[_Span]:
    if kind is None:
        yield _WHOLE, 0, 0
        return
    # An identity has 64 bits and a database 63 and a sign.
    less = 1 << 63 if kind.limit > 1 << 63 else 0
    for first, last in values.pairs:
        yield kind, first - less, last - less


def _owner(owner: Owner) -> tuple[int, bytes]:
    return owner.realm, owner.address.octets


def _key(key: BindingKey) -> tuple[int, bytes, int]:
    return key.owner.realm, key.owner.address.octets, key.bind_id


def _prefix(prefix: Prefix) -> tuple[bytes, int]:
    return prefix.address.octets, prefix.length


def _resource(resource: Resource) -> tuple[str | None, str | None, int, str | None]:
    return (
        None if resource.ports is None else str(resource.ports),
        None if resource.spis is None else str(resource.spis),
        int(resource.ike),
        None if resource.identities is None else str(resource.identities),
    )


_read_address = lru_cache(4096)(Address.from_octets)


def _read_owner(realm: int, address: bytes) -> Owner:
    return Owner(realm, _read_address(address))


def _read_ranges(text: str) -> Ranges:
    return Ranges.parse(text) if text else Ranges(())


def _read_resource(realm: int, address: bytes, held: Iterable[Any]) -> Resource:
    """The inverse of ``_resource``."""
    ports, spis, ike, identities = held
    return Resource(
        realm=realm,
        address=_read_address(address),
        ports=None if ports is None else _read_ranges(ports),
        spis=None if spis is None else _read_ranges(spis),
        ike=bool(ike),
        identities=None if identities is None else _read_ranges(identities),
    )


def _read_tenure(row: sql.TenureRow) -> Tenure:
    return Tenure(
        key=BindingKey(_read_owner(row.owner_realm, row.owner_address), row.bind_id),
        client_id=row.client_id,
        resource=_read_resource(row.realm, row.address, (row.ports, row.spis, row.ike, row.identities)),
        granted_at=row.granted_at,
        ended_at=row.ended_at,
        ending=None if row.ending is None else Ending(row.ending),
        expires_at=row.expires_at,
    )


def _read_held(row: sql.BindingRow, selectors: list[sql.SelectorRow]) -> Held:
    local = Prefix(_read_address(row.address), row.length)
    binding = Binding(
        key=BindingKey(_read_owner(row.owner_realm, row.owner_address), row.bind_id),
        selectors=tuple(
            Selector(
                realm=row.realm,
                local=local,
                kind=None if each.kind is None else Kind(each.kind),
                values=_read_ranges(each.numbers),
                remote=_read_remote(each),
                lent=_read_ranges(each.lent),
            )
            for each in selectors
        ),
        crossing=Tunnel(
            realm=row.tunnel_realm,
            local=_read_address(row.tunnel_local),
            remote=_read_address(row.tunnel_remote),
            kind=TunnelKind(row.tunnel_kind),
            mtu=row.tunnel_mtu,
            checksum=bool(row.tunnel_checksum),
        ),
        device=row.device,
    )
    lease = Lease(
        client_id=row.client_id,
        method=Method(row.method),
        granted_at=row.granted_at,
        expires_at=row.expires_at,
    )
    return Held(binding=binding, lease=lease)


def _read_remote(row: sql.SelectorRow) -> Remote:
    network = None
    if row.remote_address is not None and row.remote_length is not None:
        network = Prefix(_read_address(row.remote_address), row.remote_length)
    return Remote(network=network, port=row.remote_port, admit=Admit(row.admit))
