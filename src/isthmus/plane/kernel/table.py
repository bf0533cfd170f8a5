# SPDX-License-Identifier: BSD-3-Clause
"""The binding table of the slow path behind the kernel plane.

What is a plain lease there is not kept a second time: it is read out of the words when a packet asks. Everything else
is as in ``border.table``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from isthmus.border.binding import FOREVER, Binding, BindingKey, Owner
from isthmus.border.crossing import Tunnel, Way
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Lapse, Register, Unbind
from isthmus.border.plain import endings
from isthmus.border.selector import Flow, Kind, Selector
from isthmus.border.table import BindingTable, Entry
from isthmus.plane import Planned, Programmable
from isthmus.plane.kernel.image import Image

_FOREVER = 0xFFFFFFFF


class SharedTable(BindingTable):
    """Bindings that are kept here, and the plain leases and hosts that the kernel plane knows.

    Args:
        claims: The resources of the pools.
        image: What the kernel plane's maps hold now.
    """

    def __init__(self, claims: Iterable[Selector], image: Callable[[], Image]) -> None:
        super().__init__(claims)
        self._image = image

    def __len__(self) -> int:
        """How many bindings there are."""
        return super().__len__() + self._image().owners.held

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, those that are kept here first."""
        yield from super().__iter__()
        for binding in self._image().plain.bindings():
            yield self._entry(binding)

    def own(self) -> tuple[BindingKey, ...]:
        """The bindings that are kept here."""
        return tuple(self._entries)

    def left(self, effects: Iterable[Planned]) -> Iterator[Programmable]:
        """What of effects, which the kernel plane has carried out, has to be carried out here, too.

        Args:
            effects: In order; all of them have been carried out.
        """
        plain = self._image().plain
        for effect in effects:
            match effect:
                case Register() | Deregister():
                    continue
                case Lapse():
                    if self._entries:
                        yield from (each for each in endings(effect) if self._keeps(each))
                case Bind() if plain.has(effect.binding.key):
                    if effect.binding.key in self._entries:
                        yield Unbind(key=effect.binding.key, ending=Ending.REVOKED)
                case Unbind() | Extend():
                    if effect.key in self._entries:
                        yield effect
                case _:
                    yield effect

    def _keeps(self, effect: Unbind | Deregister) -> bool:
        return isinstance(effect, Unbind) and effect.key in self._entries

    @property
    def registered(self) -> frozenset[Owner]:
        """Every far end whose packets are expected."""
        owners = self._image().owners
        return frozenset(owners.owner(tag) for tag in owners if owners.is_registered(tag))

    def is_registered(self, owner: Owner) -> bool:
        """Whether packets from this far end are expected at all."""
        owners = self._image().owners
        return owners.is_registered(owners.tag(owner))

    def held_by(self, owner: Owner) -> tuple[Entry, ...]:
        """Everything that one owner holds, by bind ID."""
        plain = [self._entry(each) for each in self._image().plain.of_owner(owner)]
        return tuple(sorted((*super().held_by(owner), *plain), key=lambda entry: entry.binding.key))

    def lookup(self, flow: Flow) -> Entry | None:
        """Find the binding that the local side of a flow belongs to, most specific first."""
        if flow.kind is Kind.PORT:
            plain = self._image().plain
            number = plain.number(flow.realm, flow.local, flow.value)
            key = None if number is None else plain.holder(number)
            binding = None if key is None else plain.binding(key)
            if binding is not None:
                return self._entry(binding)
        return super().lookup(flow)

    def elsewhere(self, way: Way, /) -> Iterator[tuple[Owner, Tunnel]]:
        """Tunnels of a way that plain leases cross by, and whose they are."""
        owner = Owner(way.realm, way.remote)
        tunnels = {each.tunnel for each in self._image().plain.of_owner(owner)}
        return ((owner, tunnel) for tunnel in tunnels if tunnel.way == way)

    def _entry(self, binding: Binding) -> Entry:
        image = self._image()
        deadline = image.plain.deadline(binding.key)
        return Entry(binding, FOREVER if deadline == _FOREVER else deadline + image.boot_offset)
