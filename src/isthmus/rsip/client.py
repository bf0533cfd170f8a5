# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway knows of one registered host (RFC 3103 §6, §7.3). Plain records; the rules are elsewhere."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from isthmus.address import Address
from isthmus.border.binding import Binding, Lease, Owner
from isthmus.border.effect import Peer
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, resource_of
from isthmus.border.selector import Flow
from isthmus.rsip.states import ClientState
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy


class Transport(enum.Enum):
    """What carries the messages of a registration; fixed while it lasts (RFC 3103 §5)."""

    UDP = "UDP"
    TCP = "TCP"

    @classmethod
    def of(cls, peer: Peer) -> Transport:
        """The transport that a message came by."""
        return cls.TCP if peer.connection else cls.UDP


@dataclass(slots=True, kw_only=True)
class Held:
    """One binding of a host."""

    binding: Binding
    lease: Lease
    "As first granted."
    expires_at: float
    "As extended since."

    @property
    def resource(self) -> Resource:
        """What it holds of the pool."""
        return resource_of(self.binding)

    def owns(self, flow: Flow) -> bool:
        """Whether the local side of a flow is this binding's."""
        return any(selector.owns(flow) for selector in self.binding.selectors)


@dataclass(slots=True, kw_only=True)
class Client:
    """One registered host."""

    owner: Owner
    client_id: int
    expires_at: float
    "R (RFC 3103 §6)."
    local_policy: LocalPolicy
    remote_policy: RemotePolicy
    state: ClientState = ClientState.REGISTERED
    transport: Transport | None = None
    "None after a restart, until the host is heard again."
    bindings: dict[int, Held] = field(default_factory=dict)
    lenders: set[int] = field(default_factory=set)
    "Bind IDs of those bindings that have lent ports (``lending``)."
    last_bind_id: int = 0
    "Bind IDs count from 1 and are not used twice in a registration (spec 4.5)."
    udp_peer: Peer | None = None
    "Where the last valid request came from."
    connections: dict[Peer, None] = field(default_factory=dict)
    "Open TCP connections, the newest last."
    counted: bool = True
    "Whether its requests carry Message Counters."
    touched: bool = False
    "Whether anybody asked for it of late."

    @property
    def peer(self) -> Peer | None:
        """Where unasked messages go: the newest connection, or the port last used (spec 2)."""
        if self.transport is Transport.TCP:
            return next(reversed(self.connections), None)
        return self.udp_peer

    def heard(self, peer: Peer, *, counted: bool) -> None:
        """Note where a valid request came from."""
        self.transport = Transport.of(peer)
        self.counted = counted
        if self.transport is Transport.TCP:
            self.connections.setdefault(peer)
        else:
            self.udp_peer = peer

    def binding_of(self, flow: Flow | None) -> int | None:
        """The Bind ID of the binding whose local side a flow uses."""
        if flow is None:
            return None
        return next((bind_id for bind_id, held in self.bindings.items() if held.owns(flow)), None)


def still_resting(
    resting: Iterable[tuple[float, Resource]], held: Iterable[Resource], *, since: float
) -> list[tuple[float, Resource]]:
    """What of a history of givings-back must rest on, the oldest first.

    The same port may have been given back, leased, and given back again: the last time
    counts. What is held now does not rest, or the end of the rest would free it.

    Args:
        resting: When what was given back.
        held: What is leased now.
        since: What was given back before has rested.
    """
    ports: dict[Address, Ranges] = {}
    spis: dict[Address, Ranges] = {}
    whole: set[Address] = set()

    def rest_of(resource: Resource) -> Resource | None:
        address = resource.address
        if resource.whole:
            known = address in whole
            whole.add(address)
            return None if known else resource
        none = Ranges(())
        left = replace(
            resource,
            ports=(resource.ports or none) - ports.get(address, none),
            spis=(resource.spis or none) - spis.get(address, none),
        )
        ports[address] = ports.get(address, none) | (left.ports or none)
        spis[address] = spis.get(address, none) | (left.spis or none)
        return left if left.ports or left.spis else None

    for each in held:
        rest_of(each)
    newest_first = sorted((each for each in resting if each[0] > since), key=lambda each: each[0], reverse=True)
    left = [(at, rest) for at, resource in newest_first if (rest := rest_of(resource)) is not None]
    return left[::-1]
