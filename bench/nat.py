# SPDX-License-Identifier: BSD-3-Clause
"""Beside NAT, which has a record for every flow: ``python bench/nat.py [--json] [--quick]``."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import connections
import flow_records
import packets
import report
import tcp
from apart import NEAR
from isthmus.border.selector import Admit
from isthmus.errors import IsthmusError
from networks import FORWARD, ISTHMUS, NAT
from packets import KINDS, Way
from report import Figure, compare, publish
from sample import MOST_IDLE, Sample

LEASES = 1_000_000
Seen = dict[tuple[str, str], list[Sample]]
"""By kind and name of the way."""
GOALS = {
    ("TC", Admit.ANYONE): (1.5, 1.8, 3.5),
    ("TC", Admit.CONTACTED): (1.5, 1.8, 3.5),
    ("XDP", Admit.ANYONE): (4, 5, 8),
    ("XDP", Admit.CONTACTED): (3.5, 4, 6),
}
"""Packets beside NAT's, for each of ``KINDS``."""
NO_MEMORY = 0.01
"""Of NAT's: what else the kernel does meanwhile."""
LOG = 1e-4
CONTACTED = 4 << 20
OURS = {
    (hook, admit): Way(name=f"{hook}, {admit.name.lower()}", tunnel="ipip", admit=admit, xdp=hook == "XDP")
    for hook, admit in GOALS
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    rounds: int
    timing: packets.Timing
    leases: int
    kinds: tuple[str, ...]
    ways: tuple[Way, ...]
    transmits: bool = False
    "Whether packets go over the wire to the server."
    patience: float = 0
    "Seconds, in all, that it waits until generator and gateway are near each other."
    tcp_seconds: int
    "0: TCP's throughput is not measured."
    connecting: float
    "Seconds of new connections."
    flows: int
    "For memory and log."


FULL = Scale(
    rounds=5,
    timing=packets.Timing(0.5, 0.8),
    patience=240,
    leases=LEASES,
    kinds=tuple(KINDS),
    ways=(packets.PLAIN, packets.MASQUERADE, *OURS.values()),
    tcp_seconds=1,
    connecting=2.0,
    flows=1_000_000,
)
QUICK = Scale(
    rounds=1,
    timing=packets.Timing(0.1, 0.1),
    leases=100,
    kinds=("100,000 flows",),
    ways=(packets.MASQUERADE, OURS["TC", Admit.CONTACTED], OURS["XDP", Admit.ANYONE]),
    tcp_seconds=0,
    connecting=0.2,
    flows=10_000,
)


def small_packets(scale: Scale) -> tuple[list[Figure], list[dict[str, object]]]:
    """Packets a second, by the number of flows."""
    seen, offered = packets.measure(
        dict.fromkeys(scale.kinds, scale.ways),
        scale.leases,
        name="bench-nat",
        rounds=scale.rounds,
        timing=scale.timing,
        transmits=scale.transmits,
        patience=scale.patience,
    )
    counted = {key: counting(samples) for key, samples in seen.items()}
    return [*rates(counted), *checks(counted, offered)], rows(seen, offered)


def counting(samples: list[Sample]) -> list[Sample]:
    """The runs of which a window counts; all of them, if there is none."""
    return [each for each in samples if each.used] or samples


def rates(seen: Seen) -> list[Figure]:
    """What they are beside NAT's, by the run time of the gateway's core, and by the clock on the wall."""
    made = []
    for of, goals in GOALS.items():
        way = OURS[of].name
        for kind, goal in zip(KINDS, goals, strict=True):
            if (kind, way) in seen:
                ours, theirs = ([1e9 / each.cost for each in seen[kind, name]] for name in (way, NAT))
                made.append(compare(f"{way}, {kind}", "packets/s", ours, theirs, goal))
    for kind, way in seen:
        if way != NAT:
            ours, theirs = ([each.rate for each in seen[kind, name]] for name in (way, NAT))
            made.append(compare(f"{way}, {kind}, on the wall", "packets/s", ours, theirs))
    return made


def checks(seen: Seen, offered: Sequence[float]) -> list[Figure]:
    """That the gateway was the bottleneck: what more the generator can do, and how busy the gateway's core was."""
    fastest = max(statistics.median(each.rate for each in samples) for samples in seen.values())
    runs = [each for samples in seen.values() for each in samples]
    laziest = min(statistics.median(each.busy for each in samples) for samples in seen.values())

    def least(name: str, unit: str, of_runs: Iterable[float]) -> Figure:
        return Figure(name=f"{name}, the least of all runs", unit=unit, ours=round(min(of_runs), 3))

    return [
        compare("generator, dropped at once, beside the fastest way", "packets/s", offered, [fastest]),
        least("generator, beside what is forwarded meanwhile", "times", (each.offered / each.rate for each in runs)),
        Figure(name="gateway's core at work, the least of all ways", unit="of the time", ours=round(laziest, 3)),
        Figure(name="generator, runs of a way that count, the least", unit="runs", ours=min(map(len, seen.values()))),
        least("gateway's core at work or held up by others", "of the time", (1 - each.idle for each in runs)),
        Figure(
            name="generator and gateway apart, the most of all runs", unit="ns", ours=max(each.apart for each in runs)
        ),
    ]


def rows(seen: Seen, offered: Sequence[float]) -> list[dict[str, object]]:
    """Every run, for plots: those that count, and the others beside."""
    made: list[dict[str, object]] = []
    for (kind, way), samples in seen.items():
        runs = counting(samples)
        others = [asdict(each) for each in samples if each not in runs]
        more = {"others": others} if others else {}
        made.append({"what": "packets", "flows": kind, "way": way, "runs": [asdict(each) for each in runs], **more})
    return [*made, {"what": "generator", "unit": "packets/s", "runs": [round(each) for each in offered]}]


def of_tcp(scale: Scale) -> tuple[list[Figure], list[dict[str, object]]]:
    """Throughput of one stream and of four, and new connections a second."""
    made: list[Figure] = []
    series: list[dict[str, object]] = []
    if scale.tcp_seconds:
        made, series = tcp.measure(rounds=scale.rounds, seconds=scale.tcp_seconds, tunnels=(ISTHMUS,), goal=1.0)
    seen = connections.measure(rounds=scale.rounds, seconds=scale.connecting)
    what, unit = "new TCP connections", "connections/s"
    made.append(compare(what, unit, seen[ISTHMUS], seen[NAT]))
    made.append(compare(f"{what}, beside {FORWARD}", unit, seen[ISTHMUS], seen[FORWARD]))
    return made, series + [{"what": what, "way": way, "unit": unit, "runs": runs} for way, runs in seen.items()]


def of_records(scale: Scale) -> list[Figure]:
    """Memory and log for so many flows."""
    flows = scale.flows
    found = flow_records.measure(flows=flows, count=min(scale.leases, 1000), rows=flows // 50)
    held = flows / flow_records.FLOWS_OF_A_LEASE
    log, theirs = found.row * held, found.line * flows
    each = found.theirs / found.tracked
    return [
        Figure(
            name=f"memory of {flows:,} flows",
            unit="octets",
            ours=max(found.ours, 0),
            theirs=round(each * flows),
            ratio=round(found.ours / flows / each, 4),
            goal=NO_MEMORY,
            met=found.ours / flows / each <= NO_MEMORY,
        ),
        Figure(name="memory of the contacted table, for any number of flows", unit="octets", ours=CONTACTED),
        Figure(
            name=f"log of {flows:,} flows, {flow_records.FLOWS_OF_A_LEASE:,} of each lease",
            unit="octets",
            ours=round(log),
            theirs=round(theirs),
            ratio=round(log / theirs, 7),
            goal=LOG,
            met=log / theirs <= LOG,
        ),
        Figure(name="log of one lease, of one flow", unit="octets", ours=round(found.row), theirs=round(found.line)),
    ]


SINKS = {
    False: "there they are counted and dropped, at XDP by the driver itself, which has no receiver",
    True: "the server's XDP program counts and drops them on the same core",
}
METHOD = (
    "Host, gateway and server in namespaces joined by veth, in turn in the same namespaces: plain forwarding, nftables"
    " masquerade, and isthmus at TC and XDP with {leases:,} leases; order shuffled, medians of {rounds} rounds, a new"
    " network for each. Small packets: UDP in IPv4 of 46 octets, outward, as live XDP frames from core 0; the gateway's"
    " receive thread on core 1; both go before what else the machine does. Packets/s = packets that reach the transmit"
    " side of wan0 per second of that thread's run time, {measured} s in four windows after {warm} s of warming up, of"
    " which those count in which it had always something to do (at most {idle:.0%} idle) and the cores were near each"
    " other (a line of the cache there and back within {near} ns); {sink}. On the wall = the same per second. TCP:"
    " iperf3 for {seconds} s, both ends bound to one core, which also does the gateway's work, and with a core each;"
    " connections that are reset after one octet, {at_once} at once, all three machines on the same cores."
    " Memory: growth of those of the kernel's caches that get objects for flows, and of the plane's"
    " maps. Log: NEW and DESTROY of conntrack -E as text;"
    " growth of the store's file for leases that have come and gone."
)


def main() -> int:
    """Measure and print."""
    parser = report.parser(__doc__)
    parser.add_argument("--leases", type=int)
    parser.add_argument(
        "--transmit", action="store_true", help="only packets, over the wire to the server, which drops them"
    )
    options = parser.parse_args()
    report.ask_for_root("nat", "it makes namespaces and loads eBPF")
    scale = QUICK if options.quick else FULL
    scale = replace(scale, rounds=options.rounds or scale.rounds, leases=options.leases or scale.leases)
    scale = replace(scale, transmits=options.transmit)
    try:
        figures, series = small_packets(scale)
        if not options.transmit:
            more, connecting = of_tcp(scale)
            figures += more + of_records(scale)
            series += connecting
    except (IsthmusError, OSError, subprocess.CalledProcessError) as error:
        print(f"bench nat: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(
        rounds=scale.rounds,
        leases=scale.leases,
        measured=scale.timing.measured,
        warm=scale.timing.warm,
        idle=MOST_IDLE,
        near=NEAR,
        seconds=scale.tcp_seconds,
        at_once=connections.AT_ONCE,
        sink=SINKS[scale.transmits],
    )
    return publish("nat", figures, method, as_json=options.json, series=series)


if __name__ == "__main__":
    raise SystemExit(main())
