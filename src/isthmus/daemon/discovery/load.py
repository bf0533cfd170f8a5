# SPDX-License-Identifier: BSD-3-Clause
"""The load that a gateway advertises: the leased share of its pool, 0 to 100 (RFC 3105 §7)."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus.border.selector import Kind
from isthmus.daemon.config.gateway import GatewaySection
from isthmus.store import Held


def leased_share(section: GatewaySection, leases: Iterable[Held]) -> int:
    """Say how much of what a gateway may lease is leased.

    Ports count where there are shared addresses, since that is what hosts ask for first; whole
    addresses count at a gateway that has nothing else.
    """
    # Silent: RFC 3105 §6 calls load a number of sessions, §7 a number from 0 to 100. It is a share here, so that
    # gateways of different sizes can be compared.
    ports = sum(len(pool.ports) for pool in section.pool if pool.address is not None and pool.ports is not None)
    addresses = sum(pool.prefix.num_addresses for pool in section.pool if pool.prefix is not None)
    held_ports = held_addresses = 0
    for held in leases:
        for selector in held.binding.selectors:
            if selector.kind is Kind.PORT:
                held_ports += len(selector.values)
            elif selector.kind is None:
                held_addresses += 1
    total, leased = (ports, held_ports) if ports else (addresses, held_addresses)
    return min(100, -(-100 * leased // total)) if total else 0
