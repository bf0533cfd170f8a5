# SPDX-License-Identifier: BSD-3-Clause
"""A host that speaks SIP for programs that do not: which bindings it comes to (seed IPAE 3.4, 6.1; spec 5.3, 8).

::

    programs --- sockets realm --- SIP realm --- the link's realm --- SIP and IPAE systems
      fd49:...:PF::A                 A              in IPv4, or as SIP
      fd53:...:PC::A                                by the choice of format

Programs have IPv6 sockets, or IPv4 sockets with aliases. The sockets are a realm like any other: what they send crosses
by a ``Translate`` into the SIP realm, and what is for us by another out of it, into the device.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.selector import Selector
from isthmus.ipae.border_router import ALL_IPV4, Route, gateways, marked, route_binding, with_derived
from isthmus.ipae.format import Scope
from isthmus.ipae.neutral import Sockets

__all__ = ["Links", "NodeRealms", "bindings", "gateways", "routes"]

EVERYTHING = Prefix(Address(Family.SIP, 0), 0)
_C0 = Prefix(Address(Family.SIP, 0), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRealms:
    """Numbers of the three realms of a host."""

    link: int
    sip: int
    sockets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What a host knows of its surroundings."""

    address: Address
    "Our SIP address, C = 0."
    border: Crossing | None
    "The way to the border router of the site."
    neighbours: Crossing | None
    "The way to hosts of our own site, which ends at themselves; None: by the border router."
    scope: Scope = Scope.SITE
    "Whether hosts of other sites are reached as neighbours are."
    takes_ipv4: bool = False
    "Whether our programs are who IPv4 packets to our low 32 bits are for."


def routes(realms: NodeRealms, links: Links) -> tuple[Route, ...]:
    """The SIP routing table of a host (spec 5.3)."""
    site = links.address.site
    found: list[Route] = []
    if links.border is not None:
        found.append(Route(to=EVERYTHING, crossing=links.border, origin="border"))
    if links.neighbours is not None:
        to = _C0 if links.scope is Scope.ANY else site
        found.append(Route(to=to, crossing=links.neighbours, origin="neighbours"))
    if links.takes_ipv4:
        # An IPv4-only host of our own site gets IPv4, and answers to our low 32 bits, which are the programs' then.
        crossing = Translate(realm=realms.link, image=ALL_IPV4)
        found.append(Route(to=marked(site), crossing=crossing, origin="neighbours"))
    return tuple(found)


def bindings(
    realms: NodeRealms,
    links: Links,
    sockets: Sockets | None,
    device: str,
    more: tuple[Route, ...] = (),
) -> tuple[Binding, ...]:
    """Everything that a host is bound to.

    Args:
        realms: Numbers of its realms.
        links: Its surroundings.
        sockets: The IPv6 prefixes of programs; None: they have IPv4 sockets, and aliases come later.
        device: The plane's end of the programs' device.
        more: Routes of the configuration, before what follows from ``links``.
    """
    into = Translate(realm=realms.sockets, image=ALL_IPV4) if sockets is None else sockets.image(realms.sockets)
    own = Route(to=Prefix.of(links.address), crossing=into, origin="programs")
    found = [route_binding(realms.sip, own, device=device)]
    found += [route_binding(realms.sip, each) for each in with_derived(more, routes(realms, links))]
    if sockets is not None:
        found += [_out_of(realms, prefix, device) for prefix in (sockets.full, sockets.compatible)]
    if links.takes_ipv4:
        low = Prefix.of(links.address.low)
        key = BindingKey(Owner(realms.link, low.address), low.length)
        crossing = Translate(realm=realms.sip, image=Prefix.of(links.address))
        found.append(
            Binding(key=key, selectors=(Selector(realm=realms.link, local=low),), crossing=crossing),
        )
    return tuple(found)


def _out_of(realms: NodeRealms, prefix: Prefix, device: str) -> Binding:
    return Binding(
        key=BindingKey(Owner(realms.sockets, prefix.address), prefix.length),
        selectors=(Selector(realm=realms.sockets, local=prefix),),
        crossing=Translate(realm=realms.sip, image=EVERYTHING),
        device=device,
    )


def direct(kind: str, link: int, local: Address, *, to: Address | None, mtu: int) -> Encapsulation | Native:
    """A way over the link.

    Args:
        kind: ``ipae`` or ``native``.
        link: Number of the link's realm.
        local: Our IPv4 address there.
        to: The next SIP system; None: the destination itself.
        mtu: What the link carries, in octets.
    """
    if kind == "native":
        return Native(realm=link, neighbour=to)
    return Encapsulation(realm=link, local=local, remote=to, mtu=mtu - 20)
