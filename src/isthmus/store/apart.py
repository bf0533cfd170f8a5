# SPDX-License-Identifier: BSD-3-Clause
"""The embedded store whose writing another process does, so that it costs no time of this one.

A thread would not do: it needs the interpreter for every row, and so do we. What is read is read here, through a
connection of our own; it sees what has been committed, and a reader never waits for a writer.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from isthmus.border.effect import Durable
from isthmus.errors import StoreUnavailable
from isthmus.store.entry import entries
from isthmus.store.reading import Reading
from isthmus.store.sqlite import SqliteStore
from isthmus.store.writer import error_of, receive, send

_SO_SNDBUFFORCE = 32
"From asm-generic/socket.h."
_BUFFER_OCTETS = 8 << 20
"What may be under way to the writer before a caller waits, where the system allows it."
_END_SECONDS = 30.0


class ApartStore(SqliteStore):
    """Keeps leases in one SQLite file that a process of its own writes; it ends with the store."""

    def __init__(self, path: str | os.PathLike[str], *, wait_seconds: float = 5.0) -> None:
        """Open the file as ``SqliteStore`` does, and begin to start the writer: who reads or writes first waits for it.

        Raises:
            StoreUnavailable: as ``SqliteStore`` says.
        """
        super().__init__(path, wait_seconds=wait_seconds)
        self._turn = threading.RLock()
        self._started: Future[None] = Future()
        self._waiting: deque[Future[None]] = deque()
        self._channel: socket.socket | None = None
        self._writer: subprocess.Popen[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._start()

    @property
    def writer(self) -> int | None:
        """The process that writes; None if there is none at present."""
        return None if self._writer is None else self._writer.pid

    def commit(self, effects: Iterable[Durable], *, now: float) -> None:
        """Write a batch in one transaction: all of it, durable, or nothing (see ``LeaseStore``)."""
        with self._turn:
            outcome = self._begin(effects, now)
            self._finish(outcome)
        outcome.result()

    def submit(self, effects: Iterable[Durable], *, now: float) -> Future[None]:
        """Begin to write a batch (see ``LeaseStore``)."""
        with self._turn:
            outcome = self._begin(effects, now)
            loop = _running_loop()
            if loop is None:
                self._finish(outcome)
            else:
                self._attend(loop)
        return outcome

    def close(self) -> None:
        """Let go of the file, when all that is under way is written."""
        self._closed = True
        with self._turn:
            if not self._started.done() and self._writer is not None:
                self._writer.kill()
            if self._waiting:
                self._finish(self._waiting[-1])
            self._end()
        super().close()

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        """The tables as they stand now, and not before the writer of an earlier store has ended."""
        if not self._started.done():
            with self._turn:
                self._finish(self._started)
        with super()._reading() as tables:
            yield tables

    def _begin(self, effects: Iterable[Durable], now: float) -> Future[None]:
        batch = entries(effects)
        outcome: Future[None] = Future()
        outcome.set_running_or_notify_cancel()
        if not batch:
            outcome.set_result(None)
            return outcome
        try:
            octets = marshal.dumps((now, batch))
            channel = self._channel or self._start()
            self._waiting.append(outcome)
            send(channel, octets)
        except StoreUnavailable as error:
            outcome.set_exception(error)
        except OSError:
            self._lost()
        return outcome

    def _attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop tell when an answer has come."""
        if self._loop is not loop and self._channel is not None:
            self._stop_attending()
            loop.add_reader(self._channel, self._answered)
            self._loop = loop

    def _stop_attending(self) -> None:
        if self._loop is not None and self._channel is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._channel)
        self._loop = None

    def _finish(self, outcome: Future[None]) -> None:
        while not outcome.done():
            self._answered()

    def _answered(self) -> None:
        """Take one answer, and wait for it if it is not there."""
        with self._turn:
            if self._channel is None:
                return
            try:
                answer = receive(self._channel)
            except OSError:
                answer = None
            if answer is None:
                self._lost()
                return
            outcome, error = self._waiting.popleft(), error_of(answer)
            if error is None:
                outcome.set_result(None)
                return
            outcome.set_exception(error)
            if outcome is self._started:
                self._lost(error)

    def _lost(self, reason: Exception | None = None) -> None:
        """The writer is gone: of what was under way nobody knows; the next batch starts another one."""
        self._end()
        error = reason or StoreUnavailable(f"{self.path}: cannot write: the process that writes it has ended")
        while self._waiting:
            self._waiting.popleft().set_exception(error)

    def _start(self) -> socket.socket:
        """Make a writer.

        Raises:
            StoreUnavailable: the system gives us no process, or no descriptor.
        """
        if self._closed:
            raise StoreUnavailable(f"{self.path}: cannot write: the store is closed")
        try:
            self._channel, self._writer = _make_writer(self.path)
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: cannot write: {error.strerror}") from error
        self._started = Future()
        self._waiting.append(self._started)
        return self._channel

    def _end(self) -> None:
        self._stop_attending()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._writer is not None:
            try:
                self._writer.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._writer.kill()
                self._writer.wait()
            self._writer = None


def _make_writer(path: Path) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a process that writes a file; returns our end of the stream to it, too."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-P", "-m", "isthmus.store.writer", str(path), str(theirs.fileno())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with theirs, ExitStack() as undo:
        undo.enter_context(ours)
        for end in (ours, theirs):
            with suppress(PermissionError):
                end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_OCTETS)
        writer = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        undo.pop_all()
    return ours, writer


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
