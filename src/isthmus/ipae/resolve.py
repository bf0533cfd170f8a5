# SPDX-License-Identifier: BSD-3-Clause
"""Looking up a mapping when a packet needs it (seed IPAE 8.1; spec 6.3), without any I/O.

A plane that has no mapping for a destination hands the packet over (``miss``). It waits, beside at most two
more, for at most a second, while four questions are asked at once, one for each number of octets a network
may stand at: for 129.144.7.9 at ``129``, ``144.129``, ``7.144.129`` and ``9.7.144.129`` below the zone. The
longest network among the answers decides.

A name that does not exist has nothing below it (RFC 8020). So where ``7.144.129`` does not exist, the answer holds
for all of 129.144.7.0/24, found or not, and is remembered for it.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import numpy as np

from isthmus.address import Address, Family, Prefix
from isthmus.border.mapping import Mapping
from isthmus.errors import WireError
from isthmus.ipae.mapping import Fault, MappingRefused, OwnNetwork, Rows, accept
from isthmus.ipae.records import NETWORK, Network, name_of, network_at

STALE = 3
"""An answer is used for so many times its TTL while nobody can be asked (spec 6.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupRules:
    """The limits of on-miss lookups; the defaults are those of spec 6.3 where it has any."""

    zone: dns.name.Name
    "The mapping zone, absolute."
    servers: tuple[Address, ...] = ()
    "Who is asked. A packet to one of them never waits for an answer of theirs (bootstrap)."
    own: tuple[OwnNetwork, ...] = ()
    "The networks behind this border: never looked up, never mapped elsewhere."
    rdtype: dns.rdatatype.RdataType = NETWORK
    "What is asked for: network records, or TXT."
    packets: int = 3
    "How many packets to one destination wait."
    seconds: float = 1.0
    "How long they wait."
    rate: float = 10.0
    "Lookups a second that one source may cause,"
    burst: float = 20.0
    "and how many at once."
    waiting: int = 1024
    "Destinations that are looked up at one time."
    remembered: int = 65536
    "Answers, found or not."
    ttl_limit: float = 86400.0
    "Longest TTL that is believed, in seconds,"
    ttl_least: float = 10.0
    "and the shortest, for a network that was found."
    renewals: int = 10
    "How often an answer is asked for again when its TTL ends; then the next packet that needs it has to ask."
    negative_limit: float = 3600.0
    "Longest TTL of a negative answer, in seconds (RFC 2308 §5)."
    failure: float = 5.0
    "For how many seconds nobody is asked again after a failure (RFC 9520 §3.2)."


class Outcome(enum.StrEnum):
    """What became of a packet that missed."""

    HELD = "held"
    "It waits for the answer."
    FORWARD = "forward"
    "The mapping is there by now: send it again."
    UNREACHABLE = "unreachable"
    "There is none: ICMP 3/1."
    CROWDED = "crowded"
    "Too many packets wait, or too many destinations."
    RATE = "rate"
    "Its source caused too many lookups."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a nameserver said about one name."""

    networks: tuple[Network, ...] = ()
    exists: bool = True
    "False: neither the name nor anything below it (NXDOMAIN, RFC 8020)."
    ttl: float = 0.0
    failed: bool = False
    "It said nothing of use, or nothing at all."


FAILED = Reply(failed=True)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a nameserver about a name, and give what it says to ``receive``."""

    name: dns.name.Name
    destination: Address
    octets: int


@dataclass(frozen=True, slots=True)
class Changed:
    """``mapping`` is another now: program it before what follows."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Packets whose mapping has been found, in the order they came."""

    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Packets that have waited in vain: ICMP 3/1 to their sources (spec 6.3)."""

    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Distrusted:
    """An answer that is refused: it maps an own network elsewhere, or to nothing that is a site."""

    fault: Fault


LookupEffect = Ask | Changed | Forward | Unreachable | Distrusted


@dataclass(slots=True)
class _Lookup:
    """One destination that is being asked about."""

    deadline: float
    packets: list[bytes] = field(default_factory=list)
    replies: dict[int, Reply] = field(default_factory=dict)


@dataclass(slots=True)
class _Known:
    """What was answered for a block of addresses."""

    upper: int | None
    "None: not mapped."
    expires: float
    usable: float
    "Until when it is used if nobody answers."
    asked_for: Address
    renewals: int
    "How often it will be asked for again."
    again: float = 0.0
    "When it is next looked at."


class Resolver:
    """Answers of a mapping zone, asked for when packets need them. Time is an argument of every call."""

    def __init__(self, rules: LookupRules) -> None:
        self._rules = rules
        self._lookups: dict[Address, _Lookup] = {}
        self._known: dict[Prefix, _Known] = {}
        self._timers: list[tuple[float, int, Address | Prefix]] = []
        self._sequence = 0
        self._sources: dict[Address, tuple[float, float]] = {}
        self._effects: list[LookupEffect] = []
        self.counts = dict.fromkeys(Outcome, 0)
        "What became of the packets that missed."

    def miss(self, destination: Address, source: Address, packet: bytes, *, now: float) -> Outcome:
        """Take a packet for which the plane has no mapping; counted by what becomes of it.

        Args:
            destination: Its IPv4 destination.
            source: Its IPv4 source.
            packet: All of it; kept if the outcome is HELD, and given back by Forward or Unreachable.
            now: Seconds, monotonic.
        """
        outcome = self._miss(destination, source, packet, now)
        self.counts[outcome] += 1
        return outcome

    def _miss(self, destination: Address, source: Address, packet: bytes, now: float) -> Outcome:
        if destination in self._rules.servers or any(destination in each.prefix for each in self._rules.own):
            return Outcome.UNREACHABLE
        if (known := self._find(destination, now)) is not None:
            known.renewals = self._rules.renewals
            return Outcome.UNREACHABLE if known.upper is None else Outcome.FORWARD
        lookup = self._lookups.get(destination)
        if lookup is not None:
            if len(lookup.packets) >= self._rules.packets or now >= lookup.deadline:
                return Outcome.CROWDED
            lookup.packets.append(packet)
            return Outcome.HELD
        if len(self._lookups) >= self._rules.waiting:
            return Outcome.CROWDED
        if not self._may_ask(source, now):
            return Outcome.RATE
        self._ask(destination, now).packets.append(packet)
        return Outcome.HELD

    def receive(self, asked: Ask, reply: Reply, *, now: float) -> None:
        """Take what a nameserver said, or that none did (FAILED)."""
        lookup = self._lookups.get(asked.destination)
        if lookup is None:
            return
        lookup.replies[asked.octets] = reply
        for octets in range(1, 5):
            each = lookup.replies.get(octets)
            if each is None:
                return
            if not each.exists:
                break
        del self._lookups[asked.destination]
        self._conclude(asked.destination, lookup, now)

    def forget(self) -> None:
        """Forget every answer: a whole new copy of the zone counts now."""
        for block in list(self._known):
            self._forget(block)

    def get_timer(self) -> float | None:
        """When ``handle_timer`` is next to be called."""
        return self._timers[0][0] if self._timers else None

    def handle_timer(self, now: float) -> None:
        """Let what has waited too long go, and ask again for what is about to grow stale."""
        while self._timers and self._timers[0][0] <= now:
            at, _, subject = heapq.heappop(self._timers)
            if isinstance(subject, Address):
                lookup = self._lookups.get(subject)
                if lookup is not None and lookup.deadline == at and lookup.packets:
                    self._effects.append(Unreachable(tuple(lookup.packets)))
                    lookup.packets.clear()
            elif (known := self._known.get(subject)) is not None and known.again == at:
                self._review(subject, known, now)

    def next_effects(self) -> list[LookupEffect]:
        """Take what is to be done, in this order."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def mapping(self) -> Mapping:
        """All that is known to be mapped, block by block."""
        mapped = [(block, each.upper) for block, each in self._known.items() if each.upper is not None]
        return Mapping.from_arrays(
            np.array([block.address.number for block, _ in mapped], np.uint32),
            np.array([block.length for block, _ in mapped], np.uint8),
            np.array([upper for _, upper in mapped], np.uint32),
        )

    @property
    def waiting(self) -> int:
        """How many destinations are being looked up."""
        return len(self._lookups)

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._known)

    def _find(self, destination: Address, now: float) -> _Known | None:
        for length in (32, 24, 16, 8):
            known = self._known.get(_block(destination, length))
            if known is not None and now < known.usable:
                return known
        return None

    def _may_ask(self, source: Address, now: float) -> bool:
        """Take a token out of the source's bucket."""
        tokens, at = self._sources.pop(source, (self._rules.burst, now))
        tokens = min(self._rules.burst, tokens + (now - at) * self._rules.rate)
        while len(self._sources) >= self._rules.waiting:
            del self._sources[next(iter(self._sources))]
        self._sources[source] = (tokens - 1 if tokens >= 1 else tokens, now)
        return tokens >= 1

    def _ask(self, destination: Address, now: float) -> _Lookup:
        lookup = self._lookups[destination] = _Lookup(now + self._rules.seconds)
        self._set_timer(lookup.deadline, destination)
        for octets in range(1, 5):
            self._effects.append(Ask(name_of(destination.number, octets, self._rules.zone), destination, octets))
        return lookup

    def _conclude(self, destination: Address, lookup: _Lookup, now: float) -> None:
        """Put the replies about one destination together."""
        missing = next((octets for octets in range(1, 5) if not lookup.replies[octets].exists), 5)
        replies = [lookup.replies[octets] for octets in range(1, min(missing, 4) + 1)]
        before = next((b for n in (32, 24, 16, 8) if (b := _block(destination, n)) in self._known), None)
        if any(each.failed for each in replies):
            self._fail(destination, before, now)
        else:
            block = _block(destination, 8 * min(missing, 4))
            upper = self._choose(destination, lookup.replies)
            ttl = min(each.ttl for each in replies)
            if upper is None:
                ttl = max(1.0, min(ttl, self._rules.negative_limit))
            else:
                ttl = max(self._rules.ttl_least, min(ttl, self._rules.ttl_limit))
            if before is not None and before != block:
                self._forget(before)
            self._remember(block, upper, ttl, destination, now)
        known = self._find(destination, now)
        if lookup.packets:
            found = known is not None and known.upper is not None
            packets = tuple(lookup.packets)
            self._effects.append(Forward(packets) if found else Unreachable(packets))

    def _choose(self, destination: Address, replies: dict[int, Reply]) -> int | None:
        """The upper half of the longest network that holds the destination and may be believed."""
        found: list[tuple[Prefix, int]] = []
        for octets, reply in replies.items():
            for each in reply.networks:
                try:
                    prefix = network_at(_block(destination, 8 * octets), each.length)
                    row = Rows([prefix.address.number], [prefix.length], [each.upper], [str(self._rules.zone)])
                    accept(row, source=str(self._rules.zone), own=self._rules.own)
                except ValueError as error:
                    self._effects.append(Distrusted(Fault(str(destination), str(error))))
                except MappingRefused as error:
                    self._effects += map(Distrusted, error.faults)
                else:
                    found.append((prefix, each.upper))
        return max(found, key=lambda each: each[0].length)[1] if found else None

    def _fail(self, destination: Address, before: Prefix | None, now: float) -> None:
        """Nobody answered: go on with what was known, or ask nobody for a while."""
        if before is not None:
            known = self._known[before]
            self._look_again(before, known, min(known.usable, now + self._rules.failure))
        else:
            self._remember(_block(destination, 32), None, self._rules.failure, destination, now)

    def _remember(self, block: Prefix, upper: int | None, ttl: float, asked_for: Address, now: float) -> None:
        before = self._known.pop(block, None)
        while len(self._known) >= self._rules.remembered:
            self._forget(next(iter(self._known)))
        usable = now + (ttl if upper is None else STALE * ttl)
        renewals = before.renewals if before is not None else self._rules.renewals
        known = self._known[block] = _Known(upper, now + ttl, usable, asked_for, renewals)
        self._look_again(block, known, now + ttl)
        if upper != (before.upper if before is not None else None):
            self._effects.append(Changed())

    def _forget(self, block: Prefix) -> None:
        if self._known.pop(block).upper is not None:
            self._effects.append(Changed())

    def _look_again(self, block: Prefix, known: _Known, at: float) -> None:
        known.again = at
        self._set_timer(at, block)

    def _review(self, block: Prefix, known: _Known, now: float) -> None:
        """An answer has reached its TTL, or the time at which a failed question is asked again."""
        fresh = known.again == known.expires
        if known.upper is None or now >= known.usable or (fresh and known.renewals == 0):
            self._forget(block)
            return
        if known.asked_for not in self._lookups and len(self._lookups) < self._rules.waiting:
            known.renewals -= fresh
            self._ask(known.asked_for, now)
        self._look_again(block, known, known.usable)

    def _set_timer(self, at: float, subject: Address | Prefix) -> None:
        if len(self._timers) > 2 * (len(self._known) + len(self._lookups)) + self._rules.waiting:
            self._tidy()
        self._sequence += 1
        heapq.heappush(self._timers, (at, self._sequence, subject))

    def _tidy(self) -> None:
        """Drop the timers of what has been forgotten meanwhile, and those that others have taken the place of."""
        timers = []
        for at, sequence, subject in self._timers:
            held = self._lookups.get(subject) if isinstance(subject, Address) else self._known.get(subject)
            if held is not None and at == (held.deadline if isinstance(held, _Lookup) else held.again):
                timers.append((at, sequence, subject))
        heapq.heapify(timers)
        self._timers = timers


