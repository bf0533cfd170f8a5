# SPDX-License-Identifier: BSD-3-Clause
"""Translation, beside tayga: ``python bench/translate.py [--json] [--quick]``."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import crossing
import frames
import libbpf
import networks
import packets
import report
import translators
from isthmus.errors import IsthmusError
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import Daemon
from isthmus.lab.topology import LabError
from report import Figure, compare, progress, publish
from translators import BARE, DATAGRAM, DIRECTIONS, FORWARD, NATIVE, TAYGA, WAYS

GOAL = 20
KINDS = {"64 hosts": 64, "4,096 hosts": 4096}
RATES = (150_000, 250_000)
"""That tayga is offered: faster, and it spends its time on what it drops."""
HERE = Path(__file__).parent
METHOD = (
    "Host, gateway and server in namespaces joined by veth; tayga (IPv4 and IPv6, static maps, TUN) and isthmus (IPv4"
    " and SIP, kernel plane) in turn, order shuffled, medians of {rounds} rounds. UDP of 46 octets of IPv4, each host"
    " with a peer of its own, sent by live XDP frames from core 0; the gateway, receive thread and tayga, on core 1."
    " Counted and dropped at the transmit side of wan0. Gateway: packets per second of that core's time, tayga at the"
    " best of {rates} packets offered a second, isthmus at as many as come. Full load: more is offered than either"
    " takes. Translation: the same, of what a packet costs the gateway more than if it is redirected to wan0 unseen,"
    " which is not less than what the translator alone takes. Translator alone: of tayga the time of its process, of"
    " isthmus that of its program (BPF_PROG_TEST_RUN). {measured} s after {warm} s of warming up."
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One run."""

    delivered: int
    "Packets that came out."
    receiving: int
    "Nanoseconds of the gateway's receive thread."
    translating: int
    "Nanoseconds of tayga."

    @property
    def cost(self) -> float:
        """Nanoseconds of the gateway's core for one packet that came out."""
        return (self.receiving + self.translating) / self.delivered

    @property
    def own(self) -> float:
        """Nanoseconds of the translator for one packet."""
        return self.translating / self.delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A network that stands, and how to measure in it."""

    lab: Lab
    object: Path
    thread: int
    timing: packets.Timing
    rates: Sequence[int]
    "Of which tayga has its best."
    kind: str

    def run(self, way: str, direction: str, rate: int) -> Seen:
        """Send for a while and count."""
        # What receives must not starve what translates, nor be held up by what else there is.
        os.setpriority(os.PRIO_PROCESS, self.thread, 0 if way == TAYGA else -15)
        with translators.standing(self.lab, way, direction, KINDS[self.kind], self.object) as daemon:
            seen = self._counted(way, direction, rate, daemon)
        if seen.delivered < packets.LEAST:
            raise LabError(f"{way}, {direction}: only {seen.delivered} packets came out of the gateway")
        return seen

    def _counted(self, way: str, direction: str, rate: int, daemon: Daemon | None) -> Seen:
        gateway = self.lab["gateway"]
        loaded = libbpf.BpfObject(self.object)
        sunk = loaded.map("sunk")
        packets.attach_sink(gateway, loaded.program("sink"))
        version, made = translators.traffic(way, direction, KINDS[self.kind])
        plan = {
            "object": str(self.object),
            "interface": "eth0",
            "mac": packets.mac(gateway, "lan0"),
            "seconds": self.timing.warm + self.timing.measured + 0.2,
            "rate": rate,
            "version": version,
            "packets": [each.hex() for each in made],
        }
        path = self.lab.record.directory / "plan.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        sender = self.lab["host"].start("frames", sys.executable, str(HERE / "frames.py"), str(path), ready="ready")

        def now() -> tuple[int, int, int]:
            spent = packets.run_time(daemon.pid) if daemon else 0
            return packets.packets_sunk(sunk), packets.run_time(self.thread), spent

        try:
            time.sleep(self.timing.warm)
            before = now()
            time.sleep(self.timing.measured)
            after = now()
            if sender.process.wait(timeout=20):
                raise LabError(f"the sender failed\n{sender.tail()}")
        finally:
            sender.stop()
            packets.detach_sink(gateway)
        return Seen(*(late - early for early, late in zip(before, after, strict=True)))


Series = defaultdict[tuple[str, str, str], list[float]]
"""By direction and kind, way, and what: costs in nanoseconds."""


def measure(*, rounds: int, timing: packets.Timing, rates: Sequence[int], runs: int) -> list[Figure]:
    """Measure the ways in turn, in another order each time."""
    seen: Series = defaultdict(list)
    order = random.Random(1)
    for at in range(rounds):
        with standing(networks.network("bench-translate")) as lab:
            thread = translators.prepare(lab)
            path = frames.compile_object(lab.record.directory)
            for kind in KINDS:
                bench = Bench(lab=lab, object=path, thread=thread, timing=timing, rates=rates, kind=kind)
                for direction in DIRECTIONS:
                    ways = list(WAYS)
                    order.shuffle(ways)
                    for way in ways:
                        one_way(bench, direction, way, seen)
                alone(lab, kind, runs, seen)
        for case in cases():
            latest = ", ".join(f"{way} {seen[case, way, 'gateway'][-1]:.0f}" for way in WAYS)
            own = " and ".join(f"{seen[case, way, 'own'][-1]:.0f}" for way in (NATIVE, TAYGA))
            progress(f"round {at + 1} of {rounds}: {case}: {latest} ns; by themselves {own} ns")
    return list(figures(seen))


def cases() -> list[str]:
    """Every direction with every number of hosts."""
    return [case_of(direction, kind) for kind in KINDS for direction in DIRECTIONS]


def case_of(direction: str, kind: str) -> str:
    """As it is called in the figures."""
    return f"{direction}, {kind}"


def one_way(bench: Bench, direction: str, way: str, seen: Series) -> None:
    """What a packet costs this way."""
    case = case_of(direction, bench.kind)
    full = bench.run(way, direction, 0)
    seen[case, way, "full load"].append(full.cost)
    if way != TAYGA:
        seen[case, way, "gateway"].append(full.cost)
        return
    calm = [bench.run(way, direction, rate) for rate in bench.rates]
    seen[case, way, "gateway"].append(min(each.cost for each in calm))
    seen[case, way, "own"].append(min(each.own for each in calm))


def alone(lab: Lab, kind: str, runs: int, seen: Series) -> None:
    """What the program costs a packet."""
    path = crossing.compile_object(lab.record.directory)
    words = (sys.executable, str(HERE / "crossing.py"), str(path), str(runs), str(KINDS[kind]))
    found = json.loads(lab["gateway"].run(*words, seconds=60).stdout)
    for way, name in ((NATIVE, "native"), (DATAGRAM, "datagram")):
        for direction, cost in zip(DIRECTIONS, found[name], strict=True):
            seen[case_of(direction, kind), way, "own"].append(cost)


def figures(seen: Series) -> Iterator[Figure]:
    """Rates, beside tayga's; the goal is for translation, since what else a gateway does is the same for both."""

    def beside(case: str, words: str, what: str, ours: str, theirs: str) -> Figure:
        series = [[1e9 / each for each in seen[case, way, what]] for way in (ours, theirs)]
        return compare(f"{case}, {words}", "packets/s", *series)

    for case in cases():
        for way, more, goal in ((NATIVE, "", GOAL), (DATAGRAM, ", IPAE datagrams", None)):
            added = [[1e9 / added_by(seen, case, each)] for each in (way, TAYGA)]
            yield compare(f"{case}, translation{more}", "packets/s", *added, goal)
            yield beside(case, f"translator alone{more}", "own", way, TAYGA)
            yield beside(case, f"gateway{more}", "gateway", way, TAYGA)
        yield beside(case, "gateway, full load", "full load", NATIVE, TAYGA)
        for way in (FORWARD, BARE):
            yield beside(case, f"gateway, beside {way}", "gateway", NATIVE, way)


