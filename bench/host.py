# SPDX-License-Identifier: BSD-3-Clause
"""A program under ``isthmus run``, beside other ways: ``python bench/host.py [--json] [--quick]``."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import report
from isthmus.errors import IsthmusError
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import ISTHMUS, Node, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import LabError
from networks import network
from report import Figure, compare, progress, publish

OURS, NATIVE, SLIRP, PASTA = "isthmus run", "native", "slirp4netns", "pasta"
PROGRAMS = {SLIRP: "slirp4netns", PASTA: "passt"}
"""The ways that need a package, and its name."""
TUN = Path("/dev/net/tun")
ECHO_PORT = 7000
USER_MTU = 65520
"""What Docker and Podman give to slirp4netns, and pasta's own default: large segments are what makes them fast."""
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_NAMESPACE = (*_NOBODY, "unshare", "--user", "--map-root-user", "--net")
RUNS = {
    "TCP up, 1 stream": (),
    "TCP up, 4 streams": ("--parallel", "4"),
    "TCP down, 1 stream": ("--reverse",),
    "TCP down, 4 streams": ("--reverse", "--parallel", "4"),
}
TIMES = {"round trip of 64 octets": "request", "connection and one round trip": "connection"}
METHOD = (
    "Host, gateway and server in namespaces joined by veth, all on the same cores. The same programs run in the"
    " host's own namespace (native: its packets are forwarded plainly by the gateway), under isthmus run (a lease of"
    " ports of a public address, kernel plane at host and gateway, MTU {tunnel_mtu}), and in namespaces that"
    " slirp4netns and pasta serve in user space (MTU {mtu}), in turn, order shuffled, medians of {rounds} rounds of"
    " {seconds} s: iperf3; bench/load/roundtrip.c, over one TCP connection with TCP_NODELAY, and over one after the"
    " other. 'theirs' is native unless the name says another; ratios of times are better when less."
)


@dataclass(frozen=True, slots=True)
class Way:
    """How a program reaches the server."""

    name: str
    prefix: tuple[str, ...]
    "Words before the program's own."


@contextlib.contextmanager
def served(host: Node, name: str, words: Sequence[str]) -> Iterator[Way]:
    """A namespace that a user-mode network serves; ``words`` are its command, PID stands for a process in there."""
    inside = host.start(f"{name}-namespace", *_NAMESPACE, "sleep", "infinity")
    pid = str(inside.pid)
    prefix = ("nsenter", "--target", pid, "--user", "--net", "--preserve-credentials")
    own, theirs = Path("/proc/self/ns/user").readlink(), Path(f"/proc/{pid}/ns/user")
    try:
        # The namespaces are there when the process is in them.
        if not wait_until(lambda: theirs.readlink() != own, 5, every=0.01):
            raise LabError(f"no user namespace\n{inside.tail()}")
        server = host.start(name, *(word.replace("PID", pid) for word in words))
        try:
            there = ("ip", "route", "get", figure.SERVER)
            if not wait_until(lambda: host.run(*prefix, *there, check=False).returncode == 0, 5):
                raise LabError(f"{name} gives no network\n{server.tail()}")
            yield Way(name, prefix)
        finally:
            server.stop()
    finally:
        inside.stop()


@contextlib.contextmanager
def ways(lab: Lab) -> Iterator[list[Way]]:
    """Every way that is installed, ready to be used."""
    host, setting = lab["host"], Setting(plane="kernel")
    # pasta takes over the address of the interface with the default route.
    host.run("ip", "route", "add", "default", "via", figure.GATEWAY_NEAR)
    lab["gateway"].up(figure.gateway_configuration(lab, setting, state="memory:"))
    host.up(figure.host_configuration(lab, setting, "host", lease=False))
    run = (*ISTHMUS, "run", "--socket", str(host.socket_path), "--ports", "64", "--")
    none = [word for option in "tuTU" for word in (f"-{option}", "none")]
    commands = {
        SLIRP: ["slirp4netns", "--configure", f"--mtu={USER_MTU}", "--userns-path=/proc/PID/ns/user", "PID", "tap0"],
        PASTA: ["pasta", "--foreground", "--stderr", "--config-net", *none, "PID"],
    }
    with contextlib.ExitStack() as stack:
        found = [Way(NATIVE, ()), Way(OURS, run)]
        for name, words in commands.items():
            if not TUN.exists():
                progress(f"host: {name} needs {TUN}")
            elif shutil.which(words[0]):
                found.append(stack.enter_context(served(host, name, words)))
            else:
                progress(f"host: {name} is not installed: {PROGRAMS[name]}")
        yield found


