# SPDX-License-Identifier: BSD-3-Clause
"""The SQL of the SQLite store, of everything but plain leases."""

from __future__ import annotations

from typing import NamedTuple

# What REGISTER writes last is NULL where its batch has no answer: then the old answer stays.
REGISTER = """
INSERT INTO host (realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id,
    port, counter, request, answer)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (realm, address) DO UPDATE SET
    client_id = excluded.client_id, expires_at = excluded.expires_at,
    local_policy = excluded.local_policy, remote_policy = excluded.remote_policy,
    last_bind_id = excluded.last_bind_id,
    port = COALESCE(excluded.port, host.port), counter = COALESCE(excluded.counter, host.counter),
    request = COALESCE(excluded.request, host.request), answer = COALESCE(excluded.answer, host.answer)"""
CLIENT = "SELECT realm, address FROM host WHERE client_id = ?"
UPDATE_HOST = """
UPDATE host SET last_bind_id = MAX(last_bind_id, ?), expires_at = COALESCE(?, expires_at)
WHERE realm = ? AND address = ?"""
ANSWER_HOST = """
UPDATE host SET last_bind_id = MAX(last_bind_id, ?), expires_at = COALESCE(?, expires_at),
    port = ?, counter = ?, request = ?, answer = ?
WHERE realm = ? AND address = ?"""
DEREGISTER = "DELETE FROM host WHERE realm = ? AND address = ?"
_HOST = """
SELECT realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id, port, counter, request, answer
FROM host"""
HOSTS = _HOST + " ORDER BY realm, address"
HOST = _HOST + " WHERE realm = ? AND address = ?"
HOST_COUNT = "SELECT COUNT(*) FROM host"
SOME_HOSTS = "SELECT COUNT(*) FROM (SELECT 1 FROM host LIMIT ?)"

# The answers to who has left, and those of before schema 0003 to who has not (``departed_at`` is NULL).
ANY_ANSWER = "SELECT 1 FROM answer LIMIT 1"
REMEMBER = """
INSERT INTO answer (realm, address, port, counter, request, answer, departed_at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (realm, address) DO UPDATE SET
    port = excluded.port, counter = excluded.counter, request = excluded.request,
    answer = excluded.answer, departed_at = excluded.departed_at"""
KEEP = """
INSERT INTO answer (realm, address, port, counter, request, answer, departed_at)
SELECT realm, address, port, counter, request, answer, ? FROM host
WHERE realm = ? AND address = ? AND answer IS NOT NULL
ON CONFLICT (realm, address) DO UPDATE SET
    port = excluded.port, counter = excluded.counter, request = excluded.request, answer = excluded.answer"""
ARRIVE = "UPDATE answer SET departed_at = NULL WHERE realm = ? AND address = ?"
_WHO_GOES = " WHERE realm = ? AND address = ? AND EXISTS (SELECT 1 FROM host WHERE realm = ? AND address = ?)"
DEPART = "UPDATE answer SET departed_at = ?" + _WHO_GOES  # noqa: S608 - of constants
FORGET = "DELETE FROM answer" + _WHO_GOES  # noqa: S608 - of constants
PRUNE = "DELETE FROM answer WHERE departed_at < ?"
_ANSWERS = "SELECT realm, address, port, counter, request, answer FROM answer"
ANSWERS = _ANSWERS + " WHERE departed_at IS NULL OR departed_at >= ?"
DEPARTED = _ANSWERS + " WHERE departed_at >= ?"
ANSWER = _ANSWERS + " WHERE realm = ? AND address = ?"

PLACE_KEY = "SELECT octets FROM place_key"
GRANT = "UPDATE granting SET last = last + ? RETURNING last"
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
TENURES_DUE = """
SELECT owner_realm, owner_address, expires_at FROM tenure INDEXED BY tenure_due
WHERE ended_at IS NULL AND expires_at < ? ORDER BY expires_at LIMIT ?"""
HOSTS_DUE = "SELECT realm, address, expires_at FROM host WHERE expires_at < ? ORDER BY expires_at LIMIT ?"
SOONEST_TENURE = "SELECT MIN(expires_at) FROM tenure INDEXED BY tenure_due WHERE ended_at IS NULL"
SOONEST_HOST = "SELECT MIN(expires_at) FROM host"
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
ANY_BINDING = "SELECT 1 FROM binding LIMIT 1"
BINDING_COUNT = "SELECT COUNT(*) FROM binding"
SOME_BINDINGS = "SELECT COUNT(*) FROM (SELECT 1 FROM binding LIMIT ?)"
_BINDINGS = """
SELECT b.tenure, t.owner_realm, t.owner_address, t.bind_id, t.client_id, t.method, t.granted_at, t.expires_at,
    t.realm, t.address, t.length,
    b.tunnel_realm, b.tunnel_local, b.tunnel_remote, b.tunnel_kind, b.tunnel_mtu, b.tunnel_checksum, b.device
FROM binding b JOIN tenure t ON t.number = b.tenure"""
BINDINGS = _BINDINGS + " ORDER BY b.tenure"
BINDINGS_OF = _BINDINGS + " WHERE t.owner_realm = ? AND t.owner_address = ? AND t.ended_at IS NULL"
_SELECTORS = "SELECT tenure, kind, numbers, lent, remote_address, remote_length, remote_port, admit FROM selector"
SELECTORS = _SELECTORS + " ORDER BY tenure, ordinal"
SELECTORS_OF = _SELECTORS + " WHERE tenure = ? ORDER BY ordinal"

RESTING = """
SELECT ended_at, number, realm, address, ports, spis, ike, identities FROM tenure
WHERE ended_at >= ? ORDER BY ended_at, number"""
SOME_ENDED = "SELECT COUNT(*) FROM (SELECT 1 FROM tenure WHERE ended_at >= ? LIMIT ?)"
"No more are counted than that."
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

ODD_OWNERS = """
SELECT DISTINCT owner_realm, owner_address FROM tenure
WHERE ended_at IS NULL AND (owner_realm, owner_address) >= (?, ?) ORDER BY owner_realm, owner_address LIMIT ?"""
"Who holds what is not plain."


class Way(NamedTuple):
    """A row of ``way``, without its number."""

    local: bytes
    kind: int
    mtu: int
    admit: int


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
