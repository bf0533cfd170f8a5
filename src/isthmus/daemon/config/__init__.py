# SPDX-License-Identifier: BSD-3-Clause
"""Configuration: one TOML file to frozen values; every error names file, key and reason.

A file names realms and their interfaces, and the roles that this machine plays among
them: ``[gateway]`` leases, ``[host]`` holds leases, ``[border]`` is an IPAE border router,
``[node]`` a host that speaks SIP. Nothing is changed on the machine before the whole file has
been read and understood.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from isthmus.border.binding import Owner
from isthmus.border.selector import Selector
from isthmus.daemon.config.border import (
    AliasSection,
    BorderSection,
    DnsSection,
    MappingSection,
    RouteSection,
    RulesSection,
    Site,
    ViaSection,
    check_routes,
)
from isthmus.daemon.config.fields import Interface, Name, Section, address, prefix
from isthmus.daemon.config.gateway import (
    ClientSection,
    GatewaySection,
    LeaseSection,
    MulticastSection,
    NatSection,
    PoolSection,
    QuerySection,
    QuotaSection,
    check_gateway,
)
from isthmus.daemon.config.host import HostLeaseSection, HostSection
from isthmus.daemon.config.learn import LearnSection
from isthmus.daemon.config.node import NodeSection
from isthmus.errors import ConfigError

__all__ = [
    "AliasSection",
    "BorderSection",
    "ClientSection",
    "Config",
    "DnsSection",
    "GatewaySection",
    "HostLeaseSection",
    "HostSection",
    "LearnSection",
    "LeaseSection",
    "MappingSection",
    "MulticastSection",
    "NatSection",
    "NodeSection",
    "PoolSection",
    "QuerySection",
    "QuotaSection",
    "RouteSection",
    "RulesSection",
    "ViaSection",
    "address",
    "gateway_owner",
    "load",
    "parse",
    "prefix",
]


class General(Section):
    """``[isthmus]``: what concerns the daemon as a whole."""

    name: Name = "isthmus"
    "Names the control socket and the pinned maps."
    run: Path = Path("/run/isthmus")
    "Where both of them are."
    state: str = "memory:"
    "The lease store: a path, or ``memory:``."
    plane: Literal["auto", "kernel", "reference"] = "auto"
    "``auto`` takes the kernel plane where it can be loaded."
    seed: int | None = None
    "Makes the random choices repeatable; for tests."


class RealmSection(Section):
    """``[[realm]]``: an addressing realm that this machine has a leg in."""

    name: Name
    interface: Interface
    site: Site | None = None
    "The SIP site whose IPv4 it is (seed IPAE 4.1), like 1.213.77.5: its IPv4-only hosts are known under it."
    xdp: bool = False
    """Decide in the interface's driver what can be decided there: for network cards. On a veth it costs TCP most of its
    rate."""


class EndpointSection(Section):
    """``[endpoint]``: tunnels end at this machine; a gateway elsewhere says whose they are.

    Its ``endpoint`` names our control socket, and the realms' names are those of its file.
    """

    attract: Literal["arp", "none"] = "arp"
    "How neighbours find the pools: we answer ARP for addresses in the far interface's networks, or somebody routes."


class Config(Section):
    """A whole file."""

    isthmus: General = General()
    realm: Annotated[tuple[RealmSection, ...], Field(min_length=1)]
    gateway: GatewaySection | None = None
    host: HostSection | None = None
    endpoint: EndpointSection | None = None
    border: BorderSection | None = None
    node: NodeSection | None = None

    @property
    def sip_number(self) -> int:
        """The number of the SIP realm, which has no interface of its own: it comes after those of the file."""
        return len(self.realm) + 1

    @property
    def sockets_number(self) -> int:
        """The number of the realm of a node's programs."""
        return len(self.realm) + 2

    @property
    def alias_pools(self) -> tuple[Selector, ...]:
        """Where aliases are given, of all realms: their packets come to the plane, whether or not anybody has them."""
        found: list[tuple[int, AliasSection]] = []
        if self.border is not None and self.border.alias is not None:
            sites = [number for number, realm in enumerate(self.realm, 1) if realm.site is not None]
            found += [(number, self.border.alias) for number in sites]
        return tuple(Selector(realm=number, local=prefix(pool)) for number, each in found for pool in each.pools)

    def realm_number(self, name: str) -> int:
        """The number that a realm has in every table: its place in the file, from 1."""
        return 1 + [each.name for each in self.realm].index(name)

    @property
    def control_socket(self) -> Path:
        """Where the daemon listens for the command line."""
        return self.isthmus.run / f"{self.isthmus.name}.sock"

    @property
    def alias_file(self) -> Path:
        """Where aliases are kept that outlive the daemon."""
        return self.isthmus.run / f"{self.isthmus.name}.aliases"


