# SPDX-License-Identifier: BSD-3-Clause
"""Very many plain leases at once: words, owners and holdings as columns. Imported where there are columns."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.address import Address, Family
from isthmus.border.binding import FOREVER, Binding
from isthmus.border.crossing import Tunnel
from isthmus.border.plain import Hosts, PlainLeases
from isthmus.border.selector import Admit
from isthmus.plane.kernel.briefs import WORDS
from isthmus.plane.kernel.direct import CLAIMED, CONTACTED, DIRECT
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.loader import Map
from isthmus.plane.kernel.owners import LOW_32, MOST_BIND_ID, MOST_NUMBER, MOST_WORDS
from isthmus.plane.kernel.pinned import BRIEF_SLICES

_U64 = NDArray[np.uint64]
_Mask = NDArray[np.bool_]
_RUN = np.uint64(32)
HOLDING = np.dtype([("owner", "=u8"), ("realm", ">u4"), ("address", ">u4"), ("rest", "V16")])
"""A key of ``holdings``; ``maps.Codec`` has looked whether it is."""
OWNER = np.dtype([("realm", ">u4"), ("address", ">u4"), ("rest", "V12")])
"""A key of ``owners``."""
STATE = np.dtype([("tag", "=u8"), ("registered", "=u4"), ("padding", "=u4")])
"""What ``owners`` holds."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """Those of some leases that are direct words."""

    tags: _U64
    runs: _U64
    words: _U64
    "The word of each."
    numbers: _U64
    "Of the first word of each."
    counts: _U64


def fill(image: Image, plain: Sequence[PlainLeases], registered: Sequence[Hosts]) -> list[tuple[Binding, float]]:
    """Enter leases and hosts into an image that knows of none.

    Returns:
        Leases that have to be bound one by one: not of whole slices, of hosts that have not registered, and the like.
    """
    hosts = [each.address.astype(np.uint64) | np.uint64(each.near << 32) for each in registered]
    known = np.sort(np.concatenate(hosts)) if hosts else np.empty(0, np.uint64)
    left: list[tuple[Binding, float]] = []
    fitting: list[Fitting] = []
    for leases in plain:
        found, mask = _fitting(image, leases, known)
        fitting.append(found)
        # At once: what these hold no other group may have.
        _write(image, found.words, found.numbers, found.counts)
        if not mask.all():
            left += leases.at(~mask).bindings()
    tags, runs = (
        np.concatenate([getattr(each, name) for each in fitting] or [np.empty(0, np.uint64)])
        for name in ("tags", "runs")
    )
    _enter(image, known, tags, runs)
    return left


def _fitting(image: Image, leases: PlainLeases, known: _U64) -> tuple[Fitting, _Mask]:
    """Which leases are direct words, and what these are; templates are taken for them."""
    group, shift = leases.group, image.plain.shift
    tags = leases.owner.astype(np.uint64) | np.uint64(group.near << 32)
    first = _first_slices(image, group.realm, leases.local)
    ports, low = leases.ports.astype(np.int64), leases.first.astype(np.int64)
    numbers, counts = first + (low >> shift), ports >> shift
    odd = (1 << shift) - 1
    mask: _Mask = (first >= 0) & (low & odd == 0) & (ports & odd == 0) & (counts > 0) & (counts <= MOST_WORDS)
    mask &= (numbers <= MOST_NUMBER) & (leases.bind_id <= MOST_BIND_ID) & _among(tags, known)
    narrow = [way.realm << 32 | way.remote.number for way in image.narrow if way.remote.family is Family.IPV4]
    if narrow:
        mask &= ~_among(tags, np.sort(np.array(narrow, np.uint64)))
    mask &= _untouched(image, numbers, counts, mask)
    halves = np.zeros(len(leases), np.uint64)
    for octet in np.unique(leases.owner[mask] >> 24).tolist():
        chosen = mask & (leases.owner >> 24 == octet)
        remote = Address(Family.IPV4, octet << 24)
        tunnel = Tunnel(realm=group.near, local=group.end, remote=remote, kind=group.kind, mtu=group.mtu)
        half = image.plain.take_template(tunnel, int(counts[chosen].sum()))
        if half is None:
            mask &= ~chosen
        else:
            halves[chosen] = (leases.owner[chosen].astype(np.uint64) & np.uint64(0xFFFFFF)) << np.uint64(8)
            halves[chosen] |= np.uint64(half | (CONTACTED if group.admit is Admit.CONTACTED else 0))
    halves |= _deadlines(leases.expires_at, image.boot_offset) << np.uint64(32)
    wide, many = numbers[mask].astype(np.uint64), counts[mask].astype(np.uint64)
    runs = leases.bind_id[mask].astype(np.uint64) << _RUN | wide << np.uint64(8) | many
    return Fitting(tags[mask], runs, halves[mask], wide, many), mask


def _among(asked: _U64, known: _U64) -> _Mask:
    """Which numbers are among others, which are in order."""
    if not len(known):
        return np.zeros(len(asked), bool)
    found: _Mask = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
    return found


def _deadlines(expires_at: NDArray[np.float64], boot_offset: float) -> _U64:
    """As ``maps.Codec.deadline``."""
    seconds = np.clip(np.ceil(np.where(expires_at == FOREVER, 0.0, expires_at) - boot_offset), 0, LOW_32 - 1)
    return np.where(expires_at == FOREVER, LOW_32, seconds).astype(np.uint64)


def _first_slices(image: Image, realm: int, local: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The first slice of the address of each lease; -1: it has none."""
    addresses, which = np.unique(local, return_inverse=True)
    known = image.plain.addresses
    return np.array([known.get(realm << 32 | each, -1) for each in addresses.tolist()], np.int64)[which]


