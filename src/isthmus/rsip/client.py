# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway knows of one registered host (RFC 3103 §6, §7.3). Plain records; the rules are elsewhere."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from isthmus.border.binding import Binding, Lease, Owner
from isthmus.border.effect import Peer
from isthmus.border.pool import Resource
from isthmus.border.selector import Flow, Kind
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
    resource: Resource
    lease: Lease
    "As first granted."
    expires_at: float
    "As extended since."

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
    last_bind_id: int = 0
    "Bind IDs count from 1 and are not used twice in a registration (spec 4.5)."
    udp_peer: Peer | None = None
    "Where the last valid request came from."
    connections: dict[Peer, None] = field(default_factory=dict)
    "Open TCP connections, the newest last."
    counted: bool = True
    "Whether its requests carry Message Counters."

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


def resource_of(binding: Binding) -> Resource:
    """What a binding holds of its pool, read off its selectors; what a restart needs."""
    ports = next((each.values for each in binding.selectors if each.kind is Kind.PORT), None)
    spis = next((each.values for each in binding.selectors if each.kind is Kind.SPI), None)
    return Resource(realm=binding.realm, address=binding.address, ports=ports, spis=spis)
