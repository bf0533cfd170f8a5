# SPDX-License-Identifier: BSD-3-Clause
"""The SQL of the lease stores: statements that SQLite and PostgreSQL both take.

A ``?`` stands for a value, as sqlite3 has it; another driver's mark is a ``str.replace`` away.
"""

from __future__ import annotations

from typing import NamedTuple

REGISTER = """
INSERT INTO registration (realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (realm, address) DO UPDATE SET
    client_id = excluded.client_id, expires_at = excluded.expires_at,
    local_policy = excluded.local_policy, remote_policy = excluded.remote_policy,
    last_bind_id = excluded.last_bind_id"""
LAST_BIND_ID = "UPDATE registration SET last_bind_id = ? WHERE realm = ? AND address = ? AND last_bind_id < ?"
CLIENT = "SELECT realm, address FROM registration WHERE client_id = ?"
PROLONG = "UPDATE registration SET expires_at = ? WHERE realm = ? AND address = ?"
DEREGISTER = "DELETE FROM registration WHERE realm = ? AND address = ? RETURNING client_id"
REGISTRATIONS = """
SELECT realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id FROM registration"""

REMEMBER = """
INSERT INTO answer (realm, address, port, counter, request, answer, departed_at)
VALUES (?, ?, ?, ?, ?, ?,
    CASE WHEN EXISTS (SELECT 1 FROM registration WHERE realm = ? AND address = ?) THEN NULL ELSE ? END)
ON CONFLICT (realm, address) DO UPDATE SET
    port = excluded.port, counter = excluded.counter, request = excluded.request,
    answer = excluded.answer, departed_at = excluded.departed_at"""
ARRIVE = "UPDATE answer SET departed_at = NULL WHERE realm = ? AND address = ? AND departed_at IS NOT NULL"
DEPART = "UPDATE answer SET departed_at = ? WHERE realm = ? AND address = ?"
FORGET = "DELETE FROM answer WHERE realm = ? AND address = ?"
PRUNE = "DELETE FROM answer WHERE departed_at < ?"
ANSWERS = """
SELECT realm, address, port, counter, request, answer FROM answer WHERE departed_at IS NULL OR departed_at >= ?"""

LAST_TENURE = "SELECT COALESCE(MAX(number), 0) FROM tenure"
HELD_TENURE = """
SELECT number, client_id, realm, address, length, ports, spis, ike, identities, granted_at, expires_at FROM tenure
WHERE owner_realm = ? AND owner_address = ? AND bind_id = ? AND ended_at IS NULL"""
BEGIN_TENURE = """
INSERT INTO tenure (number, owner_realm, owner_address, bind_id, client_id, method, realm, address, length,
    ports, spis, ike, identities, granted_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
ADD_RANGE = "INSERT INTO tenure_range (tenure, address, length, kind, scale, first, last) VALUES (?, ?, ?, ?, ?, ?, ?)"
RENEW_TENURE = "UPDATE tenure SET method = ?, expires_at = ? WHERE number = ?"
EXTEND = """
UPDATE tenure SET expires_at = ?
WHERE owner_realm = ? AND owner_address = ? AND bind_id = ? AND ended_at IS NULL"""
END_TENURE = "UPDATE tenure SET ended_at = ?, ending = ? WHERE number = ?"

HOLDER = """
SELECT last FROM holding WHERE realm = ? AND address = ? AND length = ? AND kind = ? AND first <= ?
ORDER BY first DESC LIMIT 1"""
BIND = """
INSERT INTO binding (tenure, tunnel_realm, tunnel_local, tunnel_remote, tunnel_kind, tunnel_mtu, tunnel_checksum,
    device)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
ADD_SELECTOR = """
INSERT INTO selector (tenure, ordinal, kind, numbers, lent, remote_address, remote_length, remote_port, admit)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
ADD_HOLDING = "INSERT INTO holding (realm, address, length, kind, first, last, tenure) VALUES (?, ?, ?, ?, ?, ?, ?)"
UNBIND = "DELETE FROM binding WHERE tenure = ?"
BINDINGS = """
SELECT b.tenure, t.owner_realm, t.owner_address, t.bind_id, t.client_id, t.method, t.granted_at, t.expires_at,
    t.realm, t.address, t.length,
    b.tunnel_realm, b.tunnel_local, b.tunnel_remote, b.tunnel_kind, b.tunnel_mtu, b.tunnel_checksum, b.device
FROM binding b JOIN tenure t ON t.number = b.tenure ORDER BY b.tenure"""
SELECTORS = """
SELECT tenure, kind, numbers, lent, remote_address, remote_length, remote_port, admit
FROM selector ORDER BY tenure, ordinal"""

RESTING = """
SELECT ended_at, realm, address, ports, spis, ike, identities FROM tenure
WHERE ended_at >= ? ORDER BY ended_at, number"""
_TENURE = """
SELECT t.number, t.owner_realm, t.owner_address, t.bind_id, t.client_id, t.realm, t.address, t.ports, t.spis,
    t.ike, t.identities, t.granted_at, t.ended_at, t.ending, t.expires_at
FROM tenure_range r JOIN tenure t ON t.number = r.tenure
WHERE r.address = ? AND r.length = ?"""
_AT = " AND t.granted_at <= ? AND COALESCE(t.ended_at, t.expires_at) > ?"
WHO_HAD_ANY = _TENURE + _AT
"Whatever was held of a prefix."
WHO_HAD = _TENURE + " AND r.kind = ? AND r.scale = ? AND r.first BETWEEN ? AND ? AND r.last >= ?" + _AT
"Whose ranges of one kind and scale held a number."


class HeldTenure(NamedTuple):
    """A row of HELD_TENURE."""

    number: int
    client_id: int
    realm: int
    address: bytes
    length: int
    ports: str | None
    spis: str | None
    ike: int
    identities: str | None
    granted_at: float
    expires_at: float


class BindingRow(NamedTuple):
    """A row of BINDINGS."""

    tenure: int
    owner_realm: int
    owner_address: bytes
    bind_id: int
    client_id: int
    method: int
    granted_at: float
    expires_at: float
    realm: int
    address: bytes
    length: int
    tunnel_realm: int
    tunnel_local: bytes
    tunnel_remote: bytes
    tunnel_kind: int
    tunnel_mtu: int
    tunnel_checksum: int
    device: str | None


class SelectorRow(NamedTuple):
    """A row of SELECTORS."""

    tenure: int
    kind: int | None
    numbers: str
    lent: str
    remote_address: bytes | None
    remote_length: int | None
    remote_port: int | None
    admit: int


class TenureRow(NamedTuple):
    """A row of WHO_HAD and WHO_HAD_ANY."""

    number: int
    owner_realm: int
    owner_address: bytes
    bind_id: int
    client_id: int
    realm: int
    address: bytes
    ports: str | None
    spis: str | None
    ike: int
    identities: str | None
    granted_at: float
    ended_at: float | None
    ending: str | None
    expires_at: float
