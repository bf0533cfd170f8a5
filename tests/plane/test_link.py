# SPDX-License-Identifier: BSD-3-Clause
"""Ports, steering and the userspace plane, without a machine."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Ending, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.border.verdict import Reason
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.link import offload, steer
from isthmus.plane.link.memory import MemoryPort
from isthmus.plane.link.packet import PacketPort, raise_ttl
from isthmus.plane.link.port import PuntPort
from isthmus.plane.link.steer import Steering, outside, ruleset
from isthmus.plane.link.userspace import UserspacePlane
from plane.fixture import NOW, build, scene, stage
from plane.test_reference import bind

PRIVATE, PUBLIC = 1, 2


def named(border: Border) -> Border:
    return replace(
        border,
        realms=tuple(
            replace(realm, interface={PRIVATE: "near0", PUBLIC: "pub0"}[realm.number]) for realm in border.realms
        ),
    )


class Plane:
    """A userspace plane with memory ports."""

    def __init__(self, name: str = "gateway", **options: int) -> None:
        border, effects = stage(scene(name))
        self.private = MemoryPort("private", **options)
        self.public = MemoryPort("public", **options)
        self.plane = UserspacePlane(border, {PRIVATE: self.private, PUBLIC: self.public})
        self.plane.apply(effects)

    def put(self, port: MemoryPort, *specs: dict[str, object]) -> int:
        port.waiting.extend(build(spec) for spec in specs)
        return self.plane.service(port, now=NOW)


INWARD = {"ipv4": "192.156.136.22 -> 149.112.240.55", "udp": "53 -> 10000"}
OUTWARD = {
    "outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"},
    "ipv4": "149.112.240.55 -> 192.156.136.22",
    "udp": "10000 -> 53",
}


def test_each_verdict_goes_by_its_port() -> None:
    machine = Plane()
    passed = {**INWARD, "udp": "53 -> 22"}
    exceeded = {**INWARD, "ttl": 1}
    spoofed = {**OUTWARD, "udp": "9 -> 53"}
    assert machine.put(machine.public, INWARD, passed, exceeded) == 3
    assert machine.put(machine.private, OUTWARD, spoofed) == 2
    (inward,) = machine.private.sent
    back, answer, outward = machine.public.sent
    assert (inward[0][16:20], inward[1]) == (Address.parse("10.0.0.4").octets, True)
    assert back == (build(passed), False), "what is not ours goes back as it came, for the machine to take or route"
    assert (answer[0][20], answer[1]) == (11, True)
    assert (outward[0][8], outward[1]) == (63, True)
    assert machine.plane.lost == 0
    assert {reason: count for reason, count in machine.plane.counters().items() if count} == {
        Reason.FORWARDED_INWARD: 1,
        Reason.FORWARDED_OUTWARD: 1,
        Reason.PASSED: 1,
        Reason.REPLIED: 1,
        Reason.SOURCE_PORT_NOT_LEASED: 1,
    }
    assert [violation.reason for violation in machine.plane.events()] == [Reason.SOURCE_PORT_NOT_LEASED]


def test_full_ports_lose_packets_and_nothing_else() -> None:
    machine = Plane(capacity=2)
    assert machine.put(machine.public, *[INWARD] * 5) == 5
    assert len(machine.private.sent) == 2
    assert machine.plane.lost == 3
    machine.private.sent.clear()
    machine.put(machine.public, INWARD)
    assert len(machine.private.sent) == 1


def test_other_ports_have_their_turn() -> None:
    machine = Plane()
    machine.public.waiting.extend([build(INWARD)] * 10)
    assert machine.plane.service(machine.public, now=NOW, most=4) == 4
    assert len(machine.public.waiting) == 6
    assert machine.plane.service(MemoryPort(), now=NOW) == 0, "a port of nobody"


def test_a_host_delivers_without_a_hop() -> None:
    border, effects = stage(scene("host"))
    near, leased = MemoryPort("near"), MemoryPort("leased")
    plane = UserspacePlane(border, {PRIVATE: near, PUBLIC: leased}, take_devices=False)
    plane.apply(
        replace(each, binding=replace(each.binding, device=None)) if hasattr(each, "binding") else each
        for each in effects
    )
    near.waiting.append(build({**INWARD, "outer": {"ipv4": "10.0.0.1 -> 10.0.0.4"}}))
    plane.service(near, now=NOW)
    assert leased.sent == [(build(INWARD), False)]
    leased.waiting.append(build({key: value for key, value in OUTWARD.items() if key != "outer"}))
    plane.service(leased, now=NOW)
    assert near.sent[0][1], "the machine routes the outer packet on"
    plane.close()
    assert near.closed
    assert leased.closed


def test_a_device_that_has_vanished_is_no_error() -> None:
    machine = Plane("host")
    assert machine.put(machine.private, {**INWARD, "outer": {"ipv4": "10.0.0.1 -> 10.0.0.4"}}) == 1
    assert machine.plane.lost == 1
    assert machine.plane.counters()[Reason.FORWARDED_INWARD] == 1


def test_a_realm_without_a_port_loses_what_goes_there() -> None:
    border, effects = stage(scene("gateway"))
    public = MemoryPort()
    plane = UserspacePlane(border, {PUBLIC: public})
    plane.apply(effects)
    public.waiting.append(build(INWARD))
    plane.service(public, now=NOW)
    assert plane.lost == 1


@given(ttl=st.integers(0, 255))
def test_the_kernel_takes_back_what_was_added(ttl: int) -> None:
    packet = build({**INWARD, "ttl": ttl, "options": "nop"})
    raised = raise_ttl(packet)
    assert raised == build({**INWARD, "ttl": min(ttl + 1, 255), "options": "nop"})


# --- steering ---------------------------------------------------------------------------------


def test_rules_name_whatever_may_be_ours_and_no_more() -> None:
    border = named(stage(scene("gateway"))[0])
    text = ruleset("isthmus_x", border, {PRIVATE: "port1", PUBLIC: "port2"})
    assert text.splitlines() == [
        "table netdev isthmus_x",
        "delete table netdev isthmus_x",
        "",
        "table netdev isthmus_x {",
        "  chain from0 {",
        '    type filter hook ingress device "near0" priority -300; policy accept;',
        '    ip daddr 10.0.0.1 ip protocol { 4, 47 } fwd to "port1"',
        '    ip daddr 10.0.0.1 icmp type destination-unreachable icmp code frag-needed fwd to "port1"',
        '    ip saddr 149.112.240.55/32 fwd to "port1"',
        '    ip saddr 149.112.240.56/32 fwd to "port1"',
        '    ip saddr 149.112.240.57/32 fwd to "port1"',
        "  }",
        "  chain from1 {",
        '    type filter hook ingress device "pub0" priority -300; policy accept;',
        '    ip daddr 149.112.240.55/32 meta l4proto { 6, 17 } th dport { 10000-19999 } fwd to "port2"',
        '    ip daddr 149.112.240.55/32 ip protocol 1 fwd to "port2"',
        '    ip daddr 149.112.240.55/32 ip frag-off & 0x3fff != 0 fwd to "port2"',
        '    ip daddr 149.112.240.55/32 ip protocol 50 esp spi { 4096-8191 } fwd to "port2"',
        '    ip daddr 149.112.240.55/32 ip protocol 51 ah spi { 4096-8191 } fwd to "port2"',
        '    ip daddr 149.112.240.56/32 fwd to "port2"',
        '    ip daddr 149.112.240.57/32 fwd to "port2"',
        "  }",
        "}",
    ]


def test_rules_take_all_that_programs_send_at_a_host_end() -> None:
    realms = (
        Realm(number=PRIVATE, name="private", interface="near0"),
        Realm(number=PUBLIC, name="public", interface="progs", end=End.HOST),
        Realm(number=3, name="elsewhere"),
    )
    end = TunnelEnd(realm=PRIVATE, address=Address.parse("10.0.0.4"), leads_to=PUBLIC)
    text = ruleset("isthmus_x", Border(realms=realms, tunnel_ends=(end,)), {PRIVATE: "port1", PUBLIC: "port2"})
    assert 'device "progs"' in text
    assert '    meta protocol ip fwd to "port2"' in text


def test_rules_take_tunnels_over_ipv6_and_the_port_where_cookies_are_learned() -> None:
    realms = (
        Realm(number=PRIVATE, name="private", interface="near0"),
        Realm(number=PUBLIC, name="public", interface="pub0"),
    )
    end = TunnelEnd(realm=PRIVATE, address=Address.parse("2001:db8::1"), leads_to=PUBLIC)
    cookie = Selector(realm=PUBLIC, local=Prefix.parse("192.0.2.9"), kind=Kind.COOKIE)
    text = ruleset(
        "isthmus_x", Border(realms=realms, tunnel_ends=(end,)), {PRIVATE: "port1", PUBLIC: "port2"}, [cookie]
    )
    assert '    ip6 daddr 2001:db8::1 meta l4proto { 4, 47 } fwd to "port1"' in text
    assert '    ip6 daddr 2001:db8::1 icmpv6 type packet-too-big fwd to "port1"' in text
    assert '    ip daddr 192.0.2.9/32 udp dport 500 fwd to "port2"' in text


@pytest.mark.rfc("3102", "6.2")
def test_errors_about_what_was_sent_from_an_address_for_ipsec_only_are_steered_too() -> None:
    local = Prefix.parse("149.112.240.58/32")
    realms = (Realm(number=PUBLIC, name="public", interface="pub0"),)
    for claim in (
        Selector(realm=PUBLIC, local=local, kind=Kind.SPI, values=Ranges.of((4096, 8191))),
        Selector(realm=PUBLIC, local=local, kind=Kind.COOKIE),
    ):
        text = ruleset("isthmus_x", Border(realms=realms, claims=(claim,)), {PUBLIC: "port2"})
        assert 'ip daddr 149.112.240.58/32 ip protocol 1 fwd to "port2"' in text


def test_bindings_outside_of_every_claim_are_steered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(steer, "_nft", said.append)
    border, effects = stage(scene("gateway"))
    border = named(border)
    steering = Steering("x", border, {PRIVATE: "port1", PUBLIC: "port2"})
    plane = UserspacePlane(border, {}, steering=steering)
    plane.apply(effects)
    assert len(said) == 1, "everything bound is claimed"
    effect = bind(ports="80")
    selector = replace(effect.binding.selectors[0], local=Prefix.parse("149.112.240.80"))
    plane.apply([replace(effect, binding=replace(effect.binding, selectors=(selector,)))])
    assert 'ip daddr 149.112.240.80/32 meta l4proto { 6, 17 } th dport { 80 } fwd to "port2"' in said[1]
    assert outside(border, [entry.binding for entry in plane.reference.table]) == [selector]
    plane.apply([Unbind(key=BindingKey(Owner(PRIVATE, Address.parse("10.0.0.4")), 50), ending=Ending.FREED)])
    assert said[2] == said[0]
    plane.close()
    assert said[3] == "table netdev isthmus_x\ndelete table netdev isthmus_x\n"
    plane.close()
    assert len(said) == 4


def test_a_plane_follows_what_was_applied_before_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(steer, "_nft", said.append)
    border = replace(named(stage(scene("gateway"))[0]), claims=())
    plane = UserspacePlane(border, {}, steering=Steering("x", border, {PUBLIC: "port2"}))
    with pytest.raises(PlaneError):
        plane.apply([bind(), bind(bind_id=51)])
    assert "15000-15007" in said[-1]


def test_nft_that_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Error: Operation not permitted\nmore")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(Unsupported, match="Operation not permitted"):
        Steering("x", named(stage(scene("gateway"))[0]), {})

    def absent(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(Unsupported, match="install nftables"):
        Steering("x", named(stage(scene("gateway"))[0]), {})


def test_names_that_an_interface_cannot_have_are_refused() -> None:
    for name in ("", "fifteen-letters"):
        with pytest.raises(PlaneError, match="1 to 14"):
            PuntPort(name)
    with pytest.raises(PlaneError, match="no interface"):
        PacketPort("ist-none")


# --- what a card would have done --------------------------------------------------------------


def left(*, flags: int = 1, cut: int = 0, size: int = 0, start: int = 34, at: int = 16) -> offload.Unfinished:
    return offload.Unfinished.parse(struct.pack("=BBHHHH", flags, cut, 0, size, start, at))


@given(
    data=st.binary(min_size=1, max_size=5000),
    size=st.integers(100, 1460),
    flags=st.sampled_from(["A", "PA", "FPA", "CEA"]),
)
def test_tcp_is_cut_as_a_card_would(data: bytes, size: int, flags: str) -> None:
    header = IP(src="149.112.240.55", dst="192.156.136.22", id=0xFFFE, tos=2, flags="DF")
    tcp = TCP(sport=10000, dport=80, seq=0xFFFFFF00, ack=7, flags=flags, options=[("Timestamp", (1, 2))])
    whole = bytes(header / tcp / Raw(data))
    segments = offload.finish(whole, left(cut=1 | 0x80, size=size), 14)
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert len(segments) == len(chunks)
    for number, (segment, chunk) in enumerate(zip(segments, chunks, strict=True)):
        expected = header.copy() / tcp.copy() / Raw(chunk)
        expected[IP].id = 0xFFFE + number & 0xFFFF
        expected[TCP].seq = 0xFFFFFF00 + number * size & 0xFFFFFFFF
        kept = set(flags) - (set() if number == len(chunks) - 1 else {"F", "P"}) - ({"C"} if number else set())
        expected[TCP].flags = "".join(flag for flag in flags if flag in kept)
        assert segment == bytes(expected)


def test_udp_is_cut_as_a_card_would() -> None:
    header = IP(src="149.112.240.55", dst="192.156.136.22", id=5)
    whole = bytes(header / UDP(sport=10000, dport=53) / Raw(bytes(250)))
    segments = offload.finish(whole, left(cut=5, size=100), 14)
    assert [IP(each)[UDP].len for each in segments] == [108, 108, 58]
    for number, each in enumerate(segments):
        clean = IP(src="149.112.240.55", dst="192.156.136.22", id=5 + number) / UDP(sport=10000, dport=53)
        assert each == bytes(clean / Raw(bytes(min(100, 250 - 100 * number))))


def test_a_checksum_is_finished() -> None:
    whole = bytes(IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=1, dport=2) / Raw(b"abc"))
    pseudo = struct.pack("!4s4sHH", whole[12:16], whole[16:20], 17, len(whole) - 20)
    partial = sum(struct.unpack("!6H", pseudo))
    partial = (partial & 0xFFFF) + (partial >> 16)
    unfinished = whole[:26] + partial.to_bytes(2, "big") + whole[28:]
    assert offload.finish(unfinished, left(at=6), 14) == [whole]
    assert offload.finish(whole, left(flags=0), 14) == [whole]


def test_what_no_card_does_is_lost() -> None:
    whole = bytes(IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=1, dport=2) / Raw(b"abc"))
    assert offload.finish(whole, left(cut=4, size=100), 14) == []
    assert offload.finish(whole, left(cut=5, size=0), 14) == []
    assert offload.finish(whole[:15], left(cut=1, size=100), 14) == []
    assert offload.finish(whole, left(start=9000), 14) == []
    assert offload.finish(whole[:20], left(cut=1, size=100), 14) == []
