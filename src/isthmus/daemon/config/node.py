# SPDX-License-Identifier: BSD-3-Clause
"""``[node]``: a host that speaks SIP, for programs that do not know of it (seed IPAE 6.1, 6.2; spec 8)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from isthmus.address import Address, Prefix
from isthmus.daemon.config.border import AliasSection, DnsSection, RouteSection, RulesSection, SipAddress, SipAddresses
from isthmus.daemon.config.fields import Interface, Name, Section
from isthmus.ipae.format import Scope
from isthmus.ipae.neutral import Sockets


class NodeSection(Section):
    """``[node]``: a host that speaks SIP, for programs that do not know of it."""

    address: SipAddress
    "Our SIP address, with C = 0."
    near: Name
    "The realm of our link."
    profile: Literal["ipae", "sip-only"] = "ipae"
    "SIP on the link, in IPv4, and IPv4 itself; or SIP on the link and nothing else (erratum E28)."
    border: IPv4Address | None = None
    "The border router of our site: where everything goes that has no route of its own. None: nowhere."
    border_by: Literal["ipae", "native"] | None = None
    "How it is reached; not given: ``native`` for a SIP-only host, else ``ipae``."
    neighbours: Literal["ipae", "native", "border"] | None = None
    """How hosts of our own site are reached: directly, by their low 32 bits, in IPv4 or as SIP; or by the border
    router. Not given: like ``border_by``."""
    implicit_scope: Literal["site", "any"] = "site"
    "Whether SIP hosts of other sites, too, are reached directly in IPv4, while IPv4 addresses are unique (spec 5.3)."
    local: IPv4Address | None = None
    "Our IPv4 address on the link; not given: the low 32 bits of ``address`` if the interface has them, else its first."
    ipv4: Literal["machine", "programs"] = "machine"
    """Who gets IPv4 packets to the low 32 bits of ``address``: the machine's own IP stack, or the same programs that
    SIP packets go to, which then hear IPv4-only hosts of the site as well."""
    device: Interface = "sip0"
    "The device through which programs send and receive."
    sockets: Literal["ipv6", "ipv4"] = "ipv6"
    "By which sockets programs use SIP: IPv6, or IPv4 with aliases for all peers (spec 8.1)."
    peers: SipAddresses = ()
    'With ``sockets = "ipv4"``: IPv4-only systems (C = 1) that programs know by their low 32 bits, as an RSIP gateway.'
    full: IPv6Network = IPv6Network("fd49:5041:4500:6d74::/64")
    "PF: IPv6 addresses of SIP systems, where neither end is IPv4-only. Its words add up to ffff."
    compatible: IPv6Network = IPv6Network("fd53:4950:4300::/48")
    "PC: where either end is."
    mtu: Annotated[int, Field(ge=1280, le=65535)] | None = None
    "Of the device; not given: what fits into what the link carries (spec 3.5)."
    route: tuple[RouteSection, ...] = ()
    "Where SIP packets go, besides what follows from the above."
    alias: AliasSection | None = None
    'With ``sockets = "ipv4"``: where aliases come from.'
    dns: DnsSection | None = None
    rules: RulesSection = RulesSection()

    @field_validator("address")
    @classmethod
    def _host(cls, value: Address) -> Address:
        if value.c_bit:
            raise ValueError(f"{value} has C = 1, which is how IPv4-only hosts are named")
        if value.is_multicast or not value.low.number:
            raise ValueError(f"{value} is no host's address")
        return value

    @field_validator("peers")
    @classmethod
    def _ipv4_only(cls, value: tuple[Address, ...]) -> tuple[Address, ...]:
        for each in value:
            if not each.c_bit:
                raise ValueError(f"{each} has C = 0: only an alias of the right residue stands for it (spec 8.1)")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> NodeSection:
        if self.peers and self.sockets != "ipv4":
            raise ValueError('peers goes with sockets = "ipv4"')
        if (self.sockets == "ipv4") != (self.alias is not None):
            raise ValueError('alias and sockets = "ipv4" go together: IPv4 sockets name their peers by aliases')
        if self.profile == "sip-only" and "ipae" in (self.border_by, self.neighbours):
            raise ValueError('a SIP-only host does not speak IPv4: border_by and neighbours can be "native"')
        if self.ipv4 == "programs" and self.profile == "sip-only":
            raise ValueError('a SIP-only host takes no IPv4 packets: leave out ipv4 = "programs"')
        if self.alias is not None:
            self.alias.check_fixed(self.address)
        if self.dns is not None and isinstance(self.dns.upstream, Address) and self.sockets == "ipv4":
            raise ValueError("dns.upstream: IPv4 sockets cannot ask a SIP address")
        self.programs  # noqa: B018 - raises for prefixes that would spoil checksums
        return self

    @property
    def scope(self) -> Scope:
        """How far implicit tunnels reach."""
        return Scope(self.implicit_scope)

    @property
    def way_to_border(self) -> str:
        """``ipae`` or ``native``."""
        return self.border_by or ("native" if self.profile == "sip-only" else "ipae")

    @property
    def way_to_neighbours(self) -> str:
        """``ipae``, ``native`` or ``border``."""
        return self.neighbours or self.way_to_border

    @property
    def programs(self) -> Sockets:
        """The IPv6 addresses by which programs know SIP systems."""
        full, compatible = (
            Prefix(Address.from_octets(each.network_address.packed), each.prefixlen)
            for each in (self.full, self.compatible)
        )
        return Sockets(full=full, compatible=compatible)
