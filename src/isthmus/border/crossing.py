# SPDX-License-Identifier: BSD-3-Clause
"""Crossings: the ways a packet gets across the near realm. A closed union, not a registry."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from isthmus.address import Address, Family


class TunnelKind(enum.IntEnum):
    """RSIP's tunnel types by their wire numbers (RFC 3103 §8.6); L2TP is never offered."""

    IPIP = 1
    "IP in IP (RFC 2003); over IPv6 the same with an IPv6 outer header."
    GRE = 2
    "GRE without key or sequence (RFC 2784); over IPv6 likewise."


_OVERHEAD = {
    (TunnelKind.IPIP, Family.IPV4): 20,
    (TunnelKind.IPIP, Family.IPV6): 40,
    (TunnelKind.GRE, Family.IPV4): 24,
    (TunnelKind.GRE, Family.IPV6): 44,
}


class Way(NamedTuple):
    """From one end of tunnels to the other: what all tunnels between the two have in common."""

    realm: int
    "Number of the realm that the ends are in."
    local: Address
    remote: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One way across the near realm (RFC 3103 §8.6; RFC 2003)."""

    realm: int
    "Number of the near realm, the one that the outer header belongs to."
    local: Address
    "Our end."
    remote: Address
    "The other end: at a gateway the host's private address, at a host the gateway's."
    kind: TunnelKind = TunnelKind.IPIP
    mtu: int = 1480
    "Largest inner packet carried whole, in octets, outer header already subtracted."
    checksum: bool = False
    "Whether what we put into a GRE tunnel has a checksum, four octets more (RFC 2784 §2.5). What comes may or may not."

    def __post_init__(self) -> None:
        """Refuse ends of two families and MTUs below IPv4's minimum."""
        if self.local.family is not self.remote.family:
            raise ValueError(f"a tunnel has ends of one family, not {self.local} and {self.remote}")
        if self.checksum and self.kind is not TunnelKind.GRE:
            raise ValueError("only GRE has a checksum of its own")
        if not 68 <= self.mtu <= 65535 - self.overhead:
            raise ValueError(f"tunnel MTU {self.mtu} is not within 68..{65535 - self.overhead}")

    @property
    def way(self) -> Way:
        """Between which ends it is."""
        return Way(self.realm, self.local, self.remote)

    @property
    def overhead(self) -> int:
        """Octets that the outer header and its shim add."""
        return overhead(self.kind, self.local.family, checksum=self.checksum)


def overhead(kind: TunnelKind, family: Family, *, checksum: bool = False) -> int:
    """Octets that a tunnel of this kind adds over this outer family (spec 14.6)."""
    return _OVERHEAD[kind, family] + 4 * checksum


Crossing = Tunnel
"""What a binding crosses by. IPAE adds ``Translate`` to this union."""
