# SPDX-License-Identifier: BSD-3-Clause
"""Whatever several hosts, a bad network, an operator, crashes and time do, the promises hold.

The machine does the moving: three hosts behind a network that loses, doubles, delays and replays, and one that
speaks TCP; a gateway with a store, that may die between any two steps. The checks are ``Ledger.carry_out`` (which every effect goes
through: one table can hold it all, no binding without registration, R ≥ every B), ``_look_at`` (nobody gets what
another holds or what still rests), ``_is_durable`` (no answer before the store has what it says) and the
invariants below.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isthmus.border.binding import Owner
from isthmus.border.effect import Peer, Send, in_order
from isthmus.border.identity import identity_value
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.border.resource import resource_of
from isthmus.rsip.states import HostState
from isthmus.store.memory import MemoryStore
from isthmus.wire.rsip.codes import MessageType
from isthmus.wire.rsip.message import parse
from isthmus.wire.rsip.parameter import IkeIdentity
from rsip.conversation import (
    GATEWAY_PEER,
    NEAR,
    REMOTE,
    SHARED,
    START,
    WHOLE,
    Address,
    Host,
    Ledger,
    make_gateway,
    make_policy,
    make_pool,
)

REST = 120.0
SEEDS = 40
POLICIES = [(1, 3), (1, 1), (2, 2)]
ASKED = (
    "register", "ports", "ports", "named", "address", "listen", "listen on mine", "spis", "spis and ports",
    "named spis", "ike", "extend", "free", "query", "deregister",
)  # fmt: skip
FATES = ("lose", "double", "delay", "replay")
JUMPS = (1.0, 65.0, 3600.0)
WAITS = (0.05, 0.2, 2.0, 15.0, 70.0, 130.0)
_GRANTS = (
    MessageType.ASSIGN_RESPONSE_RSA_IP,
    MessageType.ASSIGN_RESPONSE_RSAP_IP,
    MessageType.ASSIGN_RESPONSE_RSIPSEC,
    MessageType.LISTEN_RESPONSE,
    MessageType.LISTEN_RESPONSE_RSIP_IKE,
)


def small_pool():
    return make_pool(
        shared=[(SHARED, Ranges.of((4096, 4127)))],
        whole=[WHOLE],
        spis={SHARED: Ranges.of((0x1000, 0x101F))},
        ike=[SHARED],
        slice_size=8,
        quota=Quota(bindings=6, ports=20, spis=12),
    )


class Talk(RuleBasedStateMachine):
    """Four hosts, a bad network, a gateway that may die."""

    make_gateway = staticmethod(make_gateway)

    @initialize(seed=st.integers(0, 2**16), policy=st.sampled_from(POLICIES), holding=st.booleans())
    def begin(self, seed, policy, holding=False):
        self.now = START
        self.rng = random.Random(seed)
        self.most = 1 if policy[0] == 2 else 9
        "Ports that one request may ask for: one under local micro-flow policy (RFC 3103 §7.1)."
        self.policy = make_policy(
            local=policy[0], remote=policy[1], lease_minimum=10, lease_default=60, listen_micro=bool(seed & 1)
        )
        self.gateway = self.make_gateway(self.policy, small_pool())
        self.ledger, self.store = Ledger(), MemoryStore()
        self.hosts = {
            Peer(NEAR, Address.parse(f"10.0.0.{n}"), 40000 + n): Host(gateway=GATEWAY_PEER) for n in (4, 5, 6)
        }
        self.connections = itertools.count(1)
        self._connect(Address.parse("10.0.0.7"), Host(gateway=replace(GATEWAY_PEER, connection=1)))
        self.under_way: list[tuple[str, bytes, Peer]] = []
        self.holders: dict = {}
        "Who holds each port, SPI, address and identity."
        self.deadlines: dict = {}
        "When the lease of each ends at the latest."
        self.freed: dict = {}
        "When each was given back."
        self.said: set[tuple[bytes, Peer]] = set()
        self.restarts = 0
        for host in self.hosts.values() if holding else ():
            host.register()
            host.assign_ports(1, remote=REMOTE, remote_port=80)
            host.assign_spis(2, 1, remote=REMOTE, remote_port=80)
            self._flush()
            self.settle()

    # What a driver does with effects, and what must be true of them

    def _carry_out(self, *, answered: Peer | None = None, dies: str = "") -> None:
        """Persist, program, answer; a gateway that ``dies`` does so before or after it has persisted."""
        effects = self.gateway.next_effects()
        sends = [each for each in effects if isinstance(each, Send)]
        # On TCP an answer has no counter that would tell it from what is unasked.
        answers = [each for each in sends if not each.peer.connection and parse(each.data).message_counter.value]
        assert len(answers) <= 1, "one message, two answers"
        assert all(each.peer == answered for each in answers), "answered to somebody else"
        if dies == "before":
            return
        self.store.commit(in_order(effects).persist, now=self.now)
        self.ledger.carry_out(effects, self.now)
        self._look_at()
        for send in sends:
            if (send.data, send.peer) not in self.said:
                self._is_durable(send)
        # Said or not, from now on it is a copy that is given to a copy of the request.
        self.said |= {(send.data, send.peer) for send in sends}
        if dies == "after":
            return
        self.under_way += [("gateway", send.data, send.peer) for send in sends]

    def _look_at(self) -> None:
        """Nobody has what another had a moment ago, or what was given back less than two minutes ago."""
        holders: dict = {}
        deadlines = self.deadlines
        self.deadlines = {}
        for held in self.store.leases():
            for item in _items(held.binding):
                assert item not in holders, f"{item} is held twice"
                holders[item] = held.binding.key.owner
                self.deadlines[item] = held.lease.expires_at
        for item, owner in holders.items():
            if item in self.holders:
                assert self.holders[item] == owner, f"{item} went from one host to another at once"
            elif item[1] != "identity":
                assert self.now - self.freed.get(item, -1e9) >= REST, f"{item} was leased again before it had rested"
        # No plane forwards beyond a deadline, so that is when it was over, whoever noticed when.
        self.freed |= {item: min(self.now, deadlines[item]) for item in self.holders.keys() - holders.keys()}
        self.holders = holders
        clients = [each.client_id for each in self.ledger.registrations.values()]
        assert len(set(clients)) == len(clients), "two hosts with one Client ID"

    def _is_durable(self, send: Send) -> None:
        """What an answer says stands in the store already."""
        message, owner = parse(send.data), send.peer.owner
        kept = self.store.load(rested_since=self.now)
        registered = {each.owner: each.client_id for each in kept.registrations}
        leases = {held.binding.key: held for held in kept.bindings if held.binding.key.owner == owner}
        mine = {key.bind_id: held for key, held in leases.items()}
        if message.type is MessageType.REGISTER_RESPONSE:
            assert registered[owner] == message.client_id.value
        elif message.type is MessageType.DE_REGISTER_RESPONSE:
            assert registered.get(owner) != message.client_id.value
            assert not mine
        elif message.type in _GRANTS:
            held = mine[message.bind_id.value]
            resource = resource_of(held.binding)
            assert resource.address == message.local_address.address
            assert held.lease.expires_at == self.now + message.lease_time.value
            if message.type is MessageType.ASSIGN_RESPONSE_RSIPSEC:
                assert tuple(resource.spis) == message.spi.spi_set
        elif message.type is MessageType.EXTEND_RESPONSE:
            assert mine[message.bind_id.value].lease.expires_at >= self.now + message.lease_time.value
        elif message.type is MessageType.FREE_RESPONSE:
            assert message.bind_id.value not in mine

    # Moves

    def _connect(self, address: Address, host: Host) -> None:
        """A host that speaks TCP has a connection, and after the loss of one another."""
        self.hosts = {peer: each for peer, each in self.hosts.items() if peer.address != address}
        number = next(self.connections)
        self.hosts[Peer(NEAR, address, 50000 + number, number)] = host

    @rule()
    def reset(self):
        """The connection of the host that speaks TCP is lost, and what was under way on it."""
        peer, host = next((peer, host) for peer, host in self.hosts.items() if peer.connection)
        self.under_way = [each for each in self.under_way if each[2] != peer]
        self.gateway.connection_lost(peer)
        host.connection_lost(now=self.now)
        self._connect(peer.address, host)
        self._flush()

    def _flush(self) -> None:
        for peer, host in self.hosts.items():
            self.under_way += [("host", data, peer) for data in host.datagrams_to_send(now=self.now)]

    def _deliver(self, message, *, dies: str = "") -> None:
        source, data, peer = message
        if source == "host":
            take = self.gateway.receive_message if peer.connection else self.gateway.receive_datagram
            take(data, peer, now=self.now)
            self._carry_out(answered=peer, dies=dies)
        elif peer in self.hosts and peer.connection:
            self.hosts[peer].receive_message(data, now=self.now)
        elif peer in self.hosts:
            self.hosts[peer].receive_datagram(data, GATEWAY_PEER, now=self.now)
        self._flush()

    def _pick(self) -> Peer:
        return self.rng.choice(sorted(self.hosts))

    @rule(what=st.sampled_from(ASKED))
    def ask(self, what):
        host = self.hosts[self._pick()]
        if host.state is HostState.UNREGISTERED and self.rng.random() < 0.9:
            host.register()
        bound = sorted(host.bindings)
        remote = {"remote": REMOTE, "remote_port": 80}
        match what:
            case "ports":
                host.assign_ports(
                    self.rng.randint(1, self.most), lease_seconds=self.rng.choice([None, 10, 500]), **remote
                )
            case "named":
                host.assign_ports(self._run(4090, 4127), **remote)
            case "address":
                host.assign_address(self.rng.choice([None, WHOLE.address]), **remote)
            case "listen":
                host.listen(self.rng.choice([1, self.most, self._run(4094, 4127)]), **remote)
            case "listen on mine" if bound:
                held = host.bindings[self.rng.choice(bound)]
                if held.ports:
                    host.listen(held.ports, address=held.address, **remote)
            case "spis":
                host.assign_spis(self.rng.randint(1, 5), **remote)
            case "spis and ports":
                host.assign_spis(self.rng.randint(1, 3), self.rng.randint(1, self.most), **remote)
            case "named spis":
                host.assign_spis(self._run(0x0FFE, 0x101F), 1, **remote)
            case "ike":
                host.listen_ike(IkeIdentity(kind=2, data=self.rng.choice([b"a.example", b"b.example"])), remote=REMOTE)
            case "query":
                host.query([REMOTE])
            case "extend" | "free" if bound:
                getattr(host, what)(self.rng.choice(bound))
            case "register" | "deregister":
                getattr(host, what)()
        self._flush()

    def _run(self, first: int, last: int) -> Ranges:
        """One to three numbers in a row."""
        start = self.rng.randint(first, last)
        return Ranges.of((start, start + self.rng.randint(0, min(2, self.most - 1))))

    @precondition(lambda self: self.under_way)
    @rule(count=st.integers(1, 8))
    def deliver(self, count):
        for _ in range(count):
            if self.under_way:
                self._deliver(self.under_way.pop(0))

    @rule()
    def settle(self):
        """For a moment the network is good."""
        for _ in range(40):
            if self.under_way:
                self._deliver(self.under_way.pop(0))

    @precondition(lambda self: any(not peer.connection for _, _, peer in self.under_way))
    @rule(fate=st.sampled_from(FATES))
    def spoil(self, fate):
        at = self.rng.choice([at for at, (_, _, peer) in enumerate(self.under_way) if not peer.connection])
        message = self.under_way[at]
        if fate in ("lose", "delay"):
            del self.under_way[at]
        if fate == "delay":
            self.under_way.append(message)
        elif fate == "double":
            self.under_way.insert(at, message)
        elif fate == "replay":
            self._deliver(message)

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds):
        until = self.now + seconds
        for _ in range(10_000):
            timers = [self.gateway.get_timer(), *(host.get_timer() for host in self.hosts.values())]
            due = min((each for each in timers if each is not None), default=until + 1)
            if due > until:
                break
            self.now = max(self.now, due)
            self.gateway.handle_timer(now=self.now)
            self._carry_out()
            for host in self.hosts.values():
                host.handle_timer(now=self.now)
            self._flush()
        else:
            raise AssertionError("a timer stays due")
        self.now = until

    @rule(seconds=st.sampled_from(JUMPS))
    def jump(self, seconds):
        """Nobody looked at a clock for a while: a machine that slept."""
        self.now += seconds
        self.gateway.handle_timer(now=self.now)
        self._carry_out()

    @rule(everything=st.booleans())
    def revoke(self, everything=False):
        keys = sorted(self.ledger.leases)
        if keys:
            key = self.rng.choice(keys)
            assert (
                self.gateway.dismiss(key.owner, now=self.now) if everything else self.gateway.revoke(key, now=self.now)
            )
            self._carry_out()

    @precondition(lambda self: any(source == "host" for source, _, _ in self.under_way))
    @rule(moment=st.sampled_from(["before", "after"]))
    def die(self, moment):
        """The gateway dies over a message: before it is durable, or after and before it is answered."""
        at = next(at for at, (source, _, _) in enumerate(self.under_way) if source == "host")
        self._deliver(self.under_way.pop(at), dies=moment)
        self.restart_the_gateway()

    @rule()
    def restart_the_gateway(self):
        self.restarts += 1
        self.gateway = self.make_gateway(self.policy, small_pool(), seed=1000 + self.restarts)
        kept = self.store.load(rested_since=self.now - REST)
        held = [(each.binding, each.lease) for each in kept.bindings]
        self.gateway.restore(kept.registrations, held, kept.answers, kept.resting, now=self.now)
        assert len(self.gateway) == len(kept.registrations)
        self.reset()
        self._carry_out()

    @rule()
    def restart_a_host(self):
        peer = self._pick()
        if peer.connection:
            self.reset()
            peer = next(each for each in self.hosts if each.address == peer.address)
        self.hosts[peer] = Host(gateway=replace(GATEWAY_PEER, connection=peer.connection))

    # Promises

    @invariant()
    def the_store_has_what_the_plane_has(self):
        if hasattr(self, "store"):
            kept = {held.binding.key: (held.binding, held.lease) for held in self.store.leases()}
            assert kept == self.ledger.leases

    @invariant()
    def a_host_holds_no_more_than_the_gateway_says_and_no_longer(self):
        for peer, host in getattr(self, "hosts", {}).items():
            for bind_id, held in host.bindings.items():
                keys = [key for key in self.ledger.leases if key.owner == peer.owner and key.bind_id == bind_id]
                for key in keys:
                    binding, lease = self.ledger.leases[key]
                    registration = self.ledger.registrations[peer.owner]
                    if registration.client_id == host.client_id:
                        assert binding.address == held.address
                        assert held.expires_at <= lease.expires_at

    @invariant()
    def the_state_of_a_host_fits_what_it_holds(self):
        for host in getattr(self, "hosts", {}).values():
            if host.state in (HostState.UNREGISTERED, HostState.REG_PENDING, HostState.RESYNC_PENDING):
                assert host.client_id is None
                assert not host.bindings
            else:
                assert host.client_id is not None
            if host.bindings:
                assert "ASSIGNED" in host.state or host.state is HostState.FREE_PENDING

    def teardown(self):
        """At last the network is good: everybody leaves, and everything is free again."""
        if not hasattr(self, "hosts"):
            return
        self.wait(30.0)
        for _ in range(400):
            if not self.under_way:
                break
            self._deliver(self.under_way.pop(0))
        for host in self.hosts.values():
            host.deregister()
        for _ in range(40):
            self._flush()
            while self.under_way:
                self._deliver(self.under_way.pop(0))
            self.wait(0.2)
        self.wait(8000.0)
        assert not self.store.leases()
        assert not self.ledger.registrations
        assert len(self.gateway) == 0
        self._everything_can_be_leased_again()

    def _everything_can_be_leased_again(self) -> None:
        """Strangers take all that there is, each as much as one may."""
        pool, strangers = self.gateway._pool, itertools.count(1)

        def stranger():
            return Owner(NEAR, Address.parse(f"10.9.9.{next(strangers)}"))

        for first in range(4096, 4128, 16):
            pool.take_ports(stranger(), ports=Ranges.of((first, first + 15)), now=self.now)
        for first in range(0x1000, 0x1020, 8):
            pool.take_spis(stranger(), spis=Ranges.of((first, first + 7)), now=self.now)
        for _ in range(4):
            pool.take_address(stranger(), now=self.now)
        assert not pool.free_ports()
        assert not pool.free_addresses()
        for identity in (b"a.example", b"b.example"):
            pool.take_identity(stranger(), identity=identity_value(2, identity), now=self.now)


def _items(binding):
    """Everything that only one host can hold."""
    resource = resource_of(binding)
    if resource.whole:
        return [(resource.address, "whole")]
    return [
        *((resource.address, "port", port) for port in resource.ports or ()),
        *((resource.address, "spi", spi) for spi in resource.spis or ()),
        *((resource.address, "identity", value) for value in resource.identities or ()),
    ]


# Not shrunk: making a failing conversation shorter takes longer than the suite has patience for.
Talk.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TestTalk = Talk.TestCase


@pytest.mark.rfc("3102", "2")
@pytest.mark.rfc("3102", "3.2")
@pytest.mark.rfc("3102", "6.1")
@pytest.mark.rfc("3103", "9.3.3")
def test_random_conversations_end_as_they_should():
    """The same machine, driven by a plain random walk: longer runs than Hypothesis makes."""
    for seed in range(SEEDS):
        walk(Talk(), random.Random(seed), seed)


def walk(talk, rng, seed):
    """Let a conversation go at random."""
    talk.begin(seed, rng.choice(POLICIES))
    for _ in range(200):
        match rng.randrange(14):
            case 0 | 1 | 2 | 3 | 11:
                talk.ask(rng.choice(ASKED))
            case 12:
                talk.settle()
            case 4 | 5 | 6 | 13:
                talk.deliver(rng.randint(1, 8)) if talk.under_way else None
            case 7:
                talk.spoil(rng.choice(FATES)) if any(not each[2].connection for each in talk.under_way) else None
            case 8:
                talk.wait(rng.choice(WAITS[:5])) if rng.random() < 0.8 else talk.jump(rng.choice(JUMPS))
            case 9:
                if any(source == "host" for source, _, _ in talk.under_way):
                    talk.die(rng.choice(["before", "after"]))
            case 10:
                rng.choice([talk.revoke, talk.restart_the_gateway, talk.restart_a_host, talk.reset])()
        talk.the_store_has_what_the_plane_has()
        talk.a_host_holds_no_more_than_the_gateway_says_and_no_longer()
        talk.the_state_of_a_host_fits_what_it_holds()
    talk.teardown()