def throughput(host: Node, way: Way, *options: str) -> float:
    """Gbit/s that reached the receiver."""
    words = ("iperf3", "--client", figure.SERVER, "--json", *options)
    done = host.run(*way.prefix, *words, seconds=60)
    try:
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
    except (ValueError, KeyError) as error:
        raise LabError(f"{way.name}: iperf3 gave no throughput: {done.stdout[-300:]}") from error


def times(host: Node, way: Way, program: Path, seconds: float) -> dict[str, tuple[float, float]]:
    """Median and 99th percentile in microseconds."""
    words = (str(program), figure.SERVER, str(ECHO_PORT), str(seconds))
    told = json.loads(host.run(*way.prefix, *words, seconds=seconds + 30).stdout)
    return {name: (told[key]["p50"] * 1000, told[key]["p99"] * 1000) for name, key in TIMES.items()}


def compile_roundtrip(directory: Path) -> Path:
    """Compile the client and server of round trips."""
    source, target = Path(__file__).parent / "load/roundtrip.c", directory / "roundtrip"
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", str(source), "-o", str(target)]
    subprocess.run(words, check=True)
    return target


def measure(program: Path, *, rounds: int, seconds: float, quick: bool) -> list[Figure]:
    """Measure the ways in turn, in another order each round."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    order = random.Random(1)
    runs = {name: options for name, options in RUNS.items() if not quick or name == "TCP up, 1 stream"}
    # iperf3 knows whole seconds only.
    length = ("--bytes", "10M") if quick else ("--time", str(round(seconds)))
    with standing(network("bench-host")) as lab:
        lab["server"].start("iperf3", "iperf3", "--server", "--forceflush", ready="Server listening")
        lab["server"].start("echo", str(program), "serve", str(ECHO_PORT), ready="ready")
        host = lab["host"]
        with ways(lab) as found:
            for at in range(rounds):
                order.shuffle(found)
                for way in found:
                    for name, options in runs.items():
                        seen[name, way.name].append(throughput(host, way, *length, *options))
                    for name, (median, late) in times(host, way, program, seconds).items():
                        seen[f"{name}, p50", way.name].append(median)
                        seen[f"{name}, p99", way.name].append(late)
                    latest = {name: round(series[-1], 2) for (name, who), series in seen.items() if who == way.name}
                    progress(f"host round {at + 1} of {rounds}: {way.name}: {latest}")
            names = [way.name for way in found]
    return figures(seen, names)


def figures(seen: dict[tuple[str, str], list[float]], ways_seen: Sequence[str]) -> list[Figure]:
    """Ours beside every other way."""
    made = []
    for other in (NATIVE, SLIRP, PASTA):
        for name in dict.fromkeys(name for name, _ in seen):
            if other in ways_seen:
                full = name if other == NATIVE else f"{name}, beside {other}"
                unit = "Gbit/s" if name in RUNS else "us"
                made.append(compare(full, unit, seen[name, OURS], seen[name, other]))
    return made


def main() -> int:
    """Measure and print."""
    options = report.parser(__doc__).parse_args()
    report.ask_for_root("host", "it makes namespaces and loads eBPF")
    rounds, seconds = options.rounds or (1 if options.quick else 5), 0.3 if options.quick else 2.0
    try:
        with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
            made = measure(compile_roundtrip(Path(folder)), rounds=rounds, seconds=seconds, quick=options.quick)
    except (IsthmusError, subprocess.CalledProcessError) as error:
        print(f"bench host: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(rounds=rounds, seconds=seconds, mtu=USER_MTU, tunnel_mtu=1480)
    return publish("host", made, method, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
