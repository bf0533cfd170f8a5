# SPDX-License-Identifier: BSD-3-Clause
"""Answers of DNS for programs that know no SIP addresses (spec 8.4), against a resolver that is a zone in memory."""

from __future__ import annotations

import contextlib
import random

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from fuzz.mutation import mutate
from ipae.resolver import ZONE, recurse, resolve
from isthmus.address import Address, Prefix
from isthmus.border.effect import Bind
from isthmus.border.mapping import Mapping
from isthmus.ipae.alias import AliasPool, Overflow
from isthmus.ipae.neutral import Sockets
from isthmus.ipae.synthesis import Synthesiser, SynthesisPolicy

SITE = Prefix.parse_sip("1.213.77.5/32")
REVERSE = dns.name.from_text("sip.example.")
SOCKETS = Sockets()


def make(*, sockets=SOCKETS, mapping=None, networks=(), reverse=REVERSE, pools=("100.64.0.0/10",), **options):
    policy = SynthesisPolicy(site=SITE, sockets=sockets, networks=networks, reverse_zone=reverse)
    aliases = AliasPool(realm=1, sip=2, pools=tuple(map(Prefix.parse, pools)), **options) if pools else None
    return Synthesiser(policy, aliases=aliases, mapping=mapping)


def ask(synthesiser, name, rdtype, *, now=0.0, failing=(), query=None):
    query = query or dns.message.make_query(dns.name.from_text(name, ZONE.origin), rdtype)
    heard = []
    for each in synthesiser.questions(query):
        failed = failing.get(dns.rdatatype.to_text(each.rdtype), 0) if failing else 0
        upstream = None if failed is None else resolve(each.name, each.rdtype)
        if failed:
            upstream = dns.message.make_response(dns.message.make_query(each.name, each.rdtype))
            upstream.set_rcode(failed)
        heard.append(upstream)
    answer = synthesiser.answer(query, heard, now=now)
    assert answer.message.id == query.id
    assert answer.message.question == query.question
    answer.message.to_wire()
    return answer


def said(answer):
    """Each record of an answer."""
    return [
        f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {rdata}"
        for rrset in answer.message.answer
        for rdata in rrset
    ]


def last(answer):
    return [str(each) for each in answer.message.answer[-1]]


def is_negative(answer, rcode):
    message = answer.message
    return message.rcode() == rcode and [each.rdtype for each in message.authority] == [dns.rdatatype.SOA]


class TestAaaa:
    def test_a_sip_host_is_under_pf(self):
        answer = ask(make(), "d", "AAAA")
        assert said(answer) == ["d.example. 300 AAAA fd49:5041:4500:6d74:102:208:c905:7fa"]
        assert answer.effects == ()

    def test_an_ipv4_host_is_under_pc_of_its_upper_half(self):
        assert last(ask(make(), "old", "AAAA")) == ["fd53:4950:4300:f350:8102:208:c905:7fa"]

    def test_aa_comes_before_the_aaaa_of_another_internet(self):
        assert said(ask(make(), "both", "AAAA")) == ["both.example. 30 AAAA fd49:5041:4500:6d74:102:208:c905:7fa"]

    def test_without_aa_an_aaaa_is_passed_on(self):
        assert last(ask(make(), "six", "AAAA")) == ["2001:db8::6"]

    def test_without_prefixes_aaaa_is_not_touched(self):
        assert last(ask(make(sockets=None), "both", "AAAA")) == ["2001:db8::9"]

    def test_a_host_with_an_a_record_alone_is_known_by_the_mapping(self):
        mapping = Mapping.of([(Prefix.parse("129.144.0.0/16"), Prefix.parse_sip("c1.2.2.8/32"))])
        expected = SOCKETS.name_of(Address.parse_sip("c1.2.2.8/129.144.7.1"))
        assert last(ask(make(mapping=mapping), "plain", "AAAA")) == [str(expected)]
        assert is_negative(ask(make(), "plain", "AAAA"), dns.rcode.NOERROR)

    def test_one_of_the_site_itself_is_c_of_the_site(self):
        site = make(networks=(Prefix.parse("192.3.4.0/24"),))
        expected = SOCKETS.name_of(Address.parse_sip("c1.213.77.5/192.3.4.77"))
        assert last(ask(site, "sitehost", "AAAA")) == [str(expected)]
        assert is_negative(ask(site, "plain", "AAAA"), dns.rcode.NOERROR)


