# SPDX-License-Identifier: BSD-3-Clause
"""A network that stands: built on entry, taken away on exit, and found again if its maker was killed.

Everything that a lab makes is written into ``/run/isthmus/lab/NAME/lab.json`` before it is made.
Whoever finds that file can take all of it away, which is what ``isthmus lab down`` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from isthmus.lab.node import Daemon, Node, wait_until
from isthmus.lab.topology import NETNS, LabError, Network, build

HOME = Path("/run/isthmus/lab")


@dataclass(slots=True)
class Record:
    """What a lab has made, as its file says it."""

    name: str
    maker: int
    "The process that keeps it; 0 if it stands by itself."
    maker_started: int = 0
    namespaces: list[str] = field(default_factory=list)
    processes: list[tuple[int, int]] = field(default_factory=list)
    "Process id and start time, since ids are used again."

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return HOME / self.name

    @property
    def path(self) -> Path:
        """Its own file."""
        return self.directory / "lab.json"

    @property
    def alive(self) -> bool:
        """Whether its maker still runs."""
        return self.maker != 0 and started_at(self.maker) == self.maker_started

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(self.path)


def records() -> list[Record]:
    """Read what labs there are."""
    found = []
    for path in sorted(HOME.glob("*/lab.json")):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, TypeError):
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
            record.processes = [(pid, started) for pid, started in record.processes]
            found.append(record)
    return found


class Lab:
    """One network that stands."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.record = Record(network.name, os.getpid(), started_at(os.getpid()))
        self._recording = threading.Lock()
        self.nodes = {
            plan.name: Node(plan.name, network.namespace(plan.name), self.record.directory / plan.name, self._started)
            for plan in network.nodes
        }

    def __getitem__(self, node: str) -> Node:
        """The node of that name."""
        return self.nodes[node]

    def _started(self, daemon: Daemon) -> None:
        # Machines may be started at the same time.
        with self._recording:
            self.record.processes.append((daemon.pid, started_at(daemon.pid)))
            self.record.write()

    def build(self) -> None:
        """Make the network, over what a killed lab of the same name has left.

        Raises:
            LabError: a lab of that name stands, or a command failed.
        """
        for record in records():
            if record.name == self.network.name:
                if record.alive or record.maker == 0:
                    keeper = f"process {record.maker}" if record.maker else "lab up"
                    raise LabError(f"{record.name} stands already (kept by {keeper}); isthmus lab down removes it")
                remove(record)
        self.record.namespaces = list(self.network.namespaces)
        self.record.write()
        build(self.network)

    def leave(self) -> None:
        """Let it stand by itself: ``lab down`` is to remove it."""
        self.record.maker = 0
        self.record.write()

    def logs(self) -> str:
        """Return the ends of all that its daemons said."""
        return "\n".join(daemon.tail() for node in self.nodes.values() for daemon in node.daemons.values())

    def remove(self) -> None:
        """Take everything away: first the daemons may end in order, then they must."""
        daemons = [daemon for node in self.nodes.values() for daemon in node.daemons.values()]
        for daemon in daemons:
            if daemon.process.poll() is None:
                daemon.process.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.stop(seconds=5)
        remove(self.record)


@contextlib.contextmanager
def standing(network: Network, *, keep: bool = False) -> Iterator[Lab]:
    """Build a network and take it away at the end, also after SIGTERM, SIGHUP and SIGINT.

    Args:
        network: What to build.
        keep: Let it stand if all went well.
    """
    with interruptible():
        lab = Lab(network)
        try:
            lab.build()
            yield lab
        except BaseException:
            _remove_calmly(lab)
            raise
        if keep:
            lab.leave()
        else:
            _remove_calmly(lab)


def _remove_calmly(lab: Lab) -> None:
    """Remove without being interrupted half way: a second Ctrl-C waits."""
    if lab.record.namespaces:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            lab.remove()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that what has been begun is also ended.

    A child that was forked in the middle (pyroute2 does, and ends it with SIGTERM) inherits the
    handler; it must not end what its parent has begun.
    """
    maker = os.getpid()

    def leave(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != maker:
            os._exit(128 + number)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remove(record: Record) -> None:
    """Take away what a record names: processes, namespaces, mounts, files. What is gone already is no error."""
    ours = {os.getpid(), record.maker}
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        pids = [pid for pid in _processes(record) if pid not in ours]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if wait_until(lambda pids=pids: not any(map(_running, pids)), seconds):  # type: ignore[misc]
            break
    for name in record.namespaces:
        if (NETNS / name).exists():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=30, check=False)
    for mount in reversed(_mounts_below(record.directory)):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, timeout=30, check=False)
    shutil.rmtree(record.directory, ignore_errors=True)
    for directory in (HOME, HOME.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _processes(record: Record) -> set[int]:
    """The processes that it started, and whatever else lives in its namespaces."""
    found = {pid for pid, started in record.processes if started_at(pid) == started}
    inodes = set()
    for name in record.namespaces:
        with contextlib.suppress(FileNotFoundError):
            inodes.add((NETNS / name).stat().st_ino)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "ns/net").stat().st_ino in inodes:
                found.add(int(entry.name))
    return found


def _running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def started_at(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none of that id."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(f"{directory}/")]


def down(name: str | None = None) -> list[str]:
    """Remove every lab that nobody keeps, or the one of that name, and return their names.

    Raises:
        LabError: one is kept by a process that still runs, and would lose it from under its feet.
    """
    removed = []
    kept = []
    for record in records():
        if name not in (None, record.name):
            continue
        if record.alive:
            kept.append(record)
        else:
            remove(record)
            removed.append(record.name)
    if kept:
        names = ", ".join(f"{record.name} (process {record.maker})" for record in kept)
        raise LabError(f"still in use, end its process first: {names}")
    return removed
