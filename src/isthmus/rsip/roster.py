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
from itertools import islice
from typing import TYPE_CHECKING

from isthmus.address import Address
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind, Deregister, Effect, Ending, Extend, Prolong, Register, Unbind
from isthmus.border.pool import Pool
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, resource_of
from isthmus.border.selector import Selector
from isthmus.rsip.allocation import Allocation
from isthmus.rsip.client import Client, Held
from isthmus.rsip.deadline import Deadlines
from isthmus.rsip.ends import TunnelEnds
from isthmus.rsip.folded import ClientIds, FoldedHosts
from isthmus.rsip.lending import heirs, lend, lent_by, take_back
from isthmus.rsip.policy import ClientRule
from isthmus.rsip.states import ClientEvent, ClientState, Transition, next_client_state
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        pool.ask(self._held_by)
        self._clients: dict[Owner, Client] = {}
        self._client_ids = ClientIds()
        self.folded = FoldedHosts(ends.realm)
        "Hosts that are registered, but not here: see ``forget``."
        self._deadlines: Deadlines[BindingKey] = Deadlines()
        "Of bindings, and of registrations with 0 for the Bind ID, so that they come first."
        self.effects: list[Effect] = []
        "What has been done and not yet been taken away."

    def __len__(self) -> int:
        """How many hosts are registered."""
        return len(self._clients) + len(self.folded)

    @property
    def at_hand(self) -> int:
        """How many of them are here."""
        return len(self._clients)

    def get(self, owner: Owner) -> Client | None:
        """The registered host behind an address, if it is not folded."""
        client = self._clients.get(owner)
        if client is not None:
            client.touched = True
        return client

    def next_deadline(self) -> float | None:
        """When the next lease runs out."""
        return self._deadlines.next_at()

    def pop_due(self, now: float) -> BindingKey | None:
        """A binding, or with Bind ID 0 a registration, whose time is up."""
        return self._deadlines.pop_due(now)

    def may_be_due(self, now: float) -> bool:
        """Whether there could be any."""
        return self._deadlines.may_be_due(now)

    def overdue(self, owner: Owner, now: float) -> list[BindingKey]:
        """What of one host is due, as ``pop_due`` would give it."""
        client = self._clients.get(owner)
        if client is None:
            return []
        deadlines = [(held.expires_at, held.binding.key) for held in client.bindings.values()]
        return [key for at, key in sorted([(client.expires_at, BindingKey(owner, 0)), *deadlines]) if at <= now]

    def register(self, owner: Owner, rule: ClientRule, *, seconds: int, now: float) -> Client:
        """Admit a host under a fresh Client ID (RFC 3103 §9.3.3: unlike all others)."""
        assert owner not in self.folded, f"{owner} is folded"
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
        return self.hold(
            client, allocation.selectors, allocation.tunnel_kind, allocation.method, seconds=seconds, now=now
        )

    def hold(
        self,
        client: Client,
        selectors: tuple[Selector, ...],
        tunnel_kind: TunnelKind,
        method: Method,
        *,
        seconds: int,
        now: float,
    ) -> Held:
        """Make a binding of what was taken from the pool."""
        client.last_bind_id += 1
        until = now + seconds
        binding = Binding(
            key=BindingKey(client.owner, client.last_bind_id),
            selectors=selectors,
            crossing=self._ends.tunnel(client.owner.address, tunnel_kind),
        )
        lease = Lease(client_id=client.client_id, method=method, granted_at=now, expires_at=until)
        held = Held(binding=binding, lease=lease, expires_at=until)
        client.bindings[binding.key.bind_id] = held
        self._deadlines.set(binding.key, until)
        self.effects.append(Bind(binding=binding, lease=lease))
        self._prolong(client, until)
        self._transit(client, ClientEvent.BIND, now)
        return held

    def extend(self, client: Client, held: Held, *, seconds: int, until: float | None, now: float) -> None:
        """Give a binding more time; what it has is only made shorter where ``until`` is nearer."""
        # Silent: RFC 3103 §9.11.3 lets the gateway decide; "extend" is taken at its word, to shorten there is FREE.
        later = max(held.expires_at, now + seconds)
        held.expires_at = later if until is None else min(later, until)
        self._deadlines.set(held.binding.key, held.expires_at)
        self.effects.append(Extend(key=held.binding.key, expires_at=held.expires_at, binding=held.binding))
        self._prolong(client, held.expires_at)
        self._transit(client, ClientEvent.EXTEND, now)

    def unbind(self, client: Client, bind_id: int, *, ending: Ending, now: float) -> None:
        """End a binding and let its resource rest, but for ports that go back to who lent them."""
        held = client.bindings.pop(bind_id)
        client.lenders.discard(bind_id)
        self._deadlines.discard(held.binding.key)
        self.effects.append(Unbind(key=held.binding.key, ending=ending, binding=held.binding))
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
        self._deadlines.discard(BindingKey(client.owner, 0))
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
            self._admit(each)
        for binding, lease in held:
            self._pool.restore(binding.key.owner, resource_of(binding))
            if not self._give_back(binding, lease):
                self.disown((binding,), now=now)

    def disown(self, bindings: Iterable[Binding], *, now: float) -> None:
        """End bindings that nobody holds: their hosts are not registered."""
        for binding in bindings:
            self._pool.release(binding.key.owner, resource_of(binding), now=now)
            self.effects.append(Unbind(key=binding.key, ending=Ending.REVOKED, binding=binding))

    # Hosts that are known to the store alone

    def idle(self, most: int) -> list[Client]:
        """Some hosts that nobody has asked for since they were here last; the others come later."""
        found = []
        for owner in list(islice(self._clients, most)):
            client = self._clients[owner]
            if not client.touched:
                found.append(client)
            client.touched = False
            self._clients[owner] = self._clients.pop(owner)
        return found

    def forget(self, client: Client) -> None:
        """Fold a host: from now on the store alone knows what it is and has. Pool and Client IDs stay as they are."""
        owner = client.owner
        for held in client.bindings.values():
            self._deadlines.discard(held.binding.key)
        self._deadlines.discard(BindingKey(owner, 0))
        del self._clients[owner]
        self.folded.add(owner)

    def recall(self, registrations: Iterable[Registration], held: Iterable[tuple[Binding, Lease]]) -> None:
        """Unfold hosts, with what the store has of them; of others nothing is taken."""
        recalled = {each.owner for each in registrations if each.owner in self.folded}
        for each in registrations:
            if each.owner in recalled:
                self.folded.discard(each.owner)
                self._admit(each)
        for binding, lease in held:
            if binding.key.owner in recalled:
                self._give_back(binding, lease)

    def adopt(self, near: int, addresses: NDArray[np.uint32], client_ids: NDArray[np.uint32]) -> None:
        """Note IPv4 hosts of a realm that are folded from the beginning, with their Client IDs in the same order."""
        self._client_ids.add_all(client_ids)
        self.folded.add_all(near, addresses)

    def adopt_host(self, registration: Registration) -> None:
        """Note any host that is folded from the beginning."""
        self._client_ids.add(registration.client_id)
        self.folded.add(registration.owner)

    def lapse(self, near: int, addresses: NDArray[np.uint32], client_ids: NDArray[np.uint32]) -> None:
        """Let folded IPv4 hosts of a realm be registered no more."""
        self._client_ids.discard_all(client_ids)
        self.folded.discard_all(near, addresses)

    def are_folded(self, near: int, addresses: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of many IPv4 hosts of a realm are folded."""
        return self.folded.present(near, addresses)

    def held_by(self, owner: Owner) -> tuple[BindingKey, ...]:
        """The bindings of a host that is here."""
        client = self._clients.get(owner)
        return () if client is None else tuple(held.binding.key for held in client.bindings.values())

    def _held_by(self, owner: Owner) -> list[Resource]:
        client = self._clients.get(owner)
        return [] if client is None else [held.resource for held in client.bindings.values()]

    def _admit(self, registration: Registration) -> None:
        self._enter(
            Client(
                owner=registration.owner,
                client_id=registration.client_id,
                expires_at=registration.expires_at,
                local_policy=LocalPolicy(registration.local_policy),
                remote_policy=RemotePolicy(registration.remote_policy),
                last_bind_id=registration.last_bind_id,
            )
        )

    def _give_back(self, binding: Binding, lease: Lease) -> bool:
        """Let a host have a binding that it had; False if it is not registered."""
        owner = binding.key.owner
        client = self._clients.get(owner)
        if client is None:
            return False
        one = Held(binding=binding, lease=lease, expires_at=lease.expires_at)
        self._take_up(client, one)
        client.expires_at = max(client.expires_at, one.expires_at)
        client.last_bind_id = max(client.last_bind_id, binding.key.bind_id)
        client.state = ClientState.ASSIGNED
        self._deadlines.set(BindingKey(owner, 0), client.expires_at)
        return True

    def note(self, client: Client, event: ClientEvent, *, now: float) -> None:
        """Trace what changes nothing: a query."""
        self._transit(client, event, now)

    def holders(self, address: Address, port: int | None) -> tuple[BindingKey, ...]:
        """Every binding of a host that is here and holds a port of an address, has lent it, or holds the address whole.

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
        """Every registered host that is here."""
        return iter(self._clients.values())

    def _enter(self, client: Client) -> None:
        self._clients[client.owner] = client
        self._client_ids.add(client.client_id)
        self._deadlines.set(BindingKey(client.owner, 0), client.expires_at)

    def _take_up(self, client: Client, held: Held) -> None:
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
        self.effects.append(Bind(binding=binding, lease=held.lease, renewed=True))

    def _prolong(self, client: Client, until: float) -> None:
        """R = max(R, Bi) (RFC 3103 §6)."""
        if until > client.expires_at:
            client.expires_at = until
            self._deadlines.set(BindingKey(client.owner, 0), until)
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
