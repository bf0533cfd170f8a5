# SPDX-License-Identifier: BSD-3-Clause
"""The program's memory of who sent what in ESP and AH, seen from user space."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.plane.kernel.loader import Map
from isthmus.plane.kernel.maps import Codec


class KernelPaths:
    """Paths of ESP and AH packets; a ``plane.reference.path.Paths``.

    Args:
        paths: The map.
        codec: Writes keys and values.
        tag: The tag of an owner, 0 if it has none.
        owner: Whose tag that is.
    """

    def __init__(
        self, paths: Map, codec: Codec, *, tag: Callable[[Owner], int], owner: Callable[[int], Owner | None]
    ) -> None:
        self._paths, self._codec, self._tag, self._owner = paths, codec, tag, owner

    def note(self, owner: Owner, local: Address, remote: Address, protocol: int, spi: int, *, realm: int) -> None:
        """The owner has sent an ESP or AH packet from one of its addresses to a peer.

        Args:
            owner: Who.
            local: The packet's source.
            remote: Its destination.
            protocol: 50 or 51.
            spi: The peer's SPI, which the packet carries.
            realm: Number of the realm that both addresses belong to.
        """
        tag = self._tag(owner)
        if tag:
            self._paths.put(self._codec.path_key(realm, local, remote, protocol, spi), self._codec.path(tag))

    def owner(self, local: Address, remote: Address, protocol: int, spi: int, *, realm: int) -> Owner | None:
        """Who sent such a packet; the arguments are those of ``note``."""
        found = self._paths.get(self._codec.path_key(realm, local, remote, protocol, spi))
        return None if found is None else self._owner(self._codec.path_tag(found))
