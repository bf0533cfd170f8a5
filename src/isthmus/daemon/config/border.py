# SPDX-License-Identifier: BSD-3-Clause
"""``[border]``: an IPAE border router, or a router of SIP (seed IPAE 6.3; spec 6, 9.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

import dns.exception
import dns.name
from pydantic import BeforeValidator, Field, field_validator, model_validator

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.daemon.config.fields import Name, Network, Section, address
from isthmus.daemon.config.learn import LearnSection
from isthmus.errors import ConfigError
from isthmus.ipae.border_router import ALL_IPV4, Milestone, Route, faults
from isthmus.ipae.format import Scope
from isthmus.ipae.neutral import alias_residue, lower_residue

DEFAULT_ROUTE = Prefix.parse_sip("0.0.0.0/0")
SMALLEST_MTU = 576
"""What every SIP link carries (RFC 8507 §5)."""
_Port = Annotated[int, Field(ge=1, le=65535)]
_ANY = Address(Family.IPV4, 0)


def sip_address_of(text: object) -> Address:
    """Read a SIP address in any notation of spec 2.3."""
    return text if isinstance(text, Address) else Address.parse_sip(str(text))


def sip_addresses_of(value: object) -> object:
    """Read one SIP address, or a list."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def sip_prefix_of(text: object) -> Prefix:
    """Read a SIP prefix in any notation, or ``default``."""
    if isinstance(text, Prefix):
        return text
    return DEFAULT_ROUTE if text == "default" else Prefix.parse_sip(str(text))


def site_of(text: object) -> Prefix:
    """Read a SIP site, 32 bits with C = 0 like ``1.213.77.5``."""
    prefix = text if isinstance(text, Prefix) else Prefix.parse_sip(str(text))
    if prefix.length != 32 or prefix.address.c_bit:
        raise ValueError(f"{prefix} is not a site: 32 bits without c, like 1.213.77.5")
    return prefix


SipAddress = Annotated[Address, BeforeValidator(sip_address_of)]
SipAddresses = Annotated[tuple[SipAddress, ...], BeforeValidator(sip_addresses_of)]
SipPrefix = Annotated[Prefix, BeforeValidator(sip_prefix_of)]
Site = Annotated[Prefix, BeforeValidator(site_of)]


def _next_system_of(text: object) -> object:
    """Read an IPv4 address, or ``implicit``."""
    return text if text in (None, "implicit") else _ipv4_of(text, 'is neither an IPv4 address nor "implicit"')


def _ipv4_of(text: object, otherwise: str) -> IPv4Address:
    try:
        return text if isinstance(text, IPv4Address) else IPv4Address(str(text))
    except ValueError:
        raise ValueError(f"{text!r} {otherwise}") from None


