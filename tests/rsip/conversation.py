# SPDX-License-Identifier: BSD-3-Clause
"""Hosts and a gateway joined by a fake link, on a fake clock. No test here waits for anything.

``Conversation`` carries octets between them and the effects into a ``BindingTable``, in the
order that a driver keeps; so every test also checks that what the gateway says it granted
can stand in one table. Steps are plain calls::

    talk = Conversation()
    alice = talk.host("10.0.0.4")
    alice.register()
    talk.run()                      # until nobody has anything to say
    talk.drop(1)                    # the next message of anybody is lost
    talk.duplicate(1)               # the next one comes twice
    talk.reorder(2)                 # the next two come in the other order
    talk.advance(600)               # time passes, timers go off
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from isthmus.address import Address, Family, Prefix
from isthmus.border.effect import (
    Bind,
    Deregister,
    Effect,
    Extend,
    Peer,
    Prolong,
    Register,
    Remember,
    Send,
    Unbind,
    in_order,
)
from isthmus.border.pool import Pool
from isthmus.border.ranges import Ranges
from isthmus.border.resource import resource_of
from isthmus.border.table import BindingTable
from isthmus.rsip.events import Event
from isthmus.rsip.gateway import Gateway
from isthmus.rsip.host import Host
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.rsip.states import Transition
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy
from isthmus.wire.rsip.message import Message, emit, parse

NEAR, FAR = 1, 2
GATEWAY = Address.parse("10.0.0.1")
SHARED = Address.parse("149.112.240.55")
OTHER = Address.parse("149.112.240.56")
WHOLE = Prefix.parse("149.112.240.16/30")
REMOTE = Address.parse("192.156.136.22")
GATEWAY_PEER = Peer(NEAR, GATEWAY, 4555)
START = 1_000_000.0


def make_pool(**changes: object) -> Pool:
    """One shared address with 4096 ports, and four whole addresses."""
    options: dict = {
        "shared": [(SHARED, Ranges.of((4096, 8191)))],
        "whole": [WHOLE],
        "slice_size": 64,
        "seed": 3,
    }
    return Pool(FAR, **(options | changes))


class Unmoved(random.Random):
    """What a pool draws from where a test compares what is granted: a request that is refused may draw twice."""

    def getrandbits(self, _bits: int) -> int:
        return 0


def make_policy(*, local: int = 1, remote: int = 3, **changes: object) -> GatewayPolicy:
    """Everybody in 10/8, without limits of rate."""
    rule = ClientRule(
        prefix=Prefix.parse("10.0.0.0/8"), local_policy=LocalPolicy(local), remote_policy=RemotePolicy(remote)
    )
    options: dict = {"clients": (rule,), "requests_per_second": None}
    return GatewayPolicy(**(options | changes))


def make_gateway(policy: GatewayPolicy | None = None, pool: Pool | None = None, **changes: object) -> Gateway:
    options: dict = {
        "realm_near": NEAR,
        "realm": FAR,
        "tunnel_ends": {Family.IPV4: GATEWAY},
        "link_mtu": 1500,
        "seed": 7,
    }
    return Gateway(pool=pool or make_pool(), policy=policy or make_policy(), **(options | changes))


@dataclass
class Ledger:
    """What a driver would have in its store and its plane."""

    table: BindingTable = field(default_factory=BindingTable)
    registrations: dict = field(default_factory=dict)
    leases: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    resting: list = field(default_factory=list)
    history: list[Effect] = field(default_factory=list)

    def carry_out(self, effects: tuple[Effect, ...], now: float) -> list[Send]:
        """In the one order; returns what is to be sent."""
        plan = in_order(effects)
        self.history.extend(effects)
        for effect in plan.persist:
            match effect:
                case Register():
                    self.registrations[effect.registration.owner] = effect.registration
                case Deregister():
                    del self.registrations[effect.owner]
                    assert not [key for key in self.leases if key.owner == effect.owner], "deregistered with bindings"
                case Prolong():
                    before = self.registrations[effect.owner]
                    assert effect.expires_at > before.expires_at
                    self.registrations[effect.owner] = replace(before, expires_at=effect.expires_at)
                case Bind():
                    key = effect.binding.key
                    before = self.registrations[key.owner]
                    self.registrations[key.owner] = replace(before, last_bind_id=max(before.last_bind_id, key.bind_id))
                    if key in self.leases:
                        # A LISTEN shares ports with an older binding, or gives them back: it gains and loses no time.
                        old, lease = self.leases[key]
                        assert (old.crossing, lease.expires_at) == (effect.binding.crossing, effect.lease.expires_at)
                    self.leases[key] = (effect.binding, effect.lease)
                case Extend():
                    binding, lease = self.leases[effect.key]
                    self.leases[effect.key] = (binding, replace(lease, expires_at=effect.expires_at))
                case Unbind():
                    binding, _ = self.leases.pop(effect.key)
                    self.resting.append((now, resource_of(binding)))
                case Remember():
                    self.answers[effect.owner] = effect
        for effect in plan.unprogram:
            self.table.apply(effect)
        for effect in plan.program:
            self.table.apply(effect)
        for key, (_, lease) in self.leases.items():
            assert self.registrations[key.owner].expires_at >= lease.expires_at, "R < B"
        assert {entry.binding.key for entry in self.table} == set(self.leases)
        return list(plan.answer)

    def restart(self, gateway: Gateway, now: float) -> None:
        """Give a new gateway what the old one left."""
        gateway.restore(
            tuple(self.registrations.values()),
            tuple(self.leases.values()),
            tuple(self.answers.values()),
            tuple(self.resting),
            now=now,
        )


class Conversation:
    """One gateway, any number of hosts, one clock."""

    def __init__(self, *, policy: GatewayPolicy | None = None, pool: Pool | None = None, udp: bool = True) -> None:
        self.now = START
        self.trace: list[Transition] = []
        self.gateway = make_gateway(policy, pool, trace=self.trace.append)
        self.ledger = Ledger()
        self.udp = udp
        self.hosts: dict[Peer, Host] = {}
        self.events: dict[Host, list[Event]] = {}
        self.sent: list[tuple[float, Message]] = []
        "Every message that was put on the link."
        self._drop = self._duplicate = 0
        self._drop_from: set[str] = set()
        self._held: list | None = None
        self._hold = 0

    # The link

    def drop(self, count: int, *, source: str = "") -> None:
        """Lose the next messages; of ``source`` "host" or "gateway" only, if given."""
        self._drop, self._drop_from = count, {source} if source else {"host", "gateway"}

    def duplicate(self, count: int) -> None:
        """Deliver the next messages twice."""
        self._duplicate = count

    def reorder(self, count: int) -> None:
        """Hold the next messages back and deliver them in the other order."""
        self._hold, self._held = count, []

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever is due happens when it is due."""
        until = self.now + seconds
        everybody = [self.gateway, *self.hosts.values()]
        for _ in range(100_000):
            self.run()
            due = min((at for each in everybody if (at := each.get_timer()) is not None), default=until + 1)
            if due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            for each in everybody:
                each.handle_timer(now=self.now)
        raise AssertionError("a timer stays due")

    def run(self) -> None:
        """Carry messages until nobody has anything to say, at one point in time."""
        for _ in range(10_000):
            moved = False
            for peer, host in self.hosts.items():
                for data in host.datagrams_to_send(now=self.now):
                    moved = True
                    self._carry("host", data, peer)
                self._collect(host)
            moved |= self._answer()
            if not moved:
                return
        raise AssertionError("they never stop talking")

    def _answer(self) -> bool:
        sends = self.ledger.carry_out(self.gateway.next_effects(), self.now)
        for send in sends:
            self._carry("gateway", send.data, send.peer)
        return bool(sends)

    def _carry(self, source: str, data: bytes, peer: Peer) -> None:
        self.sent.append((self.now, parse(data, strict=False)))
        if self._drop and source in self._drop_from:
            self._drop -= 1
            return
        if self._held is not None:
            self._held.append((source, data, peer))
            if len(self._held) == self._hold:
                held, self._held = self._held, None
                for each in reversed(held):
                    self._deliver(*each)
            return
        self._deliver(source, data, peer)
        if self._duplicate:
            self._duplicate -= 1
            self._deliver(source, data, peer)

    def _deliver(self, source: str, data: bytes, peer: Peer) -> None:
        if source == "gateway":
            host = self.hosts.get(peer)
            if host is None:
                return
            if peer.connection:
                host.receive_message(data, now=self.now)
            else:
                host.receive_datagram(data, GATEWAY_PEER, now=self.now)
            self._collect(host)
        elif peer.connection:
            self.gateway.receive_message(data, peer, now=self.now)
        else:
            self.gateway.receive_datagram(data, peer, now=self.now)

    def _collect(self, host: Host) -> None:
        while (event := host.next_event()) is not None:
            self.events[host].append(event)

    # The parties

    def host(self, address: str = "10.0.0.4", *, port: int = 40001, **options: object) -> Host:
        """A new host on the link."""
        connection = 0 if self.udp else port
        host = Host(gateway=Peer(NEAR, GATEWAY, 4555, connection), **options)  # type: ignore[arg-type]
        self.hosts[Peer(NEAR, Address.parse(address), port, connection)] = host
        self.events[host] = []
        return host

    def remove(self, host: Host) -> None:
        """The host is switched off."""
        self.hosts = {peer: each for peer, each in self.hosts.items() if each is not host}

    def peer_of(self, host: Host) -> Peer:
        return next(peer for peer, each in self.hosts.items() if each is host)

    def registered(self, address: str = "10.0.0.4", **options: object) -> Host:
        """A new host, registered."""
        host = self.host(address, **options)
        host.register()
        self.run()
        return host

    def take(self, host: Host) -> list[Event]:
        """The events since the last time."""
        events, self.events[host] = self.events[host], []
        return events

    def restart_gateway(self, *, keep_leases: bool, pool: Pool | None = None, seed: int = 11) -> None:
        """The gateway dies and comes back, with its store or without."""
        self.gateway = make_gateway(self.gateway._policy, pool, trace=self.trace.append, seed=seed)
        if keep_leases:
            self.ledger.restart(self.gateway, self.now)
        else:
            self.ledger = Ledger()


@dataclass
class Raw:
    """A peer that says whatever a test wants, and hears what a gateway answers."""

    gateway: Gateway
    address: str = "10.0.0.4"
    port: int = 40001
    connection: int = 0
    now: float = START
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def peer(self) -> Peer:
        return Peer(NEAR, Address.parse(self.address), self.port, self.connection)

    def octets(self, data: bytes) -> list[bytes]:
        """Send octets, return the answers; never more than one comes back from where we are."""
        take = self.gateway.receive_message if self.connection else self.gateway.receive_datagram
        take(data, self.peer, now=self.now)
        return [send.data for send in self.drain()]

    def drain(self) -> list[Send]:
        return self.ledger.carry_out(self.gateway.next_effects(), self.now)

    def ask(self, message: Message) -> Message | None:
        """Send a message, return the answer."""
        answers = self.octets(emit(message))
        assert len(answers) <= 1
        return parse(answers[0]) if answers else None
