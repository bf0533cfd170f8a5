# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing the answers of nameservers: a reply to a question of ours, and a zone's records."""

from __future__ import annotations

import contextlib

import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.xfr

from isthmus.address import Address, Prefix
from isthmus.ipae import records
from isthmus.ipae.mapping import MappingRefused, OwnNetwork
from isthmus.ipae.resolve import Ask, Changed, Distrusted, Forward, LookupRules, Resolver, Unreachable, reply_of
from isthmus.ipae.zone_records import ZoneRecords

ZONE = dns.name.from_text("map.example.")
OWN = OwnNetwork(Prefix.parse("129.144.8.0/24"), Prefix.parse_sip("1.213.77.5/32"))
C_HERE = Address.parse_sip("c1.213.77.5/0.0.0.0")
THERE, HERE = Address.parse("129.144.7.9"), Address.parse("10.0.0.1")


def transferred(octets: bytes) -> None:
    """Give the message as a whole transfer: a mapping of all of it, a refusal, or nothing at all is changed."""
    content = ZoneRecords(ZONE)
    try:
        with dns.xfr.Inbound(content, dns.rdatatype.AXFR) as inbound:
            done = inbound.process_message(dns.message.from_wire(octets, xfr=True))
    except (dns.exception.DNSException, ValueError):
        assert not len(content)
        return
    assert done == bool(len(content))
    with contextlib.suppress(MappingRefused):
        assert content.mapping([OWN]).lookup(OWN.prefix.address) in (None, OWN.site, Prefix(C_HERE, 32))
    assert 0 <= content.least_ttl() <= 86400


def check(octets: bytes) -> None:
    """Give the message as the answer to every question, and as the content of a zone."""
    try:
        message = dns.message.from_wire(octets)
    except dns.exception.DNSException:
        return
    resolver = Resolver(LookupRules(zone=ZONE, own=(OWN,)))
    resolver.miss(THERE, HERE, b"packet", now=0.0)
    released = 0
    for asked in resolver.next_effects():
        assert isinstance(asked, Ask)
        resolver.receive(asked, reply_of(message, asked, records.NETWORK), now=0.1)
    for effect in resolver.next_effects():
        assert isinstance(effect, Changed | Distrusted | Forward | Unreachable)
        released += isinstance(effect, Forward | Unreachable)
    assert released == 1
    assert resolver.mapping.lookup(OWN.prefix.address) is None
    while (at := resolver.get_timer()) is not None and at < 100_000:
        resolver.handle_timer(at)
        for effect in resolver.next_effects():
            if isinstance(effect, Ask):
                resolver.receive(effect, reply_of(message, effect, records.NETWORK), now=at)
    transferred(octets)
    try:
        pairs = [(rrset.name, each) for rrset in message.answer for each in rrset]
        mapping = records.mapping_of(pairs, ZONE, own=[OWN])
    except MappingRefused:
        return
    image = mapping.lookup(OWN.prefix.address)
    assert image is None or image.address.site == OWN.site
