# SPDX-License-Identifier: BSD-3-Clause
"""A process whose children commit, and die before or after a given statement.

    python mortal.py

reads a line for each child: ``{"path", "step", "after", "first", "count"}`` in JSON, and answers with what
it acknowledged and how it ended: ``{"acknowledged", "status"}``. A process of its own because it is small:
to fork one that has collected all tests costs several times what its child does.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys

from isthmus.store.sqlite import SqliteStore
from store import committer


class Mortal(sqlite3.Connection):
    """A connection whose process dies before or after its n-th statement."""

    steps = 0
    fatal = -1
    after = False

    def execute(self, *args, **kwargs):
        return step(super().execute, *args, **kwargs)

    def cursor(self):
        return super().cursor(MortalCursor)


class MortalCursor(sqlite3.Cursor):
    def execute(self, *args, **kwargs):
        return step(super().execute, *args, **kwargs)

    def executemany(self, statement, rows):
        for row in rows:
            step(super().execute, statement, row)
        return self


def step(statement, *args, **kwargs):
    Mortal.steps += 1
    if Mortal.steps == Mortal.fatal and not Mortal.after:
        os.kill(os.getpid(), signal.SIGKILL)
    result = statement(*args, **kwargs)
    if Mortal.steps == Mortal.fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def read_all(descriptor: int) -> bytes:
    octets = b""
    while more := os.read(descriptor, 65536):
        octets += more
    os.close(descriptor)
    return octets


def commit_and_die(path: str, step: int, *, after: bool, first: int, count: int) -> tuple[bytes, int]:
    """Commit in a fork that dies at a step; returns what it acknowledged, and its status."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            connect = sqlite3.connect
            sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Mortal, **kwargs)
            Mortal.steps, Mortal.fatal, Mortal.after = 0, step, after
            committer.commit_from(SqliteStore(path), first, writing, count)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    octets = read_all(reading)
    _, status = os.waitpid(child, 0)
    return octets, status


if __name__ == "__main__":
    for line in sys.stdin:
        acknowledged, status = commit_and_die(**json.loads(line))
        print(json.dumps({"acknowledged": acknowledged.hex(), "status": status}), flush=True)
