# SPDX-License-Identifier: BSD-3-Clause
"""SIP on a link of a real kernel: frames, neighbours by ARP, offloads that are turned off; and the rules that steer SIP."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
from collections.abc import Iterator

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Translate
from isthmus.border.effect import Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Realm, TunnelEnd, Unmapped
from isthmus.border.selector import Selector
from isthmus.plane.link import offload
from isthmus.plane.link.features import Features, merges
from isthmus.plane.link.neighbour import NativeSender
from isthmus.plane.link.packet import PacketPort
from isthmus.plane.link.steer import Steering, ruleset
from plane.test_machine import inside, run

ROOT = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
]
SIP = bytes.fromhex("600000000004114001d54d05c003040101020208c9050701") + b"abcd"
SITE = Prefix.parse_sip("1.213.77.5")


@pytest.fixture
def link() -> Iterator[tuple[str, str]]:
    """Two namespaces and a wire between them: eth0 without an address, eth1 with one."""
    here, there = (f"ist-{end}-{secrets.token_hex(3)}" for end in ("a", "b"))
    try:
        for name in (here, there):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", here, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", there)
        run("ip", "-n", here, "link", "set", "eth0", "up")
        run("ip", "-n", there, "link", "set", "eth1", "up")
        run("ip", "-n", there, "addr", "add", "201.5.7.1/24", "dev", "eth1")
        yield here, there
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30, check=False)


def wait(sender: NativeSender, seconds: float) -> None:
    if select.select([sender], [], [], seconds)[0]:
        sender.flush()


class TestNeighbours:
    """``NativeSender``."""

    pytestmark = ROOT

    @pytest.mark.rfc("8507", "8.4")
    def test_a_packet_waits_for_its_neighbour_and_has_the_ethertype_of_ipv4(self, link: tuple[str, str]) -> None:
        with inside(link[1]):
            port = PacketPort("eth1")
        with inside(link[0]):
            sender = NativeSender("eth0")
        try:
            # The filter of the port drops what it has seen: ARP has to get through to be answered.
            run("tc", "-n", link[1], "qdisc", "del", "dev", "eth1", "clsact")
            neighbour = Address.parse("201.5.7.1")
            assert sender.send(SIP, neighbour)
            for _ in range(50):
                if port.receive() == SIP:
                    break
                wait(sender, 0.1)
            else:
                pytest.fail("the packet did not come")
            assert port.native
            assert sender.send(SIP + b"", neighbour), "now at once"
            assert select.select([port], [], [], 5)[0]
        finally:
            port.close()
            sender.close()

    def test_of_many_packets_the_last_three_wait_and_none_for_ever(self, link: tuple[str, str]) -> None:
        run("ip", "netns", "exec", link[0], "sysctl", "-qw", "net.ipv4.neigh.eth0.retrans_time_ms=50")
        with inside(link[0]):
            sender = NativeSender("eth0")
        try:
            nobody = Address.parse("201.5.7.99")
            assert all(sender.send(SIP, nobody) for _ in range(5))
            assert sender.waiting == 3
            for _ in range(50):
                wait(sender, 0.1)
                if not sender.waiting:
                    return
            pytest.fail("packets still wait for a neighbour that is not there")
        finally:
            sender.close()

    def test_an_interface_that_is_gone_loses_packets(self, link: tuple[str, str]) -> None:
        with inside(link[0]):
            sender = NativeSender("eth0")
            run("ip", "-n", link[0], "link", "del", "eth0")
            assert sender.vanished
            sender.send(SIP, Address.parse("201.5.7.1"))
            sender.close()


class TestFeatures:
    """``Features``."""

    pytestmark = ROOT

    def test_merging_is_off_for_a_while_and_then_as_it_was(self, link: tuple[str, str]) -> None:
        run("ip", "netns", "exec", link[0], "ethtool", "-K", "eth0", "gro", "on")
        with inside(link[0]):
            features = Features()
            features.turn_off("eth0", sending=True)
            assert not merges("eth0")
            features.restore()
            assert merges("eth0")
            features.turn_off("nowhere0")
            features.restore()


def test_an_open_udp_checksum_over_ipv6_is_never_zero() -> None:
    """The octets add up to ffff, whose complement is 0, which IPv6 does not allow (RFC 8200 §8.1)."""
    packet = bytes.fromhex("600000000008113f") + bytes(32) + bytes.fromhex("00070007 0008 0000") + b""
    start = len(packet) - 8
    missing = 0xFFFF - (7 + 7 + 8)
    packet = packet[: start + 6] + missing.to_bytes(2, "big")
    left = offload.Unfinished(needs_checksum=True, cut=0, size=0, checksum_from=14 + start, checksum_at=6)
    (done,) = offload.finish(packet, left, 14)
    assert done[start + 6 :] == b"\xff\xff"


# --- rules that steer -----------------------------------------------------------------------


def border(unmapped: Unmapped = Unmapped.PASS) -> Border:
    return Border(
        realms=(
            Realm(number=1, name="site", interface="lan0", sip=3, site=SITE, unmapped=unmapped),
            Realm(number=2, name="internet", interface="wan0", sip=3),
            Realm(number=3, name="sip", family=Family.SIP),
        ),
        tunnel_ends=(TunnelEnd(realm=2, address=Address.parse("128.1.1.1"), leads_to=3),),
    )


def of(interface: str, *more: Selector, unmapped: Unmapped = Unmapped.PASS, **mapped: str) -> list[str]:
    by_realm = {1: mapped["site"]} if mapped else None
    text = ruleset("t", border(unmapped), {1: "p1", 2: "p2"}, more, by_realm)
    begin = text.index(f'device "{interface}"')
    end = text.index("\n  }", begin)
    return [line.strip().partition(" fwd ")[0] for line in text[begin:end].splitlines() if " fwd " in line]


@pytest.mark.rfc("ipae", "4.2.1")
def test_sip_frames_datagrams_and_errors_about_them_are_steered() -> None:
    assert of("lan0") == ["ether type ip @nh,0,4 6"]
    assert of("wan0") == [
        "ether type ip @nh,0,4 6",
        "ip daddr 128.1.1.1 ip protocol 41",
        "ip daddr 128.1.1.1 icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    ]


def test_sip_routes_make_no_rules_for_ipv4() -> None:
    route = Selector(realm=3, local=Prefix.parse_sip("1.2.2.8"))
    assert of("wan0", route) == of("wan0")


def test_what_is_mapped_is_steered_and_all_of_ipv4_where_the_unmapped_is_not_routed() -> None:
    alias = Selector(realm=1, local=Prefix.parse("100.64.0.0/16"))
    assert of("lan0", alias, site="ip daddr { 201.5.7.0/24 }")[1:] == [
        "ip daddr 100.64.0.0/16",
        "ip daddr { 201.5.7.0/24 }",
    ]
    assert of("lan0", unmapped=Unmapped.REFUSE)[1:] == [
        "ether type ip @nh,0,4 4 ip daddr != { 224.0.0.0/4, 255.255.255.255 }"
    ]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces")
def test_nft_takes_the_rules_and_aliases_within_a_pool_change_nothing(link: tuple[str, str]) -> None:
    for name in ("lan0", "wan0"):
        run("ip", "-n", link[0], "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    pool = Selector(realm=1, local=Prefix.parse("100.64.0.0/16"))
    alias = Binding(
        key=BindingKey(Owner(3, Address.parse_sip("1.2.2.8/201.5.7.250")), 1),
        selectors=(Selector(realm=1, local=Prefix.parse("100.64.108.191")),),
        crossing=Translate(realm=3, image=Prefix.parse_sip("1.2.2.8/201.5.7.250")),
    )
    entries = [(Prefix.parse(f"201.{at}.0.0/16"), Prefix.parse_sip("c1.2.2.8")) for at in range(20)]
    overlapping = [*entries, (Prefix.parse("201.5.7.0/24"), Prefix.parse_sip("c1.2.2.9"))]
    with inside(link[0]):
        steering = Steering("x", border(), {1: "lan0p", 2: "wan0p"}, [pool])
        try:
            assert steering.covers(alias)
            steering.follow((), [Remap(realm=1, sip=3, mapping=Mapping.of(overlapping))])
            said = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
            assert "100.64.0.0/16" in said
            assert "201.0.0.0" in said
        finally:
            steering.close()
