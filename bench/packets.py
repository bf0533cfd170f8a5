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
from itertools import pairwise
from pathlib import Path

from pyroute2 import NetNS

import apart
import generator
import libbpf
import outputs
import priority
from isthmus.border.selector import Admit
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import Daemon, Node, wait_until
from isthmus.lab.topology import LabError
from networks import FAR_MANY, FORWARD, NAT, masquerading, network
from report import progress
from sample import Reading, Sample, Window, sampled

HERE = Path(__file__).parent
GATEWAY_CPU = 1
CORES = (generator.CPU, GATEWAY_CPU)
KINDS = {"64 flows": 64, "100,000 flows": 100_000, "a new flow in every packet": 0}
"""How many flows there are; 0: each packet is one."""
AT_TRANSMIT, AT_XDP_TRANSMIT, AT_RECEIVE = range(3)
"""Where the sinks of ``bpf/generator.bpf.c`` count."""
LEAST = 100
"""Packets: where fewer came out the way does not work."""
_EGRESS = 0xFFFFFFF3
_WINDOWS = 4
"""Of a run."""
_FILLING = 0.02
"""Seconds until rings are full again after both cores were looked at, and the TAP device."""
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
    os.setpriority(os.PRIO_PROCESS, thread, priority.FIRST)
    return thread


@contextlib.contextmanager
def unplugged(lab: Lab) -> Iterator[int]:
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
        yield device
    finally:
        os.close(device)


def _open_tap() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
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
    # It works a few milliseconds in a second, and says what the programs may trust.
    os.sched_setaffinity(daemon.pid, {generator.CPU})
    priority.go_first(daemon.pid)
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
    """What counts the packets, loaded until it is closed."""

    def __init__(self, object_path: Path) -> None:
        self._loaded = libbpf.BpfObject(object_path)
        self.counts = self._loaded.map("sunk")
        self.close = self._loaded.close

    @contextlib.contextmanager
    def at_transmit(self, gateway: Node, *, xdp: bool = False) -> Iterator[None]:
        """Count and drop where the driver of wan0 would begin to transmit; at XDP that driver refuses by itself.

        What counts there sees all that any XDP program redirects: were it left, all later packets would pay for it.
        """
        with self._loaded.attached("transmits") if xdp else contextlib.nullcontext():
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
def generating(lab: Lab, flows: int, way: Way, leases: int, *, object_path: Path, seconds: float) -> Iterator[Daemon]:
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
        yield sender
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
    tap: int | None
    "In the place of wan0; None: packets go over the wire to the server, and are dropped there."
    patience: apart.Patience

    probe: Path
    "``load/apart.c``, compiled."

    def apart(self) -> int:
        """How far the two cores are from each other, in nanoseconds there and back."""
        return apart.far(self.probe, CORES)

    def near(self) -> int:
        """Wait until they are near each other, while there is patience; returns how far they are."""
        return self.patience.wait(self.probe, CORES)


def run(bed: Bed, kind: str, way: Way) -> Sample:
    """Send packets of a kind over a way that is open, and look at those that come out."""
    lab, where = bed.lab, AT_RECEIVE if bed.tap is None else AT_XDP_TRANSMIT if way.xdp else AT_TRANSMIT
    if bed.tap is not None:
        outputs.drain(bed.tap)
    with contextlib.closing(Sinks(bed.object_path)) as sinks, _sending(bed, kind, way) as sender:
        transmitted, received = sinks.at_transmit(lab["gateway"], xdp=way.xdp), sinks.at_receive(lab["server"], "eth0")
        with received if bed.tap is None else transmitted:
            windows = _watch(bed, sender, sinks, where)
        time.sleep(_FILLING)
    if (packets := sum(each.grown.sunk for each in windows)) < LEAST:
        raise LabError(f"{way.name}, {kind}: only {packets} packets came out of the gateway")
    if bed.tap is not None:
        expected = outputs.Expected(flows=KINDS[kind], leases=bed.leases, masquerade=way.masquerade, tunnel=way.tunnel)
        expected.check(outputs.drain(bed.tap), f"{way.name}, {kind}")
    return sampled(windows)


def _watch(bed: Bed, sender: Daemon, sinks: Sinks, where: int) -> list[Window]:
    """What the counters grow by in each part of the time that is measured.

    Between the parts both cores are looked at: it is when they begin to work that they are moved.
    """
    setups, seconds = libbpf.map_of(sender.pid, generator.SETUP.size), bed.timing.measured / _WINDOWS

    def reading() -> Reading:
        sunk = packets_sunk(sinks.counts, where)
        return Reading(time.monotonic_ns(), made(setups), sunk, *schedule(bed.thread), naps(bed.thread))

    try:
        with priority.at_once():
            time.sleep(bed.timing.warm)
            distances, grown = [bed.apart()], []
            for _ in range(_WINDOWS):
                time.sleep(_FILLING)
                before = reading()
                time.sleep(seconds)
                grown.append(reading() - before)
                distances.append(bed.apart())
    finally:
        os.close(setups)
    return [Window(grown=each, apart=max(ends)) for each, ends in zip(grown, pairwise(distances), strict=True)]


