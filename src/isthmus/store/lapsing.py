# SPDX-License-Identifier: BSD-3-Clause
"""What runs out, as columns: hosts of which a store knows nothing but plain leases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from isthmus.address import Family
from isthmus.border.plain import LapsingHosts, PlainLeases
from isthmus.store import Lapsing, Recalled, plain_sql
from isthmus.store.columns import PLAIN_ROW, plain_columns, plain_of
from isthmus.store.reading import Reading

_HOST_ROW = np.dtype([("address", "u4"), ("client_id", "u4"), ("port", "u2"), ("gone", "?")])


def lapsing_of(kept: Recalled, near: int, *, before: float) -> Lapsing:
    """Sort what was recalled; see ``LeaseStore.lapsing``."""
    plain, odd = plain_of(kept.bindings)
    others = {each.binding.key.owner for each in odd}
    ports = {each.owner: each.port for each in kept.answers}
    hosts = np.array(
        [
            (each.owner.address.number, each.client_id, ports[each.owner], each.expires_at < before)
            for each in kept.registrations
            if each.owner.realm == near and each.owner.address.family is Family.IPV4
            if each.owner in ports and each.owner not in others
        ],
        _HOST_ROW,
    )
    gone = hosts["address"][hosts["gone"]]
    ours = [each.at(np.isin(each.owner, hosts["address"])) for each in plain if each.group.near == near]
    due = [each.at((each.expires_at < before) | np.isin(each.owner, gone)) for each in ours]
    concerned = np.concatenate([gone, *(each.owner for each in due)])
    return _lapsing(near, hosts[np.isin(hosts["address"], concerned)], due)


def read_lapsing(connection: sqlite3.Connection, tables: Reading, near: int, *, before: float, limit: int) -> Lapsing:
    """Read what runs out from tables; see ``LeaseStore.lapsing``.

    Args:
        connection: Where the tables are, in a transaction.
        tables: The same.
        near: Number of the realm.
        before: What has its deadline before this runs out.
        limit: Hosts, and leases of others, at a time.
    """
    connection.create_function("ipv4", 1, _number, deterministic=True)
    connection.create_function("octets", 1, _octets, deterministic=True)
    values = {"near": near, "before": before, "limit": limit}
    rows = connection.execute(plain_sql.GONE, values).fetchall()
    if len(rows) < limit:
        rows += connection.execute(plain_sql.LAPSING, values).fetchall()
    hosts = {row[0]: (_number(row[0]), *row[1:4]) for row in rows}
    held = np.array([row[4:] for row in rows if row[4] is not None], PLAIN_ROW)
    return _lapsing(near, np.array(list(hosts.values()), _HOST_ROW), plain_columns(held, tables.ways()))


def _lapsing(near: int, hosts: NDArray[np.void], leases: Iterable[PlainLeases]) -> Lapsing:
    columns = LapsingHosts(
        near=near,
        address=hosts["address"].copy(),
        client_id=hosts["client_id"].copy(),
        port=hosts["port"].copy(),
        gone=hosts["gone"].copy(),
    )
    return Lapsing(hosts=columns, leases=tuple(each for each in leases if len(each)))


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _octets(number: int) -> bytes:
    return number.to_bytes(4, "big")
