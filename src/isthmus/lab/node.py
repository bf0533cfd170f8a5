# SPDX-License-Identifier: BSD-3-Clause
"""A machine of the lab: commands run in it, daemons started in it, sockets opened in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import netns

from isthmus.lab.topology import NETNS, LabError

ISTHMUS = (sys.executable, "-m", "isthmus")
"""The program itself, from the same installation that the lab runs from."""

_T = TypeVar("_T")
_TAIL = 30


@dataclass(slots=True)
class Daemon:
    """A process that runs until the lab ends it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id: nsenter replaces itself, so it is the program's own."""
        return self.process.pid

    def kill(self) -> None:
        """End it like a crash does (SIGKILL)."""
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self, seconds: float = 10.0) -> int:
        """Ask it to end (SIGTERM), insist after a while, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def tail(self) -> str:
        """Return the end of what it said."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(f"  {self.name} | {line}" for line in lines[-_TAIL:])


@dataclass(slots=True)
class Node:
    """One machine of a network that has been built."""

    name: str
    namespace: str
    directory: Path
    "Its own files: configuration, sockets, pins, state, logs."
    started: Callable[[Daemon], None]
    "Told of each process that outlives a call, so that none is left behind."
    daemons: dict[str, Daemon] = field(default_factory=dict)

    @property
    def run_directory(self) -> Path:
        """Where the daemons of this machine keep their control sockets and pins."""
        return self.directory / "run"

    @property
    def socket_path(self) -> Path:
        """The control socket of the daemon that has the name of the node."""
        return self.run_directory / f"{self.name}.sock"

    @property
    def plane(self) -> str:
        """The plane that its daemon uses: the kernel's is pinned."""
        pins = self.run_directory / "bpf" / self.name
        return "kernel" if pins.is_dir() and any(pins.iterdir()) else "reference"

    def command(self, *command: str) -> list[str]:
        """Put a command into the namespace."""
        return ["nsenter", f"--net={NETNS / self.namespace}", "--", *command]

    def run(
        self, *command: str, seconds: float = 30.0, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            LabError: it failed and ``check`` is set, it took too long, or it is not installed.
        """
        try:
            done = subprocess.run(
                self.command(*command),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {' '.join(command)}: did not end within {seconds:g} seconds") from error
        except FileNotFoundError as error:
            raise LabError(f"{self.name}: nsenter is not installed") from error
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(command)}: exit code {done.returncode}: {words}")
        return done

    def isthmus(self, *words: str, daemon: str | None = None, seconds: float = 30.0) -> Any:
        """Ask a daemon of this machine by the command line and return its JSON answer.

        Args:
            words: The command.
            daemon: The name of the daemon; None: that of the node.
            seconds: How long it may take.

        Raises:
            LabError: it failed, or what it printed is not JSON.
        """
        path = self.run_directory / f"{daemon or self.name}.sock"
        done = self.run(*ISTHMUS, *words, "--socket", str(path), "--json", seconds=seconds)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise LabError(f"{self.name}: isthmus {' '.join(words)} --json printed no JSON: {done.stdout!r}") from error

    def start(self, name: str, *command: str, ready: str | None = None, seconds: float = 20.0) -> Daemon:
        """Start a process that stays, and wait until it prints a line ``ready``.

        Raises:
            LabError: it ended before, or said nothing in time; its log is in the message.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            offset = output.tell()
            process = subprocess.Popen(
                self.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        daemon = Daemon(f"{self.name}/{name}", process, log)
        self.daemons[name] = daemon
        self.started(daemon)
        if ready:
            _wait_for_line(daemon, offset, ready, seconds)
        return daemon

    def up(self, configuration: str, *, name: str = "isthmus", seconds: float = 30.0) -> Daemon:
        """Start ``isthmus up`` with this configuration and wait until it serves; a machine may run several."""
        self.run_directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}.toml"
        path.write_text(configuration, encoding="utf-8")
        return self.start(name, *ISTHMUS, "up", str(path), ready="ready", seconds=seconds)

    def inside(self, make: Callable[[], _T]) -> _T:
        """Call something in the namespace, in a thread that ends with it; a socket made so stays there.

        Raises:
            LabError: the namespace cannot be entered.
        """
        result: list[_T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                netns.setns(str(NETNS / self.namespace), flags=0)
                result.append(make())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"in {self.namespace}")
        thread.start()
        thread.join()
        if failure:
            raise LabError(f"{self.name}: {failure[0]}") from failure[0]
        return result[0]

    def send_raw(self, protocol: int, address: str, *payloads: bytes) -> None:
        """Send IPv4 packets of this protocol: into a tunnel past one's own plane, for instance."""
        with self.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)) as raw:
            for payload in payloads:
                raw.sendto(payload, (address, 0))

    def udp_socket(self) -> socket.socket:
        """Open an ordinary UDP socket of this machine."""
        return self.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def _wait_for_line(daemon: Daemon, offset: int, ready: str, seconds: float) -> None:
    """Read the log from where this process began to write, until a line says that it is ready."""

    def said() -> bool:
        with daemon.log.open("rb") as log:
            log.seek(offset)
            return any(line.strip().startswith(ready.encode()) for line in log)

    def over() -> bool:
        return said() or daemon.process.poll() is not None

    wait_until(over, seconds, every=0.02)
    if said():
        return
    code = daemon.process.poll()
    why = (
        f"not ready within {seconds:g} seconds" if code is None else f"ended with exit code {code} before it was ready"
    )
    raise LabError(f"{daemon.name}: {why}\n{daemon.tail()}")


def wait_until(holds: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Ask until it holds or the time is over, and say which."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True
