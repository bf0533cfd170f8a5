# SPDX-License-Identifier: BSD-3-Clause
"""The embedded store keeps the contract, says plainly what is wrong with a file, and finds by index."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from isthmus.border.effect import Durable
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind
from isthmus.errors import StoreUnavailable
from isthmus.store import LeaseStore, open_store, plain_sql, sql
from isthmus.store import sqlite as module
from isthmus.store.sqlite import SqliteStore
from store.audit import audit
from store.contract import StoreContract, names
from store.factory import EVER
from store.files import filled, refused
from store.material import ANNA, BERT, OTHER, SHARED, bind, ports, register, unbind


class SqliteFactory:
    """One file, opened again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: SqliteStore | None = None

    def open(self) -> LeaseStore:
        self.store = self.store or SqliteStore(self.path)
        return self.store

    def reopen(self) -> LeaseStore:
        self.close()
        return self.open()

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
        self.store = None


class TestSqlite(StoreContract):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> Iterator[SqliteFactory]:
        made = SqliteFactory(tmp_path / "leases.db")
        yield made
        made.close()


# Where it is


def test_urls_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = tmp_path / "leases.db"
    for url in (f"sqlite://{wanted}", f"sqlite:///{wanted}", str(wanted), "leases.db", wanted):
        store = open_store(url)
        assert isinstance(store, SqliteStore)
        store.close()
        assert [each.name for each in tmp_path.iterdir()] == ["leases.db"]
        wanted.unlink()


@pytest.mark.parametrize("url", ["postgresql://host/isthmus", "sqlite://leases.db", "sqlite://", "mysql:///x"])
def test_other_urls_are_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnavailable, match="write memory:, sqlite:///absolute/path, or a path"):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


def test_strangers_may_not_read_who_held_what(path: Path) -> None:
    filled(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


# How safe it is


def test_the_disk_has_it_when_commit_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def spy(*args, **kwargs) -> sqlite3.Connection:
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", spy)
    with closing(SqliteStore(path)):
        (connection,) = made
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not strace_works(), reason="needs strace, and the right to trace")
def test_one_flush_for_a_batch_of_any_size() -> None:
    """Counted at the system call: the promise of group commit."""
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        script = (
            "import os\n"
            "from isthmus.store.sqlite import SqliteStore\n"
            "from store.material import ANNA, bind, ports\n"
            f"store = SqliteStore({directory!r} + '/leases.db')\n"
            "store.commit([bind(ANNA, ports('1'))], now=100.0)\n"
            "for batch in range(3):\n"
            "    os.write(1, b'commit')\n"
            "    store.commit([bind(ANNA, ports(str(n)), bind_id=n) for n in range(2 + 50 * batch, 52 + 50 * batch)], now=100.0)\n"
            "    os.write(1, b'done')\n"
        )
        command = [
            "strace",
            "-f",
            "-e",
            "trace=fdatasync,fsync,write",
            "-o",
            str(trace),
            sys.executable,
            "-c",
            script,
        ]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        lines = trace.read_text()
    for part in lines.split('"commit"')[1:]:
        committed = part.split('"done"')[0]
        assert committed.count("fdatasync(") + committed.count("fsync(") == 1


def test_a_lock_that_lasts_is_told_and_survived(path: Path) -> None:
    with closing(SqliteStore(path, wait_seconds=0.05)) as store, closing(sqlite3.connect(path)) as other:
        store.commit([register(ANNA)], now=100.0)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"leases\.db: cannot write: .*locked.*second isthmus"):
            store.commit([register(BERT)], now=101.0)
        assert len(store.load(rested_since=EVER).registrations) == 1
        other.rollback()
        store.commit([register(BERT)], now=102.0)
        assert len(store.load(rested_since=EVER).registrations) == 2


