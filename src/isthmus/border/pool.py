# SPDX-License-Identifier: BSD-3-Clause
"""Pools: choosing, resting and giving back what is leased (RFC 3102 §2, §6.1; spec 10).

A pool holds whole addresses (RSA-IP), and shared addresses whose ports and SPIs are
handed out (RSAP-IP, RSIPSEC). One address is never leased both ways. "Any n ports" is
answered with n consecutive ports that begin at a multiple of the next power of two, all
or nothing (RFC 3103 §9.8.3), at random among the free ones, on an address that the host
already uses if there is one; "any n SPIs" likewise. What is given back rests before
anybody gets it again, so that packets still under way for the old holder never reach the
new one.

What is taken in one call is of one address, and all of it or nothing is taken.

The pool has a seed and no clock: the same calls give the same answers.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from isthmus.address import Address, Prefix
from isthmus.border.binding import Owner
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource
from isthmus.border.selector import Kind, Selector
from isthmus.border.slices import Bag, Slices
from isthmus.errors import IsthmusError

__all__ = ["ALL_SPIS", "IKE_PORT", "SPI_FIRST", "Pool", "PoolError", "Quota", "Resource", "Shortage"]

IKE_PORT = 500
"""The port of IKE; told apart by cookies it is never leased as a port (RFC 3104 §6.1)."""
SPI_FIRST = 256
"""0 to 255 are reserved and never leased (RFC 4303 §2.1)."""
ALL_SPIS = Ranges(((SPI_FIRST, (1 << 32) - 1),))
"""Every SPI that a pool can have."""
_DRAWS = 64
"""How many blocks of SPIs are tried at random before all of them are looked at."""
_FEW_BLOCKS = 1 << 16
"""All of them are looked at if there are no more than that."""
_NOTHING = Ranges(())


class Shortage(enum.Enum):
    """Why a pool says no."""

    ADDRESS_NOT_OURS = "the address is not in the pool, or not to be had in this way"
    ADDRESS_IN_USE = "the address is held by somebody else, or resting"
    PORTS_NOT_OURS = "some of the ports are not in the pool"
    PORTS_IN_USE = "some of the ports are held by somebody else, or resting"
    NO_ADDRESS = "no address is free"
    NO_PORTS = "no address has that many ports free"
    SPI_NOT_OURS = "some of the SPIs are not in the pool"
    SPI_IN_USE = "some of the SPIs are held by somebody else, or resting"
    NO_SPI = "no address has that many SPIs free"
    IDENTITY_IN_USE = "the IKE initiator is listened for by somebody else"
    QUOTA = "the host holds as much as it may"


class PoolError(IsthmusError):
    """The pool cannot give what was asked for; nothing was changed."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(shortage.value)
        self.shortage = shortage


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that one host may hold at a time (RFC 3103 §11)."""

    bindings: int = 64
    ports: int = 4096
    addresses: int = 4
    "Whole addresses."
    spis: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is to be had of one shared address."""

    ports: Ranges | int | None
    spis: Ranges | int | None
    identity: int | None


@dataclass(slots=True, kw_only=True)
class _Shared:
    """One shared address."""

    slices: Slices
    spis_offered: Ranges
    ike: bool
    spis: set[int] = field(default_factory=set)
    "SPIs that are leased or resting."
    identities: set[int] = field(default_factory=set)
    "IKE initiators that are listened for."

    @property
    def ports(self) -> Ranges:
        return self.slices.ports

    def choose(self, wanted: _Wanted, rng: random.Random) -> Shortage | tuple[Ranges | None, Ranges | None]:
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

    def _choose_ports(self, ports: Ranges | int, rng: random.Random) -> Shortage | Ranges:
        if isinstance(ports, int):
            first = self.slices.find(ports, rng)
            return Shortage.NO_PORTS if first is None else Ranges.of((first, first + ports - 1))
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


def _item(runs: list[range], number: int) -> int:
    for run in runs:
        if number < len(run):
            return run[number]
        number -= len(run)
    raise IndexError(number)


