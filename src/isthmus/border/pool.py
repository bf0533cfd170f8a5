# SPDX-License-Identifier: BSD-3-Clause
"""Pools: choosing, resting and giving back what is leased (RFC 3102 §2, §6.1; spec 10).

A pool holds whole addresses (RSA-IP), and shared addresses whose ports and SPIs are
handed out (RSAP-IP, RSIPSEC). One address is never leased both ways. "Any n ports" is
answered with n consecutive ports that begin at a multiple of the next power of two, all
or nothing (RFC 3103 §9.8.3), at random among the free ones, on an address that the host
already uses if there is one; "any n SPIs" likewise. A pool that is told so first tries, for whole
slices of a host that holds nothing, the place that its address and a secret key compute to. What is
given back rests before anybody gets it again, so that packets still under way for the old holder
never reach the new one.

What is taken in one call is of one address, and all of it or nothing is taken. The pool has a seed
and no clock: the same calls give the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Owner
from isthmus.border.place import Places
from isthmus.border.quota import Quota
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource
from isthmus.border.resting import Resting
from isthmus.border.selector import Selector
from isthmus.border.shared import ALL_SPIS, SPI_FIRST, SharedAddress, Wanted, within_spis
from isthmus.border.shortage import PoolError, Shortage, graver
from isthmus.border.slices import Bag, Slices, below

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ALL_SPIS", "IKE_PORT", "SPI_FIRST", "Pool", "PoolError", "Quota", "Resource", "Shortage"]

IKE_PORT = 500
"""The port of IKE; told apart by cookies it is never leased as a port (RFC 3104 §6.1)."""
_WOKEN_AT_ONCE = 256
"""How much of what has rested is made free before something is leased, and if that does not suffice."""
_WOKEN_IN_NEED = 1 << 14
_NOTHING = Ranges(())
_Run = tuple[Address, Slices, int]
"""A shared address, its slices, and the first of the ports."""


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
        computed: bool = False,
        place_key: bytes | None = None,
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
            computed: Whether any ports are first looked for at the place that the host's address computes to; otherwise
                all are chosen at random.
            place_key: 32 random octets, without which nobody can compute places; None: everybody can (RFC 6056).
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
            address: SharedAddress(
                number=number,
                slices=Slices(ports - Ranges.of(IKE_PORT) if address in by_cookie else ports, slice_size),
                spis_offered=within_spis(offered.get(address, _NOTHING)),
                ike=address in by_cookie,
            )
            for number, (address, ports) in enumerate(shared)
        }
        self._addresses = tuple(self._shared)
        laid = self._shared.values() if computed else ()
        self._places = Places((each.ports for each in laid), slice_size, place_key)
        self._with_spis = {at: each for at, each in self._shared.items() if each.spis_offered}
        self._with_ike = {at: each for at, each in self._shared.items() if each.ike}
        self._roomy = Bag(address for address, each in self._shared.items() if each.slices.has_room)
        "The shared addresses that have a free port."
        self._whole = tuple(whole)
        self._free_whole = Bag(address for prefix in self._whole for address in prefix)
        if overlap := [str(address) for address in self._free_whole if address in self._shared]:
            raise ValueError(f"{overlap[0]} cannot be leased both whole and by port")
        if strange := [str(each) for each in (*offered, *by_cookie) if each not in self._shared]:
            raise ValueError(f"{strange[0]} offers SPIs or IKE and is no shared address")
        self._resting = Resting()
        self._noted: dict[Owner, list[Resource]] | None = {}
        "Who holds what, as long as nobody else keeps that."
        self._held_by: Callable[[Owner], Iterable[Resource]] = lambda owner: (self._noted or {}).get(owner, ())

    def ask(self, held_by: Callable[[Owner], Iterable[Resource]]) -> None:
        """Let somebody else know what each owner holds, for its quota and its addresses; the pool forgets it.

        Args:
            held_by: What a host holds now, in the order in which it got it.
        """
        self._noted = None
        self._held_by = held_by

    @property
    def claims(self) -> tuple[Selector, ...]:
        """Everything the pool may lease, as selectors for a table."""
        shared = (claim for address, each in self._shared.items() for claim in each.claims(self.realm, address))
        return (*shared, *(Selector(realm=self.realm, local=prefix) for prefix in self._whole))

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

    def leased_share(self) -> int:
        """How much is leased or rests, from 0 to 100: of the ports, or if there are none of the whole addresses."""
        ports = sum(len(each.ports) for each in self._shared.values())
        total = ports or sum(1 << prefix.family.bits - prefix.length for prefix in self._whole)
        free = self.free_ports() if ports else self.free_addresses()
        return -(-100 * (total - free) // total) if total else 0

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
        if not self.quota.allows(tuple(self._held_by(owner)), resource):
            raise PoolError(Shortage.QUOTA)
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
        if address is None and type(ports) is int:
            run = self._take_run(owner, ports, now)
            if run is not None:
                return run
        return self._take(owner, self._shared, address, Wanted(ports=ports, spis=None, identity=None), now)

    def _take_run(self, owner: Owner, count: int, now: float) -> Resource | None:
        """What nearly all ask for, without detours: any ports, for a host that holds nothing.

        Returns:
            What ``_take`` would find; None: what is asked, or who asks, wants a closer look.

        Raises:
            PoolError: NO_PORTS.
        """
        roomy, most = self._roomy, self.quota
        if not roomy or not 0 < count <= most.ports or not most.bindings or self._resting.is_over(now):
            return None
        if self._noted is not None or any(True for _ in self._held_by(owner)):
            return None
        found = self._computed(owner, count) or self._drawn(count)
        if found is None:
            raise PoolError(Shortage.NO_PORTS)
        address, slices, first = found
        slices.take_run(first, first + count - 1)
        if not slices.has_room:
            roomy.discard(address)
        return Resource(realm=self.realm, address=address, ports=Ranges(((first, first + count - 1),)))

    def _computed(self, owner: Owner, count: int) -> _Run | None:
        """The place that an owner's address computes to, if it is free.

        Less than a slice has none: small leases fill slices that are begun, so that whole ones are left.
        """
        place = self._places.find(owner.address.number, 1 << (count - 1).bit_length())
        if place is None:
            return None
        address = self._addresses[place[0]]
        slices = self._shared[address].slices
        return (address, slices, place[1]) if slices.has_run(place[1], count) else None

    def _drawn(self, count: int) -> _Run | None:
        """Any free run, at random."""
        roomy = self._roomy
        start = below(len(roomy), self._rng)
        for at in range(start - len(roomy), start):
            slices = self._shared[roomy[at]].slices
            first = slices.find(count, self._rng)
            if first is not None:
                return roomy[at], slices, first
        return None

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
        return self._take(owner, self._with_spis, address, Wanted(ports=ports, spis=spis, identity=None), now)

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
        return self._take(owner, self._with_ike, address, Wanted(ports=None, spis=None, identity=identity), now)

    def _take(
        self,
        owner: Owner,
        fit: Mapping[Address, SharedAddress],
        address: Address | None,
        wanted: Wanted,
        now: float,
    ) -> Resource:
        """Take from the first address that has all of it."""
        self._wake(now)
        if address is not None and address not in fit:
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        if not fit:
            raise PoolError(Shortage.NO_ADDRESS)
        held = tuple(self._held_by(owner))
        found = self._choose_computed(owner, address, wanted) if not held else None
        while found is None:
            chosen = self._choose(fit, [address] if address is not None else self._order(held, fit, wanted), wanted)
            if not isinstance(chosen, Shortage):
                found = chosen
            elif self._resting.is_over(now):
                self._wake(now, _WOKEN_IN_NEED)
            else:
                raise PoolError(chosen)
        if not self.quota.allows(held, found):
            raise PoolError(Shortage.QUOTA)
        self._enter(owner, found)
        return found

    def _choose_computed(self, owner: Owner, address: Address | None, wanted: Wanted) -> Resource | None:
        """The computed place, where nothing but any ports is wanted, and no other address."""
        count = wanted.run
        found = None if count is None else self._computed(owner, count)
        if count is None or found is None or address not in (None, found[0]):
            return None
        return Resource(realm=self.realm, address=found[0], ports=Ranges(((found[2], found[2] + count - 1),)))

    def _choose(
        self, fit: Mapping[Address, SharedAddress], addresses: Iterable[Address], wanted: Wanted
    ) -> Resource | Shortage:
        shortage: Shortage | None = None
        for each in addresses:
            shared = fit[each]
            chosen = shared.choose(wanted, self._rng)
            if isinstance(chosen, Shortage):
                shortage = graver(shortage, chosen)
                continue
            return Resource(
                realm=self.realm,
                address=each,
                ports=chosen[0],
                spis=chosen[1],
                ike=shared.ike and (wanted.spis is not None or wanted.identity is not None),
                identities=None if wanted.identity is None else Ranges.of(wanted.identity),
            )
        return shortage or Shortage.NO_PORTS

    def release(self, owner: Owner, resource: Resource, *, now: float) -> None:
        """Give a resource back; it rests for ``rest_seconds`` first. IKE initiators need no rest: they call anew."""
        self._uncount(owner, resource)
        self._rest(resource, now + self.rest_seconds)

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
        self._rest(resource, until)

    def restore_runs(self, local: NDArray[np.uint32], first: NDArray[np.uint16], ports: NDArray[np.uint32]) -> None:
        """Enter runs of ports of IPv4 addresses that a store says are leased, a column for each number."""
        for address, shared, these in self._by_address(local):
            shared.take_runs(first[these].astype("i8"), ports[these].astype("i8"))
            self._note_room(address, shared)

    def restore_resting_runs(
        self,
        local: NDArray[np.uint32],
        first: NDArray[np.uint16],
        ports: NDArray[np.uint32],
        *,
        until: NDArray[np.float64],
    ) -> None:
        """Enter runs of ports of IPv4 addresses that a store says were given back and still rest.

        What is leased again does not rest; of what was given back twice the last time counts, which stands last.
        """
        import numpy as np

        found = []
        for address, shared, these in self._by_address(local):
            runs = shared.runs_to_rest(first[these].astype("i8"), ports[these].astype("i8"), until[these])
            shared.take_runs(runs[0], runs[1])
            self._note_room(address, shared)
            found.append((np.full(len(runs[0]), shared.number), *runs))
        if found:
            number, low, count, ends = map(np.concatenate, zip(*found, strict=True))
            order = np.argsort(ends, kind="stable")
            self._resting.add_runs(number[order], low[order], (low + count - 1)[order], ends[order])

    def release_runs(
        self, local: NDArray[np.uint32], first: NDArray[np.uint16], ports: NDArray[np.uint32], *, now: float
    ) -> None:
        """Give runs of ports of IPv4 addresses back, a column for each number; they rest first."""
        import numpy as np

        number = np.full(len(local), -1, np.int64)
        for _address, shared, these in self._by_address(local):
            number[these] = shared.number
        ours, low = number >= 0, first.astype(np.int64)
        last = low + ports - 1
        ends = np.full(int(ours.sum()), now + self.rest_seconds)
        self._resting.add_runs(number[ours], low[ours], last[ours], ends)

    def _by_address(self, local: NDArray[np.uint32]) -> Iterator[tuple[Address, SharedAddress, NDArray[np.int64]]]:
        """Each shared address that occurs in a column, and where."""
        import numpy as np

        order = np.argsort(local, kind="stable")
        numbers, starts = np.unique(local[order], return_index=True)
        for number, these in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
            address = Address(Family.IPV4, number)
            if (shared := self._shared.get(address)) is not None:
                yield address, shared, these

    def _rest(self, resource: Resource, until: float) -> None:
        shared, ports = self._shared.get(resource.address), resource.ports
        if shared is not None and ports is not None and len(ports.pairs) == 1 and resource.spis is None:
            self._resting.add_run((shared.number, *ports.pairs[0]), until=until)
        else:
            self._resting.add(resource, until=until)

    def _wake(self, now: float, most: int = _WOKEN_AT_ONCE) -> None:
        """Make free what has rested; the rest of very much of it by further calls."""
        if not self._resting.is_over(now):
            return
        for number, first, last in self._resting.pop_runs(now, most):
            address = self._addresses[number]
            self._shared[address].slices.give(Ranges(((first, last),)))
            self._roomy.add(address)
        for each in self._resting.pop_others(now):
            self._free(each)

    def _free(self, resource: Resource) -> None:
        shared = self._shared.get(resource.address)
        if resource.whole:
            if any(resource.address in prefix for prefix in self._whole):
                self._free_whole.add(resource.address)
        elif shared is not None:
            shared.slices.give(resource.ports or _NOTHING)
            shared.spis.difference_update(resource.spis or ())
            self._note_room(resource.address, shared)

    def _note_room(self, address: Address, shared: SharedAddress) -> None:
        if shared.slices.has_room:
            self._roomy.add(address)
        else:
            self._roomy.discard(address)

    def _order(
        self, held: Iterable[Resource], fit: Mapping[Address, SharedAddress], wanted: Wanted
    ) -> Iterator[Address]:
        """The owner's own addresses first, the others from a random one on (paired pooling, RFC 6888 REQ-2)."""
        own = [address for address in dict.fromkeys(each.address for each in held) if address in fit]
        yield from own
        # Any ports are not looked for where there is none.
        others = self._roomy if isinstance(wanted.ports, int) and fit is self._shared else tuple(fit)
        if not others:
            return
        start = below(len(others), self._rng)
        for at in range(start - len(others), start):
            if others[at] not in own:
                yield others[at]

    def _enter(self, owner: Owner, resource: Resource) -> None:
        self._remove(resource)
        if resource.identities and (shared := self._shared.get(resource.address)) is not None:
            shared.identities.update(resource.identities)
        if self._noted is not None:
            self._noted.setdefault(owner, []).append(resource)

    def _remove(self, resource: Resource) -> None:
        if resource.whole:
            self._free_whole.discard(resource.address)
        elif (shared := self._shared.get(resource.address)) is not None:
            shared.slices.take(resource.ports or _NOTHING)
            shared.spis.update(resource.spis or ())
            self._note_room(resource.address, shared)

    def _uncount(self, owner: Owner, resource: Resource) -> None:
        if self._noted is not None:
            self._noted[owner].remove(resource)
            if not self._noted[owner]:
                del self._noted[owner]
        if resource.identities and (shared := self._shared.get(resource.address)) is not None:
            shared.identities.difference_update(resource.identities)
