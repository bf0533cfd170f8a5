# SPDX-License-Identifier: BSD-3-Clause
"""Plain leases as words: a lease of whole aligned slices at a claimed address is nothing but its words and a number.

::

    word    deadline, end of holder's address, template    its holder has registered, nothing is known of the way
            deadline, endpoint number                      otherwise, and when the templates are used up

A lease goes from one form to the other when its holder registers or is dismissed, and when something is learned of the
way. Both are counted by words: an endpoint and a template are there as long as a word leads to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Tunnel, Way
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import PlaneError
from isthmus.plane.kernel.maps import Codec
from isthmus.plane.kernel.number import Numbers, Slots
from isthmus.plane.kernel.owners import (
    LAST_24,
    LAST_BITS,
    LOW_32,
    MOST_BIND_ID,
    MOST_NUMBER,
    MOST_WORDS,
    Owners,
    first_word,
    run_of,
    word_count,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLAIMED, CONTACTED, SPLIT, DIRECT = 1, 2, 4, 8
"""Flags of words, as in abi.h; tests/test_abi.py compares them."""
_IPV4_BITS = 32


class Words(NamedTuple):
    """Where a lease's words stand, and whose the address is."""

    first: int
    length: int
    place: int
    "Realm and address of the lease, as a tag is."


class Records(Protocol):
    """Who writes the records that words lead to."""

    def take_endpoint(self, tunnel: Tunnel, owner: Owner, tag: int, times: int) -> int:
        """An endpoint of its own for a lease that is not direct; so many words more. Returns its number."""

    def give_endpoint(self, number: int, owner: Owner, times: int) -> None:
        """So many less."""

    def show_template(self, number: int, octets: bytes | None) -> None:
        """A template that begins or (None) ends."""

    def word(self, number: int, word: int) -> None:
        """Set a word."""

    def hold(self, tag: int, place: int, *, held: bool) -> None:
        """An owner holds, or (as far as plain leases go) does not hold, something of an address."""


