# SPDX-License-Identifier: BSD-3-Clause
"""Addresses of every family and prefixes of them, as plain comparable values.

An ``Address`` is a family and a number; a ``Prefix`` is an address and a length.
Families differ in width only: IPv4 has 32 bits, SIP (RFC 8507) 64, IPv6 128. That
is what lets one longest-prefix table serve them all, with addresses left aligned
in sixteen octets (``key_octets``).

A SIP address (seed IPAE 4.1, erratum E24; spec 2.2) is an IPv4 address with 32 bits above it::

     63 62        56 55         48 47           32 31                0
    +-+-------------+-------------+---------------+-------------------+
    |C| Country     | Metro or    | Site or       | IP Address        |
    | |             | Provider    | Subscriber    |                   |
    +-+-------------+-------------+---------------+-------------------+

C is 1 where the node speaks IPv4 only. The upper half is the first 32 bits, C among them; the site
prefix is the upper half without C. Four notations are read (``Address.parse_sip``, spec 2.3) and two
are written: ``c1.213.77.5/192.3.4.1`` for people, ``81D5:4D05:C003:0401`` (``hex``) for dumps and keys.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


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
_LIMITS = {family: 1 << bits for family, bits in _BITS.items()}
_LOW = (1 << 32) - 1
_C = 1 << 63
_MULTICAST_COUNTRY = 127


class _AddressFields(NamedTuple):
    """What an address is made of. A tuple, since every lookup hashes and compares one: so the interpreter does it."""

    family: Family
    number: int


class Address(_AddressFields):
    """One address. Positional, because it is written everywhere; ordered by family, then number."""

    __slots__ = ()

    def __new__(cls, family: Family, number: int) -> Address:
        """Refuse a number that the family cannot hold."""
        if not 0 <= number < _LIMITS[family]:
            raise ValueError(f"{number:#x} is not a {family.name} address: it has {family.bits} bits")
        return tuple.__new__(cls, (family, number))

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read dotted-quad IPv4 or RFC 4291 IPv6 text.

        Raises:
            ValueError: neither of the two.
        """
        parsed = ipaddress.ip_address(text)
        return cls(Family.IPV4 if parsed.version == 4 else Family.IPV6, int(parsed))

    @classmethod
    def parse_sip(cls, text: str) -> Address:
        """Read a SIP address in any of the four notations (seed IPAE 7, RFC 8507 §4.1; spec 2.3).

        ``1.213.77.5/192.3.4.1`` with ``.`` or ``:`` above and ``/`` or ``:`` before the IPv4 address;
        the same with C set, ``c1.213.77.5/...`` or ``129.213.77.5/...``; sixteen hex digits with a
        colon after the fourth; two hex words and an IPv4 address, ``1404:1:192.9.5.2``. White space
        is ignored, and numbers with leading zeros are decimal all the same (erratum E17).

        Raises:
            ValueError: none of the four; a bare IPv4 address is none.
        """
        return cls(Family.SIP, _sip_number("".join(text.split())))

    @classmethod
    def parse_any(cls, text: str) -> Address:
        """Read an address of any family; a SIP address has a colon or a slash, which tells it.

        Raises:
            ValueError: no address of any family.
        """
        try:
            return cls.parse(text)
        except ValueError:
            return cls.parse_sip(text)

    @classmethod
    def of_halves(cls, upper: int, low: Address) -> Address:
        """Put a SIP address together (seed IPAE 4.1).

        Args:
            upper: Its first 32 bits, the C bit among them.
            low: An IPv4 address, its last 32 bits.
        """
        if low.family is not Family.IPV4 or not 0 <= upper <= _LOW:
            raise ValueError(f"{upper:#x} and {low} are no upper half of 32 bits and IPv4 address")
        return cls(Family.SIP, upper << 32 | low.number)

    @classmethod
    def from_octets(cls, octets: bytes | bytearray | memoryview) -> Address:
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

    @property
    def c_bit(self) -> bool:
        """Whether it is the SIP address of a node that speaks IPv4 only (seed IPAE 4.1; erratum E25)."""
        return self.family is Family.SIP and bool(self.number & _C)

    def with_c_bit(self, *, c_bit: bool) -> Address:
        """The same SIP address with the C bit as said."""
        self._require_sip()
        return Address(Family.SIP, self.number | _C if c_bit else self.number & ~_C)

    @property
    def upper(self) -> int:
        """The first 32 bits of a SIP address, the C bit among them."""
        self._require_sip()
        return self.number >> 32

    @property
    def low(self) -> Address:
        """The last 32 bits of a SIP address, which are an IPv4 address (seed IPAE 3.2)."""
        self._require_sip()
        return Address(Family.IPV4, self.number & _LOW)

    @property
    def site(self) -> Prefix:
        """The site that a SIP address lies in: a /32 with the C bit cleared; equal for addresses of one site."""
        self._require_sip()
        return Prefix(Address(Family.SIP, self.number & ~_C & ~_LOW), 32)

    @property
    def country(self) -> int:
        """The country of a SIP address, 7 bits; 0 is reserved, 127 is multicast (spec 2.2, erratum E26)."""
        self._require_sip()
        return self.number >> 56 & 0x7F

    @property
    def is_multicast(self) -> bool:
        """Whether it is a group: IPv4 224/4, IPv6 ff00::/8, SIP country 127 with either C bit (RFC 8507 §4.3)."""
        match self.family:
            case Family.IPV4:
                return self.number >> 28 == 0xE
            case Family.IPV6:
                return self.number >> 120 == 0xFF
            case _:
                return self.country == _MULTICAST_COUNTRY

    def _require_sip(self) -> None:
        if self.family is not Family.SIP:
            raise ValueError(f"{self} is no SIP address")

    @property
    def hex(self) -> str:
        """Sixteen hex digits in groups of four (RFC 8507 §4.1), for dumps and keys; ``str`` of other families."""
        if self.family is not Family.SIP:
            return str(self)
        return ":".join(f"{self.number >> shift & 0xFFFF:04X}" for shift in (48, 32, 16, 0))

    def __str__(self) -> str:
        """The canonical text form."""
        if self.family is Family.IPV4:
            number, text = self.number, _DECIMAL
            return f"{text[number >> 24]}.{text[number >> 16 & 255]}.{text[number >> 8 & 255]}.{text[number & 255]}"
        if self.family is Family.IPV6:
            return str(ipaddress.IPv6Address(self.number))
        return f"{upper_text(self.number >> 32)}/{self.low}"


