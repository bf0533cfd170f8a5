# SPDX-License-Identifier: BSD-3-Clause
"""SIP routes from a routing daemon that knows of IPv6 only (seed IPAE 6.3; spec 2.4, 6.5).

Routing protocols for SIP were those of IPv4 with longer addresses (spec 6.5). Those of IPv6 have room enough: a SIP
prefix is carried behind the /64 under which programs know SIP addresses, too (spec 8.2), and a next system by an
address in which the low 32 bits are those that ARP or IPAE finds it by::

    SIP                         carried as                                    bits
    1.2.2.8/32                  fd49:5041:4500:6d74:102:208::/96              64 + n
    1.2.2.8/201.5.7.0/56        fd49:5041:4500:6d74:102:208:c905:700/120
    ::/0                        fd49:5041:4500:6d74::/64
    next system 128.2.1.9       fe80::8002:109, on the link that the route says
                                fd49:5041:4500:6d74:102:208:8002:109, its SIP address

A prefix carried with C = 0 holds for both values of C, unless one with C = 1 is carried as well: routers in transit do
not care about C (spec 2.4). What the configuration says comes before what is learned for the very same prefix.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native
from isthmus.border.effect import Bind, Ending, Unbind
from isthmus.ipae.border_router import Route, route_binding, standing

ORIGIN = "learned"
"""``Route.origin`` of what a routing daemon said."""
LINK_LOCAL = Prefix.parse("fe80::/96")
"""Link-local addresses that end with an IPv4 address and have nothing before it."""
_FULL_BITS = 64
_COUNTRY_BITS = 8
"C and the country: what tells groups and what is reserved."


class Refusal(enum.Enum):
    """Why a route is not used: (identifier, sentence, whether somebody ought to look at it)."""

    NOT_CARRIED = "not-carried", "It does not lie in the prefix that SIP is carried in.", False
    PROTOCOL = "protocol", "It is of a protocol that is not learned from.", False
    NO_NEXT_SYSTEM = "no-next-system", "It names no next system, as routes to oneself and to nowhere.", False
    CONFIGURED = "configured", "The configuration has a route for the same prefix.", False
    LINK_DOWN = "link-down", "Its link is down.", False
    OTHER_LINK = "other-link", "It leaves by an interface of no realm.", True
    UNREADABLE = "unreadable", "Its next system is known by no address that ends with an IPv4 address.", True
    RESERVED = "reserved", "Nobody can have such addresses: a group, or country 0.", True
    OWN_SITE = "own-site", "It leads out of a site of ours and to an address of it.", True
    LIMIT = "limit", "There are more than may be learned.", True

    @property
    def sentence(self) -> str:
        """What is the matter."""
        return self.value[1]

    @property
    def is_wrong(self) -> bool:
        """Whether it tells of a mistake or an attack, and not of an ordinary state of things."""
        return self.value[2]

    def __str__(self) -> str:
        """The identifier."""
        return self.value[0]


@dataclass(frozen=True, slots=True)
class Hop:
    """One next system of a route."""

    interface: int
    "Number of the network interface."
    gateway: Address | None = None
    "IPv6 address of the next system; None: the destination is on the link."
    down: bool = False
    "Whether its link does not carry at present."


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One IPv6 route of a routing table."""

    to: Prefix
    hops: tuple[Hop, ...] = ()
    "Several: any of them will do. None: the route leads nowhere."
    metric: int = 0
    "The smallest counts."
    protocol: int = 0
    "Who entered it, by the kernel's number (RTPROT_BIRD is 12)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The link of one realm, by which next systems are reached."""

    realm: int
    "Number of the realm."
    site: Prefix | None = None
    "The site whose link it is."
    ends: tuple[tuple[Address, Prefix], ...] = ()
    """Our IPv4 addresses there and their networks, where next systems are reached inside of IPv4; empty: SIP goes on
    the link as it is."""
    mtu: int = 1480
    "Largest SIP packet inside of IPv4, in octets."

    def crossing(self, neighbour: Address) -> Crossing:
        """How packets get to a next system.

        Args:
            neighbour: Its IPv4 address.
        """
        if not self.ends:
            return Native(realm=self.realm, neighbour=neighbour)
        local = next((address for address, network in self.ends if neighbour in network), self.ends[0][0])
        return Encapsulation(realm=self.realm, local=local, remote=neighbour, mtu=self.mtu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is learned."""

    full: Prefix
    "The /64 of IPv6 that SIP prefixes are carried in."
    protocols: frozenset[int]
    "Whose routes count, by the kernel's numbers."
    sites: tuple[Prefix, ...] = ()
    "Our own: no route may lead out of them and to them (spec 9.4)."
    configured: frozenset[Prefix] = frozenset()
    "SIP prefixes that have a route already."
    most: int = 10_000
    "How many prefixes may be learned; the shorter come first."


@dataclass(slots=True)
class Learned:
    """What came of a routing table."""

    routes: dict[Prefix, Crossing] = field(default_factory=dict)
    "By SIP prefix."
    refused: dict[Refusal, list[Prefix]] = field(default_factory=dict)
    "IPv6 prefixes that no route could be had for, in order."


def carried(prefix: Prefix, full: Prefix) -> Prefix:
    """The IPv6 prefix that carries a SIP prefix.

    Args:
        prefix: Of 0 to 64 bits; the C bit counts.
        full: The /64.
    """
    # Silent: the seed leaves routing to protocols of SIP and of IPv4 (4.4), and there is none of SIP. Those of IPv6 do,
    # with SIP addresses where programs have them already (spec 8.2).
    number = full.address.number | prefix.address.number
    return Prefix(Address(Family.IPV6, number), _FULL_BITS + prefix.length)


def sip_prefix(route: Prefix, full: Prefix) -> Prefix | None:
    """The SIP prefix that an IPv6 prefix carries; None: it carries none."""
    if not full.covers(route):
        return None
    return Prefix(Address(Family.SIP, route.address.number & (1 << _FULL_BITS) - 1), route.length - _FULL_BITS)


def neighbour(gateway: Address, full: Prefix) -> Address | None:
    """The IPv4 address of a next system: the low 32 bits of its SIP address, or of fe80::a.b.c.d.

    Returns:
        None for any other address, such as a link-local one that was made from an Ethernet address.
    """
    if gateway not in full and gateway not in LINK_LOCAL:
        return None
    low = Address(Family.IPV4, gateway.number & 0xFFFFFFFF)
    first = low.number >> 24
    return low if 0 < first < 224 and first != 127 else None


def learn(offers: Iterable[Offer], links: Mapping[int, Link], policy: Policy) -> Learned:
    """Choose the SIP routes of a routing table.

    Args:
        offers: The IPv6 routes of the table, in any order.
        links: The links of our realms, by the number of their interface.
        policy: What is learned.
    """
    found: dict[Prefix, list[tuple[Offer, Crossing | Refusal]]] = {}
    for offer in offers:
        found.setdefault(offer.to, []).append((offer, _judge(offer, links, policy)))
    learned = Learned()
    chosen: dict[Prefix, Crossing] = {}
    for to in sorted(found, key=lambda each: (each.length, each.address.number)):
        ranked = [each for _, each in sorted(found[to], key=lambda each: (each[0].metric, each[0].protocol))]
        usable = next((each for each in ranked if not isinstance(each, Refusal)), None)
        prefix = sip_prefix(to, policy.full)
        if usable is None or prefix is None:
            _refuse(learned, to, next(each for each in ranked if isinstance(each, Refusal)))
        elif len(chosen) >= policy.most:
            _refuse(learned, to, Refusal.LIMIT)
        else:
            chosen[prefix] = usable
    for prefix, crossing in chosen.items():
        entries = [each for each in _entries(prefix, chosen) if each not in policy.configured]
        if not entries:
            _refuse(learned, carried(prefix, policy.full), Refusal.CONFIGURED)
        learned.routes.update(dict.fromkeys(entries, crossing))
    return learned


def _refuse(learned: Learned, to: Prefix, why: Refusal) -> None:
    learned.refused.setdefault(why, []).append(to)


def _entries(prefix: Prefix, chosen: Mapping[Prefix, Crossing]) -> tuple[Prefix, ...]:
    """The prefixes that a carried one is entered as: both values of C, unless C = 1 has a route of its own."""
    # Silent: nothing says which C bit a route is for; in transit none matters (spec 2.4), so one route stands for both.
    if prefix.length == 0 or prefix.address.c_bit:
        return (prefix,)
    marked = Prefix(prefix.address.with_c_bit(c_bit=True), prefix.length)
    return (prefix,) if marked in chosen else (prefix, marked)


def _judge(offer: Offer, links: Mapping[int, Link], policy: Policy) -> Crossing | Refusal:
    """The crossing of one route, or why it has none."""
    prefix = sip_prefix(offer.to, policy.full)
    if prefix is None:
        return Refusal.NOT_CARRIED
    if offer.protocol not in policy.protocols:
        return Refusal.PROTOCOL
    if prefix.length >= _COUNTRY_BITS and (prefix.address.country == 0 or prefix.address.is_multicast):
        return Refusal.RESERVED
    why = Refusal.NO_NEXT_SYSTEM
    for hop in sorted(offer.hops, key=lambda each: (each.interface, each.gateway or _NOBODY)):
        judged = _by_hop(hop, prefix, links, policy)
        if not isinstance(judged, Refusal):
            return judged
        why = judged
    return why


_NOBODY = Address(Family.IPV6, 0)


def _by_hop(hop: Hop, prefix: Prefix, links: Mapping[int, Link], policy: Policy) -> Crossing | Refusal:
    if hop.gateway is None:
        return Refusal.NO_NEXT_SYSTEM
    link = links.get(hop.interface)
    if link is None:
        return Refusal.OTHER_LINK
    low = neighbour(hop.gateway, policy.full)
    if low is None:
        return Refusal.UNREADABLE
    own = next((site for site in policy.sites if site.covers(_without_c(prefix))), None)
    if own is not None and link.site != own:
        return Refusal.OWN_SITE
    return Refusal.LINK_DOWN if hop.down else link.crossing(low)


def _without_c(prefix: Prefix) -> Prefix:
    return Prefix(prefix.address.with_c_bit(c_bit=False), prefix.length)


def changes(
    before: Mapping[Prefix, Crossing], after: Mapping[Prefix, Crossing], *, sip: int, now: float
) -> tuple[Bind | Unbind, ...]:
    """What leads from one set of routes to another: new and changed ones are bound before old ones go.

    Args:
        before: What is bound, by SIP prefix.
        after: What is to be.
        sip: Number of the SIP realm.
        now: Seconds since 1970.
    """
    new = [each for each in after.items() if before.get(each[0]) != each[1]]
    binds = [standing(route_binding(sip, Route(to=to, crossing=by, origin=ORIGIN)), now=now) for to, by in new]
    gone = [BindingKey(Owner(sip, to.address), to.length) for to in before if to not in after]
    return (*binds, *(Unbind(key=key, ending=Ending.REVOKED) for key in gone))
