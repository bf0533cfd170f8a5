# SPDX-License-Identifier: BSD-3-Clause
"""What a packet costs in the program itself: ``python bench/packet.py [--json] [--quick]``."""

from __future__ import annotations

import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import crossing
import flat_table
import leases
import report
import stand
from isthmus.address import Address
from isthmus.border.mapping import Mapping
from isthmus.border.selector import Admit
from isthmus.border.verdict import Reason
from isthmus.checksum import checksum
from isthmus.errors import IsthmusError
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.kernel.loader import Program
from report import Figure, progress, publish
from steps import HOOKS, INNER, LONGEST, Packets, Steps, steps

GOALS = {Admit.ANYONE: 100, Admit.CONTACTED: 192}
"""Nanoseconds, at the most leases."""
FLAT = 1.2
"""What it may cost at the most leases, of what it costs at a thousand."""
IPAE = {
    "native": ("IPv4 translated to SIP", "SIP translated to IPv4"),
    "datagram": ("IPv4 translated to SIP and into a datagram", "SIP out of a datagram and translated to IPv4"),
}
"""What ``bpf/crossing.bpf.c`` measures."""
SIDES = {"inward": True, "outward": False}
OUTER = {"ipip": "IPv4 outer", "ipv6": "IPv6 outer", leases.SCATTERED: "IPv4 outer, hosts at random places"}
"""What rows are called."""
HOOK = {"tc": "TC", "xdp": "XDP"}
METHOD = (
    "BPF_PROG_TEST_RUN of the real programs over UDP in IPv4 of {inner} octets, {times:,} packets a run, medians of"
    " {rounds} runs in turn; each packet is of another lease, at random, and the next is chosen by what came out of the"
    " one before, so that none overlaps another. Timed from before the program's tail call until the next packet's"
    " first instruction, less the same of a program that returns at once; at TC inward also less what Linux needs to"
    " refuse an encapsulation mark, which it does only because the buffer is used again. A packet for which something"
    " interrupted the processor (more than {longest} ns) does not count. Into IPv6 at TC every packet has to have a"
    " buffer of its own, since without that mark Linux makes no IPv6 of IPv4: its row is of single calls, with cold"
    " caches, and says what such a packet costs at most. All packets were seen to be forwarded by the"
    " plane's counters, and to have the right addresses, ports and TTL; of {sample} of each kind every octet. Theirs is"
    " a program that makes or takes away an outer header that is always the same. Consecutive hosts have consecutive"
    " leases, as the pool gives them, but for the rows that say otherwise. contacted: 2^20 peers fit into the"
    " table; inward, of those that are still in it. IPAE at TC, which has a program of its own, by bpf/crossing.bpf.c."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    rounds: int
    times: int
    leases: dict[str, tuple[int, ...]]
    "By the kind of tunnel."
    entries: tuple[int, ...]
    "Of IPAE's mapping."
    sample: int


FULL = Scale(
    rounds=5,
    times=500_000,
    leases={"ipip": (1, 1000, 30_000, 1_000_000), "ipv6": (1, 1000, 1_000_000), leases.SCATTERED: (1000, 1_000_000)},
    entries=(1, 1000, 1_000_000),
    sample=32,
)
QUICK = Scale(
    rounds=1,
    times=20_000,
    leases={"ipip": (1, 1000, 4000), "ipv6": (1000,), leases.SCATTERED: (1000,)},
    entries=(1, 1000),
    sample=4,
)


@contextmanager
def filled(count: int, admit: Admit, tunnel: str) -> Iterator[KernelPlane]:
    """A plane with so many leases, attached to nothing."""
    plane = KernelPlane(leases.border(count, tunnel), pin=None, boot_offset=leases.offset(), links=stand.Unattached())
    try:
        leases.fill(plane, count, admit, tunnel)
        plane.attach(leases.NEAR, "lan0", xdp=True)
        plane.attach(leases.FAR, "wan0", xdp=True)
        leases.know_routes(plane)
        yield plane
    finally:
        plane.destroy()


def program_of(plane: KernelPlane, hook: str) -> Program | None:
    """What of the plane would be attached there; None if it has nothing for it."""
    return plane.program if hook == "tc" else plane._loaded.xdp("border")


def forwarded(plane: KernelPlane) -> int:
    """Packets that the plane has let through so far."""
    counted = plane.counters()
    return counted[Reason.FORWARDED_INWARD] + counted[Reason.FORWARDED_OUTWARD]


class Series:
    """What was measured, by what it is of."""

    def __init__(self) -> None:
        self.costs: dict[tuple[object, ...], list[float]] = defaultdict(list)

    def add(self, cost: float, *key: object) -> None:
        """One run's."""
        self.costs[key].append(cost)

    def median(self, *key: object) -> float | None:
        """Of the runs; None if there were none."""
        return statistics.median(self.costs[key]) if key in self.costs else None


class Bench:
    """One hook's harness, and what is found with it."""

    def __init__(self, harness: Steps, hook: str, scale: Scale, series: Series) -> None:
        self._steps, self._hook, self._scale, self._series = harness, hook, scale, series

    def yardsticks(self) -> None:
        """One round of what there is to compare with."""
        one = Packets(inward=True, leases=1000, changed=False)
        base = self._steps.run(one, self._scale.times, yardstick="returns").mean
        for name, inward in (("parses", True), ("encapsulates", True), ("decapsulates", False)):
            packets = Packets(inward=inward, leases=1000, changed=False)
            cost = self._steps.run(packets, self._scale.times, yardstick=name).mean - base
            self._series.add(cost, self._hook, name)

    def _once_more(self, plane: KernelPlane, packets: Packets) -> float:
        """Nanoseconds for each packet of a run in which all were forwarded."""
        times = self._scale.times // 20 if packets.fresh else self._scale.times
        before = forwarded(plane)
        cost = self._steps.run(packets, times)
        through = forwarded(plane) - before
        if cost.wrong or through != times or cost.timed < times * 0.9 - 1:
            counted = {reason.name: count for reason, count in plane.counters().items() if count}
            raise SystemExit(
                f"{self._hook}: of {times} packets {through} were forwarded, {cost.wrong} came out wrong,"
                f" {cost.interrupted} were interrupted: {packets}; counted: {counted}"
            )
        without = replace(packets, changed=False)
        base = self._steps.run(without, times, yardstick="returns").mean
        if self._hook == "tc" and packets.inward and not packets.fresh:
            # Asked of a buffer that has the mark from the run before.
            base += self._steps.run(without, times, yardstick="refused").mean - base
        return cost.mean - base

    def round(self, plane: KernelPlane, count: int, admit: Admit, tunnel: str) -> None:
        """One run of each direction."""
        self._steps.measure(program_of(plane, self._hook))
        key = (self._hook, tunnel, admit, count)
        outward = _packets(count, tunnel, inward=False)
        self._series.add(self._once_more(plane, outward), "outward", *key)
        if admit is Admit.CONTACTED:
            self._contacts(count, tunnel)
        fresh = outward.outer6 and self._hook == "tc"
        inward = replace(outward, inward=True, chosen=admit is Admit.CONTACTED, fresh=fresh)
        self._series.add(self._once_more(plane, inward), "inward", *key)

    def _contacts(self, count: int, tunnel: str) -> None:
        """Let every host write to its peer once, and choose those who may be answered."""
        every = replace(_packets(count, tunnel, inward=False), in_order=True)
        self._steps.run(every, count)
        fresh = every.outer6 and self._hook == "tc"
        self._steps.run(replace(every, inward=True, record=True, fresh=fresh), count + 1)
        with self._steps.among.mapped() as memory:
            chosen = np.unpackbits(np.frombuffer(memory[:], np.uint8), count=count, bitorder="little")
            octets = np.packbits(chosen, bitorder="little").tobytes()
            memory[:] = octets.ljust(len(memory), b"\0")
        found = int(chosen.sum())
        self._series.add(found / count, "answered", self._hook, count)
        if found < 0.8 * count:
            raise SystemExit(f"only {found} of {count} peers may answer")

    def check_octets(self, plane: KernelPlane, count: int, tunnel: str) -> None:
        """See of some packets that every octet is right."""
        self._steps.measure(program_of(plane, self._hook))
        for lease in random.Random(count).sample(range(count), min(count, self._scale.sample)):
            for inward in (False, True):
                packets = replace(_packets(count, tunnel, inward=inward), in_order=True)
                came = self._steps.once(packets, lease)
                if came.packet != expected(lease, inward=inward, tunnel=tunnel):
                    raise SystemExit(
                        f"{self._hook}, {tunnel}: the packet of lease {lease} came out as {came.packet.hex()}"
                    )


def _packets(count: int, tunnel: str, *, inward: bool) -> Packets:
    return Packets(inward=inward, leases=count, outer6=tunnel == "ipv6", apart=leases.apart(tunnel))


def _header(protocol: int, octets: int, ttl: int, src: bytes, dst: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, octets, 0, 0x4000, ttl, protocol, 0, src, dst)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:]


