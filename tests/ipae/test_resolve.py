# SPDX-License-Identifier: BSD-3-Clause
"""Lookups that packets cause: what waits, what is asked, what is remembered."""

import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.mapping import Mapping
from isthmus.ipae import records
from isthmus.ipae.mapping import OwnNetwork, parse
from isthmus.ipae.records import Network
from isthmus.ipae.resolve import (
    FAILED,
    Ask,
    Changed,
    Distrusted,
    Forward,
    LookupRules,
    Outcome,
    Reply,
    Resolver,
    Unreachable,
    reply_of,
)

ZONE = dns.name.from_text("map.example.")
SITE, OTHER = 0x94040003, 0x01D54D05
NONE, NO_NAME = Reply(ttl=300.0), Reply(exists=False, ttl=300.0)


def ip(text):
    return Address.parse(text)


THERE, HERE, SERVER = ip("129.144.7.9"), ip("10.0.0.1"), ip("192.0.2.53")


def found(length, upper=SITE, ttl=3600.0):
    return Reply(networks=(Network(length, upper),), ttl=ttl)


class Scene:
    """A resolver and nameserver in one: names to replies."""

    def __init__(self, zone=None, **rules):
        self.zone = {} if zone is None else zone
        self.resolver = Resolver(LookupRules(zone=ZONE, servers=(SERVER,), **rules))
        self.asked = []
        self.done = []

    def miss(self, destination=THERE, source=HERE, packet=b"p", now=0.0):
        return self.resolver.miss(destination, source, packet, now=now)

    def answer(self, now=0.0):
        """Answer all that was asked, until nothing more is."""
        while effects := self.resolver.next_effects():
            for each in effects:
                if isinstance(each, Ask):
                    self.asked.append(str(each.name.relativize(ZONE)))
                    self.resolver.receive(each, self.reply(each.name), now=now)
                else:
                    self.done.append(each)
        done, self.done = self.done, []
        return done

    def reply(self, name):
        said = self.zone.get(str(name.relativize(ZONE)))
        if said is None:
            below = any(each.endswith(f".{name.relativize(ZONE)}") for each in self.zone)
            return NONE if below else NO_NAME
        return said

    def wait(self, now):
        self.resolver.handle_timer(now)
        return self.answer(now)


def mapping(text):
    return parse(text.encode()).mapping


@pytest.mark.rfc("ipae", "8.1")
def test_the_first_packet_waits_for_the_answer_and_goes_after_the_mapping():
    scene = Scene({"144.129": found(16)})
    assert scene.miss(packet=b"one") is Outcome.HELD
    assert scene.answer() == [Changed(), Forward((b"one",))]
    assert scene.asked == ["129", "144.129", "7.144.129", "9.7.144.129"]
    assert scene.resolver.mapping == mapping("129.144.7.0/24 c20.4.0.3")
    assert scene.miss() is Outcome.FORWARD


def test_at_most_three_packets_wait():
    scene = Scene({"144.129": found(16)})
    outcomes = [scene.miss(packet=b"%d" % each) for each in range(5)]
    assert outcomes == [Outcome.HELD] * 3 + [Outcome.CROWDED] * 2
    assert scene.answer() == [Changed(), Forward((b"0", b"1", b"2"))]
    assert len(scene.asked) == 4


def test_they_wait_for_a_second_and_are_then_unreachable():
    scene = Scene()
    scene.miss(now=0.0)
    asks = scene.resolver.next_effects()
    assert scene.resolver.get_timer() == 1.0
    assert scene.wait(0.9) == []
    assert scene.wait(1.0) == [Unreachable((b"p",))]
    assert scene.miss(now=1.5) is Outcome.CROWDED
    for each in asks:
        scene.resolver.receive(each, {1: NONE, 2: found(16), 3: NO_NAME, 4: NO_NAME}[each.octets], now=2.0)
    assert scene.answer() == [Changed()]
    assert scene.miss(now=2.1) is Outcome.FORWARD


def test_the_longest_network_decides():
    scene = Scene({"129": found(8, OTHER), "144.129": found(12, OTHER), "9.7.144.129": found(32)})
    scene.zone["7.144.129"] = found(24, OTHER)
    scene.miss()
    scene.answer()
    assert scene.resolver.mapping == mapping("129.144.7.9/32 c20.4.0.3")


