# SPDX-License-Identifier: BSD-3-Clause
"""Owners as the kernel plane knows them: their tags, whether they have registered, and what plain leases they hold.

A million hosts with a lease each are a dictionary of numbers. A *held run* is a plain lease in 63 bits::

    62       32 31              8 7      0
    | Bind ID  | first word      | words  |

A *tag* of an IPv4 owner is its realm (upper half) and its address. Those of IPv6 owners are less than 2^32: a *network*
of addresses that differ in their last 24 bits only has a number, and the tag of each is that and these bits; who came
when all 255 had been given has a number of his own, below 2^24. So a million hosts of a network need no objects either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from isthmus.address import Address, Family
from isthmus.border.binding import Owner

LOW_32 = 0xFFFFFFFF
LAST_BITS, LAST_24 = 24, 0xFFFFFF
"What is not in common in a network, and in a template."
MOST_NETWORK = 255
MOST_BIND_ID, MOST_NUMBER, MOST_WORDS = (1 << 31) - 1, (1 << 24) - 1, 255
"""What a held run has room for; a lease beyond that is kept as an object."""


def run_of(bind_id: int, number: int, words: int) -> int:
    """A held run."""
    return bind_id << 32 | number << 8 | words


def first_word(run: int) -> int:
    """The number of its first word."""
    return run >> 8 & MOST_NUMBER


def word_count(run: int) -> int:
    """How many words it has."""
    return run & MOST_WORDS


class Owners:
    """Who has registered or holds something.

    Args:
        known: Places and tags, from pinned maps, of owners that are not IPv4.
    """

    def __init__(self, known: Iterable[tuple[bytes, int]] = ()) -> None:
        self._known: dict[bytes, int] = {}
        self._networks: dict[tuple[int, int], int] = {}
        "Numbers, by realm and what the addresses have in common."
        self._common: dict[int, tuple[int, int]] = {}
        "The other way round."
        for place, tag in known:
            if tag <= LAST_24:
                self._known[place] = tag
            elif tag >> LAST_BITS not in self._common:
                realm, number = int.from_bytes(place[:4], "big"), int.from_bytes(place[4:], "big")
                self._join(tag >> LAST_BITS, (realm, number >> LAST_BITS))
        self._used = set(self._known.values())
        self._unused = (tag for tag in range(1, 1 << LAST_BITS) if tag not in self._used)
        self._free_networks = (each for each in range(1, MOST_NETWORK + 1) if each not in self._common)
        "Each is given once, lest somebody inherits what is remembered of another: whom he has written to."
        self._tags: dict[Owner, int] = {}
        self._named: dict[int, Owner] = {}
        "Of owners that have numbers."
        self._state: dict[int, int | tuple[int, ...]] = {}
        """By tag. Nearly always twice the held run, plus one if registered; of who has several runs: whether it has
        registered, then these."""
        self.held = 0
        "How many held runs there are."
        self._objects: Counter[int] = Counter()
        "By tag: bindings that are no held runs."

    def __len__(self) -> int:
        """How many there are."""
        return len(self._state)

    def __iter__(self) -> Iterator[int]:
        """Their tags."""
        return iter(self._state)

    def tag(self, owner: Owner) -> int:
        """The tag of an owner, whether or not there is one; 0 if it has none yet."""
        realm, (family, number) = owner
        if family is Family.IPV4:
            return realm << 32 | number
        numbered = self._tags.get(owner, 0) if self._tags else 0
        if numbered or family is not Family.IPV6:
            return numbered
        network = self._networks.get((realm, number >> LAST_BITS), 0)
        return network and network << LAST_BITS | number & LAST_24

    def owner(self, tag: int) -> Owner:
        """Whose tag that is."""
        if tag > LOW_32:
            return Owner(tag >> 32, Address(Family.IPV4, tag & LOW_32))
        if tag > LAST_24:
            realm, common = self._common[tag >> LAST_BITS]
            return Owner(realm, Address(Family.IPV6, common << LAST_BITS | tag & LAST_24))
        return self._named[tag]

    def network(self, realm: int, address: Address) -> int:
        """The number of the network of an IPv6 address, shifted as it stands in tags; 0: all have been given."""
        common = realm, address.number >> LAST_BITS
        number = self._networks.get(common, 0)
        if not number:
            number = next(self._free_networks, 0)
            if number:
                self._join(number, common)
        return number << LAST_BITS

    def _join(self, number: int, common: tuple[int, int]) -> None:
        self._networks[common], self._common[number] = number, common

    def of_network(self, number: int) -> tuple[int, int]:
        """Realm and first address of a network."""
        realm, common = self._common[number]
        return realm, common << LAST_BITS

    def is_known(self, tag: int) -> bool:
        """Whether it has registered or holds something."""
        return tag in self._state

    def is_registered(self, tag: int) -> bool:
        """Whether it has registered."""
        state = self._state.get(tag, 0)
        return bool(state & 1 if isinstance(state, int) else state[0])

    def register(self, owner: Owner, place: bytes, *, registered: bool) -> int:
        """Note whether an owner has registered; returns its tag, 0 if it has none."""
        tag = self._enter(owner, place) if registered else self.tag(owner)
        if tag in self._state:
            self._set(tag, registered, self.runs(tag))
            self._leave(tag)
        return tag

    def enter(self, owner: Owner, place: bytes) -> int:
        """Let an owner be known, who is going to hold something; returns the tag. ``leave`` takes it back."""
        return self._enter(owner, place)

    def leave(self, tag: int) -> None:
        """Forget who has not registered and holds nothing."""
        if tag in self._state:
            self._leave(tag)

    def hold(self, owner: Owner, place: bytes) -> int:
        """Note one more binding that is no held run; returns the tag."""
        tag = self._enter(owner, place)
        self._objects[tag] += 1
        return tag

    def release(self, tag: int) -> None:
        """Note one less."""
        self._objects[tag] -= 1
        if not self._objects[tag]:
            del self._objects[tag]
        self._leave(tag)

    def runs(self, tag: int) -> tuple[int, ...]:
        """The held runs of an owner."""
        state = self._state.get(tag, 0)
        if isinstance(state, int):
            return (state >> 1,) if state > 1 else ()
        return state[1:]

    def run(self, tag: int, bind_id: int) -> int:
        """That of a Bind ID; 0 if there is none."""
        state = self._state.get(tag, 0)
        if isinstance(state, int):
            return state >> 1 if state > 1 and state >> 33 == bind_id else 0
        return next((each for each in state[1:] if each >> 32 == bind_id), 0)

    def exchange(self, tag: int, before: int, after: int) -> None:
        """Let an owner hold another run; 0: none. Who was nobody becomes an owner, and the other way round."""
        self.held += (after > 0) - (before > 0)
        state = self._state.get(tag, 0)
        if isinstance(state, int) and state >> 1 == before:
            self._state[tag] = after << 1 | state & 1
        else:
            runs = [each for each in self.runs(tag) if each != before]
            self._set(tag, self.is_registered(tag), (*runs, after) if after else runs)
        if not after:
            self._leave(tag)

    def fill(self, tags: Iterable[int], states: Iterable[int], *, held: int) -> None:
        """Enter many that are not there: tags, twice the held run of each plus one if registered, and how many runs."""
        self.held += held
        self._state.update(zip(tags, states, strict=True))

    def columns(self) -> tuple[list[int], list[int]]:
        """Tags, and as far as it is one number what is known of each: twice the held run, plus one if registered."""
        states = [state if isinstance(state, int) else state[0] for state in self._state.values()]
        return list(self._state), states

    def states(self, tags: Iterable[int]) -> list[int]:
        """Of each tag twice its held run, plus one if registered; 0 for who has several runs, or anything else."""
        found = ((self._state.get(tag, 0), tag) for tag in tags)
        return [state if isinstance(state, int) and tag not in self._objects else 0 for state, tag in found]

    def end(self, tags: Iterable[int], *, registered: bool) -> None:
        """Let owners with at most one held run, and nothing else, have none, and be registered or not."""
        for tag in tags:
            self.held -= self._state[tag] not in (0, 1)
            if registered:
                self._state[tag] = 1
            else:
                del self._state[tag]

    def several(self) -> Iterator[int]:
        """Tags of who has several held runs."""
        return (tag for tag, state in self._state.items() if not isinstance(state, int))

    def settle(self) -> None:
        """Free what was known and nobody took."""
        self._used.difference_update(self._known.values())
        self._known = {}

    def _set(self, tag: int, registered: bool, runs: Iterable[int]) -> None:
        held = tuple(runs)
        if len(held) > 1:
            self._state[tag] = (int(registered), *held)
        else:
            self._state[tag] = (held[0] << 1 if held else 0) | registered

    def _enter(self, owner: Owner, place: bytes) -> int:
        tag = self.tag(owner)
        if not tag:
            tag = self._known.pop(place, 0) or self._new(owner)
            if tag <= LAST_24:
                self._used.add(tag)
                self._tags[owner] = tag
                self._named[tag] = owner
        self._state.setdefault(tag, 0)
        return tag

    def _new(self, owner: Owner) -> int:
        network = self.network(owner.realm, owner.address) if owner.address.family is Family.IPV6 else 0
        return network | owner.address.number & LAST_24 if network else next(self._unused)

    def _leave(self, tag: int) -> None:
        """Forget who has not registered and holds nothing."""
        if self._state[tag] == 0 and tag not in self._objects:
            del self._state[tag]
            owner = self._named.pop(tag, None)
            if owner is not None:
                del self._tags[owner]
