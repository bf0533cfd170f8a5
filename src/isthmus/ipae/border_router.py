# SPDX-License-Identifier: BSD-3-Clause
"""A border router: which bindings its routes, gateways and aliases come to (seed IPAE 6.3; spec 6).

Everything that IPAE forwards by is a binding of the one table. A route is one of the SIP realm; a gateway to an IPv4
site two that mirror each other's addresses::

    selector (realm)              crossing                      function (seed IPAE 6.3)
    1.2.2.8/32       (SIP)        Encapsulation(128.2.1.2)      a, c: forward, encapsulate
    1.2.2.8/32       (SIP)        Native(lan2)                  a: forward
    c1.213.77.5/32   (SIP)        Translate(site, 0.0.0.0/0)    d: gateway to our own site
    10.0.0.7/32      (site)       Translate(SIP, 1.2.2.8/...)   d: a SIP-only host of the site, or an alias

The mapping table, a million prefixes, is not here: it is one value, ``border.effect.Remap``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.effect import Bind
from isthmus.border.realm import Foreign, Realm, Unmapped
from isthmus.border.selector import Selector
from isthmus.ipae.format import Scope

ALL_IPV4 = Prefix.parse("0.0.0.0/0")
_C = 1 << 63
_SITE_BITS = 32


class Milestone(enum.Enum):
    """How far the change has come (seed IPAE 8; spec 7): (no mapping, no image, how far implicit tunnels reach)."""

    I = Unmapped.PASS, Foreign.LOW, Scope.ANY, 1  # noqa: E741 - the spec's letter
    "Border routers only; IPv4 addresses are unique, and IPv4 routes are still there."
    H = Unmapped.PASS, Foreign.LOW, Scope.ANY, 2
    "Hosts become IPAE systems."
    R = Unmapped.REFUSE, Foreign.ASK, Scope.SITE, 3
    "IPv4 addresses mean something only within their site."
    S = Unmapped.REFUSE, Foreign.ASK, Scope.SITE, 4
    "Sites speak SIP only."

    @property
    def unmapped(self) -> Unmapped:
        """What becomes of IPv4 to where no mapping leads."""
        return self.value[0]

    @property
    def foreign(self) -> Foreign:
        """By what IPv4-only hosts know a SIP system without an image; aliases need a pool."""
        return self.value[1]

    @property
    def scope(self) -> Scope:
        """How far implicit tunnels reach (erratum E22)."""
        return self.value[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of the SIP routing table."""

    to: Prefix
    "Of 64 bits; the C bit counts."
    crossing: Crossing
    origin: str = "configuration"
    "Who made it: the configuration, what follows from it, or a routing daemon."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something in a configuration that IPAE does not allow."""

    at: int
    "Which route, counted from 0."
    reason: str


def route_binding(sip: int, route: Route, *, device: str | None = None) -> Binding:
    """The binding of a route.

    Args:
        sip: Number of the SIP realm.
        route: Prefix and crossing.
        device: Of a Translate to the sockets of this machine: the plane's end of the device that takes the packets.
    """
    return Binding(
        key=BindingKey(Owner(sip, route.to.address), route.to.length),
        selectors=(Selector(realm=sip, local=route.to),),
        crossing=route.crossing,
        device=device,
    )


def gateways(sip: int, realms: Iterable[Realm]) -> tuple[Route, ...]:
    """The gateway to each IPv4 site: its C = 1 addresses become IPv4 (seed IPAE 5.2; T93 5.4).

    A site at several links has none by itself: which of them leads to its IPv4 hosts is for a route to say.
    """
    of_sites = [(realm.site, realm.number) for realm in realms if realm.site is not None and realm.sip == sip]
    sites = [site for site, _ in of_sites]
    return tuple(
        Route(to=marked(site), crossing=Translate(realm=number, image=ALL_IPV4), origin="gateway")
        for site, number in of_sites
        if sites.count(site) == 1
    )


def known_host(sip: int, realm: int, address: Address) -> Binding:
    """Let the IPv4 hosts of a site know a SIP-only host of it by its low 32 bits, as if by a mapping of one address.

    Args:
        sip: Number of the SIP realm.
        realm: Number of the IPv4 realm.
        address: The SIP-only host's.
    """
    low = Prefix.of(address.low)
    return Binding(
        key=BindingKey(Owner(realm, low.address), low.length),
        selectors=(Selector(realm=realm, local=low),),
        crossing=Translate(realm=sip, image=Prefix.of(address)),
    )


def standing(binding: Binding, *, now: float) -> Bind:
    """What configuration binds, for as long as it stands."""
    lease = Lease(client_id=0, method=Method.RSA_IP, granted_at=now, expires_at=FOREVER)
    return Bind(binding=binding, lease=lease)


def marked(site: Prefix) -> Prefix:
    """The IPv4-only half of a SIP prefix: the same with C = 1."""
    return Prefix(site.address.with_c_bit(c_bit=True), max(site.length, 1))


def with_derived(routes: Sequence[Route], derived: Iterable[Route]) -> tuple[Route, ...]:
    """Add what follows by itself where nothing else was said for the very prefix."""
    said = {each.to for each in routes}
    return (*routes, *(each for each in derived if each.to not in said))


def faults(routes: Sequence[Route], *, scope: Scope, sites: Iterable[Prefix]) -> Iterable[Fault]:
    """Find what must not be configured.

    Args:
        routes: In the order of the file.
        scope: How far implicit tunnels may reach.
        sites: Our own.
    """
    own = tuple(sites)
    seen: dict[Prefix, int] = {}
    for at, route in enumerate(routes):
        if route.to in seen:
            yield Fault(at=at, reason=f"{route.to} is routed already, by route {seen[route.to]}")
        seen.setdefault(route.to, at)
        yield from _scope_faults(at, route, scope, own)
        for before in range(at):
            if (same := _same_neighbours(routes[before], route)) is not None:
                yield Fault(at=at, reason=same)


def _scope_faults(at: int, route: Route, scope: Scope, own: tuple[Prefix, ...]) -> Iterable[Fault]:
    crossing = route.crossing
    if isinstance(crossing, Encapsulation) and crossing.remote is None and scope is Scope.SITE:
        clear = Prefix(route.to.address.with_c_bit(c_bit=False), route.to.length)
        if route.to.length < _SITE_BITS or (own and not any(site.covers(clear) for site in own)):
            yield Fault(
                at=at,
                reason=f"an implicit tunnel to {route.to} leads into other sites, where IPv4 addresses mean something "
                'else (implicit_scope = "site"); name the IPAE system that leads there',
            )


def _same_neighbours(one: Route, other: Route) -> str | None:
    """Why two routes cannot both hold: one link would have two sites with equal low halves (erratum E30)."""
    first, second = one.crossing, other.crossing
    if not (isinstance(first, Native) and isinstance(second, Native)) or first.realm != second.realm:
        return None
    if first.neighbour is not None or second.neighbour is not None or min(one.to.length, other.to.length) < 1:
        return None
    lows = [_low(each.to) for each in (one, other)]
    sites = [each.to.address.upper & 0x7FFFFFFF if each.to.length >= _SITE_BITS else None for each in (one, other)]
    if None in sites or sites[0] == sites[1]:
        return None
    if lows[0].covers(lows[1]) or lows[1].covers(lows[0]):
        return (
            f"{one.to} and {other.to} share a link, and ARP tells neighbours apart by their low 32 bits only "
            "(erratum E30): name the neighbour of one of them"
        )
    return None


def _low(prefix: Prefix) -> Prefix:
    length = max(prefix.length - _SITE_BITS, 0)
    return Prefix(Address(Family.IPV4, prefix.address.number & 0xFFFFFFFF), length)
