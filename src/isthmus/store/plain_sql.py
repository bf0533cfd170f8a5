# SPDX-License-Identifier: BSD-3-Clause
"""The SQL of plain leases: see ``schema/0003_plain_leases.sql`` for places, scales and ways."""

from __future__ import annotations

from typing import Any, NamedTuple

from isthmus.border.ranges import Ranges

COUNT = "SELECT COUNT(*) FROM plain"
SOME = "SELECT COUNT(*) FROM (SELECT 1 FROM plain LIMIT ?)"
"No more are counted than that."
WAYS = "SELECT number, local, kind, mtu, admit FROM way"
ADD_WAY = "INSERT INTO way (local, kind, mtu, admit) VALUES (?, ?, ?, ?) RETURNING number"

# The leases that are held overlap nowhere: so only the one that begins last up to its end can lie across a new one.
_FREE = """
(SELECT before.last FROM plain before WHERE before.place <= ?2 ORDER BY before.place DESC LIMIT 1) < ?1"""
_BIND = """
INSERT INTO plain (place, last, near, owner, bind_id, client_id, method, way, granted_at, expires_at, scale, number)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12"""
BIND = _BIND + " WHERE COALESCE(" + _FREE + ", 1)"
"Adds no row where another plain lease lies; fails if the key holds one."
HOLDER = "SELECT last FROM plain WHERE place <= ? ORDER BY place DESC LIMIT 1"
_OF_KEY = " WHERE near = ? AND owner = ? AND bind_id = ?"
_COLUMNS = "SELECT place, last, near, owner, bind_id, client_id, method, way, number, granted_at, expires_at FROM plain"
HELD = _COLUMNS + _OF_KEY
ALL = _COLUMNS + " ORDER BY near, owner, bind_id"
PAGE = _COLUMNS + " WHERE (near, owner, bind_id) > (?, ?, ?) ORDER BY near, owner, bind_id LIMIT ?"
OF_OWNER = _COLUMNS + " WHERE near = ? AND owner = ? ORDER BY bind_id"
NEXT_PLACE = "SELECT place FROM plain WHERE place >= ? ORDER BY place LIMIT 1"
OVER = _COLUMNS + " WHERE place BETWEEN ? AND ?"
_LAST_UP_TO = _COLUMNS + " WHERE place <= ? ORDER BY place DESC LIMIT 1"
UP_TO = f"SELECT * FROM ({_LAST_UP_TO}) AS before WHERE last >= ?"  # noqa: S608 - of constants
"What begins last up to a place, if it ends at another or beyond."
DELETE = "DELETE FROM plain" + _OF_KEY  # noqa: S608 - of constants
EXTEND = "UPDATE plain SET expires_at = ?" + _OF_KEY  # noqa: S608 - of constants
END = """
INSERT INTO past (address, scale, first, number, last, realm, near, owner, bind_id, client_id, granted_at, expires_at,
    ended_at, ending)
SELECT place >> 16 & 4294967295, scale, place & 65535, number, last & 65535, place >> 48, near, owner, bind_id,
    client_id, granted_at, expires_at, MAX(granted_at, MIN(?1, expires_at)), ?2
FROM plain WHERE near = ?3 AND owner = ?4 AND bind_id = ?5"""
"The values: now, ending, key. It ends now, or at its deadline if that has passed, but not before it began."

DUE = "SELECT near, owner, expires_at FROM plain WHERE expires_at < ? ORDER BY expires_at LIMIT ?"
_ALONE = """ AND NOT EXISTS (
    SELECT 1 FROM tenure WHERE owner_realm = host.realm AND owner_address = host.address AND ended_at IS NULL)"""
_LAPSING = """
SELECT h.address, h.client_id, h.port, {gone}, p.way, p.place, p.last, p.near, p.owner, p.bind_id, p.expires_at,
    h.expires_at FROM"""
