# SPDX-License-Identifier: BSD-3-Clause
"""Quotas: the most that one host may hold at a time (RFC 3103 §11)."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.border.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that one host may hold at a time (RFC 3103 §11)."""

    bindings: int = 64
    ports: int = 4096
    addresses: int = 4
    "Whole addresses."
    spis: int = 256

    def allows(self, held: tuple[Resource, ...], resource: Resource) -> bool:
        """Whether who holds some resources may have another."""
        if not held and resource.ports and not resource.spis and len(resource.ports) <= self.ports and self.bindings:
            return True  # what nearly all ask for
        all_of_it = (*held, resource)
        return (
            len(all_of_it) <= self.bindings
            and sum(len(each.ports or ()) for each in all_of_it) <= self.ports
            and sum(each.whole for each in all_of_it) <= self.addresses
            and sum(len(each.spis or ()) for each in all_of_it) <= self.spis
        )
