# SPDX-License-Identifier: BSD-3-Clause
"""What stands as columns: from objects, and from tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from isthmus.address import Family
from isthmus.border.binding import Registration
from isthmus.border.effect import Remember
from isthmus.border.plain import PlainGroup, PlainLeases, PlainRow, group_of
from isthmus.border.resource import Resource
from isthmus.store import Held, HostColumns, RestColumns, Standing, plain_sql, sql
from isthmus.store.reading import Reading, group, read_registrations

_AT_ONCE = 1 << 16
"Rows that are read as one."
_LAST_PLACE = (1 << 63) - 1
_LAST_ADDRESS = b"\xff" * 17
"After every address."
_AllHosts = tuple[tuple[HostColumns, ...], tuple[Registration, ...]]
_Rest = tuple[int, int, int, float]


def standing_of(
    *,
    registrations: Iterable[Registration],
    held: Iterable[Held],
    departed: Sequence[Remember],
    ended: Iterable[tuple[float, Resource]],
) -> Standing:
    """Sort what stands into columns and what fits none.

    Args:
        registrations: By owner.
        held: By owner and bind ID.
        departed: The answers to who is gone, by owner.
        ended: What was given back and when, oldest first.
    """
    everybody, everything = tuple(registrations), tuple(held)
    plain, odd = plain_of(everything)
    hosts, other_hosts = hosts_of(everybody)
    resting, odd_resting = resting_of(ended)
    return Standing(
        plain=plain,
        odd=odd,
        hosts=hosts,
        other_hosts=other_hosts,
        departed=tuple(departed),
        resting=resting,
        odd_resting=odd_resting,
    )


def read_standing(
    connection: sqlite3.Connection, another: sqlite3.Connection, tables: Reading, *, rested_since: float
) -> Standing:
    """Read what stands from tables, without an object for each lease (see ``LeaseStore``).

    Args:
        connection: Where the tables are, in a transaction.
        another: One more to the same tables, which a thread reads through: SQLite works without the interpreter.
        tables: What ``connection`` leads to.
        rested_since: As for ``LeaseStore.load``.
    """
    with ThreadPoolExecutor(1, "read-hosts") as thread:
        hosts = thread.submit(lambda: (tuple(_read_hosts(another)), _read_other_hosts(another)))
        return _read_standing(connection, tables, hosts, rested_since)


def _read_standing(
    connection: sqlite3.Connection, tables: Reading, hosts: Future[_AllHosts], rested_since: float
) -> Standing:
    plain = tuple(_read_plain(connection, tables))
    odd_plain, odd = plain_of(sorted(tables.odd(), key=lambda each: each.binding.key))
    resting, odd_resting = resting_of((at, each) for at, _, each in tables.odd_ended(rested_since))
    return Standing(
        plain=(*plain, *odd_plain),
        odd=odd,
        hosts=hosts.result()[0],
        other_hosts=hosts.result()[1],
        departed=tuple(sorted(tables.answers(sql.DEPARTED, (rested_since,)), key=lambda each: each.owner)),
        resting=(*_read_resting(connection, rested_since), *resting),
        odd_resting=odd_resting,
    )


PLAIN_ROW = np.dtype(
    [("way", "u4"), ("place", "u8"), ("last", "u8"), ("near", "u4"), ("owner", "u4"), ("bind_id", "u4"), ("at", "f8")]
)
_REST_ROW = np.dtype(
    [("at", "f8"), ("number", "u8"), ("realm", "u4"), ("local", "u4"), ("first", "u2"), ("last", "u2")]
)


def _read_plain(connection: sqlite3.Connection, tables: Reading) -> Iterator[PlainLeases]:
    parts = [_read_places(connection, *each) for each in _place_ranges(connection)]
    return plain_columns(np.concatenate(parts), tables.ways())


def _place_ranges(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Places after the one and up to the other, of so many leases that their text does not take much memory."""
    after = -1
    while True:
        rows = connection.execute(plain_sql.PLACE_AFTER, (after, _AT_ONCE - 1)).fetchall()
        last = rows[0][0] if rows else _LAST_PLACE
        yield after, last
        if not rows:
            return
        after = last


def _read_places(connection: sqlite3.Connection, after: int, last: int) -> NDArray[np.void]:
    ((count, least, most, inexact, *texts),) = connection.execute(plain_sql.PLACES_AS_TEXT, (after, last)).fetchall()
    if count and (least != most or inexact):
        return np.array(connection.execute(plain_sql.PLACES, (after, last)).fetchall(), PLAIN_ROW)
    rows = np.empty(count, PLAIN_ROW)
    if count:
        places, lengths, owners, ticks = (_numbers(each) for each in texts)
        rows["way"], rows["near"] = least >> 32, least & 0xFFFFFFFF
        rows["place"], rows["last"], rows["bind_id"] = places, places + (lengths & 0xFFFF), lengths >> 16
        rows["owner"], rows["at"] = owners, ticks / plain_sql.TICKS
    return rows


def _numbers(text: str) -> NDArray[np.int64]:
    return np.fromstring(text, np.int64, sep=",")


