# SPDX-License-Identifier: BSD-3-Clause
"""From bindings to the entries and slice words that packets are looked up in.

Every *unit* - a slice of an address, a prefix, an SPI - is worked out anew from the
bindings and claims that touch it, so it passes from one right state to the next in one
write::

    slice, nothing but claims       word: CLAIMED, or SPLIT with the claimed ports in by_demux
    slice, one binding holds it,    word: endpoint, deadline
      no limit on the peer
    slice, anything else            word: SPLIT; by_demux holds every port that is held, and
                                    the claimed ones if the slice is claimed in part only
    prefix                          by_prefix: who holds it, or the shorter prefix around a claim
    SPI                             by_demux: who holds it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding
from isthmus.border.ranges import Ranges, merge
from isthmus.border.realm import Border
from isthmus.border.selector import Kind, Selector
from isthmus.errors import PlaneError
from isthmus.plane.kernel.maps import NOBODY, Codec, Standing
from isthmus.plane.kernel.number import Slots

_At = tuple[int, Prefix]
"Realm and address, the latter as a prefix of full length."
_Unit = tuple[int, Prefix, Kind | None, int]
"Realm, prefix, kind, number: of a slice within its address for ports, else the value."


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A binding, as the index sees it."""

    binding: Binding
    endpoint: int
    expires_at: float

    def standing(self, selector: Selector) -> Standing:
        """What the index says about one of its selectors."""
        return Standing(self.endpoint, self.expires_at, selector.remote)


_Whose = tuple[Held, Standing]
_Span = tuple[int, int, Held, Standing]
"First port, last port, whose."


@dataclass(slots=True)
class _Parts:
    """What is held or claimed of one address in part."""

    claims: Ranges = Ranges(())
    "Ports."
    spis: tuple[int, int] | None = None
    first_slice: int | None = None
    spans: dict[int, list[_Span]] = field(default_factory=dict)
    "By number of the slice within the address."
    values: dict[tuple[Kind, int], _Whose] = field(default_factory=dict)
    split: set[int] = field(default_factory=set)
    "Slices that have entries in ``by_demux``."
    held: int = 0
    "Selectors that hold something of it."


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
    ) -> None:
        """Enter the claims.

        Args:
            border: Claims and slice size.
            codec: Writes keys and values.
            slots: Room for slices.
            entry: Is told of each entry that changes; None: it goes.
            word: Is told of each slice word that changes.
            meant: Is told of each prefix that ``addresses`` or ``by_prefix`` has something of, before the entry.
        """
        self._codec, self._slots, self._entry, self._word, self._meant = codec, slots, entry, word, meant
        self._size = border.slice_size
        self._parts: dict[_At, _Parts] = {}
        self._bound: dict[_At, _Whose] = {}
        self._claimed: dict[int, list[Prefix]] = {}
        by_address: dict[_At, list[Selector]] = {}
        for claim in border.claims:
            by_address.setdefault((claim.realm, claim.local), []).append(claim)
        for (realm, local), claims in by_address.items():
            if any(claim.kind is None for claim in claims):
                self._claimed.setdefault(realm, []).append(local)
            self._claim(realm, local, [claim for claim in claims if claim.kind is not None])
        for realm, prefixes in self._claimed.items():
            for prefix in prefixes:
                self._refresh((realm, prefix, None, 0))

    def replace(self, before: Held | None, after: Held | None) -> None:
        """Let what one binding held be another's, or (None) nobody's; neither is ever missing in between."""
        units: dict[_Unit, None] = {}
        for each in (before, after):
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
            keys = ((selector.kind, value) for value in selector.values)
            yield from (parts.values[key][0] for key in keys if key in parts.values)
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
        spis = merge(claim.values for claim in claims if claim.kind is Kind.SPI).pairs
        if len(spis) > 1 or any(claim.kind is Kind.COOKIE for claim in claims):
            raise PlaneError(f"claims of {local.address}: the kernel plane knows ports and one range of SPIs")
        parts.spis = spis[0] if spis else None
        self._show_address((realm, local))
        for first, last in parts.claims.pairs:
            for number in range(first // self._size, last // self._size + 1):
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
            else:
                for value in each.values:
                    yield each.realm, each.local, each.kind, value

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
                for value in each.values:
                    parts.values.setdefault((each.kind, value), (held, standing))
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
                for value in each.values:
                    parts.values.pop((each.kind, value), None)

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
        if not parts.held and not parts.claims and parts.spis is None:
            self._entry("addresses", place, None)
            self._slots.give(place)
            del self._parts[at]
            return
        value = self._codec.address(parts.first_slice, self._slots.shift, held=parts.held > 0, spis=parts.spis)
        self._entry("addresses", place, value)

    # --- units ----------------------------------------------------------------------------

    def _refresh(self, unit: _Unit) -> None:
        realm, local, kind, number = unit
        if kind is None:
            self._refresh_prefix(realm, local)
        elif kind is Kind.PORT:
            self._refresh_slice(realm, local, number)
        else:
            found = self._parts[realm, local].values.get((kind, number))
            self._show(realm, local.address, kind, number, None if found is None else found[1])

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
        for port, each in entries.items():
            self._show(realm, local.address, Kind.PORT, port, each, claimed=port in claims)
        if parts.first_slice is not None:
            word = self._codec.split(claimed=whole) if entries else self._codec.word(standing or NOBODY, claimed=whole)
            self._word(parts.first_slice + number, word)
        if number in parts.split:
            for port in range(low, high + 1):
                if port not in entries:
                    self._show(realm, local.address, Kind.PORT, port, None)
        (parts.split.add if entries else parts.split.discard)(number)

    def _show(
        self, realm: int, local: Address, kind: Kind, value: int, standing: Standing | None, *, claimed: bool = False
    ) -> None:
        key = self._codec.demux_key(realm, local, kind, value)
        octets = None if standing is None else self._codec.binding(standing, local.family, claimed=claimed)
        self._entry("by_demux", key, octets)


def _alone(spans: list[_Span], low: int, high: int) -> Standing | None:
    """Whose a slice is, if it is one binding's and nothing but a word is needed to say so."""
    if len(spans) != 1 or spans[0][:2] != (low, high):
        return None
    remote = spans[0][3].remote
    return spans[0][3] if remote.network is None and remote.port is None else None
