# SPDX-License-Identifier: BSD-3-Clause
"""Lease stores: what is leased survives the process, and what was leased is remembered.

One contract, several backends: ``memory.MemoryStore`` says in dictionaries what
``sqlite.SqliteStore`` does on a disk. A lease and its row of history are written in one
transaction, and when ``commit`` returns they are on the disk.

What the effects mean to a store:

==============  ===========================================================================
Register        enters or replaces a host; its client ID must be nobody else's
Deregister      removes the host. Its last answer stays ``DEPARTED_SECONDS`` longer if the
                host asked to go (FREED), for a copy of that request; else it goes too
Bind            enters a binding and begins a tenure. The same key again replaces the
                binding: the same grant (client, resource, ``granted_at``) goes on in its
                tenure, another one ends the old tenure. Its host's ``last_bind_id`` is raised
Extend          moves the deadline of a binding and of its tenure
Prolong         moves the deadline of a registration
Unbind          removes a binding and ends its tenure: now, or at its deadline if that has
                passed, because no plane forwards beyond it
Remember        replaces the last answer of its host
==============  ===========================================================================

Whatever names a key or an owner that is not there does nothing, as in ``border.table``. A
store has no clock and ends nothing by itself: a lease whose deadline passed while nobody
was running stands until the gateway's Unbind, and yet ``who_had`` counts it as held until
its deadline only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from isthmus.address import Address
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.effect import Durable, Ending, Remember
from isthmus.border.plain import LapsingHosts, PlainLeases
from isthmus.border.resource import Resource
from isthmus.errors import StoreUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEPARTED_SECONDS = 60.0
"""How long the last answer of a host that deregistered is kept: a UDP host gives up after 1.6 s (RFC 3103 §5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A binding with its lease, as it stands in the store."""

    binding: Binding
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that a gateway needs to go on where it stopped."""

    registrations: tuple[Registration, ...]
    bindings: tuple[Held, ...]
    answers: tuple[Remember, ...]
    "The last request and answer of each host that speaks UDP: registered, or gone within the time asked for."
    resting: tuple[tuple[float, Resource], ...]
    "What was given back and when (seconds since 1970), oldest first, within the time asked for; less what is held."

    @property
    def counts(self) -> tuple[int, int]:
        """How many hosts are registered, and how many bindings stand."""
        return len(self.registrations), len(self.bindings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What stands of some hosts: what a restart gives back of them."""

    registrations: tuple[Registration, ...]
    "By owner; who is not registered is missing."
    bindings: tuple[Held, ...]
    "By owner and bind ID."
    answers: tuple[Remember, ...]
    "By owner; also of who has left within ``DEPARTED_SECONDS``."


@dataclass(frozen=True, slots=True, kw_only=True)
class HostColumns:
    """The registered IPv4 hosts of one near realm, a column for each number."""

    near: int
    "Number of their realm."
    address: NDArray[np.uint32]
    "Ascending."
    client_id: NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestColumns:
    """What was given back of IPv4 addresses in single runs of ports, a column for each number; oldest first."""

    realm: int
    "Number of the realm that it was leased from."
    local: NDArray[np.uint32]
    first: NDArray[np.uint16]
    "The first port."
    ports: NDArray[np.uint32]
    "How many."
    ended_at: NDArray[np.float64]
    "Seconds since 1970."


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything that a gateway needs to go on where it stopped if it recalls hosts one by one (``recall``)."""

    plain: tuple[PlainLeases, ...]
    odd: tuple[Held, ...]
    "The bindings that are not plain, by owner and bind ID."
    hosts: tuple[HostColumns, ...]
    other_hosts: tuple[Registration, ...]
    "The registrations of hosts without an IPv4 address, by owner."
    departed: tuple[Remember, ...]
    "The last answers to hosts that are gone, within the time asked for."
    resting: tuple[RestColumns, ...]
    """What was given back within the time asked for, be it held again by now: what is held does not rest, and of what
    was given back twice the last time counts."""
    odd_resting: tuple[tuple[float, Resource], ...]
    "Everything else that was given back: when (seconds since 1970) and what, oldest first; be it held again by now."

    @property
    def counts(self) -> tuple[int, int]:
        """How many hosts are registered, and how many bindings stand."""
        hosts = sum(len(each.address) for each in self.hosts)
        return hosts + len(self.other_hosts), sum(map(len, self.plain)) + len(self.odd)


@dataclass(frozen=True, slots=True, kw_only=True)
class LapsingMark:
    """A place among what runs out; see ``LeaseStore.lapsing``."""

    stays: bool
    "Hosts whose registration runs out come first, then leases of hosts that stay."
    deadline: float
    "Seconds since 1970."
    number: int
    "Of what has the same deadline: a host's address, or where a lease stands among all."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsing:
    """Hosts of which something runs out, and what runs out of their plain leases."""

    hosts: LapsingHosts
    leases: tuple[PlainLeases, ...]
    after: LapsingMark | None
    "Where the next ones are; None: there are no more."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """One row of history: who held what, from when to when."""

    key: BindingKey
    client_id: int
    resource: Resource
    granted_at: float
    "Seconds since 1970."
    ended_at: float | None
    "None: still held."
    ending: Ending | None
    expires_at: float
    "The last deadline it was given."

    @property
    def until(self) -> float:
        """When it ended, or will if nobody does anything: held while ``granted_at <= t < until``."""
        return self.expires_at if self.ended_at is None else self.ended_at

    def as_of(self, now: float) -> Tenure:
        """Return the tenure as it stands at a time: a deadline that has passed has ended it, written down or not."""
        if self.ended_at is not None or self.expires_at > now:
            return self
        return replace(self, ended_at=self.expires_at, ending=Ending.EXPIRED)


class LeaseStore(Protocol):
    """Whatever keeps leases across restarts."""

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands.

        Args:
            rested_since: Return as resting what ended, and the answers of those who left, at or after this
                time (seconds since 1970).

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def commit(self, effects: Iterable[Durable], *, now: float) -> None:
        """Write a batch in one transaction: all of it, durable, or nothing.

        Args:
            effects: In the order in which they arose.
            now: Seconds since 1970, for the history.

        Raises:
            Conflict: a Bind of a resource that another key holds, or a Register of a client ID that another
                host has.
            StoreUnavailable: it could not be written.
        """

    def submit(self, effects: Iterable[Durable], *, now: float) -> Future[None]:
        """Begin to write a batch as ``commit`` does; several under way are written in the order of their calls.

        In an event loop's thread it returns at once if somebody else does the work, and the loop must go on for the
        result to come: ``await asyncio.wrap_future(...)``. Elsewhere the result is there when it returns.

        Returns:
            What is done when the batch is durable, or raises what ``commit`` raises.
        """

    def recall(self, owners: Sequence[Owner]) -> Recalled:
        """Read what stands of some hosts.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def standing(self, *, rested_since: float) -> Standing:
        """Read everything that stands, as columns where it can be.

        Args:
            rested_since: As for ``load``.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def due(self, *, before: float, limit: int) -> tuple[Owner, ...]:
        """Tell whose binding or registration has its deadline before a time (seconds since 1970), soonest first.

        Args:
            before: The time, exclusive.
            limit: Return not more owners than this.
        """

    def lapsing(self, near: int, *, before: float, limit: int, after: LapsingMark | None = None) -> Lapsing:
        """Tell what runs out of IPv4 hosts that hold nothing but plain leases and have had an answer over UDP.

        Args:
            near: Number of their realm.
            before: What has its deadline before this, in seconds since 1970.
            limit: About as many hosts, and as many leases of others, are returned at a time, soonest first.
            after: Those that come after a mark that an earlier call with the same ``before`` gave; what it told may be
                on its way out.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def soonest(self) -> float | None:
        """The soonest deadline of a binding or a registration, in seconds since 1970; None if nothing stands."""

    def holders(self, address: Address, port: int | None = None) -> tuple[BindingKey, ...]:
        """Tell which bindings hold an address, or a port of it, now; in whatever realm, by owner and bind ID.

        Who holds the whole address, or a prefix around it, holds each of its ports.
        """

    def held_count(self) -> int:
        """How many bindings stand."""

    def registered_count(self) -> int:
        """How many hosts are registered."""

    def has_more(self, than: int, *, ended_since: float) -> bool:
        """Tell whether there are more than so many hosts, or bindings, or tenures that ended lately, without counting.

        Args:
            than: So many of one of them.
            ended_since: What ended before this, in seconds since 1970, does not matter.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def who_had(
        self, address: Address, *, port: int | None, at: float | None, now: float | None = None
    ) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it: at one time, or ever; newest first.

        Who held the whole address, or a prefix around it, held each of its ports.

        Args:
            address: In whatever realm.
            port: None: all that was held of the address, SPIs too.
            at: Seconds since 1970; None: ever.
            now: Seconds since 1970; what has expired by then is returned as ended, whether or not
                anybody was running to write it down. None: as written down.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""

    def page(self, *, after: BindingKey | None, limit: int) -> tuple[Held, ...]:
        """Some of what is held now, in the order of realm, octets of the address, and bind ID.

        Args:
            after: The last key of the page before; None: from the beginning.
            limit: As many, if there are as many.
        """

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""

    def place_key(self) -> bytes:
        """The 32 random octets that keep places secret (``border.place``): drawn once, when the store was made.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def close(self) -> None:
        """Let go of the store."""


def open_store(url: str | Path, *, apart: bool = False) -> LeaseStore:
    """Open the store that a URL names, and make it if it is not there.

    Args:
        url: ``memory:``, which forgets; ``sqlite:///var/lib/isthmus/leases.db``, whose path is
            absolute as in any URL; or a bare path, which may be relative.
        apart: Let another process write what is on a disk: for who writes much.

    Raises:
        StoreUnavailable: it cannot be opened, or there is no such kind of store.
    """
    from isthmus.store.apart import ApartStore
    from isthmus.store.memory import MemoryStore
    from isthmus.store.sqlite import SqliteStore

    on_disk = ApartStore if apart else SqliteStore
    if isinstance(url, Path):
        return on_disk(url)
    if url == "memory:":
        return MemoryStore()
    scheme, colon, rest = url.partition("://")
    if not colon:
        return on_disk(url)
    if scheme != "sqlite" or not rest.startswith("/"):
        raise StoreUnavailable(f"{url}: no store of this kind; write memory:, sqlite:///absolute/path, or a path")
    return on_disk("/" + rest.lstrip("/"))