def _untouched(image: Image, numbers: NDArray[np.int64], counts: NDArray[np.int64], mask: _Mask) -> _Mask:
    """Which leases have slices that are claimed whole, and that no other has."""
    words = np.frombuffer(image.words, np.uint64)
    places, of = spread(numbers[mask], counts[mask])
    times = np.bincount(places, minlength=len(words))
    wrong = (words[places] != CLAIMED) | (times[places] > 1)
    found = mask.copy()
    found[np.flatnonzero(mask)[of[wrong]]] = False
    return found


def spread(numbers: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every word of leases, and which lease it is of."""
    of = np.repeat(np.arange(len(numbers)), counts)
    within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers[of] + within, of


def _write(image: Image, words: _U64, numbers: _U64, counts: _U64) -> None:
    places, of = spread(numbers.astype(np.int64), counts.astype(np.int64))
    np.frombuffer(image.words, np.uint64)[places] = words[of]


def _enter(image: Image, known: _U64, tags: _U64, runs: _U64) -> None:
    """Let the owners be registered and hold their runs."""
    one = np.uint64(1)
    order = np.argsort(tags, kind="stable")
    tags, runs = tags[order], runs[order]
    again = np.zeros(len(tags), bool)
    if len(tags):
        again[1:] = tags[1:] == tags[:-1]
    states = runs[~again] << one | one
    image.owners.fill(tags[~again].tolist(), states.tolist(), held=len(states))
    idle = known[~_among(known, tags)]
    image.owners.fill(idle.tolist(), [1] * len(idle), held=0)
    for tag, run in zip(tags[again].tolist(), runs[again].tolist(), strict=True):
        image.owners.exchange(tag, 0, run)


# --- what the maps hold ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """What to write into a map, and which keys to remove, each one after the other."""

    keys: bytes
    values: bytes
    stale: bytes


def owners(image: Image, found: Map) -> Difference:
    """Compare ``owners``."""
    tags, registered, _ = _states(image)
    wanted = np.zeros(len(tags), STATE)
    wanted["tag"], wanted["registered"] = tags, registered
    keys = owner_keys(tags)
    numbered = np.flatnonzero(tags <= LOW_32)
    for at in numbered.tolist():
        keys[at] = np.frombuffer(image.place_of(int(tags[at])), OWNER)[0]
    there, values = _read(found)
    shown = np.frombuffer(values, STATE)
    places, order = np.frombuffer(there, OWNER), np.argsort(shown["tag"], kind="stable")
    same = np.zeros(len(tags), bool)
    if len(order):
        nearest = order[np.minimum(np.searchsorted(shown["tag"][order], tags), len(order) - 1)]
        same = (shown[nearest] == wanted) & (places[nearest] == keys)
    stale = ~_among(shown["tag"], np.sort(tags))
    return Difference(keys[~same].tobytes(), wanted[~same].tobytes(), places[stale].tobytes())


def holdings(image: Image, found: Map) -> Difference:
    """Compare ``holdings``."""
    tags, _, runs = _states(image)
    held = runs > 0
    places = image.plain.places_of((runs[held] >> np.uint64(8) & np.uint64(MOST_NUMBER)).astype(np.int64))
    others = np.array(list(image.other_holdings()), np.uint64).reshape(-1, 2)
    wanted = _sorted(holding_keys(np.concatenate([tags[held], others[:, 0]]), np.concatenate([places, others[:, 1]])))
    there = _sorted(np.frombuffer(_read(found)[0], HOLDING))
    if there.tobytes() == wanted.tobytes():
        return Difference(b"", b"", b"")
    both = np.empty(len(there) + len(wanted), HOLDING)  # concatenate would turn network order into the machine's
    both[: len(there)], both[len(there) :] = there, wanted
    origin = np.arange(len(both)) >= len(there)
    order = np.lexsort((_place(both), both["owner"]))
    both, origin = both[order], origin[order]
    twice = np.zeros(len(both), bool)
    same = (both["owner"][1:] == both["owner"][:-1]) & (_place(both)[1:] == _place(both)[:-1])
    twice[1:] |= same
    twice[:-1] |= same
    fresh = both[~twice & origin]
    one = (1).to_bytes(4, sys.byteorder)
    return Difference(fresh.tobytes(), one * len(fresh), both[~twice & ~origin].tobytes())


def _sorted(keys: NDArray[np.void]) -> NDArray[np.void]:
    """Keys of ``holdings`` in order, each once."""
    keys = keys[np.argsort(keys["owner"])]
    if not bool((keys["owner"][1:] > keys["owner"][:-1]).all()):  # somebody holds something of several addresses
        keys = keys[np.lexsort((_place(keys), keys["owner"]))]
    once = np.ones(len(keys), bool)
    once[1:] = (keys["owner"][1:] != keys["owner"][:-1]) | (_place(keys)[1:] != _place(keys)[:-1])
    return keys[once]


def _place(keys: NDArray[np.void]) -> _U64:
    found: _U64 = keys["realm"].astype(np.uint64) << np.uint64(32) | keys["address"]
    return found


def owner_keys(tags: _U64) -> NDArray[np.void]:
    """Keys of ``owners`` for IPv4 owners."""
    keys = np.zeros(len(tags), OWNER)
    keys["realm"], keys["address"] = tags >> np.uint64(32), tags & np.uint64(LOW_32)
    return keys


def holding_keys(tags: _U64, places: _U64) -> NDArray[np.void]:
    """Keys of ``holdings``: tags, and realms and addresses."""
    keys = np.zeros(len(tags), HOLDING)
    keys["owner"], keys["realm"] = tags, places >> np.uint64(32)
    keys["address"] = places & np.uint64(LOW_32)
    return keys


def _states(image: Image) -> tuple[_U64, _Mask, _U64]:
    """Tags, whether registered, and the held run of who has one; of who has several ``other_holdings`` knows."""
    tags, states = image.owners.columns()
    found = np.array(states, np.uint64)
    one = np.uint64(1)
    return np.array(tags, np.uint64), (found & one).astype(bool), found >> one


def _read(found: Map) -> tuple[bytes, bytes]:
    keys, values = [], []
    for some, theirs in found.octets():
        keys.append(some)
        values.append(theirs)
    return b"".join(keys), b"".join(values)


def write_words(wanted: array[int], memory: memoryview, briefs: memoryview) -> None:
    """Let words and briefs in memory be those that are wanted; what is right already is not touched."""
    right = np.frombuffer(wanted, np.uint64)
    there = np.frombuffer(memory, np.uint64)[: len(right)]
    lines = np.frombuffer(briefs, np.uint32).reshape(-1, WORDS)
    told = np.zeros_like(lines)
    made = briefs_of(right)
    told[: len(made)] = made
    wrong = np.flatnonzero((lines != told).any(axis=1))
    lines[wrong] = 0
    differ = np.flatnonzero(right != there)
    there[differ] = right[differ]
    lines[wrong] = told[wrong]


def briefs_of(words: _U64) -> NDArray[np.uint32]:
    """The lines of words, as ``briefs.brief_of``."""
    padded = np.zeros(-(-len(words) // BRIEF_SLICES) * BRIEF_SLICES, np.uint64)
    padded[: len(words)] = words
    rows = padded.reshape(-1, BRIEF_SLICES)
    direct = rows & np.uint64(DIRECT) > 0
    lines = np.zeros((len(rows), WORDS), np.uint32)
    lines[:, 1:] = np.where(direct, rows & np.uint64(LOW_32), 0)
    least = np.where(direct, rows >> _RUN, np.uint64(LOW_32)).min(axis=1)
    lines[:, 0] = np.where(direct.any(axis=1), least, 0)
    return lines
