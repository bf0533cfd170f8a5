# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane on wires: namespaces, real IP stacks, large segments, restarts.

::

    app a ──device──┐
    192.0.2.55      host ──────near────── gateway ──────public────── server
    app b ──device──┘   10.0.0.4   10.0.0.1          192.0.2.1/.55   192.0.2.80
    192.0.2.56           fd00::4   fd00::1

The daemons are ``one_end``: each makes or takes over its plane, and goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from isthmus.address import Family
from isthmus.border.crossing import TunnelKind
from isthmus.border.realm import End
from isthmus.border.verdict import Reason
from plane import one_end
from plane.one_end import GATEWAY, GATEWAY6, HOST, HOST6, MTU, PLAIN, PORTS, SHARED, WHOLE, Way

SRC = Path(__file__).parents[2] / "src"
OBJECT = SRC / "isthmus/plane/kernel/objects/border_tc.bpf.o"
MEGABYTES = 8
DRAWN = (10016, 10063)
"""Ports that app a's programs get of the system: leased ones, and none that a test names (and has a filter drop, say)."""
NODES = "abhgs"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="needs nsenter (util-linux)"),
    pytest.mark.skipif(not OBJECT.exists(), reason="needs the objects: make -C bpf"),
]


# --- the wires ------------------------------------------------------------------------------


@dataclass
class Lab:
    """Five namespaces and where the two planes pin."""

    name: str
    pins: Path
    way: Way = PLAIN

    def inside(self, node: str, *words: str, **more: object) -> subprocess.Popen[str]:
        command = ["nsenter", f"--net=/run/netns/{self.name}{node}", *words]
        environment = {**os.environ, "PYTHONPATH": f"{SRC}:{Path(__file__).parents[1]}"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=environment, **{**pipes, **more})

    def run(self, node: str, *words: str) -> str:
        with ended(self.inside(node, *words)) as process:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, f"{words}: {err}"
            return out

    def python(self, node: str, script: str, *words: str) -> subprocess.Popen[str]:
        return self.inside(node, sys.executable, "-c", script, *words)

    def daemon(self, end: End, *, seconds: float = 600, what: str = "serve") -> dict[str, object]:
        """Run the daemon of one end; when this returns, its process has ended."""
        node = "g" if end is End.GATEWAY else "h"
        words = (sys.executable, one_end.__file__, end.name, str(self.pins / node), self.way.name, str(seconds), what)
        return json.loads(self.run(node, *words))

    def count(self, end: End, reason: Reason) -> int:
        counters = self.daemon(end, what="look")["counters"]
        assert isinstance(counters, dict)
        return counters.get(reason.name, 0)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone afterwards, whatever happens."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def setup(name: str) -> str:
    """In the words of ``ip``; were both ends of a pair of one index, the kernel would take a second to see a carrier."""
    a, b, h, g, s = (f"{name}{node}" for node in NODES)
    mac = "02:00:5e:00:00:01"
    return f"""
link add ap0 index 10 netns {a} address {mac} mtu {MTU} type veth peer name ap0p index 11 netns {h} address {mac} mtu {MTU}
link add bp0 index 12 netns {b} address {mac} mtu {MTU} type veth peer name bp0p index 13 netns {h} address {mac} mtu {MTU}
link add hn0 index 14 netns {h} type veth peer name gn0 index 15 netns {g}
link add gp0 index 16 netns {g} type veth peer name sp0 index 17 netns {s}
-n {a} link set ap0 up arp off
-n {a} addr add {SHARED}/32 dev ap0
-n {a} route add default dev ap0
-n {h} link set ap0p up arp off
-n {b} link set bp0 up arp off
-n {b} addr add {WHOLE}/32 dev bp0
-n {b} route add default dev bp0
-n {h} link set bp0p up arp off
-n {h} addr add {HOST}/24 dev hn0
-n {h} link set hn0 up
-n {h} addr add {HOST6}/64 dev hn0 nodad
-n {g} addr add {GATEWAY}/24 dev gn0
-n {g} link set gn0 up
-n {g} addr add {GATEWAY6}/64 dev gn0 nodad
-n {g} addr add 192.0.2.1/24 dev gp0
-n {g} addr add {SHARED}/32 dev gp0
-n {g} addr add {WHOLE}/32 dev gp0
-n {g} link add pt0 type veth peer name pt0p
-n {g} link set pt0 up arp off
-n {g} link set pt0p up arp off
-n {g} link set gp0 up
-n {s} addr add 192.0.2.80/24 dev sp0
-n {s} link set sp0 up
"""


WAYS = [Way(kind, family) for family in (Family.IPV4, Family.IPV6) for kind in TunnelKind]
every_way = pytest.mark.parametrize("lab", WAYS, indirect=True, ids=lambda way: way.name)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    name = f"ist{secrets.token_hex(3)}"
    pins = Path("/run") / f"{name}-pins"
    made = Lab(name, pins, getattr(request, "param", PLAIN))
    try:
        for node in NODES:
            subprocess.run(["ip", "netns", "add", name + node], check=True, timeout=20)
        for line in setup(name).strip().splitlines():
            subprocess.run(["ip", *line.split()], check=True, timeout=20)
        made.run("a", "sysctl", "-qw", "net.ipv4.ip_local_port_range={} {}".format(*DRAWN))
        made.run("g", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield made
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "del", name + node], check=False, timeout=20)
        for node in "hg":
            subprocess.run(["umount", str(pins / node)], check=False, capture_output=True, timeout=20)
        shutil.rmtree(pins, ignore_errors=True)


