# SPDX-License-Identifier: BSD-3-Clause
"""What IPAE's program costs a packet by itself: ``bpf/crossing.bpf.c`` in the place of the plane's own object.

    python bench/crossing.py OBJECT RUNS DESTINATIONS

It runs in the gateway's namespace of ``networks.network`` and prints, as JSON, nanoseconds into and out of SIP for each
way on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import border_router
import stand
from isthmus.address import Address
from isthmus.border.mapping import Mapping
from isthmus.lab import figure
from isthmus.plane.kernel import KernelPlane, pinned

WAYS = ("native", "datagram")
NEXT, RUNS, INTO_NS, OUT_NS, CLOCK_NS, FAILED, OURS, THEIRS, WHAT, FOUND, INTERFACE = range(11)
NOTHING, MAPPING, ROUTES = range(3)
DESTINATIONS = 1 << 20
LOOKUPS = 256
_HERE = Path(__file__).parent
_HOST = "10.1.0.5"
_FRAME = bytes.fromhex("020000000001" * 2 + "0800" + "4500002e") + bytes(42)
_SKB_OCTETS, _IFINDEX_AT = 192, 40


def compile_object(directory: Path) -> Path:
    """Compile the program that measures."""
    target = directory / "crossing.bpf.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    words = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-Wno-unused-function"]
    words += ["-I", str(_HERE.parent / "bpf/include"), "-isystem", include]
    subprocess.run([*words, "-c", str(_HERE / "bpf/crossing.bpf.c"), "-o", str(target)], check=True)
    return target


class Crossing:
    """A border router that nothing is attached to."""

    def __init__(self, way: str, mapping: Mapping) -> None:
        self._local, self._neighbour = Address.parse(figure.SHARED), Address.parse(figure.SERVER)
        offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.plane = KernelPlane(
            border_router.border(self._local), pin=None, boot_offset=offset, links=stand.Unattached()
        )
        self.plane.apply(border_router.effects(self._local, self._neighbour, way, mapping))
        self.plane.attach(border_router.SITE, "lan0")
        self.plane.attach(border_router.NET, "wan0")
        self._interface = socket.if_nametoindex("lan0")
        if way == "datagram":
            for cell, address in ((OURS, self._local), (THEIRS, self._neighbour)):
                self._put(cell, int.from_bytes(address.octets, sys.byteorder))
        self._put(INTERFACE, self._interface)

    def _put(self, cell: int, value: int) -> None:
        self.plane._maps["bench"].put(struct.pack("=I", cell), struct.pack("=Q", value))

    def _get(self, cell: int) -> int:
        return int(struct.unpack("=Q", self.plane._maps["bench"].get(struct.pack("=I", cell)) or bytes(8))[0])

    def talk_to(self, destinations: NDArray[np.uint32]) -> None:
        """Let packets go to these addresses, one after the other."""
        with self.plane._maps["destinations"].mapped() as memory:
            # Eight octets for each: what can be mapped is rounded up.
            words = np.zeros((DESTINATIONS, 2), ">u4")
            words[:, 0] = np.resize(destinations, DESTINATIONS)
            memory[: words.nbytes] = words.tobytes()

    def _run(self, program: str, times: int) -> None:
        for cell in (RUNS, INTO_NS, OUT_NS, CLOCK_NS, FAILED, FOUND):
            self._put(cell, 0)
        context = bytearray(_SKB_OCTETS)
        struct.pack_into("=I", context, _IFINDEX_AT, self._interface)
        self.plane._loaded.programs[program].test_run(_FRAME, bytes(context), repeat=times)

    def packets(self, runs: int) -> tuple[float, float]:
        """Nanoseconds for one packet from IPv4 into SIP, and for one back, the clock's own subtracted."""
        self._run("ipae", runs)
        if self._get(FAILED) or self._get(RUNS) != runs:
            counted = {reason.name: count for reason, count in self.plane.counters().items() if count}
            raise SystemExit(f"{self._get(FAILED)} of {2 * runs} packets did not come through: {counted}")
        clock = self._get(CLOCK_NS) / runs
        return self._get(INTO_NS) / runs - clock, self._get(OUT_NS) / runs - clock

    def lookup(self, what: int, number: int) -> float:
        """Nanoseconds for one lookup, without the loop's own."""
        spent, found = self._lookups(what, number)
        if found < 1:
            raise SystemExit(f"{1 - found:.2%} of the destinations were not found")
        return max(spent - self._lookups(NOTHING, number)[0], 0.1)

    def _lookups(self, what: int, number: int) -> tuple[float, float]:
        self._put(WHAT, what)
        started = time.perf_counter_ns()
        self._run("border", number // LOOKUPS)
        spent = time.perf_counter_ns() - started
        return spent / self._get(RUNS), self._get(FOUND) / self._get(RUNS)


@contextlib.contextmanager
def crossing(object_path: Path, way: str, mapping: Mapping) -> Iterator[Crossing]:
    """Such a router, as long as the body takes."""
    before, pinned._object = pinned._object, object_path.read_bytes
    try:
        made = Crossing(way, mapping)
    finally:
        pinned._object = before
    try:
        yield made
    finally:
        made.plane.destroy()


def neighbours() -> None:
    """The neighbours of both sides are known, and forwarding is on."""
    for device, address in (("lan0", _HOST), ("wan0", figure.SERVER)):
        words = ["ip", "neigh", "replace", address, "lladdr", "02:00:00:00:00:02", "dev", device, "nud", "permanent"]
        subprocess.run(words, check=True)


def main() -> None:
    """Measure each way."""
    object_path, runs, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    neighbours()
    peers = Mapping.of([(border_router.PEERS, border_router.for_ipv4(border_router.OTHER))])
    found = {}
    for way in WAYS:
        with crossing(object_path, way, peers) as made:
            made.talk_to(np.arange(number, dtype=np.uint32) + border_router.PEERS.address.number)
            found[way] = made.packets(runs)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
