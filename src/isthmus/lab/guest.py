# SPDX-License-Identifier: BSD-3-Clause
"""The first process of a User Mode Linux guest: it makes machines and runs commands in them.

It is started by the guest's kernel as a script of its own (``python -I guest.py WORD...``), imports
nothing of the package, and serves TCP on the management link: one JSON object in a line asks, one
answers. Each *machine* is a network namespace with its own ``/run`` and ``/tmp``. The root
file system is the host's, read-only, so everything that is written is in memory and ends with the guest.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

PORT = 7000
_FINIT_MODULE = 313
_POWER_OFF = 0x4321FEDC
_REMOUNT_READ_ONLY_NOSUID = 0x1000 | 32 | 2 | 1  # MS_BIND, MS_REMOUNT, MS_NOSUID, MS_RDONLY
_MODULES = Path("/usr/lib/uml/modules")
_LONGEST_LOG = 1 << 20
_Words = list[str]


class Refused(Exception):
    """What was asked cannot be done; the text says why."""


class _Daemon:
    """A process that stays, and what it has said so far; the guest's console says it too."""

    def __init__(self, name: str, words: _Words, env: dict[str, str]) -> None:
        self.name = name
        self.said = bytearray()
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while octets := os.read(self.process.stdout.fileno(), 65536):
            self.said += octets
            del self.said[:-_LONGEST_LOG]
            for line in octets.decode(errors="replace").splitlines():
                sys.stdout.write(f"{self.name} | {line}\n")
            sys.stdout.flush()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.said.decode(errors="replace").splitlines()[-lines:])

    def wait_for(self, ready: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while ready.encode() not in self.said:
            if self.process.poll() is not None:
                self._reader.join(1)
                raise Refused(f"ended with exit code {self.process.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Refused(f"not ready within {seconds:g} seconds\n{self.tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


class Guest:
    """The machines of this guest, and what runs in them."""

    def __init__(self) -> None:
        self.holders: dict[str, int] = {}
        self.plugged: dict[str, int] = {}
        self.daemons: dict[tuple[str, str], _Daemon] = {}

    def load(self, modules: _Words) -> None:
        """Load kernel modules and what they need; the guest has no modprobe, so nothing is loaded by itself."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = _MODULES / os.uname().release
        needs = {}
        for line in (home / "modules.dep").read_text(encoding="ascii").splitlines():
            path, _, others = line.partition(":")
            needs[Path(path).stem.replace("-", "_")] = [*reversed(others.split()), path]
        for module in modules:
            # What modules.dep does not name is built in, or missing: then whoever needs it says so.
            for path in needs.get(module.replace("-", "_"), []):
                with (home / path).open("rb") as file:
                    failed = libc.syscall(_FINIT_MODULE, file.fileno(), b"", 0)
                if failed and ctypes.get_errno() != 17:  # EEXIST
                    raise Refused(f"module {path}: {os.strerror(ctypes.get_errno())}")

    def machine(self, name: str, interface: str, address: str, sysctls: dict[str, str], mtu: int) -> None:
        """Make a machine that has an interface of the guest as its ``eth0``; one that is there gets ``eth1``, ..."""
        if name not in self.holders:
            script = "mount -t tmpfs none /run && mount -t tmpfs none /tmp && echo made && exec sleep infinity"
            words = ["unshare", "--net", "--mount", "sh", "-c", script]
            holder = self._started(name, "holder", words, {})
            holder.wait_for("made", 10)
            self.holders[name] = holder.process.pid
        own = f"eth{self.plugged.get(name, 0)}"
        self.plugged[name] = self.plugged.get(name, 0) + 1
        _sure("ip", "link", "set", interface, "netns", str(self.holders[name]), "name", own)
        for key, value in sysctls.items():
            path = "/proc/sys/" + key.replace(".", "/")
            _sure(*self.inside(name, ["sh", "-c", f"echo {value} > {path}"]))
        for line in ("link set lo up", f"addr add {address} dev {own}", f"link set {own} up mtu {mtu}"):
            _sure(*self.inside(name, ["ip", *line.split()]))

    def inside(self, machine: str, words: _Words) -> _Words:
        """Put a command into a machine; without a name it runs in the guest itself."""
        if not machine:
            return words
        if machine not in self.holders:
            raise Refused(f"there is no machine {machine!r}")
        return ["nsenter", f"--target={self.holders[machine]}", "--mount", "--net", "--", *words]

    def run(self, machine: str, words: _Words, env: dict[str, str], seconds: float) -> dict[str, Any]:
        """Run a command to its end."""
        try:
            done = subprocess.run(
                self.inside(machine, words),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env},
            )
        except subprocess.TimeoutExpired as error:
            raise Refused(f"did not end within {seconds:g} seconds") from error
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr}

    def start(  # noqa: PLR0917 - always by name
        self, machine: str, name: str, words: _Words, env: dict[str, str], ready: str, seconds: float
    ) -> None:
        """Start a process that stays, and wait until it has said ``ready``."""
        daemon = self._started(machine, name, self.inside(machine, words), env)
        if ready:
            daemon.wait_for(ready, seconds)

    def _started(self, machine: str, name: str, words: _Words, env: dict[str, str]) -> _Daemon:
        self.stop(machine, name)
        daemon = self.daemons[machine, name] = _Daemon(f"{machine}/{name}", words, env)
        return daemon

    def wait(self, machine: str, name: str, ready: str, seconds: float) -> str:
        """Wait until a process has said ``ready``, and return what it said."""
        if (machine, name) not in self.daemons:
            raise Refused(f"there is no process {name!r}")
        daemon = self.daemons[machine, name]
        daemon.wait_for(ready, seconds)
        return daemon.tail()

    def stop(self, machine: str, name: str) -> None:
        """End a process that was started; one that is not there is no error."""
        if daemon := self.daemons.pop((machine, name), None):
            daemon.stop()

    def write(self, machine: str, path: str, text: str) -> None:
        """Write a file of a machine."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1"'
        _sure(*self.inside(machine, ["sh", "-c", script, "sh", path]), text=text)


def _sure(*words: str, text: str = "") -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")


class _Handler(socketserver.StreamRequestHandler):
    """One connection, one question."""

    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        verb = asked.pop("verb")
        try:
            answer = {"answer": getattr(_GUEST, verb)(**asked)}
        except (Refused, OSError, subprocess.SubprocessError) as error:
            answer = {"refused": str(error)}
        with contextlib.suppress(OSError):
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


_GUEST = Guest()


def main(interface: str, address: str, path: str) -> None:
    """Mount what a machine needs, bring up the management link, and serve until the guest is halted."""
    os.environ.update(PATH=path, HOME="/run", LANG="C.UTF-8", PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
    # Where the lab runs without root, programs that are setuid root are somebody else's, and would lose its rights.
    if ctypes.CDLL(None, use_errno=True).mount(None, b"/", None, _REMOUNT_READ_ONLY_NOSUID, None):
        raise Refused(f"the root file system: {os.strerror(ctypes.get_errno())}")
    for kind, where in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("tmpfs", "/tmp")):  # noqa: S108
        _sure("mount", "-t", kind, "none", where)
    _sure("ip", "link", "set", "lo", "up")
    _sure("ip", "addr", "add", address, "dev", interface)
    _sure("ip", "link", "set", interface, "up")
    _Server(("", PORT), _Handler).serve_forever()


if __name__ == "__main__":
    try:
        # The kernel adds words of its own to the end of the command line.
        main(*sys.argv[1:4])
    except BaseException:
        # The console must show this and not the panic of a kernel whose first process has ended.
        traceback.print_exc()
        sys.stderr.flush()
        ctypes.CDLL(None).reboot(_POWER_OFF)