def expected(lease: int, *, inward: bool, tunnel: str) -> bytes:
    """The frame that the packet of a lease becomes; ``packet.bpf.c`` says what that is."""
    peer = (0xC6120000 + (lease * 0x9E3779B1 % 2**32 >> 15)).to_bytes(4, "big")
    local, port = leases.address(lease).octets, leases.first_port(lease) + (lease & 7)
    ends, ports = ((peer, local), (80, port)) if inward else ((local, peer), (port, 80))
    inner = _header(17, INNER, 63, *ends) + struct.pack("!HHHH", *ports, INNER - 20, 0) + bytes(INNER - 28)
    version, outer = b"\x08\x00", b""
    if inward:
        ours, host = Address.parse(leases.TUNNELS[tunnel]).octets, leases.host(lease, tunnel).octets
        if tunnel == "ipv6":
            version, outer = b"\x86\xdd", struct.pack("!IHBB16s16s", 6 << 28, INNER, 4, 64, ours, host)
        else:
            outer = _header(4, 20 + INNER, 64, ours, host)
    return stand.ROUTER + stand.MAC + version + outer + inner


def measure(scale: Scale, directory: Path) -> Series:
    """Measure everything, planes of all sizes in turn."""
    series = Series()
    interfaces = (socket.if_nametoindex("wan0"), socket.if_nametoindex("lan0"))
    for tunnel, counts in scale.leases.items():
        for admit in GOALS:
            with ExitStack() as stack:
                planes = {count: stack.enter_context(filled(count, admit, tunnel)) for count in counts}
                hooks = [hook for hook in HOOKS if program_of(next(iter(planes.values())), hook)]
                benches = [
                    Bench(stack.enter_context(steps(hook, directory, interfaces, stand.MAC)), hook, scale, series)
                    for hook in hooks
                ]
                for bench in benches:
                    for count, plane in planes.items():
                        bench.check_octets(plane, count, tunnel)
                for at in range(scale.rounds):
                    for bench in benches:
                        bench.yardsticks()
                        for count in random.Random(at).sample(counts, len(counts)):
                            bench.round(planes[count], count, admit, tunnel)
                    progress(f"packet round {at + 1} of {scale.rounds}: {tunnel}, {admit.name.lower()}")
    return series


