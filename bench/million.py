# SPDX-License-Identifier: BSD-3-Clause
"""A gateway of a million leases: filled, measured, killed, started again, asked, and let run out; see METHOD."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import history
import report
import rsip_load
from footprint import footprint, processor_seconds
from isthmus.address import Address, Family
from isthmus.daemon.control import ControlClient, ControlError, call
from isthmus.errors import IsthmusError
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import Daemon, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import LabError
from isthmus.plane.kernel.loader import Map
from lease import filesystem
from networks import network
from played_host import PlayedHost
from probing import ProbedLease, Stream, forwarded
from report import Figure, progress, publish

LEASES, HISTORY = 1 << 20, 10_000_000
RESTART_SECONDS, OCTETS, WHO_HAD_MS, EXPIRY_SECONDS = 5.0, 1024, 10.0, 60.0
FIRST_HOST, FIRST_ADDRESS = "10.64.0.1", "149.112.1.0"
STEADY_HOSTS = 8
"""Hosts whose leases a stream of packets goes through; their addresses come after the others'."""
VISITORS = 1 << 16
"""Addresses after those: hosts that come and go, and new ones."""
SPARE_LEASES = 16_384
STREAM_RATE = 500.0
HOST_PORT = 5062
WINDOW = 512
VISITS = 100.0
OTHER_WORDS = STEADY_HOSTS + 2 + round(VISITS)
"""Slices that may be held when everything has run out: of the stream, of new hosts, and of who comes and goes."""
PATIENCE = 600.0
SLICE_CLAIMED = 1
STORE, KERNEL = "the store has none", "no word in the kernel"
METHOD = (
    "A gateway (isthmus up) with the kernel plane and a store of {rows:,} rows of history, hosts and server in"
    " network namespaces, joined by veth; the store is on {filesystem}, every commit is flushed. Fill: a load"
    " generator plays {leases:,} hosts with addresses of their own; each registers and leases {ports} ports, {window}"
    " at a time; through every thousandth lease a packet goes to an echo server and back as soon as it is answered,"
    " through {sample:,} more when all is filled. Memory: the gateway's processes (Pss) and all of the maps that they"
    " hold in the kernel, empty tables included, divided by the leases. Restart: SIGKILL, then isthmus up, timed from"
    " its exec; a stream of {rate:g} packets a second goes through {steady} leases to the echo server and back all the"
    " time. Full service: a new host has registered, leased and got a packet through and back; a host from before has"
    " extended its lease; who had a lease is answered rightly; and as many leases are told as there are. After a"
    " reboot: filters and pinned maps are removed, and what the system has of the store's file in memory. who-had: for"
    " a random port of a random address at a random time, by the control socket, one at a time, while {visits:g} hosts"
    " a second come and go. Expiry: while the gateway is away its store is given one deadline for all leases but those"
    " of the stream (they cannot be granted in one second); from that deadline until the store has none of them, no"
    " word of them is in the kernel, and every host has got its message; stream and visitors go on."
)


