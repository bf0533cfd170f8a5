# SPDX-License-Identifier: BSD-3-Clause
"""A forwarding table for longest-prefix lookups, the same for flat IPv4 and for SIP.

Prefixes that nest are cut into ranges that do not: N prefixes make at most 2N + 1 ranges, each
of which knows its longest prefix. A lookup is one binary search among the ranges' beginnings,
as in the range tables of software routers (DXR). Keys are 64 bits for both kinds, so that a
difference in time is one of size and not of width.

::

    10.0.0.0/8    |-------------------- 0 --------------------|
    10.4.0.0/16               |-- 1 --|
    first         10.0.0.0    10.4.0.0 10.5.0.0                11.0.0.0
    route         0           1        0                       none
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
Lengths = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

NO_ROUTE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Prefixes, as the control plane has them; a route's number is its place.

    ``number`` is left as the family has it: 32 bits of IPv4, or 63 of SIP, because routes hold
    for both values of the C bit (spec 2.4).
    """

    number: Numbers
    length: Lengths
    bits: int
    "Width of an address."

    def __len__(self) -> int:
        """How many."""
        return len(self.number)

    def keys(self) -> set[tuple[int, int]]:
        """Every prefix as number and length, to compare tables by."""
        return set(zip(self.number.tolist(), self.length.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Ranges without gaps, in order."""

    first: Numbers
    "Where each begins."
    route: npt.NDArray[np.int32]
    "The longest prefix that covers it, or NO_ROUTE."

    @classmethod
    def of(cls, routes: Routes) -> Table:
        """Cut prefixes into ranges, painting the short ones first and the longer ones over them."""
        span = np.left_shift(np.uint64(1), (routes.bits - routes.length.astype(np.uint64)))
        end = routes.number + span
        first = np.unique(np.concatenate((np.zeros(1, np.uint64), routes.number, end)))
        begins, ends = np.searchsorted(first, routes.number), np.searchsorted(first, end)
        painted = np.full(len(first), NO_ROUTE, np.int32)
        for length in np.unique(routes.length):
            chosen = np.flatnonzero(routes.length == length)
            counts = ends[chosen] - begins[chosen]
            before = np.cumsum(counts) - counts
            places = np.repeat(begins[chosen] - before, counts) + np.arange(counts.sum())
            painted[places] = np.repeat(chosen, counts)
        return cls(first=first, route=painted)

    def lookup(self, addresses: Numbers) -> npt.NDArray[np.int32]:
        """Give the route of each address, or NO_ROUTE."""
        return self.route[np.searchsorted(self.first, addresses, side="right") - 1]

    @property
    def octets(self) -> int:
        """Memory that the table takes: 12 octets a range."""
        return self.first.nbytes + self.route.nbytes

    def lookup_seconds(self, addresses: Numbers) -> float:
        """Measure how long one lookup takes, in seconds, as the mean over all the addresses."""
        begun = time.perf_counter()
        self.lookup(addresses)
        return (time.perf_counter() - begun) / len(addresses)
