# SPDX-License-Identifier: BSD-3-Clause
"""Two hosts and what stands between them in a row, as the seed draws its scenarios (seed IPAE 3.4, 7).

Links are cables on which packets look as on a real wire. IPv4 routes lead along the row, as far as there are
links of IPv4; a link of SIP alone has IPv4 addresses for ARP, and nothing is routed there.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.lab.configuration import general, mapping, realm, table
from isthmus.lab.lab import Lab
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import OPEN_FORWARDING, Cable, Network, NodePlan, wire

LEFT, RIGHT = "left0", "right0"
"""The interfaces of a station towards the two ends of the row."""
DEVICE = "sip0"
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_IPV6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}


class Kind(enum.StrEnum):
    """What a station is (spec E28)."""

    IPV4_HOST = "IPv4 host"
    IPAE_HOST = "IPAE host"
    SIP_HOST = "SIP host"
    IP_ROUTER = "IP router"
    BORDER = "IPAE router"
    SIP_ROUTER = "SIP router"

    @property
    def is_host(self) -> bool:
        """Whether it stands at an end."""
        return self in {Kind.IPV4_HOST, Kind.IPAE_HOST, Kind.SIP_HOST}

    @property
    def has_sip(self) -> bool:
        """Whether isthmus runs there."""
        return self not in {Kind.IPV4_HOST, Kind.IP_ROUTER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One system of the row."""

    name: str
    kind: Kind
    address: str = ""
    "Its SIP address, if it has one: ``1.213.77.5/192.3.4.1``."
    border: str = ""
    "Of a host: IPv4 address of the next IPAE or SIP system beyond its site."
    sites: Mapping[str, str] = field(default_factory=dict)
    "Of a router: which site is at which of its interfaces."
    ways: tuple[str, ...] = ()
    "Of a router: its [[border.route]] tables."
    mapping: tuple[str, ...] = ()
    "Of a router: lines of its mapping table."


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What two neighbours share."""

    left: str
    right: str
    length: int = 24
    sip_only: bool = False
    "Whether no IPv4 packet belongs there."
    mtu: int = 1500

    @property
    def network(self) -> str:
        """The IPv4 network of the link."""
        return str(ipaddress.ip_network(f"{self.left}/{self.length}", strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The whole row."""

    name: str
    stations: tuple[Station, ...]
    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        """Refuse rows with a gap."""
        if len(self.links) != len(self.stations) - 1:
            raise ValueError(f"{self.name}: {len(self.stations)} stations need {len(self.stations) - 1} links")

    @property
    def hosts(self) -> tuple[Station, Station]:
        """Who talks: the first and the last."""
        return self.stations[0], self.stations[-1]

    def network(self) -> Network:
        """The namespaces and cables."""
        return Network(
            name=self.name,
            nodes=tuple(self._plan(at) for at in range(len(self.stations))),
            cables=tuple(self._cable(at) for at in range(len(self.links))),
        )

    def _plan(self, at: int) -> NodePlan:
        station = self.stations[at]
        sysctls = OPEN_FORWARDING if station.kind.is_host else _FORWARDING
        return NodePlan(name=station.name, routes=self._routes(at), sysctls=sysctls | _IPV6)

    def _routes(self, at: int) -> tuple[str, ...]:
        """IPv4 routes to the networks that are not its own; a host has a default route and no other."""
        station, routes = self.stations[at], []
        for links, gateway in (
            (self.links[:at][::-1], "left"),
            (self.links[at:], "right"),
        ):
            if not links or links[0].sip_only:
                continue
            via = getattr(links[0], gateway)
            if station.kind.is_host:
                return (f"default via {via}",)
            for link in links[1:]:
                # An IPv4 router goes on announcing what lies beyond SIP; a system that speaks SIP knows better.
                if link.sip_only and station.kind.has_sip:
                    break
                routes.append(f"{link.network} via {via}")
        return tuple(routes)

    def _cable(self, at: int) -> Cable:
        link, left, right = self.links[at], self.stations[at], self.stations[at + 1]
        return wire(
            (left.name, RIGHT, f"{link.left}/{link.length}"),
            (right.name, LEFT, f"{link.right}/{link.length}"),
            mtu=link.mtu,
        )

    def address(self, host: Station) -> str:
        """The IPv4 address of a host."""
        return self.links[0].left if host is self.stations[0] else self.links[-1].right


def start(chain: Chain, lab: Lab, setting: Setting) -> None:
    """Start isthmus wherever it belongs."""
    for at, station in enumerate(chain.stations):
        if station.kind.has_sip:
            write = host_configuration if station.kind.is_host else border_configuration
            lab[station.name].up(write(chain, at, lab, setting))


def border_configuration(chain: Chain, at: int, lab: Lab, setting: Setting) -> str:
    """What ``isthmus up`` reads at a border router or SIP router."""
    station, node = chain.stations[at], lab[chain.stations[at].name]
    ends = [chain.links[at - 1].right, chain.links[at].left]
    parts = [general(node, setting)]
    parts += [realm(name, end, station.sites.get(name)) for name, end in (("left", LEFT), ("right", RIGHT))]
    parts += [table("[border]", address=[station.address] if station.address else [], tunnel_ends=ends)]
    parts += station.ways
    if station.mapping:
        parts.append(mapping(node, "\n".join((*station.mapping, "")), next(iter(station.sites))))
    return "".join(parts)


def host_configuration(chain: Chain, at: int, lab: Lab, setting: Setting) -> str:
    """What it reads at an IPAE or SIP host."""
    station, node = chain.stations[at], lab[chain.stations[at].name]
    profile = "sip-only" if station.kind is Kind.SIP_HOST else "ipae"
    text = general(node, setting) + realm("link", RIGHT if at == 0 else LEFT, station.address.partition("/")[0])
    return text + table(
        "[node]", address=station.address, profile=profile, near="link", border=station.border, device=DEVICE
    )