@dataclass(slots=True, kw_only=True)
class Bench:
    """What is measured, in a network that stands."""

    lab: Lab
    folder: Path
    leases: int
    rows: int
    figures: list[Figure] = field(default_factory=list)
    judged: bool = True
    steady: list[PlayedHost] = field(default_factory=list)
    through: list[ProbedLease] = field(default_factory=list)
    "The leases of the steady hosts."
    begun: float = 0.0
    "When history begins."
    guests: int = 0
    "How many addresses of visitors have been used."

    @property
    def state(self) -> Path:
        """The store."""
        return self.folder / "leases.db"

    @property
    def slices(self) -> int:
        """How many leases there may be."""
        return _addresses(self.leases) * history.PER_ADDRESS

    def tell(self, name: str, unit: str, ours: float, goal: float | None = None) -> None:
        """Note a figure; a goal is the most that it may be."""
        digits = 0 if unit in {"octets", "1/s", "packets", "leases", "hosts"} else 3 if unit in {"ms", "s"} else 2
        judged = goal if self.judged or goal == 0 else None
        met = None if judged is None else ours <= judged
        self.figures.append(Figure(name=name, unit=unit, ours=round(ours, digits), goal=judged, met=met))
        progress(f"million: {name}: {ours:,.3f} {unit}")

    def up(self, *, ready: bool = True) -> Daemon:
        """Start the gateway."""
        node, path = self.lab["gateway"], self.folder / "gateway.toml"
        path.write_text(configuration(self.lab, self.state, self.leases), encoding="utf-8")
        words = (sys.executable, "-m", "isthmus", "up", str(path))
        node.run_directory.mkdir(parents=True, exist_ok=True)
        return node.start("isthmus", *words, ready="ready" if ready else None, seconds=PATIENCE)

    def ask(self, **request: object) -> object:
        """Ask the gateway by its control socket."""
        return call(self.lab["gateway"].socket_path, request)

    def host_after(self, number: int) -> str:
        """The address of one after the million."""
        return _plus(FIRST_HOST, self.leases + number)

    def visitor(self, number: int = 1) -> str:
        """The first of so many addresses that nobody has used."""
        first, self.guests = self.guests, self.guests + number
        return self.host_after(STEADY_HOSTS + first % VISITORS)


def _plus(address: str, number: int) -> str:
    return str(Address(Family.IPV4, Address.parse(address).number + number))


def _addresses(leases: int) -> int:
    return math.ceil((leases + STEADY_HOSTS + min(SPARE_LEASES, leases)) / history.PER_ADDRESS)


def configuration(lab: Lab, state: Path, leases: int) -> str:
    """A gateway with room for so many leases and a few more."""
    pools = "\n".join(
        f'[[gateway.pool]]\naddress = "{_plus(FIRST_ADDRESS, at)}"\nports = "{history.FIRST_PORT}-65535"'
        for at in range(_addresses(leases))
    )
    more = f'slice_size = {history.PORTS}\nattract = "none"\n\n[gateway.lease]\ndefault = 86400\nregistration = 86400\n'
    return figure.gateway_configuration(lab, Setting(), pool=pools, state=str(state), more=more)


# --- fill ---------------------------------------------------------------------------------


def fill(bench: Bench, program: Path) -> int:
    """Let everybody lease; returns the process of the gateway."""
    daemon = bench.up()
    empty = footprint(daemon.pid)
    bench.steady = [PlayedHost(bench.lab, bench.host_after(at)) for at in range(STEADY_HOSTS)]
    for host in bench.steady:
        host.register()
        bench.through.append(host.assign(history.PORTS))
    log = bench.folder / "answered"
    # Each lease that is probed costs the echo server, which is in Python, and the machine has few cores.
    more = ("-w", str(WINDOW), "-P", str(HOST_PORT), "-p", "1000", "-s", figure.SERVER, "-L", str(log), "-R")
    with rsip_load.echoing(bench.lab):
        words = [str(program), *more, str(bench.leases), "-b", FIRST_HOST, "-t", "7200", "-i", "1", figure.GATEWAY_NEAR]
        told = json.loads(bench.lab["host"].run(*words, seconds=7200).stdout)
    answered = log.read_text(encoding="utf-8").splitlines()
    if told["refused"] or told["given_up"] or len(set(answered)) != bench.leases:
        raise LabError(f"{len(answered)} of {bench.leases} leases were answered: {told}")
    bench.tell("fill", "s", told["seconds"])
    bench.tell("fill, full cycles", "1/s", bench.leases / told["seconds"])
    bench.tell("fill, cycle p99", "ms", told["cycle"]["p99"])
    bench.tell("leases probed that did not forward at once", "leases", told["probed"] - told["probes_back"], 0)
    if (standing_now := _bindings(bench)) != bench.leases + STEADY_HOSTS:
        raise LabError(f"{standing_now} leases stand")
    _sample(bench, answered)
    _memory(bench, daemon, empty.all)
    return daemon.pid


