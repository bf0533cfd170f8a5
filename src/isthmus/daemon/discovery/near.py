# SPDX-License-Identifier: BSD-3-Clause
"""Sockets on one interface of the near realm: nothing of discovery may be asked or answered elsewhere (spec 19)."""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.errors import ConfigError, Unsupported

_SIOCGIFADDR, _SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8915, 0x8913, 0x8927
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_NAME_OCTETS = 16
_MULTICAST_TTL = 255
"""RFC 2608 §6.1 has no smaller one; the group's administrative scope keeps it in the site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearInterface:
    """An interface, and who we are on it."""

    name: str
    address: Address
    "IPv4."
    hardware: bytes
    "The hardware address; six octets on an Ethernet."

    @property
    def index(self) -> int:
        """Its number."""
        return socket.if_nametoindex(self.name)


def near_interface(name: str) -> NearInterface:
    """Look an interface up.

    Raises:
        ConfigError: it does not exist, or has no IPv4 address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            hardware = _ioctl(asked, _SIOCGIFHWADDR, name)[18:24]
        except OSError as error:
            raise ConfigError("discovery", key="interface", reason=f"{name!r} does not exist") from error
        try:
            address = Address.from_octets(_ioctl(asked, _SIOCGIFADDR, name)[20:24])
        except OSError as error:
            raise ConfigError("discovery", key="interface", reason=f"{name!r} has no IPv4 address") from error
    return NearInterface(name=name, address=address, hardware=hardware)


def interfaces() -> tuple[NearInterface, ...]:
    """Every interface that is up and has an IPv4 address, except the loopback."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                (flags,) = struct.unpack_from("=H", _ioctl(asked, _SIOCGIFFLAGS, name), _NAME_OCTETS)
                if flags & _IFF_UP and not flags & _IFF_LOOPBACK:
                    found.append(near_interface(name))
            except (OSError, ConfigError):
                continue
    return tuple(found)


def _ioctl(asked: socket.socket, request: int, name: str) -> bytes:
    return fcntl.ioctl(asked, request, name.encode()[: _NAME_OCTETS - 1].ljust(256, b"\0"))


def datagrams(near: NearInterface, port: int = 0, *, group: str | None = None) -> socket.socket:
    """Open a UDP socket that speaks and hears on the interface only.

    Args:
        near: The interface.
        port: Ours; 0: any.
        group: The multicast group to hear; None: what is sent to our own address.

    Raises:
        Unsupported: the port cannot be had.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, near.name.encode())
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _MULTICAST_TTL)
        here = struct.pack("=4s4si", bytes(4), near.address.octets, near.index)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        if group is not None:
            joined = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), near.index)
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        opened.bind((group or str(near.address), port))
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise _cannot(near, port, error) from error
    return opened


def listener(near: NearInterface, port: int) -> socket.socket:
    """Open a TCP socket that listens on the interface only.

    Raises:
        Unsupported: the port cannot be had.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, near.name.encode())
        opened.bind((str(near.address), port))
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise _cannot(near, port, error) from error
    return opened


def _cannot(near: NearInterface, port: int, error: OSError) -> Unsupported:
    remedy = f"{error.strerror}; another program may have it (ss -lunp), and ports below 1024 need root"
    return Unsupported(f"port {port} of {near.name} ({near.address})", remedy=remedy)


def is_ipv4(address: Address) -> bool:
    """Whether an address is one that SLP and DHCP, as they are here, can speak of."""
    return address.family is Family.IPV4
