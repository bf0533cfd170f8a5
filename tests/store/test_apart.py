# SPDX-License-Identifier: BSD-3-Clause
"""The store that another process writes keeps the contract, and says when that process has ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from isthmus.errors import Conflict, StoreUnavailable
from isthmus.store import LeaseStore
from isthmus.store.apart import ApartStore
from isthmus.store.sqlite import SqliteStore
from store.contract import StoreContract
from store.material import ANNA, BERT, bind, ports, register, unbind


class ApartFactory:
    """One file with one writer, for a whole test; opened again, the writer is another one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: ApartStore | None = None

    def open(self) -> LeaseStore:
        self.store = self.store or ApartStore(self.path)
        return self.store

    def reopen(self) -> LeaseStore:
        """Another store looks at what there is; the writer of ours goes on, or this would take minutes."""
        with closing(SqliteStore(self.path)) as other:
            other.load(rested_since=0.0)
        return self.open()

    def close(self) -> None:
        if self.store is not None:
            self.store.close()


class TestApart(StoreContract):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> Iterator[ApartFactory]:
        made = ApartFactory(tmp_path / "leases.db")
        yield made
        made.close()


SUCCESSOR = """
import sys
from isthmus.store.apart import ApartStore
store = ApartStore(sys.argv[1])
print(store.registered_count())
store.close()
"""


@pytest.fixture
def store(path: Path) -> Iterator[ApartStore]:
    with closing(ApartStore(path)) as made:
        yield made


def test_batches_under_way_are_written_in_order_while_the_loop_goes_on(store: ApartStore) -> None:
    async def submits() -> list[BaseException | None]:
        batches = [[bind(ANNA, ports("1"))], [bind(BERT, ports("1"))], [unbind(ANNA)], [bind(BERT, ports("1"))], []]
        under_way = [asyncio.wrap_future(store.submit(each, now=100.0)) for each in batches]
        return await asyncio.gather(*under_way, return_exceptions=True)

    for _ in range(2):  # each time another loop
        first, second, *rest = asyncio.run(submits())
        assert (first, *rest) == (None, None, None, None)
        assert isinstance(second, Conflict)
        assert second.resource == "149.112.240.55 port 1"
        store.commit([unbind(BERT)], now=101.0)


def test_a_commit_may_wait_in_the_loop_for_what_is_under_way(store: ApartStore) -> None:
    async def both() -> None:
        under_way = store.submit([register(ANNA)], now=100.0)
        store.commit([register(BERT)], now=100.0)
        assert under_way.done()

    asyncio.run(both())
    assert store.registered_count() == 2


@pytest.mark.parametrize("in_loop", [True, False])
def test_a_writer_that_is_killed_is_told_and_replaced(store: ApartStore, *, in_loop: bool) -> None:
    store.commit([register(ANNA)], now=100.0)
    before = store.writer
    assert before is not None
    os.kill(before, signal.SIGKILL)

    async def submit() -> None:
        await asyncio.wrap_future(store.submit([register(BERT)], now=101.0))

    with pytest.raises(StoreUnavailable, match="the process that writes it has ended"):
        asyncio.run(submit()) if in_loop else store.commit([register(BERT)], now=101.0)
    assert [each.owner for each in store.load(rested_since=0.0).registrations] == [ANNA]
    store.commit([register(BERT)], now=102.0)
    assert store.writer != before
    assert store.registered_count() == 2


def test_a_writer_ends_with_its_store_whatever_signals_come(path: Path) -> None:
    store = ApartStore(path)
    store.commit([register(ANNA)], now=100.0)
    writer = store.writer
    assert writer is not None
    os.kill(writer, signal.SIGTERM)
    os.kill(writer, signal.SIGINT)
    store.commit([register(BERT)], now=100.0)
    store.close()
    with pytest.raises(ProcessLookupError):
        os.kill(writer, 0)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.commit([register(ANNA)], now=1.0)


def test_a_store_waits_for_the_writer_of_the_one_before(path: Path) -> None:
    """Who is killed leaves a writer that may still have a batch: its successor must not read before that has ended."""
    store = ApartStore(path)
    store.commit([register(ANNA)], now=100.0)
    writer = store.writer
    assert writer is not None
    os.kill(writer, signal.SIGSTOP)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", SUCCESSOR, str(path)], stdout=subprocess.PIPE, env=environment
    ) as child:
        under_way = store._begin([register(BERT)], 101.0)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        os.kill(writer, signal.SIGCONT)
        store.close()
        assert under_way.result() is None
        assert child.stdout is not None
        assert child.stdout.read() == b"2\n"


def test_a_writer_that_cannot_start_is_told(path: Path) -> None:
    store = ApartStore(path)
    store.load(rested_since=0.0)
    os.kill(store.writer or 0, signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        store.commit([register(ANNA)], now=1.0)
    path.write_bytes(b"interface eth0\n" * 1000)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with pytest.raises(StoreUnavailable, match="no SQLite database"):
        store.commit([register(ANNA)], now=1.0)
    store.close()


def test_a_writer_runs_nothing_that_lies_where_the_gateway_was_started(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("struct.py").write_text("from pathlib import Path\nPath('been_here').touch()\nraise SystemExit\n")
    with closing(ApartStore(path)) as store:
        store.commit([register(ANNA)], now=1.0)
    assert not Path("been_here").exists()


def test_a_writer_that_cannot_be_replaced_is_told_until_it_can(
    store: ApartStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit([register(ANNA)], now=1.0)
    assert store.writer is not None
    os.kill(store.writer, signal.SIGKILL)
    with pytest.raises(StoreUnavailable, match="has ended"):
        store.commit([register(BERT)], now=2.0)

    def no_process(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as full:
        full.setattr(subprocess, "Popen", no_process)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="cannot write: Resource temporarily unavailable"):
                store.submit([register(BERT)], now=2.0).result(timeout=5)
    store.commit([register(BERT)], now=3.0)
    assert store.registered_count() == 2
