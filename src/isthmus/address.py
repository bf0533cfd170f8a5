# SPDX-License-Identifier: BSD-3-Clause
"""Addresses of every family and prefixes of them, as plain comparable values.

An ``Address`` is a family and a number; a ``Prefix`` is an address and a length.
Families differ in width only: IPv4 has 32 bits, SIP (RFC 8507) 64, IPv6 128. That
is what lets one longest-prefix table serve them all, with addresses left aligned
in sixteen octets (``key_octets``).
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass


class Family(enum.IntEnum):
    """An address family. The value is what the kernel plane's maps hold."""

    IPV4 = 4
    IPV6 = 6
    SIP = 8

    @property
    def bits(self) -> int:
        """Width of an address in bits."""
        return _BITS[self]


_BITS = {Family.IPV4: 32, Family.IPV6: 128, Family.SIP: 64}


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One address. Positional, because it is written everywhere; ordered by family, then number."""

    family: Family
    number: int

    def __post_init__(self) -> None:
        """Refuse a number that the family cannot hold."""
        if not 0 <= self.number < 1 << self.family.bits:
            raise ValueError(f"{self.number:#x} is not a {self.family.name} address: it has {self.family.bits} bits")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read dotted-quad IPv4 or RFC 4291 IPv6 text.

        Raises:
            ValueError: neither of the two.
        """
        parsed = ipaddress.ip_address(text)
        return cls(Family.IPV4 if parsed.version == 4 else Family.IPV6, int(parsed))

    @classmethod
    def from_octets(cls, octets: bytes | memoryview) -> Address:
        """Read 4 octets as IPv4, 8 as SIP, 16 as IPv6, in network order."""
        family = _FAMILY_OF_LENGTH.get(len(octets))
        if family is None:
            raise ValueError(f"an address has 4, 8 or 16 octets, not {len(octets)}")
        return cls(family, int.from_bytes(octets, "big"))

    @property
    def octets(self) -> bytes:
        """The address in network order: 4, 8 or 16 octets."""
        return self.number.to_bytes(self.family.bits // 8, "big")

    @property
    def key_octets(self) -> bytes:
        """The address left aligned in sixteen octets, as map keys hold it."""
        return self.octets.ljust(16, b"\0")

    def __str__(self) -> str:
        """The canonical text form."""
        if self.family is Family.IPV4:
            return str(ipaddress.IPv4Address(self.number))
        if self.family is Family.IPV6:
            return str(ipaddress.IPv6Address(self.number))
        return ":".join(f"{self.number >> shift & 0xFFFF:x}" for shift in (48, 32, 16, 0))


_FAMILY_OF_LENGTH = {4: Family.IPV4, 8: Family.SIP, 16: Family.IPV6}


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """All addresses that begin like ``address``, in the first ``length`` bits."""

    address: Address
    length: int

    def __post_init__(self) -> None:
        """Refuse lengths out of range and host bits that are set."""
        if not 0 <= self.length <= self.address.family.bits:
            raise ValueError(f"/{self.length} is no prefix length of {self.address.family.name}")
        if self.address.number & self._host_mask:
            raise ValueError(f"{self.address}/{self.length} has bits set beyond its length")

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read ``address/length``, or a lone address as a prefix of full length."""
        address, slash, length = text.partition("/")
        parsed = Address.parse(address)
        return cls(parsed, int(length) if slash else parsed.family.bits)

    @classmethod
    def of(cls, address: Address) -> Prefix:
        """The prefix that holds one address only."""
        return cls(address, address.family.bits)

    @property
    def _host_mask(self) -> int:
        return (1 << (self.address.family.bits - self.length)) - 1

    @property
    def family(self) -> Family:
        """The family of its addresses."""
        return self.address.family

    @property
    def whole(self) -> bool:
        """Whether it holds a single address."""
        return self.length == self.address.family.bits

    def __contains__(self, address: Address) -> bool:
        """Whether the address lies in the prefix."""
        return address.family is self.family and address.number & ~self._host_mask == self.address.number

    def covers(self, other: Prefix) -> bool:
        """Whether every address of ``other`` lies in this prefix."""
        return other.length >= self.length and other.address in self

    def __iter__(self) -> Iterator[Address]:
        """Every address of the prefix, in order."""
        for number in range(self.address.number, (self.address.number | self._host_mask) + 1):
            yield Address(self.family, number)

    def __str__(self) -> str:
        """The text form ``address/length``."""
        return f"{self.address}/{self.length}"
