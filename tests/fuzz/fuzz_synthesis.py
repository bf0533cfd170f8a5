# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing what an upstream resolver says: an answer to the client's own question, and no alias for what is no host."""

from __future__ import annotations

import random

import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.reversename

from fuzz.mutation import mutate as near
from isthmus.address import Prefix
from isthmus.border.effect import Bind
from isthmus.border.mapping import Mapping
from isthmus.ipae.alias import AliasPool
from isthmus.ipae.neutral import Sockets
from isthmus.ipae.synthesis import Synthesiser, SynthesisPolicy

RUNS = 1_500
ASKED = [
    *((dns.name.from_text(name), rdtype) for name in ("d.example.", "www.example.") for rdtype in ("A", "AAAA")),
    (dns.name.from_text("d.example."), "TYPE65401"),
    (dns.reversename.from_address("fd49:5041:4500:6d74:102:208:c905:7fa"), "PTR"),
]
MAPPING = Mapping.of([(Prefix.parse("129.144.0.0/16"), Prefix.parse_sip("c1.2.2.8/32"))])


def mutate(octets: bytes, rng: random.Random) -> bytes:
    """Change an octet or two in place, most often: what has other lengths hardly ever parses, and says little."""
    if len(octets) <= 12 or rng.random() < 0.2:
        return near(octets, rng)
    changed = bytearray(octets)
    for _ in range(rng.randrange(1, 3)):
        changed[rng.randrange(12, len(changed))] = rng.randrange(256)
    return bytes(changed)


def check(octets: bytes) -> None:
    """Make every kind of answer out of it."""
    try:
        heard = dns.message.from_wire(octets)
    except (dns.exception.DNSException, ValueError):
        return
    policy = SynthesisPolicy(
        site=Prefix.parse_sip("1.213.77.5/32"), sockets=Sockets(), reverse_zone=dns.name.from_text("sip.example.")
    )
    aliases = AliasPool(realm=1, sip=2)
    synthesiser = Synthesiser(policy, aliases=aliases, mapping=MAPPING)
    for name, rdtype in ASKED:
        query = dns.message.make_query(name, rdtype)
        answer = synthesiser.answer(query, [heard] * len(synthesiser.questions(query)), now=0)
        assert (answer.message.id, answer.message.question) == (query.id, query.question)
        assert len(answer.message.to_wire(max_size=512, prefer_truncation=True)) <= 512
        leased = {each.binding.address for each in answer.effects if isinstance(each, Bind)}
        for alias in leased:
            assert 0 < aliases.peer_of(alias).country < 127
        for rrset in answer.message.answer:
            if rrset.rdtype == dns.rdatatype.A and {str(each) for each in rrset} & set(map(str, leased)):
                assert rrset.ttl <= 60