def _block(address: Address, length: int) -> Prefix:
    return Prefix(Address(Family.IPV4, address.number >> (32 - length) << (32 - length)), length)


def reply_of(message: dns.message.Message, asked: Ask, rdtype: dns.rdatatype.RdataType) -> Reply:
    """Read what a nameserver said (RFC 2308 §2, §5).

    Args:
        message: Its answer, already matched with the question.
        asked: The question.
        rdtype: The type that was asked for.
    """
    rcode = message.rcode()
    if rcode == dns.rcode.NXDOMAIN:
        return Reply(exists=False, ttl=_negative_ttl(message))
    if rcode != dns.rcode.NOERROR:
        return FAILED
    networks: list[Network] = []
    ttl = None
    for rrset in message.answer:
        if rrset.name == asked.name and rrset.rdtype == rdtype:
            try:
                networks += [found for each in rrset if (found := Network.of_rdata(each)) is not None]
            except WireError:
                return FAILED
            ttl = float(rrset.ttl)
    return Reply(networks=tuple(networks), ttl=_negative_ttl(message) if ttl is None else ttl)


def _negative_ttl(message: dns.message.Message) -> float:
    """For how many seconds a negative answer holds: the lesser of the SOA's TTL and its minimum."""
    soas: Iterable[float] = (
        min(float(rrset.ttl), float(each.minimum))
        for rrset in message.authority
        if rrset.rdtype == dns.rdatatype.SOA
        for each in rrset
    )
    return next(iter(soas), 0.0)
