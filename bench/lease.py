# SPDX-License-Identifier: BSD-3-Clause
"""Durable leases a second, beside Kea: ``python bench/lease.py [--json] [--quick]``."""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import kea
import report
import rsip_load
from isthmus.errors import IsthmusError
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import LabError
from isthmus.store.sqlite import SqliteStore
from networks import network
from rate import MOST_LATE, Trial, highest
from report import Figure, compare, progress, publish

PORTS_OF_A_LEASE = 16
SLICES_OF_AN_ADDRESS = (65536 - 1024) // PORTS_OF_A_LEASE
GOAL = 1.0
ROOM = 3
"""The pool's, beside what is leased."""
LOW_RATE = 200.0
START = 8000.0
OURS = "isthmus"
_T = TypeVar("_T")
METHOD = (
    "Full cycles a second: REGISTER and ASSIGN of {ports} ports at a real 'isthmus up' (SQLite, synced to the disk,"
    " kernel plane; an answer is sent when lease and history are on the disk and packets flow) by"
    " bench/load/rsipperf.c; DISCOVER, OFFER, REQUEST, ACK at Kea (memfile, persist, not synced) by perfdhcp, once with"
    " its default of one thread, once with two; the better one is 'theirs'. Every cycle is another host's. Each rate is"
    " played for {seconds:g} s against a fresh server; both files are on the same file system ({filesystem}). Counted"
    " is the highest rate of cycles in time with at most {late:.1%} late (an exchange is late if it is answered after 1"
    " s or never), found by climbing and halving alike, in turn; medians of {rounds} searches, of which the Kea that"
    " was less in the first has one. From every {probe}th host a packet is sent through its lease as soon as that is"
    " answered, to an echo server and back: all came. Once the gateway was killed and its store read: every lease that"
    " had been answered was in it. Load generator and server share the machine."
)


def configuration(lab: Lab, state: Path, leases: float) -> str:
    """A gateway with room for a few times so many leases."""
    addresses = math.ceil(ROOM * leases / SLICES_OF_AN_ADDRESS)
    pools = "\n".join(
        f'[[gateway.pool]]\naddress = "149.112.{241 + at // 250}.{1 + at % 250}"\nports = "1024-65535"'
        for at in range(addresses)
    )
    more = f"slice_size = {PORTS_OF_A_LEASE}\n\n[gateway.quota]\nbindings = 1000000\nports = 16000000\n"
    return figure.gateway_configuration(lab, Setting(), pool=pools, state=str(state), more=more)


def ours(program: Path, rate: float, seconds: float, *, durable: bool = False) -> rsip_load.Played:
    """Play a rate against a fresh gateway.

    Args:
        program: The load generator.
        rate: Cycles begun a second.
        seconds: For how long.
        durable: Kill the gateway after it, and look for every lease that was answered in its store.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="isthmus-bench-") as folder:
        state, leases = Path(folder, "leases.db"), Path(folder, "answered")
        with standing(network("bench-lease")) as lab:
            rsip_load.prepare(lab)
            daemon = lab["gateway"].up(configuration(lab, state, rate * seconds))
            with rsip_load.echoing(lab):
                played = rsip_load.play(lab, program, rate, seconds, *(("-L", str(leases)) if durable else ()))
            if lab["gateway"].plane != "kernel":
                raise LabError("the gateway has no kernel plane")
            daemon.kill()
        if durable:
            look_for(leases, state)
    return played


def look_for(leases: Path, state: Path) -> None:
    """Look for every lease that was answered in the store.

    Raises:
        LabError: one is missing.
    """
    store = SqliteStore(str(state))
    try:
        held = {
            f"{each.binding.key.owner.address} {selector.local.address} {selector.values.pairs[0][0]}"
            for each in store.load(rested_since=0.0).bindings
            for selector in each.binding.selectors
        }
    finally:
        store.close()
    answered = [" ".join(line.split()[:3]) for line in leases.read_text(encoding="utf-8").splitlines()]
    missing = [each for each in answered if each not in held]
    if missing or not answered:
        raise LabError(f"of {len(answered)} leases answered {len(missing)} are not in the store: {missing[:3]}")


def theirs(threads: str, act: Callable[[Lab], _T]) -> _T:
    """Do something with a fresh Kea."""
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="isthmus-bench-") as folder,
        standing(network("bench-lease")) as lab,
        kea.serving(lab, Path(folder), threads),
    ):
        return act(lab)


class Search:
    """The highest rates of all, found in turn."""

    def __init__(self, program: Path, seconds: float) -> None:
        self._program, self._seconds = program, seconds
        self.found: dict[str, list[Trial]] = defaultdict(list)
        self.trials: dict[str, list[Trial]] = defaultdict(list)
        "Every rate that was played."
        self.played: list[rsip_load.Played] = []
        "What was played at our highest rates."
        self._played: dict[float, rsip_load.Played] = {}

    def _play(self, name: str, rate: float) -> Trial:
        if name == OURS:
            played = ours(self._program, rate, self._seconds)
            self._played[rate] = played
            trial = played.trial
        else:
            trial = theirs(name, lambda lab: kea.play(lab, rate, self._seconds))
        self.trials[name].append(trial)
        return trial

    def _keas(self) -> list[str]:
        """Every Kea once, and then the one that was the best."""
        if all(self.found[name] for name in kea.THREADS):
            return [max(kea.THREADS, key=lambda name: self.found[name][0].in_time)]
        return list(kea.THREADS)

    def run(self, which: str) -> None:
        """Find the highest rate of each once more."""
        for name in (OURS, *self._keas()):
            self._played.clear()
            # Where it was the last time it will not be far from.
            start = self.found[name][-1].asked / 1.1 if self.found[name] else START
            best = highest(lambda rate, name=name: self._play(name, rate), start)  # type: ignore[misc]
            self.found[name].append(best)
            progress(
                f"lease {which}: {name}: {best.in_time:.0f} a second (asked {best.asked:.0f},"
                f" {best.late_ratio:.2%} late)"
            )
            if name == OURS:
                self.played.append(self._played[best.asked])


def at_rate(program: Path, rate: float, seconds: float, rounds: int) -> list[Figure]:
    """How long whole cycles take at one rate."""
    mine, keas = [], []
    for _ in range(rounds):
        mine.append(ours(program, rate, seconds).times("cycle"))
        keas.append(theirs("its default", lambda lab: kea.play_timed(lab, rate, seconds))[1])
    return latencies(rate, mine, keas)


def latencies(rate: float, mine: Sequence[tuple[float, float]], keas: Sequence[tuple[float, float]]) -> list[Figure]:
    """Figures of medians and 99th percentiles, in milliseconds."""
    progress(f"lease: p50 and p99 at {rate:.0f} a second: {OURS} {mine}, Kea {keas}")
    return [
        compare(f"cycle {name}, {rate:.0f} a second", "ms", [each[at] for each in mine], [each[at] for each in keas])
        for at, name in enumerate(("p50", "p99"))
    ]


def rates_beside(rates: dict[str, list[float]], goal: float | None) -> tuple[list[Figure], str]:
    """Figures of the highest rates, and which Kea's is the better one."""
    best = max((name for name in rates if name != OURS), key=lambda name: statistics.median(rates[name]))
    figures = [compare("durable full cycles", "1/s", rates[OURS], rates[best], goal)]
    figures += [
        compare(f"durable full cycles, beside Kea with {name}", "1/s", rates[OURS], series)
        for name, series in rates.items()
        if name != OURS
    ]
    return figures, best


