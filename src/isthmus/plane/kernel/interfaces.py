# SPDX-License-Identifier: BSD-3-Clause
"""The interfaces whose packets the program decides about, and what the maps say of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from isthmus.address import Address, Family
from isthmus.border.realm import Border, End
from isthmus.plane.kernel.attach import Link, Links
from isthmus.plane.kernel.image import is_ipae
from isthmus.plane.kernel.loader import Map, Program
from isthmus.plane.kernel.maps import Codec


class Interfaces:
    """The interfaces that are taken.

    Args:
        maps: By name.
        codec: Writes keys and values.
        links: The interfaces that there are.
        border: Realms and tunnel ends.
    """

    def __init__(self, maps: Mapping[str, Map], codec: Codec, links: Links, border: Border) -> None:
        self._maps, self._codec, self._links, self._border = maps, codec, links, border
        self._taken: dict[str, int] = {}
        self._devices: set[int] = set()

    def take_device(self, name: str, link: Link, realm: int, program: Program) -> None:
        """Let a program see what arrives at a device, and let packets for it arrive at its other end at once.

        Raises:
            PlaneError: the kernel refuses.
        """
        self._devices.add(link.index)
        self.take(name, link, realm, End.HOST, program)

    def take(self, name: str, link: Link, realm: int, end: End, program: Program) -> None:
        """Let a program see what arrives at an interface, as packets of a realm.

        Raises:
            PlaneError: the kernel refuses.
        """
        family = self._border.realm(realm).family
        # Where neither IPv4 is at home nor tunnels end nor programs have SIP nothing is ours: packets pass unseen.
        ours = family is Family.IPV4 or (family is Family.IPV6 and is_ipae(self._border))
        if not ours and not any(each.realm == realm for each in self._border.tunnel_ends):
            return
        value = self._codec.interface(realm, end, link.index, bare=link.bare, family=family, address=link.address)
        self._put(link.index, self._as_it_is(link.index, value))
        self._links.attach(link.index, program.fd)
        self._taken[name] = link.index

    def has(self, name: str, link: Link) -> bool:
        """Whether an interface, as it is now, is taken."""
        return self._taken.get(name) == link.index

    def leave(self, name: str) -> None:
        """Leave an interface's packets alone."""
        index = self._taken.pop(name, None)
        if index is not None:
            self._leave(index)

    def leave_others(self) -> None:
        """Leave alone what an earlier process has taken, and this one has not."""
        for index in self._known():
            if index not in self._taken.values():
                self._leave(index)

    def leave_all(self) -> None:
        """Leave every interface's packets alone."""
        self._taken.clear()
        self.leave_others()

    def renew(self) -> None:
        """Let the maps say of interfaces what border and machine say, and nothing of those that have vanished."""
        there = self._links.indexes()
        for index, value in self._known().items():
            if index not in there:
                self._forget(index)
            else:
                self._renew(index, value)

    def renew_devices(self) -> None:
        """Let the maps say where the other ends of devices are now."""
        for index in self._devices:
            value = self._maps["interfaces"].get(self._codec.number(index))
            if value is not None:
                self._renew(index, value)

    def _renew(self, index: int, value: bytes) -> None:
        after = self._as_it_is(index, value)
        if after != value:
            self._put(index, after)

    def _known(self) -> dict[int, bytes]:
        return {int.from_bytes(key, sys.byteorder): value for key, value in self._maps["interfaces"].items()}

    def _leave(self, index: int) -> None:
        self._links.detach(index)
        self._forget(index)

    def _put(self, index: int, value: bytes) -> None:
        self._maps["interfaces"].put(self._codec.number(index), value)
        near = self._maps["near_interfaces"].get(self._codec.near_key(index))
        if near is None or self._codec.index_of(near) in (0, index):
            self._maps["near_interfaces"].put(self._codec.near_key(index), value)

    def _forget(self, index: int) -> None:
        self._devices.discard(index)
        near = self._maps["near_interfaces"].get(self._codec.near_key(index))
        if near is not None and self._codec.index_of(near) == index:
            self._maps["near_interfaces"].put(self._codec.near_key(index), bytes(len(near)))
        self._maps["interfaces"].remove(self._codec.number(index))

    def _as_it_is(self, index: int, interface: bytes) -> bytes:
        """What ``interfaces`` holds, as border and machine are now."""
        after = self._with_first_ends(interface)
        return self._codec.with_peer(after, self._links.peer(index)) if index in self._devices else after

    def _with_first_ends(self, interface: bytes) -> bytes:
        """What ``interfaces`` holds, with the first tunnel end of the realm of either family."""
        realm = self._codec.realm_of(interface)
        ends: dict[Family, tuple[Address, bytes]] = {}
        for end in self._border.tunnel_ends:
            if end.realm == realm and self._border.realm(end.leads_to).family is not Family.SIP:
                leads = self._codec.tunnel_end(end.leads_to, self._border.realm(end.leads_to).end)
                ends.setdefault(end.address.family, (end.address, leads))
        return self._codec.first_ends(interface, ends)
