# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway keeps and writes down for flows: memory of the kernel, and a log of who had which address and port."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import leases
import packets
from isthmus.border.binding import Binding
from isthmus.border.effect import Bind, Deregister, Ending, Register, Unbind
from isthmus.border.selector import Admit
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import wait_until
from isthmus.lab.topology import LabError
from isthmus.store import Durable
from isthmus.store.sqlite import SqliteStore
from networks import network
from packets import MASQUERADE, Way
from report import progress

FLOWS_OF_A_LEASE = 10_000
"""For the log: what a host does with its lease before that ends; three flows a second for an hour."""
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What was found; octets."""

    flows: int
    "How many there were at least, all at once."
    theirs: int
    "Kernel memory that masquerade's flows took."
    tracked: int
    "How many of them it has a record of."
    ours: int
    "Kernel memory that the same took with isthmus."
    line: float
    "Conntrack's events of one flow, as text: NEW and DESTROY."
    row: float
    "Growth of the store for one lease that has come and gone."


def slabs() -> dict[str, tuple[int, int]]:
    """Objects of each of the kernel's caches, and their octets."""
    lines = Path("/proc/slabinfo").read_text(encoding="utf-8").splitlines()[2:]
    caches = ((name, int(number), int(octets)) for name, _, number, octets, *_ in map(str.split, lines))
    return {name: (number, number * octets) for name, number, octets in caches}


def grown_octets(before: dict[str, tuple[int, int]], flows: int) -> int:
    """What the caches have grown by that have got at least one object for two flows; others grow for other reasons."""
    return sum(
        octets - before.get(name, (0, 0))[1]
        for name, (number, octets) in slabs().items()
        if number - before.get(name, (0, 0))[0] >= flows / 2
    )


def plane_octets(lab: Lab) -> int:
    """Memory of the plane's maps, if there is one."""
    found: dict[str, int] = {}
    plane = lab["gateway"].daemons.get("plane")
    for entry in Path(f"/proc/{plane.pid}/fdinfo").iterdir() if plane else ():
        about = dict(line.split(":\t") for line in entry.read_text(encoding="utf-8").splitlines() if ":\t" in line)
        if "map_id" in about:
            found[about["map_id"]] = int(about["memlock"])
    return sum(found.values())


def tracked(lab: Lab) -> int:
    """Flows that the gateway has records of."""
    return int(lab["gateway"].run("cat", "/proc/sys/net/netfilter/nf_conntrack_count").stdout)


def growth(lab: Lab, way: Way, flows: int, count: int, object_path: Path) -> tuple[int, int]:
    """Kernel memory that flows take, in octets, and how many of them there are records of."""
    sinks, seconds = packets.Sinks(object_path), 2.0 + flows / 25_000

    def seen() -> int:
        return tracked(lab) if way.masquerade else packets.packets_sunk(sinks.counts)

    with packets.way_open(lab, way, count):
        before, maps = slabs(), plane_octets(lab)
        with (
            sinks.at_transmit(lab["gateway"]),
            packets.generating(lab, 0, way, count, object_path=object_path, seconds=seconds),
        ):
            if not wait_until(lambda: seen() >= flows, seconds, every=0.02):
                raise LabError(f"{way.name}: {seen()} flows in {seconds:.0f} s, and not {flows}")
        grown = grown_octets(before, flows) + plane_octets(lab) - maps
        return grown, tracked(lab) if way.masquerade else 0


def line_octets(lab: Lab, object_path: Path, flows: int) -> float:
    """What ``conntrack -E`` writes of one flow: when it begins, and when its record goes."""
    path = lab.record.directory / "events"
    gateway = lab["gateway"]
    sinks = packets.Sinks(object_path)
    with packets.way_open(lab, MASQUERADE, 1), path.open("wb") as file:
        words = gateway.command("conntrack", "-E", "-e", "NEW,DESTROY", "-o", "timestamp", "-p", "udp", "-b", "8388608")
        events = subprocess.Popen(words, stdout=file, stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.3)
            with (
                sinks.at_transmit(gateway),
                packets.generating(lab, flows, MASQUERADE, flows, object_path=object_path, seconds=5),
            ):
                wait_until(lambda: tracked(lab) >= flows / 2, 5, every=0.02)
            gateway.run("conntrack", "-F")
            time.sleep(0.5)
        finally:
            events.terminate()
            events.wait(timeout=10)
    lines = path.read_bytes().splitlines(keepends=True)
    octets = 0.0
    for event in (b"[NEW]", b"[DESTROY]"):
        of_it = [len(line) for line in lines if event in line]
        if not of_it:
            raise LabError(f"conntrack told of no {event.decode()}")
        octets += sum(of_it) / len(of_it)
    return octets


def row_octets(directory: Path, count: int) -> float:
    """What the store's file grows by for one lease that was granted and is over, standing leases not counted."""
    store = SqliteStore(directory / "history.db")
    sizes = []
    made = leases.effects(2 * count, Admit.CONTACTED)
    try:
        for _ in range(2):
            for batch in _batches(islice(made, 2 * count)):
                store.commit(batch, now=time.time())
                store.commit(_ends(batch), now=time.time())
            store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(store.path.stat().st_size)
    finally:
        store.close()
    return (sizes[1] - sizes[0]) / count


def _batches(effects: Iterator[object]) -> Iterator[list[Durable]]:
    while batch := [each for each in islice(effects, 2 * _BATCH) if isinstance(each, Register | Bind)]:
        yield batch


def _ends(batch: list[Durable]) -> list[Durable]:
    """All that a batch has begun ends."""
    bindings: list[Binding] = [each.binding for each in batch if isinstance(each, Bind)]
    return [
        *(Unbind(key=each.key, ending=Ending.FREED) for each in bindings),
        *(Deregister(owner=each.key.owner, ending=Ending.FREED) for each in bindings),
    ]


def measure(*, flows: int, count: int, rows: int) -> Records:
    """Measure both."""
    ours = Way(name="isthmus", tunnel="ipip", admit=Admit.CONTACTED)
    with packets.large_conntrack(), standing(network("bench-records")) as lab:
        object_path = packets.compile_generator(lab.record.directory)
        packets.prepare(lab)
        with packets.unplugged(lab):
            lab["gateway"].run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=300")
            grown, _ = growth(lab, ours, flows, count, object_path)
            progress(f"records: {flows:,} flows by {ours.name}: {grown / flows:.1f} octets each")
            line = line_octets(lab, object_path, min(flows, 10_000))
            theirs, there = growth(lab, MASQUERADE, flows, count, object_path)
            progress(f"records: {there:,} flows by {MASQUERADE.name}: {theirs / there:.1f} octets each")
        row = row_octets(lab.record.directory, rows)
    return Records(flows=flows, theirs=theirs, tracked=there, ours=grown, line=line, row=row)
