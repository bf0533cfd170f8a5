# SPDX-License-Identifier: BSD-3-Clause
"""IPAE in the kernel plane on wires: two sites of IPv4 hosts, and a host whose programs have SIP by IPv6 sockets.

::

    o ────site──── b ──────net────── c ────site──── d        addresses of seed IPAE 7
    192.3.4.1    .254  128.1.1.1  128.1.1.2  .254   201.5.7.250
    1.213.77.5                  │                   1.2.2.8
                          128.1.1.3
                              n ──device sip0         1.9.9.9, native SIP on the net

Run as a script, this file is the plane of b, c or n, as long as its standard input is open.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.effect import Bind, Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Node, Realm, TunnelEnd
from isthmus.border.rules import Df0, Rules
from isthmus.border.selector import Selector
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane

SRC = Path(__file__).parents[2] / "src"
OBJECT = SRC / "isthmus/plane/kernel/objects/border_tc.bpf.o"
SITE, NET, SIP, SOCKETS = 1, 2, 3, 4
SITES = {"b": ("1.213.77.5", "192.3.4.0/24", "128.1.1.1"), "c": ("1.2.2.8", "201.5.7.0/24", "128.1.1.2")}
HOST = Address.parse_sip("1.9.9.9/128.1.1.3")
FULL, COMPATIBLE = Prefix.parse("fd49:5041:4500:6d74::/64"), Prefix.parse("fd53:4950:4300::/48")
ANY_SIP = Prefix(Address(Family.SIP, 0), 0)
DEVICE = Translate(realm=SOCKETS, image=FULL, compatible=COMPATIBLE)
NODES = "obcdn"
OCTETS = 300_001
SIZES = (1, 8, 512, 1000, 1400, 1448)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="needs nsenter (util-linux)"),
    pytest.mark.skipif(not OBJECT.exists(), reason="needs the objects: make -C bpf"),
]


# --- the plane of one node ------------------------------------------------------------------


def bind(realm: int, prefix: Prefix, crossing: Crossing, device: str | None = None) -> Bind:
    """A binding that configuration made."""
    key = BindingKey(Owner(realm, prefix.address), prefix.length)
    return Bind(
        binding=Binding(key=key, selectors=(Selector(realm=realm, local=prefix),), crossing=crossing, device=device),
        lease=Lease(client_id=0, method=Method.RSA_IP, granted_at=0.0, expires_at=FOREVER),
    )


def both(site: str) -> tuple[Prefix, Prefix]:
    """A site with C as it is and set."""
    return Prefix.parse_sip(f"{site}/32"), Prefix.parse_sip(f"c{site}/32")


def site_border(node: str) -> tuple[Border, list[Programmable]]:
    own, _, outer = SITES[node]
    other, theirs, peer = SITES["c" if node == "b" else "b"]
    border = Border(
        realms=(
            Realm(number=SITE, name="site", sip=SIP, site=Prefix.parse_sip(f"{own}/32"), interface="lan0", mtu=1500),
            Realm(number=NET, name="net", sip=SIP, interface="net0", mtu=1500),
            Realm(number=SIP, name="sip", family=Family.SIP),
        ),
        tunnel_ends=(TunnelEnd(realm=NET, address=Address.parse(outer), leads_to=SIP),),
        # Linux answers a ping without DF: with a mark that would be the slow path's, which there is none of here.
        rules=Rules(df0=Df0.FIT),
    )
    tunnel = Encapsulation(realm=NET, local=Address.parse(outer), remote=Address.parse(peer))
    effects: list[Programmable] = [bind(SIP, each, tunnel) for each in both(other)]
    effects.append(bind(SIP, both(own)[1], Translate(realm=SITE, image=Prefix.parse("0.0.0.0/0"))))
    effects.append(bind(SIP, HOST.site, Native(realm=NET)))
    # The hosts of the site know the IPAE host by an alias of the same sum as its low half (spec 8.3).
    effects.append(bind(SITE, Prefix.parse("100.64.28.196"), Translate(realm=SIP, image=Prefix.of(HOST))))
    mapping = Mapping.of([(Prefix.parse(theirs), both(other)[1])])
    return border, [*effects, Remap(realm=SITE, sip=SIP, mapping=mapping)]


def host_border() -> tuple[Border, list[Programmable]]:
    border = Border(
        realms=(
            Realm(number=NET, name="net", sip=SIP, interface="net0", mtu=1500),
            Realm(number=SIP, name="sip", family=Family.SIP),
            Realm(number=SOCKETS, name="sockets", family=Family.IPV6, mtu=1500),
        ),
        nodes=(Node(realm=SIP, address=HOST),),
    )
    effects: list[Programmable] = [
        bind(SIP, each, Native(realm=NET, neighbour=Address.parse(SITES[node][2])))
        for node in SITES
        for each in both(SITES[node][0])
    ]
    effects.append(bind(SIP, Prefix.of(HOST), DEVICE, device="sip0p"))
    effects += [bind(SOCKETS, each, Translate(realm=SIP, image=ANY_SIP)) for each in (FULL, COMPATIBLE)]
    return border, effects


def serve(node: str) -> None:
    border, effects = host_border() if node == "n" else site_border(node)
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    plane = KernelPlane(border, pin=None, boot_offset=offset)
    for realm in border.realms:
        if realm.interface is not None:
            plane.attach(realm.number, realm.interface)
    plane.punt(SIP, "lo")
    if node == "n":
        plane.punt(SOCKETS, "lo")
    plane.apply(effects)
    print("ready", flush=True)
    while sys.stdin.readline():
        print(json.dumps({reason.name: count for reason, count in plane.counters().items() if count}), flush=True)
    plane.destroy()


# --- the wires ------------------------------------------------------------------------------


@dataclass
class Lab:
    """Five namespaces."""

    name: str

    def inside(self, node: str, *words: str) -> subprocess.Popen[str]:
        command = ["nsenter", f"--net=/run/netns/{self.name}{node}", *words]
        environment = {**os.environ, "PYTHONPATH": f"{SRC}:{Path(__file__).parents[1]}"}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, text=True, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, node: str, *words: str) -> str:
        with ended(self.inside(node, *words)) as process:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, f"{words}: {out}{err}"
            return out

    def python(self, node: str, script: str, *words: str) -> subprocess.Popen[str]:
        return self.inside(node, sys.executable, "-c", script, *words)

    def checksum_errors(self) -> int:
        """What the stacks of all nodes have found wrong in transports."""
        shown = [self.run(node, "cat", "/proc/net/snmp", "/proc/net/snmp6") for node in NODES]
        return sum(map(_checksum_errors, shown))


def _checksum_errors(shown: str) -> int:
    rows = [line.split() for line in shown.splitlines()]
    total = sum(int(row[1]) for row in rows if "InCsumErrors" in row[0])
    for names, values in itertools.pairwise(rows):
        if names[0] == values[0] and "InCsumErrors" in names:
            total += int(values[names.index("InCsumErrors")])
    return total


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
    """In the words of ``ip``."""
    o, b, c, d, n = (f"{name}{node}" for node in NODES)
    mac = "02:00:5e:00:00:01"
    full, compatible = DEVICE.image_of(HOST), DEVICE.image_of(HOST, compatible=True)
    return f"""
