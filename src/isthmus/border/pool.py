# SPDX-License-Identifier: BSD-3-Clause
"""Pools: choosing, resting and giving back what is leased (RFC 3102 §2, §6.1; spec 10).

A pool holds whole addresses (RSA-IP), and shared addresses whose ports and SPIs are
handed out (RSAP-IP, RSIPSEC). One address is never leased both ways. "Any n ports" is
answered with n consecutive ports that begin at a multiple of the next power of two, all
or nothing (RFC 3103 §9.8.3), at random among the free ones, on an address that the host
already uses if there is one. What is given back rests before anybody gets it again, so
that packets still under way for the old holder never reach the new one.

The pool has a seed and no clock: the same calls give the same answers.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from isthmus.address import Address, Prefix
from isthmus.border.binding import Owner
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.errors import IsthmusError

T = TypeVar("T")

SPI_FIRST = 256
"""0 to 255 are reserved and never leased (RFC 4303 §2.1)."""
_SPI_END = 1 << 32
_DRAWS = 8
"""How many split slices are looked into before an open one is split."""
_NONE: frozenset[int] = frozenset()


class Shortage(enum.Enum):
    """Why a pool says no."""

    ADDRESS_NOT_OURS = "the address is not in the pool, or not to be had in this way"
    ADDRESS_IN_USE = "the address is held by somebody else, or resting"
    PORTS_NOT_OURS = "some of the ports are not in the pool"
    PORTS_IN_USE = "some of the ports are held by somebody else, or resting"
    NO_ADDRESS = "no address is free"
    NO_PORTS = "no address has that many ports free"
    SPI_NOT_OURS = "some of the SPIs are reserved"
    SPI_IN_USE = "some of the SPIs are held by somebody else, or resting"
    NO_SPI = "no SPIs are free"
    QUOTA = "the host holds as much as it may"


class PoolError(IsthmusError):
    """The pool cannot give what was asked for; nothing was changed."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(shortage.value)
        self.shortage = shortage


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What one lease holds of one address."""

    realm: int
    address: Address
    ports: Ranges | None = None
    "None with ``spis`` None: the whole address."
    spis: Ranges | None = None

    @property
    def whole(self) -> bool:
        """Whether the address is held whole."""
        return self.ports is None and self.spis is None

    def __str__(self) -> str:
        """``149.112.240.55 ports 10000-10063``."""
        parts = [str(self.address)]
        if self.ports is not None:
            parts.append(f"ports {self.ports}")
        if self.spis is not None:
            parts.append(f"SPIs {self.spis}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that one host may hold at a time (RFC 3103 §11)."""

    bindings: int = 64
    ports: int = 4096
    addresses: int = 4
    "Whole addresses."
    spis: int = 256


class _Bag(Generic[T]):
    """A set from which a random member can be drawn without looking at all of them."""

    __slots__ = ("_at", "_items")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._at = {item: at for at, item in enumerate(self._items)}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._at

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def add(self, item: T) -> None:
        if item not in self._at:
            self._at[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: T) -> None:
        at = self._at.pop(item, None)
        if at is not None:
            last = self._items.pop()
            if at < len(self._items):
                self._items[at] = last
                self._at[last] = at

    def draw(self, rng: random.Random) -> T:
        return rng.choice(self._items)


