# SPDX-License-Identifier: BSD-3-Clause
"""The local control socket: one JSON object a line, request and response.

``{"do": "leases"}`` is answered ``{"ok": true, "result": ...}`` or ``{"ok": false,
"error": "..."}``. A connection may hold something (a lease of ``isthmus run``) that ends
with it, and may be sent ``{"event": ...}`` lines between responses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from isthmus.daemon.listener import Listener
from isthmus.errors import IsthmusError

LINE_LIMIT = 1 << 20
"""Longest request in octets."""
_BACKLOG = 100
RUN_VARIABLE = "ISTHMUS_RUN"
"""Names the folder of control sockets, for those who do not say which socket; the lab's shells set it."""
_ASKED_OF = {
    "host": ("acquire", "release", "query"),
    "gateway": ("revoke", "who-had", "multicast"),
    "gateway or host": ("leases",),
    "border router": ("remap", "mappings", "refused"),
    "border router or node": ("routes", "aliases", "tunnels"),
}


class ControlError(IsthmusError):
    """A request to a daemon that failed; the message is the daemon's, or says why there was none."""


class Connection:
    """One client of the socket, as a handler sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.closing: list[Callable[[], None]] = []
        "Called when the client has gone."

    def push(self, event: Mapping[str, Any]) -> None:
        """Send an event line; a client that has gone or does not read misses it."""
        if not self._writer.is_closing() and self._writer.transport.get_write_buffer_size() < LINE_LIMIT:
            self._writer.write(json.dumps(event).encode() + b"\n")


Handler = Callable[[dict[str, Any], Connection], Awaitable[Any]]


class ControlServer:
    """Serves the socket of one daemon."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._listener: Listener | None = None
        self._serving: dict[asyncio.Task[None], socket.socket] = {}

    async def start(self) -> None:
        """Listen; a socket file that nobody listens on any more is replaced.

        Raises:
            ControlError: another daemon of this name is running, or the place is not ours.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self._path))
                raise ControlError(f"{self._path}: another isthmus of this name is running")
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise ControlError(f"{self._path}: {error.strerror}; run as root, or give [isthmus] run another") from error
        finally:
            os.umask(before)
        self._listener = Listener(listener, self._let_in)

    def _let_in(self, accepted: socket.socket, _peer: object) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(accepted))
        self._serving[task] = accepted
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.pop(task).close()

    async def stop(self) -> None:
        """Stop listening, hang up on who is still there, and remove the socket file."""
        if self._listener is None:
            return
        self._listener.close()
        self._path.unlink(missing_ok=True)
        # Who has not been served yet never will be; the socket is closed all the same when the task is done.
        serving = list(self._serving)
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=accepted, limit=LINE_LIMIT)
        try:
            await self._converse(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, ValueError):
            pass
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line, connection)).encode() + b"\n")
                await writer.drain()
        finally:
            for each in connection.closing:
                each()

    async def _answer(self, line: bytes, connection: Connection) -> dict[str, Any]:
        try:
            request = json.loads(line)
            handler = self._handlers.get(request["do"])
            if handler is None:
                return {"ok": False, "error": self._unknown(request["do"])}
            return {"ok": True, "result": await handler(request, connection)}
        except IsthmusError as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"ok": False, "error": f"not a request: {error!r}"}

    def _unknown(self, verb: object) -> str:
        known = ", ".join(sorted(self._handlers))
        for whom, verbs in _ASKED_OF.items():
            if isinstance(verb, str) and verb in verbs:
                return f"this is asked of a {whom}, and the daemon at {self._path} is none (it knows {known})"
        return f"{verb!r} is not one of {known}"


class ControlClient:
    """A connection to a daemon, for those that hold something or wait for events."""

    def __init__(self, path: Path | str, *, timeout: float | None = None) -> None:
        """Connect.

        Args:
            path: The socket.
            timeout: How many seconds an answer may take; None: for ever.

        Raises:
            ControlError: nobody listens there.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except PermissionError as error:
            self._socket.close()
            raise ControlError(f"{path}: only who started the daemon, and root, may ask it") from error
        except OSError as error:
            self._socket.close()
            hint = "start it with 'isthmus up CONFIG', or name its socket with --socket"
            raise ControlError(f"{path}: no isthmus answers here ({error.strerror}); {hint}") from error
        self._received = b""
        self.events: list[dict[str, Any]] = []
        "Events that arrived while a response was waited for."

    def request(self, request: Mapping[str, Any]) -> Any:
        """Ask and wait.

        Raises:
            ControlError: the daemon refused, or went away.
        """
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while (line := self._line()) is not None:
                answer = json.loads(line)
                if "event" in answer:
                    self.events.append(answer)
                elif answer["ok"]:
                    return answer["result"]
                else:
                    raise ControlError(answer["error"])
        except (OSError, ValueError) as error:
            raise ControlError(f"the daemon went away: {error}") from error
        raise ControlError("the daemon went away without an answer")

    def demand_same_network(self) -> None:
        """See that the daemon is in our network namespace: what it leases is on devices there.

        Raises:
            ControlError: it is in another.
        """
        process, _, _ = struct.unpack("=iII", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with contextlib.suppress(OSError):
            if not Path("/proc/self/ns/net").samefile(f"/proc/{process}/ns/net"):
                raise ControlError(f"the daemon (process {process}) is in another network namespace: do this there")

    def wait_events(self, seconds: float) -> list[dict[str, Any]]:
        """Take the events that have come, waiting for the first one.

        Args:
            seconds: How long to wait.

        Raises:
            ControlError: the daemon went away.
        """
        try:
            wait = 0.0 if self.events else seconds
            while b"\n" in self._received or select.select([self._socket], [], [], wait)[0]:
                line, wait = self._line(), 0.0
                if line is None:
                    raise ControlError("the daemon went away")
                self.events.append(json.loads(line))
        except (OSError, ValueError) as error:
            raise ControlError(f"the daemon went away: {error}") from error
        events, self.events = self.events, []
        return events

    def _line(self) -> bytes | None:
        """The next line, waited for; None at the end."""
        while b"\n" not in self._received:
            octets = self._socket.recv(65536)
            if not octets:
                return None
            self._received += octets
        line, _, self._received = self._received.partition(b"\n")
        return line

    def close(self) -> None:
        """Hang up; what this connection holds ends."""
        self._socket.close()


def call(path: Path | str, request: Mapping[str, Any]) -> Any:
    """Ask a daemon one thing.

    Raises:
        ControlError: nobody listens, or the daemon refused.
    """
    client = ControlClient(path)
    try:
        return client.request(request)
    finally:
        client.close()


def find_socket(socket_path: Path | None = None, config: Path | None = None, *, run: Path | None = None) -> Path:
    """Find the control socket that a command means.

    Args:
        socket_path: What ``--socket`` said.
        config: What ``--config`` said.
        run: Where daemons put their sockets; None: where ISTHMUS_RUN says, or the default.

    Raises:
        ControlError: there is none, or more than one.
        ConfigError: the configuration is wrong.
    """
    if socket_path is not None:
        return socket_path
    if config is not None:
        from isthmus.daemon.config import load

        return load(config).control_socket
    run = run or Path(os.environ.get(RUN_VARIABLE) or "/run/isthmus")
    found = sorted(run.glob("*.sock"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ControlError(
            f"no isthmus runs here ({run} has no socket): start one with 'isthmus up CONFIG', or give --socket"
        )
    raise ControlError(f"several run here: choose one with --socket from {', '.join(map(str, found))}")
