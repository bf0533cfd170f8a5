# SPDX-License-Identifier: BSD-3-Clause
"""``[border.learn]``: SIP routes from a routing daemon of IPv6 (seed IPAE 6.3; spec 6.5)."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from isthmus.address import Address, Prefix
from isthmus.daemon.config.fields import Name, Section
from isthmus.daemon.kernel_routes import PROTOCOLS

TABLE = 4641
"""A table that nothing else uses; IPAE's protocol number is 41."""
_MAIN_TABLES = (253, 254, 255)
_LARGEST_TABLE = (1 << 32) - 1


def protocol_of(value: object) -> object:
    """Read the name of who enters routes, or the kernel's number."""
    if not isinstance(value, str):
        return value
    if value not in PROTOCOLS:
        raise ValueError(f"{value!r} is none of {', '.join(PROTOCOLS)}, and no number")
    return PROTOCOLS[value]


RoutingProtocol = Annotated[int, BeforeValidator(protocol_of), Field(ge=1, le=255)]


class LearnSection(Section):
    """``[border.learn]``: SIP routes from a routing daemon of IPv6, by a routing table of the kernel."""

    table: Annotated[int, Field(ge=1, le=_LARGEST_TABLE)] = TABLE
    "The kernel's number of the table, which no rule (``ip -6 rule``) may lead to: it carries SIP, and no IPv6."
    protocols: Annotated[tuple[RoutingProtocol, ...], Field(min_length=1)] = tuple(
        number for name, number in PROTOCOLS.items() if name != "boot"
    )
    """Whose routes count, by name or number; not given: babel, bgp, bird, eigrp, isis, ospf, rip, static and zebra, but
    not ``boot``, which is ``ip -6 route add`` without a protocol."""
    prefix: IPv6Network = IPv6Network("fd49:5041:4500:6d74::/64")
    "Of 64 bits: SIP prefixes are carried in it."
    ipae: tuple[Name, ...] = ()
    "Realms through which next systems are reached inside of IPv4; on the links of others SIP goes as it is."
    most: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    "How many prefixes are learned; of more, the longest are left."

    @field_validator("table")
    @classmethod
    def _own(cls, value: int) -> int:
        if value in _MAIN_TABLES:
            raise ValueError(f"{value} is a table that the kernel routes IPv6 by; take another, like {TABLE}")
        return value

    @field_validator("prefix")
    @classmethod
    def _half(cls, value: IPv6Network) -> IPv6Network:
        if value.prefixlen != 64:
            raise ValueError(f"{value} has no 64 bits: the other 64 are a SIP address")
        return value

    @property
    def full(self) -> Prefix:
        """The prefix that SIP prefixes are carried in."""
        return Prefix(Address.from_octets(self.prefix.network_address.packed), self.prefix.prefixlen)
