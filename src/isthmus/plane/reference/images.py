# SPDX-License-Identifier: BSD-3-Clause
"""By which address a system of one realm is known in another (seed IPAE 5.1, 5.2; spec 6.3, 8.3).

Pairs with ``bpf/include/isthmus/images.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.border.crossing import Translate
from isthmus.border.realm import Foreign, Realm
from isthmus.border.table import Entry
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.translate_ipv6 import sip_of


@dataclass(frozen=True, slots=True)
class Target:
    """Whom an address of IPv4 or of IPv6 sockets stands for."""

    realm: int
    "Number of the SIP realm."
    address: Address
    entry: Entry | None = None
    "The binding that says so; None: the mapping of the realm."


def target(known: Memory, realm: Realm, address: Address) -> Target | None:
    """Find whom an address stands for: by a binding, or else by the mapping (seed IPAE 5.1; erratum E4).

    Returns:
        None if it is the realm's own affair, or nobody knows.
    """
    entry = known.table.route(realm.number, address)
    if entry is not None:
        crossing = entry.binding.crossing
        if not isinstance(crossing, Translate) or crossing.image.family is not Family.SIP:
            return None
        return Target(crossing.realm, crossing.image_of(address), entry)
    mapped = known.table.mapped(realm.number)
    image = None if mapped is None else mapped.mapping.lookup(address)
    if mapped is None or image is None or is_ours(known, realm, address):
        return None
    found = Address.of_halves(image.address.upper, address)
    # What the mapping says is our own site's is routed as IPv4 (spec 6.2).
    return None if found.site == realm.site else Target(mapped.sip, found)


def is_ours(known: Memory, realm: Realm, address: Address) -> bool:
    """Whether an IPv4 address is this machine's: an end of tunnels, or what is IPv4 of one of our SIP addresses."""
    if any(end.realm == realm.number and end.address == address for end in known.border.tunnel_ends):
        return True
    return any(each.address.low == address and each.address.site == realm.site for each in known.border.nodes)


def in_sip(known: Memory, sip: int, realm: Realm, address: Address) -> Address | None:
    """By which SIP address a system of IPv4, or a program of ours, is known (seed IPAE 5.1; spec 8.2)."""
    if realm.family is Family.IPV6:
        found = sip_of(address)
        return found if known.is_node(sip, found) else None
    return known.table.known_as(sip, realm.number, address)


def stop_in_sip(known: Memory, sip: int, realm: Realm, address: Address) -> Address | None:
    """The SIP address of a stop of a source route: by the mapping, or a system of our own site (spec 3.3)."""
    found = target(known, realm, address)
    return found.address if found is not None else in_sip(known, sip, realm, address)


def in_ipv4(known: Memory, realm: Realm, sip: int, address: Address) -> Address | None:
    """By which IPv4 address a SIP system is known in a realm (seed IPAE 5.2; spec 8.3).

    Returns:
        None if it is known by none: ``Realm.foreign`` says what then.
    """
    bound = known.table.known_as(realm.number, sip, address)
    if bound is not None:
        return bound
    if realm.foreign is Foreign.LOW or address.site == realm.site:
        return address.low
    mapped = known.table.mapped(realm.number)
    image = None if mapped is None else mapped.mapping.lookup(address.low)
    return address.low if image is not None and image.address.site == address.site else None
