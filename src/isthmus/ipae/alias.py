# SPDX-License-Identifier: BSD-3-Clause
"""IPv4 aliases of equal residue: 64-bit addresses for programs that know 32 bits (spec 8.3).

An IPv4 socket cannot name a SIP host whose low 32 bits mean another host here, or nobody. So such a host gets
an *alias*, an IPv4 address out of a pool, and the gateway keeps alias and SIP address, nothing else: no
connections, no ports. The two words of the alias add up to what makes the transport checksum right as it is
(``neutral.alias_residue``). In a pool of /16s that leaves one address of each /16::

    high word   6440 | 6441 | ... | 647f        100.64.0.0/10, 64 of them
    low word    residue - high word, modulo 65535

An alias is leased. It is given with a DNS answer, kept while packets flow, and afterwards rests: somebody may
still believe the old answer, and must not be led to a stranger.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Translate
from isthmus.border.effect import Bind, Ending, Extend, Unbind
from isthmus.border.selector import Selector
from isthmus.ipae.neutral import MODULUS, alias_residue, lower_residue

POOLS = (Prefix.parse("100.64.0.0/10"),)
"Shared address space (RFC 6598), which nobody's hosts have (spec 8.3)."
TTL_SECONDS = 60.0
GRACE_SECONDS = 10.0
RESTS = 2
"After so many TTLs an alias may mean another host (spec 8.3)."
MOST = 1 << 16
"""Aliases at a time, leased or resting: each is an entry of the planes, which have leases and routes to hold, too."""

AliasEffect = Bind | Extend | Unbind


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An alias, and what has to be done before anybody is told of it."""

    alias: Address
    ttl: float
    "How long one may believe it, in seconds."
    effects: tuple[AliasEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """Every alias of a residue is taken: about 64 peers are as many as there can be at a time (spec 8.3).

    Or ``most`` are there in all, or the peer's site has half of either. A packet from outside is enough to have an
    alias made for its source, so that a single site that makes up sources must not take them from all others.
    """

    residue: int
    free_at: float
    "When the first of them could be free, in seconds since 1970."


@dataclass(slots=True)
class _Slot:
    """One alias that is leased, or rests."""

    alias: Address
    peer: Address
    until: float
    "End of the lease, or of the rest, in seconds since 1970."
    leased: bool
    due: float = 0.0
    "When the queue will come to it."


class AliasPool:
    """The aliases that hosts of one IPv4 realm have for SIP hosts."""

    def __init__(
        self,
        *,
        realm: int,
        sip: int,
        pools: Sequence[Prefix] = POOLS,
        identity: Address | None = None,
        ttl: float = TTL_SECONDS,
        grace: float = GRACE_SECONDS,
        most: int = MOST,
    ) -> None:
        """Begin with nothing leased.

        Args:
            realm: Number of the IPv4 realm whose hosts use the aliases.
            sip: Number of the SIP realm that they lead to.
            pools: IPv4 prefixes of 16 bits or less; the first are used first.
            identity: An address of the site with C = 0, where its IPv4 sockets are used under such (spec 8.1);
                None: its hosts are known with C = 1.
            ttl: For how long one answer of DNS may be believed, in seconds.
            grace: How long the driver may take to notice that an alias is in use, in seconds.
            most: Aliases at a time, leased or resting.

        Raises:
            ValueError: pools that are too small or overlap.
        """
        for at, pool in enumerate(pools):
            if pool.family is not Family.IPV4 or pool.length > 16:
                raise ValueError(f"an alias pool has 16 bits of IPv4 or less, not {pool}")
            if any(pool.covers(other) or other.covers(pool) for other in pools[:at]):
                raise ValueError(f"alias pool {pool} is there twice")
        self._realm = realm
        self._sip = sip
        self.pools = tuple(pools)
        self._identity = identity
        self._ttl = ttl
        # Silent: spec 8.3 leases for the TTL. A host may connect in its last moment, and is noticed a little later.
        self._lease = ttl + grace
        self._by_peer: dict[Address, _Slot] = {}
        self._by_alias: dict[Address, _Slot] = {}
        self._due: list[tuple[float, Address]] = []
        self._most = most
        self._sites: Counter[Prefix] = Counter()
        "How many aliases the peers of each site have, without those that are fixed."
        self._leased = 0
        self.overflows = 0
        "How often there was no alias to give."

    def __len__(self) -> int:
        """How many aliases are leased."""
        return self._leased

    @property
    def deadline(self) -> float | None:
        """When ``expire`` will next have something to look at, in seconds since 1970."""
        return self._due[0][0] if self._due else None

    def peer_of(self, alias: Address) -> Address | None:
        """Whom an alias stands for; None while it rests."""
        slot = self._by_alias.get(alias)
        return slot.peer if slot is not None and slot.leased else None

    def alias_of(self, peer: Address) -> Address | None:
        """The alias that a SIP address has at present."""
        slot = self._by_peer.get(peer)
        return slot.alias if slot is not None and slot.leased else None

    def leased(self) -> Iterator[tuple[Address, Address, float]]:
        """Every alias that is leased, whom it stands for and until when, in seconds since 1970; by alias."""
        for alias in sorted(self._by_alias):
            slot = self._by_alias[alias]
            if slot.leased:
                yield alias, slot.peer, slot.until

    def held(self) -> Iterator[tuple[Address, Address, float]]:
        """The same of those that rest, too: what must not be given to somebody else, but for what is fixed."""
        for slot in self._by_alias.values():
            if slot.until < FOREVER:
                yield slot.alias, slot.peer, slot.until

    def owns(self, address: Address) -> bool:
        """Whether an address lies in the pools."""
        return any(address in pool for pool in self.pools)

    def lease(self, peer: Address, *, now: float) -> Granted | Overflow:
        """Give a SIP address an alias, or go on with the one that it has (spec 8.3).

        A peer that comes back while its alias rests gets the same one: to whoever still knows it, it is right.
        """
        slot = self._by_peer.get(peer)
        if slot is None:
            residue = alias_residue(peer, identity=self._identity)
            alias = self._free(residue, peer.site)
            if alias is None:
                self.overflows += 1
                return Overflow(residue=residue, free_at=self._first_free(residue, now))
            slot = self._enter(_Slot(alias, peer, now, leased=False))
        if slot.leased:
            return Granted(alias=slot.alias, ttl=self._ttl, effects=self._extend(slot, now))
        slot.leased, slot.until = True, now + self._lease
        self._leased += 1
        self._queue(slot)
        lease = Lease(client_id=0, method=Method.RSA_IP, granted_at=now, expires_at=slot.until)
        return Granted(alias=slot.alias, ttl=self._ttl, effects=(Bind(binding=self._binding(slot), lease=lease),))

    def used(self, alias: Address, *, now: float) -> tuple[AliasEffect, ...]:
        """Packets flow by an alias: its lease starts anew."""
        slot = self._by_alias.get(alias)
        return self._extend(slot, now) if slot is not None and slot.leased else ()

    def expire(self, *, now: float) -> tuple[AliasEffect, ...]:
        """End the leases that have run out, and the rests.

        What is in use has to be named to ``used`` before.
        """
        effects: list[AliasEffect] = []
        while self._due and self._due[0][0] <= now:
            at, alias = heapq.heappop(self._due)
            slot = self._by_alias.get(alias)
            if slot is None or slot.due != at:  # it has another place in the queue
                continue
            if slot.until <= now and not slot.leased:
                self._leave(slot)
                continue
            if slot.until <= now:
                effects.append(Unbind(key=self._key(slot), ending=Ending.EXPIRED))
                slot.leased, slot.until = False, now + RESTS * self._ttl
                self._leased -= 1
            self._queue(slot)
        return tuple(effects)

    def withdraw(self, effects: Iterable[AliasEffect], *, now: float) -> None:
        """Take back aliases whose effects could not be carried out; they rest, in case somebody has heard of them."""
        for effect in effects:
            slot = self._by_alias.get(effect.binding.address) if isinstance(effect, Bind) else None
            if slot is not None and slot.leased:
                slot.leased, slot.until = False, now + RESTS * self._ttl
                self._leased -= 1
                self._queue(slot)

    def restore(self, alias: Address, peer: Address, *, until: float) -> Binding:
        """Let an alias stand that stood before a restart.

        Args:
            alias: It.
            peer: Whom it stands for.
            until: End of its lease, in seconds since 1970.

        Returns:
            What is to be bound.

        Raises:
            ValueError: these pools would not have given it.
        """
        self._refuse_taken(alias, peer)
        if lower_residue(alias) != alias_residue(peer, identity=self._identity) or not peer.country:
            raise ValueError(f"{alias} has not the residue of {peer}")
        slot = self._enter(_Slot(alias, peer, until, leased=True))
        self._leased += 1
        self._queue(slot)
        return self._binding(slot)

    def _refuse_taken(self, alias: Address, peer: Address) -> None:
        if not self.owns(alias) or alias in self._by_alias or peer in self._by_peer:
            raise ValueError(f"{alias} cannot stand for {peer}")

    def fix(self, alias: Address, peer: Address) -> Binding:
        """Let an alias stand for somebody forever, whatever its residue.

        Returns:
            What is to be bound.

        Raises:
            ValueError: it is in no pool, or one of the two is leased already.
        """
        self._refuse_taken(alias, peer)
        self._leased += 1
        return self._binding(self._enter(_Slot(alias, peer, FOREVER, leased=True)))

    def _queue(self, slot: _Slot) -> None:
        slot.due = slot.until
        heapq.heappush(self._due, (slot.due, slot.alias))

    def _enter(self, slot: _Slot) -> _Slot:
        self._by_peer[slot.peer] = self._by_alias[slot.alias] = slot
        self._sites[slot.peer.site] += slot.until < FOREVER
        return slot

    def _leave(self, slot: _Slot) -> None:
        del self._by_alias[slot.alias], self._by_peer[slot.peer]
        self._sites[slot.peer.site] -= 1
        if not self._sites[slot.peer.site]:
            del self._sites[slot.peer.site]

    def _free(self, residue: int, site: Prefix) -> Address | None:
        """An alias of a residue that is nobody's, if a site may have one more."""
        if len(self._by_alias) >= self._most or self._sites[site] >= (self._most + 1) // 2:
            return None
        candidates = list(self._candidates(residue))
        slots = {each: self._by_alias.get(each) for each in candidates}
        has = sum(slot is not None and slot.peer.site == site and slot.until < FOREVER for slot in slots.values())
        if has >= (len(candidates) + 1) // 2:
            return None
        return next((each for each in candidates if slots[each] is None), None)

    def _extend(self, slot: _Slot, now: float) -> tuple[AliasEffect, ...]:
        if now + self._lease <= slot.until:
            return ()
        slot.until = now + self._lease  # its place in the queue is now too early, which ``expire`` mends
        return (Extend(key=self._key(slot), expires_at=slot.until),)

    def _candidates(self, residue: int) -> Iterator[Address]:
        """Every address of the pools with this residue; 0 and 65535 are one, so a low word of 0 has a twin."""
        for pool in self.pools:
            first = pool.address.number >> 16
            ends = (pool.address.number, pool.address.number | (1 << 32 - pool.length) - 1)
            for high in range(first, first + (1 << 16 - pool.length)):
                low = (residue - high) % MODULUS
                for number in (high << 16 | low, high << 16 | 0xFFFF)[: 1 if low else 2]:
                    if number not in ends:  # a network's own address and its broadcast, if the pool is a network
                        yield Address(Family.IPV4, number)

    def _first_free(self, residue: int, now: float) -> float:
        held = (self._by_alias.get(each) for each in self._candidates(residue))
        slots = [each for each in held if each is not None] or list(self._by_alias.values())
        return min((slot.until + (RESTS * self._ttl if slot.leased else 0.0) for slot in slots), default=now)

    def _key(self, slot: _Slot) -> BindingKey:
        return BindingKey(Owner(self._sip, slot.peer), slot.alias.number)

    def _binding(self, slot: _Slot) -> Binding:
        return Binding(
            key=self._key(slot),
            selectors=(Selector(realm=self._realm, local=Prefix.of(slot.alias)),),
            crossing=Translate(realm=self._sip, image=Prefix.of(slot.peer)),
        )