def added_by(seen: Series, case: str, way: str) -> float:
    """Nanoseconds that a packet costs the gateway more than if it is redirected unseen; at least the translator's."""
    whole, bare = (statistics.median(seen[case, each, "gateway"]) for each in (way, BARE))
    return max(whole - bare, statistics.median(seen[case, way, "own"]))


def main() -> int:
    """Measure and print."""
    options = report.parser(__doc__).parse_args()
    report.ask_for_root("translate", "it makes namespaces and loads eBPF")
    if (why := translators.unavailable()) is not None:
        print(f"bench translate: {why}", file=sys.stderr)
        return 2
    rounds = options.rounds or (1 if options.quick else 5)
    timing = packets.Timing(0.1, 0.15) if options.quick else packets.Timing(0.4, 0.6)
    rates = RATES[1:] if options.quick else RATES
    try:
        found = measure(rounds=rounds, timing=timing, rates=rates, runs=50_000 if options.quick else 1_000_000)
    except (IsthmusError, subprocess.CalledProcessError) as error:
        print(f"bench translate: {error}", file=sys.stderr)
        return 2
    told = {"rounds": rounds, "measured": timing.measured, "warm": timing.warm}
    offered = ", ".join(f"{each:,}" for each in rates)
    return publish("translate", found, METHOD.format(rates=offered, **told), as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
