# SPDX-License-Identifier: BSD-3-Clause
"""TCP throughput by iperf3, one and four streams, both directions.

Both ends are bound to cores, the same in all ways: first to one core together, which then also does all that the
gateway does, and then to a core each. With a core each, and more so if they are not bound, a connection has modes that
last for all of a run and have nothing to do with the way: segments may be sent by who writes or by who gets the
acknowledgements, and so mostly by one core or by both.
"""

from __future__ import annotations

import json
import os
import random
import time
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
EACH = ", a core each"
"""What the name of a run has more, if each end has its own core."""


def runs_of(way: str) -> list[str]:
    """What is measured of a way: of the other kinds of tunnel, one stream on one core only."""
    most = [name + place for place in ("", EACH) for name in RUNS]
    return [name for name in most if way not in TUNNELS or way == ISTHMUS or name.endswith("1 stream")]


def cores(name: str) -> str:
    """The cores of client and server in a run, as iperf3 wants them."""
    there = sorted(os.sched_getaffinity(0))
    return f"{there[-2:][0 if name.endswith(EACH) else -1]},{there[-1]}"


_BUSY = "the server is busy running a test"
"""It is still at the end of the one before."""


def throughput(lab: Lab, seconds: float, name: str) -> float:
    """Gbit/s that reached the receiver in a run."""
    words = ("iperf3", "--client", figure.SERVER, "--time", str(seconds), "--json", "--affinity", cores(name))
    for _ in range(20):
        done = lab["host"].run(*words, *RUNS[name.removesuffix(EACH)], seconds=seconds + 20, check=False)
        if _BUSY not in done.stdout:
            break
        time.sleep(0.1)
    try:
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
    except (ValueError, KeyError) as error:
        raise LabError(f"iperf3 gave no throughput: {done.stdout[-300:]}") from error


def measure(
    *, rounds: int, seconds: float, seed: int = 1, tunnels: Sequence[str] = tuple(TUNNELS), goal: float = GOAL
) -> tuple[list[Figure], list[dict[str, object]]]:
    """Measure the ways in turn, in another order each round.

    Args:
        rounds: How often.
        seconds: Of each run.
        seed: Of the order.
        tunnels: Which of ``TUNNELS`` are measured, beside forwarding and masquerade; ``ISTHMUS`` is one of them.
        goal: Of masquerade's throughput.

    Returns:
        The medians, and every run.
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
                        seen[name, way].append(throughput(lab, seconds, name))
                latest = ", ".join(f"{seen[name, way][-1]:.1f}" for name in runs_of(way))
                progress(f"TCP round {at + 1} of {rounds}: {way}: {latest} Gbit/s")
    unit = "Gbit/s"
    both = runs_of(ISTHMUS)
    figures = [compare(name, unit, seen[name, ISTHMUS], seen[name, NAT], goal) for name in both]
    figures += [compare(f"{name}, beside {FORWARD}", unit, seen[name, ISTHMUS], seen[name, FORWARD]) for name in RUNS]
    figures += [
        compare(f"{name}, {way}", unit, seen[name, way], seen[name, NAT])
        for way in tunnels
        if way != ISTHMUS
        for name in runs_of(way)
    ]
    series = [{"what": name, "way": way, "unit": unit, "runs": runs} for (name, way), runs in seen.items()]
    return figures, series
