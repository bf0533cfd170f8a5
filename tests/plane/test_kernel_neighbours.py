# SPDX-License-Identifier: BSD-3-Clause
"""What the kernel does around the kernel plane: neighbours, VLANs, filters of somebody else.

The plane leaves them to the machine; these are the cases of docs/border-cases.md in which other border routers, which
drive their own cards, have to do all of it themselves.
"""

from __future__ import annotations

import json
import shutil

import pytest

from isthmus.address import Family
from isthmus.border.crossing import TunnelKind
from isthmus.border.realm import End
from isthmus.border.verdict import Reason
from plane import test_kernel_real as real
from plane.test_kernel_real import GATEWAY, GATEWAY6, HOST, HOST6, SHARED, WHOLE, Lab, Way, ask, echoing

lab, joined = real.lab, real.joined
pytestmark = real.pytestmark
OVER = {Family.IPV4: Way(TunnelKind.IPIP, Family.IPV4), Family.IPV6: Way(TunnelKind.IPIP, Family.IPV6)}
both = pytest.mark.parametrize("lab", OVER.values(), indirect=True, ids=lambda way: way.name)
over_ipv6 = pytest.mark.parametrize("lab", [OVER[Family.IPV6]], indirect=True, ids=lambda way: way.name)
SERVER = "192.0.2.80"
PORT = 10001
"""A leased one, of which app a is the holder."""


def neighbours(lab: Lab, node: str, interface: str) -> dict[str, str]:
    """What a machine knows of its neighbours: address and state."""
    shown = json.loads(lab.run(node, "ip", "-j", "neigh", "show", "dev", interface))
    return {each["dst"]: each["state"][0] for each in shown}


def forget(lab: Lab) -> None:
    for interface in ("gn0", "gp0"):
        lab.run("g", "ip", "neigh", "flush", "dev", interface)


@both
def test_the_first_packet_has_its_next_hop_asked_for_and_is_not_lost(joined: Lab) -> None:
    """Toward the near realm (NDP or ARP) and, by its answer, toward the far one (ARP)."""
    forget(joined)
    near = str(HOST if joined.way.family is Family.IPV4 else HOST6)
    assert near not in neighbours(joined, "g", "gn0")
    with echoing(joined, "a", PORT):
        assert ask(joined, "s", SHARED, PORT, patience=3) == (1, 1)
    assert neighbours(joined, "g", "gn0")[near] in {"REACHABLE", "DELAY", "STALE", "PROBE"}
    assert neighbours(joined, "g", "gp0")[SERVER] in {"REACHABLE", "DELAY", "STALE", "PROBE"}


@over_ipv6
def test_a_next_hop_that_does_not_answer_stops_nobody_else(joined: Lab) -> None:
    """Nothing goes to a host that answers no solicitation; what another sends outward does not wait for it."""
    joined.run("h", "ip", "-6", "addr", "add", "fd00::5/64", "dev", "hn0", "nodad")
    forget(joined)
    joined.run("h", "ip", "link", "set", "hn0", "arp", "off")  # IPv6 takes it for NDP, too
    joined.run("h", "ip", "neigh", "replace", str(GATEWAY6), "lladdr", mac(joined, "g", "gn0"), "dev", "hn0")
    with echoing(joined, "s", 4000), echoing(joined, "a", PORT):
        assert ask(joined, "s", SHARED, PORT, patience=0.5) == (1, 0)
        assert neighbours(joined, "g", "gn0")[str(HOST6)] in {"INCOMPLETE", "FAILED"}
        before = joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD)
        assert ask(joined, "a", SERVER, 4000, patience=0.5)[1] == 0, "the answer has nowhere to go"
        assert joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) == before + 1
        joined.run("h", "ip", "link", "set", "hn0", "arp", "on")
        assert ask(joined, "a", SERVER, 4000, patience=3) == (1, 1), "with the advertisement it goes"


def mac(lab: Lab, node: str, interface: str) -> str:
    return str(json.loads(lab.run(node, "ip", "-j", "link", "show", "dev", interface))[0]["address"])


