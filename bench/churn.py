# SPDX-License-Identifier: BSD-3-Clause
"""Leases that change hands while packets of others flow: ``python bench/churn.py [--json] [--quick]``."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import leases
import report
import rsip_load
import stamped
from isthmus.errors import IsthmusError
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import Daemon, wait_until
from isthmus.lab.topology import LabError
from lease import configuration
from networks import network
from report import Figure, progress, publish
from stamped import Eras, Outcome, Stamped, StampedLease

RATE = 10_000
LEASES = 4096
"""That stand, and as many that change."""
LEAST = 1_200_000
"""Packets of standing leases that are sent at least."""
PLANE_CPU = 1
PROTOCOL_RATE = 1000
"""Cycles a second of REGISTER, ASSIGN, FREE, DE-REGISTER, with at most 32 under way."""
METHOD = (
    "Host, gateway and server in namespaces joined by veth. {standing} leases stand; packets flow through them in"
    " both directions, no more than 64 under way, so that no queue loses any: blocked are those that do not arrive."
    " Every second lease admits only whom it has contacted, which it has before. Meanwhile {changing} other leases"
    " change hands, {rate} changes (a Bind or an Unbind) a second asked for, in batches of 64. Through these go"
    " packets inward, outward from the present holder, and outward from the former one, which must not get out; a"
    " packet made after an Unbind was carried out must not reach who held the lease before. eBPF programs on the"
    " hosts' link and at the server compare every packet's stamp with where it came (misdelivered: where it may not)."
    " At TC and at XDP through KernelPlane.apply, sender on core 0; by the protocol: hosts register, are assigned"
    " ports, free them and deregister, {cycles} cycles a second at most, at a real gateway with its store synced to"
    " the disk; every 10th sends a packet through its lease to an echo server and back, and another one when it has"
    " freed it, which must not get out."
)


def standing_leases(number: int) -> list[StampedLease]:
    """The leases of ``churning`` that stand."""
    return [_stamped(leases.host(at).number, at) for at in range(number)]


def changing_leases(first: int, number: int) -> list[StampedLease]:
    """Those that change hands."""
    return [_stamped(0, at) for at in range(first, first + number)]


def _stamped(host: int, lease: int) -> StampedLease:
    # Any port of it.
    port = leases.first_port(lease) + lease % leases.PORTS
    return StampedLease(host=host, address=leases.address(lease).number, port=port)


def in_plane(
    directory: Path, *, xdp: bool, size: int, rate: float, seconds: float, least: int = 0
) -> tuple[Outcome, dict[str, Any]]:
    """Let leases change hands by ``KernelPlane.apply``; returns what became of packets, and what the plane tells.

    Args:
        directory: Where everything was compiled to.
        xdp: Attach at XDP, too.
        size: How many leases stand, and how many change.
        rate: Changes a second.
        seconds: For how long.
        least: And until so many packets of standing leases were sent.
    """
    eras = directory / "eras"
    Eras(eras, size)
    with standing(network("bench-churn")) as lab:
        stamped.know_neighbours(lab)
        lab["server"].run("ip", "route", "add", "149.112.241.0/24", "via", figure.SHARED, "dev", "eth0", "onlink")
        if xdp:
            allow_xdp(lab)
        stamps = Stamped(lab, directory)
        script = str(Path(__file__).parent / "churning.py")
        words = ["taskset", "--cpu-list", str(PLANE_CPU), sys.executable, script, str(size), str(size), str(eras)]
        more = ["--xdp"] if xdp else []
        plane = lab["gateway"].start("plane", *words, str(rate), *more, ready="ready", seconds=60)
        # Leases change for all of the time that packets flow.
        plane.process.send_signal(signal.SIGUSR1)
        with stamps.sending(standing_leases(size), changing_leases(size, size), seconds, least) as process:
            outcome = stamps.outcome(process, 600)
        plane.process.send_signal(signal.SIGUSR2)
        told = last_object(plane, 20)
        lab["gateway"].daemons.pop("plane").stop()
    return outcome, told


def last_object(daemon: Daemon, seconds: float) -> dict[str, Any]:
    """The JSON object that a process prints at its end.

    Raises:
        LabError: it printed none.
    """

    def lines() -> list[str]:
        return [line for line in daemon.log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]

    if not wait_until(lambda: bool(lines()), seconds):
        raise LabError(f"{daemon.name} told nothing\n{daemon.tail()}")
    told: dict[str, Any] = json.loads(lines()[-1])
    return told


def allow_xdp(lab: Lab) -> None:
    """What XDP needs of veth: a receive queue at the far ends of the links that packets are redirected to."""
    for node, interface in (("host", "eth0"), ("server", "eth0"), ("gateway", "lan0"), ("gateway", "wan0")):
        lab[node].run("ethtool", "-K", interface, "gro", "on")
    for node in ("host", "server"):
        lab[node].run("ethtool", "-K", "eth0", "tx", "off")


def by_protocol(directory: Path, *, size: int, rate: float, seconds: float) -> tuple[Outcome, dict[str, Any]]:
    """Let hosts come and go at a gateway, while others' packets flow; also what the load generator tells.

    Args:
        directory: Where everything was compiled to.
        size: How many leases stand.
        rate: Cycles a second, of REGISTER, ASSIGN, FREE, DE-REGISTER.
        seconds: For how long.
    """
    program, answered = rsip_load.compile_load(directory), directory / "answered"
    Eras(directory / "eras", 0)
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="isthmus-bench-") as folder,
        standing(network("bench-churn")) as lab,
    ):
        stamped.know_neighbours(lab, ())
        rsip_load.prepare(lab)
        # So short a rest, and so small a pool, that the same ports are leased again soon.
        text = configuration(lab, Path(folder, "leases.db"), size).replace("slice_size", "rest = 1\nslice_size")
        lab["gateway"].up(text)
        with rsip_load.echoing(lab) as echo:
            rsip_load.play(lab, program, 1000, size / 1000 + 0.1, "-R", str(size), "-L", str(answered))
            stamps = Stamped(lab, directory)
            with stamps.sending(leases_answered(answered), (), seconds - 0.3) as process:
                told = rsip_load.play(lab, program, rate, seconds, "-f", "-b", "10.96.0.1", "-p", "10", "-w", "32").told
                outcome = stamps.outcome(process, 30)
    if echo.former:
        raise LabError(f"{echo.former} packets of former holders got out")
    return outcome, told


def leases_answered(path: Path) -> list[StampedLease]:
    """What the load generator was leased."""
    numbers = []
    for line in path.read_text(encoding="utf-8").splitlines():
        host, address, port, *_ = line.split()
        numbers.append(StampedLease(numbered(host), numbered(address), int(port)))
    return numbers


def numbered(address: str) -> int:
    """An IPv4 address as a number."""
    a, b, c, d = map(int, address.split("."))
    return a << 24 | b << 16 | c << 8 | d


def figures_of(way: str, outcome: Outcome, changes: float, to_holder: int, goal: float | None = None) -> list[Figure]:
    """What there is to tell of one way; nothing blocked or misdelivered is a goal at any speed."""
    progress(
        f"churn {way}: {changes:.0f} changes a second; {outcome.standing} packets of standing leases,"
        f" {outcome.blocked} blocked, {outcome.misdelivered} misdelivered"
        f"; sent {outcome.sent}, arrived {outcome.arrived}"
    )
    fast = None if goal is None else changes >= 0.99 * goal
    made = [Figure(name=f"lease changes, {way}", unit="1/s", ours=round(changes), goal=goal, met=fast)]
    made.append(Figure(name=f"packets of standing leases, {way}", unit="", ours=outcome.standing))
    for name, many in (("blocked", outcome.blocked), ("misdelivered", outcome.misdelivered)):
        made.append(Figure(name=f"{name}, {way}", unit="", ours=many, goal=0, met=many == 0))
    made.append(Figure(name=f"packets of changing leases to their holder, {way}", unit="", ours=to_holder))
    return made


def measure(size: int, *, quick: bool) -> list[Figure]:
    """Measure all ways, with so many leases that stand, and as many that change."""
    seconds, least = (0.5, 0) if quick else (10.0, LEAST)
    figures = []
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        directory = Path(folder)
        stamped.compile_all(directory)
        for way, xdp in (("at TC", False), ("at XDP", True)):
            outcome, told = in_plane(directory, xdp=xdp, size=size, rate=RATE, seconds=seconds, least=least)
            changes = told["changes"] / told["seconds"]
            figures += figures_of(way, outcome, changes, outcome.arrived["changing inward"], None if quick else RATE)
            progress(f"churn {way}: counters {told['reasons']}")
        outcome, told = by_protocol(directory, size=size, rate=200 if quick else PROTOCOL_RATE, seconds=seconds)
        # An ASSIGN binds, a FREE unbinds.
        figures += figures_of("by the protocol", outcome, 2 * told["rate"], told["probes_back"])
        progress(f"churn by the protocol: {told}")
    return figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, proves little")
    options = parser.parse_args()
    report.ask_for_root("churn", "it makes namespaces and loads eBPF")
    size = 128 if options.quick else LEASES
    try:
        figures = measure(size, quick=options.quick)
    except (IsthmusError, subprocess.CalledProcessError) as error:
        print(f"bench churn: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(standing=size, changing=size, rate=f"{RATE:,}", cycles=PROTOCOL_RATE)
    return publish("churn", figures, method, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