def test_the_answer_holds_for_as_much_as_is_known_to_be_empty():
    """RFC 8020: below a name that does not exist there is nothing."""
    for zone, block in (
        ({"129": found(8)}, "129.144.0.0/16"),
        ({"144.129": found(16)}, "129.144.7.0/24"),
        ({"7.144.129": found(24)}, "129.144.7.9/32"),
        ({"129": found(8), "8.7.144.129": found(32, OTHER)}, "129.144.7.9/32"),
        ({"129": found(8), "8.144.129": found(24, OTHER)}, "129.144.7.0/24"),
    ):
        scene = Scene(zone)
        scene.miss()
        scene.answer()
        assert scene.resolver.mapping == mapping(f"{block} c20.4.0.3")


def test_what_is_not_mapped_is_remembered_for_all_that_is_not():
    scene = Scene({"144.130": found(16)})
    assert scene.miss() is Outcome.HELD
    assert scene.answer() == [Unreachable((b"p",))]
    assert scene.miss(ip("129.1.2.3")) is Outcome.UNREACHABLE
    assert scene.miss(ip("130.1.2.3")) is Outcome.HELD
    assert scene.resolver.mapping == Mapping.of()


def test_a_negative_answer_ends_with_its_ttl():
    scene = Scene()
    scene.miss()
    scene.answer()
    assert scene.miss(now=299.0) is Outcome.UNREACHABLE
    assert scene.miss(now=300.0) is Outcome.HELD
    scene = Scene(negative_limit=30.0)
    scene.miss()
    scene.answer()
    assert scene.wait(30.0) == []
    assert len(scene.resolver) == 0


def test_an_answer_is_renewed_when_its_ttl_ends():
    scene = Scene({"144.129": found(16, ttl=100.0)})
    scene.miss()
    scene.answer()
    assert scene.resolver.get_timer() <= 100
    scene.zone["144.129"] = found(16, OTHER, ttl=100.0)
    assert scene.wait(100.0) == [Changed()]
    assert scene.resolver.mapping == mapping("129.144.7.0/24 1.213.77.5")
    assert scene.wait(200.0) == []
    del scene.zone["144.129"]
    assert scene.wait(300.0) == [Changed()]
    assert scene.resolver.mapping == Mapping.of()


def test_while_nobody_answers_it_is_used_for_three_times_its_ttl():
    scene = Scene({"144.129": found(16, ttl=100.0)})
    scene.miss()
    scene.answer()
    scene.reply = lambda _: FAILED
    now = 0.0
    while len(scene.resolver.mapping):
        assert now < 300.0
        now = scene.resolver.get_timer()
        scene.wait(now)
    assert now == 300.0
    assert scene.asked.count("144.129") > 10


def test_a_failure_is_remembered_for_a_short_while():
    scene = Scene()
    scene.reply = lambda _: FAILED
    scene.miss()
    assert scene.answer() == [Unreachable((b"p",))]
    assert scene.miss(now=4.9) is Outcome.UNREACHABLE
    assert scene.miss(ip("129.144.7.10"), now=4.9) is Outcome.HELD
    assert scene.miss(now=5.0) is Outcome.HELD


def test_an_answer_that_nobody_needs_any_more_is_forgotten():
    scene = Scene({"144.129": found(16, ttl=0.0)}, renewals=5)
    scene.miss()
    scene.answer()
    now = 0.0
    while len(scene.resolver):
        now = scene.resolver.get_timer()
        scene.wait(now)
    assert now == 60.0
    assert scene.asked.count("144.129") == 6
    assert len(scene.resolver) == 0
    assert scene.resolver.mapping == Mapping.of()


def test_lookups_are_limited_by_source():
    scene = Scene(rate=1.0, burst=2.0)
    outcomes = [scene.miss(ip(f"129.0.0.{each}")) for each in range(4)]
    assert outcomes == [Outcome.HELD, Outcome.HELD, Outcome.RATE, Outcome.RATE]
    assert scene.miss(ip("129.0.0.9"), source=ip("10.0.0.2")) is Outcome.HELD
    assert scene.miss(ip("129.0.0.3"), now=1.0) is Outcome.HELD
    assert scene.miss(ip("129.0.0.4"), now=1.0) is Outcome.RATE


def test_destinations_and_answers_are_limited():
    scene = Scene({"144.129": found(16)}, waiting=3, burst=100.0, remembered=2)
    outcomes = [scene.miss(ip(f"129.144.{each}.1")) for each in range(4)]
    assert outcomes == [Outcome.HELD] * 3 + [Outcome.CROWDED]
    scene.answer()
    assert scene.resolver.mapping == mapping("129.144.1.0/24 c20.4.0.3\n129.144.2.0/24 c20.4.0.3")