def series(trials: dict[str, list[Trial]]) -> list[dict[str, object]]:
    """Every rate that was played, for plots."""
    return [{"way": name, "runs": [asdict(trial) for trial in many]} for name, many in trials.items()]


def measure(program: Path, seconds: float, rounds: int) -> tuple[list[Figure], list[dict[str, object]]]:
    """Measure all."""
    durable = ours(program, 1000.0, seconds, durable=True)
    progress(f"lease: all of {durable.told['begun']} leases were in the store of a killed gateway")
    search = Search(program, seconds)
    for at in range(rounds):
        search.run(f"round {at + 1} of {rounds}")
    rates = {name: [each.in_time for each in many] for name, many in search.found.items()}
    figures, best = rates_beside(rates, GOAL)
    times = [played.times("cycle") for played in search.played]
    figures += [
        Figure(name=f"cycle {name}, at its highest rate", unit="ms", ours=round(statistics.median(many), 2))
        for name, many in zip(("p50", "p99"), zip(*times, strict=True), strict=True)
    ]
    busy = statistics.median(played.busy for played in search.played)
    figures.append(Figure(name="load generator busy, at its highest rate", unit="%", ours=round(100 * busy, 1)))
    half = round(min(statistics.median(rates[OURS]), statistics.median(rates[best])) / 2, -2)
    figures += at_rate(program, LOW_RATE, seconds, rounds) + at_rate(program, half, seconds, rounds)
    return figures, series(search.trials)


def measure_quickly(program: Path, seconds: float) -> tuple[list[Figure], list[dict[str, object]]]:
    """Play one low rate against each."""
    played = ours(program, LOW_RATE, seconds, durable=True)
    trial, times = theirs("its default", lambda lab: kea.play_timed(lab, LOW_RATE, seconds))
    figures, _ = rates_beside({OURS: [played.trial.in_time], "its default": [trial.in_time]}, None)
    figures += latencies(LOW_RATE, [played.times("cycle")], [times])
    return figures, series({OURS: [played.trial], "its default": [trial]})


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, proves nothing")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report.ask_for_root("lease", "it makes namespaces")
    if kea.missing():
        print(f"bench lease measures beside Kea, which is not installed: {kea.PACKAGES}", file=sys.stderr)
        return 2
    seconds, rounds = (1.0, 1) if options.quick else (3.0, options.rounds)
    try:
        with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
            program = rsip_load.compile_load(Path(folder))
            measured = measure_quickly(program, seconds) if options.quick else measure(program, seconds, rounds)
    except (IsthmusError, subprocess.CalledProcessError) as error:
        print(f"bench lease: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(
        filesystem=filesystem("/var/tmp"),
        ports=PORTS_OF_A_LEASE,
        late=MOST_LATE,
        probe=rsip_load.PROBE_EVERY,
        seconds=seconds,
        rounds=rounds,
    )
    figures, every = measured
    return publish("lease", figures, method, as_json=options.json, series=every)


def filesystem(path: str) -> str:
    """The type of the file system that a path is on."""
    best = ("/", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split()
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


if __name__ == "__main__":
    raise SystemExit(main())
