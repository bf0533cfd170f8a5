# SPDX-License-Identifier: BSD-3-Clause
"""Durable leases a second: ``python bench/lease.py [--json] [--quick]``."""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.errors import IsthmusError
from isthmus.lab import figure
from isthmus.lab.lab import Lab, standing
from isthmus.lab.topology import LabError
from isthmus.wire.rsip.message import (
    AssignRequestRsapIp,
    AssignResponseRsapIp,
    Message,
    RegisterRequest,
    RegisterResponse,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import ClientId, MessageCounter, Ports, RsipAddress
from networks import network
from report import Figure, progress, publish

PORTS_OF_A_LEASE = 16
ADDRESSES = 64
HOSTS = 256
"""So many that none of them comes near the limit that a gateway sets to one host's requests."""
RETRANSMIT_SECONDS = 1.0
GATEWAY = (figure.GATEWAY_NEAR, figure.CONTROL_PORT)
METHOD = (
    "A real 'isthmus up' with SQLite on disk ({filesystem}) and the {plane} plane, in a namespace; {hosts} simulated"
    " hosts, each with an address and a UDP socket of its own, register, and then ask in turn for {ports} ports of any"
    " address, so many of them at once, the next one when one has its answer, for {seconds:g} s. An answer is sent when"
    " lease and history are on the disk and packets flow. Client and gateway share the machine."
)


@dataclass(slots=True)
class Host:
    """One simulated host, with at most one request under way."""

    socket: socket.socket
    client_id: int = 0
    counter: int = 0
    sent_at: float = 0.0
    request: bytes = b""
    latencies: list[float] = field(default_factory=list)

    def send(self, request: Message) -> None:
        """Send a request; its counter must be ``next_counter``'s."""
        self.request = emit(request)
        self.sent_at = time.perf_counter()
        self.socket.send(self.request)

    def next_counter(self) -> MessageCounter:
        """The counter of the next request."""
        self.counter += 1
        return MessageCounter(self.counter)

    def register(self) -> None:
        """Ask to be a client."""
        self.send(RegisterRequest(message_counter=self.next_counter()))

    def assign(self) -> None:
        """Ask for ports."""
        self.send(
            AssignRequestRsapIp(
                client_id=ClientId(self.client_id),
                local_address=RsipAddress.any(),
                local_ports=Ports.any_of(PORTS_OF_A_LEASE),
                remote_address=RsipAddress.any(),
                remote_ports=Ports.any_of(),
                message_counter=self.next_counter(),
            )
        )


def configuration(lab: Lab, state: Path) -> str:
    """A gateway with room for every lease of a run."""
    pools = "\n".join(
        f'[[gateway.pool]]\naddress = "149.112.{241 + at // 250}.{1 + at % 250}"\nports = "1024-65535"'
        for at in range(ADDRESSES)
    )
    return f"""\
[isthmus]
name = "gateway"
run = "{lab["gateway"].run_directory}"
state = "{state}"

[[realm]]
name = "private"
interface = "lan0"

[[realm]]
name = "public"
interface = "wan0"

[gateway]
near = "private"
realm = "public"
address = "{figure.GATEWAY_NEAR}"
slice_size = {PORTS_OF_A_LEASE}

[gateway.quota]
bindings = 1000000
ports = 16000000

{pools}
"""


def simulate(hosts: list[Host], at_once: int, seconds: float) -> tuple[int, float]:
    """Let hosts ask, so many of them at once, for so long; returns how many leases they got, and in what time."""
    selector = selectors.DefaultSelector()
    for host in hosts:
        selector.register(host.socket, selectors.EVENT_READ, host)
        host.register()
    registered = 0
    deadline = time.perf_counter() + 30
    while registered < len(hosts):
        registered += len(_answers(selector, hosts, RegisterResponse, deadline))
    idle = deque(hosts[at_once:])
    began = time.perf_counter()
    granted = 0
    for host in hosts[:at_once]:
        host.assign()
    while time.perf_counter() < began + seconds:
        for host in _answers(selector, hosts, AssignResponseRsapIp, began + seconds + 30):
            granted += 1
            idle.append(host)
            idle.popleft().assign()
    elapsed = time.perf_counter() - began
    selector.close()
    return granted, elapsed


def _answers(selector: selectors.BaseSelector, hosts: list[Host], wanted: type[Message], deadline: float) -> list[Host]:
    """Take what answers there are; returns whose they are."""
    answered = []
    for key, _ in selector.select(timeout=0.1):
        host: Host = key.data
        message = parse(host.socket.recv(2048), strict=False)
        now = time.perf_counter()
        if message.message_counter is None or message.message_counter.value != host.counter or not host.request:
            continue
        if not isinstance(message, wanted):
            raise LabError(f"the gateway answered {message}")
        if isinstance(message, RegisterResponse):
            host.client_id = message.client_id.value
        else:
            host.latencies.append(now - host.sent_at)
        host.request = b""
        answered.append(host)
    now = time.perf_counter()
    if now > deadline:
        raise LabError("the gateway does not answer")
    if not answered:
        for host in hosts:
            if host.request and now - host.sent_at > RETRANSMIT_SECONDS:
                host.socket.send(host.request)
    return answered


def open_hosts(lab: Lab, number: int) -> list[Host]:
    """Open a socket for each host, with an address of its own."""

    def make() -> list[Host]:
        hosts = []
        for at in range(number):
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.bind((f"10.1.{at >> 7}.{1 + (at & 0x7F)}", 0))
            opened.connect(GATEWAY)
            hosts.append(Host(opened))
        return hosts

    return lab["host"].inside(make)


def measure(at_once: int, seconds: float) -> tuple[list[Figure], str]:
    """Measure with so many requests under way, against a gateway of its own; also says which plane it had."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="isthmus-bench-") as folder:
        with standing(network("bench-lease")) as lab:
            lab["host"].run("ip", "route", "add", "local", "10.1.0.0/16", "dev", "lo")
            lab["gateway"].up(configuration(lab, Path(folder, "leases.db")))
            hosts = open_hosts(lab, HOSTS)
            granted, elapsed = simulate(hosts, at_once, seconds)
            for host in hosts:
                host.socket.close()
            held = len(lab["gateway"].isthmus("leases", seconds=60))
            plane = lab["gateway"].plane
        if held < granted:
            raise LabError(f"{granted} leases were answered, {held} are held")
    latencies = sorted(each * 1000 for host in hosts for each in host.latencies)
    if len(latencies) < 100:
        raise LabError(f"only {len(latencies)} leases in {elapsed:.1f} s")
    cuts = statistics.quantiles(latencies, n=100)
    crowd = f"{at_once} at once"
    progress(f"lease: {crowd}: {granted / elapsed:.0f} a second, p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")
    return [
        Figure(name=f"durable ASSIGNs, {crowd}", unit="1/s", ours=round(granted / elapsed, 1)),
        Figure(name=f"ASSIGN p50, {crowd}", unit="ms", ours=round(cuts[49], 3)),
        Figure(name=f"ASSIGN p99, {crowd}", unit="ms", ours=round(cuts[98], 3)),
    ], plane


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, proves nothing")
    options = parser.parse_args()
    if os.geteuid():
        print("bench lease needs root: it makes namespaces", file=sys.stderr)
        return 2
    seconds = 1.0 if options.quick else 5.0
    figures: list[Figure] = []
    plane = ""
    try:
        for at_once in (1, 16) if options.quick else (1, 16, 128):
            more, plane = measure(at_once, seconds)
            figures += more
    except IsthmusError as error:
        print(f"bench lease: {error}", file=sys.stderr)
        return 2
    method = METHOD.format(
        filesystem=filesystem("/var/tmp"), plane=plane, hosts=HOSTS, ports=PORTS_OF_A_LEASE, seconds=seconds
    )
    return publish("lease", figures, method, as_json=options.json)


def filesystem(path: str) -> str:
    """The type of the file system that a path is on."""
    best = ("/", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split()
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


if __name__ == "__main__":
    raise SystemExit(main())
