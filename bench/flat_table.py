# SPDX-License-Identifier: BSD-3-Clause
"""A flat mapping table as large as the routing tables of today: a million IPv4 prefixes, each with a site."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from border_router import HOSTS, OWN
from isthmus.address import Address, Family, upper_text
from isthmus.border.mapping import C_BIT, Mapping, Words, reserved

LENGTHS = {
    23: 0.10, 22: 0.115, 21: 0.05, 20: 0.045, 19: 0.027, 18: 0.015, 17: 0.009, 16: 0.014,
    15: 0.0022, 14: 0.0013, 13: 0.0007, 12: 0.0004, 11: 0.0002, 10: 0.00009, 9: 0.00004, 8: 0.00001, 32: 0.02,
}  # fmt: skip
"""Share of prefixes by length, about as in the default-free zone, and single hosts that have moved. The rest: /24."""
SITES = 75_000
"""Sites that the prefixes belong to: about as many as there are autonomous systems."""
_SEED = 8507


def flat_table(entries: int) -> Mapping:
    """So many entries, always the same ones. None is of the border router's own site."""
    draw = np.random.default_rng(_SEED)
    numbers: list[Words] = []
    lengths: list[NDArray[np.uint8]] = []
    for length in (*LENGTHS, 24):
        blocks = 1 << length
        wanted = int(entries * LENGTHS[length]) if length in LENGTHS else entries - sum(map(len, numbers))
        first = np.unique(draw.integers(0, blocks, wanted + wanted // 2 + 64, dtype=np.int64)) << (32 - length)
        first = draw.permutation(first[_is_elsewhere(first, length)])[:wanted]
        numbers.append(first.astype(np.uint32))
        lengths.append(np.full(len(first), length, np.uint8))
    sites = draw.integers(1 << 24, 127 << 24, SITES, dtype=np.uint32) | np.uint32(C_BIT)
    sites = sites[~reserved(sites) & (sites != (OWN.address.upper | C_BIT))]
    number, length = np.concatenate(numbers), np.concatenate(lengths)
    return Mapping.from_arrays(number, length, sites[draw.integers(0, len(sites), len(number))])


def _is_elsewhere(first: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Which prefixes hold unicast addresses only, and none of the border router's own site."""
    last = first + (1 << (32 - length)) - 1
    fine = (first >= 1 << 24) & (last < 224 << 24)
    own = HOSTS.address.number
    for begin, end in ((127 << 24, (128 << 24) - 1), (own, own + (1 << (32 - HOSTS.length)) - 1)):
        fine &= (last < begin) | (first > end)
    return fine


def some_of(mapping: Mapping, number: int) -> Words:
    """Addresses that it maps: any of any entry, in an order that caches do not foresee."""
    draw = np.random.default_rng(_SEED + 1)
    which = draw.integers(0, len(mapping), number)
    hosts = (np.uint64(1) << (np.uint64(32) - mapping.lengths[which].astype(np.uint64))) - np.uint64(1)
    within = draw.integers(0, 1 << 32, number, dtype=np.uint64) & hosts
    found: Words = (mapping.numbers[which].astype(np.uint64) | within).astype(np.uint32)
    return found


def moved(mapping: Mapping, number: int) -> Mapping:
    """The same table after so many of its prefixes have got the sites of others."""
    draw = np.random.default_rng(_SEED + 2)
    uppers = mapping.uppers.copy()
    which = draw.choice(len(mapping), number, replace=False)
    uppers[which] = np.where(uppers[which] == uppers[0], uppers[-1], uppers[0])
    return Mapping.from_arrays(mapping.numbers, mapping.lengths, uppers)


def ten_of(mapping: Mapping) -> Mapping:
    """Ten /24 of it that lie apart."""
    at = np.flatnonzero(mapping.lengths == 24)
    at = at[:: len(at) // 10][:10]
    return Mapping.from_arrays(mapping.numbers[at], mapping.lengths[at], mapping.uppers[at])


def text(mapping: Mapping) -> bytes:
    """The table as a mapping file."""
    names = {upper: upper_text(upper) for upper in np.unique(mapping.uppers).tolist()}
    columns = mapping.numbers.tolist(), mapping.lengths.tolist(), mapping.uppers.tolist()
    rows = (
        f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255}/{length} {names[upper]}\n"
        for a, length, upper in zip(*columns, strict=True)
    )
    return "".join(rows).encode()


def addresses(numbers: Words) -> list[Address]:
    """The same as values."""
    return [Address(Family.IPV4, number) for number in numbers.tolist()]
