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

import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Durable
from isthmus.errors import StoreUnavailable
from isthmus.store import Held, Lapsing, LapsingMark, Recalled, Snapshot, Standing, Tenure, sql
from isthmus.store.entry import Entry, entries
from isthmus.store.ledger import Ledger, Unfit
from isthmus.store.outcome import done
from isthmus.store.reading import Reading

_REMEDIES = {
    "SQLITE_BUSY": "another process keeps it locked; is a second isthmus running?",
    "SQLITE_CORRUPT": "the file is damaged; put it aside, then restore a copy or let isthmus begin a new one",
    "SQLITE_NOTADB": "the file is no SQLite database, or its beginning is damaged; put it aside, or name another",
    "SQLITE_FULL": "the disk is full; make room, nothing was lost",
    "SQLITE_IOERR": "the disk failed; see the kernel's log",
    "SQLITE_READONLY": "isthmus must be allowed to write the file and its directory",
    "SQLITE_CANTOPEN": "isthmus must be allowed to write the file and its directory",
}
_LOG_PAGES = 1 << 14
"""How long the log becomes before it is folded into the file: 64 MiB. A page that was written ten times is folded once,
so the longer the less work, and the longer a commit waits for it."""
_SCHEMA_TABLE = "CREATE TABLE IF NOT EXISTS schema_file (name TEXT PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL)"


