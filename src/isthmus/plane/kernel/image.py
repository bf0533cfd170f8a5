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
from typing import TYPE_CHECKING, assert_never

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Translate, Tunnel, Way
from isthmus.border.effect import Bind, Deregister, Extend, Prolong, Register, Remap, Unbind
from isthmus.border.realm import Border
from isthmus.border.selector import Kind, Selector
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.kernel import own
from isthmus.plane.kernel.index import Held, Index, blocks
from isthmus.plane.kernel.maps import Codec
from isthmus.plane.kernel.number import Numbers, Owners, Slots

if TYPE_CHECKING:
    from isthmus.border.mapping import Mapping as MappingTable

MOST_BLOCKS = 1 << 12
"""Most aligned blocks that the SPIs of one selector may need: each is an entry of its own."""

_UPPER_BITS = 32
"Of a SIP address."

Change = tuple[str, bytes, bytes | None]
"Map, key, value (None: remove)."

TABLES = (
    *("meant", "tunnel_ends", "sip_ends", "nodes", "sites", "sip_realms", "endpoints", "owners", "holdings"),
    *("addresses", "by_demux", "by_spi", "by_image", "by_prefix"),
)
"""Maps that an image fills, records first; beside them the words of ``slices``."""

ARRAYS = ("meant", "sip_realms", "endpoints")
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
            owners: Owners' tags.
            device: Gives the interface index of a device.
            mapping: Puts the mapping of a realm where the program finds it, and gives its number there.
            narrow: What ``limit`` has been told.
            deep: What the maps say of SIP realms' upper halves with bindings by more than 32 bits.
        """
        self.tables: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}
        self.words = array("Q", bytes(8 * slots.words))
        self._changes: list[Change] = []
        self._codec, self._numbers, self._owners, self._device = codec, numbers, owners, device
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
            realm = border.realm(end.leads_to)
            if realm.family is not Family.SIP:
                place = codec.place(end.realm, end.address)
                self.entry("tunnel_ends", place, codec.tunnel_end(end.leads_to, realm.end))
        if is_ipae(border):
            self._begin_ipae(border)

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
            case Remap():
                self._remap(effect)
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
        for selector in binding.selectors:
            self._note_deep(selector)
        endpoint, tag = self._enter(binding)
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

    def _begin_ipae(self, border: Border) -> None:
        """Write what the border says of SIP realms, and which IPv4 addresses are ours, not somebody's in SIP."""
        codec = self._codec
        for claim in border.claims:
            self._note_deep(claim)
        for realm in border.realms:
            self._show_realm(realm.number)
            if realm.site is not None:
                self.entry("sites", codec.upper(realm.site.address.upper), codec.upper(realm.number))
        for (number, address), leads_to in own.sip_ends(border).items():
            self.entry("sip_ends", codec.place(number, address), codec.upper(leads_to))
        for node in border.nodes:
            self.entry("nodes", codec.place(node.realm, node.address), codec.number(1))

    def _show_realm(self, number: int) -> None:
        mapping, mapped_to = self._mapped.get(number, (0, 0))
        translates = self._translating[number] > 0
        value = self._codec.sip_realm(
            self._realms[number],
            mapping=mapping,
            mapped_to=mapped_to,
            translates=translates,
            known=self._known_whole(number),
            deep=self._deep[number],
        )
        self.entry("sip_realms", self._codec.realm_key(number), value)

    def _known_whole(self, number: int) -> tuple[int, int]:
        """In which SIP realm all systems of an IPv4 realm have one upper half, and which; (0, 0): they have not."""
        match list(self._known.get(number, {}).items()):
            case [(key, 0)]:
                selector = next(iter(self._images[key].values()))
                if selector.local.family is Family.SIP and selector.local.length == _UPPER_BITS:
                    return selector.realm, selector.local.address.upper
        return 0, 0

    def _note_deep(self, selector: Selector) -> None:
        """There will be a binding of this selector, or a claim."""
        if selector.local.family is Family.SIP and selector.local.length > _UPPER_BITS:
            self._deep[selector.realm] |= own.bit(selector.local.address.upper)
            self._show_realm(selector.realm)

    def _remap(self, effect: Remap) -> None:
        self._mapped[effect.realm] = self._mapping(effect.realm, effect.mapping), effect.sip
        self._show_realm(effect.realm)

    def _enter_crossing(self, binding: Binding) -> tuple[bytes, int]:
        """The same as ``_enter`` of a binding that is nobody's lease: no owner, but perhaps an image."""
        crossing, selector = binding.crossing, binding.selectors[0]
        assert not isinstance(crossing, Tunnel)
        endpoint = self._codec.crossing(crossing, 0 if binding.device is None else self._device(binding.device))
        self.entry("endpoints", self._codec.number(self._numbers.take(endpoint)), endpoint)
        if isinstance(crossing, Translate):
            key = self._codec.image_key(selector.realm, crossing.realm, _reached(crossing.image, selector.local))
            images = self._images.setdefault(key, {})
            images.pop(binding.key, None)
            images[binding.key] = selector
            self._show_image(key, crossing, selector.local)
            self._translating[selector.realm] += 1
            self._show_realm(selector.realm)
        return endpoint, 0

    def _leave_crossing(self, binding: Binding, endpoint: bytes) -> None:
        crossing, selector = binding.crossing, binding.selectors[0]
        if isinstance(crossing, Translate):
            self._translating[selector.realm] -= 1
            self._show_realm(selector.realm)
        if isinstance(crossing, Translate) and not self._leads_there(binding):
            key = self._codec.image_key(selector.realm, crossing.realm, _reached(crossing.image, selector.local))
            images = self._images[key]
            del images[binding.key]
            self._show_image(key, crossing, selector.local)
            if not images:
                del self._images[key]
        number = self._numbers.give(endpoint)
        if number:
            self.entry("endpoints", self._codec.number(number), None)

    def _show_image(self, key: bytes, crossing: Translate, selector: Prefix) -> None:
        """Write who is known by an image."""
        images, known = self._images[key], self._known.setdefault(crossing.realm, {})
        if images:
            known[key] = _reached(crossing.image, selector).length
            self.entry("by_image", key, self._codec.known(next(iter(images.values())).local))
        else:
            known.pop(key, None)
            self.entry("by_image", key, None)
        self._show_realm(crossing.realm)

    def _leads_there(self, gone: Binding) -> bool:
        """Whether the binding that has replaced one is known by the same image."""
        now = self.get(gone.key)
        if now is None or now.realm != gone.realm:
            return False
        here, there = now.crossing, gone.crossing
        return (
            isinstance(here, Translate)
            and isinstance(there, Translate)
            and (here.realm, here.image) == (there.realm, there.image)
            and now.selectors[0].local == gone.selectors[0].local
        )

    def _enter(self, binding: Binding) -> tuple[bytes, int]:
        """Write what the index will lead to; returns the endpoint's octets and the tag of its owner."""
        if not isinstance(binding.crossing, Tunnel):
            return self._enter_crossing(binding)
        owner = self._codec.place(binding.key.owner.realm, binding.key.owner.address)
        device = 0 if binding.device is None else self._device(binding.device)
        tag = self._owners.hold(owner)
        endpoint = self._codec.endpoint(binding.tunnel, tag, device)
        try:
            self._numbers.take(endpoint)
        except PlaneError:
            self._owners.release(owner)
            raise
        tunnel, whose = binding.tunnel, binding.key.owner
        here = (tunnel.realm, tunnel.remote) == (whose.realm, whose.address)
        self._ways.setdefault(tunnel.way, {})[endpoint] = whose
        self._endpoints.setdefault(owner, {})[endpoint] = tunnel, here
        self._show_owner(whose)
        for selector in binding.selectors:
            key = self._codec.holding_key(tag, selector.realm, selector.local)
            self._holdings[key] += 1
            self.entry("holdings", key, self._codec.number(1))
        return endpoint, tag

    def _leave(self, binding: Binding, endpoint: bytes) -> None:
        """Take away what the index no longer leads to."""
        if not isinstance(binding.crossing, Tunnel):
            self._leave_crossing(binding, endpoint)
            return
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
            way = binding.tunnel.way
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


def _reached(image: Prefix, selector: Prefix) -> Prefix:
    """What the addresses of a selector become: like the image, then like the selector as far as that is kept."""
    bits = image.family.bits
    kept = (1 << (bits - image.length)) - 1
    length = max(image.length, bits - (selector.family.bits - selector.length))
    number = image.address.number | (selector.address.number & kept)
    return Prefix(Address(image.family, number >> (bits - length) << (bits - length)), length)


def is_ipae(border: Border) -> bool:
    """Whether there is anything for IPAE to do at a border: a realm of SIP."""
    return any(realm.family is Family.SIP for realm in border.realms)


def _check(binding: Binding) -> None:
    """Refuse what the maps cannot hold."""
    if not isinstance(binding.crossing, Tunnel) and (len(binding.selectors) > 1 or binding.selectors[0].kind):
        raise PlaneError(f"binding {binding.key} selects by more than a prefix, which IPAE does not")
    for selector in binding.selectors:
        if selector.kind is Kind.SPI and sum(1 for _ in islice(blocks(selector.values), MOST_BLOCKS + 1)) > MOST_BLOCKS:
            raise PlaneError(f"binding {binding.key} holds SPIs in more than {MOST_BLOCKS} aligned blocks")
