# SPDX-License-Identifier: BSD-3-Clause
"""What a store has, given to a gateway and a plane: as objects where it is little, else as columns."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, cast

from isthmus.border.binding import Registration
from isthmus.border.effect import Bind, Register
from isthmus.border.plain import Hosts, PlainLeases
from isthmus.border.resource import resource_of
from isthmus.plane import Plane
from isthmus.rsip.gateway import Gateway
from isthmus.store import LeaseStore, Snapshot, Standing


class Reconciled(Protocol):
    """A plane that can be told all that it should hold."""

    def reconcile(
        self, standing: Iterable[Register | Bind], plain: Sequence[PlainLeases] = (), registered: Sequence[Hosts] = ()
    ) -> None:
        """Hold this and nothing else.

        Args:
            standing: What stands, as effects.
            plain: Plain leases beside that.
            registered: IPv4 hosts beside that.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a plane should hold."""

    standing: tuple[Register | Bind, ...]
    plain: Sequence[PlainLeases] = ()
    "Plain leases that are not in ``standing``."
    registered: Sequence[Hosts] = ()
    "IPv4 hosts that are not in ``standing``."

    def reconcile(self, plane: Reconciled) -> None:
        """Let a plane hold this and nothing else.

        Raises:
            PlaneError: it cannot.
        """
        plane.reconcile(self.standing, self.plain, self.registered)

    def hand_to(self, plane: Plane) -> None:
        """Let a plane hold this, too.

        Raises:
            PlaneError: it cannot.
        """
        if self.plain or self.registered:
            # It has what it had, but for some: to look what differs is less work than to say everything.
            cast("Reconciled", plane).reconcile(self.standing, self.plain, self.registered)
        else:
            plane.apply(self.standing)


READ_SINGLY = 10_000
"""If there are more hosts, or leases, they are read as columns and stay in the store."""


def read(store: LeaseStore, *, since: float, keep: int) -> Snapshot | Standing:
    """What a store knows: as columns if it is very much.

    Args:
        store: The store.
        since: What was given back, and who left, before this is forgotten; seconds since 1970.
        keep: How many hosts may be in memory.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    if store.has_more(min(keep // 2, READ_SINGLY), ended_since=since):
        return store.standing(rested_since=since)
    return store.load(rested_since=since)


class ReadAhead:
    """Reads a store while other things are made ready: SQLite does most of it without the interpreter."""

    def __init__(self, store: LeaseStore, *, since: float, keep: int) -> None:
        """Begin, in a thread. Until ``take`` nobody may write the store; the arguments are those of ``read``."""
        thread = ThreadPoolExecutor(1, "read-ahead")
        self._found = thread.submit(read, store, since=since, keep=keep)
        thread.shutdown(wait=False)

    def take(self) -> Snapshot | Standing:
        """What was found, as soon as it is.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        return self._found.result()


def give_back_memory() -> None:
    """Give the system the memory that reading very much took: the C library would keep a third of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def restore(gateway: Gateway, kept: Snapshot | Standing, *, now: float) -> Restored:
    """Give a gateway what a store knows."""
    if isinstance(kept, Standing):
        return restore_columns(gateway, kept, now=now)
    return restore_objects(gateway, kept, now=now)


def restore_objects(gateway: Gateway, kept: Snapshot, *, now: float) -> Restored:
    """Give a gateway all that there is."""
    held = [(each.binding, each.lease) for each in kept.bindings]
    gateway.restore(kept.registrations, held, kept.answers, kept.resting, now=now)
    registered = (Register(registration=each) for each in kept.registrations)
    return Restored(standing=(*registered, *(Bind(binding=binding, lease=lease) for binding, lease in held)))


def restore_columns(gateway: Gateway, kept: Standing, *, now: float) -> Restored:
    """Give a gateway what it must know of very many hosts, all of which are folded."""
    odd = [(each.binding, each.lease) for each in kept.odd]
    gateway.folding.adopt(
        hosts=[(each.near, each.address, each.client_id) for each in kept.hosts],
        other_hosts=kept.other_hosts,
        plain=kept.plain,
        odd=[each for each, _ in odd],
        departed=kept.departed,
        now=now,
    )
    gateway.folding.adopt_resting(
        [(each.local, each.first, each.ports, each.ended_at) for each in kept.resting],
        kept.odd_resting,
        [resource_of(binding) for binding, _ in odd],
        now=now,
    )
    return Restored(
        standing=(*_registered(kept.other_hosts), *(Bind(binding=binding, lease=lease) for binding, lease in odd)),
        plain=kept.plain,
        registered=[Hosts(near=each.near, address=each.address) for each in kept.hosts],
    )


def _registered(hosts: Iterable[Registration]) -> Iterator[Register]:
    return (Register(registration=each) for each in hosts)
