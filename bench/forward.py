# SPDX-License-Identifier: BSD-3-Clause
"""Forwarding, beside nftables masquerade: ``python bench/forward.py [--json] [--quick] [--only tcp|packets]``."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import packets
import report
import tcp
from isthmus.errors import IsthmusError
from networks import FORWARD, ISTHMUS, NAT, TUNNELS
from report import Figure, compare, publish

METHOD = (
    "Host, gateway and server in namespaces joined by veth; plain forwarding, nftables masquerade and isthmus (kernel"
    " plane) in turn in the same namespaces, order shuffled, medians of {rounds} rounds. TCP: iperf3 for {seconds} s,"
    " both ends bound to one core, which also does the gateway's work, and with a core each. Small packets: UDP in IPv4"
    " of 46 octets, outward, sent by live XDP frames from core 0 faster than the gateway takes them; the gateway's"
    " receive thread alone on core 1; packets/s ="
    " packets that reach the transmit side of wan0 (counted and dropped there) per second of that thread's run time,"
    " {measured} s after {warm} s of warming up."
)


GOAL = 1.2
STILL = 0.95
"""Of what it was before: new things may not slow the IPv4 IP-IP path by more."""
BEFORE = "beside the tree before"
LEASES = 6250
OTHER_TUNNELS = tuple(kind for kind in packets.KINDS if not kind.startswith("a new"))
"""Where the other kinds of tunnels are measured, too."""


@contextlib.contextmanager
def tree_of(revision: str | None) -> Iterator[Path | None]:
    """Check a commit out, and build its eBPF programs, for as long as the body takes."""
    if revision is None:
        yield None
        return
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        tree = Path(folder, "tree")
        git = ["git", "-C", str(here), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            subprocess.run(["make", "--silent", "-C", str(tree / "bpf")], check=True)
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def small_packets(*, rounds: int, timing: packets.Timing, before: Path | None) -> list[Figure]:
    """Measure them by every kind of tunnel."""
    tunnels = [packets.Way(name=name, tunnel=tunnel) for name, tunnel in TUNNELS.items()]
    earlier = [] if before is None else [packets.Way(name=BEFORE, tunnel="ipip", tree=before)]
    ways = {
        kind: [
            packets.PLAIN,
            packets.MASQUERADE,
            *(way for way in tunnels if way.name == ISTHMUS or kind in OTHER_TUNNELS),
            *earlier,
        ]
        for kind in packets.KINDS
    }
    patience = 60 if rounds > 1 else 0
    seen, _ = packets.measure(ways, LEASES, name="bench-packets", rounds=rounds, timing=timing, patience=patience)
    rates = {key: [1e9 / each.cost for each in samples] for key, samples in seen.items()}
    unit, kinds = "packets/s", packets.KINDS
    made = [compare(f"small packets, {kind}", unit, rates[kind, ISTHMUS], rates[kind, NAT], GOAL) for kind in kinds]
    made += [
        compare(f"small packets, {kind}, beside {FORWARD}", unit, rates[kind, ISTHMUS], rates[kind, FORWARD])
        for kind in kinds
    ]
    made += [
        compare(f"small packets, {kind}, {way}", unit, rates[kind, way], rates[kind, NAT])
        for kind in OTHER_TUNNELS
        for way in TUNNELS
        if way != ISTHMUS
    ]
    if earlier:
        made += [
            compare(f"small packets, {kind}, {BEFORE}", unit, rates[kind, ISTHMUS], rates[kind, BEFORE], STILL)
            for kind in kinds
        ]
    return made


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, proves nothing")
    parser.add_argument("--only", choices=("tcp", "packets"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--against", metavar="REVISION", help="also measure small packets with this commit's plane")
    options = parser.parse_args()
    report.ask_for_root("forward", "it makes namespaces and loads eBPF")
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = 1 if options.quick else 2
    timing = packets.Timing(0.1, 0.15) if options.quick else packets.Timing(0.7, 1.0)
    figures: list[Figure] = []
    try:
        if options.only != "packets":
            figures += tcp.measure(rounds=rounds, seconds=seconds)[0]
        if options.only != "tcp":
            with tree_of(options.against) as before:
                figures += small_packets(rounds=rounds, timing=timing, before=before)
    except (IsthmusError, subprocess.CalledProcessError) as error:
        print(f"bench forward: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(rounds=rounds, seconds=seconds, measured=timing.measured, warm=timing.warm)
    return publish("forward", figures, method, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