link add eth0 index 10 netns {o} type veth peer name lan0 index 11 netns {b}
link add eth0 index 12 netns {d} type veth peer name lan0 index 13 netns {c}
link add net0 index 14 netns {b} type veth peer name netb index 15 netns {name}s
link add net0 index 16 netns {c} type veth peer name netc index 17 netns {name}s
link add net0 index 18 netns {n} type veth peer name netn index 19 netns {name}s
link add sip0 index 20 netns {n} address {mac} type veth peer name sip0p index 21 netns {n} address {mac}
-n {name}s link add net type bridge
-n {name}s link set netb master net up
-n {name}s link set netc master net up
-n {name}s link set netn master net up
-n {name}s link set net up
-n {o} addr add 192.3.4.1/24 dev eth0
-n {b} addr add 192.3.4.254/24 dev lan0
-n {b} addr add 128.1.1.1/24 dev net0
-n {c} addr add 128.1.1.2/24 dev net0
-n {c} addr add 201.5.7.254/24 dev lan0
-n {d} addr add 201.5.7.250/24 dev eth0
-n {n} addr add 128.1.1.3/24 dev net0
-n {o} link set eth0 up
-n {d} link set eth0 up
-n {b} link set lan0 up
-n {b} link set net0 up
-n {c} link set lan0 up
-n {c} link set net0 up
-n {n} link set net0 up
-n {n} link set lo up
-n {b} link set lo up
-n {c} link set lo up
-n {n} link set sip0p up arp off
-n {n} link set sip0 up arp off mtu 1496
-n {n} addr add {full}/128 dev sip0 nodad
-n {n} addr add {compatible}/128 dev sip0 nodad
-n {n} route add {FULL} dev sip0 src {full}
-n {n} route add {COMPATIBLE} dev sip0 src {compatible}
-n {o} route add default via 192.3.4.254 mtu 1476
-n {d} route add default via 201.5.7.254 mtu 1476
"""


QUIET = """
echo 1 >/proc/sys/net/ipv4/ip_forward
for name in eth0 lan0 net0 sip0 sip0p; do ethtool -K $name tx off tso off gso off gro off 2>/dev/null; done; true
"""
"""Nothing merged, nothing unfinished (docs/data-plane.md, IPAE)."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab(f"ist{secrets.token_hex(3)}")
    try:
        for node in (*NODES, "s"):
            subprocess.run(["ip", "netns", "add", made.name + node], check=True, timeout=20)
        for line in setup(made.name).strip().splitlines():
            subprocess.run(["ip", *line.split()], check=True, timeout=20)
        # A bridge that lets nftables see what it carries takes SIP for damaged IPv4.
        made.run("s", "sysctl", "-eqw", "net.bridge.bridge-nf-call-iptables=0")
        for node in NODES:
            made.run(node, "sh", "-c", QUIET)
        yield made
    finally:
        for node in (*NODES, "s"):
            subprocess.run(["ip", "netns", "del", made.name + node], check=False, timeout=20)