def _sample(bench: Bench, answered: Sequence[str]) -> None:
    chosen = random.Random(7).sample(answered, min(1000, bench.leases))
    sample = [ProbedLease(host, address, int(port)) for host, address, port, *_ in map(str.split, chosen)]
    through = forwarded(bench.lab, sample)
    bench.tell("leases of a sample that did not forward", "leases", len(sample) - through, 0)


def _memory(bench: Bench, daemon: Daemon, empty: int) -> None:
    found = footprint(daemon.pid)
    bench.tell("memory a lease", "octets", found.all / bench.leases, OCTETS)
    bench.tell("memory a lease, processes", "octets", found.processes / bench.leases)
    bench.tell("memory a lease, maps", "octets", found.maps / bench.leases)
    bench.tell("memory, beyond that of the empty gateway, a lease", "octets", (found.all - empty) / bench.leases)
    size = sum(each.stat().st_size for each in bench.folder.glob("leases.db*"))
    bench.tell("disk, history included", "MB", size / 1e6)


def _bindings(bench: Bench) -> int:
    status = bench.ask(do="status")
    assert isinstance(status, dict)
    return int(status["bindings"])


# --- restart ------------------------------------------------------------------------------


def restart(bench: Bench, name: str, *, reboot: bool) -> None:
    """Kill the gateway and start it again while packets flow."""
    lab = bench.lab
    bindings = _bindings(bench)
    with Stream(lab, bench.through, STREAM_RATE) as stream:
        time.sleep(1.0)
        killed = time.monotonic()
        lab["gateway"].daemons["isthmus"].kill()
        if reboot:
            _forget_everything(bench)
        started = time.monotonic()
        daemon = bench.up(ready=False)
        new, served = _served(bench, daemon, bindings)
        answered, worked = time.monotonic(), processor_seconds(daemon.pid)
        time.sleep(1.0)
    first = stream.first(started)
    if reboot:
        bench.tell(f"{name}, first forwarded packet", "s", first - started, RESTART_SECONDS)
        bench.tell(f"{name}, packets lost once it forwarded", "packets", stream.lost(after=first), 0)
    else:
        bench.tell(f"{name}, packets lost", "packets", stream.lost(), 0)
        bench.tell(f"{name}, longest time without a packet", "ms", 1e3 * stream.longest_gap(killed))
    for what, when in served.items():
        bench.tell(f"{name}, {what}", "s", when - started)
    bench.tell(f"{name}, full service", "s", answered - started, RESTART_SECONDS)
    bench.tell(f"{name}, processor time of the gateway until then", "s", worked)
    bench.tell(f"{name}, packets gone astray", "packets", stream.astray, 0)
    new.close()


def _served(bench: Bench, daemon: Daemon, bindings: int) -> tuple[PlayedHost, dict[str, float]]:
    """Wait for everything that a gateway does; returns a new host, and when each thing was done."""
    done: dict[str, float] = {}

    def note(what: str) -> None:
        done[what] = time.monotonic()

    new = PlayedHost(bench.lab, bench.visitor())
    try:
        new.register(PATIENCE)
        note("a new host is registered")
        lease = new.assign(history.PORTS, PATIENCE)
        if forwarded(bench.lab, [lease]) != 1:
            raise LabError("the lease of a new host does not forward")
        note("a new host has a lease that forwards")
        bench.steady[0].extend(PATIENCE)
        note("a lease from before is extended")
        held = bench.through[-1]
        if not wait_until(lambda: _had(bench, held) == held.host, PATIENCE, every=0.02):
            raise LabError("who had a lease is answered wrongly")
        if (counted := _bindings(bench)) != bindings + 1:
            raise LabError(f"{counted} leases stand, and not {bindings + 1}")
        note("who-had and status answer")
    except LabError as error:
        raise LabError(f"{error}\n{daemon.tail()}") from error
    return new, done


def _had(bench: Bench, lease: ProbedLease) -> str | None:
    try:
        rows = bench.ask(do="who-had", address=lease.address, port=lease.port, at=time.time())
    except ControlError:
        return None
    assert isinstance(rows, list)
    return str(rows[0]["host"]) if len(rows) == 1 else None


