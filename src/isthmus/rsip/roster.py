# SPDX-License-Identifier: BSD-3-Clause
"""The registered hosts of a gateway and what they hold: every change of it, as effects (RFC 3103 §6).

A change goes through the table of ``states``, through the pool, and out as effects, in one
place each. The roster knows nothing of messages.

Two lifetimes are kept. A registration lasts until R, a binding until Bi, and whenever a
binding is made or extended R = max(R, Bi): a registration never ends before its bindings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from isthmus.address import Address
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.effect import Bind, Deregister, Effect, Ending, Extend, Prolong, Register, Unbind
from isthmus.border.pool import Pool
from isthmus.border.ranges import Ranges
from isthmus.border.resource import resource_of
from isthmus.rsip.allocation import Allocation
from isthmus.rsip.client import Client, Held
from isthmus.rsip.deadline import Deadlines
from isthmus.rsip.ends import TunnelEnds
from isthmus.rsip.lending import heirs, lend, lent_by, take_back
from isthmus.rsip.policy import ClientRule
from isthmus.rsip.states import ClientEvent, ClientState, Transition, next_client_state
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy


class Roster:
    """Who is registered, what each holds, until when."""

    def __init__(
        self,
        *,
        ends: TunnelEnds,
        pool: Pool,
        seed: int,
        trace: Callable[[Transition], None] | None,
    ) -> None:
        """Start with nobody; the arguments are those of ``Gateway``."""
        self._ends = ends
        self._pool = pool
        self._rng = random.Random(seed)
        self._trace = trace
        self._clients: dict[Owner, Client] = {}
        self._client_ids: set[int] = set()
        self._deadlines: Deadlines[Owner | BindingKey] = Deadlines()
        self.effects: list[Effect] = []
        "What has been done and not yet been taken away."

    def __len__(self) -> int:
        """How many hosts are registered."""
        return len(self._clients)

    def get(self, owner: Owner) -> Client | None:
        """The registered host behind an address."""
        return self._clients.get(owner)

    def next_deadline(self) -> float | None:
        """When the next lease runs out."""
        return self._deadlines.next_at()

    def pop_due(self, now: float) -> Owner | BindingKey | None:
        """A registration, or a binding, whose time is up."""
        return self._deadlines.pop_due(now)

    def register(self, owner: Owner, rule: ClientRule, *, seconds: int, now: float) -> Client:
        """Admit a host under a fresh Client ID (RFC 3103 §9.3.3: unlike all others)."""
        client_id = 0
        while not client_id or client_id in self._client_ids:
            client_id = self._rng.getrandbits(32)
        client = Client(
            owner=owner,
            client_id=client_id,
            expires_at=now + seconds,
            local_policy=rule.local_policy,
            remote_policy=rule.remote_policy,
            state=ClientState.UNREGISTERED,
        )
        self._enter(client)
        self.effects.append(Register(registration=_registration(client)))
        self._transit(client, ClientEvent.REGISTER, now)
        return client

    def bind(self, client: Client, allocation: Allocation, *, seconds: int, now: float) -> Held:
        """Make a binding of what was allocated; who lends ports to it gives them up first."""
        for bind_id, ports in allocation.lent:
            self._rebind(client, bind_id, lend(client.bindings[bind_id].binding, ports), now=now)
        client.last_bind_id += 1
        held = Held(
            binding=Binding(
                key=BindingKey(client.owner, client.last_bind_id),
                selectors=allocation.selectors,
                crossing=self._ends.tunnel(client.owner.address, allocation.tunnel_kind),
            ),
            lease=Lease(client_id=client.client_id, method=allocation.method, granted_at=now, expires_at=now + seconds),
            expires_at=now + seconds,
        )
        self._hold(client, held)
        self.effects.append(Bind(binding=held.binding, lease=held.lease))
        self._prolong(client, held.expires_at)
        self._transit(client, ClientEvent.BIND, now)
        return held

    def extend(self, client: Client, held: Held, *, seconds: int, until: float | None, now: float) -> None:
        """Give a binding more time; what it has is only made shorter where ``until`` is nearer."""
        # Silent: RFC 3103 §9.11.3 lets the gateway decide; "extend" is taken at its word, to shorten there is FREE.
        later = max(held.expires_at, now + seconds)
        held.expires_at = later if until is None else min(later, until)
        self._deadlines.set(held.binding.key, held.expires_at)
        self.effects.append(Extend(key=held.binding.key, expires_at=held.expires_at))
        self._prolong(client, held.expires_at)
        self._transit(client, ClientEvent.EXTEND, now)

    def unbind(self, client: Client, bind_id: int, *, ending: Ending, now: float) -> None:
        """End a binding and let its resource rest, but for ports that go back to who lent them."""
        held = client.bindings.pop(bind_id)
        client.lenders.discard(bind_id)
        self._deadlines.discard(held.binding.key)
        self.effects.append(Unbind(key=held.binding.key, ending=ending))
        resource = held.resource
        for heir, ports in heirs(client, held.binding):
            self._rebind(client, heir.binding.key.bind_id, take_back(heir.binding, ports), now=now)
            resource = replace(resource, ports=(resource.ports or Ranges(())) - ports)
        self._pool.release(client.owner, resource, now=now)
        self._transit(client, ClientEvent.UNBIND if client.bindings else ClientEvent.UNBIND_LAST, now)

    def dismiss(self, client: Client, *, ending: Ending, now: float) -> None:
        """End a registration and everything held under it (RFC 3103 §9.4.3, §9.5)."""
        for bind_id in sorted(client.bindings):
            self.unbind(client, bind_id, ending=ending, now=now)
        self._deadlines.discard(client.owner)
        del self._clients[client.owner]
        self._client_ids.discard(client.client_id)
        self.effects.append(Deregister(owner=client.owner, ending=ending))
        self._transit(client, ClientEvent.DEREGISTER, now)

    def restore(
        self, registrations: Iterable[Registration], held: Iterable[tuple[Binding, Lease]], *, now: float
    ) -> None:
        """Take over what a store kept, with the same Client IDs and Bind IDs.

        No effects come of it but Unbind, for a binding whose host is not registered.
        """
        for each in registrations:
            self._enter(
                Client(
                    owner=each.owner,
                    client_id=each.client_id,
                    expires_at=each.expires_at,
                    local_policy=LocalPolicy(each.local_policy),
                    remote_policy=RemotePolicy(each.remote_policy),
                    last_bind_id=each.last_bind_id,
                )
            )
        for binding, lease in held:
            owner, resource = binding.key.owner, resource_of(binding)
            client = self._clients.get(owner)
            self._pool.restore(owner, resource)
            if client is None:
                self._pool.release(owner, resource, now=now)
                self.effects.append(Unbind(key=binding.key, ending=Ending.REVOKED))
                continue
            one = Held(binding=binding, lease=lease, expires_at=lease.expires_at)
            self._hold(client, one)
            client.expires_at = max(client.expires_at, one.expires_at)
            client.last_bind_id = max(client.last_bind_id, binding.key.bind_id)
            client.state = ClientState.ASSIGNED
            self._deadlines.set(owner, client.expires_at)

    def note(self, client: Client, event: ClientEvent, *, now: float) -> None:
        """Trace what changes nothing: a query."""
        self._transit(client, event, now)

    def holders(self, address: Address, port: int | None) -> tuple[BindingKey, ...]:
        """Every binding that holds a port of an address, has lent it, or holds the address whole.

        Args:
            address: A leased address.
            port: None: every binding that holds anything of it.
        """
        return tuple(
            held.binding.key
            for client in self._clients.values()
            for held in client.bindings.values()
            if held.binding.address == address
            and (
                port is None
                or held.resource.whole
                or port in (held.resource.ports or ())
                or port in lent_by(held.binding)
            )
        )

    def __iter__(self) -> Iterator[Client]:
        """Every registered host, in the order of registration."""
        return iter(self._clients.values())

    def _enter(self, client: Client) -> None:
        self._clients[client.owner] = client
        self._client_ids.add(client.client_id)
        self._deadlines.set(client.owner, client.expires_at)

    def _hold(self, client: Client, held: Held) -> None:
        client.bindings[held.binding.key.bind_id] = held
        _note_loans(client, held)
        self._deadlines.set(held.binding.key, held.expires_at)

    def _rebind(self, client: Client, bind_id: int, binding: Binding, *, now: float) -> None:
        """Let a binding hold something else from now on; its deadline stays."""
        held = client.bindings[bind_id]
        held.binding = binding
        _note_loans(client, held)
        # A new line of history begins: the old one says who had what until now.
        held.lease = replace(held.lease, granted_at=now, expires_at=held.expires_at)
        self.effects.append(Bind(binding=binding, lease=held.lease))

    def _prolong(self, client: Client, until: float) -> None:
        """R = max(R, Bi) (RFC 3103 §6)."""
        if until > client.expires_at:
            client.expires_at = until
            self._deadlines.set(client.owner, until)
            self.effects.append(Prolong(owner=client.owner, expires_at=until))

    def _transit(self, client: Client, event: ClientEvent, now: float) -> None:
        before, client.state = client.state, next_client_state(client.state, event)
        if self._trace is not None:
            self._trace(
                Transition(
                    now=now,
                    who=str(client.owner),
                    state=before,
                    event=event,
                    after=client.state,
                    effects=len(self.effects),
                )
            )


def _note_loans(client: Client, held: Held) -> None:
    if lent_by(held.binding):
        client.lenders.add(held.binding.key.bind_id)
    else:
        client.lenders.discard(held.binding.key.bind_id)


def _registration(client: Client) -> Registration:
    return Registration(
        owner=client.owner,
        client_id=client.client_id,
        expires_at=client.expires_at,
        local_policy=int(client.local_policy),
        remote_policy=int(client.remote_policy),
    )
