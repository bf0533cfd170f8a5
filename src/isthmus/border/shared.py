# SPDX-License-Identifier: BSD-3-Clause
"""One address of a pool whose ports and SPIs are leased: what of it is free, and what of that is chosen."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.border.shortage import Shortage
from isthmus.border.slices import Slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPI_FIRST = 256
"""0 to 255 are reserved and never leased (RFC 4303 §2.1)."""
ALL_SPIS = Ranges(((SPI_FIRST, (1 << 32) - 1),))
"""Every SPI that a pool can have."""
_PORTS = 1 << 16
_DRAWS = 64
"""How many blocks of SPIs are tried at random before all of them are looked at."""
_FEW_BLOCKS = 1 << 16
"""All of them are looked at if there are no more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be had of one shared address."""

    ports: Ranges | int | None
    spis: Ranges | int | None
    identity: int | None

    @property
    def run(self) -> int | None:
        """How many of any ports, where nothing else is wanted."""
        return self.ports if isinstance(self.ports, int) and self.spis is self.identity is None else None


@dataclass(slots=True, kw_only=True)
class SharedAddress:
    """One shared address."""

    number: int
    "Its place among the others."
    slices: Slices
    spis_offered: Ranges
    ike: bool
    spis: set[int] = field(default_factory=set)
    "SPIs that are leased or resting."
    identities: set[int] = field(default_factory=set)
    "IKE initiators that are listened for."

    @property
    def ports(self) -> Ranges:
        """The ports that may be leased."""
        return self.slices.ports

    def claims(self, realm: int, address: Address) -> Iterator[Selector]:
        """Everything of the address that may be leased, as selectors for a table."""
        local = Prefix.of(address)
        if self.ports:
            yield Selector(realm=realm, local=local, kind=Kind.PORT, values=self.ports)
        if self.spis_offered:
            yield Selector(realm=realm, local=local, kind=Kind.SPI, values=self.spis_offered)
        if self.ike:
            yield Selector(realm=realm, local=local, kind=Kind.COOKIE)

    def choose(self, wanted: Wanted, rng: random.Random) -> Shortage | tuple[Ranges | None, Ranges | None]:
        """Ports and SPIs that this address could give, or why not."""
        ports: Ranges | None = None
        spis: Ranges | None = None
        if wanted.ports is not None:
            chosen = self._choose_ports(wanted.ports, rng)
            if isinstance(chosen, Shortage):
                return chosen
            ports = chosen
        if wanted.spis is not None:
            found = self._choose_spis(wanted.spis, rng)
            if isinstance(found, Shortage):
                return found
            spis = found
        if wanted.identity in self.identities:
            return Shortage.IDENTITY_IN_USE
        return ports, spis

    def take_runs(self, first: NDArray[np.int64], ports: NDArray[np.int64]) -> None:
        """Let runs of ports be free no more, whether they were or not.

        Args:
            first: The first port of each.
            ports: How many.
        """
        size = self.slices.slice_size
        whole = (first % size == 0) & (ports % size == 0)
        self.slices.take_slices(_spread(first[whole] // size, ports[whole] // size))
        for low, count in zip(first[~whole].tolist(), ports[~whole].tolist(), strict=True):
            self.slices.take(Ranges(((low, low + count - 1),)))

    def runs_to_rest(
        self, first: NDArray[np.int64], ports: NDArray[np.int64], until: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """What of runs that were given back is free, as runs; where they overlap the last one counts."""
        import numpy as np

        ends = np.zeros(_PORTS)
        ends[_spread(first, ports)] = np.repeat(until, ports)
        ends[~self.slices.free_ports()] = 0.0
        edges = np.flatnonzero(np.diff(ends)) + 1
        starts, stops = np.concatenate(([0], edges)), np.concatenate((edges, [_PORTS]))
        rests = ends[starts] > 0
        return starts[rests], (stops - starts)[rests], ends[starts[rests]]

    def _choose_ports(self, ports: Ranges | int, rng: random.Random) -> Shortage | Ranges:
        if isinstance(ports, int):
            first = self.slices.find(ports, rng)
            return Shortage.NO_PORTS if first is None else Ranges(((first, first + ports - 1),))
        if not self.ports.covers(ports):
            return Shortage.PORTS_NOT_OURS
        return ports if all(self.slices.is_free(port) for port in ports) else Shortage.PORTS_IN_USE

    def _choose_spis(self, spis: Ranges | int, rng: random.Random) -> Shortage | Ranges:
        if isinstance(spis, Ranges):
            if not self.spis_offered.covers(spis):
                return Shortage.SPI_NOT_OURS
            return spis if self.spis.isdisjoint(spis) else Shortage.SPI_IN_USE
        size = 1 << (spis - 1).bit_length()
        runs = [
            range(start, last - spis + 2, size)
            for first, last in self.spis_offered.pairs
            if (start := -(-first // size) * size) + spis - 1 <= last
        ]
        blocks = sum(map(len, runs))
        for number in self._order(blocks, rng):
            first = _item(runs, number)
            if self.spis.isdisjoint(range(first, first + spis)):
                return Ranges.of((first, first + spis - 1))
        return Shortage.NO_SPI

    @staticmethod
    def _order(blocks: int, rng: random.Random) -> Iterator[int]:
        """In which order to look at blocks: at random, and if there are few, at every one in the end."""
        if not blocks:
            return
        for _ in range(_DRAWS):
            yield rng.randrange(blocks)
        if blocks <= _FEW_BLOCKS:
            yield from rng.sample(range(blocks), blocks)


def within_spis(spis: Ranges) -> Ranges:
    """What of SPIs that are offered is not reserved."""
    return spis - (spis - ALL_SPIS)


def _item(runs: list[range], number: int) -> int:
    for run in runs:
        if number < len(run):
            return run[number]
        number -= len(run)
    raise IndexError(number)


def _spread(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every number of runs, one run after another."""
    import numpy as np

    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()), dtype=np.int64)
