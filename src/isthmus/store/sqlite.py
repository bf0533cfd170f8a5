# SPDX-License-Identifier: BSD-3-Clause
"""The embedded store: one SQLite file, one writer at a time, durable when ``commit`` returns.

The journal is a write-ahead log (WAL) and ``synchronous`` is FULL: the end of a transaction
is one write and one flush of that log, whatever number of leases it carries. That is why a
driver gathers them (group commit). Readers, another process's included, never wait.

Why not SQLAlchemy Core: the same statements and rows, measured on Python 3.11, SQLite 3.40,
two idle cores and an ext4 whose flush takes 0.1 ms; a Bind holds 64 ports, and its history
is included. A slower disk hides the difference for one Bind, not for 64:

==================  ============================  ==============================
in one transaction  ``sqlite3``                   SQLAlchemy Core 2.1
==================  ============================  ==============================
1 Bind              4,400 commits a second        2,400
64 Binds            450 commits, 29,000 Binds     93 commits, 6,000 Binds
==================  ============================  ==============================
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.effect import Durable
from isthmus.errors import StoreUnavailable
from isthmus.store import Held, Snapshot, Tenure
from isthmus.store.ledger import Ledger

_REMEDIES = {
    "SQLITE_BUSY": "another process keeps it locked; is a second isthmus running?",
    "SQLITE_CORRUPT": "the file is damaged; put it aside, then restore a copy or let isthmus begin a new one",
    "SQLITE_NOTADB": "the file is no SQLite database, or its beginning is damaged; put it aside, or name another",
    "SQLITE_FULL": "the disk is full; make room, nothing was lost",
    "SQLITE_IOERR": "the disk failed; see the kernel's log",
    "SQLITE_READONLY": "isthmus must be allowed to write the file and its directory",
    "SQLITE_CANTOPEN": "isthmus must be allowed to write the file and its directory",
}
_SCHEMA_TABLE = "CREATE TABLE IF NOT EXISTS schema_file (name TEXT PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL)"


class SqliteStore:
    """Keeps leases in one SQLite file. Any thread may call; calls wait for one another."""

    def __init__(self, path: str | os.PathLike[str], *, wait_seconds: float = 5.0) -> None:
        """Open the file, or make it, and bring its schema up to date.

        Args:
            path: The file. Its directory must exist; SQLite puts ``-wal`` and ``-shm`` beside it.
            wait_seconds: How long another writer is waited for.

        Raises:
            StoreUnavailable: it cannot be opened, is damaged, is somebody else's, or is newer than this isthmus.
        """
        self._path = Path(path).absolute()
        self._lock = threading.Lock()
        _touch(self._path)
        with self._using("open"):
            self._connection = sqlite3.connect(
                self._path, timeout=wait_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        self._ledger = Ledger(self._connection.execute)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands (see ``LeaseStore``)."""
        with self._using("read"), self._transaction("BEGIN"):
            return self._ledger.load(rested_since=rested_since)

    def commit(self, effects: Iterable[Durable], *, now: float) -> None:
        """Write a batch in one transaction: all of it, durable, or nothing (see ``LeaseStore``)."""
        batch = tuple(effects)
        if not batch:
            return
        with self._using("write"), self._transaction("BEGIN IMMEDIATE"):
            for effect in batch:
                self._ledger.write(effect, now=now)
            self._ledger.prune(now=now)

    def who_had(
        self, address: Address, *, port: int | None, at: float | None, now: float | None = None
    ) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it (see ``LeaseStore``)."""
        with self._using("read"), self._transaction("BEGIN"):
            found = self._ledger.who_had(address, port=port, at=at)
        return found if now is None else tuple(tenure.as_of(now) for tenure in found)

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""
        with self._using("read"), self._transaction("BEGIN"):
            return self._ledger.leases()

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""
        with self._using("read"):
            return self._ledger.owner_of(client_id)

    def close(self) -> None:
        """Let go of the file; the last one to do so folds the log into it."""
        with self._using("close"):
            self._connection.close()

    @contextmanager
    def _using(self, verb: str) -> Iterator[None]:
        """Let one thread in, and tell what goes wrong in the words of ``StoreUnavailable``."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StoreUnavailable(f"{self._path}: cannot {verb}: {_reason(error)}") from error

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                # Where SQLite cannot even roll back, the log's next reader does it.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        foreign = "it is a SQLite database, but not isthmus's; name another file"
        tables = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "schema_file" not in tables:
            raise StoreUnavailable(f"{self._path}: cannot open: {foreign}")
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailable(
                f"{self._path}: cannot open: no write-ahead log is possible here ({mode}); use a local file system"
            )
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA foreign_keys = ON")
        execute("PRAGMA cell_size_check = ON")
        if "schema_file" not in tables or self._missing():
            with self._transaction("BEGIN IMMEDIATE"):
                execute(_SCHEMA_TABLE)
                self._apply_schema()

    def _missing(self) -> dict[str, str]:
        """The schema files that have not been applied, in order, with their SQL."""
        known = _schema_files()
        applied = {name for (name,) in self._connection.execute("SELECT name FROM schema_file")}
        if newer := sorted(applied - known.keys()):
            raise StoreUnavailable(
                f"{self._path}: cannot open: it was written by a newer isthmus (it has {', '.join(newer)}, which this"
                " one does not know); run that isthmus again, or restore a copy from before the upgrade"
            )
        return {name: text for name, text in known.items() if name not in applied}

    def _apply_schema(self) -> None:
        for name, text in self._missing().items():
            for statement in _statements(text):
                self._connection.execute(statement)
            self._connection.execute("INSERT INTO schema_file (name, applied_at) VALUES (?, ?)", (name, time.time()))


def _touch(path: Path) -> None:
    """Make the file if it is not there; the system's reasons are better than SQLite's.

    Nobody but the owner and the group may read who held what. A file that is there is never
    opened here: to close it would drop the locks of every other store of this process on it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
    except FileExistsError:
        if path.is_dir():
            raise StoreUnavailable(f"{path}: cannot open: it is a directory; name a file in it") from None
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise StoreUnavailable(f"{path}: cannot open: isthmus must be allowed to read and write it") from None
    except OSError as error:
        directory = "" if path.parent.is_dir() else f"; make the directory {path.parent} first"
        raise StoreUnavailable(f"{path}: cannot open: {error.strerror}{directory}") from error


def _reason(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    for known, remedy in _REMEDIES.items():
        if name.startswith(known):
            return f"{error} ({name}); {remedy}"
    return f"{error} ({name})" if name else str(error)


def _schema_files() -> dict[str, str]:
    directory = resources.files("isthmus.store") / "schema"
    files = sorted((each for each in directory.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    return {each.name: each.read_text("utf-8") for each in files}


def _statements(text: str) -> Iterator[str]:
    """Cut a schema file into its statements."""
    gathered = ""
    for line in text.splitlines(keepends=True):
        gathered += line
        if sqlite3.complete_statement(gathered):
            yield gathered
            gathered = ""