SOLICIT = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (address, 9))
"""


def knows(lab: Lab, *addresses: str) -> dict[str, bool]:
    """Of which addresses the host learns a hardware address."""
    lab.run("h", "python3", "-c", SOLICIT, *addresses)
    for _ in range(60):
        states = neighbours(lab, "h", "hn0")
        if all(states.get(each, "INCOMPLETE") != "INCOMPLETE" for each in addresses):
            break
        lab.run("h", "sleep", "0.1")
    return {each: states[each] != "FAILED" for each in addresses}


@over_ipv6
def test_solicitations_are_answered_for_the_gateways_own_addresses_and_no_other(joined: Lab) -> None:
    joined.run("g", "ip", "-6", "addr", "add", "fd00::2/64", "dev", "gn0", "nodad")
    joined.run("h", "ip", "neigh", "flush", "dev", "hn0")
    joined.run("h", "sysctl", "-qw", "net.ipv6.neigh.hn0.retrans_time_ms=200", "net.ipv4.neigh.hn0.retrans_time_ms=200")
    wanted = {str(GATEWAY6): True, "fd00::2": True, "fd00::99": False, str(GATEWAY): True, "10.0.0.99": False}
    assert knows(joined, *wanted) == wanted


def on_vlan(lab: Lab, node: str, interface: str, *addresses: str) -> None:
    """Make an interface one of a VLAN, on top of what it was."""
    lab.run(node, "ip", "link", "set", interface, "down")
    lab.run(node, "ip", "addr", "flush", "dev", interface)
    lab.run(node, "ip", "link", "set", interface, "name", f"{interface}w")
    lab.run(node, "ip", "link", "add", "link", f"{interface}w", "name", interface, "type", "vlan", "id", "42")
    for address in addresses:
        lab.run(node, "ip", "addr", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
    lab.run(node, "ip", "link", "set", f"{interface}w", "up")
    lab.run(node, "ip", "link", "set", interface, "up")


@both
def test_realms_on_vlans(lab: Lab) -> None:
    """Inward, outward and round: tags are the interface's."""
    on_vlan(lab, "h", "hn0", f"{HOST}/24", f"{HOST6}/64")
    on_vlan(lab, "g", "gn0", f"{GATEWAY}/24", f"{GATEWAY6}/64")
    on_vlan(lab, "g", "gp0", "192.0.2.1/24", f"{SHARED}/32", f"{WHOLE}/32")
    on_vlan(lab, "s", "sp0", f"{SERVER}/24")
    for end in End:
        lab.daemon(end)
    with echoing(lab, "a", PORT), echoing(lab, "s", 4000), echoing(lab, "b", 4001):
        assert ask(lab, "s", SHARED, PORT, patience=3) == (1, 1)
        assert ask(lab, "a", SERVER, 4000, patience=3) == (1, 1)
        assert ask(lab, "a", WHOLE, 4001, patience=3) == (1, 1)
    assert lab.count(End.GATEWAY, Reason.FORWARDED_INWARD) >= 3
    assert lab.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) >= 2


EGRESS = """
table netdev guard {
    chain near { type filter hook egress device "gn0" priority 0; @near counter drop; }
    chain far { type filter hook egress device "gp0" priority 0; udp dport 4002 counter drop; }
}
"""


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (nftables)")
@both
def test_filters_of_the_machine_see_what_leaves_the_plane(joined: Lab, tmp_path: object) -> None:
    """At the egress of an interface nftables has both directions, and the plane need know nothing of it."""
    # The destination port of the inner UDP packet: two IPv4 headers of 20 octets, or 40 and 20, and 2.
    near = f"@nh,{(60 if joined.way.family is Family.IPV6 else 40) * 8 + 16},16 {PORT + 1}"
    with joined.inside("g", "nft", "-f", "-") as loading:
        _, said = loading.communicate(EGRESS.replace("@near", near), timeout=10)
    assert loading.returncode == 0, said
    with echoing(joined, "a", PORT), echoing(joined, "s", 4000), echoing(joined, "s", 4002):
        assert ask(joined, "s", SHARED, PORT, patience=3) == (1, 1)
        assert ask(joined, "a", SERVER, 4000, patience=3) == (1, 1)
        assert ask(joined, "a", SERVER, 4002, patience=0.5) == (1, 0)
    with echoing(joined, "a", PORT + 1):
        assert ask(joined, "s", SHARED, PORT + 1, patience=0.5) == (1, 0)


@both
def test_filters_before_the_plane_keep_packets_from_it(joined: Lab) -> None:
    """A filter of TC with a smaller preference than ours decides first; what it does not match goes on to the plane."""
    flower = ("protocol", "ip", "flower", "ip_proto", "udp", "dst_port", str(PORT + 1), "action", "drop")
    joined.run("g", "tc", "filter", "add", "dev", "gp0", "ingress", "pref", "1", *flower)
    family = "ipv6" if joined.way.family is Family.IPV6 else "ip"
    blocked = ("protocol", family, "flower", "src_ip", str(HOST6 if family == "ipv6" else HOST), "action", "drop")
    with echoing(joined, "a", PORT), echoing(joined, "s", 4000):
        assert ask(joined, "s", SHARED, PORT, patience=3) == (1, 1)
        before = joined.count(End.GATEWAY, Reason.FORWARDED_INWARD)
        assert ask(joined, "s", SHARED, PORT + 1, patience=0.5) == (1, 0)
        assert joined.count(End.GATEWAY, Reason.FORWARDED_INWARD) == before
        assert ask(joined, "a", SERVER, 4000, patience=3) == (1, 1)
        joined.run("g", "tc", "filter", "add", "dev", "gn0", "ingress", "pref", "1", *blocked)
        before = joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD)
        assert ask(joined, "a", SERVER, 4000, patience=0.5) == (1, 0)
        assert joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) == before