def measure_ipae(scale: Scale, directory: Path, series: Series) -> None:
    """Measure a border router's program, with mappings of all sizes in turn."""
    path = crossing.compile_object(directory)
    for way in crossing.WAYS:
        with ExitStack() as stack:
            routers = {}
            for count in scale.entries:
                table = mapping(count)
                routers[count] = stack.enter_context(crossing.crossing(path, way, table))
                routers[count].talk_to(flat_table.some_of(table, crossing.DESTINATIONS))
            for at in range(scale.rounds):
                for count in random.Random(at).sample(scale.entries, len(scale.entries)):
                    for side, cost in zip(IPAE[way], routers[count].packets(scale.times), strict=True):
                        series.add(cost, "ipae", side, count)
                progress(f"packet round {at + 1} of {scale.rounds}: IPAE, {way}")


def mapping(entries: int) -> Mapping:
    """A mapping of so many prefixes."""
    table = flat_table.flat_table(max(entries, 1000))
    return Mapping.from_arrays(table.numbers[:entries], table.lengths[:entries], table.uppers[:entries])


def figures(series: Series, scale: Scale) -> list[Figure]:
    """The figures, with their goals."""
    made = []
    for hook in HOOKS:
        minimal = {"inward": series.median(hook, "encapsulates"), "outward": series.median(hook, "decapsulates")}
        parsing = series.median(hook, "parses")
        if parsing is None:
            continue
        made.append(Figure(name=f"{HOOK[hook]}: parse and return", unit="ns", ours=round(parsing, 1)))
        for tunnel, counts in scale.leases.items():
            for admit in GOALS:
                for side in SIDES:
                    made += _row(series, (side, hook, tunnel, admit), counts, minimal[side])
    for side in (each for sides in IPAE.values() for each in sides):
        for count in scale.entries:
            cost = series.median("ipae", side, count)
            if cost is not None:
                name = f"TC {side}, mapping of {count:,}"
                made.append(Figure(name=name, unit="ns", ours=round(cost, 1)))
    return made


