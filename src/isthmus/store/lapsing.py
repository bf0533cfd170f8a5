# SPDX-License-Identifier: BSD-3-Clause
"""What runs out, as columns: hosts of which a store knows nothing but plain leases."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.address import Family
from isthmus.border.binding import Owner
from isthmus.border.plain import LapsingHosts, PlainLeases
from isthmus.store import Lapsing, LapsingMark, Recalled, plain_sql
from isthmus.store.columns import PLAIN_ROW, plain_columns, plain_of
from isthmus.store.reading import Reading

_HOST_ROW = np.dtype([("address", "u4"), ("client_id", "u4"), ("port", "u2"), ("gone", "?")])
_PLACE, _DEADLINE, _HOST_DEADLINE = 5, 10, 11
"Columns of ``plain_sql.LAPSING`` and ``GONE``."
_BEGINNING = LapsingMark(stays=False, deadline=-math.inf, number=0)
_Rows = list[tuple[Any, ...]]


def is_host(owner: Owner, near: int) -> bool:
    """Whether somebody is an IPv4 host of a realm."""
    return owner.realm == near and owner.address.family is Family.IPV4


def lapsing_of(kept: Recalled, near: int, *, before: float, after: LapsingMark | None) -> Lapsing:
    """Sort what was recalled; see ``LeaseStore.lapsing``."""
    plain, odd = plain_of(kept.bindings)
    others = {each.binding.key.owner for each in odd}
    ports = {each.owner: each.port for each in kept.answers}
    hosts = np.array(
        [
            (each.owner.address.number, each.client_id, ports[each.owner], each.expires_at < before)
            for each in kept.registrations
            if is_host(each.owner, near) and each.owner in ports and each.owner not in others
        ],
        _HOST_ROW,
    )
    gone = hosts["address"][hosts["gone"]]
    ours = [each.at(np.isin(each.owner, hosts["address"])) for each in plain if each.group.near == near]
    due = [each.at((each.expires_at < before) | np.isin(each.owner, gone)) for each in ours]
    concerned = np.concatenate([gone, *(each.owner for each in due)])
    return _lapsing(near, hosts[np.isin(hosts["address"], concerned)], due, after)


def read_lapsing(
    connection: sqlite3.Connection,
    tables: Reading,
    near: int,
    *,
    before: float,
    limit: int,
    after: LapsingMark | None,
) -> Lapsing:
    """Read what runs out from tables; see ``LeaseStore.lapsing``.

    Args:
        connection: Where the tables are, in a transaction.
        tables: The same.
        near: Number of the realm.
        before: What has its deadline before this runs out.
        limit: Hosts, and leases of others, at a time.
        after: What comes after this.
    """
    connection.create_function("ipv4", 1, _number, deterministic=True)
    connection.create_function("octets", 1, _octets, deterministic=True)
    mark = after or _BEGINNING
    rows: _Rows = []
    found = 0

    def read(statement: str, mark: LapsingMark) -> _Rows:
        at = {"at": mark.deadline, "number": mark.number}
        values = {"near": near, "before": before, "limit": limit - found, **at}
        return connection.execute(statement, values).fetchall()

    if not mark.stays:
        rows = read(plain_sql.GONE, mark)
        found = len({row[0] for row in rows})
        if found < limit:
            mark = replace(_BEGINNING, stays=True)
        else:
            mark = LapsingMark(stays=False, deadline=rows[-1][_HOST_DEADLINE], number=_number(rows[-1][0]))
    end = mark.stays
    if mark.stays:
        leases = read(plain_sql.LAPSING, mark)
        end = len(leases) < limit - found
        if leases:
            mark = LapsingMark(stays=True, deadline=leases[-1][_DEADLINE], number=leases[-1][_PLACE])
        rows += [(*row[:3], False, *row[4:]) for row in leases if row[3]]
    hosts = {row[0]: (_number(row[0]), *row[1:4]) for row in rows}
    held = np.array([row[4:_HOST_DEADLINE] for row in rows if row[4] is not None], PLAIN_ROW)
    columns = plain_columns(held, tables.ways())
    return _lapsing(near, np.array(list(hosts.values()), _HOST_ROW), columns, None if end else mark)


def _lapsing(near: int, hosts: NDArray[np.void], leases: Iterable[PlainLeases], after: LapsingMark | None) -> Lapsing:
    columns = LapsingHosts(
        near=near,
        address=hosts["address"].copy(),
        client_id=hosts["client_id"].copy(),
        port=hosts["port"].copy(),
        gone=hosts["gone"].copy(),
    )
    return Lapsing(hosts=columns, leases=tuple(each for each in leases if len(each)), after=after)


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _octets(number: int) -> bytes:
    return number.to_bytes(4, "big")