def test_a_nameserver_is_never_looked_up_by_itself():
    """T93's bootstrap rule, spec 6.3."""
    scene = Scene()
    assert scene.miss(SERVER) is Outcome.UNREACHABLE
    assert scene.answer() == []


def test_own_networks_are_neither_looked_up_nor_mapped():
    own = (OwnNetwork(Prefix.parse("129.144.8.0/24"), Prefix.parse_sip("1.213.77.5/32")),)
    scene = Scene({"144.129": found(16)}, own=own)
    assert scene.miss(ip("129.144.8.1")) is Outcome.UNREACHABLE
    scene.miss()
    [distrusted, unreachable] = scene.answer()
    assert isinstance(distrusted, Distrusted)
    assert "129.144.8.0/24 is here" in str(distrusted.fault)
    assert unreachable == Unreachable((b"p",))


def test_answers_that_are_no_site_are_distrusted():
    for reply in (found(16, 0x7F000001), found(16, 0x00010203), found(24)):
        scene = Scene({"144.129": reply})
        scene.miss()
        assert isinstance(scene.answer()[0], Distrusted)
        assert scene.resolver.mapping == Mapping.of()


def test_answers_are_forgotten_when_a_new_copy_of_the_zone_counts():
    scene = Scene({"144.129": found(16)})
    scene.miss()
    scene.miss(ip("130.1.1.1"))
    scene.answer()
    assert len(scene.resolver) == 2
    scene.resolver.forget()
    assert scene.answer() == [Changed()]
    assert len(scene.resolver) == 0
    assert scene.resolver.mapping == Mapping.of()


def test_a_late_or_double_reply_does_nothing():
    scene = Scene({"144.129": found(16)})
    scene.miss()
    asks = scene.resolver.next_effects()
    for each in asks * 2:
        scene.resolver.receive(each, scene.reply(each.name), now=0.0)
    assert scene.answer() == [Changed(), Forward((b"p",))]


def test_timers_of_what_was_forgotten_do_not_pile_up():
    """Long answers that are pushed out by others leave nothing behind before their time."""
    resolver = Resolver(LookupRules(zone=ZONE, remembered=8, waiting=8, rate=1e9))
    for number in range(1000):
        destination = Address(Family.IPV4, 0x14000000 + (number << 8))
        resolver.miss(destination, THERE, b"p", now=number)
        for each in resolver.next_effects():
            if isinstance(each, Ask):
                resolver.receive(each, Reply(exists=each.octets < 3, ttl=3600.0), now=number)
    assert len(resolver) == 8
    assert len(resolver._timers) < 64


ASKED = Ask(records.name_of(THERE.number, 2, ZONE), THERE, 2)


def message(*, rcode=dns.rcode.NOERROR, answer=(), soa=True):
    made = dns.message.make_response(dns.message.make_query(ASKED.name, records.NETWORK))
    made.set_rcode(rcode)
    made.answer = list(answer)
    if soa:
        made.authority = [dns.rrset.from_text(ZONE, 900, "IN", "SOA", "ns hostmaster 1 2 3 4 300")]
    return made


def test_messages_are_read():
    record = dns.rrset.from_text(ASKED.name, 60, "IN", "TYPE65400", r"\# 6 011014040003")
    wrong = dns.rrset.from_text(ASKED.name, 60, "IN", "TYPE65400", r"\# 5 0110140400")
    other = dns.rrset.from_text("other.", 60, "IN", "TYPE65400", r"\# 6 011014040003")
    kind = records.NETWORK
    assert reply_of(message(answer=[record]), ASKED, kind) == Reply(networks=(Network(16, SITE),), ttl=60.0)
    assert reply_of(message(), ASKED, kind) == Reply(ttl=300.0)
    assert reply_of(message(answer=[other], soa=False), ASKED, kind) == Reply(ttl=0.0)
    assert reply_of(message(rcode=dns.rcode.NXDOMAIN), ASKED, kind) == Reply(exists=False, ttl=300.0)
    assert reply_of(message(rcode=dns.rcode.SERVFAIL), ASKED, kind) == FAILED
    assert reply_of(message(answer=[wrong]), ASKED, kind) == FAILED
