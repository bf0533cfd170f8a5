# SPDX-License-Identifier: BSD-3-Clause
"""How much the maps have to hold for a border."""

from __future__ import annotations

from isthmus.border.realm import Border
from isthmus.border.selector import Kind
from isthmus.errors import Unsupported
from isthmus.plane.kernel.image import is_ipae
from isthmus.plane.kernel.maps import REALMS
from isthmus.plane.kernel.pinned import Sizes

_SPARE_ADDRESSES = 16
"Addresses beyond the claimed ones that there are slices for: of a host, or bound by configuration."
_LEAST_WORDS, _LEAST_OWNERS = 1 << 14, 1 << 20
RING_SLOTS = 1 << 16


def checked(border: Border) -> Border:
    """Refuse realms that the program cannot tell apart."""
    seen: dict[int, int] = {}
    for realm in border.realms:
        other = seen.setdefault(realm.number % REALMS, realm.number)
        if other != realm.number:
            raise Unsupported(
                f"realms {other} and {realm.number}: their numbers are equal modulo {REALMS}",
                remedy="number one of them differently",
            )
    return border


def sizes_for(border: Border) -> Sizes:
    """Room for every claimed address and a few more."""
    addresses = {(claim.realm, claim.address) for claim in border.claims if claim.kind is Kind.PORT}
    each = (1 << 16) // border.slice_size
    ring = RING_SLOTS if is_ipae(border) else 1
    slices = max((len(addresses) + _SPARE_ADDRESSES) * each, _LEAST_WORDS)
    return Sizes(slices=slices, owners=max(slices, _LEAST_OWNERS), ring=ring)
