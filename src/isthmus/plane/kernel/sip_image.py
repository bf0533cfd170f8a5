# SPDX-License-Identifier: BSD-3-Clause
"""What the maps should hold of IPAE: realms, images, and what leads on into SIP and out of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey
from isthmus.border.crossing import Translate, Tunnel
from isthmus.border.effect import Remap
from isthmus.border.realm import Border, Realm
from isthmus.border.selector import Selector
from isthmus.plane.kernel import own
from isthmus.plane.kernel.maps import Codec
from isthmus.plane.kernel.number import Numbers

if TYPE_CHECKING:
    from isthmus.border.mapping import Mapping as MappingTable

_UPPER_BITS = 32
"Of a SIP address."


class SipImage(ABC):
    """The part of an ``image.Image`` that is IPAE's."""

    _codec: Codec
    _numbers: Numbers
    _device: Callable[[str], int]
    _mapping: Callable[[int, MappingTable], int]
    _realms: dict[int, Realm]
    _mapped: dict[int, tuple[int, int]]
    "By realm: the number of its mapping, and the SIP realm that this leads into."
    _translating: Counter[int]
    _images: dict[bytes, dict[BindingKey, Selector]]
    "By key of ``by_image``: which bindings lead there, and by which selectors. The first counts."
    _known: dict[int, dict[bytes, int]]
    "By realm: the keys of the images there, and how long these are."
    _deep: Counter[int]
    "By SIP realm: see ``Codec.sip_realm``. A bit too many costs time only, so none is cleared."

    @abstractmethod
    def entry(self, table: str, key: bytes, value: bytes | None) -> None:
        """Set or (None) remove an entry."""

    @abstractmethod
    def get(self, key: BindingKey) -> Binding | None:
        """A binding that is there."""

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


def _reached(image: Prefix, selector: Prefix) -> Prefix:
    """What the addresses of a selector become: like the image, then like the selector as far as that is kept."""
    bits = image.family.bits
    kept = (1 << (bits - image.length)) - 1
    length = max(image.length, bits - (selector.family.bits - selector.length))
    number = image.address.number | (selector.address.number & kept)
    return Prefix(Address(image.family, number >> (bits - length) << (bits - length)), length)