class TestA:
    def test_a_host_that_32_bits_do_not_reach_gets_an_alias(self):
        answer = ask(make(), "d", "A")
        assert said(answer) == ["d.example. 60 A 100.64.108.191"]
        (bind,) = answer.effects
        assert isinstance(bind, Bind)
        assert bind.binding.crossing.image.address == Address.parse_sip("1.2.2.8/201.5.7.250")

    def test_the_ttl_is_that_of_the_alias_at_most(self):
        assert said(ask(make(), "both", "A")) == ["both.example. 30 A 100.64.108.191"]

    def test_aa_comes_before_an_a_record_that_may_mean_a_stranger(self):
        assert "192.0.2.9" not in said(ask(make(), "both", "A"))

    def test_a_host_of_the_own_site_is_what_its_low_32_bits_say(self):
        answer = ask(make(), "near", "A")
        assert said(answer) == ["near.example. 300 A 192.3.4.9"]
        assert answer.effects == ()

    def test_a_host_that_the_mapping_leads_to_is_too(self):
        network = Prefix.parse("201.5.7.0/24")
        for upper, plain in (("1.2.2.8/32", True), ("c1.2.2.8/32", False), ("1.2.2.9/32", False)):
            mapping = Mapping.of([(network, Prefix.parse_sip(upper))])
            assert (last(ask(make(mapping=mapping), "d", "A")) == ["201.5.7.250"]) is plain

    def test_a_name_without_aa_is_passed_on(self):
        assert said(ask(make(), "plain", "A")) == ["plain.example. 300 A 129.144.7.1"]

    def test_without_a_pool_a_is_not_touched(self):
        assert last(ask(make(pools=()), "both", "A")) == ["192.0.2.9"]

    def test_two_sites_10_0_0_7_are_two_aliases(self):
        answer = ask(make(), "many", "A")
        assert len(set(last(answer))) == 2
        assert len(answer.effects) == 2

    def test_what_has_no_alias_is_left_out_and_reported(self):
        synthesiser = make(pools=("100.64.0.0/15",))
        answer = ask(synthesiser, "crowd", "A")
        assert len(last(answer)) == 2
        assert isinstance(answer.overflow, Overflow)

    def test_without_any_alias_the_answer_is_servfail(self):
        synthesiser = make(pools=("100.64.0.0/16",))
        synthesiser.aliases.lease(Address.parse_sip("9.9.9.9/201.5.7.250"), now=0)
        answer = ask(synthesiser, "d", "A")
        assert answer.message.rcode() == dns.rcode.SERVFAIL
        assert answer.overflow is not None

    def test_the_alias_of_a_site_with_c_0_makes_up_for_both_upper_halves(self):
        identity = Address.parse_sip("1.213.77.5/192.3.4.1")
        (plain,), (other,) = (last(ask(make(identity=each), "d", "A")) for each in (None, identity))
        assert plain != other


class TestAa:
    def test_is_passed_on(self):
        assert said(ask(make(), "d", "TYPE65401")) == [r"d.example. 300 TYPE65401 \# 8 01020208c90507fa"]

    def test_is_made_of_the_a_record_by_the_mapping(self):
        mapping = Mapping.of([(Prefix.parse("129.144.0.0/16"), Prefix.parse_sip("c1.2.2.8/32"))])
        assert said(ask(make(mapping=mapping), "plain", "TYPE65401")) == [
            r"plain.example. 300 TYPE65401 \# 8 8102020881900701"
        ]
        assert is_negative(ask(make(mapping=mapping), "sitehost", "TYPE65401"), dns.rcode.NOERROR)


