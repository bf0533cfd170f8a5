# SPDX-License-Identifier: BSD-3-Clause
"""Rows in a lease store that would take days to come about, written in bulk into the schema as it is."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from isthmus.address import Address
from isthmus.store.sqlite import SqliteStore

PORTS, FIRST_PORT = 16, 1024
PER_ADDRESS = (65536 - FIRST_PORT) // PORTS
DAY = 86400.0
HELD_PART = 0.9
"""Each slice was held for this part of each day."""
_PAST = f"""
INSERT INTO past (address, scale, first, number, last, realm, near, owner, bind_id, client_id, granted_at, expires_at,
    ended_at, ending)
WITH RECURSIVE slice(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM slice WHERE n + 1 < :slices),
    day(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM day WHERE n + 1 < :days)
SELECT :address + slice.n / {PER_ADDRESS}, 4, {FIRST_PORT} + slice.n % {PER_ADDRESS} * {PORTS},
    day.n * :slices + slice.n + 1, {FIRST_PORT} + slice.n % {PER_ADDRESS} * {PORTS} + {PORTS - 1}, 2, 1,
    :host + (slice.n * 7919 + day.n * 104729) % :slices, 1, 1 + slice.n,
    :begun + (day.n + 1.0 * slice.n / :slices) * {DAY},
    :begun + (day.n + {HELD_PART} + 1.0 * slice.n / :slices) * {DAY},
    :begun + (day.n + {HELD_PART} + 1.0 * slice.n / :slices) * {DAY}, 'expired'
FROM slice CROSS JOIN day LIMIT :rows"""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -262144")
        yield connection
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def write(path: Path, *, address: str, host: str, slices: int, rows: int) -> float:
    """Make a store with a past: each slice was leased once a day, to another host each time, until yesterday.

    Args:
        path: The file, which is not there yet.
        address: The first of the addresses that are leased, as text.
        host: The first of the hosts, as text; there are as many as slices.
        slices: How many.
        rows: Of history.

    Returns:
        When the first tenure began, in seconds since 1970.
    """
    SqliteStore(path).close()
    days = -(-rows // slices)
    begun = time.time() - (days + 2) * DAY
    values = {
        "address": Address.parse(address).number,
        "host": Address.parse(host).number,
        "slices": slices,
        "days": days,
        "begun": begun,
        "rows": rows,
    }
    with _opened(path) as connection:
        ((index,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'past_ended'")
        connection.execute("BEGIN")
        # An index that is made at the end is made by sorting.
        connection.execute("DROP INDEX past_ended")
        connection.execute(_PAST, values)
        connection.execute(index)
        connection.execute("UPDATE granting SET last = ?", (slices * days,))
        connection.execute("COMMIT")
    return begun


def end_together(path: Path, deadline: float, *, hosts: tuple[str, int], but: tuple[str, ...]) -> None:
    """Give all hosts but some, and what they hold, the same deadline.

    Args:
        path: The store; nobody has it open.
        deadline: In seconds since 1970.
        hosts: The first one's address, and how many there may be from there on.
        but: Their addresses.
    """
    first, last = Address.parse(hosts[0]).number, Address.parse(hosts[0]).number + hosts[1] - 1
    kept = [Address.parse(each) for each in but]
    with _opened(path) as connection:
        connection.execute("BEGIN")
        marks = ", ".join("?" * len(kept))
        connection.execute(
            f"UPDATE plain SET expires_at = ? WHERE owner BETWEEN ? AND ? AND owner NOT IN ({marks})",
            (deadline, first, last, *(each.number for each in kept)),
        )
        connection.execute(
            f"UPDATE host SET expires_at = ? WHERE address BETWEEN ? AND ? AND address NOT IN ({marks})",
            (deadline, first.to_bytes(4, "big"), last.to_bytes(4, "big"), *(each.octets for each in kept)),
        )
        connection.execute("COMMIT")


class Watch:
    """Looks into a store while its gateway works."""

    def __init__(self, path: Path) -> None:
        """Open the file for reading."""
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=30)

    def left(self, deadline: float) -> bool:
        """Whether anything is there still that had this deadline, or an earlier one."""
        found = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM plain WHERE expires_at <= ?1)"
            " OR EXISTS (SELECT 1 FROM host WHERE expires_at <= ?1)",
            (deadline,),
        ).fetchone()
        return bool(found[0])

    def expired(self, deadline: float) -> int:
        """How many tenures ended by this deadline."""
        found = self._connection.execute(
            "SELECT COUNT(*) FROM past WHERE ended_at = ? AND ending = 'expired'", (deadline,)
        ).fetchone()
        return int(found[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def forget_pages(path: Path) -> None:
    """Let the system forget what it has of a file in memory, as after a reboot."""
    for each in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(FileNotFoundError), each.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
