# SPDX-License-Identifier: BSD-3-Clause
"""Rows into values, for whatever speaks the SQL of ``store.sql``."""

from __future__ import annotations

import heapq
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Ending, Remember
from isthmus.border.plain import PlainGroup, plain_binding
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, resource_of
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.store import Held, Recalled, Snapshot, Tenure, plain_sql, sql
from isthmus.store.entry import WHOLE, owner_columns, place_of
from isthmus.store.holding import not_held

_PORT_SCALES = range(17)
_LOW = 0xFFFFFFFF

Ended = tuple[float, int, Resource]
"""When it ended, its number in the order of granting, and what was given back."""


class Reading:
    """The tables of one store, inside a transaction that somebody else begins and ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a connection."""
        self._connection = connection

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands (see ``LeaseStore``)."""
        held = self.leases()
        hosts = self._rows(sql.HOSTS)
        answers = {each.owner: each for each in self.answers(sql.ANSWERS, (rested_since,))}
        answers |= {each.owner: each for each in map(_read_answer, hosts) if each is not None}
        return Snapshot(
            registrations=tuple(sorted(map(_read_registration, hosts), key=lambda each: each.owner)),
            bindings=held,
            answers=tuple(answers[owner] for owner in sorted(answers)),
            resting=not_held(self.ended(rested_since), (resource_of(each.binding) for each in held)),
        )

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""
        ways, plain = self.ways(), map(plain_sql.PlainRow._make, self._rows(plain_sql.ALL))
        held = [*self.odd(), *(_read_plain(row, ways) for row in plain)]
        return tuple(sorted(held, key=lambda each: each.binding.key))

    def page(self, *, after: BindingKey | None, limit: int) -> tuple[Held, ...]:
        """Some of what is held now (see ``LeaseStore``)."""
        ways, place = self.ways(), (-1, b"", -1) if after is None else place_of(after)
        number = int.from_bytes(place[1], "big") if len(place[1]) == Family.IPV4.bits // 8 else -1
        realm, octets, bind_id = place
        if len(octets) > Family.IPV4.bits // 8:
            # The IPv4 addresses that come after one of IPv6.
            number, bind_id = int.from_bytes(octets[:4], "big"), 1 << 32
        rows = self._rows(plain_sql.PAGE, (realm, number, bind_id, limit))
        found = [_read_plain(plain_sql.PlainRow._make(row), ways) for row in rows]
        for owner in self._rows(sql.ODD_OWNERS, (realm, octets, limit + 1)):
            found += (each for each in self._odd_of((owner[0], owner[1])) if place_of(each.binding.key) > place)
        return tuple(sorted(found, key=lambda each: place_of(each.binding.key))[:limit])

    def odd(self) -> list[Held]:
        """What is held now and no row of ``plain``."""
        selectors: dict[int, list[sql.SelectorRow]] = {}
        for raw in self._rows(sql.SELECTORS):
            row = sql.SelectorRow._make(raw)
            selectors.setdefault(row.tenure, []).append(row)
        bindings = map(sql.BindingRow._make, self._rows(sql.BINDINGS))
        return [_read_held(row, selectors[row.tenure]) for row in bindings]

    def ways(self) -> dict[int, sql.Way]:
        """What tunnels of plain leases have in common, by number."""
        return {number: sql.Way(*columns) for number, *columns in self._rows(plain_sql.WAYS)}

    def recall(self, owners: Sequence[Owner]) -> Recalled:
        """Read what stands of some hosts (see ``LeaseStore``)."""
        ways, odd = self.ways(), bool(self._rows(sql.ANY_BINDING))
        registrations: list[Registration] = []
        held: list[Held] = []
        answers: list[Remember] = []
        for owner in sorted(set(owners)):
            columns = owner_columns(owner)
            hosts = self._rows(sql.HOST, columns)
            registrations += map(_read_registration, hosts)
            answer = _read_answer(hosts[0]) if hosts else None
            answers += [answer] if answer is not None else self.answers(sql.ANSWER, columns)
            mine: list[Held] = []
            if owner.address.family is Family.IPV4:
                rows = self._rows(plain_sql.OF_OWNER, (owner.realm, owner.address.number))
                mine += (_read_plain(plain_sql.PlainRow._make(row), ways) for row in rows)
            if odd:
                mine += self._odd_of(columns)
                mine.sort(key=lambda each: each.binding.key)
            held += mine
        return Recalled(registrations=tuple(registrations), bindings=tuple(held), answers=tuple(answers))

    def due(self, *, before: float, limit: int) -> tuple[Owner, ...]:
        """Tell whose deadline is before a time, soonest first (see ``LeaseStore``)."""
        sources = [
            [(at, _ipv4_owner(near, owner)) for near, owner, at in self._rows(plain_sql.DUE, (before, limit))],
            *(
                [(at, _read_owner(realm, address)) for realm, address, at in self._rows(statement, (before, limit))]
                for statement in (sql.TENURES_DUE, sql.HOSTS_DUE)
            ),
        ]
        return tuple(dict.fromkeys(owner for _, owner in heapq.merge(*sources)))[:limit]

    def soonest(self) -> float | None:
        """The soonest deadline of a binding or a registration."""
        found = [self._rows(each)[0][0] for each in (plain_sql.SOONEST, sql.SOONEST_TENURE, sql.SOONEST_HOST)]
        return min((each for each in found if each is not None), default=None)

    def holders(self, address: Address, port: int | None) -> tuple[BindingKey, ...]:
        """Tell which bindings hold an address, or a port of it, now (see ``LeaseStore``)."""
        tenures = self.who_had(address, port=port, held=True)
        return tuple(sorted(each.key for each in tenures))

    def held_count(self) -> int:
        """How many bindings stand."""
        return sum(int(self._rows(each)[0][0]) for each in (plain_sql.COUNT, sql.BINDING_COUNT))

    def registered_count(self) -> int:
        """How many hosts are registered."""
        return int(self._rows(sql.HOST_COUNT)[0][0])

    def has_more(self, than: int, *, ended_since: float) -> bool:
        """Tell whether there is more than so much of anything (see ``LeaseStore``)."""
        hosts, plain, odd = (
            self._rows(each, (than + 1,)) for each in (sql.SOME_HOSTS, plain_sql.SOME, sql.SOME_BINDINGS)
        )
        both = (self._rows(each, (ended_since, than + 1)) for each in (plain_sql.SOME_ENDED, sql.SOME_ENDED))
        counts = [int(rows[0][0]) for rows in (hosts, plain, odd, *both)]
        return max(counts[0], counts[1] + counts[2], counts[3] + counts[4]) > than

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""
        rows = self._rows(sql.CLIENT, (client_id,))
        return _read_owner(*rows[0]) if rows else None

    def answers(self, statement: str, values: tuple[Any, ...]) -> list[Remember]:
        """The last answers that have no place beside a registration."""
        return [
            Remember(owner=_read_owner(realm, address), port=port, counter=counter, request=request, answer=answer)
            for realm, address, port, counter, request, answer in self._rows(statement, values)
        ]

    def ended(self, since: float) -> list[tuple[float, Resource]]:
        """What was given back at or after a time, oldest first."""
        past = (
            (at, number, _ports(realm, address, first, last))
            for at, number, realm, address, first, last in self._rows(plain_sql.RESTING, (since,))
        )
        found = heapq.merge(self.odd_ended(since), past, key=lambda each: each[:2])
        return [(at, resource) for at, _, resource in found]

    def odd_ended(self, since: float) -> list[Ended]:
        """What was given back at or after a time and is no row of ``past``, oldest first."""
        return [
            (ended_at, number, _read_resource(realm, address, each))
            for ended_at, number, realm, address, *each in self._rows(sql.RESTING, (since,))
        ]

    def who_had(
        self, address: Address, *, port: int | None, at: float | None = None, held: bool = False
    ) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it, as written down (see ``LeaseStore``).

        Args:
            address: In whatever realm.
            port: None: all of it.
            at: Seconds since 1970; None: ever.
            held: Only who holds it still.
        """
        # Without a time: granted before the end of time, and not ended before its beginning.
        times = (math.inf, -math.inf) if at is None else (at, at)
        found: dict[int, Tenure] = {}
        for statement, values in _searches(address, port):
            for raw in self._rows(statement, (*values, *times)):
                row = sql.TenureRow._make(raw)
                found[row.number] = _read_tenure(row)
        if address.family is Family.IPV4:
            found |= self._plain_held(address.number, port, *times)
            if not held:
                found |= self._plain_past(address.number, port, *times)
        newest_first = sorted(found.items(), key=lambda each: (each[1].granted_at, each[0]), reverse=True)
        return tuple(tenure for _, tenure in newest_first if not held or tenure.ended_at is None)

    def _plain_held(self, address: int, port: int | None, begun: float, until: float) -> dict[int, Tenure]:
        first, last = (0, 0xFFFF) if port is None else (port, port)
        found: dict[int, Tenure] = {}
        at_least = 0
        while rows := self._rows(plain_sql.NEXT_PLACE, (at_least,)):
            realm = rows[0][0] >> 48
            at_least = realm + 1 << 48
            place = realm << 48 | address << 16
            # What holds the port begins at most 65535 before it; and nothing held lies across what is held.
            if port is None:
                held = self._rows(plain_sql.OVER, (place, place | last))
            else:
                held = self._rows(plain_sql.UP_TO, (place | last, place | first))
            for row in map(plain_sql.PlainRow._make, held):
                if row.granted_at <= begun and row.expires_at > until:
                    found[row.number] = Tenure(
                        key=BindingKey(_ipv4_owner(row.near, row.owner), row.bind_id),
                        client_id=row.client_id,
                        resource=_ports(realm, address, row.place & 0xFFFF, row.last & 0xFFFF),
                        granted_at=row.granted_at,
                        ended_at=None,
                        ending=None,
                        expires_at=row.expires_at,
                    )
        return found

    def _plain_past(self, address: int, port: int | None, begun: float, until: float) -> dict[int, Tenure]:
        rows: list[tuple[Any, ...]] = []
        if port is None:
            rows = self._rows(plain_sql.HAD_ANY, (address, begun, until))
        else:
            for scale in _PORT_SCALES:
                lowest = port - (1 << scale) + 1
                rows += self._rows(plain_sql.HAD, (address, scale, lowest, port, port, begun, until))
        return {
            row.number: Tenure(
                key=BindingKey(_ipv4_owner(row.near, row.owner), row.bind_id),
                client_id=row.client_id,
                resource=_ports(row.realm, row.address, row.first, row.last),
                granted_at=row.granted_at,
                ended_at=row.ended_at,
                ending=Ending(row.ending),
                expires_at=row.expires_at,
            )
            for row in map(plain_sql.PastRow._make, rows)
        }

    def _odd_of(self, owner: tuple[int, bytes]) -> list[Held]:
        found = []
        for row in map(sql.BindingRow._make, self._rows(sql.BINDINGS_OF, owner)):
            selectors = map(sql.SelectorRow._make, self._rows(sql.SELECTORS_OF, (row.tenure,)))
            found.append(_read_held(row, list(selectors)))
        return found

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement to its end: one half read keeps a commit waiting."""
        return self._connection.execute(statement, values).fetchall()


def _searches(address: Address, port: int | None) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Everything to look up for one address in the tenures that are not plain: around it, and of it."""
    family = address.family
    for length in range(family.bits):
        shift = family.bits - length
        around = Address(family, address.number >> shift << shift)
        yield sql.WHO_HAD_ANY, (around.octets, length)
    if port is None:
        yield sql.WHO_HAD_ANY, (address.octets, family.bits)
        return
    yield sql.WHO_HAD, (address.octets, family.bits, WHOLE, 0, 0, 0, 0)
    for scale in _PORT_SCALES:
        lowest = port - (1 << scale) + 1
        yield sql.WHO_HAD, (address.octets, family.bits, Kind.PORT, scale, lowest, port, port)