class TestChains:
    @pytest.mark.parametrize(
        ("rdtype", "end"), [("A", "100.64.108.191"), ("AAAA", "fd49:5041:4500:6d74:102:208:c905:7fa")]
    )
    def test_a_chain_of_cnames_stays_in_front_of_what_is_made(self, rdtype, end):
        answer = ask(make(), "www", rdtype)
        chain = ["www.example. 60 CNAME web.example.", "web.example. 300 CNAME d.example."]
        assert said(answer)[:2] == chain
        assert answer.message.answer[2].name == dns.name.from_text("d.example.")
        assert last(answer) == [end]

    def test_a_chain_to_a_name_without_aa_is_passed_on(self):
        assert said(ask(make(), "toplain", "A"))[-1] == "plain.example. 300 A 129.144.7.1"

    def test_a_loop_has_an_end(self):
        assert ask(make(), "loop", "A").message.rcode() == dns.rcode.NOERROR

    def test_a_chain_to_nowhere_is_nxdomain(self):
        answer = ask(make(), "dangling", "A")
        assert is_negative(answer, dns.rcode.NXDOMAIN)
        assert said(answer) == ["dangling.example. 300 CNAME nowhere.example."]


class TestNegative:
    @pytest.mark.parametrize("rdtype", ["A", "AAAA", "TYPE65401", "MX"])
    def test_a_name_that_is_not_there_is_nxdomain_with_the_soa(self, rdtype):
        assert is_negative(ask(make(), "nowhere", rdtype), dns.rcode.NXDOMAIN)

    @pytest.mark.parametrize("rdtype", ["A", "AAAA", "TYPE65401", "MX"])
    def test_a_name_without_such_records_is_nodata_with_the_soa(self, rdtype):
        assert is_negative(ask(make(), "text", rdtype), dns.rcode.NOERROR)

    def test_other_types_are_passed_on(self):
        assert last(ask(make(), "text", "TXT")) == ['"something"']

    @pytest.mark.parametrize("failure", [None, dns.rcode.SERVFAIL, dns.rcode.REFUSED])
    def test_an_aa_that_is_not_known_is_servfail_rather_than_a_strangers_address(self, failure):
        answer = ask(make(), "both", "A", failing={"TYPE65401": failure})
        assert answer.message.rcode() == dns.rcode.SERVFAIL

    def test_a_server_that_knows_no_such_type_has_no_aa(self):
        assert last(ask(make(), "both", "A", failing={"TYPE65401": dns.rcode.NOTIMP})) == ["192.0.2.9"]

    def test_silence_upstream_is_servfail(self):
        assert ask(make(), "text", "TXT", failing={"TXT": None}).message.rcode() == dns.rcode.SERVFAIL

    @pytest.mark.parametrize("name", ["short", "group", "reserved"])
    @pytest.mark.parametrize("rdtype", ["A", "AAAA"])
    def test_an_aa_that_no_host_can_have_is_servfail(self, name, rdtype):
        answer = ask(make(), name, rdtype)
        assert answer.message.rcode() == dns.rcode.SERVFAIL
        assert answer.effects == ()