class Pool:
    """The resources of one realm that a gateway leases."""

    def __init__(
        self,
        realm: int,
        *,
        shared: Iterable[tuple[Address, Ranges]] = (),
        whole: Iterable[Prefix] = (),
        spis: Mapping[Address, Ranges] | None = None,
        ike: Iterable[Address] = (),
        slice_size: int = 64,
        rest_seconds: float = 120.0,
        quota: Quota | None = None,
        seed: int = 0,
    ) -> None:
        """Gather what may be leased.

        Args:
            realm: Number of the realm that the addresses belong to.
            shared: Addresses leased by port, with the ports that may be leased; maybe none, for IPsec only.
            whole: Prefixes of addresses leased whole.
            spis: Which SPIs of shared addresses may be leased; 0 to 255 never are.
            ike: Shared addresses whose port 500 is shared by initiator cookie, and so is no port to lease.
            slice_size: Ports of an aligned slice, a power of two: what the kernel plane keeps one word for.
            rest_seconds: How long what is given back rests (RFC 3102 §6.1: at least two minutes).
            quota: Limits for every single host.
            seed: Where the random choices begin.

        Raises:
            ValueError: these contradict each other.
        """
        if slice_size & (slice_size - 1) or not 1 <= slice_size <= 4096:
            raise ValueError(f"slice size {slice_size} is not a power of two within 1..4096")
        self.realm = realm
        self.slice_size = slice_size
        self.rest_seconds = rest_seconds
        self.quota = quota or Quota()
        self._rng = random.Random(seed)
        offered, by_cookie = dict(spis or {}), frozenset(ike)
        self._shared = {
            address: _Shared(
                slices=Slices(ports - Ranges.of(IKE_PORT) if address in by_cookie else ports, slice_size),
                spis_offered=_within_spis(offered.get(address, _NOTHING)),
                ike=address in by_cookie,
            )
            for address, ports in shared
        }
        self._whole = tuple(whole)
        self._free_whole = Bag(address for prefix in self._whole for address in prefix)
        if overlap := [str(address) for address in self._free_whole if address in self._shared]:
            raise ValueError(f"{overlap[0]} cannot be leased both whole and by port")
        if strange := [str(each) for each in (*offered, *by_cookie) if each not in self._shared]:
            raise ValueError(f"{strange[0]} offers SPIs or IKE and is no shared address")
        self._resting: deque[tuple[float, Resource]] = deque()
        self._holdings: dict[Owner, Counter[str]] = {}
        self._addresses: dict[Owner, Counter[Address]] = {}

    @property
    def claims(self) -> tuple[Selector, ...]:
        """Everything the pool may lease, as selectors for a table."""
        return (*self._shared_claims(), *(Selector(realm=self.realm, local=prefix) for prefix in self._whole))

    def _shared_claims(self) -> Iterator[Selector]:
        for address, each in self._shared.items():
            local = Prefix.of(address)
            if each.ports:
                yield Selector(realm=self.realm, local=local, kind=Kind.PORT, values=each.ports)
            if each.spis_offered:
                yield Selector(realm=self.realm, local=local, kind=Kind.SPI, values=each.spis_offered)
            if each.ike:
                yield Selector(realm=self.realm, local=local, kind=Kind.COOKIE)

    @property
    def shared_addresses(self) -> tuple[Address, ...]:
        """The addresses that are leased by port and SPI."""
        return tuple(self._shared)

    @property
    def offers_spis(self) -> bool:
        """Whether SPIs may be leased of any address."""
        return any(each.spis_offered for each in self._shared.values())

    @property
    def offers_ike(self) -> bool:
        """Whether port 500 of any address is shared by cookie."""
        return any(each.ike for each in self._shared.values())

    def free_ports(self) -> int:
        """How many ports could be leased now."""
        return sum(len(each.slices) for each in self._shared.values())

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
        resource = Resource(realm=self.realm, address=address or self._free_whole.draw(self._rng))
        self._check_quota(owner, resource)
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
        return self._take(owner, self._shared, address, _Wanted(ports=ports, spis=None, identity=None), now)

    def take_spis(
        self,
        owner: Owner,
        *,
        address: Address | None = None,
        spis: Ranges | int,
        ports: Ranges | int | None = None,
        now: float,
    ) -> Resource:
        """Lease SPIs of a shared address, and ports of it if any are wanted (RFC 3104 §6.2).

        Where port 500 of the address is shared by cookie, the lease may use it as well.

        Args:
            owner: Who gets them.
            address: The address asked for; None: any.
            spis: The very SPIs asked for, or how many of any.
            ports: The very ports asked for, how many of any, or None.
            now: Seconds since 1970.

        Raises:
            PoolError: SPI_NOT_OURS, SPI_IN_USE or NO_SPI, or what ``take_ports`` raises.
        """
        fit = {at: each for at, each in self._shared.items() if each.spis_offered}
        return self._take(owner, fit, address, _Wanted(ports=ports, spis=spis, identity=None), now)

    def take_identity(self, owner: Owner, *, address: Address | None = None, identity: int, now: float) -> Resource:
        """Lease the calls of one IKE initiator to port 500 of a shared address (seed RSIP 4.1).

        Args:
            owner: Who gets them.
            address: The address asked for; None: any.
            identity: The initiator, as ``border.identity.identity_value`` gives it.
            now: Seconds since 1970.

        Raises:
            PoolError: ADDRESS_NOT_OURS, IDENTITY_IN_USE, NO_ADDRESS or QUOTA.
        """
        fit = {at: each for at, each in self._shared.items() if each.ike}
        return self._take(owner, fit, address, _Wanted(ports=None, spis=None, identity=identity), now)

    def _take(
        self,
        owner: Owner,
        fit: Mapping[Address, _Shared],
        address: Address | None,
        wanted: _Wanted,
        now: float,
    ) -> Resource:
        """Take from the first address that has all of it."""
        self._wake(now)
        if address is not None and address not in fit:
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        if not fit:
            raise PoolError(Shortage.NO_ADDRESS)
        shortage: Shortage | None = None
        for each in [address] if address is not None else self._preferred(owner, fit):
            shared = fit[each]
            chosen = shared.choose(wanted, self._rng)
            if isinstance(chosen, Shortage):
                shortage = _graver(shortage, chosen)
                continue
            resource = Resource(
                realm=self.realm,
                address=each,
                ports=chosen[0],
                spis=chosen[1],
                ike=shared.ike and (wanted.spis is not None or wanted.identity is not None),
                identities=None if wanted.identity is None else Ranges.of(wanted.identity),
            )
            self._check_quota(owner, resource)
            self._enter(owner, resource)
            return resource
        assert shortage is not None
        raise PoolError(shortage)

    def release(self, owner: Owner, resource: Resource, *, now: float) -> None:
        """Give a resource back; it rests for ``rest_seconds`` first. IKE initiators need no rest: they call anew."""
        self._uncount(owner, resource)
        self._resting.append((now + self.rest_seconds, resource))

    def cancel(self, owner: Owner, resource: Resource) -> None:
        """Undo a take of which nobody has heard: no packet can be under way, so nothing rests."""
        self._uncount(owner, resource)
        self._free(resource)

    def restore(self, owner: Owner, resource: Resource) -> None:
        """Enter what a store says is leased, whatever the pool looks like by now."""
        self._enter(owner, resource)

    def restore_resting(self, resource: Resource, *, until: float) -> None:
        """Enter what a store says was given back and still rests; call in the order of ``until``."""
        self._remove(resource)
        self._resting.append((until, resource))

    def _wake(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            self._free(self._resting.popleft()[1])

    def _free(self, resource: Resource) -> None:
        shared = self._shared.get(resource.address)
        if resource.whole:
            if any(resource.address in prefix for prefix in self._whole):
                self._free_whole.add(resource.address)
        elif shared is not None:
            shared.slices.give(resource.ports or _NOTHING)
            shared.spis.difference_update(resource.spis or ())

    def _preferred(self, owner: Owner, fit: Mapping[Address, _Shared]) -> Iterator[Address]:
        """The owner's own addresses first, the others from a random one on (paired pooling, RFC 6888 REQ-2)."""
        own = [address for address in self._addresses.get(owner, ()) if address in fit]
        yield from own
        others, start = tuple(fit), self._rng.randrange(len(fit))
        for address in (*others[start:], *others[:start]):
            if address not in own:
                yield address

    def _check_quota(self, owner: Owner, resource: Resource) -> None:
        held, most = self._holdings.get(owner, Counter()), self.quota
        if (
            held["bindings"] + 1 > most.bindings
            or held["ports"] + len(resource.ports or ()) > most.ports
            or held["addresses"] + resource.whole > most.addresses
            or held["spis"] + len(resource.spis or ()) > most.spis
        ):
            raise PoolError(Shortage.QUOTA)

    def _enter(self, owner: Owner, resource: Resource) -> None:
        self._remove(resource)
        if resource.identities and (shared := self._shared.get(resource.address)) is not None:
            shared.identities.update(resource.identities)
        self._count(owner, resource, 1)

    def _remove(self, resource: Resource) -> None:
        if resource.whole:
            self._free_whole.discard(resource.address)
        elif (shared := self._shared.get(resource.address)) is not None:
            shared.slices.take(resource.ports or _NOTHING)
            shared.spis.update(resource.spis or ())

    def _uncount(self, owner: Owner, resource: Resource) -> None:
        self._count(owner, resource, -1)
        if resource.identities and (shared := self._shared.get(resource.address)) is not None:
            shared.identities.difference_update(resource.identities)

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


_ORDER = (
    Shortage.NO_PORTS,
    Shortage.PORTS_NOT_OURS,
    Shortage.PORTS_IN_USE,
    Shortage.NO_SPI,
    Shortage.SPI_NOT_OURS,
    Shortage.SPI_IN_USE,
    Shortage.IDENTITY_IN_USE,
)


def _graver(one: Shortage | None, other: Shortage) -> Shortage:
    """Of what several addresses say, that of the one which came closest to giving it."""
    return other if one is None or _ORDER.index(other) > _ORDER.index(one) else one


def _within_spis(spis: Ranges) -> Ranges:
    """What of the SPIs offered is not reserved."""
    return spis - (spis - ALL_SPIS)
