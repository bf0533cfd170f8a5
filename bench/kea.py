# SPDX-License-Identifier: BSD-3-Clause
"""Kea's DHCPv4 server with leases in a file, and perfdhcp, which plays clients to it."""

from __future__ import annotations

import bisect
import contextlib
import json
import math
import re
import shutil
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.topology import LabError
from rate import Trial

PACKAGES = "kea-dhcp4-server and kea-admin"
THREADS: dict[str, Mapping[str, Any]] = {
    "its default": {},
    "2 threads": {"enable-multi-threading": True, "thread-pool-size": 2, "packet-queue-size": 64},
}
"""Kea 2.2's own default is one thread; with several, packets wait in a queue of at most 64."""
LATE_SECONDS = 1.0
CLIENTS = ("-R", "4000000")
_TIMES = re.compile(r"^sent / received: (\d+\.\d+) / (\d+\.\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """What perfdhcp tells of one kind of exchange."""

    sent: int
    received: int


def missing() -> bool:
    """Whether Kea or perfdhcp is not installed."""
    return not (shutil.which("kea-dhcp4") and shutil.which("perfdhcp"))


def configuration(folder: Path, threads: Mapping[str, Any]) -> str:
    """One subnet with 13 million addresses; every lease is written to a file at once, as by default, but not synced."""
    return json.dumps(
        {
            "Dhcp4": {
                "interfaces-config": {"interfaces": ["lan0"], "dhcp-socket-type": "raw"},
                "lease-database": {
                    "type": "memfile",
                    "persist": True,
                    "name": str(folder / "leases.csv"),
                    "lfc-interval": 0,
                },
                **({"multi-threading": dict(threads)} if threads else {}),
                "valid-lifetime": 4000,
                "subnet4": [{"id": 1, "subnet": "10.0.0.0/8", "pools": [{"pool": "10.1.0.0-10.200.255.255"}]}],
                "loggers": [
                    {
                        "name": "kea-dhcp4",
                        "severity": "ERROR",
                        "output_options": [{"output": str(folder / "kea.log")}],
                    }
                ],
            }
        }
    )


@contextlib.contextmanager
def serving(lab: Lab, folder: Path, threads: str) -> Iterator[None]:
    """Let Kea serve at the gateway's place, from an empty file."""
    path = folder / "kea.json"
    path.write_text(configuration(folder, THREADS[threads]), encoding="utf-8")
    directories = (f"KEA_PIDFILE_DIR={folder}", f"KEA_LOCKFILE_DIR={folder}")
    daemon = lab["gateway"].start("kea", "env", *directories, "kea-dhcp4", "-c", str(path), ready="")
    leases = folder / "leases.csv"
    try:
        if not wait_until(lambda: leases.exists() and leases.stat().st_size > 0, 10):
            raise LabError(f"Kea does not serve\n{daemon.tail()}")
        # It opens its sockets after its lease file, and says nothing of it.
        if not wait_until(lambda: _exchange_works(lab), 10):
            raise LabError(f"Kea does not answer\n{daemon.tail()}")
        yield
    finally:
        lab["gateway"].daemons.pop("kea").stop()


def _exchange_works(lab: Lab) -> bool:
    # The answer to the last request is sometimes not waited for.
    done = _perfdhcp(lab, "-n", "5", "-r", "50", "-W", "200000", "-b", "mac=00:0c:02:00:00:01")
    return _exchanges(done, "REQUEST-ACK").received > 0


def play(lab: Lab, rate: float, seconds: float) -> Trial:
    """Play clients that begin so many four-way exchanges a second, each with a MAC address of its own.

    perfdhcp counts an exchange as dropped that is answered later than a second, or never. Its own rate is not used:
    it divides by the time that it waits for the last answers, too.
    """
    return _trial(_clients(lab, rate, seconds), rate, seconds)


def play_timed(lab: Lab, rate: float, seconds: float) -> tuple[Trial, tuple[float, float]]:
    """Play and tell also the median and the 99th percentile of whole four-way exchanges, in milliseconds."""
    told = _clients(lab, rate, seconds, "-x", "t")
    halves = [
        [(float(sent), float(received)) for sent, received in _TIMES.findall(part)]
        for part in told.partition("***Timestamps for packets: DISCOVER-OFFER***")[2].split("***Timestamps")
    ]
    if len(halves) != 2 or not halves[1]:
        raise LabError(f"perfdhcp told no times:\n{told[-2000:]}")
    # A client's REQUEST is sent as soon as its OFFER has come: the one that came last before it.
    offers = sorted((received, sent) for sent, received in halves[0])
    times = [
        (acknowledged - offers[bisect.bisect_right(offers, (requested, math.inf)) - 1][1]) * 1000
        for requested, acknowledged in halves[1]
    ]
    cuts = statistics.quantiles(times, n=100)
    return _trial(told, rate, seconds), (cuts[49], cuts[98])


def _clients(lab: Lab, rate: float, seconds: float, *more: str) -> str:
    period, wait = str(round(seconds)), str(round(LATE_SECONDS * 1e6))
    return _perfdhcp(lab, "-r", str(round(rate)), "-p", period, "-d", str(LATE_SECONDS), "-W", wait, *CLIENTS, *more)


def _trial(told: str, rate: float, seconds: float) -> Trial:
    begun, ended = _exchanges(told, "DISCOVER-OFFER").sent, _exchanges(told, "REQUEST-ACK").received
    if not begun:
        raise LabError(f"perfdhcp sent nothing:\n{told}")
    return Trial(asked=rate, begun=begun / seconds, in_time=ended / seconds, late_ratio=1 - ended / begun)


def _perfdhcp(lab: Lab, *words: str) -> str:
    # It ends with 3 if anything was dropped.
    return lab["host"].run("perfdhcp", "-4", "-l", "eth0", *words, figure.GATEWAY_NEAR, check=False, seconds=120).stdout


def _exchanges(told: str, kind: str) -> Exchanges:
    part = told.partition(f"***Statistics for: {kind}***")[2].partition("***")[0]
    numbers = {name: re.search(rf"^{name} packets: (\d+)$", part, re.MULTILINE) for name in ("sent", "received")}
    return Exchanges(**{name: int(found[1]) if found else 0 for name, found in numbers.items()})
