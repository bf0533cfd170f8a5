# SPDX-License-Identifier: BSD-3-Clause
"""Resources: what one lease holds of one address (RFC 3102 §2; RFC 3104 §6)."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address
from isthmus.border.binding import Binding
from isthmus.border.ranges import Ranges, merge
from isthmus.border.selector import Kind
from isthmus.value import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What one lease holds of one address."""

    realm: int
    address: Address
    ports: Ranges | None = None
    "None where nothing else is held: the whole address."
    spis: Ranges | None = None
    ike: bool = False
    "Whether port 500 may be used, told apart by initiator cookies (RFC 3104 §6.1); any number of leases may have it."
    identities: Ranges | None = None
    "IKE initiators that are listened for, by ``identity_value``."

    @property
    def whole(self) -> bool:
        """Whether the address is held whole."""
        return self.ports is None and self.spis is None and self.identities is None and not self.ike

    def __str__(self) -> str:
        """``149.112.240.55 ports 10000-10063``."""
        parts = [str(self.address)]
        if self.ports is not None:
            parts.append(f"ports {self.ports}")
        if self.spis is not None:
            parts.append(f"SPIs {self.spis}")
        if self.ike:
            parts.append("IKE")
        if self.identities is not None:
            parts.append(f"IKE initiators {self.identities}")
        return " ".join(parts)


def resource_of(binding: Binding) -> Resource:
    """What a binding holds, read off its selectors; ports that it has lent are not its own."""
    kinds = {selector.kind for selector in binding.selectors}
    if None in kinds:
        return Resource(realm=binding.realm, address=binding.address)
    return Resource(
        realm=binding.realm,
        address=binding.address,
        ports=values_of(binding, Kind.PORT) if Kind.PORT in kinds else None,
        spis=values_of(binding, Kind.SPI) if Kind.SPI in kinds else None,
        ike=Kind.COOKIE in kinds,
        identities=values_of(binding, Kind.IDENTITY) if Kind.IDENTITY in kinds else None,
    )


def values_of(binding: Binding, kind: Kind | None) -> Ranges:
    """All numbers of one kind that a binding holds."""
    found = [selector.values for selector in binding.selectors if selector.kind is kind]
    return found[0] if len(found) == 1 else merge(found)
