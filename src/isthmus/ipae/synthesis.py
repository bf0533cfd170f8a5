# SPDX-License-Identifier: BSD-3-Clause
"""Answers of DNS for programs that know no SIP addresses (spec 8.4), in the manner of DNS64 (RFC 6147).

==============  =======================  ====================================================================
asked for       there is                 answer
==============  =======================  ====================================================================
AAAA            AA                       PF:A if C = 0, PC(H):A if C = 1 (``neutral``)
AAAA            neither AA nor AAAA,     the same of the A record's SIP address by the mapping
                but A
A               AA                       the low 32 bits where they mean that host here, else an alias
AA              A only                   its SIP address by the mapping
PTR             under PF, PC, a pool     CNAME to where the SIP address has its PTR record
anything else                            what the upstream server says
==============  =======================  ====================================================================

No I/O: ``questions`` says what to ask an upstream resolver, ``answer`` makes the answer out of what it said, and
which effects have to be carried out before anybody hears it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
from dns.rdatatype import AAAA, CNAME, DNAME, PTR, A

from isthmus.address import Address, Prefix
from isthmus.border.mapping import Mapping
from isthmus.errors import WireError
from isthmus.ipae.alias import AliasEffect, AliasPool, Granted, Overflow
from isthmus.ipae.neutral import Sockets
from isthmus.ipae.records import HOST, emit_host, parse_host, rdata, reverse_name

PAYLOAD_OCTETS = 1232
"What we say in EDNS that we take, and the most that we send by UDP: no fragments (RFC 6891 §6.2.5)."
_LONGEST_CHAIN = 16
_MOST_ADDRESSES = 8
"Of one answer: a zone with hundreds of AA records must not empty the pool of aliases."
_REVERSE_TTL = 60
_FAILED = frozenset({dns.rcode.SERVFAIL, dns.rcode.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisPolicy:
    """What is answered at one place."""

    site: Prefix
    "The SIP site of those who ask: its own low 32 bits mean what they say."
    sockets: Sockets | None = None
    "PF and PC of the machines that ask; None: AAAA is not touched."
    networks: tuple[Prefix, ...] = ()
    "IPv4 networks of the site: a host with an A record in them alone is C = 1 of the site."
    reverse_zone: dns.name.Name | None = None
    "Below which the nibbles of SIP addresses with C = 0 have PTR records."


class Question(NamedTuple):
    """One thing to ask the upstream resolver."""

    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType
    as_asked: bool = False
    "Whether the flags that concern DNSSEC are to be the client's: its answer may be passed on."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, and what has to stand before it is sent."""

    message: dns.message.Message
    effects: tuple[AliasEffect, ...] = ()
    overflow: Overflow | None = None
    "There was no alias to give: the answer is SERVFAIL, or has an address less."


class _Found(NamedTuple):
    """What stands at the end of a chain of CNAMEs."""

    name: dns.name.Name
    chain: tuple[dns.rrset.RRset, ...]
    rrset: dns.rrset.RRset | None


