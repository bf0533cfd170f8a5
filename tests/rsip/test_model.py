# SPDX-License-Identifier: BSD-3-Clause
"""Whatever several hosts, a bad network, an operator and time do, the promises hold.

The machine does the moving; the checks are ``Ledger.carry_out`` (which every effect goes
through: no tuple held by two, no binding without registration, R ≥ every B) and the
invariants below.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isthmus.border.effect import Bind, Peer, Send, Unbind
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.rsip.client import resource_of
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.message import parse
from rsip.conversation import SHARED, START, WHOLE, Ledger, Raw, make_gateway, make_policy, make_pool

REST = 120.0
SEEDS = 25


def small_pool():
    return make_pool(
        shared=[(SHARED, Ranges.of((4096, 4127)))], whole=[WHOLE], slice_size=8, quota=Quota(bindings=5, ports=20)
    )


class Talk(RuleBasedStateMachine):
    """Three hosts behind a network that loses, doubles, delays and reorders."""

    @initialize(seed=st.integers(0, 2**16), policy=st.sampled_from([(1, 3), (1, 1), (2, 2)]))
    def begin(self, seed, policy):
        from rsip.conversation import GATEWAY_PEER, NEAR, Address, Host

        self.now = START
        self.rng = random.Random(seed)
        self.policy = make_policy(local=policy[0], remote=policy[1], lease_minimum=10, lease_default=60)
        self.gateway = make_gateway(self.policy, small_pool())
        self.ledger = Ledger()
        self.hosts = {
            Peer(NEAR, Address.parse(f"10.0.0.{n}"), 40000 + n): Host(gateway=GATEWAY_PEER) for n in (4, 5, 6)
        }
        self.under_way: list[tuple[str, bytes, Peer]] = []
        self.freed: dict = {}
        "When each port or address was given back."
        self.restarts = 0

    def _carry_out(self, *, answered: Peer | None = None) -> None:
        effects = self.gateway.next_effects()
        answers = 0
        for effect in effects:
            if isinstance(effect, Bind):
                for item in _items(resource_of(effect.binding)):
                    assert self.now - self.freed.get(item, -1e9) >= REST, "leased again before it had rested"
            elif isinstance(effect, Unbind):
                binding = self.ledger.leases[effect.key][0]
                self.freed |= dict.fromkeys(_items(resource_of(binding)), self.now)
            elif isinstance(effect, Send) and parse(effect.data).message_counter.value:
                answers += 1
                assert effect.peer == answered
        assert answers <= 1, "one message, two answers"
        for send in self.ledger.carry_out(effects, self.now):
            self.under_way.append(("gateway", send.data, send.peer))

    def _flush(self) -> None:
        for peer, host in self.hosts.items():
            self.under_way += [("host", data, peer) for data in host.datagrams_to_send(now=self.now)]

    def _deliver(self, message) -> None:
        source, data, peer = message
        if source == "host":
            self.gateway.receive_datagram(data, peer, now=self.now)
            self._carry_out(answered=peer)
        elif peer in self.hosts:
            from rsip.conversation import GATEWAY_PEER

            self.hosts[peer].receive_datagram(data, GATEWAY_PEER, now=self.now)
        self._flush()

    def _pick(self) -> Peer:
        return self.rng.choice(sorted(self.hosts))

    @rule(what=st.sampled_from(["register", "ports", "ports", "named", "address", "extend", "free", "deregister"]))
    def ask(self, what):
        host = self.hosts[self._pick()]
        bound = sorted(host.bindings)
        from rsip.conversation import REMOTE

        remote = {"remote": REMOTE, "remote_port": 80}
        match what:
            case "ports":
                host.assign_ports(self.rng.randint(1, 9), lease_seconds=self.rng.choice([None, 10, 500]), **remote)
            case "named":
                first = self.rng.randint(4090, 4127)
                host.assign_ports(Ranges.of((first, first + self.rng.randint(0, 2))), **remote)
            case "address":
                host.assign_address(self.rng.choice([None, WHOLE.address]), **remote)
            case "extend" | "free" if bound:
                getattr(host, what)(self.rng.choice(bound))
            case "register" | "deregister":
                getattr(host, what)()
        self._flush()

    @precondition(lambda self: self.under_way)
    @rule(count=st.integers(1, 8))
    def deliver(self, count):
        for _ in range(count):
            if self.under_way:
                self._deliver(self.under_way.pop(0))

    @precondition(lambda self: self.under_way)
    @rule(fate=st.sampled_from(["lose", "double", "delay", "replay"]))
    def spoil(self, fate):
        at = self.rng.randrange(len(self.under_way))
        message = self.under_way[at]
        if fate in ("lose", "delay"):
            del self.under_way[at]
        if fate == "delay":
            self.under_way.append(message)
        elif fate == "double":
            self.under_way.insert(at, message)
        elif fate == "replay":
            self._deliver(message)

    @rule(seconds=st.sampled_from([0.05, 0.2, 2.0, 15.0, 70.0, 130.0]))
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

    @rule()
    def revoke(self):
        keys = sorted(self.ledger.leases)
        if keys:
            assert self.gateway.revoke(self.rng.choice(keys), now=self.now)
            self._carry_out()

    @rule()
    def restart_the_gateway(self):
        self.restarts += 1
        self.gateway = make_gateway(self.policy, small_pool(), seed=1000 + self.restarts)
        self.ledger.restart(self.gateway, self.now)
        self._carry_out()

    @rule()
    def restart_a_host(self):
        from rsip.conversation import GATEWAY_PEER, Host

        self.hosts[self._pick()] = Host(gateway=GATEWAY_PEER)

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
        assert not self.ledger.leases
        assert not self.ledger.registrations
        assert len(self.gateway) == 0


def _items(resource):
    return [(resource.address, port) for port in resource.ports or (None,)]


Talk.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTalk = Talk.TestCase


def test_random_conversations_end_as_they_should():
    """The same machine, driven by a plain random walk: longer runs than Hypothesis makes."""
    for seed in range(SEEDS):
        rng, talk = random.Random(seed), Talk()
        talk.begin(seed, rng.choice([(1, 3), (1, 1), (2, 2)]))
        for _ in range(200):
            match rng.randrange(10):
                case 0 | 1 | 2 | 3:
                    talk.ask(
                        rng.choice(["register", "ports", "ports", "named", "address", "extend", "free", "deregister"])
                    )
                case 4 | 5 | 6:
                    talk.deliver(rng.randint(1, 8)) if talk.under_way else None
                case 7:
                    talk.spoil(rng.choice(["lose", "double", "delay", "replay"])) if talk.under_way else None
                case 8:
                    talk.wait(rng.choice([0.05, 0.2, 2.0, 15.0, 70.0]))
                case 9:
                    rng.choice([talk.revoke, talk.restart_the_gateway, talk.restart_a_host])()
            talk.a_host_holds_no_more_than_the_gateway_says_and_no_longer()
            talk.the_state_of_a_host_fits_what_it_holds()
        talk.teardown()


def test_raw_is_importable_for_other_rooms():
    assert Raw(make_gateway()).octets(b"") != []