def offered(bed: Bed, kind: str, way: Way) -> float:
    """Packets a second that the generator brings to an interface that drops them at once."""
    with (
        contextlib.closing(Sinks(bed.object_path)) as sinks,
        sinks.at_receive(bed.lab["gateway"], "lan0"),
        _sending(bed, kind, way) as sender,
    ):
        return sampled(_watch(bed, sender, sinks, AT_RECEIVE)).rate


def _sending(bed: Bed, kind: str, way: Way) -> contextlib.AbstractContextManager[Daemon]:
    seconds = bed.timing.warm + bed.timing.measured + 10
    return generating(bed.lab, KINDS[kind], way, bed.leases, object_path=bed.object_path, seconds=seconds)


def made(setups: int) -> int:
    """Packets that a generator has made, of its map."""
    return int(generator.SETUP.unpack(libbpf.lookup(setups, 0, generator.SETUP.size))[0])


def packets_sunk(map_fd: int, where: int = AT_TRANSMIT) -> int:
    """Packets that a sink has counted, on all cores."""
    cores = os.sysconf("SC_NPROCESSORS_CONF")
    return sum(struct.unpack(f"{cores}Q", libbpf.lookup(map_fd, where, 8 * cores)))


def run_time(thread: int) -> int:
    """Nanoseconds that a thread has run."""
    return schedule(thread)[0]


def schedule(thread: int) -> tuple[int, int]:
    """Nanoseconds that a thread has run, and that it was ready to but others ran."""
    run, held_up, _ = Path(f"/proc/{thread}/schedstat").read_text(encoding="utf-8").split()
    return int(run), int(held_up)


def naps(thread: int) -> int:
    """How often a thread has waited for something to do."""
    status = Path(f"/proc/{thread}/status").read_text(encoding="utf-8")
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


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
    patience: float = 0,
) -> tuple[dict[tuple[str, str], list[Sample]], list[float]]:
    """Measure the ways in turn, in a new network and another order in each round.

    Args:
        ways: For each of ``KINDS``.
        leases: How many there are, and have flows.
        name: Of the network.
        rounds: How often.
        timing: Of each run.
        seed: Of the order.
        transmits: Whether packets go over the wire to the server, and are dropped there; else before it.
        patience: For how many seconds, in all, it waits until the two cores are near each other.

    Returns:
        The samples by kind and name of the way, and what the generator has offered in each round.
    """
    seen: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    most = []
    order = random.Random(seed)
    every = list(dict.fromkeys(way for these in ways.values() for way in these))
    waiting = apart.Patience(patience)
    with large_conntrack():
        for at in range(rounds):
            with standing(network(name)) as lab, contextlib.ExitStack() as stack:
                thread = prepare(lab)
                bed = Bed(
                    lab=lab,
                    object_path=compile_generator(lab.record.directory),
                    thread=thread,
                    leases=leases,
                    timing=timing,
                    tap=None if transmits else stack.enter_context(unplugged(lab)),
                    patience=waiting,
                    probe=apart.compile_load(lab.record.directory),
                )
                bed.near()
                kind = next(reversed(ways))
                most.append(offered(bed, kind, next(way for way in every if way.tunnel)))
                for way in order.sample(every, len(every)):
                    _one_way(bed, [kind for kind, these in ways.items() if way in these], way, seen)
            for kind, these in ways.items():
                latest = ", ".join(f"{way.name} {seen[kind, way.name][-1].cost:.0f}" for way in these)
                progress(f"packets round {at + 1} of {rounds}: {kind}: {latest} ns")
            progress(f"packets round {at + 1} of {rounds}: offered {most[-1] / 1e6:.1f} million/s")
    return seen, most


def _one_way(bed: Bed, kinds: Sequence[str], way: Way, seen: dict[tuple[str, str], list[Sample]]) -> None:
    """Measure packets of all kinds, one after the other."""
    with way_open(bed.lab, way, bed.leases):
        for kind in kinds:
            seen[kind, way.name].append(_near(bed, kind, way))


def _near(bed: Bed, kind: str, way: Way) -> Sample:
    """Run, and again if the cores were never near each other."""
    while True:
        bed.near()
        began, found = time.monotonic(), run(bed, kind, way)
        if way.masquerade:
            bed.lab["gateway"].run("conntrack", "-F")
        if found.apart <= apart.NEAR or bed.patience.seconds <= 0:
            return found
        bed.patience.seconds -= time.monotonic() - began
