# SPDX-License-Identifier: BSD-3-Clause
"""User Mode Linux in the lab: a stock kernel as a process, with what the machine's own may lack.

One guest holds several machines of a network, each a namespace of the guest's kernel with its own
interface. The guest runs in a node of the lab, *its* node, and is plugged into the other nodes by that
node's veth interfaces, which it reads and writes as raw sockets (needs CAP_NET_RAW there, and
CAP_NET_ADMIN to raise them). Besides there is a management link, by which the lab asks the guest's first
process (``guest.py``) to run commands.

Its root file system is the machine's own, read through hostfs and never written.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from isthmus.lab import guest
from isthmus.lab.node import ISTHMUS, Daemon, Node
from isthmus.lab.topology import Cable, End, LabError

KERNEL = "linux.uml"
PACKAGES = ("user-mode-linux",)
_NEAR, _FAR = "192.0.2.1/30", "192.0.2.2/30"
_LINK, _GUEST_LINK = "manage", "manage-uml"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_OPEN = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"}


def missing() -> str:
    """Say what is missing for a guest and how to get it; nothing if nothing is."""
    if shutil.which(KERNEL):
        return ""
    return f"there is no {KERNEL}: install with apt-get install {' '.join(PACKAGES)} (x86 only)"


def management(node: str) -> Cable:
    """The cable by which the lab talks to the guest that runs in a node; part of the network's plan."""
    near = End(node=node, interface=_LINK, addresses=(_NEAR,), offload=False)
    return Cable(near, End(node=node, interface=_GUEST_LINK, offload=False))


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine inside a guest."""

    name: str
    node: Node
    "The node that the guest runs in."

    def _ask(self, verb: str, patience: float, **words: Any) -> Any:
        try:
            return ask(self.node, verb, patience, machine=self.name, **words)
        except LabError as error:
            raise LabError(f"{self.name}: {error}") from error

    def run(
        self, *command: str, seconds: float = 30.0, check: bool = True, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            LabError: it failed and ``check`` is set, it took too long, or it is not installed.
        """
        told = self._ask("run", seconds + 10, words=command, env=dict(env or {}), seconds=seconds)
        done = CompletedProcess(list(command), told["code"], told["out"], told["err"])
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(command)}: exit code {done.returncode}: {words}")
        return done

    def ip(self, *lines: str) -> None:
        """Run ``ip`` with each of these lines."""
        for line in lines:
            self.run("ip", *line.split())

    def start(
        self, name: str, *command: str, ready: str, seconds: float = 20.0, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a process that stays, and wait until it has said ``ready``; one of that name is ended before.

        Raises:
            LabError: it ended before, or said nothing in time; what it said is in the message.
        """
        words = {"words": command, "env": dict(env or {}), "ready": ready, "seconds": seconds}
        self._ask("start", seconds + 15, name=name, **words)

    def said(self, name: str, until: str, seconds: float = 20.0) -> str:
        """Wait until a process that was started has said this, and return all that it said.

        Raises:
            LabError: it did not in time.
        """
        return str(self._ask("wait", seconds + 10, name=name, ready=until, seconds=seconds))

    def stop(self, name: str) -> None:
        """End a process that was started, if it is there."""
        self._ask("stop", 20, name=name)

    def write(self, path: str, text: str) -> None:
        """Write a file, which is in memory: below /run or /tmp."""
        self._ask("write", 30, path=path, text=text)

    def up(self, configuration: str, seconds: float = 30.0) -> None:
        """Start ``isthmus up`` with this configuration and wait until it serves."""
        self.write("/run/isthmus.toml", configuration)
        self.start("isthmus", *ISTHMUS, "up", "/run/isthmus.toml", ready="ready", seconds=seconds)

    def isthmus(self, *words: str, socket_path: str, seconds: float = 30.0) -> Any:
        """Ask the daemon of this machine by the command line and return its JSON answer.

        Raises:
            LabError: it failed, or what it printed is not JSON.
        """
        done = self.run(*ISTHMUS, *words, "--socket", socket_path, "--json", seconds=seconds)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise LabError(f"{self.name}: isthmus {' '.join(words)} --json printed no JSON: {done.stdout!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """How a machine is plugged in; several plugs of one machine are its ``eth0``, ``eth1`` and so on."""

    machine: str
    interface: str
    "The interface of the guest's node that becomes the machine's."
    address: str
    "With the length of its prefix."
    mtu: int = 1500


def boot(
    node: Node, plugs: Sequence[Plug], modules: Sequence[str] = (), *, megabytes: int = 384, seconds: float = 40.0
) -> dict[str, Machine]:
    """Start a guest in a node, make its machines, and return them by name.

    Args:
        node: Where the interfaces are, the two ends of ``management`` among them.
        plugs: The machines.
        modules: Of its kernel, by name; it loads no others by itself.
        megabytes: Memory, taken as it is used.
        seconds: How long it may take until its first process answers.

    Raises:
        LabError: it is not installed, ended, or does not answer.
    """
    if lacks := missing():
        raise LabError(lacks)
    directory = node.directory / "uml"
    directory.mkdir(parents=True, exist_ok=True)
    interfaces = [plug.interface for plug in plugs] + [_GUEST_LINK]
    daemon = node.start("uml", *_command(directory, interfaces, megabytes))
    _wait_for_answer(node, daemon, seconds)
    ask(node, "load", modules=list(modules))
    for at, plug in enumerate(plugs):
        where: dict[str, Any] = {"interface": f"vec{at}", "address": plug.address, "mtu": plug.mtu}
        ask(node, "machine", name=plug.machine, sysctls=_OPEN, **where)
    return {plug.machine: Machine(plug.machine, node) for plug in plugs}


def ask(node: Node, verb: str, patience: float = 30.0, **words: Any) -> Any:
    """Ask the first process of the guest in a node, and wait so many seconds for its answer.

    Raises:
        LabError: it refuses, with its reason, or does not answer.
    """
    where = (_FAR.partition("/")[0], guest.PORT)
    try:
        with node.inside(lambda: socket.create_connection(where, timeout=5)) as connection:
            connection.settimeout(patience)
            connection.sendall(json.dumps({"verb": verb, **words}).encode() + b"\n")
            with connection.makefile() as answers:
                line = answers.readline()
    except OSError as error:
        raise LabError(f"the guest does not answer: {error}") from error
    told = json.loads(line) if line else {"refused": "the guest has hung up"}
    if "refused" in told:
        raise LabError(told["refused"])
    return told["answer"]


def _command(directory: Path, interfaces: Sequence[str], megabytes: int) -> list[str]:
    python = sys.executable
    vectors = [f"vec{at}:transport=raw,ifname={name},depth=64,gro=0" for at, name in enumerate(interfaces)]
    words = [f"vec{len(interfaces) - 1}", _FAR, f"{Path(python).parent}:{_PATH}"]
    root = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]
    consoles = ["con=null", "con0=null,fd:1", "ssl=null", "quiet", "panic=-1"]
    home = [f"mem={megabytes}M", "umid=guest", f"uml_dir={directory}"]
    return [KERNEL, *home, *root, f"init={python}", *consoles, *vectors, "--", "-I", str(Path(guest.__file__)), *words]


def _wait_for_answer(node: Node, daemon: Daemon, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask(node, "run", 5, machine="", words=["true"], env={}, seconds=5)
        except LabError as error:
            if daemon.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the guest did not boot: {error}\n{daemon.tail()}") from error
            time.sleep(0.1)
        else:
            return