@pytest.fixture
def joined(lab: Lab) -> Lab:
    """Both ends serve, and both daemons have gone."""
    for end in End:
        assert lab.daemon(end)["adopted"] is False
    return lab


RECEIVE = """
import hashlib, socket, sys
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
listener.settimeout(20)
connection, peer = listener.accept()
connection.settimeout(20)
digest, octets = hashlib.sha256(), 0
while data := connection.recv(1 << 20):
    digest.update(data); octets += len(data)
print(peer[0], peer[1], octets, digest.hexdigest(), flush=True)
"""
SEND = """
import hashlib, random, socket, sys
data = random.Random(1).randbytes(int(sys.argv[3]) << 20)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as connection:
    connection.sendall(data)
print(len(data), hashlib.sha256(data).hexdigest())
"""
ECHO = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, peer = end.recvfrom(2048)
    end.sendto(data, peer)
"""
ASK = """
import socket, sys, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.settimeout(float(sys.argv[4]))
answered = asked = 0
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until or not asked:
    asked += 1
    end.sendto(b"x" * (asked % 1400 + 4), (sys.argv[1], int(sys.argv[2])))
    try:
        answered += end.recv(2048) != b""
    except TimeoutError:
        pass
    time.sleep(0.002)
print(asked, answered)
"""


def ask(
    lab: Lab, node: str, address: object, port: int, *, seconds: float = 0.0, patience: float = 1.0
) -> tuple[int, int]:
    asked, answered = lab.run(
        node, sys.executable, "-c", ASK, str(address), str(port), str(seconds), str(patience)
    ).split()
    return int(asked), int(answered)


def transfer(lab: Lab, sender: str, receiver: str, address: object, port: int) -> tuple[str, int]:
    """Send some megabytes; returns who the receiver saw."""
    with ended(lab.python(receiver, RECEIVE, str(port))) as receiving:
        assert receiving.stdout is not None
        assert receiving.stdout.readline() == "ready\n"
        sent = lab.run(sender, sys.executable, "-c", SEND, str(address), str(port), str(MEGABYTES)).split()
        peer, peer_port, *received = receiving.communicate(timeout=30)[0].split()
    assert received == sent
    return peer, int(peer_port)


@contextlib.contextmanager
def echoing(lab: Lab, node: str, port: int) -> Iterator[None]:
    with ended(lab.python(node, ECHO, str(port))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


def gso_kept(lab: Lab, work: Callable[[], object]) -> float:
    """Mean octets of a packet on the public wire during some work."""

    def statistics() -> tuple[int, int]:
        shown = json.loads(lab.run("s", "ip", "-j", "-s", "link", "show", "sp0"))[0]["stats64"]
        sums = [shown["rx"][name] + shown["tx"][name] for name in ("bytes", "packets")]
        return sums[0], sums[1]

    before = statistics()
    work()
    after = statistics()
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


@every_way
def test_megabytes_both_ways_after_the_daemons_have_gone(joined: Lab) -> None:
    peer: list[tuple[str, int]] = []
    size = gso_kept(joined, lambda: peer.append(transfer(joined, "a", "s", "192.0.2.80", 8080)))
    assert peer[0][0] == str(SHARED)
    assert peer[0][1] in PORTS
    assert size > 3000, f"large segments were cut up: {size} octets a packet"
    assert transfer(joined, "s", "a", SHARED, 10007)[0] == "192.0.2.80"
    with echoing(joined, "s", 5353):
        asked, answered = ask(joined, "a", "192.0.2.80", 5353, seconds=0.2)
        assert asked == answered
    with echoing(joined, "a", 10009):
        asked, answered = ask(joined, "s", SHARED, 10009, seconds=0.2)
        assert asked == answered
    assert joined.count(End.GATEWAY, Reason.FORWARDED_INWARD) > 0
    assert joined.count(End.HOST, Reason.FORWARDED_OUTWARD) > 0


@every_way
def test_a_whole_address(joined: Lab) -> None:
    assert transfer(joined, "b", "s", "192.0.2.80", 8080)[0] == str(WHOLE)
    assert transfer(joined, "s", "b", WHOLE, 22)[0] == "192.0.2.80"


@every_way
def test_programs_meet_at_the_gateway(joined: Lab) -> None:
    """Large segments that leave one tunnel for another (RFC 3102 §6.7)."""
    assert transfer(joined, "a", "b", WHOLE, 8080)[0] == str(SHARED)
    assert transfer(joined, "b", "a", SHARED, 10011)[0] == str(WHOLE)
    assert joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) == 0


SNIFF = """
import select, socket, sys
end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
end.bind((sys.argv[1], 0x0800))
print("ready", flush=True)
if select.select([end], [], [], 5)[0]:
    print(end.recv(65535).hex())
