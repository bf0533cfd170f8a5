# SPDX-License-Identifier: BSD-3-Clause
"""The IPv4 addresses that an interface has, and their networks."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from pyroute2 import IPRoute

from isthmus.address import Address, Prefix
from isthmus.daemon.offloop import off_loop


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddress:
    """One address of an interface."""

    address: Address
    network: Prefix


def is_there(interface: str) -> bool:
    """Whether this network namespace has an interface."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


@off_loop
def link_addresses(interface: str) -> tuple[LinkAddress, ...]:
    """What an interface has, in the kernel's order; nothing if it is not there."""
    with IPRoute() as links:
        found = links.link_lookup(ifname=interface)
        if not found:
            return ()
        return tuple(
            _of(Address.parse(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")), each["prefixlen"])
            for each in links.get_addr(family=socket.AF_INET, index=found[0])
        )


def _of(address: Address, length: int) -> LinkAddress:
    spare = address.family.bits - length
    network = Prefix(Address(address.family, address.number >> spare << spare), length)
    return LinkAddress(address=address, network=network)
