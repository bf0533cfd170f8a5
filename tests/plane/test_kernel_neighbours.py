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
from plane.one_end import GATEWAY, GATEWAY6, HOST, HOST6, SHARED, WHOLE, Way
from plane.test_kernel_real import Lab, ask, echoing

lab, joined = real.lab, real.joined
pytestmark = real.pytestmark
OVER = {Family.IPV4: Way(TunnelKind.IPIP, Family.IPV4), Family.IPV6: Way(TunnelKind.IPIP, Family.IPV6)}
both = pytest.mark.parametrize("lab", OVER.values(), indirect=True, ids=lambda way: way.name)
over_ipv6 = pytest.mark.parametrize("lab", [OVER[Family.IPV6]], indirect=True, ids=lambda way: way.name)
needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (nftables)")
SERVER = "192.0.2.80"
PORT = 10001
"""A leased one, of which app a is the holder."""


def neighbours(lab: Lab, node: str, interface: str) -> dict[str, str]:
    """What a machine knows of its neighbours: address and state."""
    shown = json.loads(lab.run(node, "ip", "-j", "neigh", "show", "dev", interface))
    return {each["dst"]: each["state"][0] for each in shown}


def mac(lab: Lab, node: str, interface: str) -> str:
    return str(json.loads(lab.run(node, "ip", "-j", "link", "show", "dev", interface))[0]["address"])


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


DEAF = """
table netdev deaf {
    chain near { type filter hook ingress device "hn0" priority 0; icmpv6 type nd-neighbor-solicit drop;
    }
}
"""


def nft(lab: Lab, node: str, rules: str) -> None:
    with lab.inside(node, "nft", "-f", "-") as loading:
        _, said = loading.communicate(rules, timeout=10)
    assert loading.returncode == 0, said


@needs_nft
@over_ipv6
def test_a_next_hop_that_does_not_answer_stops_nobody_else(joined: Lab) -> None:
    """Nothing goes to a host that answers no solicitation; what another sends outward does not wait for it."""
    # A host that solicited the gateway would tell its own address with the question.
    joined.run("h", "ip", "neigh", "replace", str(GATEWAY6), "lladdr", mac(joined, "g", "gn0"), "dev", "hn0")
    nft(joined, "h", DEAF)
    forget(joined)
    with echoing(joined, "s", 4000), echoing(joined, "a", PORT):
        assert ask(joined, "s", SHARED, PORT, patience=0.5) == (1, 0)
        assert neighbours(joined, "g", "gn0")[str(HOST6)] in {"INCOMPLETE", "FAILED"}
        before = joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD)
        assert ask(joined, "a", SERVER, 4000, patience=0.5) == (1, 0), "the answer has nowhere to go"
        assert joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) == before + 1
        joined.run("h", "nft", "delete", "table", "netdev", "deaf")
        joined.run("g", "ip", "neigh", "flush", "dev", "gn0")
        assert ask(joined, "a", SERVER, 4000, patience=3) == (1, 1), "with the advertisement it goes"


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


TAGGED = """
import socket, struct, sys
interface, to, source, destination, port = sys.argv[1:]
opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
opened.bind((interface, 0))
datagram = struct.pack("!4H", 4000, int(port), 9, 0) + b"x"
header = struct.pack("!2BHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0)
header += socket.inet_aton(source) + socket.inet_aton(destination)
octets = sum(struct.unpack("!10H", header))
octets = (octets & 0xFFFF) + (octets >> 16)
header = header[:10] + struct.pack("!H", ~octets & 0xFFFF) + header[12:]
for tag in (b"", bytes.fromhex("8100002a")):
    opened.send(bytes.fromhex(to.replace(":", "")) + opened.getsockname()[4] + tag + b"\\x08\\x00" + header + datagram)
"""


def test_a_frame_with_the_tag_of_a_vlan_is_none_of_the_realm(joined: Lab) -> None:
    """The realm is what comes without one; the VLAN's own interface may be another realm's."""
    before = joined.count(End.GATEWAY, Reason.FORWARDED_INWARD)
    joined.run("s", "python3", "-c", TAGGED, "sp0", mac(joined, "g", "gp0"), SERVER, str(SHARED), str(PORT))
    assert joined.count(End.GATEWAY, Reason.FORWARDED_INWARD) == before + 1, "of two, one has no tag"


def sink(lab: Lab) -> None:
    """Where a filter sends what it wants away: an interface that is down. (Its own action for that is a module.)"""
    lab.run("g", "ip", "link", "add", "sink", "type", "veth", "peer", "name", "sinkp")


def refuse(lab: Lab, interface: str, hook: str, family: str, *match: str) -> None:
    away = ("action", "mirred", "egress", "redirect", "dev", "sink")
    where = ("dev", interface, hook, "pref", "1", "protocol", family)
    lab.run("g", "tc", "filter", "add", *where, "u32", "match", *match, *away)


@both
def test_filters_before_the_plane_keep_packets_from_it(joined: Lab) -> None:
    """A filter of TC with a smaller preference than ours decides first; what it does not match goes on to the plane."""
    sink(joined)
    outer, family = (60, "ipv6") if joined.way.family is Family.IPV6 else (40, "ip")
    refuse(joined, "gp0", "ingress", "ip", "ip", "dport", str(PORT + 1), "0xffff")
    refuse(joined, "gn0", "ingress", family, "u16", "4002", "0xffff", "at", str(outer + 2))
    with echoing(joined, "a", PORT), echoing(joined, "s", 4000), echoing(joined, "s", 4002):
        assert ask(joined, "s", SHARED, PORT, patience=3) == (1, 1)
        before = joined.count(End.GATEWAY, Reason.FORWARDED_INWARD)
        assert ask(joined, "s", SHARED, PORT + 1, patience=0.5) == (1, 0)
        assert joined.count(End.GATEWAY, Reason.FORWARDED_INWARD) == before
        assert ask(joined, "a", SERVER, 4000, patience=3) == (1, 1)
        before = joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD)
        assert ask(joined, "a", SERVER, 4002, patience=0.5) == (1, 0)
        assert joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) == before


@both
def test_filters_behind_the_plane_have_what_it_forwards(joined: Lab) -> None:
    """At an interface's egress, inside of tunnels as well. (The egress hook of nftables sees nothing that TC redirects.)"""
    sink(joined)
    outer, family = (60, "ipv6") if joined.way.family is Family.IPV6 else (40, "ip")
    refuse(joined, "gp0", "egress", "ip", "ip", "dport", "4002", "0xffff")
    refuse(joined, "gn0", "egress", family, "u16", str(PORT + 1), "0xffff", "at", str(outer + 2))
    with echoing(joined, "s", 4000), echoing(joined, "s", 4002):
        assert ask(joined, "a", SERVER, 4000, patience=3) == (1, 1)
        before = joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD)
        assert ask(joined, "a", SERVER, 4002, patience=0.5) == (1, 0)
        assert joined.count(End.GATEWAY, Reason.FORWARDED_OUTWARD) == before + 1, "the plane forwarded it"
    with echoing(joined, "a", PORT), echoing(joined, "b", PORT + 1):
        assert ask(joined, "s", SHARED, PORT, patience=3) == (1, 1)
        before = joined.count(End.GATEWAY, Reason.FORWARDED_INWARD)
        assert ask(joined, "s", WHOLE, PORT + 1, patience=0.5) == (1, 0)
        assert joined.count(End.GATEWAY, Reason.FORWARDED_INWARD) == before + 1