def plain_columns(rows: NDArray[np.void], ways: dict[int, sql.Way]) -> Iterator[PlainLeases]:
    """Plain leases by group.

    Args:
        rows: Of ``PLAIN_ROW``.
        ways: By number.
    """
    realm = rows["place"] >> np.uint64(48)
    # One number for what a group has in common besides its way: realms have less than 2^15 and 2^32.
    common = realm << np.uint64(32) | rows["near"].astype(np.uint64)
    for number in np.unique(rows["way"]):
        of_way = rows["way"] == number
        for both in np.unique(common[of_way]):
            some = rows[of_way & (common == both)]
            place = some["place"]
            yield PlainLeases(
                group=group(ways[int(number)], realm=int(both) >> 32, near=int(both) & 0xFFFFFFFF),
                local=(place >> np.uint64(16)).astype(np.uint32),
                first=place.astype(np.uint16),
                ports=(some["last"] - place + np.uint64(1)).astype(np.uint32),
                owner=some["owner"].copy(),
                bind_id=some["bind_id"].copy(),
                expires_at=some["at"].copy(),
            )


def _read_hosts(connection: sqlite3.Connection) -> Iterator[HostColumns]:
    realm = -1
    while True:
        ((realm,),) = connection.execute(plain_sql.REALM_AFTER, (realm,)).fetchall()
        if realm is None:
            return
        parts = list(_read_hosts_of(connection, realm))
        if parts:
            address, client_id = (np.concatenate(each) for each in zip(*parts, strict=True))
            yield HostColumns(near=realm, address=address, client_id=client_id)


def _read_hosts_of(
    connection: sqlite3.Connection, realm: int
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
    after = b""
    while True:
        rows = connection.execute(plain_sql.HOST_AFTER, (realm, after, _AT_ONCE - 1)).fetchall()
        last = rows[0][0] if rows else _LAST_ADDRESS
        ((octets, text),) = connection.execute(plain_sql.HOSTS_AS_TEXT, (realm, after, last)).fetchall()
        if text is not None:
            yield np.frombuffer(octets, ">u4").astype(np.uint32), _numbers(text).astype(np.uint32)
        if not rows:
            return
        after = last


def _read_other_hosts(connection: sqlite3.Connection) -> tuple[Registration, ...]:
    return read_registrations(connection.execute(plain_sql.OTHER_HOSTS))


def _read_resting(connection: sqlite3.Connection, since: float) -> Iterator[RestColumns]:
    rows = np.fromiter(connection.execute(plain_sql.RESTING, (since,)), _REST_ROW)
    for realm in np.unique(rows["realm"]):
        some = rows[rows["realm"] == realm]
        yield RestColumns(
            realm=int(realm),
            local=some["local"].copy(),
            first=some["first"].copy(),
            ports=some["last"].astype(np.uint32) - some["first"] + np.uint32(1),
            ended_at=some["at"].copy(),
        )


def plain_of(held: Iterable[Held]) -> tuple[tuple[PlainLeases, ...], tuple[Held, ...]]:
    """The leases that are plain, by group, and the others."""
    plain: dict[PlainGroup, list[PlainRow]] = {}
    odd: list[Held] = []
    for each in held:
        binding = each.binding
        group = group_of(binding)
        if group is None:
            odd.append(each)
            continue
        ((first, last),) = binding.selectors[0].values.pairs
        owner = binding.key.owner.address.number
        row = (binding.address.number, first, last - first + 1, owner, binding.key.bind_id, each.lease.expires_at)
        plain.setdefault(group, []).append(row)
    return tuple(PlainLeases.of_rows(group, rows) for group, rows in plain.items()), tuple(odd)


def hosts_of(registrations: Iterable[Registration]) -> tuple[tuple[HostColumns, ...], tuple[Registration, ...]]:
    """The hosts with IPv4 addresses, by realm, and the registrations of the others."""
    hosts: dict[int, list[tuple[int, int]]] = {}
    others: list[Registration] = []
    for each in registrations:
        if each.owner.address.family is Family.IPV4:
            hosts.setdefault(each.owner.realm, []).append((each.owner.address.number, each.client_id))
        else:
            others.append(each)
    return tuple(_hosts(near, rows) for near, rows in hosts.items()), tuple(others)


def resting_of(
    ended: Iterable[tuple[float, Resource]],
) -> tuple[tuple[RestColumns, ...], tuple[tuple[float, Resource], ...]]:
    """What was given back in single runs of ports of IPv4 addresses, by realm, and the rest of it."""
    plain: dict[int, list[_Rest]] = {}
    odd: list[tuple[float, Resource]] = []
    for at, each in ended:
        ports = each.ports
        alone = each.spis is None and each.identities is None and not each.ike
        if ports is not None and len(ports.pairs) == 1 and alone and each.address.family is Family.IPV4:
            ((first, last),) = ports.pairs
            plain.setdefault(each.realm, []).append((each.address.number, first, last - first + 1, at))
        else:
            odd.append((at, each))
    return tuple(_rest(realm, rows) for realm, rows in plain.items()), tuple(odd)


def _hosts(near: int, rows: list[tuple[int, int]]) -> HostColumns:
    address, client_id = zip(*rows, strict=True)
    return HostColumns(near=near, address=np.array(address, np.uint32), client_id=np.array(client_id, np.uint32))


def _rest(realm: int, rows: list[_Rest]) -> RestColumns:
    local, first, ports, ended_at = zip(*rows, strict=True)
    return RestColumns(
        realm=realm,
        local=np.array(local, np.uint32),
        first=np.array(first, np.uint16),
        ports=np.array(ports, np.uint32),
        ended_at=np.array(ended_at, np.float64),
    )
