# SPDX-License-Identifier: BSD-3-Clause
"""Places: which run of ports an address computes to, as deterministic NAT has it (RFC 7422), in an order kept secret.

A place is an aligned run of ports of a shared address. Places that follow one another within as many ports as 64
slices have, aligned to as many, are a group: what the kernel plane says by one rule (plane/kernel/blocks.py). The
groups of all addresses, in an order that a key draws, are laid end to end, and their places are numbered from 0. A
host's place is its address, as a number, plus an offset that the key draws as well, modulo how many places there are.

So hosts with consecutive addresses have consecutive places, but where a group ends; as many hosts as there are places
have a place each; and the same key gives the same places wherever and whenever they are worked out. Who does not know
the key learns from one host's place those of the others in its group, 63 at the most, and of all further hosts only
which place in its group each has, not which group.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import shake_256

from isthmus.border.ranges import Ranges

GROUP_SLICES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Laid:
    """The groups of places of one length, in their order."""

    addresses: array[int]
    "The number of the shared address of each."
    firsts: array[int]
    "Its first port."
    starts: array[int]
    "The number of its first place."
    count: int
    "How many places there are."
    offset: int


class Places:
    """The places of a pool, for runs of every length that is a power of two; laid out when first asked for."""

    __slots__ = ("_key", "_laid", "_offered", "_slice_size")

    def __init__(self, offered: Iterable[Ranges], slice_size: int, key: bytes | None = None) -> None:
        """Begin.

        Args:
            offered: The ports of each shared address that may be leased.
            slice_size: Ports of a slice, a power of two; shorter runs have no places.
            key: 32 random octets; None: the groups are in the order of their addresses and ports, and everybody
                can tell who has which.
        """
        self._offered = tuple(offered)
        self._slice_size = slice_size
        self._key = key
        self._laid: dict[int, _Laid] = {}

    def count(self, size: int) -> int:
        """How many places there are for runs of ``size`` ports, a power of two."""
        return self._of(size).count

    def find(self, number: int, size: int) -> tuple[int, int] | None:
        """The place that a number computes to.

        Args:
            number: An address, as a number.
            size: Length of the run, a power of two.

        Returns:
            The number of a shared address, and the first port of a run that it offers whole; None: no address offers
            so long a run, or it is less than a slice.
        """
        laid = self._of(size)
        if not laid.count:
            return None
        place = (number + laid.offset) % laid.count
        group = bisect_right(laid.starts, place) - 1
        return laid.addresses[group], laid.firsts[group] + (place - laid.starts[group]) * size

    def _of(self, size: int) -> _Laid:
        laid = self._laid.get(size)
        if laid is None:
            laid = self._laid[size] = self._lay_out(size)
        return laid

    def _lay_out(self, size: int) -> _Laid:
        offered = self._offered if size >= self._slice_size else ()
        cut = {ports: tuple(_groups(ports, size, GROUP_SLICES * self._slice_size)) for ports in set(offered)}
        groups = [(at, first, count) for at, ports in enumerate(offered) for first, count in cut[ports]]
        addresses, firsts, starts, total, offset = array("I"), array("H"), array("Q"), 0, 0
        if self._key is not None:
            *draws, last = _draw(self._key, size, len(groups) + 1)
            groups = [groups[nth] for _, nth in sorted(zip(draws, range(len(groups)), strict=True))]
            offset = last
        for at, first, count in groups:
            addresses.append(at)
            firsts.append(first)
            starts.append(total)
            total += count
        return _Laid(addresses=addresses, firsts=firsts, starts=starts, count=total, offset=offset)


def _groups(ports: Ranges, size: int, span: int) -> Iterator[tuple[int, int]]:
    """First port of each group within ports, and how many places it has.

    Args:
        ports: Of one address.
        size: Ports of a place.
        span: Ports of a group that is whole; one that is longer is one place.
    """
    span = max(span, size)
    for first, last in ports.pairs:
        start, end = -(-first // size) * size, (last + 1) // size * size
        for low in range(start // span * span, end, span):
            begin, stop = max(low, start), min(low + span, end)
            if begin < stop:
                yield begin, (stop - begin) // size


def _draw(key: bytes, size: int, count: int) -> Sequence[int]:
    """Numbers of 64 bits that nobody foresees who does not know the key (FIPS 202: SHAKE256 of key and length)."""
    octets = shake_256(key + size.to_bytes(4, "big")).digest(8 * count)
    return struct.unpack(f">{count}Q", octets)
