# SPDX-License-Identifier: BSD-3-Clause
"""Lease stores: what is leased survives the process, and what was leased is remembered.

One contract, several backends. A lease and its row of history are written in one
transaction, and when ``commit`` returns they are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from isthmus.address import Address
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.effect import Durable, Ending, Remember
from isthmus.border.pool import Resource


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
    "The last request and answer of each registered host that speaks UDP."
    resting: tuple[tuple[float, Resource], ...]
    "What was given back and when (seconds since 1970), oldest first, within the time asked for."


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


class LeaseStore(Protocol):
    """Whatever keeps leases across restarts."""

    def load(self, *, rested_since: float) -> Snapshot:
        """Read everything that stands.

        Args:
            rested_since: Return as resting what ended at or after this time (seconds since 1970).

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    def commit(self, effects: Iterable[Durable], *, now: float) -> None:
        """Write a batch in one transaction: all of it, durable, or nothing.

        Args:
            effects: In the order in which they arose.
            now: Seconds since 1970, for the history.

        Raises:
            Conflict: a Bind of a resource that another key holds.
            StoreUnavailable: it could not be written.
        """

    def who_had(self, address: Address, *, port: int | None, at: float | None) -> tuple[Tenure, ...]:
        """Answer who held an address, or a port of it: at one time, or ever; newest first."""

    def leases(self) -> tuple[Held, ...]:
        """Everything that is held now, by owner and bind ID."""

    def owner_of(self, client_id: int) -> Owner | None:
        """The host that a client ID belongs to now."""

    def close(self) -> None:
        """Let go of the store."""
