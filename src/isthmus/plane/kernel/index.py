# SPDX-License-Identifier: BSD-3-Clause
"""From bindings to the entries and slice words that packets are looked up in.

Every *unit* - a slice of an address, a prefix, a block of SPIs - is worked out anew from the
bindings and claims that touch it, so it passes from one right state to the next in one
write::

    slice, nothing but claims       word: CLAIMED, or SPLIT with the claimed ports in by_demux
    slice, one binding holds it,    word: endpoint, deadline
      no limit on the peer
    slice, anything else            word: SPLIT; by_demux holds every port that is held, and
                                    the claimed ones if the slice is claimed in part only
    prefix                          by_prefix: who holds it, or the shorter prefix around a claim
    aligned block of SPIs           by_spi: who holds it
    owner of SPIs of an address     by_demux, HOLDER: by which of its bindings it sends ESP and AH

Cookies are learned and identities are hashes; of both the address only says that there are any,
and the reference plane knows which.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey
from isthmus.border.crossing import Tunnel
from isthmus.border.ranges import Ranges, merge
from isthmus.border.realm import Border, End
from isthmus.border.selector import Kind, Selector
from isthmus.errors import PlaneError
from isthmus.plane.kernel.maps import NOBODY, Claimed, Codec, Standing
from isthmus.plane.kernel.number import Slots

_At = tuple[int, Prefix]
"Realm and address, the latter as a prefix of full length."
_Unit = tuple[int, Prefix, int | None, int]
"""Realm, prefix, kind, number: of a slice within its address for ports, the owner's tag for HOLDER; for SPIs their
first, and 2^32 times the length of what a block has in common."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A binding, as the index sees it."""

    binding: Binding
    endpoint: int
    expires_at: float
    tag: int
    "Of its owner."

    def standing(self, selector: Selector) -> Standing:
        """What the index says about one of its selectors."""
        route = not isinstance(self.binding.crossing, Tunnel)
        return Standing(self.endpoint, self.expires_at, selector.remote, route=route)


MOST_BLOCKS = 1 << 12
"""Most aligned blocks that the SPIs of one selector may need: each is an entry of its own."""
_Whose = tuple[Held, Standing]
_Span = tuple[int, int, Held, Standing]
"First port, last port, whose."


@dataclass(slots=True)
class _Parts:
    """What is held or claimed of one address in part."""

    claims: Ranges = Ranges(())
    "Ports."
    spis: Ranges = Ranges(())
    "Claimed."
    cookies: int = 0
    "Selectors of kinds that the reference plane looks at."
    first_slice: int | None = None
    spans: dict[int, list[_Span]] = field(default_factory=dict)
    "By number of the slice within the address."
    values: dict[Kind, list[tuple[int, int]]] = field(default_factory=dict)
    "First and last, ascending."
    whose: dict[tuple[Kind, int], Held] = field(default_factory=dict)
    "By the first."
    blocks: dict[int, Standing] = field(default_factory=dict)
    split: set[int] = field(default_factory=set)
    "Slices that have entries in ``by_demux``."
    holders: dict[int, dict[BindingKey, Standing]] = field(default_factory=dict)
    "Bindings with SPIs, by their owner's tag; at a host also all of them, by 0: there the first owner counts."
    held: int = 0
    "Selectors that hold something of it."
    claimed: bool = False