def load(path: Path | str) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or says something wrong.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(name, key="", reason=f"cannot be read: {reason}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(name, key="", reason=f"is not TOML: {error}") from error
    return parse(data, name)


def parse(data: dict[str, Any], name: str) -> Config:
    """Check what a TOML file says.

    Args:
        data: The parsed tables.
        name: What to call the file in errors.

    Raises:
        ConfigError: something is wrong.
    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A misspelt key explains why another is missing.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise ConfigError(name, key=_dotted(first["loc"]), reason=_sentence(first)) from error
    _check_realms(config, name)
    if not any((config.gateway, config.host, config.endpoint, config.border, config.node)):
        reason = "has neither [gateway] nor [host] nor [endpoint] nor [border] nor [node]: there is nothing to do"
        raise ConfigError(name, key="", reason=reason)
    if config.gateway is not None:
        check_gateway(config.gateway, name)
    check_ipae(config, name)
    return config


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "is not a key of this table; examples/ has every key there is"
    if error["type"] == "missing":
        return "is required"
    given = error.get("input")
    if not isinstance(given, str | int | float) or str(given) in message:
        return message
    return f"{message} (it says {given!r})"


def _check_realms(config: Config, name: str) -> None:
    names = [each.name for each in config.realm]
    interfaces = [each.interface for each in config.realm]
    for at, each in enumerate(config.realm):
        if each.name in names[:at]:
            raise ConfigError(
                name, key=f"realm[{at}].name", reason=f"{each.name!r} is already the name of another realm"
            )
        if each.interface in interfaces[:at]:
            raise ConfigError(
                name, key=f"realm[{at}].interface", reason=f"{each.interface!r} leads into another realm already"
            )
    wanted = []
    if config.gateway is not None:
        wanted += [("gateway.near", config.gateway.near), ("gateway.realm", config.gateway.realm)]
        if config.gateway.near == config.gateway.realm:
            raise ConfigError(name, key="gateway.realm", reason="must be another realm than gateway.near")
    if config.host is not None:
        wanted.append(("host.near", config.host.near))
        for at, lease in enumerate(config.host.lease):
            if lease.device in interfaces:
                reason = (
                    f"{lease.device!r} is the interface of a [[realm]]; a lease gets a device of its own, like rsip0"
                )
                raise ConfigError(name, key=f"host.lease[{at}].device", reason=reason)
    for key, realm in wanted:
        if realm not in names:
            raise ConfigError(
                name, key=key, reason=f"{realm!r} is no [[realm]] of this file, which has {', '.join(names)}"
            )


def check_ipae(config: Config, name: str) -> None:
    """Check what ``[border]`` and ``[node]`` say about realms.

    Raises:
        ConfigError: a realm that is not there, or two roles that exclude each other.
    """
    names = [each.name for each in config.realm]
    if config.border is not None and config.node is not None:
        raise ConfigError(name, key="node", reason="a [border] speaks SIP itself: write routes there, or leave it out")
    if config.endpoint is not None and (config.border is not None or config.node is not None):
        raise ConfigError(name, key="endpoint", reason="goes with neither [border] nor [node]")
    has_sip = config.border is not None or config.node is not None
    if has_sip and config.host is not None and config.host.seeks is not None:
        reason = "is required beside [border] and [node]: all roles have one plane from the start"
        raise ConfigError(name, key="host.gateway", reason=reason)
    wanted: list[tuple[str, str]] = []
    for section, routes in (
        ("border", getattr(config.border, "route", ())),
        ("node", getattr(config.node, "route", ())),
    ):
        for at, route in enumerate(routes):
            named = {key: getattr(route.via, key) for key in ("realm", "native", "translate")}
            wanted += [(f"{section}.route[{at}].via.{key}", realm) for key, realm in named.items() if realm is not None]
    if config.border is not None and config.border.learn is not None:
        wanted += [(f"border.learn.ipae[{at}]", realm) for at, realm in enumerate(config.border.learn.ipae)]
    if config.node is not None:
        wanted.append(("node.near", config.node.near))
        rsip = [each.near for each in (config.host, config.gateway) if each is not None]
        if config.node.device in [each.interface for each in config.realm if each.name not in rsip]:
            reason = f"{config.node.device!r} is the interface of a [[realm]] that is no host.near or gateway.near"
            raise ConfigError(name, key="node.device", reason=reason)
    for key, realm in wanted:
        if realm not in names:
            reason = f"{realm!r} is no [[realm]] of this file, which has {', '.join(names)}"
            raise ConfigError(name, key=key, reason=reason)
    _check_sites(config, name)
    for section, each in (("border", config.border), ("node", config.node)):
        if each is not None:
            sites = [realm.site for realm in config.realm if realm.site is not None]
            check_routes(each.route, f"{name}", section, config.realm_number, scope=each.scope, sites=sites)


def _check_sites(config: Config, name: str) -> None:
    seen = [each.name for each in config.realm if each.site is not None]
    for at, each in enumerate(config.realm):
        if each.site is not None and config.border is None and config.node is None:
            raise ConfigError(name, key=f"realm[{at}].site", reason="needs [border] or [node]")
    border = config.border
    if border is not None and border.mapping is not None and border.mapping.realm not in (None, *seen):
        reason = f"{border.mapping.realm!r} is no [[realm]] with a site"
        raise ConfigError(name, key="border.mapping.realm", reason=reason)
    needs_site = border is not None and (border.mapping or border.alias or border.hosts or border.dns)
    if needs_site and not seen:
        raise ConfigError(
            name, key="border", reason="mapping, alias, hosts and dns serve a site: give a [[realm]] its site"
        )
    if border is not None and border.foreign == "alias" and border.alias is None:
        raise ConfigError(name, key="border.foreign", reason='"alias" needs [border.alias]')


def gateway_owner(config: Config) -> Owner:
    """At a host: the far end of its tunnels."""
    assert config.host is not None
    return Owner(config.realm_number(config.host.near), address(config.host.gateway))
