# SPDX-License-Identifier: BSD-3-Clause
"""TCP throughput by iperf3, one and four streams, both directions."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence

from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.topology import LabError
from networks import FORWARD, ISTHMUS, NAT, TUNNELS, crossing, network
from report import Figure, compare, progress

GOAL = 0.9
RUNS = {
    "TCP up, 1 stream": (),
    "TCP up, 4 streams": ("--parallel", "4"),
    "TCP down, 1 stream": ("--reverse",),
    "TCP down, 4 streams": ("--reverse", "--parallel", "4"),
}


def runs_of(way: str) -> list[str]:
    """What is measured of a way: of the other kinds of tunnel, one stream only."""
    return [name for name in RUNS if way not in TUNNELS or way == ISTHMUS or name.endswith("1 stream")]


def throughput(lab: Lab, seconds: float, *options: str) -> float:
    """Gbit/s that reached the receiver."""
    words = ("iperf3", "--client", figure.SERVER, "--time", str(seconds), "--json", *options)
    done = lab["host"].run(*words, seconds=seconds + 20)
    try:
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
    except (ValueError, KeyError) as error:
        raise LabError(f"iperf3 gave no throughput: {done.stdout[-300:]}") from error


def measure(
    *, rounds: int, seconds: float, seed: int = 1, tunnels: Sequence[str] = tuple(TUNNELS), goal: float = GOAL
) -> list[Figure]:
    """Measure the ways in turn, in another order each round.

    Args:
        rounds: How often.
        seconds: Of each run.
        seed: Of the order.
        tunnels: Which of ``TUNNELS`` are measured, beside forwarding and masquerade; ``ISTHMUS`` is one of them.
        goal: Of masquerade's throughput.
    """
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    order = random.Random(seed)
    with standing(network("bench-tcp")) as lab:
        lab["server"].start("iperf3", "iperf3", "--server", "--forceflush", ready="Server listening")
        for at in range(rounds):
            ways = [FORWARD, NAT, *tunnels]
            order.shuffle(ways)
            for way in ways:
                with crossing(lab, way):
                    for name in runs_of(way):
                        seen[name, way].append(throughput(lab, seconds, *RUNS[name]))
                latest = ", ".join(f"{seen[name, way][-1]:.1f}" for name in runs_of(way))
                progress(f"TCP round {at + 1} of {rounds}: {way}: {latest} Gbit/s")
    unit = "Gbit/s"
    figures = [compare(name, unit, seen[name, ISTHMUS], seen[name, NAT], goal) for name in RUNS]
    figures += [compare(f"{name}, beside {FORWARD}", unit, seen[name, ISTHMUS], seen[name, FORWARD]) for name in RUNS]
    figures += [
        compare(f"{name}, {way}", unit, seen[name, way], seen[name, NAT])
        for way in tunnels
        if way != ISTHMUS
        for name in runs_of(way)
    ]
    return figures
