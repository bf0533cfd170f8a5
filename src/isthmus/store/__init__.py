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

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from isthmus.address import Address
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.effect import Durable, Ending, Remember
from isthmus.border.resource import Resource
from isthmus.errors import StoreUnavailable

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

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""

    def close(self) -> None:
        """Let go of the store."""


def open_store(url: str | Path) -> LeaseStore:
    """Open the store that a URL names, and make it if it is not there.

    Args:
        url: ``memory:``, which forgets; ``sqlite:///var/lib/isthmus/leases.db``, whose path is
            absolute as in any URL; or a bare path, which may be relative.

    Raises:
        StoreUnavailable: it cannot be opened, or there is no such kind of store.
    """
    from isthmus.store.memory import MemoryStore
    from isthmus.store.sqlite import SqliteStore

    if isinstance(url, Path):
        return SqliteStore(url)
    if url == "memory:":
        return MemoryStore()
    scheme, colon, rest = url.partition("://")
    if not colon:
        return SqliteStore(url)
    if scheme != "sqlite" or not rest.startswith("/"):
        raise StoreUnavailable(f"{url}: no store of this kind; write memory:, sqlite:///absolute/path, or a path")
    return SqliteStore("/" + rest.lstrip("/"))