def test_a_writer_waits_for_another_that_is_quick(path: Path) -> None:
    with closing(SqliteStore(path)) as first, closing(SqliteStore(path)) as second:

        def write(store: SqliteStore, start: int) -> None:
            for n in range(start, start + 40):
                store.commit([bind(ANNA, ports(str(n)), bind_id=n)], now=100.0)

        threads = [
            threading.Thread(target=write, args=(each, at)) for each, at in ((first, 1), (second, 101), (first, 201))
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(first.leases()) == len(second.leases()) == 120
        audit(second, [SHARED])


def test_a_reader_beside_the_daemon_sees_the_last_commit(path: Path) -> None:
    with closing(SqliteStore(path)) as daemon:
        daemon.commit([bind(ANNA, ports("80"))], now=100.0)
        with closing(SqliteStore(path)) as reader:
            assert names(reader.who_had(SHARED, port=80, at=100.0)) == ["10.0.0.4#1"]
        daemon.commit([unbind(ANNA)], now=200.0)


def test_opening_it_twice_keeps_the_locks(path: Path) -> None:
    """POSIX drops a process's locks on a file when it closes *any* descriptor of it; the log would be lost."""
    elsewhere = f"from isthmus.store.sqlite import SqliteStore; store = SqliteStore({str(path)!r}); print(len(store.leases())); store.close()"
    with closing(SqliteStore(path)) as store:
        store.commit([bind(ANNA, ports("1"))], now=100.0)
        SqliteStore(path).close()
        for n in (2, 3):
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            ran = subprocess.run([sys.executable, "-c", elsewhere], capture_output=True, check=True, env=environment)
            assert int(ran.stdout) == n - 1
            assert Path(f"{path}-wal").exists()
            store.commit([bind(ANNA, ports(str(n)), bind_id=n)], now=100.0)
    with closing(SqliteStore(path)) as store:
        assert len(store.leases()) == 3


# Its schema


def applied(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM schema_file ORDER BY rowid")]


SCHEMA = ["0001_initial.sql", "0002_whole_rsip.sql", "0003_plain_leases.sql", "0004_place_key.sql"]


def test_a_store_of_the_first_schema_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {name: text for name, text in module._schema_files().items() if name == SCHEMA[0]}
    with monkeypatch.context() as patch:
        patch.setattr(module, "_schema_files", lambda: first)
        SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as old:
        old.execute("INSERT INTO registration VALUES (1, x'0A000004', 41, 1000.0, 1, 3)")
        old.execute("INSERT INTO registration VALUES (1, x'0A000005', 51, 1000.0, 1, 3)")
        for number, (bind_id, client_id, ended) in enumerate([(5, 41, 90.0), (4, 41, None), (9, 40, 50.0)], 1):
            ending = None if ended is None else "freed"
            row = (number, bind_id, client_id, f"{number}-{number + 3}", ended, ending)
            old.execute(
                "INSERT INTO tenure VALUES (?, 1, x'0A000004', ?, ?, 2, 2, x'9570F037', 32, ?, NULL, 10.0, 1000.0, ?, ?)",
                row,
            )
        old.execute("INSERT INTO binding VALUES (2, 1, x'0A000001', x'0A000004', 2, 1476, NULL)")
        old.execute("INSERT INTO selector VALUES (2, 0, 1, '2-5', NULL, NULL, NULL, 1)")
        old.commit()
    with closing(SqliteStore(path)) as store:
        snapshot = store.load(rested_since=0.0)
    assert [(each.client_id, each.last_bind_id) for each in snapshot.registrations] == [(41, 5), (51, 0)]
    ((binding, _),) = [(each.binding, each.lease) for each in snapshot.bindings]
    assert (str(binding.selectors[0].values), binding.selectors[0].lent) == ("2-5", Ranges(()))
    assert (binding.crossing.mtu, binding.crossing.checksum) == (1476, False)
    assert applied(path) == SCHEMA


def test_a_store_that_a_gateway_of_an_earlier_isthmus_has_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = {name: text for name, text in module._schema_files().items() if name != SCHEMA[-1]}
    with monkeypatch.context() as patch:
        patch.setattr(module, "_schema_files", lambda: earlier)
        SqliteStore(path).close()
    with path.open("rb") as gateway:
        fcntl.flock(gateway, fcntl.LOCK_EX)
        assert "a gateway of an earlier isthmus keeps its leases here; stop it" in refused(path)
        assert applied(path) == SCHEMA[:-1]
    SqliteStore(path).close()
    assert applied(path) == SCHEMA
    with path.open("rb") as gateway:
        fcntl.flock(gateway, fcntl.LOCK_EX)
        SqliteStore(path).close()


def test_schema_files_are_applied_once_in_order_and_recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    assert applied(path) == SCHEMA
    later = {
        "0008_a.sql": "CREATE TABLE a (x TEXT);\n-- and; more\nINSERT INTO a VALUES (';');\n",
        "0009_b.sql": "INSERT INTO a VALUES ('b');",
    }
    files = module._schema_files() | later
    monkeypatch.setattr(module, "_schema_files", lambda: files)
    for _ in range(2):
        with closing(SqliteStore(path)) as store:
            assert len(store.leases()) == 101
    assert applied(path) == [*SCHEMA, "0008_a.sql", "0009_b.sql"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM a").fetchall() == [(";",), ("b",)]


def test_a_schema_file_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    good = module._schema_files()
    files = good | {"0008_bad.sql": "CREATE TABLE a (x TEXT);\nINSERT INTO b VALUES (1);\n"}
    with monkeypatch.context() as patch:
        patch.setattr(module, "_schema_files", lambda: files)
        assert "no such table: b" in refused(path)
    assert applied(path) == SCHEMA
    with closing(SqliteStore(path)) as store:
        assert len(store.leases()) == 101


def test_the_schema_forbids_what_cannot_be(path: Path) -> None:
    filled(path)
    filled(path, owner=BERT, realm=1 << 15)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in (
            "UPDATE tenure SET ended_at = 5 WHERE ended_at IS NULL",
            "UPDATE tenure SET ending = NULL WHERE ended_at IS NOT NULL",
            "UPDATE tenure SET ended_at = NULL, ending = NULL, bind_id = 7",
            "DELETE FROM tenure",
            "UPDATE holding SET first = 150, last = 150",
            "UPDATE holding SET first = last + 1",
            "UPDATE plain SET place = 150",
            "UPDATE plain SET bind_id = 150",
            "UPDATE plain SET last = place - 1",
            "UPDATE plain SET way = 7",
            "UPDATE past SET ending = NULL",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)


# How fast it finds

TIMES = (0.0, 0.0)
PLANS = {
    "who had a port": (
        sql.WHO_HAD,
        (b"abcd", 32, Kind.PORT, 6, 0, 63, 63, *TIMES),
        "tenure_range_search (address=? AND length=? AND kind=? AND scale=? AND first>? AND first<?)",
    ),
    "who had an address": (sql.WHO_HAD_ANY, (b"abcd", 32, *TIMES), "tenure_range_search (address=? AND length=?)"),
    "tenure of a key": (
        sql.HELD_TENURE,
        (1, b"abcd", 1),
        "tenure_held (owner_realm=? AND owner_address=? AND bind_id=?)",
    ),
    "extend": (sql.EXTEND, (1.0, 1, b"abcd", 1), "tenure_held (owner_realm=? AND owner_address=? AND bind_id=?)"),
    "holder": (sql.HOLDER, (1, b"abcd", 32, 1, 5), "(realm=? AND address=? AND length=? AND kind=? AND first<?)"),
    "client": (sql.CLIENT, (1,), "(client_id=?)"),
    "host": (sql.HOST, (1, b"abcd"), "(realm=? AND address=?)"),
    "hosts due": (sql.HOSTS_DUE, (1.0, 5), "host_due (expires_at<?)"),
    "soonest of hosts": (sql.SOONEST_HOST, (), "host_due"),
    "tenures due": (sql.TENURES_DUE, (1.0, 5), "tenure_due (expires_at<?)"),
    "soonest of tenures": (sql.SOONEST_TENURE, (), "tenure_due"),
    "bindings of a host": (sql.BINDINGS_OF, (1, b"abcd"), "tenure_held (owner_realm=? AND owner_address=?)"),
    "selectors of a binding": (sql.SELECTORS_OF, (1,), "(tenure=?)"),
    "plain leases of a host": (plain_sql.OF_OWNER, (1, 2), "plain_held (near=? AND owner=?)"),
    "plain lease of a key": (plain_sql.HELD, (1, 2, 3), "plain_held (near=? AND owner=? AND bind_id=?)"),
    "extend a plain lease": (plain_sql.EXTEND, (1.0, 1, 2, 3), "plain_held (near=? AND owner=? AND bind_id=?)"),
    "holder of a port": (plain_sql.HOLDER, (1,), "INTEGER PRIMARY KEY (rowid<?)"),
    "place of a plain lease": (plain_sql.BIND, tuple(range(12)), "INTEGER PRIMARY KEY (rowid<?)"),
    "plain leases due": (plain_sql.DUE, (1.0, 5), "plain_due (expires_at<?)"),
    "soonest of plain leases": (plain_sql.SOONEST, (), "plain_due"),
    "who had a port, plainly": (
        plain_sql.HAD,
        (1, 6, 0, 63, 63, *TIMES),
        "past USING PRIMARY KEY (address=? AND scale=? AND first>? AND first<?)",
    ),
    "who had an address, plainly": (plain_sql.HAD_ANY, (1, *TIMES), "past USING PRIMARY KEY (address=?)"),
    "resting plain leases": (plain_sql.RESTING, (1.0,), "past_ended (ended_at>?)"),
    "resting": (sql.RESTING, (1.0,), "tenure_ended (ended_at>?)"),
    "prune": (sql.PRUNE, (1.0,), "answer_departed (departed_at<?)"),
    "unbind": (sql.UNBIND, (1,), "INTEGER PRIMARY KEY (rowid=?)"),
}


@pytest.mark.parametrize("question", PLANS)
def test_what_is_asked_often_is_found_by_index(path: Path, question: str) -> None:
    filled(path)
    statement, values, wanted = PLANS[question]
    with closing(sqlite3.connect(path)) as connection:
        plan = [detail for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any(wanted in step for step in plan), plan
    assert not any(step.startswith("SCAN") and "CONSTANT" not in step for step in plan), plan


SLICES, ROUNDS = 1000, 60


@pytest.mark.slow
def test_sixty_thousand_tenures_answer_correctly(path: Path) -> None:
    """A thousand slices of one address change hands 60 times, and one wide lease lies across two of them."""
    with closing(SqliteStore(path)) as store:
        for turn in range(ROUNDS):
            at = 1000.0 * turn
            batch: list[Durable] = [unbind(ANNA, n) for n in range(SLICES)] if turn else []
            batch += [
                bind(
                    ANNA,
                    ports(f"{1024 + 64 * n}-{1087 + 64 * n}"),
                    bind_id=n,
                    granted_at=at,
                    expires_at=at + 9000,
                    client_id=turn,
                )
                for n in range(SLICES)
            ]
            store.commit(batch, now=at)
        store.commit([bind(BERT, ports("100-40000", OTHER)), bind(BERT, ports("40001", OTHER), bind_id=2)], now=0.0)
        for turn in (0, 1, 30, ROUNDS - 1):
            for n in (0, 1, 500, SLICES - 1):
                for port in (1024 + 64 * n, 1087 + 64 * n):
                    for at in (1000.0 * turn, 1000.0 * turn + 999.9):
                        (tenure,) = store.who_had(SHARED, port=port, at=at)
                        assert (tenure.client_id, tenure.key.bind_id) == (turn, n)
        assert len(store.who_had(SHARED, port=30000, at=None)) == ROUNDS
        assert store.who_had(SHARED, port=1023, at=None) == store.who_had(SHARED, port=65024, at=None) == ()
        assert names(store.who_had(OTHER, port=40000, at=100.0)) == ["10.0.0.5#1"]
        assert names(store.who_had(OTHER, port=40001, at=100.0)) == ["10.0.0.5#2"]
        assert store.who_had(OTHER, port=40002, at=100.0) == store.who_had(OTHER, port=99, at=100.0) == ()
