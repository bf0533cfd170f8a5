# SPDX-License-Identifier: BSD-3-Clause
"""ICMP errors of IP-only routers about IPAE datagrams: the ring, the soft state, and the limits (seed IPAE 4.3; spec 6.4)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isthmus.address import Address
from isthmus.border.crossing import Way
from isthmus.border.effect import Ending, Unbind
from isthmus.border.rules import Rules
from isthmus.border.verdict import Drop, Forward, Pass, Reason, Reply
from isthmus.plane.reference import ReferencePlane
from isthmus.plane.reference.allowance import PER_SECOND, PER_SECOND_OF_ONE, Allowance
from isthmus.plane.reference.ring import KEPT_OCTETS, LIFETIME_SECONDS, SLOTS, IdentificationRing
from isthmus.plane.reference.ways import MOST_WAYS, MTU_SECONDS, STATE_SECONDS, Ways
from isthmus.wire.icmp import IcmpMessage, IcmpType
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.sip.header import SipView
from isthmus.wire.sip.icmp import SipIcmpMessage
from plane.sip_nodes import D_SITE, FAR, LINK, NOW, O_SITE, SIP, SITE, System, ip

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())["icmp_relay"]
SENT_OCTETS = 1444
WAY = Way(FAR, ip("128.1.1.1"), ip("128.2.1.2"))


def border(**more: object) -> ReferencePlane:
    """The border router of the vectors: hosts on a native link, another site behind an IP-only cloud."""
    made = System(
        site=O_SITE,
        ends=((FAR, "128.1.1.1"),),
        nodes=(f"{O_SITE}/128.1.1.1",),
        first=int(VECTORS["rfc792_quote_8"]["outer_id"], 16),
        **more,  # type: ignore[arg-type]
    )
    return made.native([O_SITE], LINK, None).encapsulate([D_SITE], FAR, "128.1.1.1", "128.2.1.2").plane()


def sent() -> bytes:
    """The packet of the vectors, as its host sends it."""
    quoted = bytes.fromhex(VECTORS["relayed_sip_icmp"]["hex"])[32:]
    octets = bytearray(quoted.ljust(SENT_OCTETS, b"z"))
    SipView.parse(octets).hop_limit = 64
    return bytes(octets)


def error(name: str) -> bytes:
    """An ICMP error of the vectors, with what they leave out."""
    text = VECTORS[name]["icmp_datagram"].rstrip(".")
    octets = bytes.fromhex(text[: len(text) // 2 * 2])
    return octets.ljust(octets[2] << 8 | octets[3], b"z")


def send(plane: ReferencePlane, now: float = NOW) -> bytes:
    verdict = plane.process(SIP, sent(), now=now, link=LINK)
    assert isinstance(verdict, Forward), verdict
    return verdict.packets[0]


@pytest.mark.rfc("ipae", "4.3")
def test_the_datagram_of_the_vectors() -> None:
    datagram = send(border())
    assert error("rfc1812_quote")[28:].startswith(datagram[:8])
    view = Ipv4View.parse(datagram)
    assert view.identification == int(VECTORS["rfc1812_quote"]["outer_id"], 16)
    assert view.total_length == 0x05B8 == 20 + SENT_OCTETS


@pytest.mark.rfc("ipae", "4.3")
def test_a_long_quote_is_relayed() -> None:
    plane = border()
    send(plane)
    verdict = plane.process(FAR, error("rfc1812_quote"), now=NOW)
    assert isinstance(verdict, Forward)
    assert (verdict.realm, verdict.reason) == (LINK, Reason.RELAYED)
    assert verdict.packets[0].hex() == VECTORS["relayed_sip_icmp"]["hex"]


@pytest.mark.rfc("ipae", "4.3")
def test_eight_octets_are_relayed_by_the_ring() -> None:
    plane = border()
    send(plane)
    verdict = plane.process(FAR, error("rfc792_quote_8"), now=NOW + 9)
    assert isinstance(verdict, Forward)
    assert verdict.reason is Reason.RELAYED
    view = SipView.parse(verdict.packets[0])
    message = SipIcmpMessage.parse(view.payload)
    assert message.next_hop_mtu == VECTORS["relayed_sip_icmp"]["reported_mtu"]
    whole = bytes.fromhex(VECTORS["relayed_sip_icmp"]["hex"])[32:]
    assert message.body == whole[:KEPT_OCTETS]


@pytest.mark.rfc("ipae", "4.3")
@pytest.mark.parametrize("at", [4, 5, 6, 7])
def test_eight_octets_that_do_not_match_their_slot_concern_nobody(at: int) -> None:
    """The identification, length, type and hop limit have to be guessed together (spec 6.4)."""
    plane = border()
    send(plane)
    octets = bytearray(error("rfc792_quote_8"))
    octets[48 + at] ^= 1
    message = IcmpMessage.parse(octets[20:])
    forged = bytes(octets[:20]) + IcmpMessage(type=3, code=4, rest=message.rest, body=message.body).emit()
    assert plane.process(FAR, forged, now=NOW) == Drop(Reason.FORGED_ERROR)
    assert not plane.ways(now=NOW)
    # Where the ring is not to be looked at, or has gone round since, the error may be about what was sent.
    plane = border(rules=Rules(relay_layers=frozenset({1, 3})))
    send(plane)
    assert plane.process(FAR, forged, now=NOW) == Pass()
    plane = border()
    plane.memory.ring.put(ip("128.9.9.9"), bytes(24), now=NOW - 9)
    for _ in range(SLOTS - 1):
        plane.memory.ring.put(ip("128.9.9.9"), b"", now=NOW)
    send(plane)
    assert plane.process(FAR, forged, now=NOW) == Pass()
    assert plane.ways(now=NOW)


@pytest.mark.rfc("ipae", "4.3")
def test_a_slot_speaks_for_ten_seconds() -> None:
    plane = border()
    send(plane)
    assert plane.process(FAR, error("rfc792_quote_8"), now=NOW + LIFETIME_SECONDS) == Drop(Reason.FORGED_ERROR)


@pytest.mark.rfc("ipae", "4.3")
@pytest.mark.parametrize("layer", [1, 2])
def test_a_layer_that_is_off_does_not_relay(layer: int) -> None:
    plane = border(rules=Rules(relay_layers=frozenset({3, 3 - layer})))
    send(plane)
    verdict = plane.process(FAR, error("rfc1812_quote" if layer == 1 else "rfc792_quote_8"), now=NOW)
    # Layer 2 finds what layer 1 would have read.
    assert isinstance(verdict, Forward) is (layer == 1)


@pytest.mark.rfc("ipae", "4.3")
def test_what_was_learned_can_be_shown_and_told() -> None:
    plane = border()
    send(plane)
    plane.process(FAR, error("rfc792_quote_8"), now=NOW)
    ((way, condition),) = plane.ways(now=NOW)
    assert (way, condition.mtu, condition.down, condition.hops) == (WAY, 1006, None, 0)
    assert [each for each, _ in plane.way_changes(now=NOW)] == [WAY]
    assert plane.way_changes(now=NOW) == []
    assert isinstance(plane.process(SIP, sent(), now=NOW, link=LINK), Reply)
    assert plane.way_changes(now=NOW + MTU_SECONDS) == [(WAY, None)]
    assert plane.ways(now=NOW + MTU_SECONDS) == []
    send(plane, NOW + MTU_SECONDS)


@pytest.mark.rfc("ipae", "4.3")
def test_a_change_of_routes_forgets_the_way() -> None:
    first = int(VECTORS["rfc792_quote_8"]["outer_id"], 16)
    system = System(site=O_SITE, ends=((FAR, "128.1.1.1"),), nodes=(f"{O_SITE}/128.1.1.1",), first=first)
    system.native([O_SITE], LINK, None).encapsulate([D_SITE], FAR, "128.1.1.1", "128.2.1.2")
    plane = system.plane()
    send(plane)
    plane.process(FAR, error("rfc1812_quote"), now=NOW)
    assert plane.ways(now=NOW)
    bound = system.effects[-1]
    plane.apply([Unbind(key=bound.binding.key, ending=Ending.REVOKED)])  # type: ignore[union-attr]
    assert plane.ways(now=NOW) == []


@pytest.mark.rfc("8507", "8.1")
def test_errors_are_limited_for_each_source_and_in_all() -> None:
    allowance, one = Allowance(), ip("10.0.0.1")
    assert [allowance.take(one, now=NOW) for _ in range(PER_SECOND_OF_ONE + 2)] == [True] * PER_SECOND_OF_ONE + [
        False
    ] * 2
    others = [Address(one.family, number) for number in range(PER_SECOND)]
    assert sum(allowance.take(each, now=NOW) for each in others) == PER_SECOND - PER_SECOND_OF_ONE
    assert allowance.take(one, now=NOW + 1)


def test_the_ring_goes_round_and_forgets() -> None:
    ring, end = IdentificationRing(SLOTS - 1), ip("128.2.1.2")
    assert ring.put(end, bytes(100), now=NOW) == SLOTS - 1
    assert ring.put(end, b"\1" * 8, now=NOW) == 0
    found = ring.find(SLOTS - 1, now=NOW)
    assert found is not None
    assert len(found.octets) == KEPT_OCTETS
    assert ring.find(1, now=NOW) is None
    assert ring.number() == 1
    assert ring.has_sent_to(end, now=NOW + 9)
    assert not ring.has_sent_to(ip("128.2.1.3"), now=NOW)
    ring.put(ip("128.2.1.3"), b"", now=NOW + 20)
    assert not ring.has_sent_to(end, now=NOW + 20)


def test_only_a_smaller_mtu_is_learned_and_ways_are_limited() -> None:
    ways = Ways()
    ways.narrow(WAY, 1006, now=NOW)
    ways.narrow(WAY, 1400, now=NOW + 1)
    assert ways.condition(WAY, now=NOW + 1).mtu == 1006
    ways.lose(WAY, ip("10.0.0.1"), now=NOW)
    assert ways.condition(WAY, now=NOW + STATE_SECONDS).down is None
    assert ways.condition(WAY, now=NOW + STATE_SECONDS).mtu == 1006
    for number in range(MOST_WAYS + 5):
        ways.narrow(WAY._replace(remote=Address(WAY.remote.family, number)), 1000, now=NOW)
    assert len(ways.all(now=NOW)) == MOST_WAYS


@pytest.mark.rfc("ipae", "4.3")
def test_a_router_without_a_sip_address_answers_by_what_ipv4_is_in_sip() -> None:
    plane = System(site=O_SITE, ends=((SITE, "192.3.4.2"),)).encapsulate([O_SITE], SITE, "192.3.4.2", None).plane()
    inner = bytearray(sent()[:200])
    inner[4:6] = (176).to_bytes(2, "big")
    header = Ipv4Header(src=ip("192.3.4.1"), dst=ip("192.3.4.2"), protocol=41, total_length=220, ttl=1)
    verdict = plane.process(SITE, header.emit() + bytes(inner), now=NOW)
    assert isinstance(verdict, Reply)
    told = SipView.parse(verdict.packet[20:])
    assert str(told.src) == f"c{O_SITE}/192.3.4.2"
    assert SipIcmpMessage.parse(told.payload).type == IcmpType.TIME_EXCEEDED


@pytest.mark.rfc("ipae", "4.3")
def test_a_router_of_no_site_without_a_sip_address_is_silent() -> None:
    plane = System(ends=((FAR, "128.1.1.1"),)).native([O_SITE], LINK, None).plane()
    header = Ipv4Header(src=ip("201.5.7.250"), dst=ip("128.1.1.1"), protocol=41, total_length=20 + 44, ttl=1)
    octets = bytearray(sent()[:44])
    view = SipView.parse(octets, quoted=True)
    octets[4:6] = (20).to_bytes(2, "big")
    octets[8:16], octets[16:24] = view.dst.octets, view.src.octets
    assert plane.process(FAR, header.emit() + bytes(octets), now=NOW) == Drop(Reason.TTL_EXCEEDED)


def _takes_no_ipae(datagram: bytes) -> bytes:
    """What a kernel says about protocol 41 when nobody on its machine takes it."""
    message = IcmpMessage(type=IcmpType.DESTINATION_UNREACHABLE, code=2, rest=bytes(4), body=datagram[:548]).emit()
    header = Ipv4Header(total_length=20 + len(message), ttl=62, protocol=1, src=WAY.remote, dst=WAY.local)
    return header.emit() + message


@pytest.mark.rfc("ipae", "4.3")
def test_an_end_that_says_that_it_takes_no_ipae_is_tried_once_a_second() -> None:
    """Its isthmus may be starting again, and what was true a second ago holds up connections for thirty."""
    plane = border()
    answer = _takes_no_ipae(send(plane))
    assert isinstance(plane.process(FAR, answer, now=NOW), Forward)
    ((_, condition),) = plane.ways(now=NOW)
    assert condition.down == WAY.remote

    def outcome(now: float) -> type:
        return type(plane.process(SIP, sent(), now=now, link=LINK))

    assert [outcome(NOW + after) for after in (0.0, 0.9, 1.0, 1.5)] == [Reply, Reply, Forward, Reply]
    plane.process(FAR, answer, now=NOW + 1.6)
    assert [outcome(NOW + after) for after in (2.0, 2.5, 2.6, 3.5)] == [Reply, Reply, Forward, Reply]
    assert plane.ways(now=NOW + 3.6) == [], "nobody has said anything for a second"
    assert [outcome(NOW + after) for after in (3.6, 3.7)] == [Forward, Forward]


@pytest.mark.rfc("ipae", "4.3")
def test_an_end_that_a_router_cannot_reach_is_not_tried() -> None:
    """A router asks by ARP for a while before it says so: silence for a second would mean nothing."""
    ways = Ways()
    ways.lose(WAY, ip("128.9.9.9"), now=NOW)
    assert not any(ways.tries(WAY, now=NOW + after) for after in (1.0, STATE_SECONDS - 0.1))
