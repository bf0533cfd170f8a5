# SPDX-License-Identifier: BSD-3-Clause
"""Small packets: what one of them costs the gateway's core, by how many flows there are."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import NetNS

import libbpf
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import Node, wait_until
from isthmus.lab.topology import LabError
from networks import FORWARD, ISTHMUS, NAT, TUNNELS, masquerading, network
from report import Figure, compare, progress

GOAL = 1.2
STILL = 0.95
"""Of what it was before: new things may not slow the IPv4 IP-IP path by more."""
BEFORE = "beside the tree before"
HERE = Path(__file__).parent
GATEWAY_CPU = 1
KINDS = {"64 flows": 64, "100,000 flows": 100_000, "a new flow in every packet": 65_536}
OTHER_TUNNELS = ("64 flows", "100,000 flows")
"""Where the other kinds of tunnels are measured, too."""
PORTS_OF_A_LEASE = 64
_EGRESS = 0xFFFFFFF3
_CLSACT = 0xFFFFFFF1
_CONNTRACK = {
    "/proc/sys/net/netfilter/nf_conntrack_max": "8388608",
    "/sys/module/nf_conntrack/parameters/hashsize": "2097152",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one run warms up and is measured, in seconds."""

    warm: float
    measured: float


def flows(kind: str) -> list[tuple[str, str, int, str, int]]:
    """Host, leased address, leased port, destination, destination port; in an order that caches do not foresee.

    Masquerade never has to search for a port: no two flows share source port and destination.
    """
    number = KINDS[kind]
    # 64 flows are 64 hosts; many are 16 of each lease, so that there are many leases as well.
    each = 1 if number == 64 else 16
    made = []
    for at in range(number):
        lease, within = divmod(at, each)
        address, first = lease_of(lease)
        destination = f"198.18.{at >> 8 & 0xFF}.{at & 0xFF}" if number == 64 else f"198.18.{at // 60000}.1"
        made.append((host_of(lease), address, first + within, destination, 7 + at // 60000))
    random.Random(7).shuffle(made)
    return made


def host_of(lease: int) -> str:
    """The private address of the n-th host."""
    return f"10.1.{lease >> 8}.{lease & 0xFF}"


def lease_of(lease: int) -> tuple[str, int]:
    """The address and the first port of the n-th lease: slices from 1024 on, in 32 addresses of a /24."""
    slices = (65536 - 1024) // PORTS_OF_A_LEASE
    address, at = divmod(lease, slices)
    return f"149.112.241.{1 + address}", 1024 + at * PORTS_OF_A_LEASE


def leases_for(kind: str) -> int:
    """How many leases the flows of a kind use."""
    return len({host for host, *_ in flows(kind)})


def compile_generator(directory: Path) -> Path:
    """Compile the generator and the sink."""
    target = directory / "generator.bpf.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    words = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-isystem", include]
    subprocess.run([*words, "-c", str(HERE / "bpf/generator.bpf.c"), "-o", str(target)], check=True)
    return target


def prepare(lab: Lab) -> int:
    """Put the gateway's receiving side on a core of its own; returns the process id of its kernel thread."""
    gateway = lab["gateway"]
    server_mac = mac(lab["server"], "eth0")
    gateway.run("ip", "neigh", "replace", figure.SERVER, "lladdr", server_mac, "dev", "wan0", "nud", "permanent")
    gateway.run("ethtool", "-K", "lan0", "gro", "on")
    before = set(napi_threads())
    where = "/sys/class/net/lan0/threaded"
    # The one place for "ip netns exec": it shows the /sys of the namespace.
    subprocess.run(["ip", "netns", "exec", gateway.namespace, "sh", "-c", f"echo 1 > {where}"], check=True)
    if not wait_until(lambda: bool(set(napi_threads()) - before), 3):
        why = "" if sees_kernel_threads() else ": kernel threads are not seen in a PID namespace"
        raise LabError(f"the gateway's interface got no NAPI thread{why}")
    (thread,) = set(napi_threads()) - before
    os.sched_setaffinity(thread, {GATEWAY_CPU})
    os.setpriority(os.PRIO_PROCESS, thread, -15)
    return thread


def sees_kernel_threads() -> bool:
    """Whether this is the machine's own PID namespace."""
    with contextlib.suppress(OSError):
        return Path("/proc/2/comm").read_text(encoding="utf-8") == "kthreadd\n"
    return False


def napi_threads() -> list[int]:
    """The kernel threads that receive for interfaces called lan0."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if entry.read_text(encoding="utf-8").startswith("napi/lan0"):
                found.append(int(entry.parent.name))
    return found


def mac(node: Node, interface: str) -> str:
    """The MAC address of an interface."""
    link = json.loads(node.run("ip", "-json", "link", "show", interface).stdout)
    return str(link[0]["address"])


def attach_sink(gateway: Node, program: int) -> None:
    """Count and drop where the driver of wan0 would begin to transmit."""
    with NetNS(gateway.namespace, flags=0) as links:
        index = links.link_lookup(ifname="wan0")[0]
        with contextlib.suppress(Exception):
            links.tc("add", "clsact", index=index)
        links.tc(
            "add-filter",
            "bpf",
            index=index,
            fd=program,
            name="bench-sink",
            parent=_EGRESS,
            prio=60000,
            classid=1,
            direct_action=True,
        )


def detach_sink(gateway: Node) -> None:
    """Let packets through again."""
    with NetNS(gateway.namespace, flags=0) as links, contextlib.suppress(Exception):
        links.tc("del-filter", index=links.link_lookup(ifname="wan0")[0], parent=_EGRESS, prio=60000)


@contextlib.contextmanager
def kernel_plane(lab: Lab, leases: int, *more: str, tree: Path = HERE.parent) -> Iterator[None]:
    """The kernel plane alone, with as many leases as the flows use; that of another tree, if it is named."""
    gateway = lab["gateway"]
    words = ["env", f"PYTHONPATH={tree / 'src'}", sys.executable, str(tree / "bench/plane.py"), str(leases), *more]
    daemon = gateway.start("plane", *words, ready="ready", seconds=60)
    try:
        yield
    finally:
        gateway.daemons.pop("plane").stop()
        if daemon.process.returncode not in (0, -15):
            raise LabError(f"the plane failed\n{daemon.tail()}")


@contextlib.contextmanager
def way_open(lab: Lab, way: str, leases: int, before: Path | None = None) -> Iterator[None]:
    """Set the gateway up for one of the ways, and clear it again."""
    if way == NAT:
        with masquerading(lab):
            yield
    elif way in TUNNELS:
        with kernel_plane(lab, leases, TUNNELS[way]):
            yield
    elif way == BEFORE and before is not None:
        with kernel_plane(lab, leases, tree=before):
            yield
    else:
        yield


def cost(lab: Lab, kind: str, way: str, *, thread: int, object_path: Path, timing: Timing) -> float:
    """Nanoseconds of the gateway's core for one packet forwarded."""
    loaded = libbpf.BpfObject(object_path)
    sunk = loaded.map("sunk")
    attach_sink(lab["gateway"], loaded.program("sink"))
    plan = {
        "object": str(object_path),
        "interface": "eth0",
        "mac": mac(lab["gateway"], "lan0"),
        "seconds": timing.warm + timing.measured + 0.2,
        "tunnel": TUNNELS.get(way, "ipip" if way == BEFORE else None),
        "outer_dst": figure.GATEWAY_NEAR6 if TUNNELS.get(way) == "ipv6" else figure.GATEWAY_NEAR,
        "fresh": kind.startswith("a new"),
        # Without tunnels the packets come from the hosts' own addresses: a flow of each host's port.
        "flows": [(h, a if way in TUNNELS or way == BEFORE else h, p, d, q) for h, a, p, d, q in flows(kind)],
    }
    path = lab.record.directory / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    sender = lab["host"].start("generator", sys.executable, str(HERE / "generator.py"), str(path), ready="ready")
    try:
        time.sleep(timing.warm)
        packets, spent = packets_sunk(sunk), run_time(thread)
        time.sleep(timing.measured)
        packets, spent = packets_sunk(sunk) - packets, run_time(thread) - spent
        if sender.process.wait(timeout=20):
            raise LabError(f"the generator failed\n{sender.tail()}")
    finally:
        sender.stop()
        detach_sink(lab["gateway"])
    if packets < 1000:
        raise LabError(f"{way}, {kind}: only {packets} packets came out of the gateway")
    return spent / packets


def packets_sunk(map_fd: int) -> int:
    """Packets that the sink has counted, on all cores."""
    cores = os.sysconf("SC_NPROCESSORS_CONF")
    return sum(struct.unpack(f"{cores}Q", libbpf.lookup(map_fd, 0, 8 * cores)))


def run_time(thread: int) -> int:
    """Nanoseconds that a thread has run."""
    return int(Path(f"/proc/{thread}/schedstat").read_text(encoding="utf-8").split()[0])


@contextlib.contextmanager
def large_conntrack() -> Iterator[None]:
    """Give masquerade a table that is large enough, for as long as it is measured."""
    before = {}
    for name, value in _CONNTRACK.items():
        with contextlib.suppress(OSError):
            before[name] = Path(name).read_text(encoding="utf-8").strip()
            if int(before[name]) < int(value):
                Path(name).write_text(value, encoding="utf-8")
    try:
        yield
    finally:
        for name, value in before.items():
            with contextlib.suppress(OSError):
                Path(name).write_text(value, encoding="utf-8")


def measure(*, rounds: int, timing: Timing, seed: int = 1, before: Path | None = None) -> list[Figure]:
    """Measure the ways in turn, in one network per round and number of flows, in another order each time."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    order = random.Random(seed)
    with large_conntrack():
        for at in range(rounds):
            for kind in KINDS:
                ways = [
                    FORWARD,
                    NAT,
                    *(TUNNELS if kind in OTHER_TUNNELS else (ISTHMUS,)),
                    *([BEFORE] if before else []),
                ]
                order.shuffle(ways)
                with standing(network("bench-packets")) as lab:
                    object_path = compile_generator(lab.record.directory)
                    thread = prepare(lab)
                    for way in ways:
                        with way_open(lab, way, leases_for(kind), before):
                            seen[kind, way].append(
                                cost(lab, kind, way, thread=thread, object_path=object_path, timing=timing)
                            )
                latest = ", ".join(f"{way} {seen[kind, way][-1]:.0f}" for way in sorted(ways))
                progress(f"packets round {at + 1} of {rounds}: {kind}: {latest} ns")
    rates = {key: [1e9 / each for each in series] for key, series in seen.items()}
    unit = "packets/s"
    figures = [compare(f"small packets, {kind}", unit, rates[kind, ISTHMUS], rates[kind, NAT], GOAL) for kind in KINDS]
    figures += [
        compare(f"small packets, {kind}, beside {FORWARD}", unit, rates[kind, ISTHMUS], rates[kind, FORWARD])
        for kind in KINDS
    ]
    figures += [
        compare(f"small packets, {kind}, {way}", unit, rates[kind, way], rates[kind, NAT])
        for kind in OTHER_TUNNELS
        for way in TUNNELS
        if way != ISTHMUS
    ]
    if before is not None:
        figures += [
            compare(f"small packets, {kind}, {BEFORE}", unit, rates[kind, ISTHMUS], rates[kind, BEFORE], STILL)
            for kind in KINDS
        ]
    return figures