@dataclass(slots=True)
class _Shared:
    """The ports of one shared address, kept by aligned slice.

    A slice is *open* (free whole, its ports are not listed), *split* (some of its ports
    are in ``free``) or used up. The odd ports at the edges of the pool's ranges are split
    slices as well, which never become open.
    """

    ports: Ranges
    slice_size: int
    open: _Bag[int] = field(default_factory=_Bag)
    "First ports of slices that are free whole."
    free: dict[int, set[int]] = field(default_factory=dict)
    "First port of a split slice, to its free ports; never empty."
    split: _Bag[int] = field(default_factory=_Bag)
    "The keys of ``free``."
    spis: set[int] = field(default_factory=set)
    "SPIs that are leased or resting."

    def fill(self) -> None:
        aligned = list(self.ports.blocks(self.slice_size))
        self.open = _Bag(aligned)
        self._put(self.ports - Ranges.of(*((first, first + self.slice_size - 1) for first in aligned)))

    def __len__(self) -> int:
        return len(self.open) * self.slice_size + sum(map(len, self.free.values()))

    def is_free(self, port: int) -> bool:
        first = port & -self.slice_size
        return first in self.open or port in self.free.get(first, ())

    def take(self, ports: Ranges) -> None:
        for first, low, high in self._slices(ports):
            if first in self.open:
                self.open.discard(first)
                rest = {*range(first, low), *range(high + 1, first + self.slice_size)}
            else:
                rest = self.free.get(first, set()).difference(range(low, high + 1))
            self._set(first, rest)

    def give(self, ports: Ranges) -> None:
        self._put(ports - (ports - self.ports))

    def find(self, count: int, rng: random.Random) -> int | None:
        """First of ``count`` consecutive free ports, aligned to the next power of two.

        Split slices are used before open ones, but not all of them are searched while there
        are open ones: a few draws find room if there is much.
        """
        size = 1 << (count - 1).bit_length()
        if size > self.slice_size:
            return self._find_long(count, size, rng)
        if size < self.slice_size and self.split:
            for _ in range(_DRAWS):
                starts = self._starts(self.split.draw(rng), count, size)
                if starts:
                    return rng.choice(starts)
        if self.open:
            return self.open.draw(rng)
        starts = [start for first in sorted(self.split) for start in self._starts(first, count, size)]
        return rng.choice(starts) if starts else None

    def _find_long(self, count: int, size: int, rng: random.Random) -> int | None:
        for _ in range(_DRAWS if self.open else 0):
            start = self.open.draw(rng) & -size
            if self._has_room(start, count):
                return start
        starts = sorted({first & -size for first in self.open})
        rng.shuffle(starts)
        return next((start for start in starts if self._has_room(start, count)), None)

    def _starts(self, first: int, count: int, size: int) -> list[int]:
        free = self.free[first]
        return [
            start
            for start in range(first, first + self.slice_size, size)
            if start in free and (count == 1 or free.issuperset(range(start, start + count)))
        ]

    def _has_room(self, start: int, count: int) -> bool:
        return all(
            first in self.open or self.free.get(first, _NONE).issuperset(range(low, high + 1))
            for first, low, high in self._slices(Ranges(((start, start + count - 1),)))
        )

    def _slices(self, ports: Ranges) -> Iterator[tuple[int, int, int]]:
        """Cut into slices: the first port of each, and the first and last that are meant."""
        for low, high in ports.pairs:
            for first in range(low & -self.slice_size, high + 1, self.slice_size):
                yield first, max(low, first), min(high, first + self.slice_size - 1)

    def _put(self, ports: Ranges) -> None:
        for first, low, high in self._slices(ports):
            if first not in self.open:
                self._set(first, self.free.get(first, _NONE).union(range(low, high + 1)))

    def _set(self, first: int, ports: set[int] | frozenset[int]) -> None:
        """Say what is free of a slice that is not open."""
        if len(ports) == self.slice_size:
            self.open.add(first)
            ports = _NONE
        if ports:
            self.free[first] = set(ports)
            self.split.add(first)
        else:
            self.free.pop(first, None)
            self.split.discard(first)


