# SPDX-License-Identifier: BSD-3-Clause
"""Devices of a host under the kernel plane: packets for a program arrive at its end of the veth pair at once.

That the plane's end of the pair transmits nothing is how one sees it.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from isthmus.address import Family
from isthmus.border.crossing import TunnelKind
from isthmus.border.realm import End
from isthmus.plane.kernel.peer import AWAY, peer_of
from plane.one_end import PLAIN, SHARED, Way
from plane.test_kernel_real import SNIFF, Lab, ask, echoing, ended, joined, lab, pytestmark  # noqa: F401

HERE = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"ap0")
end.bind(("192.0.2.55", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, peer = end.recvfrom(2048)
    end.sendto(data, peer)
"""


def transmitted(lab: Lab) -> int:  # noqa: F811 - a fixture has this name, too
    """Packets that the plane's end of app a's device has sent to the other end."""
    return int(json.loads(lab.run("h", "ip", "-j", "-s", "link", "show", "ap0p"))[0]["stats64"]["tx"]["packets"])


def reach(lab: Lab, *, answered: int = 1, patience: float = 1.0) -> int:  # noqa: F811
    """Ask app a's program once; returns what its device has transmitted meanwhile."""
    before = transmitted(lab)
    assert ask(lab, "s", SHARED, 10009, patience=patience) == (1, answered)
    return transmitted(lab) - before


def move_here(lab: Lab) -> None:  # noqa: F811
    """Let app a's end of its device be in the host's own namespace."""
    for words in (
        ("-n", f"{lab.name}a", "link", "set", "ap0", "netns", f"{lab.name}h"),
        ("-n", f"{lab.name}h", "addr", "add", f"{SHARED}/32", "dev", "ap0"),
        ("-n", f"{lab.name}h", "link", "set", "ap0", "up", "arp", "off"),
        ("-n", f"{lab.name}h", "route", "add", "default", "dev", "ap0", "table", "77"),
        ("-n", f"{lab.name}h", "rule", "add", "from", str(SHARED), "lookup", "77"),
    ):
        subprocess.run(["ip", *words], check=True, timeout=20)


def move_away(lab: Lab) -> None:  # noqa: F811
    """And back in that of the program."""
    for words in (
        ("-n", f"{lab.name}h", "link", "set", "ap0", "netns", f"{lab.name}a"),
        ("-n", f"{lab.name}a", "addr", "add", f"{SHARED}/32", "dev", "ap0"),
        ("-n", f"{lab.name}a", "link", "set", "ap0", "up", "arp", "off"),
        ("-n", f"{lab.name}a", "route", "add", "default", "dev", "ap0"),
    ):
        subprocess.run(["ip", *words], check=True, timeout=20)


def test_in_the_programs_namespace_nothing_is_transmitted_and_a_tap_there_sees_it(joined: Lab) -> None:  # noqa: F811
    with echoing(joined, "a", 10009), ended(joined.python("a", SNIFF, "ap0")) as sniffing:
        assert sniffing.stdout is not None
        assert sniffing.stdout.readline() == "ready\n"
        assert reach(joined) == 0
        frame = bytes.fromhex(sniffing.communicate(timeout=20)[0])
    assert frame[14 + 16 : 14 + 20] == SHARED.octets


def test_while_the_programs_end_is_down_packets_are_lost(joined: Lab) -> None:  # noqa: F811
    joined.run("a", "ip", "link", "set", "ap0", "down")
    with echoing(joined, "a", 10009):
        assert reach(joined, answered=0, patience=0.1) == 0
        joined.run("a", "ip", "link", "set", "ap0", "up")
        joined.run("a", "ip", "route", "add", "default", "dev", "ap0")
        assert reach(joined) == 0


@pytest.mark.parametrize("lab", [PLAIN, Way(TunnelKind.IPIP, Family.IPV6)], indirect=True, ids=lambda way: way.name)
def test_in_the_hosts_own_namespace_who_is_bound_to_the_device_hears_it(lab: Lab) -> None:  # noqa: F811
    move_here(lab)
    for end in End:
        lab.daemon(end)
    with ended(lab.python("h", HERE, "10009")) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert reach(lab) == 0


def test_a_device_is_moved_while_its_lease_stands(lab: Lab) -> None:  # noqa: F811
    move_here(lab)
    for end in End:
        lab.daemon(end)
    move_away(lab)
    with echoing(lab, "a", 10009):
        assert reach(lab) == 1, "nobody has said yet where it is: the long way"
        lab.daemon(End.HOST)
        assert reach(lab) == 0
    move_here(lab)
    lab.daemon(End.HOST)
    with ended(lab.python("h", HERE, "10009")) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert reach(lab) == 0


PORT = """
link add pt1 type veth peer name pt1p
link set pt1 up arp off
link set pt1p up arp off
"""
BURST = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.settimeout(1)
for number in range(100):
    end.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
heard = 0
while heard < 100:
    end.recv(10)
    heard += 1
print(heard)
"""


def test_a_host_that_does_not_forward_sends_to_the_neighbour_that_the_kernel_has_now(joined: Lab) -> None:  # noqa: F811
    for line in PORT.strip().splitlines():
        joined.run("h", "ip", *line.split())
    joined.run("h", "sysctl", "-qw", "net.ipv4.conf.pt1.forwarding=1")
    assert joined.run("h", "sysctl", "-n", "net.ipv4.conf.hn0.forwarding").strip() == "0"
    joined.daemon(End.HOST, what="port")
    burst = (sys.executable, "-c", BURST, "192.0.2.80", "5353")
    with echoing(joined, "s", 5353):
        assert joined.run("a", *burst) == "100\n"
        another = "02:00:5e:00:00:77"
        joined.run("g", "ip", "link", "set", "gn0", "address", another)
        joined.run("h", "ip", "neigh", "replace", "10.0.0.1", "lladdr", another, "dev", "hn0", "nud", "permanent")
        assert joined.run("a", *burst) == "100\n"


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    """A veth pair, and a namespace for one of its ends."""
    name = f"ist{secrets.token_hex(3)}"
    end, other = f"{name}0", f"{name}1"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    try:
        subprocess.run(["ip", "link", "add", end, "type", "veth", "peer", "name", other], check=True, timeout=20)
        yield end, other
    finally:
        subprocess.run(["ip", "link", "del", end], check=False, timeout=20)
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=20)


def test_where_the_other_end_of_a_pair_is(pair: tuple[str, str]) -> None:
    index, other = (socket.if_nametoindex(name) for name in pair)
    assert (peer_of(index), peer_of(other)) == (other, index)
    subprocess.run(["ip", "link", "set", pair[1], "netns", pair[0][:-1]], check=True, timeout=20)
    assert peer_of(index) == AWAY
    assert peer_of(socket.if_nametoindex("lo")) == 0
    assert peer_of(1 << 30) == 0