class TestPtr:
    def reverse(self, synthesiser, address):
        return ask(synthesiser, str(dns.reversename.from_address(address)), "PTR")

    def test_a_pf_address_leads_to_the_nibbles_of_the_sip_address(self):
        answer = self.reverse(make(), "fd49:5041:4500:6d74:102:208:c905:7fa")
        assert answer.message.answer[0].rdtype == dns.rdatatype.CNAME
        assert last(answer) == ["d.example."]

    def test_a_pc_address_leads_to_the_ipv4_hosts_own_name(self):
        synthesiser = make()
        query = dns.message.make_query(dns.reversename.from_address("fd53:4950:4300:f350:8102:208:c905:7fa"), "PTR")
        assert [str(each.name) for each in synthesiser.questions(query)] == ["250.7.5.201.in-addr.arpa."]

    def test_an_alias_leads_to_the_name_of_its_peer(self):
        synthesiser = make()
        alias = last(ask(synthesiser, "d", "A"))[0]
        assert last(self.reverse(synthesiser, alias)) == ["d.example."]

    def test_an_alias_that_nobody_has_is_nxdomain_without_asking(self):
        answer = self.reverse(make(), "100.64.1.2")
        assert answer.message.rcode() == dns.rcode.NXDOMAIN
        assert answer.message.authority == []

    def test_a_host_without_a_reverse_name_is_nxdomain(self):
        answer = self.reverse(make(), "fd49:5041:4500:6d74:102:208:c905:7fb")
        assert is_negative(answer, dns.rcode.NXDOMAIN)

    def test_without_a_reverse_zone_nobody_is_asked(self):
        answer = self.reverse(make(reverse=None), "fd49:5041:4500:6d74:102:208:c905:7fa")
        assert answer.message.rcode() == dns.rcode.NXDOMAIN

    @pytest.mark.parametrize("name", ["250.7.5.201.in-addr.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.", "in-addr.arpa."])
    def test_other_reverse_names_are_passed_on(self, name):
        query = dns.message.make_query(name, "PTR")
        (question,) = make().questions(query)
        assert str(question.name) == name


class TestDnssec:
    @pytest.mark.parametrize("rdtype", ["A", "AAAA"])
    def test_what_is_made_is_not_authenticated(self, rdtype):
        assert not ask(make(), "d", rdtype).message.flags & dns.flags.AD

    def test_what_is_passed_on_is_as_the_server_says(self):
        assert ask(make(), "text", "TXT").message.flags & dns.flags.AD

    def test_a_stub_that_validates_gets_no_synthesis(self):
        query = dns.message.make_query("both.example.", "A", want_dnssec=True)
        query.flags |= dns.flags.CD
        answer = ask(make(), "both", "A", query=query)
        assert last(answer) == ["192.0.2.9"]
        assert answer.message.flags & dns.flags.CD

    def test_one_that_only_wants_signatures_does(self):
        query = dns.message.make_query("both.example.", "A", want_dnssec=True)
        assert last(ask(make(), "both", "A", query=query)) == ["100.64.108.191"]


class TestHostileAnswers:
    """Answers of an upstream server that are damaged, and still parse, make no exception and no address that cannot be."""

    QUERIES = [(name, rdtype) for name in ("d", "www", "many", "loop") for rdtype in ("A", "AAAA", "TYPE65401")]

    def test_mutated(self):
        dice, mapping = (
            random.Random(4),
            Mapping.of([(Prefix.parse("129.144.0.0/16"), Prefix.parse_sip("c1.2.2.8/32"))]),
        )
        synthesiser, made = make(mapping=mapping), 0
        for _ in range(100):
            for name, rdtype in self.QUERIES:
                query = dns.message.make_query(dns.name.from_text(name, ZONE.origin), rdtype)
                heard = [damaged(recurse(each.name, each.rdtype), dice) for each in synthesiser.questions(query)]
                answer = synthesiser.answer(query, heard, now=0)
                answer.message.to_wire(max_size=65535)
                for effect in answer.effects:
                    peer = effect.binding.crossing.image.address if isinstance(effect, Bind) else None
                    assert peer is None or (0 < peer.country < 127)
                    made += 1
        assert made


def damaged(message, dice):
    """A message after a few changes to its octets; None if it cannot be read any more."""
    with contextlib.suppress(dns.exception.DNSException, ValueError):
        return dns.message.from_wire(mutate(message.to_wire(), dice))
    return None