"""
DYING = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
end.sendto(b"alas", (sys.argv[1], int(sys.argv[2])))
"""


def test_what_needs_a_reply_comes_out_of_the_port_as_it_came_in(joined: Lab) -> None:
    with ended(joined.python("g", SNIFF, "pt0p")) as sniffing:
        assert sniffing.stdout is not None
        assert sniffing.stdout.readline() == "ready\n"
        joined.run("s", sys.executable, "-c", DYING, str(SHARED), "10007")
        frame = bytes.fromhex(sniffing.communicate(timeout=20)[0])
    assert frame[12:14] == b"\x08\x00"
    assert (frame[14 + 8], frame[14 + 16 : 14 + 20], frame[-4:]) == (1, SHARED.octets, b"alas")
    assert joined.count(End.GATEWAY, Reason.PUNTED) == 1


def test_a_port_of_the_pool_that_nobody_holds_is_dropped_and_the_machines_own_passes(joined: Lab) -> None:
    assert ask(joined, "s", SHARED, 10064, patience=0.1) == (1, 0)
    assert joined.count(End.GATEWAY, Reason.NO_BINDING) == 1
    with echoing(joined, "g", 7):
        assert ask(joined, "s", SHARED, 7) == (1, 1)


def test_without_a_device_packets_are_for_the_hosts_own_stack(joined: Lab) -> None:
    joined.daemon(End.HOST, what="local")
    joined.run("h", "ip", "addr", "add", f"{SHARED}/32", "dev", "lo")
    joined.run("h", "ip", "link", "set", "lo", "up")
    with ended(joined.python("h", HEAR, "10012")) as hearing:
        assert hearing.stdout is not None
        assert hearing.stdout.readline() == "ready\n"
        assert ask(joined, "s", SHARED, 10012, patience=0.1) == (1, 0)
        assert hearing.communicate(timeout=20)[0] == "192.0.2.80\n"


def test_where_no_route_leads_is_counted(joined: Lab) -> None:
    joined.run("g", "ip", "route", "add", "unreachable", "198.51.100.0/24")
    assert ask(joined, "a", "198.51.100.9", 80, patience=0.1) == (1, 0)
    assert joined.count(End.GATEWAY, Reason.NO_ROUTE) == 1


HEAR = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("0.0.0.0", int(sys.argv[1])))
end.settimeout(10)
print("ready", flush=True)
print(end.recvfrom(2048)[1][0])
"""


def test_a_source_port_that_is_not_leased_does_not_leave_the_host(joined: Lab) -> None:
    joined.run("a", "sysctl", "-qw", "net.ipv4.ip_local_port_range=30000 30010")
    assert ask(joined, "a", "192.0.2.80", 5353, patience=0.1) == (1, 0)
    assert joined.count(End.HOST, Reason.SOURCE_PORT_NOT_LEASED) == 1


def test_a_restart_adopts_and_loses_nothing(joined: Lab) -> None:
    with echoing(joined, "s", 5353), ended(joined.python("a", ASK, "192.0.2.80", "5353", "4", "1")) as asking:
        time.sleep(0.3)
        for _ in range(2):
            for end in End:
                assert joined.daemon(end)["adopted"] is True
        asked, answered = map(int, asking.communicate(timeout=30)[0].split())
    assert asked > 500
    assert asked == answered


def test_what_the_replay_does_not_hold_is_gone(joined: Lab) -> None:
    with echoing(joined, "s", 5353):
        assert ask(joined, "a", "192.0.2.80", 5353) == (1, 1)
        told = joined.daemon(End.GATEWAY, what="without")
        assert told["adopted"] is True
        assert ask(joined, "a", "192.0.2.80", 5353, patience=0.2) == (1, 0)
    told = joined.daemon(End.GATEWAY, what="look")
    assert told["events"] == ["SOURCE_ADDRESS_NOT_LEASED"]
    assert joined.daemon(End.GATEWAY)["adopted"] is True
    with echoing(joined, "s", 5353):
        assert ask(joined, "a", "192.0.2.80", 5353) == (1, 1)


def test_when_the_deadline_passes_it_stops_though_nobody_is_there(joined: Lab) -> None:
    joined.daemon(End.GATEWAY, seconds=2)
    with echoing(joined, "s", 5353):
        assert ask(joined, "a", "192.0.2.80", 5353) == (1, 1)
        time.sleep(3.1)
        assert ask(joined, "a", "192.0.2.80", 5353, patience=0.2) == (1, 0)
    assert joined.count(End.GATEWAY, Reason.LEASE_EXPIRED) == 1


def test_destroyed_planes_leave_nothing(joined: Lab) -> None:
    for end, node, interface in ((End.GATEWAY, "g", "gp0"), (End.HOST, "h", "ap0p")):
        assert "isthmus" in joined.run(node, "tc", "filter", "show", "dev", interface, "ingress")
        joined.daemon(end, what="destroy")
        assert "isthmus" not in joined.run(node, "tc", "filter", "show", "dev", interface, "ingress")
        assert not (joined.pins / node).exists(), "neither pins nor the mount are left"
