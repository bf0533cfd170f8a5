# SPDX-License-Identifier: BSD-3-Clause
"""A process that writes a store for another one: ``python -m isthmus.store.writer PATH DESCRIPTOR``.

It reads batches from a stream socket and answers each when it is durable; at the end of the stream it ends. A batch is
four octets of length, least significant first, and as many octets of ``marshal``: the time, and the entries
(``store.entry``). An answer has the same form: of no length if all is well, else what went wrong.

Writers of one file wait for one another, by a lock on the file: what a gateway that was killed had under way is
written, or is not, before its successor reads.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import signal
import socket
import struct
import sys
import time
from typing import Any

from isthmus.errors import Conflict, IsthmusError, StoreUnavailable
from isthmus.store.sqlite import SqliteStore

LENGTH = struct.Struct("<I")
_FLOCK = struct.Struct("hhqqi")
_LOCK_AT = 1 << 62
"Where nobody's data is."
_WAIT_SECONDS = 10.0
_CACHE_OCTETS = 64 << 20

CONFLICT, UNAVAILABLE, FAULT = range(3)


def receive(channel: socket.socket) -> bytes | None:
    """Receive what stands behind a length; None at the end of the stream."""
    head = _exactly(channel, LENGTH.size)
    return None if head is None else _exactly(channel, LENGTH.unpack(head)[0])


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    if not count:
        return b""
    octets = channel.recv(count, socket.MSG_WAITALL)
    while octets and len(octets) < count:
        more = channel.recv(count - len(octets), socket.MSG_WAITALL)
        if not more:
            return None
        octets += more
    return octets or None


def send(channel: socket.socket, payload: bytes) -> None:
    """Send something behind its length."""
    channel.sendall(LENGTH.pack(len(payload)) + payload)


def error_of(answer: bytes) -> Exception | None:
    """What an answer says."""
    if not answer:
        return None
    kind, text = marshal.loads(answer)  # noqa: S302 - from our own process
    if kind == CONFLICT:
        return Conflict(text)
    return StoreUnavailable(text) if kind == UNAVAILABLE else RuntimeError(text)


def _answer(store: SqliteStore, request: bytes) -> bytes:
    now, batch = marshal.loads(request)  # noqa: S302 - from our own process
    try:
        store.commit_entries(batch, now=now)
    except Conflict as error:
        return _said(CONFLICT, error.resource)
    except StoreUnavailable as error:
        return _said(UNAVAILABLE, str(error))
    except Exception as error:  # whatever it is, who waits must hear of it
        return _said(FAULT, repr(error))
    return b""


def _said(*what: Any) -> bytes:
    return marshal.dumps(what)


def _wait_for_turn(path: str) -> int:
    """Be the only writer; returns the descriptor that must stay open as long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _LOCK_AT, 1, 0))
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise StoreUnavailable(f"{path}: another process writes it, and does not end") from error
            time.sleep(0.005)
        else:
            return descriptor


def main(path: str, descriptor: int) -> None:
    """Write until the stream ends."""
    # Who wants us to end tells the process that we write for; it will close the stream.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as channel:
        try:
            _wait_for_turn(path)
            store = SqliteStore(path, cache_octets=_CACHE_OCTETS)
        except (IsthmusError, OSError) as error:
            send(channel, _said(UNAVAILABLE, str(error)))
            return
        send(channel, b"")
        while (request := receive(channel)) is not None:
            send(channel, _answer(store, request))
        store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