class Pool:
    """The resources of one realm that a gateway leases."""

    def __init__(
        self,
        realm: int,
        *,
        shared: Iterable[tuple[Address, Ranges]] = (),
        whole: Iterable[Prefix] = (),
        slice_size: int = 64,
        rest_seconds: float = 120.0,
        quota: Quota | None = None,
        seed: int = 0,
    ) -> None:
        """Gather what may be leased.

        Args:
            realm: Number of the realm that the addresses belong to.
            shared: Addresses leased by port, with the ports that may be leased.
            whole: Prefixes of addresses leased whole.
            slice_size: Ports of an aligned slice, a power of two: what the kernel plane keeps one word for.
            rest_seconds: How long what is given back rests (RFC 3102 §6.1: at least two minutes).
            quota: Limits for every single host.
            seed: Where the random choices begin.
        """
        if slice_size & (slice_size - 1) or not 1 <= slice_size <= 4096:
            raise ValueError(f"slice size {slice_size} is not a power of two within 1..4096")
        self.realm = realm
        self.slice_size = slice_size
        self.rest_seconds = rest_seconds
        self.quota = quota or Quota()
        self._rng = random.Random(seed)
        self._shared = {address: _Shared(ports, slice_size) for address, ports in shared}
        self._order = tuple(self._shared)
        for each in self._shared.values():
            each.fill()
        self._whole = tuple(whole)
        self._free_whole = _Bag(address for prefix in self._whole for address in prefix)
        if overlap := [str(address) for address in self._free_whole if address in self._shared]:
            raise ValueError(f"{overlap[0]} cannot be leased both whole and by port")
        self._resting: deque[tuple[float, Resource]] = deque()
        self._holdings: dict[Owner, Counter[str]] = {}
        self._addresses: dict[Owner, Counter[Address]] = {}

    @property
    def claims(self) -> tuple[Selector, ...]:
        """Everything the pool may lease, as selectors for a table."""
        by_port = tuple(
            Selector(realm=self.realm, local=Prefix.of(address), kind=Kind.PORT, values=each.ports)
            for address, each in self._shared.items()
        )
        return by_port + tuple(Selector(realm=self.realm, local=prefix) for prefix in self._whole)

    def free_ports(self) -> int:
        """How many ports could be leased now."""
        return sum(len(each) for each in self._shared.values())

    def free_addresses(self) -> int:
        """How many whole addresses could be leased now."""
        return len(self._free_whole)

    def take_address(self, owner: Owner, *, address: Address | None = None, now: float) -> Resource:
        """Lease an address whole (RSA-IP).

        Args:
            owner: Who gets it.
            address: The one asked for; None: any.
            now: Seconds since 1970.

        Raises:
            PoolError: ADDRESS_NOT_OURS, ADDRESS_IN_USE, NO_ADDRESS or QUOTA.
        """
        self._wake(now)
        if address is not None and not any(address in prefix for prefix in self._whole):
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        if address is not None and address not in self._free_whole:
            raise PoolError(Shortage.ADDRESS_IN_USE)
        if address is None and not self._free_whole:
            raise PoolError(Shortage.NO_ADDRESS)
        self._check_quota(owner, addresses=1)
        chosen = address or self._free_whole.draw(self._rng)
        resource = Resource(realm=self.realm, address=chosen)
        self._enter(owner, resource)
        return resource

    def take_ports(
        self, owner: Owner, *, address: Address | None = None, ports: Ranges | int = 1, now: float
    ) -> Resource:
        """Lease ports of a shared address (RSAP-IP).

        Args:
            owner: Who gets them.
            address: The address asked for; None: any.
            ports: The very ports asked for, or how many of any.
            now: Seconds since 1970.

        Raises:
            PoolError: ADDRESS_NOT_OURS, PORTS_NOT_OURS, PORTS_IN_USE, NO_ADDRESS, NO_PORTS or QUOTA.
        """
        self._wake(now)
        if address is not None and address not in self._shared:
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        if not self._shared:
            raise PoolError(Shortage.NO_ADDRESS)
        candidates = [address] if address is not None else self._preferred(owner)
        chosen = self._find(candidates, ports)
        self._check_quota(owner, ports=len(chosen[1]))
        resource = Resource(realm=self.realm, address=chosen[0], ports=chosen[1])
        self._enter(owner, resource)
        return resource

    def take_spis(self, owner: Owner, *, address: Address, spis: Ranges | int, now: float) -> Resource:
        """Lease SPIs of a shared address (RFC 3104 §6.2); any-n SPIs come as an aligned, random range.

        Args:
            owner: Who gets them.
            address: A shared address.
            spis: The very SPIs asked for, or how many of any.
            now: Seconds since 1970.

        Raises:
            PoolError: ADDRESS_NOT_OURS, SPI_NOT_OURS, SPI_IN_USE, NO_SPI or QUOTA.
        """
        self._wake(now)
        shared = self._shared.get(address)
        if shared is None:
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        chosen = self._choose_spis(shared, spis)
        self._check_quota(owner, spis=len(chosen))
        resource = Resource(realm=self.realm, address=address, spis=chosen)
        self._enter(owner, resource)
        return resource

    def release(self, owner: Owner, resource: Resource, *, now: float) -> None:
        """Give a resource back; it rests for ``rest_seconds`` first."""
        self._count(owner, resource, -1)
        self._resting.append((now + self.rest_seconds, resource))

    def restore(self, owner: Owner, resource: Resource) -> None:
        """Enter what a store says is leased, whatever the pool looks like by now."""
        self._enter(owner, resource)

    def restore_resting(self, resource: Resource, *, until: float) -> None:
        """Enter what a store says was given back and still rests; call in the order of ``until``."""
        self._remove(resource)
        self._resting.append((until, resource))

    def _wake(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            resource = self._resting.popleft()[1]
            shared = self._shared.get(resource.address)
            if resource.whole:
                if any(resource.address in prefix for prefix in self._whole):
                    self._free_whole.add(resource.address)
            elif shared is not None:
                shared.give(resource.ports or Ranges(()))
                shared.spis.difference_update(resource.spis or ())

    def _preferred(self, owner: Owner) -> Iterator[Address]:
        """The owner's own addresses first, the others from a random one on (paired pooling, RFC 6888 REQ-2)."""
        own = [address for address in self._addresses.get(owner, ()) if address in self._shared]
        yield from own
        start = self._rng.randrange(len(self._order))
        for address in (*self._order[start:], *self._order[:start]):
            if address not in own:
                yield address

    def _find(self, candidates: Iterable[Address], ports: Ranges | int) -> tuple[Address, Ranges]:
        shortage = Shortage.NO_PORTS
        for address in candidates:
            shared = self._shared[address]
            if isinstance(ports, int):
                first = shared.find(ports, self._rng)
                if first is not None:
                    return address, Ranges.of((first, first + ports - 1))
            elif not shared.ports.covers(ports):
                shortage = Shortage.PORTS_NOT_OURS if shortage is Shortage.NO_PORTS else shortage
            elif not all(shared.is_free(port) for port in ports):
                shortage = Shortage.PORTS_IN_USE
            else:
                return address, ports
        raise PoolError(shortage)

    def _choose_spis(self, shared: _Shared, spis: Ranges | int) -> Ranges:
        if isinstance(spis, Ranges):
            if spis.pairs[0][0] < SPI_FIRST:
                raise PoolError(Shortage.SPI_NOT_OURS)
            if not shared.spis.isdisjoint(spis):
                raise PoolError(Shortage.SPI_IN_USE)
            return spis
        size = 1 << (spis - 1).bit_length()
        for _ in range(64):
            first = self._rng.randrange(SPI_FIRST, _SPI_END - size) & -size
            chosen = range(first, first + spis)
            if first >= SPI_FIRST and shared.spis.isdisjoint(chosen):
                return Ranges.of(chosen)
        raise PoolError(Shortage.NO_SPI)

    def _check_quota(self, owner: Owner, *, ports: int = 0, addresses: int = 0, spis: int = 0) -> None:
        held, most = self._holdings.get(owner, Counter()), self.quota
        if (
            held["bindings"] + 1 > most.bindings
            or held["ports"] + ports > most.ports
            or held["addresses"] + addresses > most.addresses
            or held["spis"] + spis > most.spis
        ):
            raise PoolError(Shortage.QUOTA)

    def _enter(self, owner: Owner, resource: Resource) -> None:
        self._remove(resource)
        self._count(owner, resource, 1)

    def _remove(self, resource: Resource) -> None:
        if resource.whole:
            self._free_whole.discard(resource.address)
        elif (shared := self._shared.get(resource.address)) is not None:
            shared.take(resource.ports or Ranges(()))
            shared.spis.update(resource.spis or ())

    def _count(self, owner: Owner, resource: Resource, sign: int) -> None:
        held = self._holdings.setdefault(owner, Counter())
        held["bindings"] += sign
        held["ports"] += sign * len(resource.ports or ())
        held["spis"] += sign * len(resource.spis or ())
        held["addresses"] += sign * resource.whole
        addresses = self._addresses.setdefault(owner, Counter())
        addresses[resource.address] += sign
        if not addresses[resource.address]:
            del addresses[resource.address]
        if not held["bindings"]:
            del self._holdings[owner], self._addresses[owner]
