# SPDX-License-Identifier: BSD-3-Clause
"""IPAE systems for tests: borders and bindings of seed IPAE 3.4 and 7 from a few words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.effect import Bind, Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, End, Node, Realm, TunnelEnd
from isthmus.border.rules import Rules
from isthmus.border.selector import Selector
from isthmus.plane import Programmable
from isthmus.plane.reference import ReferencePlane
from isthmus.plane.reference.ring import IdentificationRing

NOW = 1_800_000_000.0
SIP, SITE, FAR, LINK, SOCKETS = 1, 2, 3, 4, 5
"""Numbers of the realms: the SIP realm, the IPv4 of a site, IPv4 elsewhere, an interior SIP link, a device's IPv6."""
O_SITE, D_SITE = "1.213.77.5", "1.2.2.8"
O_HOST, D_HOST = "192.3.4.1", "201.5.7.250"
PF, PC = Prefix.parse("fd49:5041:4500:6d74::/64"), Prefix.parse("fd53:4950:4300::/48")
EVERYTHING = Prefix(Address(Family.SIP, 0), 0)
DEVICE = "sip0p"


def ip(text: str) -> Address:
    """An IPv4 or IPv6 address."""
    return Address.parse(text)


def sip(text: str) -> Address:
    """A SIP address."""
    return Address.parse_sip(text)


def upper(text: str) -> Prefix:
    """A SIP /32."""
    return Prefix.parse_sip(f"{text}/32")


@dataclass(kw_only=True)
class System:
    """A border in the making."""

    site: str | None = None
    "The site whose IPv4 realm SITE is."
    ends: tuple[tuple[int, str], ...] = ()
    nodes: tuple[str, ...] = ()
    rules: Rules = Rules()
    realms: dict[int, dict[str, Any]] = field(default_factory=dict)
    first: int = 0
    "The identification that comes next."
    effects: list[Programmable] = field(default_factory=list)

    def border(self) -> Border:
        """Its border."""
        made: dict[int, dict[str, Any]] = {
            SIP: {"name": "sip", "family": Family.SIP},
            SITE: {"name": "site", "sip": SIP, "mtu": 1500, "site": upper(self.site) if self.site else None},
            FAR: {"name": "far", "sip": SIP, "mtu": 1500},
            LINK: {"name": "link", "sip": SIP, "mtu": 1500, "site": upper(self.site) if self.site else None},
            SOCKETS: {"name": "sockets", "family": Family.IPV6, "end": End.HOST, "mtu": 1500},
        }
        return Border(
            realms=tuple(
                Realm(number=number, **(table | self.realms.get(number, {}))) for number, table in made.items()
            ),
            tunnel_ends=tuple(TunnelEnd(realm=realm, address=ip(each), leads_to=SIP) for realm, each in self.ends),
            nodes=tuple(Node(realm=SIP, address=sip(each)) for each in self.nodes),
            rules=self.rules,
        )

    def bind(self, realm: int, prefix: Prefix, crossing: Crossing, *, device: str | None = None) -> System:
        """Bind a prefix."""
        key = BindingKey(Owner(SIP, Address(Family.SIP, 1)), len(self.effects) + 1)
        binding = Binding(key=key, selectors=(Selector(realm=realm, local=prefix),), crossing=crossing, device=device)
        lease = Lease(client_id=0, method=Method.RSA_IP, granted_at=NOW, expires_at=FOREVER)
        self.effects.append(Bind(binding=binding, lease=lease))
        return self

    def encapsulate(
        self, prefixes: Iterable[str], realm: int, local: str, remote: str | None, mtu: int = 1480
    ) -> System:
        """SIP prefixes that go as IPAE datagrams."""
        for each in prefixes:
            crossing = Encapsulation(realm=realm, local=ip(local), remote=ip(remote) if remote else None, mtu=mtu)
            self.bind(SIP, upper(each), crossing)
        return self

    def native(self, prefixes: Iterable[str], realm: int, neighbour: str | None) -> System:
        """SIP prefixes that go onto a link."""
        for each in prefixes:
            self.bind(SIP, upper(each), Native(realm=realm, neighbour=ip(neighbour) if neighbour else None))
        return self

    def gateway(self, site: str, realm: int = SITE) -> System:
        """The gateway to a site's IPv4."""
        return self.bind(SIP, upper(f"c{site}"), Translate(realm=realm, image=Prefix.parse("0.0.0.0/0")))

    def out_of(self, prefix: Prefix, realm: int = SITE) -> System:
        """A gateway to IPv4 for a SIP prefix."""
        return self.bind(SIP, prefix, Translate(realm=realm, image=Prefix.parse("0.0.0.0/0")))

    def mapping(self, entries: dict[str, str], realm: int = SITE) -> System:
        """The mapping of an IPv4 realm."""
        table = Mapping.of((Prefix.parse(prefix), upper(image)) for prefix, image in entries.items())
        self.effects.append(Remap(realm=realm, sip=SIP, mapping=table))
        return self

    def sockets(self, address: str) -> System:
        """IPv6 sockets of programs at a SIP address of ours."""
        for prefix in (PF, PC):
            self.bind(SOCKETS, prefix, Translate(realm=SIP, image=EVERYTHING))
        image = Translate(realm=SOCKETS, image=PF, compatible=PC)
        return self.bind(SIP, Prefix.of(sip(address)), image, device=DEVICE)

    def plane(self) -> ReferencePlane:
        """A reference plane of it."""
        plane = ReferencePlane(self.border(), ring=IdentificationRing(self.first))
        plane.apply(self.effects)
        return plane
