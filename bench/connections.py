# SPDX-License-Identifier: BSD-3-Clause
"""New TCP connections a second through the gateway: runs ``load/connections.c``, which says what it does."""

from __future__ import annotations

import json
import random
import subprocess
from collections import defaultdict
from pathlib import Path

from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.topology import LabError
from networks import FORWARD, ISTHMUS, NAT, crossing, network
from report import progress

AT_ONCE = 64
_PORTS = ("5000", "128")


def compile_load(directory: Path) -> Path:
    """Compile client and server."""
    source, target = Path(__file__).parent / "load/connections.c", directory / "connections"
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", str(source), "-o", str(target)]
    subprocess.run(words, check=True)
    return target


def rate(lab: Lab, load: Path, seconds: float) -> float:
    """Connections a second, over the way that is open."""
    words = (str(load), "drive", figure.SERVER, *_PORTS, str(AT_ONCE), str(seconds))
    told = json.loads(lab["host"].run(*words, seconds=seconds + 20).stdout)
    if told["failed"] > told["made"] / 100:
        raise LabError(f"of {told['made'] + told['failed']} connections {told['failed']} failed")
    return float(told["made"] / told["seconds"])


def measure(*, rounds: int, seconds: float, seed: int = 1) -> dict[str, list[float]]:
    """Measure forwarding, masquerade and isthmus in turn, in another order each round."""
    seen: dict[str, list[float]] = defaultdict(list)
    order = random.Random(seed)
    ways = [FORWARD, NAT, ISTHMUS]
    with standing(network("bench-connections")) as lab:
        load = compile_load(lab.record.directory)
        lab["server"].start("connections", str(load), "serve", figure.SERVER, *_PORTS, ready="ready")
        for at in range(rounds):
            for way in order.sample(ways, len(ways)):
                with crossing(lab, way):
                    seen[way].append(rate(lab, load, seconds))
            latest = ", ".join(f"{way} {seen[way][-1]:.0f}" for way in ways)
            progress(f"connections round {at + 1} of {rounds}: {latest} a second")
    return seen
