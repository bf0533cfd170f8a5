# SPDX-License-Identifier: BSD-3-Clause
"""The parameters that name what is leased: addresses, ports and SPIs (RFC 3103 §8.1, §8.2; RFC 3104 §6.2).

Each keeps the form it has on the wire, since one set of ports can be written as a range
or as a list; what it means is asked with ``dont_care``, ``address``, ``port_set``, ``spi_set``.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from isthmus.address import Address, Family
from isthmus.wire.rsip.codes import AddressType, known
from isthmus.wire.rsip.value import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(rb"[!-~]*")
_NAME_OCTETS = 255
_ADDRESS_OCTETS: dict[int, int] = {AddressType.IPV4: 4, AddressType.IPV4_NETMASK: 4, AddressType.IPV6: 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class RsipAddress(Parameter):
    """Address: an address, a netmask or a name, or "any" of that type (RFC 3103 §8.1)."""

    addrtype: AddressType | int = AddressType.IPV4
    octets: bytes = b""
    "The address, the mask or the name in ASCII; empty means don't care."

    def __post_init__(self) -> None:
        """Refuse lengths that do not fit the type and names that are not plain ASCII."""
        if not 0 <= self.addrtype <= 0xFF:
            raise ValueError(f"address type {self.addrtype} does not fit in 8 bits")
        length = len(self.octets)
        if length and length != _ADDRESS_OCTETS.get(self.addrtype, length):
            raise ValueError(f"address of type {self.addrtype} with {length} octets")
        if self.addrtype == AddressType.FQDN and length > _NAME_OCTETS:
            # Silent: RFC 3103 §8.1 has no limit; no name of the DNS is longer (RFC 1035 §2.3.4).
            raise ValueError(f"a name of {length} octets, at most {_NAME_OCTETS}")
        if self.addrtype == AddressType.FQDN and not _NAME.fullmatch(self.octets):
            raise ValueError(f"name {self.octets!r} has octets other than printable ASCII")

    @classmethod
    def any(cls) -> Self:
        """Any IPv4 address will do."""
        # Silent: RFC 3103 §8.1 does not say which type to send with "don't care"; IPv4 is what it is about.
        return cls()

    @classmethod
    def of(cls, address: Address) -> Self:
        """One IPv4 or IPv6 address."""
        types = {Family.IPV4: AddressType.IPV4, Family.IPV6: AddressType.IPV6}
        if address.family not in types:
            raise ValueError(f"RSIP has no address type for {address.family.name}")
        return cls(addrtype=types[address.family], octets=address.octets)

    @classmethod
    def netmask(cls, length: int) -> Self:
        """The IPv4 netmask of a prefix length."""
        mask = (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
        return cls(addrtype=AddressType.IPV4_NETMASK, octets=mask.to_bytes(4, "big"))

    @classmethod
    def fqdn(cls, name: str) -> Self:
        """One domain name."""
        return cls(addrtype=AddressType.FQDN, octets=name.encode())

    @property
    def dont_care(self) -> bool:
        """Whether any address will do."""
        # Deviation: RFC 3103 §8.1 says don't care is length 1; §9.8.3 speaks of zeros. Both are understood.
        if self.addrtype in (AddressType.IPV4, AddressType.IPV6):
            return not any(self.octets)
        return not self.octets

    @property
    def address(self) -> Address | None:
        """The address, if it is IPv4 or IPv6 and given."""
        if self.dont_care or self.addrtype not in (AddressType.IPV4, AddressType.IPV6):
            return None
        return Address.from_octets(self.octets)

    @property
    def name(self) -> str | None:
        """The domain name, if it is one and given."""
        return self.octets.decode() if self.addrtype == AddressType.FQDN and self.octets else None

    @property
    def prefix_length(self) -> int | None:
        """How many one bits the netmask has, if it is a netmask without gaps."""
        if self.addrtype != AddressType.IPV4_NETMASK or not self.octets:
            return None
        inverse = ~int.from_bytes(self.octets, "big") & 0xFFFFFFFF
        return None if inverse & (inverse + 1) else 32 - inverse.bit_length()

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if not octets:
            raise ValueError("length 0, must be at least 1")
        return cls(addrtype=known(AddressType, octets[0]), octets=octets[1:])

    def emit(self) -> bytes:
        """Give the value as octets."""
        return bytes((self.addrtype,)) + self.octets

    def __str__(self) -> str:
        """The address, mask or name, or what any of it is."""
        if not self.octets:
            return f"any {self.addrtype.name}" if isinstance(self.addrtype, AddressType) else f"any {self.addrtype}"
        if self.addrtype == AddressType.FQDN:
            return self.octets.decode()
        if self.addrtype in _ADDRESS_OCTETS:
            return str(Address.from_octets(self.octets))
        return f"type {self.addrtype} {self.octets.hex()}"


def _check_items(count: int, items: tuple[int, ...], *, highest: int, what: str) -> None:
    """Apply the rules that Ports and SPI share (RFC 3103 §8.2; RFC 3104 §6.2)."""
    if any(not 0 <= item <= highest for item in items):
        raise ValueError(f"{what} above {highest}")
    if len(items) == 1 and items[0] + max(count, 1) - 1 > highest:
        raise ValueError(f"{count} {what}s from {items[0]} run past {highest}")
    if len(items) > 1 and len(items) != count:
        raise ValueError(f"{len(items)} {what}s listed, count says {count}")
    if len(set(items)) != len(items):
        raise ValueError(f"a {what} is listed twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports(Parameter):
    """Ports, in the form they have on the wire (RFC 3103 §8.2; RFC 3104 §6.2).

    ====================  =======  ==============================
    form                  count    ports
    ====================  =======  ==============================
    one port              1        that port
    contiguous range      n > 1    the first port
    list                  n        the n ports
    don't care            n        none: any n ports
    don't need (RSIPSEC)  None     none
    ====================  =======  ==============================
    """

    count: int | None
    "The field Number; None where the whole value is absent."
    ports: tuple[int, ...] = ()
    "The ports as written."

    def __post_init__(self) -> None:
        """Refuse counts and ports that contradict each other."""
        if self.count is None:
            if self.ports:
                raise ValueError("ports without a count")
            return
        if not 0 <= self.count <= 0xFF:
            raise ValueError(f"{self.count} ports; a parameter holds 255 at most")
        _check_items(self.count, self.ports, highest=0xFFFF, what="port")
        if self.ports and self.count == 0 and self.ports != (0,):
            raise ValueError(f"count 0 with port {self.ports[0]}")
        if len(self.ports) > 1 and 0 in self.ports:
            raise ValueError("port 0 in a list")

    @classmethod
    def of(cls, ports: Iterable[int]) -> Self:
        """Those ports, as a range where they are contiguous and as a list where not.

        Raises:
            ValueError: none, more than 255, or not ports.
        """
        wanted = tuple(ports)
        if not wanted or 0 in wanted:
            raise ValueError(f"not a set of ports: {wanted}")
        contiguous = wanted == tuple(range(wanted[0], wanted[0] + len(wanted)))
        return cls(count=len(wanted), ports=wanted[:1] if contiguous else wanted)

    @classmethod
    def any_of(cls, count: int = 1) -> Self:
        """Any that many ports."""
        if count < 1:
            raise ValueError(f"any {count} ports: must be at least 1")
        return cls(count=count)

    @classmethod
    def not_needed(cls) -> Self:
        """No ports at all; only with SPIs (RFC 3104 §6.2)."""
        return cls(count=None)

    @property
    def dont_need(self) -> bool:
        """Whether no ports are wanted (RFC 3104 §6.2)."""
        return self.count is None

    @property
    def dont_care(self) -> bool:
        """Whether any ports will do."""
        # Deviation: RFC 3103 §8.2 says don't care has no port; §9.8.3 speaks of zeros. Both are understood.
        return self.count is not None and self.ports in ((), (0,))

    @property
    def size(self) -> int:
        """How many ports it stands for; at least 1 unless not needed."""
        # Deviation: a count of 0 breaks "MUST be 1 or more" (RFC 3103 §8.2), but the RFC's examples have it.
        return 0 if self.count is None else max(self.count, 1)

    @property
    def port_set(self) -> tuple[int, ...] | None:
        """Every port it names, in order of naming; None where any will do or none is needed."""
        if self.count is None or self.dont_care:
            return None
        return self.ports if len(self.ports) > 1 else tuple(range(self.ports[0], self.ports[0] + self.count))

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if not octets:
            return cls(count=None)
        if len(octets) % 2 == 0:
            raise ValueError(f"length {len(octets)}, must be 0 or odd")
        return cls(count=octets[0], ports=struct.unpack_from(f"!{len(octets) // 2}H", octets, 1))

    def emit(self) -> bytes:
        """Give the value as octets."""
        if self.count is None:
            return b""
        return struct.pack(f"!B{len(self.ports)}H", self.count, *self.ports)

    def __str__(self) -> str:
        """The ports in words."""
        if self.count is None:
            return "not needed"
        if self.dont_care:
            return f"any {self.size}"
        if len(self.ports) == 1 and self.count > 1:
            return f"{self.ports[0]}-{self.ports[0] + self.count - 1}"
        return ",".join(map(str, self.ports))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spi(Parameter):
    """SPI: security parameter indexes, in the form they have on the wire (RFC 3104 §6.2).

    The forms are those of ``Ports``, without "don't need" and with a count of 16 bits.
    """

    count: int
    spis: tuple[int, ...] = ()
    "The SPIs as written; empty means any ``count`` of them."

    def __post_init__(self) -> None:
        """Refuse counts and SPIs that contradict each other."""
        if not 1 <= self.count <= 0xFFFF:
            raise ValueError(f"{self.count} SPIs; must be 1 to 65535")
        _check_items(self.count, self.spis, highest=0xFFFFFFFF, what="SPI")

    @classmethod
    def of(cls, spis: Iterable[int]) -> Self:
        """Those SPIs, as a range where they are contiguous and as a list where not."""
        wanted = tuple(spis)
        if not wanted:
            raise ValueError("no SPIs")
        contiguous = wanted == tuple(range(wanted[0], wanted[0] + len(wanted)))
        return cls(count=len(wanted), spis=wanted[:1] if contiguous else wanted)

    @classmethod
    def any_of(cls, count: int = 1) -> Self:
        """Any that many SPIs."""
        return cls(count=count)

    @property
    def dont_care(self) -> bool:
        """Whether any SPIs will do."""
        return not self.spis

    @property
    def spi_set(self) -> tuple[int, ...] | None:
        """Every SPI it names, in order of naming; None where any will do."""
        if not self.spis:
            return None
        return self.spis if len(self.spis) > 1 else tuple(range(self.spis[0], self.spis[0] + self.count))

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        # Silent: the figure of RFC 3104 §6.2 says "Length 2", which is the width of that field, not its contents.
        if len(octets) % 4 != 2:
            raise ValueError(f"length {len(octets)}, must be 2 + 4n")
        count, *spis = struct.unpack(f"!H{len(octets) // 4}L", octets)
        return cls(count=count, spis=tuple(spis))

    def emit(self) -> bytes:
        """Give the value as octets."""
        return struct.pack(f"!H{len(self.spis)}L", self.count, *self.spis)

    def __str__(self) -> str:
        """The SPIs in words."""
        if not self.spis:
            return f"any {self.count}"
        if len(self.spis) == 1 and self.count > 1:
            return f"{self.spis[0]:#010x}-{self.spis[0] + self.count - 1:#010x}"
        return ",".join(f"{spi:#010x}" for spi in self.spis)