class Synthesiser:
    """Makes answers; it holds nothing but the aliases that it has given."""

    def __init__(
        self, policy: SynthesisPolicy, *, aliases: AliasPool | None = None, mapping: Mapping | None = None
    ) -> None:
        """Begin.

        Args:
            policy: What is answered.
            aliases: The pool for A; None: A is not touched.
            mapping: The mapping table as it stands.
        """
        self._policy = policy
        self.aliases = aliases
        self.mapping = mapping
        "Replaced whole when the mapping changes."

    def questions(self, query: dns.message.Message) -> tuple[Question, ...]:
        """Say what to ask upstream for a query of one question of class IN.

        Returns:
            In the order in which ``answer`` takes what was heard; none where the answer is known to be no.
        """
        (asked,) = query.question
        itself = Question(asked.name, asked.rdtype, as_asked=True)
        if _validates(query):
            # A stub that validates would throw synthesised answers away, and does better without (RFC 6147 §5.5).
            return (itself,)
        mapped = (Question(asked.name, A),) if self.mapping is not None or self._policy.networks else ()
        if asked.rdtype == AAAA and self._policy.sockets is not None:
            return (itself, Question(asked.name, HOST), *mapped)
        if asked.rdtype == A and self.aliases is not None:
            return (itself, Question(asked.name, HOST))
        if asked.rdtype == HOST:
            return (itself, *mapped)
        if asked.rdtype == PTR and (peer := self._stands_for(asked.name)) is not None:
            target = None if peer is _NOBODY else self._reverse(peer)
            return () if target is None else (Question(target, PTR),)
        return (itself,)

    def answer(self, query: dns.message.Message, heard: Sequence[dns.message.Message | None], *, now: float) -> Answer:
        """Make the answer.

        Args:
            query: What the client asked.
            heard: The upstream answers to ``questions``, complete; None for one that did not come.
            now: Seconds since 1970.
        """
        (asked,) = query.question
        if not heard:
            return Answer(message=respond(query, rcode=dns.rcode.NXDOMAIN))
        if asked.rdtype == PTR and self._stands_for(asked.name) is not None and not _validates(query):
            return Answer(message=_renamed(query, heard[0]))
        if len(heard) == 1:
            return Answer(message=_passed_on(query, heard[0]))
        if asked.rdtype == HOST:
            return Answer(message=self._mapped_aa(query, heard[0], heard[1]))
        # Silent: RFC 6147 §5.1.2 takes a server that fails for one without records. Here the A record of a name may
        # mean a stranger if its AA record is not known, so that failing is the better answer; the client asks again.
        if heard[1] is None or heard[1].rcode() in _FAILED:
            return Answer(message=respond(query, rcode=dns.rcode.SERVFAIL))
        found = _at_end(heard[1], asked.name, HOST)
        if found.rrset is not None:
            addresses = _addresses(found.rrset)
            if not addresses:
                return Answer(message=respond(query, rcode=dns.rcode.SERVFAIL))
            if asked.rdtype == A:
                return self._ipv4(query, found, addresses, now)
            return Answer(message=self._ipv6(query, found, addresses))
        if asked.rdtype == AAAA and len(heard) > 2 and heard[0] is not None:
            found = self._by_mapping(heard[2], asked.name)
            if found.rrset is not None and _at_end(heard[0], asked.name, AAAA).rrset is None:
                return Answer(message=self._ipv6(query, found, _addresses(found.rrset)))
        return Answer(message=_passed_on(query, heard[0]))

    def is_plain(self, peer: Address) -> bool:
        """Whether the low 32 bits of a SIP address lead to it from here: in the own site, or by the mapping."""
        if peer.site == self._policy.site:
            return True
        image = None if self.mapping is None else self.mapping.lookup(peer.low)
        # With another C bit, too, it would be another system: that of the mapping might have no IPv4.
        return image is not None and image.address.upper == peer.upper

    def address_of(self, low: Address) -> Address | None:
        """The SIP address of a host that has an A record alone (spec 6.3); None: neither ours nor mapped."""
        if any(low in network for network in self._policy.networks):
            return Address.of_halves(self._policy.site.address.upper, low).with_c_bit(c_bit=True)
        image = None if self.mapping is None else self.mapping.lookup(low)
        return None if image is None else Address.of_halves(image.address.upper, low)

    def _ipv4(self, query: dns.message.Message, found: _Found, addresses: Iterable[Address], now: float) -> Answer:
        assert self.aliases is not None
        assert found.rrset is not None
        ttl, effects, given = float(found.rrset.ttl), list[AliasEffect](), list[Address]()
        overflow: Overflow | None = None
        for peer in addresses:
            if self.is_plain(peer):
                given.append(peer.low)
                continue
            match self.aliases.lease(peer, now=now):
                case Granted() as granted:
                    given.append(granted.alias)
                    effects += granted.effects
                    ttl = min(ttl, granted.ttl)
                case Overflow() as full:
                    overflow = full
        if not given:
            return Answer(message=respond(query, rcode=dns.rcode.SERVFAIL), overflow=overflow)
        records = [dns.rdata.from_text(dns.rdataclass.IN, A, str(each)) for each in given]
        message = _synthesised(query, found, records, ttl=int(ttl))
        return Answer(message=message, effects=tuple(effects), overflow=overflow)

    def _ipv6(self, query: dns.message.Message, found: _Found, addresses: Iterable[Address]) -> dns.message.Message:
        sockets = self._policy.sockets
        assert sockets is not None
        assert found.rrset is not None
        names = [str(sockets.name_of(each)) for each in addresses]
        records = [dns.rdata.from_text(dns.rdataclass.IN, AAAA, each) for each in names]
        return _synthesised(query, found, records, ttl=found.rrset.ttl)

    def _mapped_aa(
        self, query: dns.message.Message, aa: dns.message.Message | None, a: dns.message.Message | None
    ) -> dns.message.Message:
        name = query.question[0].name
        if aa is None or aa.rcode() in _FAILED or _at_end(aa, name, HOST).rrset is not None:
            return _passed_on(query, aa)
        found = self._by_mapping(a, name)
        return _passed_on(query, aa) if found.rrset is None else _synthesised(query, found, list(found.rrset))

    def _by_mapping(self, a: dns.message.Message | None, name: dns.name.Name) -> _Found:
        """The AA records that the A records of an answer are worth."""
        found = _Found(name, (), None) if a is None else _at_end(a, name, A)
        lows = [Address.parse(each.address) for each in found.rrset or ()]
        peers = [emit_host(peer) for low in lows if (peer := self.address_of(low)) is not None]
        if found.rrset is None or not peers:
            return found._replace(rrset=None)
        records = [rdata(HOST, each) for each in peers]
        return found._replace(rrset=dns.rrset.from_rdata_list(found.name, found.rrset.ttl, records))

    def _stands_for(self, name: dns.name.Name) -> Address | None:
        """Which SIP address a reverse name is about; None: it is no affair of ours."""
        try:
            address = Address.parse(dns.reversename.to_address(name))
        except (dns.exception.DNSException, ValueError):
            return None
        if self.aliases is not None and self.aliases.owns(address):
            return self.aliases.peer_of(address) or _NOBODY
        return None if self._policy.sockets is None else self._policy.sockets.to_sip(address)

    def _reverse(self, peer: Address) -> dns.name.Name | None:
        """Where a SIP address has its PTR record. That of an IPv4-only host stays where it was (T93 6.6.3)."""
        if peer.c_bit:
            return dns.reversename.from_address(str(peer.low))
        return None if self._policy.reverse_zone is None else reverse_name(peer, self._policy.reverse_zone)


