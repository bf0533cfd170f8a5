# SPDX-License-Identifier: BSD-3-Clause
"""Sites are cut over one at a time, in every order, and back, without a flag day (seed IPAE 8, 8.1).

Real planes and real packets, in memory; the lab plays two of the orders with real programs (``cut-over``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import Encapsulation
from isthmus.border.effect import Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Node, Realm, TunnelEnd
from isthmus.border.verdict import Forward, Pass
from isthmus.ipae.border_router import Milestone, Route, gateways, marked, route_binding, standing
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.icmp import IcmpMessage, IcmpType
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol

NOW = 1_800_000_000.0
SIP, SITE, NET = 1, 2, 3
"""Numbers of the realms of a border router."""
MIDDLE_TTL = 61
"What three routers leave of 64, whatever they speak."


@dataclass(frozen=True, slots=True)
class Site:
    """A site with one host, which knows IPv4 only and is never touched."""

    name: str
    sip: Prefix
    network: Prefix
    outside: Address
    "Its border router's address in the middle."

    @property
    def host(self) -> Address:
        return Address(Family.IPV4, self.network.address.number + 1)

    @property
    def inside(self) -> Address:
        return Address(Family.IPV4, self.network.address.number + 254)


def _site(name: str, sip: str, network: str, outside: str) -> Site:
    return Site(name, Prefix.parse_sip(f"{sip}/32"), Prefix.parse(network), Address.parse(outside))


SITES = (
    _site("p", "1.213.77.5", "192.3.4.0/24", "128.1.1.1"),
    _site("q", "1.2.2.8", "201.5.7.0/24", "128.2.1.1"),
    _site("r", "1.3.1.1", "198.1.3.0/24", "128.3.1.1"),
    _site("s", "2.7.0.1", "129.144.0.0/16", "128.4.1.1"),
)


def _border(site: Site) -> ReferencePlane:
    """A border router that has just been started; its mapping table comes by itself."""
    realms = (
        Realm(number=SIP, name="sip", family=Family.SIP),
        Realm(number=SITE, name="site", sip=SIP, site=site.sip, unmapped=Milestone.I.unmapped),
        Realm(number=NET, name="net", sip=SIP),
    )
    border = Border(
        realms=realms,
        tunnel_ends=(TunnelEnd(realm=NET, address=site.outside, leads_to=SIP),),
        nodes=(Node(realm=SIP, address=Address.of_halves(site.sip.address.upper, site.inside)),),
    )
    routes = [*gateways(SIP, realms)]
    for other in (each for each in SITES if each is not site):
        crossing = Encapsulation(realm=NET, local=site.outside, remote=other.outside, mtu=1480)
        routes += [Route(to=to, crossing=crossing) for to in (other.sip, marked(other.sip))]
    plane = ReferencePlane(border)
    plane.apply(standing(route_binding(SIP, each), now=NOW) for each in routes)
    return plane


@dataclass(slots=True)
class Internet:
    """The sites and the router between them, which knows IPv4 only."""

    planes: dict[Site, ReferencePlane] = field(default_factory=dict)
    "Of those that have been cut over."
    routed: set[Site] = field(default_factory=lambda: set(SITES))
    "Whose networks the middle knows."
    forms: set[tuple[str, str, str]] = field(default_factory=set)
    "From, to, and in what form a packet passed the middle, since the last look."

    def tell(self, site: Site, others: Sequence[Site]) -> None:
        """``isthmus map apply``: those others are SIP sites."""
        mapping = Mapping.of((each.network, marked(each.sip)) for each in others if each is not site)
        self.planes[site].apply([Remap(realm=SITE, sip=SIP, mapping=mapping)])

    def carry(self, source: Site, dest: Site, packet: bytes) -> bytes:
        """Take a packet from a host to the border router, through the middle, and into the other site."""
        packet = self._border(source, SITE, NET, packet)
        view = Ipv4View.parse(packet)
        self.forms.add((source.name, dest.name, "SIP" if view.protocol == 41 else "IPv4"))
        (towards,) = [
            each for each in SITES if view.dst == each.outside or (view.dst in each.network and each in self.routed)
        ]
        return self._border(towards, NET, SITE, _routed(packet))

    def _border(self, site: Site, realm: int, onward: int, packet: bytes) -> bytes:
        plane = self.planes.get(site)
        verdict = Pass() if plane is None else plane.process(realm, packet, now=NOW)
        if isinstance(verdict, Pass):
            assert Ipv4View.parse(packet).dst != site.outside, f"nobody at {site.name} takes SIP"
            return _routed(packet)
        assert isinstance(verdict, Forward), verdict
        assert verdict.realm == onward
        (sent,) = verdict.packets
        return sent


def _routed(packet: bytes) -> bytes:
    """What a router of IPv4 does to a packet."""
    octets = bytearray(packet)
    Ipv4View.parse(octets).ttl -= 1
    return bytes(octets)


def _packets() -> Iterator[tuple[Protocol, bytes]]:
    """Transports of all kinds, in turn; whether the checksum of TCP and UDP is right is not for anybody to look at."""
    yield from itertools.cycle(
        [
            (Protocol.TCP, bytes.fromhex("c00000070102030405060708501820003119000068656c6c6f2c2049504145")),
            (Protocol.UDP, bytes.fromhex("c0000007001300006865") + b"llo, IPAE"),
            (
                Protocol.ICMP,
                IcmpMessage(type=IcmpType.ECHO, rest=b"\x12\x34\x00\x01", body=b"hello, IPAE").emit(),
            ),
            (Protocol.ICMP, IcmpMessage(type=IcmpType.ECHO_REPLY, rest=b"\x12\x34\x00\x01", body=b"hello").emit()),
            (Protocol.GRE, b"\0\0\x65\x58not that anybody reads this"),
        ]
    )


PACKETS = _packets()
PAIRS = tuple(itertools.permutations(SITES, 2))


def everybody_talks(internet: Internet, tables: dict[Site, set[Site]]) -> None:
    """Every host reaches every other, by SIP where a table says so, and what arrives is what was sent."""
    internet.forms.clear()
    for source, dest in PAIRS:
        protocol, payload = next(PACKETS)
        header = Ipv4Header(
            total_length=20 + len(payload),
            identification=0xBAD,
            df=True,
            ttl=64,
            protocol=protocol,
            src=source.host,
            dst=dest.host,
        )
        arrived = Ipv4View.parse(internet.carry(source, dest, header.emit() + payload))
        assert (arrived.src, arrived.dst, arrived.protocol) == (source.host, dest.host, protocol)
        assert arrived.ttl == MIDDLE_TTL
        assert arrived.df
        assert arrived.checksum_ok
        assert bytes(arrived.payload) == payload
    expected = {(a.name, b.name, "SIP" if b in tables.get(a, set()) else "IPv4") for a, b in PAIRS}
    assert internet.forms == expected


def _names(order: Sequence[Site]) -> str:
    return "".join(each.name for each in order)


@pytest.mark.rfc("ipae", "2.4")
@pytest.mark.rfc("ipae", "8")
@pytest.mark.rfc("ipae", "8.1")
@pytest.mark.parametrize("order", list(itertools.permutations(SITES)), ids=_names)
def test_sites_are_cut_over_one_at_a_time_in_any_order_and_back(order: Sequence[Site]) -> None:
    internet, tables = Internet(), dict[Site, set[Site]]()
    everybody_talks(internet, tables)
    for site in order:
        before = list(tables)
        internet.planes[site] = _border(site)
        everybody_talks(internet, tables)
        internet.tell(site, before)
        tables[site] = set(before)
        everybody_talks(internet, tables)
        for other in before:
            tables[other].add(site)
            internet.tell(other, list(tables[other]))
            everybody_talks(internet, tables)
    internet.routed.clear()
    everybody_talks(internet, tables)
    internet.routed.update(SITES)
    for site in order:
        for other in order:
            if other is not site and site in tables.get(other, set()):
                tables[other].remove(site)
                internet.tell(other, list(tables[other]))
                everybody_talks(internet, tables)
        del tables[site], internet.planes[site]
        everybody_talks(internet, tables)
    assert all(form == "IPv4" for _, _, form in internet.forms)


@pytest.mark.rfc("ipae", "8.1")
def test_a_site_that_is_announced_before_it_is_cut_over_is_cut_off() -> None:
    """Why the order of the two halves of a step matters: publish a site only once its gateway works (T93 App. 2)."""
    internet = Internet({SITES[0]: _border(SITES[0])})
    internet.tell(SITES[0], [SITES[1]])
    with pytest.raises(AssertionError, match="nobody at q takes SIP"):
        everybody_talks(internet, {SITES[0]: {SITES[1]}})