class Index:
    """Which entries follow from which bindings."""

    def __init__(
        self,
        border: Border,
        codec: Codec,
        slots: Slots,
        *,
        entry: Callable[[str, bytes, bytes | None], None],
        word: Callable[[int, int], None],
        meant: Callable[[Prefix], None],
        claimed: Callable[[int, Address, int, tuple[int, int]], None],
    ) -> None:
        """Enter the claims.

        Args:
            border: Claims and slice size.
            codec: Writes keys and values.
            slots: Room for slices.
            entry: Is told of each entry that changes; None: it goes.
            word: Is told of each slice word that changes.
            meant: Is told of each prefix that ``addresses`` or ``by_prefix`` has something of, before the entry.
            claimed: Is told of each address of a gateway that pools claim ports of: realm, address, first slice, and
                the words (the first, how many) of the longest run of slices claimed whole: they are told so only.
        """
        self._tell_claimed = claimed
        self._codec, self._slots, self._entry, self._word, self._meant = codec, slots, entry, word, meant
        self._size = border.slice_size
        self._hosts = {realm.number for realm in border.realms if realm.end is End.HOST}
        self._parts: dict[_At, _Parts] = {}
        self._bound: dict[_At, _Whose] = {}
        self._claimed: dict[int, list[Prefix]] = {}
        by_address: dict[_At, list[Selector]] = {}
        for claim in border.claims:
            by_address.setdefault((claim.realm, claim.local), []).append(claim)
        # In the order of addresses, so that neighbours have neighbouring slices.
        for (realm, local), claims in sorted(by_address.items(), key=lambda each: (each[0][0], each[0][1].address)):
            if any(claim.kind is None for claim in claims):
                self._claimed.setdefault(realm, []).append(local)
            self._claim(realm, local, [claim for claim in claims if claim.kind is not None])
        for realm, prefixes in self._claimed.items():
            for prefix in prefixes:
                self._refresh((realm, prefix, None, 0))

    def replace(self, before: Held | None, after: Held | None) -> None:
        """Let what one binding held be another's, or (None) nobody's; neither is ever missing in between."""
        units: dict[_Unit, None] = {}
        for each in (after, before):
            if each is not None:
                units |= dict.fromkeys(self._units(each))
        if before is not None:
            self._unlink(before)
        if after is not None:
            self._link(after)
        for unit in units:
            self._refresh(unit)
        if before is not None:
            for at in {(each.realm, each.local): None for each in before.binding.selectors if each.kind is not None}:
                self._show_address(at)

    def conflict(self, binding: Binding) -> Selector | None:
        """The first selector of a binding that another one holds any of, as ``BindingTable.holder`` would say."""
        for each in binding.selectors:
            if any(held.binding.key != binding.key for held in self._holders(each)):
                return each
        return None

    # --- bindings and claims --------------------------------------------------------------

    def _holders(self, selector: Selector) -> Iterator[Held]:
        at = (selector.realm, selector.local)
        if selector.kind is None:
            if at in self._bound:
                yield self._bound[at][0]
            return
        parts = self._parts.get(at)
        if parts is None:
            return
        if selector.kind is not Kind.PORT:
            spans = parts.values.get(selector.kind, [])
            for low, high in selector.values.pairs:
                # They are disjoint and ascending: from the last that begins at or before "high" back to "low".
                for first, last in reversed(spans[: bisect_right(spans, high, key=lambda pair: pair[0])]):
                    if last < low:
                        break
                    yield parts.whose[selector.kind, first]
            return
        for first, last in selector.values.pairs:
            for number in range(first // self._size, last // self._size + 1):
                for low, high, held, _ in parts.spans.get(number, ()):
                    if low <= last and high >= first:
                        yield held

    def _claim(self, realm: int, local: Prefix, claims: list[Selector]) -> None:
        """Enter what pools claim of an address in part."""
        if not claims:
            return
        parts = self._part((realm, local))
        parts.claims = merge(claim.values for claim in claims if claim.kind is Kind.PORT)
        parts.spis = merge(claim.values for claim in claims if claim.kind is Kind.SPI)
        parts.claimed = True
        self._show_address((realm, local))
        told = range(0)
        if parts.first_slice is not None and parts.claims and realm not in self._hosts:
            spans = (range(-(-first // self._size), (last + 1) // self._size) for first, last in parts.claims.pairs)
            told = max(spans, key=len)
            self._tell_claimed(realm, local.address, parts.first_slice, (parts.first_slice + told.start, len(told)))
        for first, last in parts.claims.pairs:
            for number in range(first // self._size, last // self._size + 1):
                if number not in told:
                    self._refresh((realm, local, Kind.PORT, number))

    def _units(self, held: Held) -> Iterator[_Unit]:
        """What a binding touches."""
        for each in held.binding.selectors:
            if each.kind is None:
                yield each.realm, each.local, None, 0
                for claim in self._claimed.get(each.realm, ()):
                    if each.local.covers(claim):
                        yield each.realm, claim, None, 0
            elif each.kind is Kind.PORT:
                for first, last in each.values.pairs:
                    for number in range(first // self._size, last // self._size + 1):
                        yield each.realm, each.local, Kind.PORT, number
            elif each.kind is Kind.SPI:
                for block in blocks(each.values):
                    yield each.realm, each.local, each.kind, block
                for tag in self._tags(each, held):
                    yield each.realm, each.local, self._codec.holder, tag

    def _tags(self, selector: Selector, held: Held) -> tuple[int, ...]:
        """Under which numbers a selector's holder stands."""
        return (held.tag, 0) if selector.realm in self._hosts else (held.tag,)

    def _link(self, held: Held) -> None:
        for each in held.binding.selectors:
            at, standing = (each.realm, each.local), held.standing(each)
            if each.kind is None:
                self._bound.setdefault(at, (held, standing))
                continue
            parts = self._part(at)
            parts.held += 1
            if each.kind is Kind.PORT:
                for number, span in self._spans(each, held):
                    parts.spans.setdefault(number, []).append(span)
            else:
                for pair in each.values.pairs:
                    insort(parts.values.setdefault(each.kind, []), pair)
                    parts.whose[each.kind, pair[0]] = held
            if each.kind in _ASKED:
                parts.cookies += 1
            elif each.kind is Kind.SPI:
                parts.blocks |= dict.fromkeys(blocks(each.values), standing)
                for tag in self._tags(each, held):
                    parts.holders.setdefault(tag, {})[held.binding.key] = standing
            self._show_address(at)

    def _unlink(self, held: Held) -> None:
        for each in held.binding.selectors:
            at = (each.realm, each.local)
            if each.kind is None:
                self._bound.pop(at, None)
                continue
            parts = self._parts[at]
            parts.held -= 1
            if each.kind is Kind.PORT:
                for number, span in self._spans(each, held):
                    parts.spans[number].remove(span)
                    if not parts.spans[number]:
                        del parts.spans[number]
            else:
                for pair in each.values.pairs:
                    parts.values[each.kind].remove(pair)
                    parts.whose.pop((each.kind, pair[0]), None)
            if each.kind in _ASKED:
                parts.cookies -= 1
            elif each.kind is Kind.SPI:
                for block in blocks(each.values):
                    parts.blocks.pop(block, None)
                for tag in self._tags(each, held):
                    parts.holders[tag].pop(held.binding.key, None)
                    if not parts.holders[tag]:
                        del parts.holders[tag]

    def _spans(self, selector: Selector, held: Held) -> Iterator[tuple[int, _Span]]:
        standing = held.standing(selector)
        for first, last in selector.values.pairs:
            for number in range(first // self._size, last // self._size + 1):
                low = max(first, number * self._size)
                yield number, (low, min(last, number * self._size + self._size - 1), held, standing)

    def _part(self, at: _At) -> _Parts:
        if at not in self._parts:
            self._meant(at[1])
            first = self._slots.take(self._codec.place(at[0], at[1].address))
            self._parts[at] = _Parts(first_slice=first)
        return self._parts[at]

    def _show_address(self, at: _At) -> None:
        """Write what ``addresses`` says of an address; forget one of which nothing is held or claimed."""
        parts = self._parts[at]
        place = self._codec.place(at[0], at[1].address)
        if not parts.held and not parts.claimed:
            self._entry("addresses", place, None)
            self._slots.give(place)
            del self._parts[at]
            return
        spis = parts.spis.pairs
        value = self._codec.address(
            parts.first_slice,
            self._slots.shift,
            held=parts.held > 0,
            cookies=parts.cookies > 0,
            claimed=(Claimed.NOTHING, Claimed.ALL, Claimed.SOME)[min(len(spis), 2)],
            spis=(spis[0][0], spis[-1][1]) if spis else (0, 0),
        )
        self._entry("addresses", place, value)

    # --- units ----------------------------------------------------------------------------

    def _refresh(self, unit: _Unit) -> None:
        realm, local, kind, number = unit
        if kind is None:
            self._refresh_prefix(realm, local)
        elif kind is Kind.PORT:
            self._refresh_slice(realm, local, number)
        elif kind is Kind.SPI:
            standing = self._parts[realm, local].blocks.get(number)
            key = self._codec.spi_key(realm, local.address, number & _SPI, number >> 32)
            self._show("by_spi", key, local, standing)
        else:
            holders = self._parts[realm, local].holders.get(number, {})
            self._show("by_demux", self._codec.demux_key(realm, local.address, kind, number), local, _by_right(holders))

    def _refresh_prefix(self, realm: int, local: Prefix) -> None:
        claims = self._claimed.get(realm, [])
        found = self._bound.get((realm, local))
        standing = None if found is None else found[1]
        if standing is None and local in claims:
            standing = self._around(realm, local)
        value = None
        if standing is not None:
            claimed = any(claim.covers(local) for claim in claims)
            value = self._codec.binding(standing, local.family, claimed=claimed)
            if claimed or not standing.route:
                self._meant(local)
        self._entry("by_prefix", self._codec.prefix_key(realm, local), value)

    def _around(self, realm: int, local: Prefix) -> Standing:
        """Who holds the longest prefix around one."""
        bits = local.family.bits
        for length in range(local.length - 1, -1, -1):
            number = local.address.number >> (bits - length) << (bits - length)
            found = self._bound.get((realm, Prefix(Address(local.family, number), length)))
            if found is not None:
                return found[1]
        return NOBODY

    def _refresh_slice(self, realm: int, local: Prefix, number: int) -> None:
        parts = self._parts[realm, local]
        low, high = number * self._size, number * self._size + self._size - 1
        claims = Ranges.of((low, high)) - (Ranges.of((low, high)) - parts.claims)
        sliced = parts.first_slice is not None
        whole = sliced and len(claims) == self._size
        spans = parts.spans.get(number, [])
        standing = NOBODY if not spans and (whole or not claims) else _alone(spans, low, high)
        entries: dict[int, Standing] = {}
        if standing is None or not sliced:
            if not whole:
                entries |= dict.fromkeys(claims, NOBODY)
            for first, last, _, each in reversed(spans):
                entries |= dict.fromkeys(range(first, last + 1), each)
        filled = _filled(spans, self._size) if entries else set()
        for port, each in entries.items():
            key = self._codec.demux_key(realm, local.address, Kind.PORT, port)
            octets = self._codec.binding(
                each, local.family, claimed=port in claims, port=True, in_slice=each.endpoint in filled
            )
            self._entry("by_demux", key, octets)
        if parts.first_slice is not None:
            word = self._codec.split(claimed=whole) if entries else self._codec.word(standing or NOBODY, claimed=whole)
            self._word(parts.first_slice + number, word)
        if number in parts.split:
            for port in range(low, high + 1):
                if port not in entries:
                    self._entry("by_demux", self._codec.demux_key(realm, local.address, Kind.PORT, port), None)
        (parts.split.add if entries else parts.split.discard)(number)

    def _show(self, table: str, key: bytes, local: Prefix, standing: Standing | None) -> None:
        octets = None if standing is None else self._codec.binding(standing, local.family, claimed=False)
        self._entry(table, key, octets)


_SPI = 0xFFFFFFFF
_ASKED = frozenset({Kind.COOKIE, Kind.IDENTITY})
"Kinds that only the reference plane looks at."


def check(binding: Binding) -> None:
    """Refuse what the maps cannot hold.

    Raises:
        PlaneError: says what.
    """
    if not isinstance(binding.crossing, Tunnel) and (len(binding.selectors) > 1 or binding.selectors[0].kind):
        raise PlaneError(f"binding {binding.key} selects by more than a prefix, which IPAE does not")
    for selector in binding.selectors:
        if selector.kind is Kind.SPI and sum(1 for _ in islice(blocks(selector.values), MOST_BLOCKS + 1)) > MOST_BLOCKS:
            raise PlaneError(f"binding {binding.key} holds SPIs in more than {MOST_BLOCKS} aligned blocks")


def blocks(spis: Ranges) -> Iterator[int]:
    """Cut ranges of SPIs into aligned blocks, each as the number of a unit, fewest first to last."""
    for first, last in spis.pairs:
        at = first
        while at <= last:
            bits = min((at & -at).bit_length() - 1 if at else 32, (last - at + 1).bit_length() - 1)
            yield (32 - bits) << 32 | at
            at += 1 << bits


def _by_right(holders: Mapping[BindingKey, Standing]) -> Standing | None:
    """By which of an owner's bindings it sends from an address: ``BindingTable.lookup_holder``, for every peer."""
    first = min((key.owner for key in holders), default=None)
    youngest = [holders[key] for key in sorted(holders, reverse=True) if key.owner == first]
    for each in youngest:
        if each.remote.network is None:
            return each
    if len(youngest) > 1:
        return replace(youngest[0], ask=True)
    return youngest[0] if youngest else None


def _filled(spans: list[_Span], size: int) -> set[int]:
    """Endpoints of bindings that hold a slice of so many ports whole."""
    held: dict[BindingKey, int] = {}
    for first, last, each, _ in spans:
        held[each.binding.key] = held.get(each.binding.key, 0) + last - first + 1
    return {each.endpoint for _, _, each, _ in spans if held[each.binding.key] == size}


def _alone(spans: list[_Span], low: int, high: int) -> Standing | None:
    """Whose a slice is, if it is one binding's and nothing but a word is needed to say so."""
    if len(spans) != 1 or spans[0][:2] != (low, high):
        return None
    remote = spans[0][3].remote
    return spans[0][3] if remote.network is None and remote.port is None else None