_NOBODY = Address.parse_sip("0.0.0.0/0.0.0.0")
"Whom an alias stands for that is not leased: it has no name, and no other server has one for it."


def _validates(query: dns.message.Message) -> bool:
    return bool(query.flags & dns.flags.CD and query.ednsflags & dns.flags.DO)


def _at_end(response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> _Found:
    """Follow the CNAMEs of an answer from a name to records of a type, if it has any."""
    chain = [each for each in response.answer if each.rdtype == DNAME]
    for _ in range(_LONGEST_CHAIN):
        found = response.get_rrset(response.answer, name, dns.rdataclass.IN, rdtype)
        if found:
            return _Found(name, tuple(chain), found)
        cname = response.get_rrset(response.answer, name, dns.rdataclass.IN, CNAME)
        if not cname or cname in chain:
            break
        chain.append(cname)
        name = cname[0].target
    return _Found(name, tuple(chain), None)


def _addresses(rrset: dns.rrset.RRset) -> list[Address]:
    """The addresses of AA records that a host can have: what is malformed, reserved or a group is left out."""
    found = []
    for each in rrset:
        try:
            address = parse_host(each.to_wire() or b"")
        except WireError:
            continue
        if address.country and not address.is_multicast:
            found.append(address)
    return found[:_MOST_ADDRESSES]


def respond(query: dns.message.Message, *, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """Make an answer without records to a query.

    AD is off (spec 8.4), CD and DO are the client's (RFC 4035 §3.2.2, RFC 3225 §3); EDNS is there if the client has it.
    """
    response = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD_OCTETS)
    response.flags |= query.flags & dns.flags.CD
    response.ednsflags |= query.ednsflags & dns.flags.DO
    response.set_rcode(rcode)
    return response


def _passed_on(query: dns.message.Message, heard: dns.message.Message | None) -> dns.message.Message:
    """What the upstream server says, negative or not, with its SOA and its signatures."""
    if heard is None:
        return respond(query, rcode=dns.rcode.SERVFAIL)
    response = respond(query, rcode=heard.rcode())
    response.flags |= heard.flags & (dns.flags.AA | dns.flags.AD)
    response.answer, response.authority, response.additional = heard.answer, heard.authority, heard.additional
    return response


def _synthesised(
    query: dns.message.Message, found: _Found, records: Sequence[dns.rdata.Rdata], *, ttl: int | None = None
) -> dns.message.Message:
    assert found.rrset is not None
    response = respond(query, rcode=dns.rcode.NOERROR)
    rrset = dns.rrset.from_rdata_list(found.name, found.rrset.ttl if ttl is None else ttl, records)
    response.answer = [*found.chain, rrset]
    return response


def _renamed(query: dns.message.Message, heard: dns.message.Message | None) -> dns.message.Message:
    """The PTR records of a SIP address for a name that stands for it (RFC 6147 §5.3.1, the second way)."""
    if heard is None or not heard.question or heard.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return respond(query, rcode=dns.rcode.SERVFAIL)
    response = respond(query, rcode=heard.rcode())
    target = dns.rdata.from_text(dns.rdataclass.IN, CNAME, heard.question[0].name.to_text())
    cname = dns.rrset.from_rdata(query.question[0].name, _REVERSE_TTL, target)
    unsigned = [each for each in heard.answer if each.rdtype in (PTR, CNAME, DNAME)]
    response.answer, response.authority = [cname, *unsigned], list(heard.authority)
    return response