@pytest.fixture(scope="module")
def planes(lab: Lab) -> Iterator[dict[str, subprocess.Popen[str]]]:
    with contextlib.ExitStack() as stack:
        serving = {node: stack.enter_context(ended(lab.inside(node, sys.executable, __file__, node))) for node in "bcn"}
        for process in serving.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate(timeout=5)
        yield serving


def told(process: subprocess.Popen[str]) -> Counter[str]:
    """What a plane has counted so far."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("how much?\n")
    process.stdin.flush()
    return Counter(json.loads(process.stdout.readline()))


ECHO = """
import socket, sys, threading
def tcp():
    connection, _ = listener.accept()
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.close()
listener = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
end = socket.socket(listener.family, socket.SOCK_DGRAM)
end.bind((sys.argv[1], 7))
threading.Thread(target=tcp, daemon=True).start()
print("ready", flush=True)
while True:
    data, peer = end.recvfrom(4096)
    end.sendto(data, peer)
"""
ASK = """
import random, socket, sys, threading
address, octets, sizes = sys.argv[1], int(sys.argv[2]), [int(each) for each in sys.argv[3].split(",")]
data = random.Random(1).randbytes(octets)
with socket.create_connection((address, 7), timeout=10) as connection:
    threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)), daemon=True).start()
    back = b""
    while more := connection.recv(1 << 16):
        back += more
assert back == data, len(back)
end = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
end.settimeout(5)
end.connect((address, 7))
for size in sizes:
    end.send(data[:size])
    assert end.recv(4096) == data[:size], size
"""


def talk(lab: Lab, asking: str, answering: str, *, at: str, by: str) -> None:
    """TCP and UDP there and back: ``at`` is what the answering node has, ``by`` what the asking one knows it by."""
    with ended(lab.python(answering, ECHO, at)) as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n", echo.communicate(timeout=5)
        lab.run(asking, sys.executable, "-c", ASK, by, str(OCTETS), ",".join(map(str, SIZES)))


@pytest.mark.rfc("ipae", "3.4.1")
def test_ipv4_hosts_of_two_sites_talk_through_ipae(lab: Lab, planes: dict[str, subprocess.Popen[str]]) -> None:
    before, counted = lab.checksum_errors(), told(planes["b"])
    talk(lab, "o", "d", at="201.5.7.250", by="201.5.7.250")
    lab.run("o", "ping", "-M", "do", "-c", "2", "-i", "0.01", "-W", "2", "201.5.7.250")
    assert lab.checksum_errors() == before
    counted = told(planes["b"]) - counted
    assert counted["TRANSLATED_TO_SIP"] > OCTETS // 1500
    assert counted["TRANSLATED_FROM_SIP"] > OCTETS // 1500
    assert not counted["PUNTED"]


@pytest.mark.rfc("ipae", "4.5.1")
def test_a_program_with_an_ipv6_socket_talks_to_an_ipv4_host(
    lab: Lab, planes: dict[str, subprocess.Popen[str]]
) -> None:
    before = lab.checksum_errors()
    for site, host, node in (("1.213.77.5", "192.3.4.1", "o"), ("1.2.2.8", "201.5.7.250", "d")):
        known_as = DEVICE.image_of(Address.parse_sip(f"c{site}/{host}"), compatible=True)
        talk(lab, "n", node, at=host, by=str(known_as))
        lab.run("n", "ping", "-c", "2", "-i", "0.01", "-W", "2", str(known_as))
    assert lab.checksum_errors() == before
    counted = told(planes["n"])
    assert counted["TRANSLATED_FROM_SIP"] > OCTETS // 1500
    assert not counted["PUNTED"]


if __name__ == "__main__":
    serve(sys.argv[1])
