# SPDX-License-Identifier: BSD-3-Clause
"""Owners as the kernel plane knows them: their tags, whether they have registered, and what plain leases they hold.

A million hosts with a lease each are a dictionary of numbers. A *held run* is a plain lease in 63 bits::

    62       32 31              8 7      0
    | Bind ID  | first word      | words  |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from isthmus.address import Address, Family
from isthmus.border.binding import Owner

LOW_32 = 0xFFFFFFFF
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
        known: Tags by place, from pinned maps, of owners whose tags are numbers: those that are not IPv4.
    """

    def __init__(self, known: Mapping[bytes, int] | None = None) -> None:
        self._known = dict(known or {})
        self._used = set(self._known.values())
        self._unused = (tag for tag in range(1, 1 << 32) if tag not in self._used)
        self._tags: dict[Owner, int] = {}
        self._named: dict[int, Owner] = {}
        "Of owners that are not IPv4."
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
        if owner.address.family is Family.IPV4:
            return owner.realm << 32 | owner.address.number
        return self._tags.get(owner, 0)

    def owner(self, tag: int) -> Owner:
        """Whose tag that is."""
        named = self._named.get(tag)
        return named if named is not None else Owner(tag >> 32, Address(Family.IPV4, tag & LOW_32))

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
            known = self._known.pop(place, None)
            tag = next(self._unused) if known is None else known
            self._used.add(tag)
            self._tags[owner] = tag
            self._named[tag] = owner
        self._state.setdefault(tag, 0)
        return tag

    def _leave(self, tag: int) -> None:
        """Forget who has not registered and holds nothing."""
        if self._state[tag] == 0 and tag not in self._objects:
            del self._state[tag]
            owner = self._named.pop(tag, None)
            if owner is not None:
                del self._tags[owner]
