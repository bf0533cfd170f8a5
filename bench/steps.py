# SPDX-License-Identifier: BSD-3-Clause
"""Programs, run by ``bpf/packet.bpf.c`` over packets that each belong to another lease."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import leases
from isthmus.address import Address
from isthmus.lab import figure
from isthmus.plane.kernel.loader import Map, Object, Program, TestRun

HOOKS = ("tc", "xdp")
YARDSTICKS = ("returns", "parses", "encapsulates", "decapsulates", "refused")
INNER = 46
_SETUP = struct.Struct("=6Q17I14s6x16s")
_PROGRAM = 5
"""The slot for what is measured, after the yardsticks'."""
_SEED = 88172645463325252
_BIN = 8
"""Nanoseconds."""
LONGEST = 1024 * _BIN
_HERE = Path(__file__).parent
_CONTEXTS = {"tc": (192, 40), "xdp": (24, 12)}
"""Octets of a context, and where in it the interface stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packets:
    """What the packets of a run are."""

    inward: bool
    leases: int
    outer6: bool = False
    changed: bool = True
    "Whether they shall come out changed."
    in_order: bool = False
    record: bool = False
    chosen: bool = False
    "Whether only those are of a lease that is in ``Steps.among``."
    fresh: bool = False
    "A buffer of its own for each."
    apart: int = 1
    "How far the hosts of consecutive leases are from each other."


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run cost a packet, in nanoseconds, everything that is timed included."""

    mean: float
    middle: float
    wrong: int
    timed: int
    interrupted: int
    "Packets that took so long that something else must have run meanwhile, and are not in the mean."


def compile_object(hook: str, directory: Path) -> Path:
    """Compile the program that measures."""
    target = directory / f"packet_{hook}.bpf.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    words = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-isystem", include]
    words += ["-DAT_XDP"] if hook == "xdp" else []
    subprocess.run([*words, "-c", str(_HERE / "bpf/packet.bpf.c"), "-o", str(target)], check=True)
    return target


class Steps:
    """The harness of one hook, loaded."""

    def __init__(self, hook: str, directory: Path, interfaces: tuple[int, int], mac: bytes) -> None:
        """Load it.

        Args:
            hook: One of ``HOOKS``.
            directory: Where to compile.
            interfaces: Indexes of those that packets come in by: inward, outward.
            mac: Their MAC address.
        """
        octets = compile_object(hook, directory).read_bytes()
        yardsticks = [name for name in YARDSTICKS if hook == "tc" or name != "refused"]
        self._programs, self._maps = Object(f"packet_{hook}", octets).load_all("step", *yardsticks)
        self._hook, self._interfaces = hook, interfaces
        self._mac = mac
        for slot, name in enumerate(yardsticks):
            self._aim(slot, self._programs[name])

    def _aim(self, slot: int, program: Program) -> None:
        self._maps["targets"].put(struct.pack("=I", slot), program.fd.to_bytes(4, sys.byteorder))

    def measure(self, program: Program) -> None:
        """Let this be the program that runs go to if they name no yardstick."""
        self._aim(_PROGRAM, program)

    def close(self) -> None:
        """Let go of everything."""
        for each in (*self._programs.values(), *self._maps.values()):
            each.close()

    @property
    def among(self) -> Map:
        """Leases that are chosen, or that came through: a bit for each."""
        return self._maps["among"]

    def run(self, packets: Packets, times: int, *, yardstick: str | None = None) -> Cost:
        """Run as many packets; a yardstick instead of the program, if one is named."""
        with self._maps["bins"].mapped() as memory:
            memory[:] = bytes(len(memory))
        frame, context = self._prepare(packets, slot=YARDSTICKS.index(yardstick) if yardstick else _PROGRAM)
        step = self._programs["step"]
        if packets.fresh:
            for _ in range(times):
                step.test_run(frame, context, repeat=2)
        else:
            step.test_run(frame, context, repeat=times)
        spent, timed, longer, wrong = struct.unpack_from("=4Q", self._maps["setups"].get(bytes(4)) or b"", 16)
        return Cost(
            mean=spent / timed if timed else 0.0,
            middle=self._middle(timed),
            wrong=wrong,
            timed=timed,
            interrupted=longer,
        )

    def _middle(self, timed: int) -> float:
        with self._maps["bins"].mapped() as memory:
            counts = memoryview(memory[:]).cast("Q")
        seen = 0
        for at, count in enumerate(counts):
            if seen + count >= timed / 2 and count:
                return (at + (timed / 2 - seen) / count) * _BIN
            seen += count
        return 0.0

    def once(self, packets: Packets, lease: int) -> TestRun:
        """Run one packet of this lease; returns what came out."""
        return self._programs["step"].test_run(*self._prepare(packets, lease=lease))

    def _prepare(self, packets: Packets, *, slot: int = _PROGRAM, lease: int = 0) -> tuple[bytes, bytes]:
        """Write the setup; returns frame and context for it."""
        version = b"\x86\xdd" if packets.outer6 and not packets.inward else b"\x08\x00"
        ethernet = self._mac + bytes.fromhex("020000000002") + version
        near = Address.parse(figure.GATEWAY_NEAR6).octets
        numbers = (lease, 0, packets.leases, packets.chosen, packets.in_order, slot, packets.inward)
        numbers += (packets.changed, packets.outer6, leases.PER_ADDRESS, leases.PORTS)
        numbers += (leases.FIRST_ADDRESS, leases.FIRST_HOST, Address.parse(figure.GATEWAY_NEAR).number)
        numbers += (packets.record, packets.fresh, packets.apart)
        self._maps["setups"].put(bytes(4), _SETUP.pack(0, _SEED, 0, 0, 0, 0, *numbers, ethernet, near))
        header = 0 if packets.inward else 40 if packets.outer6 else 20
        frame = ethernet + (b"\x60" if header == 40 else b"\x45").ljust(header + INNER, b"\0")
        octets, where = _CONTEXTS[self._hook]
        context = bytearray(octets)
        struct.pack_into("=I", context, where, self._interfaces[0 if packets.inward else 1])
        if self._hook == "xdp":
            struct.pack_into("=I", context, 4, len(frame))
        return frame, bytes(context)


@contextlib.contextmanager
def steps(hook: str, directory: Path, interfaces: tuple[int, int], mac: bytes) -> Iterator[Steps]:
    """Such a harness, as long as the body takes."""
    made = Steps(hook, directory, interfaces, mac)
    try:
        yield made
    finally:
        made.close()