def _row(
    series: Series, of: tuple[str, str, str, Admit], counts: tuple[int, ...], minimal: float | None
) -> list[Figure]:
    side, hook, tunnel, admit = of
    made = []
    name = f"{HOOK[hook]} {side}, {OUTER[tunnel]}, {admit.name.lower()}"
    costs = {count: cost for count in counts if (cost := series.median(*of, count)) is not None}
    for count, cost in costs.items():
        goal = GOALS[admit] if tunnel != leases.SCATTERED and count == max(counts) else None
        made.append(
            Figure(
                name=f"{name}, {count:,} leases",
                unit="ns",
                ours=round(cost, 1),
                theirs=None if minimal is None else round(minimal, 1),
                ratio=None if not minimal else round(cost / minimal, 2),
                goal=goal,
                met=None if goal is None else cost <= goal,
            )
        )
    most = max(costs)
    if most > 1000 in costs:
        ratio, judged = costs[most] / costs[1000], tunnel != leases.SCATTERED
        made.append(
            Figure(
                name=f"{name}, {most:,} leases beside 1,000",
                unit="ns",
                ours=round(costs[most], 1),
                theirs=round(costs[1000], 1),
                ratio=round(ratio, 2),
                goal=FLAT if judged else None,
                met=ratio <= FLAT if judged else None,
            )
        )
    return made


def rows(series: Series) -> list[dict[str, object]]:
    """Every run, for plots."""
    made: list[dict[str, object]] = []
    for key, costs in series.costs.items():
        about: dict[str, object] = {"unit": "ns", "runs": [round(each, 2) for each in costs]}
        match key:
            case (side, hook, tunnel, Admit() as admit, count):
                about |= {"what": side, "hook": hook, "tunnel": tunnel, "admit": admit.name.lower(), "leases": count}
            case ("ipae", str() as side, count):
                about |= {"what": side, "hook": "tc", "entries": count}
            case ("answered", hook, count):
                about |= {"what": "peers remembered", "hook": hook, "leases": count, "unit": "of all"}
            case (hook, name):
                about |= {"what": name, "hook": hook}
        made.append(about)
    return made


def main() -> int:
    """Measure and print."""
    options = report.parser(__doc__).parse_args()
    report.ask_for_root("packet", "it loads eBPF")
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = replace(scale, rounds=options.rounds)
    try:
        stand.enter()
        with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as directory:
            series = measure(scale, Path(directory))
            measure_ipae(scale, Path(directory), series)
    except (IsthmusError, OSError, subprocess.CalledProcessError) as error:
        print(f"bench packet: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(inner=INNER, times=scale.times, rounds=scale.rounds, longest=LONGEST, sample=scale.sample)
    return publish("packet", figures(series, scale), method, as_json=options.json, series=rows(series))


if __name__ == "__main__":
    raise SystemExit(main())
