# SPDX-License-Identifier: BSD-3-Clause
"""``[gateway]``: lease the resources of one realm to the hosts of another."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, field_validator

from isthmus.border.ranges import Ranges
from isthmus.daemon.config.discovery import SlpSection
from isthmus.daemon.config.fields import Addresses, AnyNetwork, Name, Network, Ports, Seconds, Section, Spis
from isthmus.errors import ConfigError

IKE_PORT = 500
"""RFC 2409 §2."""


class LeaseSection(Section):
    """``[gateway.lease]``: lease times in seconds."""

    default: Seconds = 3600
    minimum: Seconds = 60
    maximum: Seconds = 86400
    registration: Seconds = 3600


class QuotaSection(Section):
    """``[gateway.quota]``: the most that one host may hold."""

    bindings: Annotated[int, Field(ge=1)] = 64
    ports: Annotated[int, Field(ge=1)] = 4096
    addresses: Annotated[int, Field(ge=0)] = 4
    spis: Annotated[int, Field(ge=0)] = 256


class PoolSection(Section):
    """``[[gateway.pool]]``: either one address leased by port, or a prefix leased by address."""

    address: IPv4Address | None = None
    ports: Ports | None = None
    spis: Spis = None
    "SPIs of the address that may be leased (RFC 3104): true, or ranges in hexadecimal."
    ike: bool = False
    "Whether its port 500 is shared by IKE initiator cookies (RFC 3104 §6.1)."
    prefix: Network | None = None


class ClientSection(Section):
    """``[[gateway.client]]``: which hosts may register, and under which flow policies (RFC 3103 §7)."""

    network: AnyNetwork
    local_policy: Literal["macro", "micro"] = "macro"
    remote_policy: Literal["none", "macro", "micro"] = "none"
    ipsec: bool = True
    "Whether they may lease SPIs."


class QuerySection(Section):
    """``[gateway.query]``: what is told to hosts that ask what is local (RFC 3103 §9.14)."""

    local: tuple[AnyNetwork, ...] = ()
    "Networks and hosts of the near realm."
    remote: tuple[AnyNetwork, ...] = ()
    "Networks and hosts that are reached by a lease only; the most specific entry decides."
    local_names: tuple[str, ...] = ()
    "Hosts and domains of the near realm."
    remote_names: tuple[str, ...] = ()
    "Hosts and domains of other realms, whatever their addresses look like (seed RSIP 4.2)."

    @field_validator("local_names", "remote_names")
    @classmethod
    def _name(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            labels = name.strip(".").split(".")
            if len(name) > 255 or not all(0 < len(label.encode()) <= 63 for label in labels):
                raise ValueError(f"{name!r} is not a domain name")
        return names


class NatSection(Section):
    """``[gateway.nat]``: hosts without RSIP go out beside those with it."""

    address: IPv4Address
    "The public address that they share; it may be one of a pool."
    ports: Ports
    "Ports that they are translated to; no pool may have any of them at this address."
    networks: Annotated[tuple[Network, ...], Field(min_length=1)]
    "Their private networks."

    @field_validator("ports")
    @classmethod
    def _one_range(cls, value: Ranges) -> Ranges:
        if len(value.pairs) > 1:
            raise ValueError(f"{value}: nftables takes one range of ports")
        return value


class MulticastSection(Section):
    """``[gateway.multicast]``: let hosts receive groups, and leased addresses send to them."""

    groups: Annotated[tuple[Network, ...], Field(min_length=1)] = (IPv4Network("224.0.0.0/4"),)
    "The groups that are carried; 224.0.0.0/24 never is."
    query_seconds: Annotated[int, Field(ge=2, le=3600)] = 125
    "Between two general queries to the hosts (RFC 3376 §8.2)."

    @field_validator("groups")
    @classmethod
    def _multicast(cls, value: tuple[IPv4Network, ...]) -> tuple[IPv4Network, ...]:
        for each in value:
            if not each.is_multicast:
                raise ValueError(f"{each} is not within 224.0.0.0/4")
        return value


class ParentSection(Section):
    """``[gateway.parent]``: the pools are leased from another gateway (RFC 3102 §4.2)."""

    socket: Path
    "The control socket of the host daemon of this machine that holds them."


class GatewaySection(Section):
    """``[gateway]``: lease the resources of one realm to the hosts of another."""

    near: Name
    "The realm that the hosts are in."
    realm: Name
    "The realm whose addresses are leased."
    address: Annotated[Addresses, Field(validation_alias=AliasChoices("address", "addresses"))]
    "Our address in the near realm, or one of each family: the control protocol listens here."
    tunnel_address: Addresses | None = None
    "Where tunnels end, if elsewhere than at ``address``: here too, or at the machine of ``endpoint``."
    endpoint: Path | None = None
    "The control socket of the ``[endpoint]`` that forwards for us; none: we do."
    port: Annotated[int, Field(ge=1, le=65535)] = 4555
    transports: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp")
    tunnels: Annotated[tuple[Literal["ipip", "gre"], ...], Field(min_length=1)] = ("ipip", "gre")
    "The kinds of tunnel that are offered; L2TP is not (docs/rsip.md)."
    gre_checksum: bool = False
    "Whether what we put into GRE has a checksum (RFC 2784 §2.5)."
    tunnel_mtu: Annotated[int, Field(ge=576, le=65000)] | None = None
    "Largest inner packet that IP-IP over IPv4 carries; others are as much smaller as their headers are larger."
    admit: Literal["contacted", "anyone"] = "contacted"
    "Who may write to a leased port: the peers that its host has written to, or anyone."
    listen: bool = True
    "Whether hosts may LISTEN (RFC 3103 §9.16)."
    listen_micro: bool = False
    "Whether also those under remote micro policy may (RFC 3103 §10.6)."
    attract: Literal["arp", "none"] = "arp"
    "How neighbours find the pools: we answer ARP for addresses in the far interface's networks, or somebody routes."
    rest: Annotated[int, Field(ge=0)] = 120
    "Seconds that a freed resource rests (RFC 3102 §6.1)."
    slice_size: Annotated[int, Field(ge=1, le=4096)] = 64
    "Ports of an aligned slice; a power of two."
    choice: Literal["random", "computed"] = "computed"
    """How any ports are chosen: first where the host's address and the key in the store compute to (RFC 7422), or at
    random (RFC 6056)."""
    requests_per_second: Annotated[float, Field(ge=0)] = 100.0
    "Control messages that one host may send, on the average; more are not answered. 0: no limit."
    requests_burst: Annotated[int, Field(ge=1)] = 200
    "And at once."
    lease: LeaseSection = LeaseSection()
    quota: QuotaSection = QuotaSection()
    pool: Annotated[tuple[PoolSection, ...], Field(min_length=1)]
    client: tuple[ClientSection, ...] = ()
    "None: everybody in the near realm."
    query: QuerySection = QuerySection()
    nat: NatSection | None = None
    parent: ParentSection | None = None
    multicast: MulticastSection | None = None
    slp: SlpSection | None = None
    "None: hosts cannot find this gateway by SLP."

    @field_validator("slice_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two")
        return value


def check_gateway(gateway: GatewaySection, name: str) -> None:
    """Check what no single key shows.

    Raises:
        ConfigError: two keys contradict each other.
    """
    seen: set[IPv4Address] = set()
    for at, pool in enumerate(gateway.pool):
        key = f"gateway.pool[{at}]"
        _check_pool(pool, key, name)
        addresses = {pool.address} if pool.address is not None else set(pool.prefix or ())
        if again := seen & addresses:
            raise ConfigError(name, key=key, reason=f"{min(again)} is in another pool already")
        seen |= {each for each in addresses if each is not None}
    lease = gateway.lease
    if not lease.minimum <= lease.default <= lease.maximum:
        raise ConfigError(name, key="gateway.lease", reason="minimum <= default <= maximum does not hold")
    if gateway.gre_checksum and "gre" not in gateway.tunnels:
        raise ConfigError(name, key="gateway.gre_checksum", reason='needs "gre" among gateway.tunnels')
    _check_tunnel_address(gateway, name)
    _check_query(gateway.query, name)
    if gateway.nat is not None:
        _check_nat(gateway.nat, gateway, name)


def _check_pool(pool: PoolSection, key: str, name: str) -> None:
    if (pool.address is None) == (pool.prefix is None):
        raise ConfigError(name, key=key, reason="needs either address and ports, or prefix")
    if pool.address is not None and pool.ports is None and pool.spis is None:
        raise ConfigError(name, key=f"{key}.ports", reason="is required with address: which ports may be leased?")
    for what, given in (("ports", pool.ports), ("spis", pool.spis), ("ike", pool.ike or None)):
        if pool.prefix is not None and given is not None:
            raise ConfigError(
                name, key=f"{key}.{what}", reason="does not go with prefix, whose addresses are leased whole"
            )
    if pool.ike and pool.spis is None:
        raise ConfigError(name, key=f"{key}.ike", reason="is of use with spis only: spis = true")
    if pool.ike and pool.ports is not None and IKE_PORT in pool.ports:
        raise ConfigError(
            name, key=f"{key}.ports", reason=f"has {IKE_PORT}, which ike = true shares by cookie: leave it out"
        )
    if pool.prefix is not None and pool.prefix.prefixlen < 16:
        raise ConfigError(name, key=f"{key}.prefix", reason=f"{pool.prefix} is larger than a /16")


def _check_tunnel_address(gateway: GatewaySection, name: str) -> None:
    """Hosts of a family need an end for their tunnels in it."""
    if gateway.endpoint is not None and gateway.tunnel_address is None:
        reason = "is required with gateway.endpoint: at which address of that machine do tunnels end?"
        raise ConfigError(name, key="gateway.tunnel_address", reason=reason)
    if gateway.tunnel_address is None:
        return
    families = {each.version for each in gateway.tunnel_address}
    for each in gateway.address:
        if each.version not in families:
            reason = f"needs an IPv{each.version} address too: hosts that register at {each} make their tunnels to it"
            raise ConfigError(name, key="gateway.tunnel_address", reason=reason)


def _check_query(query: QuerySection, name: str) -> None:
    for key in ("remote", "remote_names"):
        local = getattr(query, key.replace("remote", "local"))
        if both := [str(each) for each in getattr(query, key) if each in local]:
            raise ConfigError(name, key=f"gateway.query.{key}", reason=f"{both[0]} is said to be local as well")


def _check_nat(nat: NatSection, gateway: GatewaySection, name: str) -> None:
    """Translated and leased ports of one address are disjoint (seed RSIP 4)."""
    for at, pool in enumerate(gateway.pool):
        if pool.prefix is not None and nat.address in pool.prefix:
            reason = f"{nat.address} is leased whole by gateway.pool[{at}]: take another"
            raise ConfigError(name, key="gateway.nat.address", reason=reason)
        if pool.address != nat.address:
            continue
        taken = (pool.ports or Ranges(())) | (Ranges.of(IKE_PORT) if pool.ike else Ranges(()))
        if taken.overlaps(nat.ports):
            both = nat.ports - (nat.ports - taken)
            reason = f"{both} of {nat.address} may be leased by gateway.pool[{at}]: take others"
            raise ConfigError(name, key="gateway.nat.ports", reason=reason)
