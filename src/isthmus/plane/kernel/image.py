# SPDX-License-Identifier: BSD-3-Clause
"""What the maps should hold: the bindings, seen as entries and slice words.

An ``Image`` takes effects and says which entries change, in an order that never lets a packet see half of it: records
(endpoint, owner, holding) before the index that leads to them, and the index taken away first. It touches no kernel.
A running plane writes the changes as they come; a plane that starts over maps that are there already makes its image
first and writes only what differs (``plane.KernelPlane.reconcile``).
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Tunnel, Way
from isthmus.border.effect import Bind, Deregister, Extend, Lapse, Prolong, Register, Remap, Unbind
from isthmus.border.plain import endings
from isthmus.border.realm import Border
from isthmus.border.selector import Selector
from isthmus.errors import PlaneError
from isthmus.plane import Planned
from isthmus.plane.kernel.batch import CLAIMED, TABLES, Batch, Change
from isthmus.plane.kernel.direct import PlainWords, Words
from isthmus.plane.kernel.index import Held, Index, check
from isthmus.plane.kernel.maps import AddressRun, Codec
from isthmus.plane.kernel.number import Numbers, Slots
from isthmus.plane.kernel.owners import Owners
from isthmus.plane.kernel.sip_image import SipImage

if TYPE_CHECKING:
    from isthmus.border.mapping import Mapping as MappingTable

_LOW_32 = 0xFFFFFFFF
_LARGE = 4096  # hosts
_ONE = (1).to_bytes(4, sys.byteorder)


class Image(SipImage):
    """What the maps should hold."""

    def __init__(
        self,
        border: Border,
        codec: Codec,
        *,
        slots: Slots,
        numbers: Numbers,
        templates: Numbers,
        owners: Owners,
        device: Callable[[str], int],
        mapping: Callable[[int, MappingTable], int],
        narrow: Mapping[Way, int] | None = None,
        deep: Mapping[int, int] | None = None,
    ) -> None:
        """Begin with what the border says.

        Args:
            border: Realms, tunnel ends, claims and nodes.
            codec: Writes keys and values.
            slots: Room for slices.
            numbers: Endpoint numbers.
            templates: Those of templates.
            owners: Nobody yet.
            device: Gives the interface index of a device.
            mapping: Puts the mapping of a realm where the program finds it, and gives its number there.
            narrow: What ``limit`` has been told.
            deep: What the maps say of SIP realms' upper halves with bindings by more than 32 bits.
        """
        self.tables: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}
        "But for owners and holdings: of these the plain leases' follow from the words."
        self.words = array("Q", bytes(8 * slots.words))
        self._batches = [Batch()]
        self._codec, self._numbers, self.owners, self._device = codec, numbers, owners, device
        self.plain = PlainWords(
            codec,
            slots,
            owners,
            templates,
            words=self.words.__getitem__,
            endpoint=lambda number: self.tables["endpoints"][codec.number(number)],
            records=self,
        )
        self._realms, self._mapping = {realm.number: realm for realm in border.realms}, mapping
        self._mapped: dict[int, tuple[int, int]] = {}
        "By realm: the number of its mapping, and the SIP realm that this leads into."
        self._translating: Counter[int] = Counter()
        self._images: dict[bytes, dict[BindingKey, Selector]] = {}
        "By key of ``by_image``: which bindings lead there, and by which selectors. The first counts."
        self._known: dict[int, dict[bytes, int]] = {}
        "By realm: the keys of the images there, and how long these are."
        self._deep = Counter(deep or {})
        "By SIP realm: see ``Codec.sip_realm``. A bit too many costs time only, so none is cleared."
        self._slots = slots
        self._counted = (slots, numbers, templates, owners)
        self._holdings: Counter[tuple[int, int, Prefix]] = Counter()
        "By tag, realm and prefix: selectors of bindings that are no plain leases."
        self._held: dict[BindingKey, tuple[Held, bytes]] = {}
        self._endpoints: dict[int, dict[bytes, tuple[Tunnel, bool]]] = {}
        "By owner's tag; and whether the tunnel ends at just that owner."
        self._ways: dict[Way, dict[bytes, Owner]] = {}
        "Whose endpoints go by a way."
        self._narrow = dict(narrow or {})
        self.plain.narrow = self._narrow
        self._index = Index(
            border, codec, slots, entry=self.entry, word=self.word, meant=self.meant, claimed=self._claim
        )
        for end in border.tunnel_ends:
            realm = border.realm(end.leads_to)
            if realm.family is not Family.SIP:
                place = codec.place(end.realm, end.address)
                self.entry("tunnel_ends", place, codec.tunnel_end(end.leads_to, realm.end))
        if is_ipae(border):
            self._begin_ipae(border)

    def get(self, key: BindingKey) -> Binding | None:
        """A binding that is there."""
        held = self._held.get(key)
        return self.plain.binding(key) if held is None else held[0].binding

    def tag(self, owner: Owner) -> int:
        """The tag of an owner who has registered or holds something; 0: it is not known."""
        tag = self.owners.tag(owner)
        return tag if self.owners.is_known(tag) else 0

    def owner(self, tag: int) -> Owner | None:
        """Whose tag that is."""
        return self.owners.owner(tag) if self.owners.is_known(tag) else None

    def bindings(self) -> Iterator[Binding]:
        """Every binding."""
        yield from self.objects()
        yield from self.plain.bindings()

    def objects(self) -> Iterator[Binding]:
        """Every binding that is no plain lease."""
        return (held.binding for held, _ in self._held.values())

    def run(self, realm: int) -> AddressRun | None:
        """The longest run of consecutive addresses of a realm whose slices are consecutive, too."""
        longest: AddressRun | None = None
        place = first = length = 0
        each = 1 << 16 - self._slots.shift
        for at, slot in sorted((at, slot) for at, slot in self.plain.addresses.items() if at >> 32 == realm):
            if length and at == place + length and slot == first + length * each:
                length += 1
            else:
                place, first, length = at, slot, 1
            if longest is None or length > longest.length:
                longest = AddressRun(place & 0xFFFFFFFF, length, first, self._slots.shift)
        return longest

    @property
    def batch(self) -> Batch:
        """Where changes go."""
        return self._batches[-1]

    def settle(self) -> None:
        """Free the numbers that pinned maps had for what is no more."""
        for each in self._counted:
            each.settle()

    def wanted(self, table: str) -> Mapping[bytes, bytes]:
        """What a map should hold."""
        if table == "owners":
            of = self.owners
            return {self.place_of(tag): self._codec.owner(tag, registered=of.is_registered(tag)) for tag in of}
        if table == "holdings":
            whole = (each for each in self._holdings if each[2].whole)
            held = {(tag, self._codec.place(realm, local.address)) for tag, realm, local in whole}
            for tag in self.owners:
                for place in self.plain.places(tag):
                    held.add((tag, self._codec.place(place >> 32, Address(Family.IPV4, place & _LOW_32))))
            return {self._codec.holding(tag, place): _ONE for tag, place in held}
        return self.tables[table]

    @property
    def is_large(self) -> bool:
        """Whether owners and holdings are compared as columns."""
        return len(self.owners) > _LARGE and all(local.address.family is Family.IPV4 for _, _, local in self._holdings)

    @property
    def boot_offset(self) -> float:
        """Seconds since 1970 at which CLOCK_BOOTTIME was 0."""
        return self._codec.time(0)

    def place_of(self, tag: int) -> bytes:
        """The place of an owner."""
        owner = self.owners.owner(tag)
        return self._codec.place(owner.realm, owner.address)

    def other_holdings(self) -> Iterator[tuple[int, int]]:
        """Tag, and realm and address, of all that is held but by who has one plain lease only."""
        for tag, realm, local in self._holdings:
            if local.whole:
                yield tag, realm << 32 | local.address.number
        for tag in self.owners.several():
            yield from ((tag, place) for place in self.plain.places(tag))

    def batches(self) -> list[Batch]:
        """What has changed since the last call, to be written one after the other."""
        batches, self._batches = self._batches, [Batch()]
        return batches

    def changes(self) -> list[Change]:
        """The same, each in the order to write it."""
        return [change for batch in self.batches() for change in batch.changes()]

    def entry(self, table: str, key: bytes, value: bytes | None) -> None:
        """Set or (None) remove an entry."""
        held = self.tables[table]
        before = held.get(key)
        if before == value:
            return
        if value is None:
            del held[key]
        else:
            held[key] = value
            if table == "endpoints" and self._batches[-1].is_other(key, value):
                self._batches.append(Batch())
        self._batches[-1].change(table, key, before, value)

    def word(self, number: int, word: int) -> None:
        """Set a word of ``slices``."""
        if self.words[number] != word:
            self.words[number] = word
            self._batches[-1].words[number] = word

    def _claim(self, realm: int, address: Address, first: int, whole: tuple[int, int]) -> None:
        """An address of a gateway has slices, of which a run is claimed whole."""
        self.plain.enter(realm, address, first)
        at, count = whole
        if count:
            self.words[at : at + count] = array("Q", CLAIMED * count)
            self._batches[-1].claims.append(whole)

    def meant(self, prefix: Prefix) -> None:
        """Set the bits of ``meant`` for a prefix; one set too many costs time only, so none is cleared."""
        for number, bits in self._codec.meant(prefix).items():
            key = self._codec.number(number)
            before = self.tables["meant"].get(key, bytes(8))
            self.entry("meant", key, self._codec.octets(int.from_bytes(before, sys.byteorder) | bits))

    def apply(self, effect: Planned) -> None:
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
            case Lapse():
                self._lapse(effect)
            case Remap():
                self._remap(effect)
            case _:
                assert_never(effect)

    def limit(self, way: Way, octets: int | None) -> None:
        """Let the tunnels between two ends carry no more than fits an outer packet; None: what they were made for.

        Raises:
            PlaneError: all endpoint numbers are in use; nothing changed.
        """
        before = self._narrow.get(way)
        try:
            self._limit(way, octets)
        except PlaneError:
            self._limit(way, before)
            raise

    def _limit(self, way: Way, octets: int | None) -> None:
        if octets is None:
            self._narrow.pop(way, None)
        else:
            self._narrow[way] = octets
        tags = {self.owners.tag(owner) for owner in self._ways.get(way, {}).values()}
        for tag in tags | {self.owners.tag(Owner(way.realm, way.remote))}:
            if self.owners.is_known(tag):
                self._show_owner(tag)

    @property
    def narrow(self) -> dict[Way, int]:
        """Ways that are limited."""
        return dict(self._narrow)

    # --- effects --------------------------------------------------------------------------

    def _bind(self, effect: Bind) -> None:
        binding, key = effect.binding, effect.binding.key
        words = self.plain.words(binding)
        if words is None or not (self.plain.is_untouched(words) or self._is_free(words, binding)):
            self._bind_object(effect)
            return
        if key in self._held:
            self._unbind_object(key)
        known = self.owners.is_known(self.owners.tag(key.owner))
        self.plain.bind(binding, words, effect.lease.expires_at)
        if not known:
            self._tell_owner(self.owners.tag(key.owner))

    def _is_free(self, words: Words, binding: Binding) -> bool:
        """Whether what is in the way of a plain lease is its own."""
        return self.plain.is_free(words, binding.key) and self._index.conflict(binding) is None

    def _bind_object(self, effect: Bind) -> None:
        binding, key = effect.binding, effect.binding.key
        check(binding)
        refused = self._index.conflict(binding) or self.plain.conflict(binding)
        if refused is not None:
            raise PlaneError(f"{refused} is already held")
        before = self._held.get(key)
        for selector in binding.selectors:
            self._note_deep(selector)
        endpoint, tag = self._enter(binding)
        self.plain.unbind(key)
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
        else:
            self.plain.extend(effect.key, effect.expires_at)

    def _unbind(self, effect: Unbind) -> None:
        if effect.key in self._held:
            self._unbind_object(effect.key)
            return
        owner = effect.key.owner
        tag = self.owners.tag(owner)
        if self.plain.unbind(effect.key) and not self.owners.is_known(tag):
            self._batches[-1].change("owners", self._codec.place(owner.realm, owner.address), None, None)

    def _lapse(self, effect: Lapse) -> None:
        from isthmus.plane.kernel import lapse  # here and not above: it needs NumPy

        for each in endings(lapse.end(self, effect)):
            self.apply(each)

    def _unbind_object(self, key: BindingKey) -> None:
        before, endpoint = self._held.pop(key)
        self._index.replace(before, None)
        self._leave(before.binding, endpoint)

    def _register(self, owner: Owner, *, registered: bool) -> None:
        place = self._codec.place(owner.realm, owner.address)
        before = self.owners.is_registered(self.owners.tag(owner))
        tag = self.owners.register(owner, place, registered=registered)
        if tag and before is not registered:
            self._batches[-1].change("owners", place, None, self._owner_octets(tag))
            try:
                self._show_owner(tag)
            except PlaneError:
                self.owners.register(owner, place, registered=before)
                self._tell_owner(tag)
                self._show_owner(tag)
                raise

    # --- records --------------------------------------------------------------------------

    def _enter(self, binding: Binding) -> tuple[bytes, int]:
        """Write what the index will lead to; returns the endpoint's octets and the tag of its owner."""
        if not isinstance(binding.crossing, Tunnel):
            return self._enter_crossing(binding)
        whose = binding.key.owner
        known = self.owners.is_known(self.owners.tag(whose))
        device = 0 if binding.device is None else self._device(binding.device)
        tag = self.owners.hold(whose, self._codec.place(whose.realm, whose.address))
        endpoint = self._codec.endpoint(binding.tunnel, tag, device)
        try:
            self._take(endpoint, binding.tunnel, whose, tag, 1)
        except PlaneError:
            self.owners.release(tag)
            raise
        if not known:
            self._tell_owner(tag)
        for selector in binding.selectors:
            self._holdings[tag, selector.realm, selector.local] += 1
            self._show_holding(tag, selector.realm, selector.local)
        return endpoint, tag

    def _leave(self, binding: Binding, endpoint: bytes) -> None:
        """Take away what the index no longer leads to."""
        if not isinstance(binding.crossing, Tunnel):
            self._leave_crossing(binding, endpoint)
            return
        whose = binding.key.owner
        tag = self.owners.tag(whose)
        for selector in binding.selectors:
            self._holdings[tag, selector.realm, selector.local] -= 1
            if not self._holdings[tag, selector.realm, selector.local]:
                del self._holdings[tag, selector.realm, selector.local]
            self._show_holding(tag, selector.realm, selector.local)
        self._give(endpoint, tag, 1)
        self.owners.release(tag)
        if not self.owners.is_known(tag):
            self._batches[-1].change("owners", self._codec.place(whose.realm, whose.address), None, None)

    def _take(self, endpoint: bytes, tunnel: Tunnel, owner: Owner, tag: int, times: int) -> int:
        number = self._numbers.take(endpoint, times)
        here = (tunnel.realm, tunnel.remote) == (owner.realm, owner.address)
        self._ways.setdefault(tunnel.way, {})[endpoint] = owner
        self._endpoints.setdefault(tag, {})[endpoint] = tunnel, here
        self._show_endpoint(endpoint, tunnel, registered=here and self.owners.is_registered(tag))
        return number

    def _give(self, endpoint: bytes, tag: int, times: int) -> None:
        number = self._numbers.give(endpoint, times)
        if not number:
            return
        self.entry("endpoints", self._codec.number(number), None)
        tunnel, _ = self._endpoints[tag].pop(endpoint)
        if not self._endpoints[tag]:
            del self._endpoints[tag]
        del self._ways[tunnel.way][endpoint]
        if not self._ways[tunnel.way]:
            del self._ways[tunnel.way]

    def _show_owner(self, tag: int) -> None:
        """Write what an owner's endpoints and words say of it."""
        registered = self.owners.is_registered(tag)
        for endpoint, (tunnel, here) in self._endpoints.get(tag, {}).items():
            self._show_endpoint(endpoint, tunnel, registered=here and registered)
        self.plain.settle(tag)

    def _show_endpoint(self, endpoint: bytes, tunnel: Tunnel, *, registered: bool) -> None:
        octets = self._narrow.get(tunnel.way)
        mtu = tunnel.mtu if octets is None else octets - tunnel.overhead
        key = self._codec.number(self._numbers[endpoint])
        self.entry("endpoints", key, self._codec.standing(endpoint, registered=registered, mtu=mtu))

    def _tell_owner(self, tag: int) -> None:
        """Write who an owner is."""
        owner = self.owners.owner(tag)
        self._batches[-1].change("owners", self._codec.place(owner.realm, owner.address), None, self._owner_octets(tag))

    def _owner_octets(self, tag: int) -> bytes | None:
        if not self.owners.is_known(tag):
            return None
        return self._codec.owner(tag, registered=self.owners.is_registered(tag))

    def _show_holding(self, tag: int, realm: int, local: Prefix) -> None:
        """Write whether an owner holds anything of a prefix."""
        if local.whole:
            held = (tag, realm, local) in self._holdings or realm << 32 | local.address.number in self.plain.places(tag)
            key = self._codec.holding(tag, self._codec.place(realm, local.address))
            self._batches[-1].change("holdings", key, None, _ONE if held else None)
        else:
            held = (tag, realm, local) in self._holdings
            self.entry("wide_holdings", self._codec.wide_key(tag, realm, local), _ONE if held else None)

    # --- records of plain leases ------------------------------------------------------------

    def take_endpoint(self, tunnel: Tunnel, owner: Owner, tag: int, times: int) -> int:
        """An endpoint of its own for a plain lease; so many words lead to it."""
        return self._take(self._codec.endpoint(tunnel, tag, 0), tunnel, owner, tag, times)

    def give_endpoint(self, number: int, owner: Owner, times: int) -> None:
        """So many words less lead to it."""
        standing = self.tables["endpoints"][self._codec.number(number)]
        self._give(self._codec.plain(standing), self.owners.tag(owner), times)

    def show_template(self, number: int, octets: bytes | None) -> None:
        """Write a template, or (None) take it away."""
        self.entry("endpoints", self._codec.number(number), octets)

    def hold(self, tag: int, place: int, *, held: bool) -> None:
        """An owner holds, or does not hold, something of an address by plain leases."""
        address = Address(Family.IPV4, place & _LOW_32)
        if not held and self._holdings:
            held = (tag, place >> 32, Prefix.of(address)) in self._holdings
        key = self._codec.holding(tag, self._codec.place(place >> 32, address))
        self._batches[-1].change("holdings", key, None, _ONE if held else None)


def is_ipae(border: Border) -> bool:
    """Whether there is anything for IPAE to do at a border: a realm of SIP."""
    return any(realm.family is Family.SIP for realm in border.realms)
