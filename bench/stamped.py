# SPDX-License-Identifier: BSD-3-Clause
"""Packets that say where they may arrive, sent through a gateway both ways, and what became of them.

``load/stamped.c`` sends them, ``bpf/stamped.bpf.c`` looks at them where they arrive.
"""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import NetNS

import libbpf
from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import Node
from isthmus.lab.topology import LabError

KINDS = ("standing outward", "standing inward", "changing inward", "present outward", "former outward")
HERE = Path(__file__).parent
SENDER_CPU = 0
_ETH_P_IP = 0x0800
_CLSACT, _INGRESS = 0xFFFFFFF1, 0xFFFFFFF2
_LEASE = struct.Struct("=III")
_PACKET_QDISC_BYPASS = 20
_SOL_PACKET = 263


@dataclass(frozen=True, slots=True)
class StampedLease:
    """A lease that packets are sent through: numbers of addresses, and one port."""

    host: int
    address: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the packets, by kind."""

    sent: dict[str, int]
    arrived: dict[str, int]
    "Where they may."
    astray: dict[str, int]
    "Where they may not."

    @property
    def standing(self) -> int:
        """Packets of leases that stood all the time."""
        return sum(self.sent[kind] for kind in KINDS[:2])

    @property
    def blocked(self) -> int:
        """Packets of leases that stood, and that did not arrive."""
        return self.standing - sum(self.arrived[kind] + self.astray[kind] for kind in KINDS[:2])

    @property
    def misdelivered(self) -> int:
        """Packets of any kind that arrived where they may not."""
        return sum(self.astray.values())


class Eras:
    """How often each lease has changed hands, where the sender reads it."""

    def __init__(self, path: Path, number: int | None = None) -> None:
        """Make the file, for so many leases, or open it."""
        if number is not None:
            path.write_bytes(bytes(4 * max(number, 1)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._numbers = memoryview(self._memory).cast("I")

    def __getitem__(self, lease: int) -> int:
        """The era of a lease."""
        return self._numbers[lease]

    def begin_next(self, leases: Sequence[int]) -> None:
        """Say that nobody holds these any more."""
        for lease in leases:
            self._numbers[lease] += 1


def compile_all(directory: Path) -> None:
    """Compile the sender and the programs that look."""
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", str(HERE / "load/stamped.c")]
    subprocess.run([*words, "-o", str(directory / "stamped")], check=True)
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    words = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-isystem", include]
    source, target = HERE / "bpf/stamped.bpf.c", directory / "stamped.bpf.o"
    subprocess.run([*words, "-c", str(source), "-o", str(target)], check=True)


def address(node: Node, interface: str) -> bytes:
    """The link-layer address of an interface."""
    link = json.loads(node.run("ip", "-json", "link", "show", interface).stdout)
    return bytes.fromhex(link[0]["address"].replace(":", ""))


def know_neighbours(lab: Lab, hosts: Sequence[str] = ("10.16.0.0/12", "10.128.0.0/9")) -> None:
    """Let the hosts be behind a router, and the gateway know it and the server."""
    gateway = lab["gateway"]
    for where, interface, node in (("10.0.0.4", "lan0", "host"), (figure.SERVER, "wan0", "server")):
        link = address(lab[node], "eth0").hex(":")
        gateway.run("ip", "neigh", "replace", where, "lladdr", link, "dev", interface, "nud", "permanent")
    for prefix in hosts:
        gateway.run("ip", "route", "replace", prefix, "via", "10.0.0.4", "dev", "lan0")


def look(lab: Lab, programs: libbpf.BpfObject) -> None:
    """Look at what arrives at the host and at the server."""
    for node, name in (("host", "near"), ("server", "far")):
        with NetNS(lab[node].namespace, flags=0) as links:
            index = links.link_lookup(ifname="eth0")[0]
            links.tc("add", "clsact", index=index)
            links.tc(
                "add-filter",
                "bpf",
                index=index,
                fd=programs.program(name),
                name=name,
                parent=_INGRESS,
                classid=1,
                direct_action=True,
            )


def packet_socket(node: Node) -> socket.socket:
    """Open a socket that sends whole frames out of a node's interface, and receives none."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind(("eth0", 0))
        made.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        return made

    return node.inside(make)


class Stamped:
    """Leases to send packets through, in a network that stands."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Begin to look; ``compile_all`` and ``know_neighbours`` have been called."""
        self._lab, self._directory = lab, directory
        self._programs = libbpf.BpfObject(directory / "stamped.bpf.o")
        look(lab, self._programs)
        self._counts = mmap.mmap(self._programs.map("counts"), mmap.PAGESIZE)
        self._before = self._read()

    def _read(self) -> array.array[int]:
        return array.array("Q", self._counts[: 16 * len(KINDS)])

    def _write(self, standing: Sequence[StampedLease], changing: Sequence[StampedLease]) -> None:
        lab = self._lab
        near = address(lab["gateway"], "lan0") + address(lab["host"], "eth0") + _ETH_P_IP.to_bytes(2, "big")
        far = address(lab["gateway"], "wan0") + address(lab["server"], "eth0") + _ETH_P_IP.to_bytes(2, "big")
        ends = [int.from_bytes(socket.inet_aton(each), "big") for each in (figure.GATEWAY_NEAR, figure.SERVER)]
        for name, head, leases in (
            ("standing", near + far + struct.pack("=II", *ends), standing),
            ("changing", b"", changing),
        ):
            rows = b"".join(_LEASE.pack(each.host, each.address, each.port) for each in leases)
            (self._directory / name).write_bytes(head + rows)

    @contextlib.contextmanager
    def sending(
        self, standing: Sequence[StampedLease], changing: Sequence[StampedLease], seconds: float, least: int = 0
    ) -> Iterator[subprocess.Popen[str]]:
        """Send for so long, and until so many packets of standing leases were sent; begins at once."""
        self._write(standing, changing)
        self._before = self._read()
        sockets = [packet_socket(self._lab[node]) for node in ("host", "server")]
        descriptors = [*(each.fileno() for each in sockets), self._programs.map("counts")]
        files = [str(self._directory / name) for name in ("standing", "changing", "eras")]
        words = [str(self._directory / "stamped"), *map(str, descriptors), *files, str(seconds), str(least)]
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(SENDER_CPU), *words], pass_fds=descriptors, stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            for each in sockets:
                each.close()

    def outcome(self, process: subprocess.Popen[str], seconds: float) -> Outcome:
        """Wait for the sender to end, and tell what became of its packets.

        Raises:
            LabError: it failed.
        """
        told, _ = process.communicate(timeout=seconds)
        if process.returncode:
            raise LabError(f"the sender of stamped packets ended with {process.returncode}")
        counted = [now - before for now, before in zip(self._read(), self._before, strict=True)]
        return Outcome(
            sent=json.loads(told),
            arrived=dict(zip(KINDS, counted, strict=False)),
            astray=dict(zip(KINDS, counted[len(KINDS) :], strict=True)),
        )
