# SPDX-License-Identifier: BSD-3-Clause
"""Small packets: what one of them costs the gateway's core, by how many flows there are."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import NetNS

import libbpf
from isthmus.border.selector import Admit
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import Node, wait_until
from isthmus.lab.topology import LabError
from networks import FAR_MANY, FORWARD, NAT, masquerading, network
from report import progress

HERE = Path(__file__).parent
GATEWAY_CPU = 1
KINDS = {"64 flows": 64, "100,000 flows": 100_000, "a new flow in every packet": 0}
"""How many flows there are; 0: each packet is one."""
AT_TRANSMIT, AT_XDP_TRANSMIT, AT_RECEIVE = range(3)
"""Where the sinks of ``bpf/generator.bpf.c`` count."""
_EGRESS = 0xFFFFFFF3
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_SERVER_MAC = "02:00:00:00:00:02"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way for packets to cross the gateway."""

    name: str
    tunnel: str | None = None
    "Of isthmus; None: no tunnels."
    masquerade: bool = False
    admit: Admit = Admit.CONTACTED
    xdp: bool = False
    tree: Path = HERE.parent
    "Whose plane it is."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run has shown."""

    cost: float
    "Nanoseconds of the gateway's core for one packet forwarded."
    rate: float
    "Packets forwarded a second."
    busy: float
    "How much of the time that core was at work."


PLAIN, MASQUERADE = Way(name=FORWARD), Way(name=NAT, masquerade=True)


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


@contextlib.contextmanager
def unplugged(lab: Lab) -> Iterator[None]:
    """Put a TAP device that nobody reads in the place of wan0: once full, it refuses what XDP redirects to it.

    A veth device whose peer receives nothing is none that XDP redirects to. The device is held open, since without
    that it has no carrier, and routes by such an interface are asked for packet by packet.
    """
    gateway = lab["gateway"]
    gateway.run("ip", "link", "delete", "wan0")
    device = gateway.inside(_open_tap)
    try:
        for words in (
            ["ip", "address", "add", f"{figure.SHARED}/32", "dev", "wan0"],
            ["ip", "link", "set", "wan0", "up"],
            ["ip", "neighbour", "replace", figure.SERVER, "lladdr", _SERVER_MAC, "dev", "wan0", "nud", "permanent"],
            ["ip", "route", "add", FAR_MANY, "via", figure.SERVER, "dev", "wan0", "onlink"],
        ):
            gateway.run(*words)
        yield
    finally:
        os.close(device)


def _open_tap() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wan0", _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


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
def kernel_plane(lab: Lab, way: Way, leases: int) -> Iterator[None]:
    """The kernel plane alone, with as many leases."""
    gateway = lab["gateway"]
    options = [str(leases), str(way.tunnel), way.admit.name, *(["xdp"] if way.xdp else [])]
    words = ["env", f"PYTHONPATH={way.tree / 'src'}", sys.executable, str(HERE / "plane.py"), *options]
    daemon = gateway.start("plane", *words, ready="ready", seconds=120)
    try:
        yield
    finally:
        gateway.daemons.pop("plane").stop()
        if daemon.process.returncode not in (0, -15):
            raise LabError(f"the plane failed\n{daemon.tail()}")


@contextlib.contextmanager
def way_open(lab: Lab, way: Way, leases: int) -> Iterator[None]:
    """Set the gateway up for one of the ways, and clear it again."""
    if way.masquerade:
        with masquerading(lab):
            yield
    elif way.tunnel:
        with kernel_plane(lab, way, leases):
            yield
    else:
        yield


class Sinks:
    """What counts the packets, loaded."""

    def __init__(self, object_path: Path) -> None:
        self._loaded = libbpf.BpfObject(object_path)
        self._loaded.attach("transmits")
        self.counts = self._loaded.map("sunk")

    @contextlib.contextmanager
    def at_transmit(self, gateway: Node) -> Iterator[None]:
        """Count and drop where the driver of wan0 would begin to transmit; at XDP that driver refuses by itself."""
        attach_sink(gateway, self._loaded.program("sink"))
        try:
            yield
        finally:
            detach_sink(gateway)

    @contextlib.contextmanager
    def at_receive(self, node: Node, interface: str) -> Iterator[None]:
        """Count and drop the frames that an interface receives, before anything else."""
        with NetNS(node.namespace, flags=0) as links:
            index = links.link_lookup(ifname=interface)[0]
            links.link("set", index=index, xdp_fd=self._loaded.program("receives"))
            try:
                yield
            finally:
                links.link("set", index=index, xdp_fd=-1)


@contextlib.contextmanager
def generating(lab: Lab, flows: int, way: Way, leases: int, *, object_path: Path, seconds: float) -> Iterator[None]:
    """Send packets of so many flows (see ``KINDS``) until the body is through, and at most for so many seconds."""
    plan = {
        "object": str(object_path),
        "interface": "eth0",
        "mac": mac(lab["gateway"], "lan0"),
        "seconds": seconds,
        "tunnel": way.tunnel,
        "outer_dst": figure.GATEWAY_NEAR6 if way.tunnel == "ipv6" else figure.GATEWAY_NEAR,
        "flows": flows,
        "leases": leases,
    }
    path = lab.record.directory / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    sender = lab["host"].start("generator", sys.executable, str(HERE / "generator.py"), str(path), ready="ready")
    try:
        yield
        if sender.process.poll() not in (None, 0):
            raise LabError(f"the generator failed\n{sender.tail()}")
    finally:
        lab["host"].daemons.pop("generator").stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """What a way is measured in."""

    lab: Lab
    object_path: Path
    "Generator and sinks."
    thread: int
    "The gateway's, by process id."
    leases: int
    timing: Timing
    transmits: bool
    "Whether packets go over the wire to the server, and are dropped there."


def run(bed: Bed, kind: str, way: Way) -> Sample:
    """Send packets of a kind over a way that is open."""
    sinks, lab, timing = Sinks(bed.object_path), bed.lab, bed.timing
    sunk = sinks.at_receive(lab["server"], "eth0") if bed.transmits else sinks.at_transmit(lab["gateway"])
    where = AT_RECEIVE if bed.transmits else AT_XDP_TRANSMIT if way.xdp else AT_TRANSMIT
    with sunk, _sending(bed, kind, way):
        time.sleep(timing.warm)
        started, packets, spent = time.monotonic(), packets_sunk(sinks.counts, where), run_time(bed.thread)
        time.sleep(timing.measured)
        packets, spent = packets_sunk(sinks.counts, where) - packets, run_time(bed.thread) - spent
        passed = time.monotonic() - started
    if packets < 1000:
        raise LabError(f"{way.name}, {kind}: only {packets} packets came out of the gateway")
    return Sample(cost=spent / packets, rate=packets / passed, busy=spent / 1e9 / passed)


def offered(bed: Bed, kind: str, way: Way) -> float:
    """Packets a second that the generator brings to an interface that drops them at once."""
    sinks, timing = Sinks(bed.object_path), bed.timing
    with sinks.at_receive(bed.lab["gateway"], "lan0"), _sending(bed, kind, way):
        time.sleep(timing.warm)
        started, packets = time.monotonic(), packets_sunk(sinks.counts, AT_RECEIVE)
        time.sleep(timing.measured)
        return (packets_sunk(sinks.counts, AT_RECEIVE) - packets) / (time.monotonic() - started)


def _sending(bed: Bed, kind: str, way: Way) -> contextlib.AbstractContextManager[None]:
    seconds = bed.timing.warm + bed.timing.measured + 0.2
    return generating(bed.lab, KINDS[kind], way, bed.leases, object_path=bed.object_path, seconds=seconds)


def packets_sunk(map_fd: int, where: int = AT_TRANSMIT) -> int:
    """Packets that a sink has counted, on all cores."""
    cores = os.sysconf("SC_NPROCESSORS_CONF")
    return sum(struct.unpack(f"{cores}Q", libbpf.lookup(map_fd, where, 8 * cores)))


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


def measure(
    ways: Mapping[str, Sequence[Way]],
    leases: int,
    *,
    name: str,
    rounds: int,
    timing: Timing,
    seed: int = 1,
    transmits: bool = False,
) -> tuple[dict[tuple[str, str], list[Sample]], list[float]]:
    """Measure the ways in turn, in one network per round and number of flows, in another order each time.

    Args:
        ways: For each of ``KINDS``.
        leases: How many there are, and have flows.
        name: Of the network.
        rounds: How often.
        timing: Of each run.
        seed: Of the order.
        transmits: Whether packets go over the wire to the server, and are dropped there; else before it.

    Returns:
        The samples by kind and name of the way, and what the generator has offered in each round.
    """
    seen: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    most = []
    order = random.Random(seed)
    with large_conntrack():
        for at in range(rounds):
            for kind, these in ways.items():
                with standing(network(name)) as lab:
                    bed = Bed(
                        lab=lab,
                        object_path=compile_generator(lab.record.directory),
                        thread=prepare(lab),
                        leases=leases,
                        timing=timing,
                        transmits=transmits,
                    )
                    with contextlib.nullcontext() if transmits else unplugged(lab):
                        most.append(offered(bed, kind, next(way for way in these if way.tunnel)))
                        for way in order.sample(these, len(these)):
                            with way_open(lab, way, leases):
                                seen[kind, way.name].append(run(bed, kind, way))
                latest = ", ".join(f"{way.name} {seen[kind, way.name][-1].cost:.0f}" for way in these)
                progress(
                    f"packets round {at + 1} of {rounds}: {kind}: {latest} ns; offered {most[-1] / 1e6:.1f} million/s"
                )
    return seen, most
