# SPDX-License-Identifier: BSD-3-Clause
"""The durability promise: kill the process at any moment, and every acknowledged lease is there.

Each batch is all there or not at all, and at most the one that was in flight is there
beyond what was acknowledged. ``MemoryStore``, given the same batches, says what "there" is.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from isthmus.store import LeaseStore, open_store
from isthmus.store.memory import MemoryStore
from isthmus.store.sqlite import SqliteStore
from store import committer, mortal
from store.audit import audit, history
from store.committer import ADDRESSES, batch, begins
from store.mortal import read_all


def state(store: LeaseStore) -> dict[str, object]:
    return {
        "snapshot": store.load(rested_since=0.0),
        "leases": store.leases(),
        "history": history(store, ADDRESSES),
        "clients": [store.owner_of(client_id) for client_id in range(20)],
    }


class Model:
    """What a store must hold after so many batches."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.count = 0
        self.states = [state(self.store)]

    def after(self, count: int) -> dict[str, object]:
        while self.count < count:
            self.store.commit(batch(self.count), now=begins(self.count))
            self.count += 1
            self.states.append(state(self.store))
        return self.states[count]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def survives(path: Path, model: Model, acknowledged: int, *, apart: bool = False) -> int:
    """Reopen what a killed process left; returns how many batches are there."""
    with closing(open_store(path, apart=apart)) as store:
        found = state(store)
        audit(store, ADDRESSES)
    if found == model.after(acknowledged):
        count = acknowledged
    else:
        assert found == model.after(acknowledged + 1), f"{acknowledged} batches were acknowledged"
        count = acknowledged + 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    return count


def last_of(acknowledgements: bytes, before: int) -> int:
    """How many batches were acknowledged, those of earlier processes included."""
    numbers = [int.from_bytes(acknowledgements[at : at + 4], "big") for at in range(0, len(acknowledgements), 4)]
    assert numbers == list(range(before, before + len(numbers)))
    return before + len(numbers)


def run_until_killed(path: Path, first: int, seconds: float, *, apart: bool) -> bytes:
    """Let a process commit; ``kill -9`` so long after its first acknowledgement. Returns what it acknowledged."""
    reading, writing = os.pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, committer.__file__, str(path), str(writing), str(first), *(["apart"] if apart else [])]
    with subprocess.Popen(command, pass_fds=[writing], env=environment) as child:
        os.close(writing)
        begun = os.read(reading, 4)
        time.sleep(seconds)
        child.kill()
        return begun + read_all(reading)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["one process", "a writer apart"])
def test_killed_at_random_moments(tmp_path: Path, model: Model, *, apart: bool) -> None:
    """Lives of one store, each from where the last one was cut off."""
    path, rng, count, in_flight = tmp_path / "leases.db", random.Random(3102), 0, 0
    lives = 10 if apart else 20
    for _ in range(lives):
        before = count
        acknowledged = last_of(run_until_killed(path, before, rng.uniform(0, 0.03), apart=apart), before)
        assert acknowledged > before
        count = survives(path, model, acknowledged, apart=apart)
        in_flight += count - acknowledged
    assert count >= lives
    assert in_flight <= lives


Die = Callable[..., tuple[bytes, bool]]
"Commits in a process that dies at a step; returns what was acknowledged, and whether it died."


@pytest.fixture(scope="module")
def die_at() -> Iterator[Die]:
    command = [sys.executable, mortal.__file__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def commit(path: Path, step: int, *, after: bool, first: int, count: int) -> tuple[bytes, bool]:
            asked = {"path": str(path), "step": step, "after": after, "first": first, "count": count}
            print(json.dumps(asked), file=process.stdin, flush=True)
            told = json.loads(process.stdout.readline())
            assert told["status"] in (0, signal.SIGKILL), f"the committing process failed: {told['status']}"
            return bytes.fromhex(told["acknowledged"]), told["status"] == signal.SIGKILL

        yield commit
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("earlier", [0, 4], ids=["making-the-store", "going-on"])
def test_killed_at_every_step(tmp_path: Path, model: Model, die_at: Die, earlier: int, *, after: bool) -> None:
    """Making the store, and two batches: the process dies at each statement in turn."""
    made = tmp_path / "made.db"
    if earlier:
        with closing(SqliteStore(made)) as store, Path(os.devnull).open("wb") as nowhere:
            committer.commit_from(store, 0, nowhere.fileno(), earlier)
    died, step, beyond = True, 0, 0
    while died:
        step += 1
        path = tmp_path / f"{step}.db"
        if earlier:
            shutil.copy(made, path)
        octets, died = die_at(path, step, after=after, first=earlier, count=2)
        acknowledged = last_of(octets, earlier)
        beyond += survives(path, model, acknowledged) - acknowledged
        for each in tmp_path.glob(f"{step}.db*"):
            each.unlink()
    assert acknowledged == earlier + 2
    assert step > 100
    # Only who dies between the end of a commit and its acknowledgement leaves more than was acknowledged.
    assert beyond == (2 if after else 0)


@pytest.mark.parametrize("torn", ["cut off", "garbage"])
def test_the_end_of_the_log_never_reached_the_disk(tmp_path: Path, model: Model, torn: str) -> None:
    """Power fails: of what was written since the last flush, any part may be there. What was flushed is."""
    live, path, rng, count = tmp_path / "live.db", tmp_path / "leases.db", random.Random(3103), 12
    log = tmp_path / "live.db-wal"
    with closing(SqliteStore(live)) as store:
        sizes = [log.stat().st_size]
        for number in range(count):
            store.commit(batch(number), now=begins(number))
            sizes.append(log.stat().st_size)
        octets = log.read_bytes()
        assert sizes == sorted(set(sizes)), "the log was folded into the file: use fewer batches"
        assert len(octets) == sizes[-1]
        shutil.copy(live, path)
    kept_file = path.read_bytes()
    lengths = {size + off for size in sizes for off in (-1, 0, 1) if 0 <= size + off <= len(octets)}
    lengths |= {rng.randrange(len(octets)) for _ in range(60)}
    for length in sorted(lengths):
        path.write_bytes(kept_file)
        tail = b"" if torn == "cut off" else rng.randbytes(len(octets) - length)
        Path(f"{path}-wal").write_bytes(octets[:length] + tail)
        durable = max((number for number, size in enumerate(sizes) if size <= length), default=0)
        with closing(SqliteStore(path)) as store:
            assert state(store) == model.after(durable), f"{length} octets of the log"
            audit(store, ADDRESSES)
            store.commit(batch(durable), now=begins(durable))
            assert state(store) == model.after(durable + 1)
