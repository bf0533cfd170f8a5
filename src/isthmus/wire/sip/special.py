# SPDX-License-Identifier: BSD-3-Clause
"""SIP addresses with a meaning of their own, and those that no packet has (RFC 8507 §4.3, §4.4; spec 2.2).

A group's address is ``C 1111111 | flags and scope | 48 bits of group``. The flag T says that it is
transient. With C it is the group of IPv4 whose address the last 32 bits are.
"""

from __future__ import annotations

import enum

from isthmus.address import Address, Family, Prefix

UNSPECIFIED = Address(Family.SIP, 0)
"""Of one that has no address yet (RFC 8507 §4.4)."""
LOOPBACK = Address(Family.SIP, 1)
"""Of oneself (RFC 8507 §4.4)."""
_GROUP = (1 << 48) - 1
_MULTICAST = 0x7F << 56
_TRANSIENT = 1 << 52
_IPV4_MULTICAST = 0xE
_IPV4_LOCAL = 0xE00000
"224.0.0.0/24, which no router forwards."


class Scope(enum.IntEnum):
    """How far a group reaches (RFC 8507 §4.3)."""

    SYSTEM = 1
    LINK = 2
    SITE = 5
    METRO = 8
    COUNTRY = 0xB
    GLOBAL = 0xE


def multicast(scope: int, group: int, *, transient: bool = False) -> Address:
    """Return the address of a group (RFC 8507 §4.3).

    Args:
        scope: 4 bits, see ``Scope``.
        group: 48 bits; group 0 is nobody's (§4.4).
        transient: Whether it is one of no standing, flag T.
    """
    if not (0 <= scope <= 0xF and 1 <= group <= _GROUP):
        raise ValueError(f"scope {scope} and group {group:#x} are not 4 bits and 48 that are not all zero")
    return Address(Family.SIP, _MULTICAST | (_TRANSIENT if transient else 0) | scope << 48 | group)


ALL_SYSTEMS = (multicast(Scope.SYSTEM, 1), multicast(Scope.LINK, 1))
"""Of this system, and of the link (RFC 8507 §4.4)."""
ALL_HOSTS = (multicast(Scope.SYSTEM, 2), multicast(Scope.LINK, 2))
"""Likewise."""
ALL_ROUTERS = (multicast(Scope.SYSTEM, 3), multicast(Scope.LINK, 3))
"""Likewise."""


def scope_of(address: Address) -> int:
    """Return the scope of a group, see ``Scope``."""
    return address.number >> 48 & 0xF


def compatible_multicast(group: Address, scope: int = Scope.GLOBAL) -> Address:
    """Return the SIP address of an IPv4 group (spec 2.2).

    Args:
        group: In 224.0.0.0/4.
        scope: Of all but 224.0.0.0/24.
    """
    if group.family is not Family.IPV4 or not group.is_multicast:
        raise ValueError(f"{group} is no IPv4 group")
    # Silent: neither the seed nor RFC 8507 says what an IPv4 group is in SIP. C is 1 as in every address of IPv4.
    scope = Scope.LINK if group.number >> 8 == _IPV4_LOCAL else scope
    return multicast(scope, group.number).with_c_bit(c_bit=True)


def anyone(prefix: Prefix) -> Address:
    """Return Anyone: the prefix followed by zeros, the nearest router that owns it (RFC 8507 §4.4)."""
    return prefix.address


def ethernet_group(address: Address) -> bytes:
    """Return the Ethernet address that a group's frames go to, 6 octets (RFC 1112 §6.4; spec 2.7)."""
    # Silent: RFC 8507 does not say where multicast goes on Ethernet. As for IPv4: the low 23 bits of the group.
    return (0x01005E000000 | address.number & 0x7FFFFF).to_bytes(6, "big")


class Unfit(enum.StrEnum):
    """Why a packet with such addresses is dropped where it comes in from a link (spec 2.2)."""

    UNSPECIFIED_SOURCE = "the source is unspecified"
    MULTICAST_SOURCE = "the source is a group"
    LOOPBACK = "an address is loopback"
    SPECIAL_IPV4 = "C is set over an IPv4 address that no node has"


def unfit(src: Address, dst: Address) -> Unfit | None:
    """Say why a packet must be dropped where it comes in from a link (RFC 8507 §4.4; spec 2.2).

    Packets of a node that configures itself have an unspecified source; such a node looks for itself.

    Args:
        src: SIP source address.
        dst: SIP destination address.

    Returns:
        The first reason, or None for a packet that may come in.
    """
    if src == UNSPECIFIED:
        return Unfit.UNSPECIFIED_SOURCE
    if src.is_multicast:
        return Unfit.MULTICAST_SOURCE
    if LOOPBACK in (src, dst):
        return Unfit.LOOPBACK
    if is_special_ipv4(src) or is_special_ipv4(dst):
        return Unfit.SPECIAL_IPV4
    return None


def is_special_ipv4(address: Address) -> bool:
    """Whether C is set over 0/8, 127/8, 224/4 or 240/4, but for groups (spec 2.2)."""
    first = address.number >> 24 & 0xFF
    return address.c_bit and not address.is_multicast and (first in (0, 127) or first >= _IPV4_MULTICAST << 4)
