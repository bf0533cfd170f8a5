# SPDX-License-Identifier: BSD-3-Clause
"""In which of its three formats an IPAE host sends, and to whom (seed IPAE 3.4, 4.5.1, 8.2; T93 6.1; spec 5.3)."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.ipae.addressing import Format

NATIVE_SECONDS = 600.0
"How long a neighbour counts as speaking SIP after a frame of it (spec 5.3)."
_MOST_NEIGHBOURS = 4096


class Scope(enum.Enum):
    """How far implicit tunnels reach, whose end is the destination itself (erratum E22)."""

    ANY = "any"
    "Everywhere: IPv4 addresses are still unique (milestones I and H)."
    SITE = "site"
    "Within the site (T93 4.2; milestone R)."


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatPolicy:
    """What a host knows of its surroundings."""

    site: Prefix
    "The site of the interface that it sends by: a SIP /32, C = 0."
    subnets: tuple[Prefix, ...] = ()
    "SIP prefixes, C = 0, of the link."
    intra_ad_ipv4: bool = False
    "Whether IPAE hosts of the site speak IPv4 among each other (seed IPAE 8.2; erratum E29)."
    implicit_scope: Scope = Scope.SITE
    border_router: Address | None = None
    "The IPv4 address of the border router on this side."
    native: frozenset[Address] = frozenset()
    "IPv4 addresses of neighbours that are configured, or have been heard, to speak SIP on the link."

    def __post_init__(self) -> None:
        """Refuse what is not a site."""
        if self.site.family is not Family.SIP or self.site.length != 32 or self.site.address.c_bit:
            raise ValueError(f"{self.site} is no site: that is a SIP prefix of 32 bits with C = 0")

    def is_on_link(self, destination: Address) -> bool:
        """Whether a SIP destination is a neighbour."""
        return any(destination.with_c_bit(c_bit=False) in subnet for subnet in self.subnets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How to send one packet."""

    packet_format: Format
    next_node: Address
    """An IPv4 address: in the IPv4 format the destination itself, in IPAE that of the outer header, in SIP that of the
    neighbour."""


def choose(destination: Address, policy: FormatPolicy) -> Sending | None:
    """Choose format and next IPAE node for a SIP destination (spec 5.3).

    Args:
        destination: The global address; the first stop if the packet is source routed.
        policy: What is known of the surroundings.

    Returns:
        None if there is no way, because a border router would be needed and none is configured.
    """
    same_site = destination.site == policy.site
    low = destination.low
    if same_site and (destination.c_bit or policy.intra_ad_ipv4):
        return Sending(packet_format=Format.IPV4, next_node=low)
    if not destination.c_bit:
        if policy.is_on_link(destination) and low in policy.native:
            return Sending(packet_format=Format.SIP, next_node=low)
        # Deviation: spec 5.3 has implicit tunnels for every destination in scope. One with C = 1 elsewhere cannot take
        # an IPAE datagram: it is for the gateway of its site to translate (seed IPAE 3.4).
        if same_site or policy.implicit_scope is Scope.ANY:
            return Sending(packet_format=Format.IPAE, next_node=low)
    if policy.border_router is None:
        return None
    native = policy.border_router in policy.native
    return Sending(packet_format=Format.SIP if native else Format.IPAE, next_node=policy.border_router)


class NativeNeighbours:
    """Which neighbours speak SIP on the link: configured ones, and for ten minutes whoever sent a frame (spec 5.3)."""

    def __init__(self, configured: Iterable[Address] = ()) -> None:
        """Begin with those of the configuration, IPv4 addresses that are known for good."""
        self._configured = frozenset(configured)
        self._heard: dict[Address, float] = {}

    def heard(self, neighbour: Address, *, now: float) -> None:
        """A native SIP frame has come from the neighbour that ARP knows by this IPv4 address."""
        self._heard.pop(neighbour, None)
        if len(self._heard) >= _MOST_NEIGHBOURS:
            self._heard.pop(next(iter(self._heard)))
        self._heard[neighbour] = now

    def known(self, *, now: float) -> frozenset[Address]:
        """The neighbours that count as native now."""
        self._heard = {each: at for each, at in self._heard.items() if at + NATIVE_SECONDS > now}
        return self._configured | self._heard.keys()