def _forget_everything(bench: Bench) -> None:
    """What a reboot does: nothing is attached, pinned or in the system's memory."""
    gateway = bench.lab["gateway"]
    for interface in ("lan0", "wan0"):
        gateway.run("tc", "qdisc", "delete", "dev", interface, "clsact")
    pins = gateway.run_directory / "bpf"
    for mount in sorted(_mounts_below(pins), reverse=True):
        subprocess.run(["umount", str(mount)], check=True)
    shutil.rmtree(gateway.run_directory)
    history.forget_pages(bench.state)


def _mounts_below(path: Path) -> list[Path]:
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return [each for each in points if each == path or path in each.parents]


# --- who-had ------------------------------------------------------------------------------


@contextlib.contextmanager
def visited(bench: Bench, program: Path) -> Iterator[list[dict[str, object]]]:
    """Let hosts come and go: each registers, leases, frees, and deregisters. Yields where it will be told how."""
    number, told = VISITORS // 4, list[dict[str, object]]()
    words = [str(program), "-r", str(VISITS), "-R", str(number), "-b", bench.visitor(number), "-f", "-t", "3600"]
    words = bench.lab["host"].command(*words, figure.GATEWAY_NEAR)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield told
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
        told += [json.loads(line) for line in output.splitlines()]