class ViaSection(Section):
    """How SIP packets get to the next SIP system: ``{ ipae = … }``, ``{ native = … }`` or ``{ translate = … }``."""

    ipae: Annotated[IPv4Address | Literal["implicit"] | None, BeforeValidator(_next_system_of)] = None
    "Inside of IPv4 to this system, or to the low 32 bits of the SIP destination, which is then that system itself."
    native: Name | None = None
    "On the link of this realm, as they are."
    translate: Name | None = None
    "As IPv4 in this realm (seed IPAE 5.2)."
    realm: Name | None = None
    "With ``ipae``: the IPv4 realm to go through; not given: the one whose networks have that system, or the only one."
    neighbour: IPv4Address | None = None
    "With ``native``: by which address ARP finds the next system; not given: the low 32 bits of the SIP destination."
    local: IPv4Address | None = None
    "With ``ipae``: which address of ours it goes from; not given: the first of the realm's interface."
    mtu: Annotated[int, Field(ge=SMALLEST_MTU, le=65515)] | None = None
    "With ``ipae``: the largest SIP packet, in octets; not given: what the interface carries, less 20."

    @model_validator(mode="after")
    def _one_way(self) -> ViaSection:
        ways = [name for name in ("ipae", "native", "translate") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(
                f"has {' and '.join(ways) or 'none'} of ipae, native and translate, and needs one: "
                'like via = { ipae = "128.2.1.2" }'
            )
        for name, goes_with in (("realm", "ipae"), ("local", "ipae"), ("mtu", "ipae"), ("neighbour", "native")):
            if getattr(self, name) is not None and ways != [goes_with]:
                raise ValueError(f"{name} goes with {goes_with}, not with {ways[0]}")
        return self


class RouteSection(Section):
    """``[[border.route]]``: where SIP packets go, by the longest prefix (spec 2.4)."""

    to: SipPrefix
    "A prefix in any notation of spec 2.3, or ``default``."
    c: Literal["any", "0", "1"] | None = None
    "To which destinations it applies by their C bit; not given: any, or 1 where ``to`` says c."
    via: ViaSection

    @field_validator("c", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("to")
    @classmethod
    def _routable(cls, value: Prefix) -> Prefix:
        if value.length >= 8 and value.address.is_multicast:
            raise ValueError(f"{value} is a group, and groups are not forwarded")
        return value

    @model_validator(mode="after")
    def _one_c(self) -> RouteSection:
        if self.c in ("0", "any") and self.to.address.c_bit:
            raise ValueError(f"c = {self.c!r} contradicts {self.to}, which says that C is 1")
        return self

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """What is entered: one prefix for each value of C that it applies to."""
        address, length = self.to.address, self.to.length
        wanted = ("1" if address.c_bit else "any") if self.c is None else self.c
        if length == 0 and wanted == "any":
            return (self.to,)
        clear = Prefix(address.with_c_bit(c_bit=False), max(length, 1))
        marked = Prefix(address.with_c_bit(c_bit=True), max(length, 1))
        return {"any": (clear, marked), "0": (clear,), "1": (marked,)}[wanted]


class TransferSection(Section):
    """``dns = { … }`` of ``[border.mapping]``: the table is a zone of DNS (spec 6.3)."""

    zone: str
    "Name of the zone, absolute with or without a dot at its end."
    server: IPv4Address
    "Who gives it."
    port: _Port = 53
    on_miss: bool = True
    "Whether what the zone did not have when it was transferred is asked for when a packet needs it."
    key: Path | None = None
    "A file with the TSIG key that signs questions and answers, as ``algorithm:name:secret``; not given: none are."

    @field_validator("zone")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            dns.name.from_text(value)
        except dns.exception.DNSException as error:
            raise ValueError(f"{value!r} is no domain name: {error}") from None
        return value

    @property
    def name(self) -> dns.name.Name:
        """The zone."""
        return dns.name.from_text(self.zone)


class MappingSection(Section):
    """``[border.mapping]``: which SIP sites IPv4 networks are (seed IPAE 5.1, 8.1; spec 6.3)."""

    file: Path | None = None
    "Read at the start, again when it changes, and with ``isthmus map apply``."
    dns: TransferSection | None = None
    realm: Name | None = None
    "The realm whose IPv4 is mapped; not given: every realm with a site."
    own: tuple[Network, ...] = ()
    "IPv4 networks of our own sites besides those of their interfaces: a table that maps them elsewhere is refused."

    @model_validator(mode="after")
    def _from_one_source(self) -> MappingSection:
        if (self.file is None) == (self.dns is None):
            raise ValueError("needs file or dns, and has both or neither")
        return self


class FixedAliasSection(Section):
    """``[[border.alias.fixed]]``, ``[[node.alias.fixed]]``: an alias that is always there."""

    alias: IPv4Address
    "In one of the pools."
    address: SipAddress
    "Whom it stands for."
    residue: Literal["equal", "any"] = "equal"
    "``any`` takes an alias that spoils every TCP and UDP checksum: for tests, or for ICMP alone."


class AliasSection(Section):
    """``[border.alias]``: IPv4 addresses for SIP systems that an IPv4-only host cannot name (spec 8.3)."""

    pools: Annotated[tuple[Network, ...], Field(min_length=1)]
    "16 bits or less each, that nobody in the site has, like 100.64.0.0/10."
    ttl: Annotated[float, Field(ge=1, le=86400)] = 60.0
    "For how long an answer of DNS with an alias is believed, in seconds; the alias itself stays an hour longer."
    fixed: tuple[FixedAliasSection, ...] = ()

    @field_validator("pools")
    @classmethod
    def _large_enough(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for at, pool in enumerate(value):
            if pool.prefixlen > 16:
                raise ValueError(f"{pool}: an alias of every residue needs 16 bits or less, like 100.64.0.0/16")
            if any(pool.overlaps(other) for other in value[:at]):
                raise ValueError(f"{pool} overlaps another pool")
        return value

    @property
    def pairs(self) -> list[tuple[Address, Address]]:
        """Fixed aliases, and whom they stand for."""
        return [(address(each.alias), each.address) for each in self.fixed]

    def check_fixed(self, identity: Address | None = None) -> None:
        """Refuse fixed aliases that could not work.

        Args:
            identity: A node's own address (``alias_residue``).

        Raises:
            ValueError: an alias is in no pool, stands for two or by another, or has not the residue that it needs.
        """
        for at, each in enumerate(self.fixed):
            if not any(each.alias in pool for pool in self.pools):
                raise ValueError(f"alias.fixed[{at}]: {each.alias} is in no pool")
            if any(each.alias == other.alias or each.address == other.address for other in self.fixed[:at]):
                raise ValueError(f"alias.fixed[{at}]: {each.alias} or {each.address} has been said before")
            has, needs = lower_residue(address(each.alias)), alias_residue(each.address, identity=identity)
            if each.residue == "equal" and has != needs:
                raise ValueError(
                    f"alias.fixed[{at}]: the words of {each.alias} add up to {has:04x}, and for {each.address} it has "
                    f'to be {needs:04x}, or TCP and UDP checksums are wrong; residue = "any" has it all the same'
                )


def _upstream_of(text: object) -> object:
    """Read a SIP address, which has a slash or a colon, or an IPv4 address."""
    if isinstance(text, str) and ("/" in text or ":" in text):
        return sip_address_of(text)
    return _ipv4_of(text, "is neither an IPv4 address nor a SIP address like c1.213.77.5/192.3.4.53")


class DnsSection(Section):
    """``[border.dns]``, ``[node.dns]``: a DNS server that answers with what programs can use (spec 8.4)."""

    listen: IPv4Address
    port: _Port = 53
    upstream: Annotated[IPv4Address | Address, BeforeValidator(_upstream_of)]
    "Who knows the answers; at a node a SIP address, too, like c1.213.77.5/192.3.4.53, which it asks as programs do."
    upstream_port: _Port = 53
    clients: tuple[Network, ...] = ()
    "Whose questions are answered; not given: everybody's. Strangers use such a server against others."


class RulesSection(Section):
    """``[border.rules]``, ``[node.rules]``: what the sources of IPAE leave open, or say twice (spec 1, 9.3)."""

    header_order: Literal["deering", "seed"] = "deering"
    "Payload type before hop limit (RFC 8507), or after it, as the seed draws it (erratum E2)."
    option_layout: Literal["sip92", "sipp94"] = "sip92"
    icmp_pseudo: Literal["ipae", "sip92", "sipp94"] = "ipae"
    df0: Literal["mark", "frag576", "fit"] = "mark"
    "What becomes of whole IPv4 datagrams that may be fragmented (spec 3.5)."
    tos: Literal["drop", "reserved8"] = "drop"
    forward_source_routes: bool = False
    accept_from: tuple[Network, ...] = ()
    "IPv4 systems whose IPAE datagrams may have any source (spec 9.4)."
    probe_on_error: bool = False
    relay_layers: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
    "How ICMP errors of IP-only routers are told to SIP systems (spec 6.4)."


class BorderSection(Section):
    """``[border]``: an IPAE border router, or a router of SIP (seed IPAE 6.3)."""

    address: SipAddresses = ()
    "Our SIP addresses. The first is the source of what we say; none: errors come from the gateway's IPv4 address."
    tunnel_ends: tuple[IPv4Address, ...] = ()
    "IPv4 addresses of ours that IPAE datagrams come to; also those that routes leave from."
    hosts: SipAddresses = ()
    "SIP-only hosts of our sites that IPv4-only hosts of the site know by their low 32 bits."
    milestone: Literal["I", "H", "R", "S"] = "I"
    "How far the change has come (seed IPAE 8): sets ``unmapped``, ``foreign`` and ``implicit_scope``."
    unmapped: Literal["pass", "refuse", "ask"] | None = None
    "IPv4 to where no mapping leads is routed as IPv4, refused, or waits for an answer of DNS."
    foreign: Literal["low", "alias", "refuse"] | None = None
    "SIP sources without an IPv4 address of their own here are seen by their low 32 bits, an alias, or not at all."
    implicit_scope: Literal["any", "site"] | None = None
    "Whether ``implicit`` tunnels may lead into other sites, which needs IPv4 addresses that are unique (erratum E22)."
    route: tuple[RouteSection, ...] = ()
    learn: LearnSection | None = None
    mapping: MappingSection | None = None
    alias: AliasSection | None = None
    dns: DnsSection | None = None
    rules: RulesSection = RulesSection()

    @model_validator(mode="after")
    def _consistent(self) -> BorderSection:
        if self.alias is not None:
            self.alias.check_fixed()
        if self.dns is not None and isinstance(self.dns.upstream, Address):
            raise ValueError("dns.upstream: a border router asks by IPv4; SIP addresses are for a [node]")
        return self

    @property
    def scope(self) -> Scope:
        """How far implicit tunnels reach."""
        return Scope(self.implicit_scope) if self.implicit_scope else Milestone[self.milestone].scope


def check_routes(
    routes: Iterable[RouteSection],
    file: str,
    section: str,
    number: Callable[[str], int],
    *,
    scope: Scope,
    sites: Iterable[Prefix],
) -> None:
    """Find routes that IPAE does not allow.

    Args:
        routes: In the order of the file.
        file: Its name, for the error.
        section: ``border`` or ``node``.
        number: The number of a realm by its name.
        scope: How far implicit tunnels may reach.
        sites: Our own.

    Raises:
        ConfigError: names the first such route.
    """
    said = [
        (at, Route(to=prefix, crossing=_sketch(each.via, number)))
        for at, each in enumerate(routes)
        for prefix in each.prefixes
    ]
    for fault in faults([route for _, route in said], scope=scope, sites=sites):
        raise ConfigError(file, key=f"{section}.route[{said[fault.at][0]}]", reason=fault.reason)


def _sketch(via: ViaSection, number: Callable[[str], int]) -> Crossing:
    """The crossing as far as the file says; addresses of ours that are not named are those of interfaces."""
    if via.translate is not None:
        return Translate(realm=number(via.translate), image=ALL_IPV4)
    if via.native is not None:
        return Native(realm=number(via.native), neighbour=None if via.neighbour is None else address(via.neighbour))
    remote = address(via.ipae) if isinstance(via.ipae, IPv4Address) else None
    return Encapsulation(realm=1 if via.realm is None else number(via.realm), local=_ANY, remote=remote)
