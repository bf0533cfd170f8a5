# SPDX-License-Identifier: BSD-3-Clause
"""What the tables of a configuration are made of."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges

SPIS = Ranges(((256, 0xFFFFFFFF),))
"""Every SPI that is not reserved (RFC 4303 §2.1)."""


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def ports_of(text: object) -> Ranges:
    """Read ports: a number, or text like ``10000-19999`` or ``80,443``."""
    if isinstance(text, Ranges):
        return text
    if isinstance(text, int):
        text = str(text)
    if not isinstance(text, str):
        raise ValueError('write ports as text, like "10000-19999" or "80,443"')  # noqa: TRY004 - pydantic wants it
    try:
        ranges = Ranges.parse(text)
    except ValueError:
        raise ValueError(f'{text!r} is not a list of ports like "10000-19999" or "80,443"') from None
    if not ranges or ranges.pairs[0][0] < 1 or ranges.pairs[-1][1] > 65535:
        raise ValueError(f"{text!r}: ports are 1 to 65535")
    return ranges


def spis_of(text: object) -> Ranges | None:
    """Read SPIs: ``true`` for all, ``false`` for none, or hexadecimal text like ``1000-1fff,c0000000-cfffffff``."""
    if text is None or isinstance(text, Ranges):
        return text
    if isinstance(text, bool):
        return SPIS if text else None
    like = 'hexadecimal SPIs like "1000-1fff"'
    if not isinstance(text, str):
        raise ValueError(f"write true, or {like}")  # noqa: TRY004 - pydantic wants it
    try:
        ranges = Ranges.of(*(_hexadecimal(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of {like}") from None
    if not SPIS.covers(ranges):
        raise ValueError(f"{text!r}: SPIs are 100 to ffffffff, in hexadecimal")
    return ranges


def _hexadecimal(part: str) -> tuple[int, int]:
    first, dash, last = part.strip().partition("-")
    low, high = int(first, 16), int(last if dash else first, 16)
    if high < low:
        raise ValueError(part)
    return low, high


def network_of(text: object) -> IPv4Network:
    """Read an IPv4 network like ``192.0.2.0/24``."""
    if isinstance(text, IPv4Network):
        return text
    try:
        return IPv4Network(str(text))
    except ValueError as error:
        raise ValueError(f"{error}; write it like 192.0.2.0/24") from None


def any_network_of(text: object) -> IPv4Network | IPv6Network:
    """Read a network of either family; a lone address is a network of its own."""
    if isinstance(text, IPv4Network | IPv6Network):
        return text
    try:
        return ip_network(str(text))
    except ValueError as error:
        raise ValueError(f"{error}; write it like 192.0.2.0/24 or 2001:db8::/64") from None


def any_address_of(text: object) -> IPv4Address | IPv6Address:
    """Read an address of either family, without a zone."""
    if isinstance(text, IPv4Address | IPv6Address):
        return text
    if "%" in str(text):
        raise ValueError(f"{text!r} is a link-local address; a realm is more than a link")
    try:
        return ip_address(str(text))
    except ValueError as error:
        raise ValueError(str(error)) from None


def addresses_of(value: object) -> object:
    """Read one address, or a list with at most one of each family."""
    if isinstance(value, list | tuple):
        found = tuple(any_address_of(each) for each in value)
    else:
        found = (any_address_of(value),)
    if not found:
        raise ValueError("the list is empty")
    if len({each.version for each in found}) < len(found):
        raise ValueError(f"{', '.join(map(str, found))}: one address of each family is enough")
    return found


Network = Annotated[IPv4Network, BeforeValidator(network_of)]
Ports = Annotated[Ranges, BeforeValidator(ports_of)]
Spis = Annotated[Ranges | None, BeforeValidator(spis_of)]
Seconds = Annotated[int, Field(ge=1, le=2**31)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Interface = Annotated[str, Field(min_length=1, max_length=15)]

AnyAddress = Annotated[IPv4Address | IPv6Address, BeforeValidator(any_address_of)]
AnyNetwork = Annotated[IPv4Network | IPv6Network, BeforeValidator(any_network_of)]
Addresses = Annotated[tuple[IPv4Address | IPv6Address, ...], BeforeValidator(addresses_of)]


def address(value: IPv4Address | IPv6Address) -> Address:
    """An address of the configuration as one of ours."""
    return Address.from_octets(ip_address(value).packed)


def prefix(value: IPv4Network | IPv6Network) -> Prefix:
    """A network of the configuration as a prefix."""
    return Prefix(address(value.network_address), value.prefixlen)
