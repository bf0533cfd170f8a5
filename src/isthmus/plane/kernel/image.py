# SPDX-License-Identifier: BSD-3-Clause
"""What the maps should hold: the bindings, seen as entries and slice words.

An ``Image`` takes effects and says which entries change, in an order that never lets a
packet see half of it: records (endpoint, owner, holding) before the index that leads to
them, and the index taken away first. It touches no kernel. A running plane writes the
changes as they come; a plane that starts over maps that are there already makes its image
first and writes only what differs (``plane.KernelPlane.reconcile``).
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import assert_never

from isthmus.address import Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Tunnel, Way
from isthmus.border.effect import Bind, Deregister, Extend, Prolong, Register, Unbind
from isthmus.border.realm import Border
from isthmus.border.selector import Kind
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.kernel.index import Held, Index, blocks
from isthmus.plane.kernel.maps import Codec
from isthmus.plane.kernel.number import Numbers, Owners, Slots

MOST_BLOCKS = 1 << 12
"""Most aligned blocks that the SPIs of one selector may need: each is an entry of its own."""

Change = tuple[str, bytes, bytes | None]
"Map, key, value (None: remove)."

TABLES = ("meant", "tunnel_ends", "endpoints", "owners", "holdings", "addresses", "by_demux", "by_spi", "by_prefix")
"""Maps that an image fills, records first; beside them the words of ``slices``."""

ARRAYS = ("meant", "endpoints")
"""Those of them whose entries are zero rather than not there."""


class Image:
    """What the maps should hold."""

    def __init__(
        self,
        border: Border,
        codec: Codec,
        *,
        slots: Slots,
        numbers: Numbers,
        owners: Owners,
        device: Callable[[str], int],
        narrow: Mapping[Way, int] | None = None,
    ) -> None:
        """Begin with what the border says.

        Args:
            border: Realms, tunnel ends and claims.
            codec: Writes keys and values.
            slots: Room for slices.
            numbers: Endpoint numbers.
            owners: Owners' tags.
            device: Gives the interface index of a device.
            narrow: What ``limit`` has been told.
        """
        self.tables: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}
        self.words = array("Q", bytes(8 * slots.words))
        self._changes: list[Change] = []
        self._codec, self._numbers, self._owners, self._device = codec, numbers, owners, device
        self._counted = (slots, numbers, owners)
        self._holdings: Counter[bytes] = Counter()
        self._held: dict[BindingKey, tuple[Held, bytes]] = {}
        self._endpoints: dict[bytes, dict[bytes, tuple[Tunnel, bool]]] = {}
        "By owner's place; and whether the tunnel ends at just that."
        self._ways: dict[Way, dict[bytes, Owner]] = {}
        "Whose endpoints go by a way."
        self._narrow = dict(narrow or {})
        self._tagged: dict[int, Owner] = {}
        self._index = Index(border, codec, slots, entry=self.entry, word=self.word, meant=self.meant)
        for end in border.tunnel_ends:
            value = codec.tunnel_end(end.leads_to, border.realm(end.leads_to).end)
            self.entry("tunnel_ends", codec.place(end.realm, end.address), value)

    def get(self, key: BindingKey) -> Binding | None:
        """A binding that is there."""
        held = self._held.get(key)
        return None if held is None else held[0].binding

    def tag(self, owner: Owner) -> int:
        """The tag of an owner who has registered or holds something; 0: it is not known."""
        known = self._owners.get(self._codec.place(owner.realm, owner.address))
        return 0 if known is None else known.tag

    def owner(self, tag: int) -> Owner | None:
        """Whose tag that is."""
        return self._tagged.get(tag)

    def bindings(self) -> Iterator[Binding]:
        """Every binding."""
        return (held.binding for held, _ in self._held.values())

    def settle(self) -> None:
        """Free the numbers that pinned maps had for what is no more."""
        for each in self._counted:
            each.settle()

    def changes(self) -> list[Change]:
        """What has changed since the last call, in the order to write it."""
        changes, self._changes = self._changes, []
        return changes

    def entry(self, table: str, key: bytes, value: bytes | None) -> None:
        """Set or (None) remove an entry."""
        held = self.tables[table]
        if held.get(key) == value:
            return
        if value is None:
            del held[key]
        else:
            held[key] = value
        self._changes.append((table, key, value))

    def word(self, number: int, word: int) -> None:
        """Set a word of ``slices``."""
        if self.words[number] != word:
            self.words[number] = word
            self._changes.append(("slices", self._codec.number(number), self._codec.octets(word)))

    def meant(self, prefix: Prefix) -> None:
        """Set the bits of ``meant`` for a prefix; one set too many costs time only, so none is cleared."""
        for number, bits in self._codec.meant(prefix).items():
            key = self._codec.number(number)
            before = self.tables["meant"].get(key, bytes(8))
            self.entry("meant", key, self._codec.octets(int.from_bytes(before, sys.byteorder) | bits))

    def apply(self, effect: Programmable) -> None:
        """Carry out one effect.

        Raises:
            PlaneError: a binding that another one stands in the way of, or that no map can hold; nothing changed.
        """
        match effect:
            case Register():
                self._register(effect.registration.owner, registered=True)
            case Deregister():
                self._register(effect.owner, registered=False)
            case Bind():
                self._bind(effect)
            case Extend():
                self._extend(effect)
            case Prolong():
                pass
            case Unbind():
                self._unbind(effect)
            case _:
                assert_never(effect)

    def limit(self, way: Way, octets: int | None) -> None:
        """Let the tunnels between two ends carry no more than fits an outer packet; None: what they were made for."""
        if octets is None:
            self._narrow.pop(way, None)
        else:
            self._narrow[way] = octets
        for owner in set(self._ways.get(way, {}).values()):
            self._show_owner(owner)

    @property
    def narrow(self) -> dict[Way, int]:
        """Ways that are limited."""
        return dict(self._narrow)

    # --- effects --------------------------------------------------------------------------

    def _bind(self, effect: Bind) -> None:
        binding, key = effect.binding, effect.binding.key
        _check(binding)
        refused = self._index.conflict(binding)
        if refused is not None:
            raise PlaneError(f"{refused} is already held")
        before = self._held.get(key)
        endpoint = self._enter(binding)
        tag = self._owners.tag(self._codec.place(key.owner.realm, key.owner.address))
        self._held[key] = Held(binding, self._numbers[endpoint], effect.lease.expires_at, tag), endpoint
        self._index.replace(before and before[0], self._held[key][0])
        if before is not None:
            self._leave(before[0].binding, before[1])

    def _extend(self, effect: Extend) -> None:
        if effect.key in self._held:
            before, endpoint = self._held[effect.key]
            after = replace(before, expires_at=effect.expires_at)
            self._held[effect.key] = after, endpoint
            self._index.replace(before, after)

    def _unbind(self, effect: Unbind) -> None:
        if effect.key in self._held:
            before, endpoint = self._held.pop(effect.key)
            self._index.replace(before, None)
            self._leave(before.binding, endpoint)

    def _register(self, owner: Owner, *, registered: bool) -> None:
        place = self._codec.place(owner.realm, owner.address)
        before = self._owners.get(place)
        self._owners.register(place, registered=registered)
        if before is not None and self._owners.get(place) is None:
            self._tagged.pop(before.tag, None)
        self._show_owner(owner)

    # --- records --------------------------------------------------------------------------

    def _enter(self, binding: Binding) -> bytes:
        """Write what the index will lead to; returns the endpoint's octets."""
        owner = self._codec.place(binding.key.owner.realm, binding.key.owner.address)
        device = 0 if binding.device is None else self._device(binding.device)
        tag = self._owners.hold(owner)
        endpoint = self._codec.endpoint(binding.crossing, tag, device)
        try:
            self._numbers.take(endpoint)
        except PlaneError:
            self._owners.release(owner)
            raise
        tunnel, whose = binding.crossing, binding.key.owner
        here = (tunnel.realm, tunnel.remote) == (whose.realm, whose.address)
        self._ways.setdefault(tunnel.way, {})[endpoint] = whose
        self._endpoints.setdefault(owner, {})[endpoint] = tunnel, here
        self._show_owner(whose)
        for selector in binding.selectors:
            key = self._codec.holding_key(tag, selector.realm, selector.local)
            self._holdings[key] += 1
            self.entry("holdings", key, self._codec.number(1))
        return endpoint

    def _leave(self, binding: Binding, endpoint: bytes) -> None:
        """Take away what the index no longer leads to."""
        owner = self._codec.place(binding.key.owner.realm, binding.key.owner.address)
        for selector in binding.selectors:
            key = self._codec.holding_key(self._owners.tag(owner), selector.realm, selector.local)
            self._holdings[key] -= 1
            if not self._holdings[key]:
                del self._holdings[key]
                self.entry("holdings", key, None)
        number = self._numbers.give(endpoint)
        if number:
            self.entry("endpoints", self._codec.number(number), None)
            way = binding.crossing.way
            del self._ways[way][endpoint]
            if not self._ways[way]:
                del self._ways[way]
            del self._endpoints[owner][endpoint]
            if not self._endpoints[owner]:
                del self._endpoints[owner]
        tag = self._owners.tag(owner)
        self._owners.release(owner)
        if self._owners.get(owner) is None:
            self._tagged.pop(tag, None)
        self._show_owner(binding.key.owner)

    def _show_owner(self, owner: Owner) -> None:
        """Write who an owner is, and what its endpoints say of it."""
        place = self._codec.place(owner.realm, owner.address)
        known = self._owners.get(place)
        if known is not None:
            self._tagged[known.tag] = owner
        for endpoint, (tunnel, here) in self._endpoints.get(place, {}).items():
            registered = here and known is not None and known.registered
            key = self._codec.number(self._numbers[endpoint])
            octets = self._narrow.get(tunnel.way)
            mtu = tunnel.mtu if octets is None else octets - tunnel.overhead
            self.entry("endpoints", key, self._codec.standing(endpoint, registered=registered, mtu=mtu))
        value = None if known is None else self._codec.owner(known.tag, registered=known.registered)
        self.entry("owners", place, value)


def _check(binding: Binding) -> None:
    """Refuse what the maps cannot hold."""
    for selector in binding.selectors:
        if selector.kind is Kind.SPI and sum(1 for _ in islice(blocks(selector.values), MOST_BLOCKS + 1)) > MOST_BLOCKS:
            raise PlaneError(f"binding {binding.key} holds SPIs in more than {MOST_BLOCKS} aligned blocks")
