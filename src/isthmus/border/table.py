# SPDX-License-Identifier: BSD-3-Clause
"""The binding table: one table, four indexes (architecture 4.3).

=============  ====================================  =====================================
index          key                                   holds
=============  ====================================  =====================================
``by_demux``   realm, address, kind, discriminator   RSAP-IP ports, SPIs, IKE cookies
``by_prefix``  realm, address prefix                 RSA-IP (a full-length prefix), sites
``by_holder``  realm, address, kind, owner           who may send ESP and AH, and learn cookies
``by_image``   other realm, realm, image             by which address another realm's system is known here
=============  ====================================  =====================================

The most specific entry wins: ``by_demux`` first, then ``by_prefix``, longest first. RFC
3102 §3.2 asks first whether the address is held whole; the outcome is the same, because
a pool never leases one address both whole and by port, and this order stays right when a
wider prefix covers a shared address.

What a host *sends* in ESP or AH carries its peer's SPI, which says nothing about who it is;
there the question is whether the sender holds any SPI of the source address (RFC 3104 §4).

Beside the bindings the table knows two more things that a verdict depends on: who has
registered, and what is *claimed* - the resources of this border's pools, whether leased or
not, so that a packet to a free port of a pool is dropped and one to the machine's own
ports passes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Translate, Tunnel, TunnelKind, Way
from isthmus.border.effect import Bind, Deregister, Extend, Prolong, Register, Remap, Unbind
from isthmus.border.selector import Flow, Kind, Selector
from isthmus.errors import Conflict


@dataclass(frozen=True, slots=True)
class Entry:
    """A binding in the table, with its deadline."""

    binding: Binding
    expires_at: float
    "Seconds since 1970."


_T = TypeVar("_T")
_Span = tuple[int, int, BindingKey]
"First value, last value, who."


class BindingTable:
    """What is bound, registered and claimed at one border."""

    def __init__(self, claims: Iterable[Selector] = ()) -> None:
        """Start empty.

        Args:
            claims: The resources of the pools, leased or not.
        """
        self._entries: dict[BindingKey, Entry] = {}
        self._by_demux: dict[tuple[int, Address, Kind], list[_Span]] = {}
        self._by_prefix: dict[int, dict[int, dict[Address, BindingKey]]] = {}
        self._by_holder: dict[tuple[int, Address, Kind], dict[BindingKey, Selector]] = {}
        self._by_image: dict[tuple[int, int], dict[int, dict[Address, list[BindingKey]]]] = {}
        self._mapped: dict[int, Remap] = {}
        self._held: dict[Owner, set[BindingKey]] = {}
        self._registered: set[Owner] = set()
        self._claims = tuple(claims)

    def __len__(self) -> int:
        """How many bindings there are."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, in the order of binding."""
        return iter(self._entries.values())

    def get(self, key: BindingKey) -> Entry | None:
        """The entry of a key."""
        return self._entries.get(key)

    def held_by(self, owner: Owner) -> tuple[Entry, ...]:
        """Everything that one owner holds, by bind ID."""
        return tuple(self._entries[key] for key in sorted(self._held.get(owner, ())))

    @property
    def registered(self) -> frozenset[Owner]:
        """Every far end whose packets are expected."""
        return frozenset(self._registered)

    def is_registered(self, owner: Owner) -> bool:
        """Whether packets from this far end are expected at all."""
        return owner in self._registered

    def claims(self, flow: Flow) -> bool:
        """Whether the local side of a flow belongs to a pool, leased or not."""
        return any(claim.owns(flow) for claim in self._claims)

    def claims_address(self, realm: int, address: Address) -> bool:
        """Whether anything of an address belongs to a pool."""
        return any(claim.realm == realm and address in claim.local for claim in self._claims)

    def apply(self, effect: Register | Deregister | Bind | Extend | Prolong | Unbind | Remap) -> None:
        """Carry out one effect.

        Raises:
            Conflict: a Bind of something that another binding holds.
        """
        match effect:
            case Register():
                self._registered.add(effect.registration.owner)
            case Deregister():
                self._registered.discard(effect.owner)
            case Bind():
                self.bind(effect.binding, expires_at=effect.lease.expires_at)
            case Extend():
                entry = self._entries.get(effect.key)
                if entry is not None:
                    self._entries[effect.key] = replace(entry, expires_at=effect.expires_at)
            case Prolong():
                pass
            case Unbind():
                self.unbind(effect.key)
            case Remap():
                self._mapped[effect.realm] = effect

    def bind(self, binding: Binding, *, expires_at: float) -> None:
        """Enter a binding; binding the same key again replaces it.

        Raises:
            Conflict: part of it is held under another key; nothing was changed.
        """
        for selector in binding.selectors:
            if self.holder(selector, besides=binding.key) is not None:
                raise Conflict(str(selector))
        self.unbind(binding.key)
        for selector in binding.selectors:
            self._index(selector, binding.key)
        if isinstance(binding.crossing, Translate):
            images = self._by_image.setdefault((binding.crossing.realm, binding.realm), {})
            image = binding.crossing.image
            images.setdefault(image.length, {}).setdefault(image.address, []).append(binding.key)
        self._entries[binding.key] = Entry(binding, expires_at)
        self._held.setdefault(binding.key.owner, set()).add(binding.key)

    def unbind(self, key: BindingKey) -> None:
        """Remove a binding; a key that is not there is no error."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for selector in entry.binding.selectors:
            self._unindex(selector, key)
        if isinstance(entry.binding.crossing, Translate):
            self._unindex_image(entry.binding, entry.binding.crossing)
        held = self._held[key.owner]
        held.discard(key)
        if not held:
            del self._held[key.owner]

    def lookup(self, flow: Flow) -> Entry | None:
        """Find the binding that the local side of a flow belongs to, most specific first."""
        if flow.kind is not None:
            spans = self._by_demux.get((flow.realm, flow.local, flow.kind), [])
            at = bisect_right(spans, flow.value, key=lambda span: span[0]) - 1
            if at >= 0 and flow.value <= spans[at][1]:
                return self._entries[spans[at][2]]
        return self._lookup_prefix(flow)

    def _lookup_prefix(self, flow: Flow) -> Entry | None:
        entry = self.route(flow.realm, flow.local)
        # What IPAE derives is nobody's lease.
        return entry if entry is not None and isinstance(entry.binding.crossing, Tunnel) else None

    def route(self, realm: int, address: Address) -> Entry | None:
        """Find the binding of an address by longest prefix: how IPAE forwards (RFC 8507 §4.2; spec 2.4)."""
        key = _longest(self._by_prefix.get(realm, {}), address)
        return None if key is None else self._entries[key]

    def known_as(self, realm: int, other: int, address: Address) -> Address | None:
        """By which address a system of another realm is bound to be known in a realm: the way back of a ``Translate``.

        Args:
            realm: Number of the realm that asks.
            other: Number of the realm that the address belongs to.
            address: The system's.

        Returns:
            None if no binding of the realm leads to that address.
        """
        for keys in _matches(self._by_image.get((other, realm), {}), address):
            for key in keys:
                found = self._before(key, address)
                if found is not None:
                    return found
        return None

    def _before(self, key: BindingKey, address: Address) -> Address | None:
        """The address that a binding translates into this one; None if there is none."""
        binding = self._entries[key].binding
        selector = binding.selectors[0]
        kept = (1 << (selector.local.family.bits - selector.local.length)) - 1
        found = Address(selector.local.family, selector.address.number | (address.number & kept))
        # Of a selector longer than its image not every address of the image is one of an address.
        translates = isinstance(binding.crossing, Translate) and binding.crossing.image_of(found) == address
        return found if translates else None

    def mapped(self, realm: int) -> Remap | None:
        """The mapping of an IPv4 realm, which counts where nothing is bound (seed IPAE 5.1)."""
        return self._mapped.get(realm)

    @property
    def mappings(self) -> tuple[Remap, ...]:
        """Every mapping, by realm."""
        return tuple(self._mapped[realm] for realm in sorted(self._mapped))

    def lookup_holder(self, flow: Flow, kind: Kind, owner: Owner) -> Entry | None:
        """Find by whose right an owner sends from an address, where the packet carries no value of its own.

        Of several bindings the youngest without a limit on the peer counts, else the youngest that
        allows this peer, else the youngest; where there is none, an address held whole.

        Args:
            flow: Only realm, local and remote are looked at.
            kind: SPI or COOKIE.
            owner: Who sends.
        """
        selectors = self._by_holder.get((flow.realm, flow.local, kind), {})
        mine = sorted((key for key in selectors if key.owner == owner), reverse=True)
        for key in mine:
            if selectors[key].remote.network is None:
                return self._entries[key]
        for key in mine:
            network = selectors[key].remote.network
            if network is not None and flow.remote in network:
                return self._entries[key]
        if mine:
            return self._entries[mine[0]]
        entry = self._lookup_prefix(flow)
        return entry if entry is not None and entry.binding.key.owner == owner else None

    def learns(self, realm: int, address: Address, kind: Kind) -> bool:
        """Whether anybody holds a selector of this kind at an address: may cookies be learned there?"""
        return (realm, address, kind) in self._by_holder

    def holder(self, selector: Selector, *, besides: BindingKey | None = None) -> BindingKey | None:
        """Who holds any of what a selector names: the same prefix, or an overlapping value.

        Args:
            selector: What is asked for.
            besides: Who does not count.
        """
        if selector.kind is None:
            found = self._by_prefix.get(selector.realm, {}).get(selector.local.length, {}).get(selector.address)
            return None if found == besides else found
        spans = self._by_demux.get((selector.realm, selector.address, selector.kind), [])
        for low, high in selector.values.pairs:
            # Spans are disjoint and ascending: back from the last that begins at or before ``high``.
            at = bisect_right(spans, high, key=lambda span: span[0]) - 1
            while at >= 0 and spans[at][1] >= low:
                if spans[at][2] != besides:
                    return spans[at][2]
                at -= 1
        return None

    def holds_address(self, owner: Owner, realm: int, address: Address) -> bool:
        """Whether an owner holds anything of an address: what tells error 313 from 312."""
        return any(
            address in selector.local and selector.realm == realm
            for entry in self.held_by(owner)
            for selector in entry.binding.selectors
        )

    def tunnel_kinds(self, owner: Owner) -> frozenset[TunnelKind]:
        """The tunnel types of everything that an owner holds."""
        return frozenset(entry.binding.tunnel.kind for entry in self.held_by(owner))

    def elsewhere(self, _way: Way, /) -> Iterator[tuple[Owner, Tunnel]]:
        """Tunnels of a way, and whose they are, of bindings that are kept elsewhere: none, unless a heir has any."""
        return iter(())

    def _index(self, selector: Selector, key: BindingKey) -> None:
        if selector.kind is None:
            by_length = self._by_prefix.setdefault(selector.realm, {}).setdefault(selector.local.length, {})
            by_length[selector.address] = key
            return
        if selector.kind is not Kind.PORT:
            self._by_holder.setdefault((selector.realm, selector.address, selector.kind), {})[key] = selector
        if not selector.values:
            return
        spans = self._by_demux.setdefault((selector.realm, selector.address, selector.kind), [])
        for first, last in selector.values.pairs:
            insort(spans, (first, last, key))

    def _unindex_image(self, binding: Binding, crossing: Translate) -> None:
        images = self._by_image[crossing.realm, binding.realm]
        same = images[crossing.image.length]
        same[crossing.image.address].remove(binding.key)
        if not same[crossing.image.address]:
            del same[crossing.image.address]
        if not same:
            del images[crossing.image.length]

    def _unindex(self, selector: Selector, key: BindingKey) -> None:
        if selector.kind is None:
            by_length = self._by_prefix[selector.realm][selector.local.length]
            del by_length[selector.address]
            if not by_length:
                del self._by_prefix[selector.realm][selector.local.length]
            return
        if selector.kind is not Kind.PORT:
            # A binding may have several selectors of one kind, and is there once.
            holders = self._by_holder.get((selector.realm, selector.address, selector.kind), {})
            holders.pop(key, None)
            if not holders:
                self._by_holder.pop((selector.realm, selector.address, selector.kind), None)
        if not selector.values:
            return
        index = (selector.realm, selector.address, selector.kind)
        spans = self._by_demux[index]
        for first, last in selector.values.pairs:
            del spans[bisect_left(spans, (first, last, key))]
        if not spans:
            del self._by_demux[index]


def _longest(lengths: dict[int, dict[Address, _T]], address: Address) -> _T | None:
    return next(_matches(lengths, address), None)


def _matches(lengths: dict[int, dict[Address, _T]], address: Address) -> Iterator[_T]:
    """What is held for prefixes that an address lies in, the longest first."""
    for length in sorted(lengths, reverse=True):
        shift = address.family.bits - length
        if shift >= 0:
            found = lengths[length].get(Address(address.family, address.number >> shift << shift))
            if found is not None:
                yield found


def whole(realm: int, address: Address) -> Selector:
    """The selector of an address that is held whole (RSA-IP)."""
    return Selector(realm=realm, local=Prefix.of(address))
