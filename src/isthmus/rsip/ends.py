# SPDX-License-Identifier: BSD-3-Clause
"""Where the tunnels of hosts end at a gateway, and how much they carry (RFC 3103 §8.6; seed RSIP 4.3).

A tunnel ends at an address of the host's own family: a host of an IPv6-only network has
its IPv4 packets carried in IPv6. Where tunnels end need not be where the control protocol
is spoken; every response names it (RFC 3103 §9.7.3).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.address import Address, Family
from isthmus.border.crossing import Tunnel, TunnelKind, overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnds:
    """Our ends of the tunnels across the near realm."""

    realm: int
    "Number of the near realm."
    addresses: Mapping[Family, Address]
    "One for each family that hosts may have."
    link_mtu: int
    "Largest packet that the near realm carries, in octets, outer header included."
    gre_checksum: bool = False
    "Whether what we put into GRE has a checksum (RFC 2784 §2.5)."

    _common: Mapping[tuple[TunnelKind, Family], tuple[Address, int, bool]] = field(
        init=False, repr=False, compare=False
    )
    "Our end, the MTU, and whether there is a checksum, of all tunnels of one kind to hosts of one family."

    def __post_init__(self) -> None:
        """Refuse an address under another family's name, and none at all."""
        if not self.addresses or any(each.family is not family for family, each in self.addresses.items()):
            raise ValueError(f"tunnel ends {dict(self.addresses)} are not one for each family")
        common = {}
        for (family, local), kind in itertools.product(self.addresses.items(), TunnelKind):
            checksum = self.gre_checksum and kind is TunnelKind.GRE
            common[kind, family] = local, self.link_mtu - overhead(kind, family, checksum=checksum), checksum
        object.__setattr__(self, "_common", common)

    def serves(self, address: Address) -> bool:
        """Whether a host with this address can have a tunnel."""
        return address.family in self.addresses

    def for_host(self, address: Address) -> Address:
        """Our end for the host with this address."""
        return self.addresses[address.family]

    def tunnel(self, host: Address, kind: TunnelKind) -> Tunnel:
        """A tunnel to a host."""
        local, mtu, checksum = self._common[kind, host.family]
        return Tunnel(realm=self.realm, local=local, remote=host, kind=kind, mtu=mtu, checksum=checksum)