_DECIMAL = tuple(map(str, range(256)))
"""Octets as text: addresses are written by the ten thousand a second."""
_FAMILY_OF_LENGTH = {4: Family.IPV4, 8: Family.SIP, 16: Family.IPV6}


def upper_text(upper: int) -> str:
    """Write the upper half of a SIP address as ``c?C.M.S1.S2`` (seed IPAE 7; spec 2.3)."""
    octets = upper.to_bytes(4, "big")
    return f"{'c' if octets[0] & 0x80 else ''}{octets[0] & 0x7F}." + ".".join(str(each) for each in octets[1:])


def parse_upper(text: str) -> int:
    """Read the upper half of a SIP address, ``c?C.M.S1.S2`` or ``9404:3`` (seed IPAE 7; spec 2.3).

    Returns:
        32 bits, the C bit among them.

    Raises:
        ValueError: neither notation.
    """
    return _sip_number(f"{''.join(text.split())}/0.0.0.0") >> 32


_HEX_FORM = re.compile(r"[0-9A-Fa-f]{4}(?::[0-9A-Fa-f]+)+")
_OCTET_FORM = re.compile(r"([cC]?)([0-9]+(?:[.:][0-9]+){3})[/:]([0-9]+(?:\.[0-9]+){3})")
_WORD_FORM = re.compile(r"([0-9A-Fa-f]{1,4}):([0-9A-Fa-f]{1,4})[/:]([0-9]+(?:\.[0-9]+){3})")


def _sip_number(text: str) -> int:
    """Read a SIP address without white space; the rules of spec 2.3 in their order."""
    if _HEX_FORM.fullmatch(text) and len(digits := text.replace(":", "")) == 16:
        return int(digits, 16)
    if found := _OCTET_FORM.fullmatch(text):
        return _octets(found[1], re.split("[.:]", found[2])) << 32 | _octets("", found[3].split("."))
    if found := _WORD_FORM.fullmatch(text):
        return int(found[1], 16) << 48 | int(found[2], 16) << 32 | _octets("", found[3].split("."))
    raise ValueError(f"{text!r} is no SIP address, such as 1.213.77.5/192.3.4.1 or 01D5:4D05:C003:0401")


