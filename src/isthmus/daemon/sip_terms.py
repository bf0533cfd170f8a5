# SPDX-License-Identifier: BSD-3-Clause
"""What ``[border]`` and ``[node]`` come to: realms, tunnel ends, nodes and rules for the plane, routes as bindings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding
from isthmus.border.crossing import IPAE_OVERHEAD, Crossing, Encapsulation, Native, Translate
from isthmus.border.realm import Border, Foreign, Node, Realm, TunnelEnd, Unmapped
from isthmus.border.rules import Df0, IcmpPseudo, Rules
from isthmus.daemon import config as configuration
from isthmus.daemon.config import BorderSection, Config, NodeSection, RouteSection, RulesSection, ViaSection
from isthmus.daemon.hostlink import interface_mtu
from isthmus.daemon.link_address import LinkAddress, is_there, link_addresses
from isthmus.daemon.waiting import GRACE_SECONDS
from isthmus.errors import ConfigError
from isthmus.ipae import node as nodes
from isthmus.ipae.addressing import anyone
from isthmus.ipae.alias import AliasPool
from isthmus.ipae.border_router import (
    ALL_IPV4,
    Milestone,
    Route,
    gateways,
    known_host,
    route_binding,
    with_derived,
)
from isthmus.ipae.format import Scope
from isthmus.ipae.mapping import OwnNetwork

SMALLEST_DEVICE_MTU = 1280
"""Of anything that carries IPv6 (RFC 8200 §5)."""
_IPV6_OVER_SIP = 16
"An IPv6 header is so many octets longer than a SIP header."
_UNMAPPED = {"pass": Unmapped.PASS, "refuse": Unmapped.REFUSE, "ask": Unmapped.ASK}
_FOREIGN = {"low": Foreign.LOW, "alias": Foreign.ASK, "refuse": Foreign.REFUSE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the machine says about the interfaces of the realms, by the realms' names."""

    addresses: dict[str, tuple[LinkAddress, ...]]
    mtus: dict[str, int]
    absent: dict[str, str] = field(default_factory=dict)
    "Interfaces that are not there."

    @classmethod
    def of(cls, config: Config) -> Surroundings:
        """Ask the kernel."""
        return cls(
            addresses={each.name: link_addresses(each.interface) for each in config.realm},
            mtus={each.name: min(65535, interface_mtu(each.interface)) for each in config.realm},
            absent={each.name: each.interface for each in config.realm if not is_there(each.interface)},
        )

    def lacks(self, name: str) -> str:
        """Why a realm has no IPv4 address of ours."""
        if name in self.absent:
            return f"the interface {self.absent[name]!r} of realm {name!r} is not there"
        return f"the interface of realm {name!r} has no IPv4 address to send from"

    def realm_with(self, address: Address) -> str | None:
        """The realm whose interface has an address."""
        return next(
            (name for name, has in self.addresses.items() if any(each.address == address for each in has)), None
        )

    def realm_towards(self, address: Address) -> str | None:
        """The realm in a network of whose interface an address lies."""
        return next(
            (name for name, has in self.addresses.items() if any(address in each.network for each in has)), None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SipTerms:
    """Everything that an IPAE role tells its plane."""

    border: Border
    bindings: tuple[Binding, ...]
    routes: tuple[Route, ...]


def rules_of(section: RulesSection) -> Rules:
    """The switches of spec 9.3 as the planes know them."""
    return Rules(
        seed_order=section.header_order == "seed",
        sipp94_options=section.option_layout == "sipp94",
        icmp_pseudo=IcmpPseudo[section.icmp_pseudo.upper()],
        df0=Df0[section.df0.upper()],
        keep_tos=section.tos == "reserved8",
        forward_source_routes=section.forward_source_routes,
        accept_from=tuple(map(configuration.prefix, section.accept_from)),
        probe_on_error=section.probe_on_error,
        relay_layers=frozenset(section.relay_layers),
    )


def _realms(config: Config, around: Surroundings) -> tuple[Realm, ...]:
    """The realms of the file, and the SIP realm."""
    found = []
    for number, each in enumerate(config.realm, 1):
        unmapped, foreign, site = Unmapped.PASS, Foreign.LOW, each.site
        if config.border is not None and site is not None:
            unmapped, foreign = _treatment(config.border)
        if config.node is not None and config.node.near == each.name and site is None:
            site = config.node.address.site
        found.append(
            Realm(
                number=number,
                name=each.name,
                interface=each.interface,
                mtu=around.mtus[each.name],
                sip=config.sip_number,
                site=site,
                unmapped=unmapped,
                foreign=foreign,
            )
        )
    return (*found, Realm(number=config.sip_number, name="sip", family=Family.SIP))


def _treatment(section: BorderSection) -> tuple[Unmapped, Foreign]:
    preset = Milestone[section.milestone]
    unmapped = preset.unmapped if section.unmapped is None else _UNMAPPED[section.unmapped]
    looked_up = section.mapping is not None and section.mapping.dns is not None and section.mapping.dns.on_miss
    if section.unmapped is None and looked_up:
        unmapped = Unmapped.ASK
    foreign = preset.foreign if section.foreign is None else _FOREIGN[section.foreign]
    if section.foreign is None and foreign is Foreign.ASK and section.alias is None:
        foreign = Foreign.REFUSE
    return unmapped, foreign


# --- a border router ------------------------------------------------------------------------


def border_router(config: Config, around: Surroundings, file: str = "") -> SipTerms:
    """What a ``[border]`` comes to.

    Raises:
        ConfigError: an address that no interface has, or routes that IPAE does not allow.
    """
    section = config.border
    assert section is not None
    _refuse_pools_of_hosts(config, around, section, file)
    realms = _realms(config, around)
    chosen = tuple(
        Route(to=prefix, crossing=_crossing(config, around, each, file, f"border.route[{at}].via"))
        for at, each in enumerate(section.route)
        for prefix in each.prefixes
    )
    routes = with_derived(chosen, gateways(config.sip_number, realms))
    leaving = (*_leaving_from(routes), *_learned_from(config, around))
    ends = dict.fromkeys((*_tunnel_ends(config, around, section, file), *leaving))
    border = Border(
        realms=realms,
        tunnel_ends=tuple(TunnelEnd(realm=n, address=a, leads_to=config.sip_number) for n, a in ends),
        nodes=_nodes(config.sip_number, section.address, around, router=True),
        rules=replace(rules_of(section.rules), site_tunnels=section.scope is Scope.SITE),
    )
    bound = [route_binding(config.sip_number, each) for each in routes]
    bound += [_known_host(realms, each, config.sip_number, file) for each in section.hosts]
    return SipTerms(border=border, bindings=tuple(bound), routes=routes)


def _refuse_pools_of_hosts(config: Config, around: Surroundings, section: BorderSection, file: str) -> None:
    """An alias must be nobody's address here, or packets for whoever has it would go to a stranger (spec 8.3)."""
    own = [each.prefix for each in own_networks(config, around)]
    for at, pool in enumerate(() if section.alias is None else map(configuration.prefix, section.alias.pools)):
        here = next((each for each in own if each.covers(pool) or pool.covers(each)), None)
        if here is not None:
            reason = f"{pool} and our own network {here} have addresses in common; choose one that nobody here has"
            raise ConfigError(file, key=f"border.alias.pools[{at}]", reason=reason)


def _nodes(sip: int, addresses: tuple[Address, ...], around: Surroundings, *, router: bool) -> tuple[Node, ...]:
    """Our own SIP addresses, and the Anyone addresses that are ours with them, by which we never speak of ourselves."""
    networks = (each.network for has in around.addresses.values() for each in has)
    return tuple(Node(realm=sip, address=each) for each in (*addresses, *anyone(addresses, networks, router=router)))


def _tunnel_ends(config: Config, around: Surroundings, section: BorderSection, file: str) -> list[tuple[int, Address]]:
    found = []
    for at, each in enumerate(section.tunnel_ends):
        address = configuration.address(each)
        realm = around.realm_with(address)
        if realm is None:
            reason = f"no interface of a [[realm]] has {address}"
            raise ConfigError(file, key=f"border.tunnel_ends[{at}]", reason=reason)
        found.append((config.realm_number(realm), address))
    return found


def _leaving_from(routes: tuple[Route, ...]) -> list[tuple[int, Address]]:
    """Where we send IPAE datagrams from, errors and answers come to."""
    crossings = [each.crossing for each in routes]
    return [(each.realm, each.local) for each in crossings if isinstance(each, Encapsulation)]


def _learned_from(config: Config, around: Surroundings) -> list[tuple[int, Address]]:
    """Where routes that are learned leave from: any address in a realm that they go through inside of IPv4."""
    learn = None if config.border is None else config.border.learn
    names = () if learn is None else learn.ipae
    return [(config.realm_number(name), each.address) for name in names for each in around.addresses[name]]


def _known_host(realms: tuple[Realm, ...], address: Address, sip: int, file: str) -> Binding:
    realm = next((each for each in realms if each.site is not None and address.site == each.site), None)
    if realm is None:
        raise ConfigError(file, key="border.hosts", reason=f"{address} lies in the site of no [[realm]]")
    return known_host(sip, realm.number, address)


# --- crossings ------------------------------------------------------------------------------


def _crossing(config: Config, around: Surroundings, route: RouteSection, file: str, key: str) -> Crossing:
    via = route.via
    if via.translate is not None:
        return Translate(realm=config.realm_number(via.translate), image=ALL_IPV4)
    if via.native is not None:
        neighbour = None if via.neighbour is None else configuration.address(via.neighbour)
        return Native(realm=config.realm_number(via.native), neighbour=neighbour)
    return _encapsulation(config, around, via, file, key)


def _encapsulation(config: Config, around: Surroundings, via: ViaSection, file: str, key: str) -> Encapsulation:
    remote = None if isinstance(via.ipae, str) or via.ipae is None else configuration.address(via.ipae)
    given = None if via.local is None else configuration.address(via.local)
    name = via.realm or (around.realm_with(given) if given is not None else None)
    name = name or (around.realm_towards(remote) if remote is not None else None)
    if name is None and len(config.realm) == 1:
        name = config.realm[0].name
    if name is None:
        reason = "is required: no realm's networks say where to go through"
        raise ConfigError(file, key=f"{key}.realm", reason=reason)
    has = around.addresses[name]
    if given is not None and given not in [each.address for each in has]:
        raise ConfigError(file, key=f"{key}.local", reason=f"the interface of realm {name!r} does not have {given}")
    if not has:
        raise ConfigError(file, key=f"{key}.realm", reason=around.lacks(name))
    near = next((each.address for each in has if remote is not None and remote in each.network), has[0].address)
    largest = around.mtus[name] - IPAE_OVERHEAD
    return Encapsulation(
        realm=config.realm_number(name), local=given or near, remote=remote, mtu=min(via.mtu or largest, largest)
    )


def own_networks(config: Config, around: Surroundings) -> tuple[OwnNetwork, ...]:
    """The IPv4 networks that no mapping may lead elsewhere (spec 9.4), with their sites."""
    found: dict[Prefix, Prefix | None] = {}
    for each in config.realm:
        for link in around.addresses[each.name]:
            if each.site is not None:
                found[link.network] = each.site
            else:
                found.setdefault(Prefix.of(link.address), None)
    sites = [each.site for each in config.realm if each.site is not None]
    if config.border is not None and config.border.mapping is not None:
        for network in config.border.mapping.own:
            found[configuration.prefix(network)] = sites[0] if len(sites) == 1 else None
    return tuple(OwnNetwork(prefix, site) for prefix, site in found.items())


def alias_pools(config: Config) -> dict[int, AliasPool]:
    """The pools of aliases, by the realm that knows strangers by them: those of sites, or a host's programs."""
    section = config.border or config.node
    if section is None or section.alias is None:
        return {}
    realms, identity = [config.sockets_number], None
    if isinstance(section, NodeSection):
        identity = section.address
    else:
        realms = [number for number, each in enumerate(config.realm, 1) if each.site is not None]
    return {
        number: AliasPool(
            realm=number,
            sip=config.sip_number,
            pools=tuple(map(configuration.prefix, section.alias.pools)),
            identity=identity,
            ttl=section.alias.ttl,
            grace=GRACE_SECONDS,
        )
        for number in realms
    }


# --- a host ---------------------------------------------------------------------------------


def node(config: Config, around: Surroundings, device: str, file: str = "") -> SipTerms:
    """What a ``[node]`` comes to.

    Args:
        config: The file.
        around: What the machine says.
        device: The plane's end of the programs' device.
        file: Its name, for errors.

    Raises:
        ConfigError: an address that no interface has.
    """
    section = config.node
    assert section is not None
    family = Family.IPV6 if section.sockets == "ipv6" else Family.IPV4
    sockets = Realm(
        number=config.sockets_number,
        name="sockets",
        family=family,
        mtu=device_mtu(config, around),
        sip=config.sip_number if family is Family.IPV4 else None,
        foreign=Foreign.ASK if family is Family.IPV4 else Foreign.LOW,
    )
    links = _links(config, around, section, file)
    numbers = nodes.NodeRealms(
        link=config.realm_number(section.near), sip=config.sip_number, sockets=config.sockets_number
    )
    more = tuple(
        Route(to=prefix, crossing=_crossing(config, around, each, file, f"node.route[{at}].via"))
        for at, each in enumerate(section.route)
        for prefix in each.prefixes
    )
    programs = section.programs if section.sockets == "ipv6" else None
    routes = with_derived(more, nodes.routes(numbers, links))
    local = _local(section, around, file)
    ends = dict.fromkeys(_leaving_from(routes) or ([] if local is None else [(numbers.link, local)]))
    if section.profile == "sip-only":
        ends = {}
    border = Border(
        realms=(*_realms(config, around), sockets),
        tunnel_ends=tuple(TunnelEnd(realm=n, address=a, leads_to=config.sip_number) for n, a in ends),
        nodes=_nodes(config.sip_number, (section.address,), around, router=False),
        rules=rules_of(section.rules),
    )
    bound = nodes.bindings(numbers, links, programs, device, more)
    bound += tuple(known_host(numbers.sip, numbers.sockets, each) for each in section.peers)
    return SipTerms(border=border, bindings=bound, routes=routes)


def _local(section: NodeSection, around: Surroundings, file: str) -> Address | None:
    """Our IPv4 address on the link; None on a link without one."""
    has = [each.address for each in around.addresses[section.near]]
    given = None if section.local is None else configuration.address(section.local)
    if given is not None and given not in has:
        raise ConfigError(
            file, key="node.local", reason=f"the interface of realm {section.near!r} does not have {given}"
        )
    if given is not None or not has:
        return given
    return section.address.low if section.address.low in has else has[0]


def _links(config: Config, around: Surroundings, section: NodeSection, file: str) -> nodes.Links:
    local = _local(section, around, file)
    link, mtu = config.realm_number(section.near), around.mtus[section.near]

    def way(kind: str, to: Address | None) -> Crossing:
        if kind == "ipae" and local is None:
            raise ConfigError(file, key="node.near", reason=f"IPAE needs an IPv4 address: {around.lacks(section.near)}")
        return nodes.direct(kind, link, local or section.address.low, to=to, mtu=mtu)

    to = None if section.border is None else configuration.address(section.border)
    neighbours = section.way_to_neighbours
    return nodes.Links(
        address=section.address,
        border=None if to is None else way(section.way_to_border, to),
        neighbours=None if neighbours == "border" else way(neighbours, None),
        scope=section.scope,
        takes_ipv4=section.ipv4 == "programs",
    )


def device_mtu(config: Config, around: Surroundings) -> int:
    """What the programs' device carries (spec 3.5): a SIP header is shorter than theirs, an IPAE datagram longer."""
    section = config.node
    assert section is not None
    link = around.mtus[section.near]
    ways = {section.way_to_border, section.way_to_neighbours} - {"border"}
    sip = link - IPAE_OVERHEAD if "ipae" in ways else link
    octets = sip + _IPV6_OVER_SIP if section.sockets == "ipv6" else sip - 4
    return section.mtu or min(max(octets, SMALLEST_DEVICE_MTU), 65535)
