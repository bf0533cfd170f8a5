# SPDX-License-Identifier: BSD-3-Clause
"""Checksum-neutral addresses: what unmodified programs use in place of SIP addresses (spec 8.1 to 8.3).

A transport checksum covers addresses, and the program's kernel writes it for the addresses *it* knows. If the
words of those add up to the same as the words that the SIP rule asks for, nobody need touch the transport: not
in the first fragment, not under encryption, not of a protocol that nobody has heard of. With H the sum of the
upper two words of a SIP address and L that of the lower two, all modulo 65535, where 0 and 65535 are one residue::

    stack                                  writes                      SIP rule wants              so
    IPv6 sockets, addresses P:A            P+H+L of both               full: H+L of both           P = 0
    the same                                                           compatible: L of both       P(H) = -H
    IPv4 socket, local V, alias a          V + a                       compatible: V + L_d         a = L_d
    the same, for an identity with C = 0                               full: H_V+V+H_d+L_d         a = H_V+H_d+L_d
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import Translate, neutral
from isthmus.checksum import ones_sum

MODULUS = 0xFFFF
"One's complement arithmetic on 16-bit words is arithmetic modulo 65535 (RFC 1071 §2)."
_GLOBAL_ID_BITS = 40
_UNIQUE_LOCAL = 0xFD
_SIP_BITS = (1 << 64) - 1


def upper_residue(address: Address) -> int:
    """H: the sum of the two upper words of a SIP address, C bit included, 0 to 65534 (spec 8.1)."""
    return ones_sum(address.octets[:4]) % MODULUS


def lower_residue(address: Address) -> int:
    """L: the sum of the last two words of an address, the IPv4 address in a SIP one, 0 to 65534 (spec 8.1)."""
    return ones_sum(address.octets[-4:]) % MODULUS


def alias_residue(peer: Address, *, identity: Address | None = None) -> int:
    """What the two words of an IPv4 alias must add up to for the checksum to stay right (spec 8.1, 8.3).

    Args:
        peer: The SIP address that the alias stands for.
        identity: A SIP address with C = 0 of the site whose IPv4 sockets use the alias, if others know its hosts
            as SIP hosts; None: they are IPv4-only (C = 1).

    Returns:
        0 to 65534; 65535 is the same as 0.
    """
    if identity is None or peer.c_bit or identity.c_bit:
        return lower_residue(peer)
    return (upper_residue(identity) + upper_residue(peer) + lower_residue(peer)) % MODULUS


def is_neutral(prefix: Prefix) -> bool:
    """Whether the first 64 bits of an IPv6 prefix add up to nothing: what PF must do (spec 8.2)."""
    return prefix.family is Family.IPV6 and prefix.length == 64 and ones_sum(prefix.address.octets[:8]) % MODULUS == 0


def full_prefix(global_id: int) -> Prefix:
    """Make a PF: a unique local /64 whose words add up to 0xFFFF (spec 8.2; RFC 4193 §3.1).

    Args:
        global_id: 40 random bits; the subnet becomes the complement of what they add up to.
    """
    site = unique_local(global_id)
    subnet = ~ones_sum(site.address.octets[:6]) & 0xFFFF
    return Prefix(Address(Family.IPV6, site.address.number | subnet << 64), 64)


def unique_local(global_id: int) -> Prefix:
    """The /48 of a global ID of 40 bits, good as the base of PC (RFC 4193 §3.1).

    Raises:
        ValueError: more than 40 bits.
    """
    if not 0 <= global_id < 1 << _GLOBAL_ID_BITS:
        raise ValueError(f"a global ID has {_GLOBAL_ID_BITS} bits; {global_id:#x} has not")
    return Prefix(Address(Family.IPV6, (_UNIQUE_LOCAL << _GLOBAL_ID_BITS | global_id) << 80), 48)


def compatible_prefix(base: Prefix, address: Address) -> Prefix:
    """PC(H): the /64 for a SIP address in which the upper 96 bits add up to nothing (spec 8.2).

    Args:
        base: 48 bits.
        address: A SIP address; its upper half counts.
    """
    return Prefix(Address(Family.IPV6, neutral(base, address).number & ~_SIP_BITS), 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """The IPv6 addresses by which programs know SIP systems: PF for both ends with C = 0, PC otherwise (spec 8.2)."""

    full: Prefix = Prefix.parse("fd49:5041:4500:6d74::/64")
    "PF, 64 bits that add up to nothing."
    compatible: Prefix = Prefix.parse("fd53:4950:4300::/48")
    "The base of PC(H); the next 16 bits follow from the upper half of an address."

    def __post_init__(self) -> None:
        """Refuse prefixes that would spoil checksums, and such as could be taken for one another."""
        if not is_neutral(self.full):
            word = ones_sum(self.full.address.octets[:6]) if self.full.family is Family.IPV6 else 0
            raise ValueError(
                f"{self.full} is no /64 of IPv6 whose words add up to ffff; the fourth has to be {~word & 0xFFFF:x}"
            )
        if self.compatible.family is not Family.IPV6 or self.compatible.length != 48:
            raise ValueError(f"{self.compatible} is no /48 of IPv6")
        if self.compatible.covers(self.full):
            raise ValueError(f"{self.full} lies in {self.compatible}: which rule an address is for could not be told")

    def to_ipv6(self, address: Address, *, compatible: bool) -> Address:
        """The IPv6 address of a SIP system in one packet.

        Args:
            address: The SIP address.
            compatible: Whether either end of the packet is IPv4-only; one C bit turns both ends' addresses.
        """
        return self.image(0).image_of(address, compatible=compatible)

    def name_of(self, address: Address) -> Address:
        """The IPv6 address by which a program is told of a SIP system: PC if it is IPv4-only, else PF (spec 8.4)."""
        return self.to_ipv6(address, compatible=address.c_bit)

    def to_sip(self, address: Address) -> Address | None:
        """The SIP address behind an IPv6 address; None: it is in neither prefix, or not as we would write it."""
        found = Address(Family.SIP, address.number & _SIP_BITS)
        if address in self.full or (address in self.compatible and neutral(self.compatible, found) == address):
            return found
        return None

    def image(self, realm: int) -> Translate:
        """The crossing from SIP into the realm of this number, which is that of the IPv6 sockets."""
        return Translate(realm=realm, image=self.full, compatible=self.compatible)