def _octets(c: str, groups: list[str]) -> int:
    """Read decimal octets, the first of them with C if the letter stands before it."""
    numbers = [int(each) for each in groups]
    if c and numbers[0] > 0x7F:
        raise ValueError(f"{c}{numbers[0]} has the C bit twice: as a letter and as 128")
    if max(numbers) > 0xFF:
        raise ValueError(f"{max(numbers)} in {'.'.join(groups)} does not fit in an octet")
    if c:
        numbers[0] |= 0x80
    return int.from_bytes(bytes(numbers), "big")


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
    def parse_sip(cls, text: str) -> Prefix:
        """Read a SIP prefix (spec 2.3, erratum E18).

        An address or an upper half with a length, ``1.213.77.5/192.3.4.0/56``, ``1.213.77.5/32``,
        ``1404:1/32``, ``01D5:4D05:0000:0000/32``; leading octets as given, ``1.213.77.`` (24 bits),
        ``1.213.77.5`` (32), ``1.213.77.5/192.3.`` (48), or with a length, ``1.213/12``; a whole address.

        Raises:
            ValueError: none of these, or bits set beyond the length.
        """
        bare = "".join(text.split())
        if found := _LONE_LENGTH.fullmatch(bare):
            number, _ = _sip_beginning(found[1], with_length=True)
            return cls(Address(Family.SIP, number), int(found[2]))
        number, length = _sip_beginning(bare, with_length=False)
        return cls(Address(Family.SIP, number), length)

    @classmethod
    def parse_any(cls, text: str) -> Prefix:
        """Read a prefix of any family. What could be IPv4 is IPv4: a SIP /32 is written as ``hex`` has it.

        Raises:
            ValueError: no prefix of any family.
        """
        try:
            return cls.parse(text)
        except ValueError:
            return cls.parse_sip(text)

    @classmethod
    def of(cls, address: Address) -> Prefix:
        """The prefix that holds one address only."""
        return _whole(address)

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
        return self.length == _BITS[self.address[0]]

    def __contains__(self, address: Address) -> bool:
        """Whether the address lies in the prefix."""
        family, number = self.address
        return address[0] is family and (address[1] ^ number) >> (_BITS[family] - self.length) == 0

    def covers(self, other: Prefix) -> bool:
        """Whether every address of ``other`` lies in this prefix."""
        return other.length >= self.length and other.address in self

    def __iter__(self) -> Iterator[Address]:
        """Every address of the prefix, in order."""
        for number in range(self.address.number, (self.address.number | self._host_mask) + 1):
            yield Address(self.family, number)

    @property
    def hex(self) -> str:
        """``01D5:4D05:0000:0000/32``, for dumps and keys: read by ``parse_any``; ``str`` of other families."""
        return f"{self.address.hex}/{self.length}"

    def __str__(self) -> str:
        """The text form ``address/length``; of a SIP prefix of up to 32 bits, ``upper half/length``."""
        if self.family is Family.SIP and self.length <= 32:
            return f"{upper_text(self.address.number >> 32)}/{self.length}"
        return f"{self.address}/{self.length}"


@lru_cache(4096)
def _whole(address: Address) -> Prefix:
    """Leased addresses are few, and each is asked for with every lease."""
    return Prefix(address, address.family.bits)


_LONE_LENGTH = re.compile(r"(.*)/([0-9]{1,2})")
_OCTET_BEGINNING = re.compile(r"([cC]?)([0-9]+(?:[.:][0-9]+){0,3})([.:]?)")
_LOW_BEGINNING = re.compile(r"(.*[^/:])[/:]([0-9]+(?:\.[0-9]+){0,2})\.")
_WORD_BEGINNING = re.compile(r"[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}")


def _sip_beginning(text: str, *, with_length: bool) -> tuple[int, int]:
    """Read the beginning of a SIP address: 64 bits, and how many of them were given."""
    if _WORD_BEGINNING.fullmatch(text):
        return parse_upper(text) << 32, 32
    if (found := _OCTET_BEGINNING.fullmatch(text)) and not _HEX_FORM.fullmatch(text):
        groups = re.split("[.:]", found[2])
        if with_length or len(groups) == 4 or found[3]:
            return _octets(found[1], groups) << 64 - 8 * len(groups), 8 * len(groups)
    if found := _LOW_BEGINNING.fullmatch(text):
        groups = found[2].split(".")
        return parse_upper(found[1]) << 32 | _octets("", groups) << 32 - 8 * len(groups), 32 + 8 * len(groups)
    return _sip_number(text), 64
