# SPDX-License-Identifier: BSD-3-Clause
"""Very many plain leases at once: words, owners and holdings as columns. Imported where there are columns."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.border.binding import FOREVER, Binding, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Register
from isthmus.border.plain import Hosts, PlainLeases, whole_address
from isthmus.border.selector import Admit
from isthmus.plane.kernel import blocks as by_rule
from isthmus.plane.kernel.briefs import WORDS
from isthmus.plane.kernel.direct import CLAIMED, CONTACTED, DIRECT
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.loader import Map
from isthmus.plane.kernel.owners import LAST_24, LAST_BITS, LOW_32, MOST_BIND_ID, MOST_NUMBER, MOST_WORDS, Owners
from isthmus.plane.kernel.pinned import BLOCK_SLICES, BRIEF_SLICES

_U64 = NDArray[np.uint64]
_Mask = NDArray[np.bool_]
_RUN, _LAST = np.uint64(32), np.uint64(LAST_BITS)
_GENERATION = np.uint64(by_rule.GENERATION)
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
    hosts = [tags_of(image.owners, each.near, each.upper, each.address) for each in registered]
    for each, tags in zip(registered, hosts, strict=True):
        for owner in each.at(tags == 0).owners():
            image.apply(Register(registration=Registration(owner=owner, client_id=0, expires_at=FOREVER)))
    known = np.sort(np.concatenate(hosts)) if hosts else np.empty(0, np.uint64)
    known = known[known > 0]
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
    tags = tags_of(image.owners, group.near, group.upper, leases.owner)
    first = _first_slices(image, group.realm, leases.local)
    ports, low = leases.ports.astype(np.int64), leases.first.astype(np.int64)
    numbers, counts = first + (low >> shift), ports >> shift
    odd = (1 << shift) - 1
    mask: _Mask = (first >= 0) & (low & odd == 0) & (ports & odd == 0) & (counts > 0) & (counts <= MOST_WORDS)
    mask &= (numbers <= MOST_NUMBER) & (leases.bind_id <= MOST_BIND_ID) & _among(tags, known)
    narrow = [image.owners.tag(Owner(way.realm, way.remote)) for way in image.narrow]
    if narrow:
        mask &= ~_among(tags, np.sort(np.array(narrow, np.uint64)))
    mask &= _untouched(image, numbers, counts, mask)
    halves = np.zeros(len(leases), np.uint64)
    for common in np.unique(tags[mask] >> _LAST).tolist():
        chosen = mask & (tags >> _LAST == common)
        (number, *_) = leases.owner[chosen].tolist()
        remote = whole_address(group.upper, number)
        tunnel = Tunnel(realm=group.near, local=group.end, remote=remote, kind=group.kind, mtu=group.mtu)
        half = image.plain.take_template(tunnel, common << LAST_BITS, int(counts[chosen].sum()))
        if half is None:
            mask &= ~chosen
        else:
            halves[chosen] = (leases.owner[chosen].astype(np.uint64) & np.uint64(LAST_24)) << np.uint64(8)
            halves[chosen] |= np.uint64(half | (CONTACTED if group.admit is Admit.CONTACTED else 0))
    halves |= _deadlines(leases.expires_at, image.boot_offset) << np.uint64(32)
    wide, many = numbers[mask].astype(np.uint64), counts[mask].astype(np.uint64)
    runs = leases.bind_id[mask].astype(np.uint64) << _RUN | wide << np.uint64(8) | many
    return Fitting(tags[mask], runs, halves[mask], wide, many), mask


def tags_of(owners: Owners, near: int, upper: int, addresses: NDArray[np.uint32]) -> _U64:
    """The tags of owners whose addresses are these, or end so; 0 of those that have to be numbered one by one."""
    if not upper:
        return addresses.astype(np.uint64) | np.uint64(near << 32)
    tags = np.zeros(len(addresses), np.uint64)
    for common in np.unique(addresses >> LAST_BITS).tolist():
        network = owners.network(near, whole_address(upper, common << LAST_BITS))
        chosen = addresses >> LAST_BITS == common
        if network:
            tags[chosen] = addresses[chosen] & np.uint32(LAST_24) | np.uint64(network)
    return tags


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
    keys = owner_keys(image.owners, tags)
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
    one = (1).to_bytes(4, sys.byteorder)
    there = _sorted(np.frombuffer(_read(found)[0], HOLDING))
    if not len(there):
        return Difference(wanted.tobytes(), one * len(wanted), b"")
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


def owner_keys(owners: Owners, tags: _U64) -> NDArray[np.void]:
    """Keys of ``owners``."""
    keys = np.zeros(len(tags), OWNER)
    keys["realm"], keys["address"] = tags >> np.uint64(32), tags & np.uint64(LOW_32)
    octets, last = keys.view(np.uint8).reshape(-1, OWNER.itemsize), tags.astype(">u4").view(np.uint8).reshape(-1, 4)
    for network in np.unique(tags[tags <= LOW_32] >> _LAST).tolist():
        for at in np.flatnonzero(tags <= LAST_24).tolist() if not network else ():
            owner = owners.owner(int(tags[at]))
            octets[at] = list(owner.realm.to_bytes(4, "big") + owner.address.key_octets)
        if network:
            realm, first = owners.of_network(network)
            chosen = tags >> _LAST == network
            octets[chosen] = list(realm.to_bytes(4, "big") + first.to_bytes(16, "big"))
            octets[chosen, -3:] = last[chosen, -3:]
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


def write_words(wanted: array[int], memory: memoryview, briefs: memoryview, blocks: memoryview) -> None:
    """Let words, briefs and blocks in memory be those that are wanted; what is right already is not touched."""
    right = np.frombuffer(wanted, np.uint64)
    there = np.frombuffer(memory, np.uint64)[: len(right)]
    lines, pairs = np.frombuffer(briefs, np.uint32).reshape(-1, WORDS), np.frombuffer(blocks, np.uint64).reshape(-1, 2)
    told, ruled = np.zeros_like(lines), np.zeros_like(pairs)
    for all_of_them, made in ((told, briefs_of(right)), (ruled, blocks_of(right))):
        all_of_them[: len(made)] = made
    wrong = np.flatnonzero((lines != told).any(axis=1))
    ruled[:, 0] |= pairs[:, 0] & _GENERATION
    others = np.flatnonzero((pairs != ruled).any(axis=1))
    pairs[others, 1] = 0
    lines[wrong] = 0
    differ = np.flatnonzero(right != there)
    there[differ] = right[differ]
    lines[wrong] = told[wrong]
    later = pairs[others, 0] + np.uint64(1 << by_rule.GENERATION_AT) & _GENERATION
    pairs[others, 0] = ruled[others, 0] & ~_GENERATION | later
    pairs[others, 1] = ruled[others, 1]


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


def blocks_of(words: _U64) -> NDArray[np.uint64]:
    """Rules and followers of words, as ``blocks.block_of``."""
    count = -(-len(words) // BLOCK_SLICES)
    padded = np.zeros(count * BLOCK_SLICES, np.uint64)
    padded[: len(words)] = words
    found = np.zeros((count, 2), np.uint64)
    used = np.flatnonzero((padded & np.uint64(DIRECT)).reshape(count, BLOCK_SLICES).any(axis=1))
    # By slice, then by block: what is done for each slice is done for all blocks at once.
    of = np.ascontiguousarray(padded.reshape(count, BLOCK_SLICES)[used].T)
    halves = of.astype(np.uint32)
    direct = halves & np.uint32(DIRECT) > 0
    steps = _steps(halves, direct)
    apart = np.arange(BLOCK_SLICES, dtype=np.uint32)[:, None] >> steps << np.uint32(8)
    bases = halves - apart
    elected, votes = np.zeros(len(used), np.uint32), np.zeros(len(used), np.int8)
    for base, counts in zip(bases, direct, strict=True):
        elected = np.where(counts & (votes == 0), base, elected)
        votes += np.where(base == elected, counts, -counts.astype(np.int8))
    following = direct & (bases == elected)
    until = np.where(following, of >> np.uint64(by_rule.UNTIL_AT), np.uint64(LOW_32)).min(axis=0)
    rules = until << np.uint64(by_rule.UNTIL_AT) | steps.astype(np.uint64) << np.uint64(by_rule.STEP_AT) | elected
    octets = np.packbits(following, axis=0, bitorder="little")
    followers = np.ascontiguousarray(octets.T).view("<u8")[:, 0]
    any_of_them = followers > 0
    found[used[any_of_them], 0], found[used[any_of_them], 1] = rules[any_of_them], followers[any_of_them]
    return found


def _steps(halves: NDArray[np.uint32], direct: _Mask) -> NDArray[np.uint32]:
    """The step of each block: those of its words that equal their neighbours say which."""
    steps, most = np.zeros(halves.shape[1], np.uint32), direct.sum(axis=0, dtype=np.int32)
    going = np.ones(halves.shape[1], bool)
    for step in range(by_rule.MOST_STEP):
        rows = halves.reshape(BLOCK_SLICES >> step + 1, 2, 1 << step, halves.shape[1])
        equal = (rows[:, 0] == rows[:, 1]) & direct.reshape(rows.shape)[:, 0]
        going &= by_rule.FEW * 2 * equal.sum(axis=(0, 1), dtype=np.int32) > most
        if not going.any():
            break
        steps += going
    return steps
