# SPDX-License-Identifier: BSD-3-Clause
"""Many hosts that ask a gateway for leases: runs ``load/rsipperf.c``, which says what it does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.topology import LabError
from rate import Trial

HOSTS = "10.64.0.0/10"
PUBLIC = "149.112.0.0/16"
LATE_SECONDS = 1.0
PROBE_EVERY = 50
_ECHO_PORT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a run of the load generator told."""

    trial: Trial
    told: dict[str, Any]

    def times(self, what: str) -> tuple[float, float]:
        """Median and 99th percentile of ``register``, ``assign`` or ``cycle``, in milliseconds."""
        series = self.told[what]
        return series["p50"], series["p99"]

    @property
    def busy(self) -> float:
        """The share of one core that the load generator used."""
        return float(self.told["cpu_seconds"] / self.told["seconds"])


def compile_load(directory: Path, name: str = "rsipperf") -> Path:
    """Compile the load generator, or another program of ``load/``."""
    source, target = Path(__file__).parent / f"load/{name}.c", directory / name
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", str(source), "-o", str(target), "-lm"]
    subprocess.run(words, check=True)
    return target


def prepare(lab: Lab) -> None:
    """Let the host be a router with all the hosts behind it, and let the server find the leased addresses."""
    lab["host"].run("ip", "route", "add", "local", HOSTS, "dev", "lo")
    lab["gateway"].run("ip", "route", "add", HOSTS, "via", "10.0.0.4", "dev", "lan0")
    lab["server"].run("ip", "route", "add", PUBLIC, "via", figure.SHARED, "dev", "eth0", "onlink")


@dataclass(slots=True)
class Echo:
    """What the echo server has seen."""

    former: int = 0
    "Packets that hosts sent through leases which were not theirs any more."


@contextlib.contextmanager
def echoing(lab: Lab) -> Iterator[Echo]:
    """Let the server send back what it gets."""
    echo, seen = lab["server"].udp_socket(), Echo()
    echo.bind((figure.SERVER, _ECHO_PORT))

    def serve() -> None:
        while True:
            octets, peer = echo.recvfrom(2048)
            if not octets:
                return
            seen.former += octets[0] >> 7
            echo.sendto(octets, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        with lab["server"].udp_socket() as last:
            last.sendto(b"", (figure.SERVER, _ECHO_PORT))
        thread.join()
        echo.close()


def play(lab: Lab, program: Path, rate: float, seconds: float, *more: str) -> Played:
    """Play hosts that begin so many cycles a second, each REGISTER and ASSIGN.

    Args:
        lab: What was prepared, with its gateway up and an echo server.
        program: The load generator.
        rate: Cycles begun a second.
        seconds: For how long.
        more: Further options of the load generator.

    Raises:
        LabError: it failed; or a request was refused; or a lease that was answered did not forward.
    """
    words = ("-r", str(rate), "-t", str(seconds), "-d", str(LATE_SECONDS), "-p", str(PROBE_EVERY), "-s", figure.SERVER)
    done = lab["host"].run(str(program), *words, *more, figure.GATEWAY_NEAR, seconds=seconds + 60)
    told = json.loads(done.stdout)
    if told["refused"]:
        raise LabError(f"the gateway refused {told['refused']} requests: {told['errors']}")
    if not told["begun"]:
        raise LabError("no host asked for anything")
    if told["strange"]:
        raise LabError(f"{told['strange']} packets came to hosts that they were not for")
    if told["probes_back"] < told["probed"]:
        raise LabError(f"of {told['probed']} leases, {told['probed'] - told['probes_back']} did not forward at once")
    begun = told["begun"] / seconds
    trial = Trial(asked=rate, begun=begun, in_time=begun * (1 - told["late_ratio"]), late_ratio=told["late_ratio"])
    return Played(trial=trial, told=told)
