# SPDX-License-Identifier: BSD-3-Clause
"""``[host]``: hold leases from a gateway."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from isthmus.border.ranges import Ranges
from isthmus.daemon.config.discovery import DiscoverSection
from isthmus.daemon.config.fields import (
    AnyAddress,
    Interface,
    Name,
    Network,
    Ports,
    Seconds,
    Section,
    ports_of,
    spis_of,
)


def host_spis_of(value: object) -> int | Ranges:
    """Read SPIs: how many of any, or hexadecimal text like ``10000-10fff`` with the very ones.

    Raises:
        ValueError: neither of the two.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65535:
            raise ValueError(f"{value} SPIs: one lease holds 1 to 65535 (RFC 3104 §6.2)")
        return value
    ranges = None if isinstance(value, bool) else spis_of(value)
    if ranges is None:
        raise ValueError('write how many, or hexadecimal SPIs like "10000-10fff"')
    return ranges


HostSpis = Annotated[int | Ranges, BeforeValidator(host_spis_of)]


class HostLeaseSection(Section):
    """``[[host.lease]]``: something that this host wants to hold."""

    ports: int | Ports | None = None
    """How many ports of any shared address, or the very ports. Not given: 64; 1 with ``listen``; with ``spis``
    none are needed."""
    listen: bool = False
    "Whether anybody may call these ports, not only peers that were written to (RFC 3103 §9.16)."
    spis: HostSpis | None = None
    "How many SPIs, or the very ones, for IPsec (RFC 3104 §6.2)."
    ike: bool = True
    "With ``spis``: whether IKE on port 500 may be tried, told apart by initiator cookies (RFC 3104 §6.1)."
    identity: str | None = None
    """An IKE initiator whose calls to port 500 are wanted, as TYPE:DATA: ``fqdn:``, ``user:``, ``address:`` or
    ``key:`` (seed RSIP 4.1; an extension)."""
    address: IPv4Address | Literal["any"] | None = None
    "An address to hold whole (RSA-IP) when ``whole`` is set; otherwise the shared address wanted."
    whole: bool = False
    remote: str | None = None
    "The only peer, an address or a name; a host under a remote flow policy must name one (RFC 3103 §7.2)."
    remote_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    "The peer's only port; needed under remote micro-flow policy."
    device: Interface = "rsip0"
    "The device that gets the leased address on this machine. Leases may share one."
    routes: tuple[Network, ...] = ()
    "Destinations that are reached from the leased address."
    seconds: Seconds | None = None
    "The lease time to suggest."
    ephemeral: bool | None = None
    """Whether the programs of this machine draw their ephemeral ports from the lease (RFC 3102 §3.1). Not given:
    if it is no ``listen``, and for every peer."""

    @field_validator("ports", mode="before")
    @classmethod
    def _count_or_ports(cls, value: object) -> object:
        if isinstance(value, int) and not 1 <= value <= 255:
            raise ValueError(f"{value} ports: one lease holds 1 to 255 (RFC 3103 §8.2)")
        return value if isinstance(value, int) or value is None else ports_of(value)

    @field_validator("identity")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            identity_of(value)
        return value

    @model_validator(mode="after")
    def _of_one_kind(self) -> HostLeaseSection:
        given = {"whole": self.whole, "listen": self.listen, "spis": self.spis is not None, "identity": self.identity}
        named = [name for name, there in given.items() if there]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} do not go together: write two leases")
        if self.ports is not None and (self.whole or self.identity is not None):
            raise ValueError(f"ports do not go with {named[0]}")
        if self.remote_port is not None and self.remote is None:
            raise ValueError("remote_port needs remote")
        return self

    @property
    def wanted_ports(self) -> int | Ranges | None:
        """Ports to ask for."""
        if self.ports is not None:
            return self.ports
        if self.whole or self.spis is not None or self.identity is not None:
            return None
        return 1 if self.listen else 64

    @property
    def is_ephemeral(self) -> bool:
        """Whether programs draw their ports from it."""
        return not self.listen and self.remote is None if self.ephemeral is None else self.ephemeral


_IDENTITY_TYPES = {"address": 1, "fqdn": 2, "user": 3, "key": 11}


def identity_of(text: str) -> tuple[int, bytes]:
    """Read an IKE identity like ``fqdn:a.example``.

    Returns:
        The ID type (RFC 2407 §4.6.2.1) and the identification data.

    Raises:
        ValueError: it is none.
    """
    word, colon, data = text.partition(":")
    kind = _IDENTITY_TYPES.get(word)
    if kind is None or not colon or not data:
        raise ValueError(f"{text!r} is no identity like fqdn:a.example; TYPE is one of {', '.join(_IDENTITY_TYPES)}")
    return kind, IPv4Address(data).packed if word == "address" else data.encode()


class HostSection(Section):
    """``[host]``: hold leases from a gateway."""

    near: Name
    gateway: AnyAddress = IPv4Address(0)
    "The RSIP gateway; over IPv6 its tunnels are IPv4-in-IPv6. Not given: it is looked for, see ``discover``."
    port: Annotated[int, Field(ge=1, le=65535)] = 4555
    transport: Literal["udp", "tcp"] = "udp"
    first_timeout: Annotated[float, Field(gt=0, le=60)] = 0.1
    "Seconds before the first retransmission; it doubles six times (RFC 3103 §5 begins with 0.0125)."
    tunnels: Literal["plane", "native"] = "plane"
    """Who encapsulates: our planes, or the tunnel devices of this machine's kernel (ipip, gre, ip6tnl). Native needs
    nothing else of us on the path of a packet, and checks nothing there."""
    tunnel_type: Literal["ipip", "gre"] | None = None
    "The tunnel type to ask for; not given: as the gateway thinks fit, which is ipip."
    gre_checksum: bool = False
    "Whether GRE carries a checksum toward the gateway; native tunnels then take only what has one, too."
    lease: tuple[HostLeaseSection, ...] = ()
    discover: DiscoverSection | None = None
    "How to look for gateways; goes with no ``gateway``."

    @model_validator(mode="after")
    def _named_or_looked_for(self) -> HostSection:
        if not self.gateway.is_unspecified and self.discover is not None:
            raise ValueError("discover finds the gateway, and gateway names it: write one of the two")
        return self

    @property
    def seeks(self) -> DiscoverSection | None:
        """How to look for the gateway; None: it is named."""
        return (self.discover or DiscoverSection()) if self.gateway.is_unspecified else None