def ask_who_had(bench: Bench, program: Path, times: int) -> None:
    """Ask again and again."""
    chance = random.Random(11)
    slices = min(bench.slices, bench.rows)
    days = math.ceil(bench.rows / slices)
    client = ControlClient(bench.lab["gateway"].socket_path)
    took = []
    answered = 0
    with visited(bench, program):
        time.sleep(0.5)
        for _ in range(times):
            number = chance.randrange(bench.rows // days)
            port = history.FIRST_PORT + number % history.PER_ADDRESS * history.PORTS + chance.randrange(history.PORTS)
            address = _plus(FIRST_ADDRESS, number // history.PER_ADDRESS)
            at = bench.begun + (number / slices + days * chance.random()) * history.DAY
            began = time.perf_counter()
            rows = client.request({"do": "who-had", "address": address, "port": port, "at": at})
            took.append(time.perf_counter() - began)
            answered += len(rows) == 1
    client.close()
    if not 0.8 < answered / times < 0.95:  # Each was held nine tenths of the time.
        raise LabError(f"only {answered} of {times} questions had an answer")
    took.sort()
    bench.tell(f"who-had over {bench.rows:,} rows, p50", "ms", 1e3 * statistics.median(took))
    bench.tell(f"who-had over {bench.rows:,} rows, p99", "ms", 1e3 * took[len(took) * 99 // 100], WHO_HAD_MS)


# --- expiry -------------------------------------------------------------------------------


def expire(bench: Bench, program: Path, told_program: Path) -> None:
    """Let all leases run out together."""
    lab = bench.lab
    lab["gateway"].daemons["isthmus"].kill()
    # The gateway is to be back before that.
    deadline = time.time() + 3.0 + bench.leases / 20_000
    steady = tuple(host.address for host in bench.steady)
    history.end_together(bench.state, deadline, hosts=(FIRST_HOST, bench.leases), but=steady)
    words = (str(told_program), str(HOST_PORT), FIRST_HOST, str(bench.leases), str(deadline - time.time() + PATIENCE))
    listener = subprocess.Popen(lab["host"].command(*words), stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        daemon = bench.up()
        began, worked = max(deadline, time.time()), processor_seconds(daemon.pid)
        progress(f"million: all leases run out in {deadline - time.time():.1f} s")
        with Stream(lab, bench.through, STREAM_RATE) as stream, visited(bench, program) as visits:
            ends = _ends(bench, deadline)
            with contextlib.suppress(subprocess.TimeoutExpired):
                listener.wait(10)
            worked = processor_seconds(daemon.pid) - worked
    finally:
        listener.terminate()
        told = json.loads(listener.communicate(timeout=30)[0] or "{}")
    ends["the last host told"] = told["last"]
    for what, when in ends.items():
        bench.tell(f"expiry, {what}", "s", max(when - began, 0.001))
    bench.tell("expiry of all", "s", max(*ends.values(), began + 0.001) - began, EXPIRY_SECONDS)
    watch = history.Watch(bench.state)
    bench.tell("expiry, processor time of the gateway", "s", worked)
    bench.tell("expiry, hosts not told", "hosts", bench.leases - told["told"], 0)
    bench.tell("expiry, tenures without an end in history", "leases", bench.leases - watch.expired(deadline), 0)
    watch.close()
    bench.tell("expiry, packets of other leases lost", "packets", stream.lost(), 0)
    bench.tell("expiry, packets gone astray", "packets", stream.astray, 0)
    for each in visits:
        cycle = each["cycle"]
        assert isinstance(cycle, dict)
        bench.tell("expiry, cycle of others p99 meanwhile", "ms", cycle["p99"])


def _ends(bench: Bench, deadline: float) -> dict[str, float]:
    """When store and kernel have nothing more of it, in seconds since 1970."""
    watch = history.Watch(bench.state)
    pins = bench.lab["gateway"].run_directory / "bpf" / "gateway"
    words = Map.pinned(pins / "slices")
    found: dict[str, float] = {}
    try:
        until = deadline + PATIENCE
        while len(found) < 2:
            if time.time() > until:
                raise LabError(f"after {PATIENCE:g} seconds not all leases have ended: {bench.lab.logs()}")
            time.sleep(0.05)
            if STORE not in found and not watch.left(deadline):
                found[STORE] = time.time()
            if STORE in found and _words(words) <= OTHER_WORDS:
                found[KERNEL] = time.time()
    finally:
        watch.close()
        words.close()
    return found


def _words(slices: Map) -> int:
    import numpy as np

    with slices.mapped() as memory:
        words = np.frombuffer(memory, np.uint64)
        # A word whose slice nobody holds says only whose it may be (bpf/include/isthmus/abi.h).
        number = int(np.count_nonzero(words > SLICE_CLAIMED))
        del words
    return number


# --- all of it ----------------------------------------------------------------------------


def measure(folder: Path, leases: int, rows: int, *, judged: bool) -> list[Figure]:
    """Measure everything."""
    program, told = rsip_load.compile_load(folder), rsip_load.compile_load(folder, "told")
    with standing(network("bench-million")) as lab:
        rsip_load.prepare(lab)
        bench = Bench(lab=lab, folder=folder, leases=leases, rows=rows, judged=judged)
        slices = min(bench.slices, rows)
        bench.begun = history.write(bench.state, address=FIRST_ADDRESS, host=FIRST_HOST, slices=slices, rows=rows)
        progress(f"million: {rows:,} rows of history are there")
        try:
            fill(bench, program)
            restart(bench, "restart", reboot=False)
            restart(bench, "restart after a reboot", reboot=True)
            ask_who_had(bench, program, 3000 if judged else 300)
            expire(bench, program, told)
        finally:
            for host in bench.steady:
                host.close()
        return bench.figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="2,000 leases: shows that it works, proves nothing")
    parser.add_argument("--leases", type=int, default=LEASES, help="how many; history is as much longer as ever")
    options = parser.parse_args()
    report.ask_for_root("million", "it makes namespaces")
    leases, rows = (2000, 10_000) if options.quick else (options.leases, HISTORY * options.leases // LEASES)
    try:
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="isthmus-bench-") as folder:
            figures = measure(Path(folder), leases, rows, judged=not options.quick)
    except (IsthmusError, subprocess.SubprocessError) as error:
        print(f"bench million: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(
        rows=rows,
        filesystem=filesystem("/var/tmp"),
        leases=leases,
        ports=history.PORTS,
        window=WINDOW,
        sample=min(1000, leases),
        rate=STREAM_RATE,
        steady=STEADY_HOSTS,
        visits=VISITS,
    )
    return publish("million", figures, method, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
