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
from collections.abc import Iterable
from dataclasses import dataclass, field

from isthmus.address import Address, Prefix
from isthmus.border.binding import Owner
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.errors import IsthmusError

SPI_FIRST = 256
"""0 to 255 are reserved and never leased (RFC 4303 §2.1)."""
_SPI_END = 1 << 32


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


@dataclass(slots=True)
class _Shared:
    """The ports of one shared address. ``free`` and ``leased`` are kept per aligned slice."""

    ports: Ranges
    slice_size: int
    free: set[int] = field(default_factory=set)
    "Free port numbers, for what is split or odd."
    open_slices: list[int] = field(default_factory=list)
    "First ports of aligned slices that are free whole, in no order."
    at: dict[int, int] = field(default_factory=dict)
    "Where a slice stands in ``open_slices``."
    spis: set[int] = field(default_factory=set)
    "SPIs that are leased or resting."

    def fill(self) -> None:
        aligned = list(self.ports.blocks(self.slice_size))
        for first in aligned:
            self._open(first)
        self.free = set(self.ports - Ranges.of(*((first, first + self.slice_size - 1) for first in aligned)))

    def _open(self, first: int) -> None:
        self.at[first] = len(self.open_slices)
        self.open_slices.append(first)

    def _close(self, first: int) -> None:
        at, last = self.at.pop(first), self.open_slices.pop()
        if last != first:
            self.open_slices[at] = last
            self.at[last] = at

    def is_free(self, port: int) -> bool:
        return port in self.free or port & -self.slice_size in self.at

    def take(self, ports: Iterable[int]) -> None:
        for port in ports:
            first = port & -self.slice_size
            if first in self.at:
                self._close(first)
                self.free.update(range(first, first + self.slice_size))
            self.free.discard(port)

    def give(self, ports: Ranges) -> None:
        self.free.update(port for port in ports if port in self.ports)
        for first in {port & -self.slice_size for port in ports}:
            block = range(first, first + self.slice_size)
            if first not in self.at and self.free.issuperset(block):
                self.free.difference_update(block)
                self._open(first)

    def find(self, count: int, rng: random.Random) -> int | None:
        """First of ``count`` consecutive free ports, aligned to the next power of two."""
        size = 1 << (count - 1).bit_length()
        if size < self.slice_size:
            split = sorted(port for port in self.free if port % size == 0)
            for first in rng.sample(split, len(split)) if split else ():
                if all(self.is_free(port) for port in range(first, first + count)):
                    return first
        if size <= self.slice_size:
            return rng.choice(self.open_slices) if self.open_slices else None
        starts = [first for first in self.open_slices if first % size == 0]
        rng.shuffle(starts)
        for first in starts:
            if all(self.is_free(port) for port in range(first, first + count)):
                return first
        return None


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
        for each in self._shared.values():
            each.fill()
        self._whole = tuple(whole)
        self._free_whole = {address: None for prefix in self._whole for address in prefix}
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
        return sum(len(each.free) + len(each.open_slices) * self.slice_size for each in self._shared.values())

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
        chosen = address or self._rng.choice(tuple(self._free_whole))
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
                    self._free_whole[resource.address] = None
            elif shared is not None:
                shared.give(resource.ports or Ranges(()))
                shared.spis.difference_update(resource.spis or ())

    def _preferred(self, owner: Owner) -> list[Address]:
        """The owner's own addresses first, the rest in random order (paired pooling, RFC 6888 REQ-2)."""
        own = [address for address in self._addresses.get(owner, ()) if address in self._shared]
        others = [address for address in self._shared if address not in own]
        self._rng.shuffle(others)
        return own + others

    def _find(self, candidates: list[Address], ports: Ranges | int) -> tuple[Address, Ranges]:
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
            self._free_whole.pop(resource.address, None)
        elif (shared := self._shared.get(resource.address)) is not None:
            shared.take(resource.ports or ())
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