GONE = f"""{_LAPSING.format(gone=1)}
(SELECT * FROM host
WHERE expires_at < :before AND (expires_at, realm, address) > (:at, :near, octets(:number))
    AND +realm = :near AND LENGTH(address) = 4 AND port IS NOT NULL{_ALONE}
ORDER BY expires_at, realm, address LIMIT :limit) AS h
LEFT JOIN plain AS p ON p.near = h.realm AND p.owner = ipv4(h.address)"""  # noqa: S608 - constants
"Hosts whose registration runs out, after a mark, with their leases if they have any."
_DUE_NEXT = """
SELECT * FROM (SELECT * FROM plain WHERE expires_at = :at AND place > :number AND expires_at < :before AND +near = :near
    ORDER BY place LIMIT :limit)
UNION ALL
SELECT * FROM (SELECT * FROM plain WHERE expires_at > :at AND expires_at < :before AND +near = :near
    ORDER BY expires_at, place LIMIT :limit)
LIMIT :limit"""
LAPSING = f"""{_LAPSING.format(gone=f"h.expires_at >= :before AND h.port IS NOT NULL{_ALONE.replace('host.', 'h.')}")}
({_DUE_NEXT}) AS p
LEFT JOIN host AS h ON h.realm = p.near AND h.address = octets(p.owner)"""
"""Leases that run out, after a mark. In the place of ``gone`` stands whether they are of a host that stays and that may
lapse; those of all others count towards the limit, too."""
SOONEST = "SELECT MIN(expires_at) FROM plain"
_BETWEEN = " FROM plain WHERE place > ? AND place <= ?"
PLACES = "SELECT way, place, last, near, owner, bind_id, expires_at" + _BETWEEN
PLACE_AFTER = "SELECT place FROM plain WHERE place > ? ORDER BY place LIMIT 1 OFFSET ?"
TICKS = 1 << 22
"""Parts of a second. From 2004 on every deadline that a double can hold is a whole number of them."""
PLACES_AS_TEXT = f"""
SELECT COUNT(*), MIN(way << 32 | near), MAX(way << 32 | near),
    SUM(CAST(expires_at * {TICKS} AS INTEGER) <> expires_at * {TICKS}),
    GROUP_CONCAT(place), GROUP_CONCAT(bind_id << 16 | last - place), GROUP_CONCAT(owner),
    GROUP_CONCAT(CAST(expires_at * {TICKS} AS INTEGER)){_BETWEEN}"""
"""PLACES in one row, numbers one after the other: the interpreter handles none of them by itself. First come how many
there are, whether they have way and realm in common, and how many deadlines are no whole number of ticks."""
HOSTS_AS_TEXT = """
SELECT CAST(GROUP_CONCAT(address, '') AS BLOB), GROUP_CONCAT(client_id) FROM host
WHERE realm = ? AND address > ? AND address <= ? AND LENGTH(address) = 4"""
"The addresses one after the other, and the Client IDs."
HOST_AFTER = "SELECT address FROM host WHERE realm = ? AND address > ? ORDER BY address LIMIT 1 OFFSET ?"
REALM_AFTER = "SELECT MIN(realm) FROM host WHERE realm > ?"
OTHER_HOSTS = """
SELECT realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id, port, counter, request, answer
FROM host
WHERE (realm, address) IN (SELECT realm, address FROM host INDEXED BY host_due WHERE LENGTH(address) <> 4)
ORDER BY realm, address"""
"Found by an index that has no more than that."
RESTING = """
SELECT ended_at, number, realm, address, first, last FROM past WHERE ended_at >= ? ORDER BY ended_at, number"""
SOME_ENDED = "SELECT COUNT(*) FROM (SELECT 1 FROM past WHERE ended_at >= ? LIMIT ?)"

_PAST = """
SELECT number, realm, address, first, last, near, owner, bind_id, client_id, granted_at, ended_at, ending, expires_at
FROM past WHERE address = ?"""
_AT = " AND granted_at <= ? AND ended_at > ?"
HAD_ANY = _PAST + _AT
HAD = _PAST + " AND scale = ? AND first BETWEEN ? AND ? AND last >= ?" + _AT


class PlainRow(NamedTuple):
    """A row of HELD and its likes."""

    place: int
    last: int
    near: int
    owner: int
    bind_id: int
    client_id: int
    method: int
    way: int
    number: int
    granted_at: float
    expires_at: float

    @property
    def grant(self) -> tuple[Any, ...]:
        """What makes it the same grant: the columns of ``sql.HeldTenure`` between number and deadline."""
        first, last = self.place & 0xFFFF, self.last & 0xFFFF
        address = (self.place >> 16 & 0xFFFFFFFF).to_bytes(4, "big")
        ports = str(Ranges(((first, last),)))
        return self.client_id, self.place >> 48, address, 32, ports, None, 0, None, self.granted_at


class PastRow(NamedTuple):
    """A row of HAD and HAD_ANY."""

    number: int
    realm: int
    address: int
    first: int
    last: int
    near: int
    owner: int
    bind_id: int
    client_id: int
    granted_at: float
    ended_at: float
    ending: str
    expires_at: float
