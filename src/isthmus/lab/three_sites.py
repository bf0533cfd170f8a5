# SPDX-License-Identifier: BSD-3-Clause
"""Three sites around an IPv4 backbone, and what is configured there at each milestone (seed IPAE 8; spec 7).

Each site is a wire with its border router and hosts. The routers of the backbone know IPv4 only, and go on knowing
nothing else. Sites b and c are neighbours, besides::

    site a  1.213.77.5          backbone              site b  1.2.2.8
    old-a   192.3.4.1                              .-- border-b ---  old-b  201.5.7.1
    new-a   192.3.4.7  --- border-a --- x --- y --<      |           ten-b  10.0.0.7, from R on
    names   192.3.4.53                             `-- border-c ---  new-c  198.1.3.7
                                                      site c  1.3.1.1       ten-c  10.0.0.7, from R on
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address
from isthmus.lab.hops import socket_address
from isthmus.lab.nameserver import host_record, zone
from isthmus.lab.topology import OPEN_FORWARDING, Network, NodePlan, wire

DEVICE = "sip0"
NAMES = "192.3.4.53"
"""The nameserver."""
TEN = "10.0.0.7"
"""What a host of site b and one of site c are called in IPv4."""
TEN_BORDER = "10.0.0.1"
"""The border routers' address in the second networks of sites b and c."""
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_SOCKETS = OPEN_FORWARDING | {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site and its border router."""

    name: str
    sip: str
    network: str
    inside: str
    "The border router's address in the site."
    outside: str
    "And in the backbone."
    router: str
    "Its neighbour there."
    peer: str | None = None
    "Its address on the link to the neighbouring site."

    @property
    def border(self) -> str:
        """Its border router, as a node."""
        return f"border-{self.name}"


A = Site(
    name="a",
    sip="1.213.77.5",
    network="192.3.4.0/24",
    inside="192.3.4.2",
    outside="128.1.1.1",
    router="128.1.1.2",
)
B = Site(
    name="b",
    sip="1.2.2.8",
    network="201.5.7.0/24",
    inside="201.5.7.9",
    outside="128.2.1.1",
    router="128.2.1.2",
    peer="128.23.1.2",
)
C = Site(
    name="c",
    sip="1.3.1.1",
    network="198.1.3.0/24",
    inside="198.1.3.9",
    outside="128.3.1.1",
    router="128.3.1.2",
    peer="128.23.1.3",
)
SITES = (A, B, C)
BEHIND = {"x": (A,), "y": (B, C)}
"""Which sites are at which router of the backbone."""
OLD_A, OLD_B = "192.3.4.1", "201.5.7.1"
NEW_A, NEW_C = f"{A.sip}/192.3.4.7", f"{C.sip}/198.1.3.7"
TEN_B, TEN_C = f"{B.sip}/{TEN}", f"{C.sip}/{TEN}"


def known_as(host: str, by: str) -> str:
    """The IPv6 address by which programs at one SIP system know another."""
    return str(socket_address(Address.parse_sip(host), Address.parse_sip(by)))


# --- the network ----------------------------------------------------------------------------


def network(name: str) -> Network:
    """Three wires, two routers, and what is plugged in; hosts 10.0.0.7 are there, but nobody knows of them yet."""
    hosts = (
        ("old-a", "lan-a", f"{OLD_A}/24", A.inside),
        ("new-a", "lan-a", "192.3.4.7/24", A.inside),
        ("names", "lan-a", f"{NAMES}/24", A.inside),
        ("old-b", "lan-b", f"{OLD_B}/24", B.inside),
        ("ten-b", "lan-b", f"{TEN}/8", TEN_BORDER),
        ("new-c", "lan-c", "198.1.3.7/24", C.inside),
        ("ten-c", "lan-c", f"{TEN}/8", TEN_BORDER),
    )
    cables = [wire((lan, host), (host, "lan0", address)) for host, lan, address, _ in hosts]
    cables += [wire((f"lan-{each.name}", "border"), (each.border, "lan0", f"{each.inside}/24")) for each in SITES]
    cables += [
        wire((A.border, "net0", f"{A.outside}/24"), ("x", "a", f"{A.router}/24")),
        wire(("x", "y", "128.12.1.1/24"), ("y", "x", "128.12.1.2/24")),
        wire((B.border, "net0", f"{B.outside}/24"), ("y", "b", f"{B.router}/24")),
        wire((C.border, "net0", f"{C.outside}/24"), ("y", "c", f"{C.router}/24")),
        wire((B.border, "peer0", f"{B.peer}/24"), (C.border, "peer0", f"{C.peer}/24")),
    ]
    nodes = [
        NodePlan(
            name=host,
            routes=(f"default via {via}",),
            sysctls=OPEN_FORWARDING if host in {"old-a", "old-b", "names"} else _SOCKETS,
        )
        for host, _, _, via in hosts
    ]
    nodes += [NodePlan(name=f"lan-{each.name}", segment=True) for each in SITES]
    nodes += [
        NodePlan(name=each.border, routes=(f"default via {each.router}", *peer_route(each)), sysctls=_FORWARDING)
        for each in SITES
    ]
    nodes += [
        NodePlan(name=router, routes=(f"default via {other}", *map(fallback, BEHIND[router])), sysctls=_FORWARDING)
        for router, other in (("x", "128.12.1.2"), ("y", "128.12.1.1"))
    ]
    return Network(name=name, nodes=tuple(nodes), cables=tuple(cables))


def fallback(site: Site) -> str:
    """The IPv4 route of the backbone to a site, which is there until R."""
    return f"{site.network} via {site.outside}"


def peer_route(site: Site) -> tuple[str, ...]:
    """And that of its neighbour, if it has one."""
    if site.peer is None:
        return ()
    other = C if site is B else B
    return (f"{other.network} via {other.peer}",)


# --- configurations -------------------------------------------------------------------------


def configurations(milestone: str) -> dict[str, str]:
    """What ``isthmus up`` reads on the machines where it is started, or started again, to get to a milestone.

    Args:
        milestone: I, H, R or S.

    Returns:
        By the names of the nodes, without [isthmus]; ``{directory}`` stands for where their files are.
    """
    match milestone:
        case "I":
            return {each.border: _border(each, "I") for each in SITES}
        case "H":
            anywhere = 'implicit_scope = "any"'
            return {"new-a": _host(NEW_A, A.inside, anywhere, _DNS), "new-c": _host(NEW_C, C.inside, anywhere)}
        case "R":
            return {each.border: _border(each, "R") for each in SITES} | {
                "new-a": _host(NEW_A, A.inside, _DNS),
                "new-c": _host(NEW_C, C.inside),
                "ten-b": _host(TEN_B, TEN_BORDER),
                "ten-c": _host(TEN_C, TEN_BORDER),
            }
    only = 'profile = "sip-only"'
    hosts = {"new-c": _host(NEW_C, C.inside, only), "ten-c": _host(TEN_C, C.inside, only)}
    return hosts | {each.border: _border(each, "S") for each in (B, C)}


def _border(site: Site, milestone: str) -> str:
    """A border router; at S it is site c whose inside is SIP, and the link between b and c."""
    lines = [_realm("lan", "lan0", f'site = "{site.sip}"'), _realm("net", "net0")]
    if site.peer is not None:
        lines.append(_realm("peer", "peer0"))
    lines.append(f'[border]\naddress = "{site.sip}/{site.inside}"\nmilestone = "{milestone}"')
    if milestone == "S" and site is C:
        lines.append(_route(site.sip, 'native = "lan"', "0"))
    else:
        inside = 'ipae = "implicit", realm = "lan"'
        lines.append(_route(site.sip, inside, "0"))
        if milestone in {"R", "S"} and site.peer is not None:
            lines.append(_route(f"{site.sip}/10.0.0.0/40", f'{inside}, local = "{TEN_BORDER}"', "0"))
    for other in (each for each in SITES if each is not site):
        if site.peer is None or other.peer is None:
            via = f'ipae = "{other.outside}", realm = "net"'
        elif milestone == "S":
            via = f'native = "peer", neighbour = "{other.peer}"'
        else:
            via = f'ipae = "{other.peer}", realm = "peer"'
        lines.append(_route(other.sip, via))
    lines.append('[border.mapping]\nfile = "{directory}/map.txt"')
    if site is A:
        lines.append(f'[border.dns]\nlisten = "{A.inside}"\nupstream = "{NAMES}"')
        if milestone == "R":
            lines.append('[border.alias]\npools = ["100.64.0.0/10"]')
    return "\n\n".join(lines)


def _realm(name: str, interface: str, more: str = "") -> str:
    return f'[[realm]]\nname = "{name}"\ninterface = "{interface}"\n{more}'


def _route(to: str, via: str, c: str = "any") -> str:
    return f'[[border.route]]\nto = "{to}"\nc = "{c}"\nvia = {{ {via} }}'


def _host(address: str, border: str, *more: str) -> str:
    node = f'[node]\naddress = "{address}"\nnear = "link"\nborder = "{border}"\ndevice = "{DEVICE}"'
    return "\n".join((_realm("link", "lan0"), node, *more))


_DNS = f'\n[node.dns]\nlisten = "127.0.0.53"\nupstream = "{NAMES}"'


def tables(milestone: str) -> dict[Site, str]:
    """The mapping tables: networks of others with C = 1; then hosts with C = 0, too; from R on own networks alone."""
    found = {}
    for site in SITES:
        others = [each for each in SITES if each is not site]
        lines = [f"{each.network} c{each.sip}" for each in others]
        if milestone == "H":
            lines += [
                f"{host.partition('/')[2]}/32 {each.sip}" for each, host in ((A, NEW_A), (C, NEW_C)) if each in others
            ]
        elif milestone != "I":
            own = (site.network,) if site.peer is None else (site.network, "10.0.0.0/8")
            lines = [f"{each} c{site.sip}" for each in own]
        found[site] = "\n".join((*lines, ""))
    return found


def names_zone(milestone: str) -> str:
    """The zone of the nameserver: A records, then AA records, too; its serial number grows."""
    lines = [f"old-a A {OLD_A}", f"old-b A {OLD_B}", "new-a A 192.3.4.7", "new-c A 198.1.3.7"]
    if milestone != "I":
        lines += [host_record("new-a", NEW_A), host_record("new-c", NEW_C)]
    if milestone == "R":
        lines += [host_record("ten-b", TEN_B), host_record("ten-c", TEN_C)]
    return zone("example.", lines, serial=serial(milestone))


def serial(milestone: str) -> int:
    """The serial number of the zone."""
    return "IHR".index(milestone) + 1