class PlainWords:
    """The plain leases of a border.

    Args:
        codec: Writes words.
        slots: Says how many ports a slice has.
        owners: Hold the leases.
        templates: Numbers of templates.
        words: What ``slices`` should hold.
        endpoint: What ``endpoints`` should hold under a number.
        records: See there.
    """

    def __init__(
        self,
        codec: Codec,
        slots: Slots,
        owners: Owners,
        templates: Numbers,
        *,
        words: Callable[[int], int],
        endpoint: Callable[[int], bytes],
        records: Records,
    ) -> None:
        self._codec, self._owners, self._templates = codec, owners, templates
        self._word, self._endpoint, self._records = words, endpoint, records
        self.shift, self._each = slots.shift, slots.each
        self._odd = (1 << slots.shift) - 1
        self._first: dict[int, int] = {}
        "By realm and address: the first slice of every claimed address of a gateway."
        self._place: dict[int, int] = {}
        "The other way round, by the number of the address."
        self._shared: dict[tuple[int, int, int, int], bytes] = {}
        "By the upper bits of the owners' tags, our end, type and MTU: templates as they are written."
        self.narrow: Mapping[Way, int] = {}

    def enter(self, realm: int, address: Address, first: int) -> None:
        """A claimed address has slices."""
        if address.family is Family.IPV4:
            place = realm << 32 | address.number
            self._first[place] = first
            self._place[first // self._each] = place

    @property
    def addresses(self) -> Mapping[int, int]:
        """First slices by realm and address."""
        return self._first

    # --- what a lease is --------------------------------------------------------------------

    def words(self, binding: Binding) -> Words | None:
        """Where a binding's words would stand; None if it is not plain, or of other than whole slices."""
        tunnel, owner = binding.crossing, binding.key.owner
        if len(binding.selectors) != 1 or type(tunnel) is not Tunnel or binding.device is not None:
            return None
        (selector,) = binding.selectors
        remote, pairs = selector.remote, selector.values.pairs
        if (
            selector.kind is not Kind.PORT
            or len(pairs) != 1
            or remote.network is not None
            or remote.port is not None
            or tunnel.remote != owner.address
            or tunnel.realm != owner.realm
            or tunnel.checksum
            or selector.lent
            or selector.local.length != _IPV4_BITS
        ):
            return None
        place = selector.realm << 32 | selector.local.address.number
        first = self._first.get(place)
        (low, high), shift = pairs[0], self.shift
        if first is None or low & self._odd or high + 1 & self._odd or binding.key.bind_id > MOST_BIND_ID:
            return None
        first += low >> shift
        count = high + 1 - low >> shift
        return Words(first, count, place) if count <= MOST_WORDS and first <= MOST_NUMBER else None

    def is_untouched(self, words: Words) -> bool:
        """Whether nobody holds anything of slices that are claimed whole."""
        if words.length == 1:
            return self._word(words.first) == CLAIMED
        return all(self._word(number) == CLAIMED for number in range(words.first, words.first + words.length))

    def is_free(self, words: Words, key: BindingKey) -> bool:
        """Whether nobody else's plain lease, and nothing that is claimed in part, is in the way."""
        tag = self._owners.tag(key.owner)
        own = self._owners.run(tag, key.bind_id)
        for number in range(words.first, words.first + words.length):
            word = self._word(number)
            if word != CLAIMED and not (word & CLAIMED and (_lies_in(number, own) or self.holder(number) is None)):
                return False
        return True

    def holder(self, number: int) -> BindingKey | None:
        """Whose plain lease a word is of."""
        tag = self.owner_at(number)
        for run in self._owners.runs(tag):
            if _lies_in(number, run):
                return BindingKey(self._owners.owner(tag), run >> 32)
        return None

    def owner_at(self, number: int) -> int:
        """The tag of who holds the slice of a word whole; 0: nobody."""
        word = self._word(number)
        last = word >> 8 & 0xFFFFFF
        if word & SPLIT:
            return 0
        if word & DIRECT:
            return self._codec.owner_of(self._endpoint(1 + (word >> 4 & 15))) | last
        return self._codec.owner_of(self._endpoint(last)) if last else 0

    def number(self, realm: int, address: Address, port: int) -> int | None:
        """The number of the word of a port."""
        first = self._first.get(realm << 32 | address.number) if address.family is Family.IPV4 else None
        return None if first is None else first + (port >> self.shift)

    def conflict(self, binding: Binding) -> Selector | None:
        """The first selector of a binding that a plain lease of another holds any of."""
        for each in binding.selectors:
            if each.kind is not Kind.PORT or each.local.address.family is not Family.IPV4:
                continue
            first = self._first.get(each.realm << 32 | each.local.address.number)
            if first is None:
                continue
            for low, high in each.values.pairs:
                for number in range(first + (low >> self.shift), first + (high >> self.shift) + 1):
                    holder = self.holder(number)
                    if holder is not None and holder != binding.key:
                        return each
        return None

    # --- changes ------------------------------------------------------------------------------

    def bind(self, binding: Binding, words: Words, expires_at: float) -> None:
        """Enter a lease; the same key again replaces it.

        Raises:
            PlaneError: all endpoint numbers are in use; nothing changed.
        """
        owner = binding.key.owner
        tag = self._owners.tag(owner)
        before = self._owners.run(tag, binding.key.bind_id)
        after = run_of(binding.key.bind_id, words.first, words.length)
        if owner.address.family is not Family.IPV4:
            tag = self._owners.enter(owner, self._codec.place(owner.realm, owner.address))
        try:
            half = self._take(tag, binding.tunnel, words.length)
        except PlaneError:
            self._owners.leave(tag)
            raise
        if binding.selectors[0].remote.admit is Admit.CONTACTED:
            half |= CONTACTED
        if before:
            self._clear(tag, before, but=after)
        word = self._codec.deadline(expires_at) << 32 | half
        for number in range(words.first, words.first + words.length):
            self._records.word(number, word)
        self._owners.exchange(tag, before, after)
        self._records.hold(tag, words.place, held=True)

    def extend(self, key: BindingKey, expires_at: float) -> bool:
        """Move a deadline; False: there is no such lease."""
        run = self._owners.run(self._owners.tag(key.owner), key.bind_id)
        deadline = self._codec.deadline(expires_at) << 32
        for number in _numbers(run):
            self._records.word(number, deadline | self._word(number) & LOW_32)
        return run > 0

    def unbind(self, key: BindingKey) -> bool:
        """Remove a lease; False: there is none."""
        tag = self._owners.tag(key.owner)
        run = self._owners.run(tag, key.bind_id)
        if not run:
            return False
        self._clear(tag, run)
        self._owners.exchange(tag, run, 0)
        return True

    def settle(self, tag: int) -> None:
        """Let the words of an owner's leases be what follows from whether it has registered, and from its ways."""
        for run in self._owners.runs(tag):
            word, count = self._word(first_word(run)), word_count(run)
            tunnel = self._tunnel(tag, word)
            after = self._take(tag, tunnel, count)
            if after == word & LOW_32 & ~CONTACTED:
                self._give(tag, word, count)
                continue
            for number in _numbers(run):
                self._records.word(number, word & ~LOW_32 | word & CONTACTED | after)
            self._give(tag, word, count)

    def take_template(self, tunnel: Tunnel, tag: int, count: int) -> int | None:
        """Take the template of a tunnel and the tag of who has it for so many words.

        Returns:
            What the words have besides a holder; None: there is no template.
        """
        number = self._take_template(tunnel, tag, count) if count else 0
        return self._codec.direct(template=number, owner=0) if number else None

    def give_template(self, number: int, count: int) -> None:
        """So many words less lead to a template."""
        if self._templates.give(self._endpoint(number), count):
            self._records.show_template(number, None)

    # --- reading ------------------------------------------------------------------------------

    def has(self, key: BindingKey) -> bool:
        """Whether there is such a lease."""
        return self._owners.run(self._owners.tag(key.owner), key.bind_id) > 0

    def binding(self, key: BindingKey) -> Binding | None:
        """A lease as a binding."""
        run = self._owners.run(self._owners.tag(key.owner), key.bind_id)
        return self._decode(key.owner, run) if run else None

    def deadline(self, key: BindingKey) -> int:
        """The deadline of a lease, in seconds of CLOCK_BOOTTIME."""
        return self._word(first_word(self._owners.run(self._owners.tag(key.owner), key.bind_id))) >> 32

    def of_owner(self, owner: Owner) -> Iterator[Binding]:
        """The leases of an owner."""
        return (self._decode(owner, run) for run in self._owners.runs(self._owners.tag(owner)))

    def bindings(self) -> Iterator[Binding]:
        """Every lease."""
        for tag in list(self._owners):
            yield from self.of_owner(self._owners.owner(tag))

    def places(self, tag: int) -> set[int]:
        """Of which addresses an owner holds anything (realm and address, as a tag is)."""
        return {self.place(first_word(run)) for run in self._owners.runs(tag)}

    def places_of(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The same of many."""
        import numpy as np

        known = np.zeros(max(self._place, default=-1) + 1, np.uint64)
        for at, place in self._place.items():
            known[at] = place
        return known[numbers // self._each]

    def place(self, number: int) -> int:
        """Realm and address that a word is of."""
        return self._place[number // self._each]

    def _decode(self, owner: Owner, run: int) -> Binding:
        first, word = first_word(run), self._word(first_word(run))
        place, low = self.place(first), first % self._each << self.shift
        selector = Selector(
            realm=place >> 32,
            local=Prefix.of(Address(Family.IPV4, place & LOW_32)),
            kind=Kind.PORT,
            values=Ranges.of((low, low + (word_count(run) << self.shift) - 1)),
            remote=Remote(admit=Admit.CONTACTED if word & CONTACTED else Admit.ANYONE),
        )
        crossing = self._tunnel(self._owners.tag(owner), word)
        return Binding(key=BindingKey(owner, run >> 32), selectors=(selector,), crossing=crossing)

    def _tunnel(self, tag: int, word: int) -> Tunnel:
        """The tunnel that a word leads to."""
        number = 1 + (word >> 4 & 15) if word & DIRECT else word >> 8 & 0xFFFFFF
        return self._codec.tunnel(self._endpoint(number), self._owners.owner(tag).address)

    # --- forms --------------------------------------------------------------------------------

    def _take(self, tag: int, tunnel: Tunnel, count: int) -> int:
        """What the lower half of the words of a lease should be; the record that they lead to is taken."""
        if self._owners.is_registered(tag) and (not self.narrow or tunnel.way not in self.narrow):
            number = self._take_template(tunnel, tag, count)
            if number:
                return self._codec.direct(template=number, owner=tag)
        owner = self._owners.owner(tag)
        return self._codec.half_word(endpoint=self._records.take_endpoint(tunnel, owner, tag, count))

    def _take_template(self, tunnel: Tunnel, tag: int, count: int) -> int:
        if tag <= LAST_24:
            return 0
        key = (tag >> LAST_BITS, tunnel.local.number, tunnel.kind, tunnel.mtu)
        octets = self._shared.get(key)
        if octets is None:
            octets = self._shared[key] = self._codec.template(tunnel, tag)
        number = self._templates.try_take(octets, count)
        if number:
            self._records.show_template(number, octets)
        else:
            del self._shared[key]
        return number

    def _give(self, tag: int, word: int, count: int) -> None:
        """A lease's words do not lead to a record any more."""
        if not word & DIRECT:
            self._records.give_endpoint(word >> 8 & 0xFFFFFF, self._owners.owner(tag), count)
            return
        self.give_template(1 + (word >> 4 & 15), count)

    def _clear(self, tag: int, run: int, but: int = 0) -> None:
        """Let the words of a lease be nobody's, but for those of another; what they led to is given back."""
        first, count = first_word(run), word_count(run)
        word = self._word(first)
        for number in _numbers(run):
            if not _lies_in(number, but):
                self._records.word(number, CLAIMED)
        place = self.place(first)
        if not any(self.place(first_word(each)) == place for each in self._owners.runs(tag) if each != run):
            self._records.hold(tag, place, held=False)
        self._give(tag, word, count)


def _numbers(run: int) -> range:
    return range(first_word(run), first_word(run) + word_count(run))


def _lies_in(number: int, run: int) -> bool:
    return first_word(run) <= number < first_word(run) + word_count(run)