class SqliteStore:
    """Keeps leases in one SQLite file. Any thread may call; calls wait for one another."""

    def __init__(self, path: str | os.PathLike[str], *, wait_seconds: float = 5.0, cache_octets: int = 4 << 20) -> None:
        """Open the file, or make it, and bring its schema up to date.

        Args:
            path: The file. Its directory must exist; SQLite puts ``-wal`` and ``-shm`` beside it.
            wait_seconds: How long another writer is waited for.
            cache_octets: How much of the file may be kept in memory, beside what the system keeps.

        Raises:
            StoreUnavailable: it cannot be opened, is damaged, is somebody else's, or is newer than this isthmus.
        """
        self._path = Path(path).absolute()
        self._lock = threading.Lock()
        self._closing = ExitStack()
        _touch(self._path)
        with self._using("open"):
            self._connection = sqlite3.connect(
                self._path, timeout=wait_seconds, isolation_level=None, check_same_thread=False
            )
            self._ledger, self._tables = Ledger(self._connection.cursor()), Reading(self._connection)
            try:
                self._prepare(cache_octets)
            except BaseException:
                self._connection.close()
                self._closing.close()
                raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands (see ``LeaseStore``)."""
        with self._reading() as tables:
            return tables.load(rested_since=rested_since)

    def commit(self, effects: Iterable[Durable], *, now: float) -> None:
        """Write a batch in one transaction: all of it, durable, or nothing (see ``LeaseStore``)."""
        self.commit_entries(entries(effects), now=now)

    def commit_entries(self, batch: Sequence[Entry], *, now: float) -> None:
        """Write a batch of entries as ``commit`` does."""
        if not batch:
            return
        with self._using("write"):
            try:
                with self._transaction("BEGIN IMMEDIATE"):
                    self._ledger.write(batch, now=now)
            except Unfit:
                with self._transaction("BEGIN IMMEDIATE"):
                    self._ledger.write_each(batch, now=now)

    def who_had(
        self, address: Address, *, port: int | None, at: float | None, now: float | None = None
    ) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it (see ``LeaseStore``)."""
        with self._reading() as tables:
            found = tables.who_had(address, port=port, at=at)
        return found if now is None else tuple(tenure.as_of(now) for tenure in found)

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""
        with self._reading() as tables:
            return tables.leases()

    def page(self, *, after: BindingKey | None, limit: int) -> tuple[Held, ...]:
        """Some of what is held now (see ``LeaseStore``)."""
        with self._reading() as tables:
            return tables.page(after=after, limit=limit)

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""
        with self._reading() as tables:
            return tables.owner_of(client_id)

    def submit(self, effects: Iterable[Durable], *, now: float) -> Future[None]:
        """Write a batch at once (see ``LeaseStore``)."""
        return done(lambda: self.commit(effects, now=now))

    def recall(self, owners: Sequence[Owner]) -> Recalled:
        """Read what stands of some hosts (see ``LeaseStore``)."""
        with self._reading() as tables:
            return tables.recall(owners)

    def standing(self, *, rested_since: float) -> Standing:
        """Read everything that stands, as columns where it can be (see ``LeaseStore``)."""
        from isthmus.store.columns import read_standing

        with self._reading() as tables, self._another() as another:
            return read_standing(self._connection, another, tables, rested_since=rested_since)

    def due(self, *, before: float, limit: int) -> tuple[Owner, ...]:
        """Tell whose deadline is before a time, soonest first (see ``LeaseStore``)."""
        with self._reading() as tables:
            return tables.due(before=before, limit=limit)

    def lapsing(self, near: int, *, before: float, limit: int, after: LapsingMark | None = None) -> Lapsing:
        """Tell what runs out (see ``LeaseStore``)."""
        from isthmus.store.lapsing import read_lapsing

        with self._reading() as tables:
            return read_lapsing(self._connection, tables, near, before=before, limit=limit, after=after)

    def soonest(self) -> float | None:
        """The soonest deadline of a binding or a registration."""
        with self._reading() as tables:
            return tables.soonest()

    def holders(self, address: Address, port: int | None = None) -> tuple[BindingKey, ...]:
        """Tell which bindings hold an address, or a port of it, now (see ``LeaseStore``)."""
        with self._reading() as tables:
            return tables.holders(address, port)

    def held_count(self) -> int:
        """How many bindings stand."""
        with self._reading() as tables:
            return tables.held_count()

    def registered_count(self) -> int:
        """How many hosts are registered."""
        with self._reading() as tables:
            return tables.registered_count()

    def has_more(self, than: int, *, ended_since: float) -> bool:
        """Tell whether there is more than so much of anything (see ``LeaseStore``)."""
        with self._reading() as tables:
            return tables.has_more(than, ended_since=ended_since)

    def place_key(self) -> bytes:
        """What keeps places secret (see ``LeaseStore``)."""
        with self._using("read"):
            (octets,) = self._connection.execute(sql.PLACE_KEY).fetchone()
        return bytes(octets)

    def close(self) -> None:
        """Let go of the file; the last one to do so folds the log into it."""
        with self._using("close"):
            self._connection.close()
            self._closing.close()

    @contextmanager
    def _using(self, verb: str) -> Iterator[None]:
        """Let one thread in, and tell what goes wrong in the words of ``StoreUnavailable``."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StoreUnavailable(f"{self._path}: cannot {verb}: {_reason(error)}") from error

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        """The tables as they stand now."""
        with self._using("read"), self._transaction("BEGIN"):
            yield self._tables

    @contextmanager
    def _another(self) -> Iterator[sqlite3.Connection]:
        """One more connection, for another thread; nobody writes meanwhile, so it sees the same."""
        another = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, check_same_thread=False)
        try:
            yield another
        finally:
            another.close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._ledger.forget()
            if self._connection.in_transaction:
                # Where SQLite cannot even roll back, the log's next reader does it.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _prepare(self, cache_octets: int) -> None:
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
        execute(f"PRAGMA cache_size = {-(cache_octets >> 10)}")
        execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        begun = "schema_file" in tables
        if not begun or self._missing():
            with self._no_older_gateway() if begun else nullcontext(), self._transaction("BEGIN IMMEDIATE"):
                execute(_SCHEMA_TABLE)
                self._connection.create_function("gen_random_bytes", 1, secrets.token_bytes)
                self._apply_schema()

    @contextmanager
    def _no_older_gateway(self) -> Iterator[None]:
        """See that no gateway of an earlier isthmus has the file (``daemon.occupancy``): it cannot write new tables."""
        # Closed after the connection: to close any descriptor of a file drops the locks of the process on it.
        file = self._closing.enter_context(self._path.open("rb"))
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreUnavailable(
                f"{self._path}: cannot open: a gateway of an earlier isthmus keeps its leases here; stop it, and the"
                " file is brought up to date"
            ) from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

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