_read_address = lru_cache(4096)(Address.from_octets)


def _read_owner(realm: int, address: bytes) -> Owner:
    return Owner(realm, Address.from_octets(address))


def _ipv4_owner(near: int, number: int) -> Owner:
    return Owner(near, Address(Family.IPV4, number))


def _ports(realm: int, address: int, first: int, last: int) -> Resource:
    return Resource(realm=realm, address=Address(Family.IPV4, address), ports=Ranges(((first, last),)))


def _read_registration(row: tuple[Any, ...]) -> Registration:
    realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id, *_ = row
    return Registration(
        owner=_read_owner(realm, address),
        client_id=client_id,
        expires_at=expires_at,
        local_policy=local_policy,
        remote_policy=remote_policy,
        last_bind_id=last_bind_id,
    )


def _read_answer(row: tuple[Any, ...]) -> Remember | None:
    realm, address, *_, port, counter, request, answer = row
    if answer is None:
        return None
    return Remember(owner=_read_owner(realm, address), port=port, counter=counter, request=request, answer=answer)


def read_registrations(rows: Iterable[tuple[Any, ...]]) -> tuple[Registration, ...]:
    """Registrations from rows of ``host``."""
    return tuple(map(_read_registration, rows))


def group(way: sql.Way, *, realm: int, near: int) -> PlainGroup:
    """What plain leases of one way and of two realms have in common."""
    return PlainGroup(
        realm=realm,
        near=near,
        end=_read_address(way.local),
        kind=TunnelKind(way.kind),
        mtu=way.mtu,
        admit=Admit(way.admit),
    )


def _read_plain(row: plain_sql.PlainRow, ways: dict[int, sql.Way]) -> Held:
    binding = plain_binding(
        group(ways[row.way], realm=row.place >> 48, near=row.near),
        local=row.place >> 16 & _LOW,
        values=Ranges(((row.place & 0xFFFF, row.last & 0xFFFF),)),
        owner=row.owner,
        bind_id=row.bind_id,
    )
    lease = Lease(
        client_id=row.client_id, method=Method(row.method), granted_at=row.granted_at, expires_at=row.expires_at
    )
    return Held(binding=binding, lease=lease)


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
