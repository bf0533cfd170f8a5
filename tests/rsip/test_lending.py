# SPDX-License-Identifier: BSD-3-Clause
"""Two hosts, eight ports: whatever they assign, listen on, free, outlive and restart, each port has its one holder."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isthmus.border.binding import BindingKey
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.border.resource import resource_of
from isthmus.border.selector import Admit, Flow, Kind
from isthmus.rsip.lending import lent_by
from isthmus.wire.rsip.message import ErrorResponse
from rsip.conversation import FAR, REMOTE, SHARED, Raw, make_gateway, make_policy, make_pool
from rsip.requests import assign_ports, assign_spis, client_of, deregister, extend, free, listen

PORTS = range(5000, 5008)
SPIS = Ranges.of((0x1000, 0x1003))


def small_pool():
    return make_pool(
        shared=[(SHARED, Ranges.of(PORTS))],
        spis={SHARED: SPIS},
        ike=[SHARED],
        slice_size=8,
        quota=Quota(ports=8, bindings=9, spis=4),
    )


ports_ = st.sets(st.sampled_from(PORTS), min_size=1, max_size=4).map(lambda some: tuple(sorted(some)))


class Lending(RuleBasedStateMachine):
    """The gateway beside a dictionary of what each response has promised."""

    def __init__(self) -> None:
        super().__init__()
        self.talks = [Raw(make_gateway(make_policy(lease_minimum=10), small_pool()))]
        self.talks.append(Raw(self.talks[0].gateway, address="10.0.0.5", ledger=self.talks[0].ledger))
        self.ledger = self.talks[0].ledger
        self.counter = 1
        self.ids = [client_of(talk) for talk in self.talks]
        self.promised: dict[BindingKey, tuple[set[int], bool]] = {}
        "Ports by binding, and whether it listens."

    def ask(self, who, make, *arguments, **keywords):
        self.counter += 1
        return self.talks[who].ask(make(self.ids[who], *arguments, counter=self.counter, **keywords))

    def promise(self, who, answer, *, listens):
        if not isinstance(answer, ErrorResponse):
            key = BindingKey(self.talks[who].peer.owner, answer.bind_id.value)
            assert key not in self.promised, "a Bind ID came back"
            self.promised[key] = (set(answer.local_ports.port_set or ()), listens)

    @rule(who=st.integers(0, 1), ports=ports_, lease=st.sampled_from([10, 100, 1000]))
    def assign(self, who, ports, lease):
        self.promise(who, self.ask(who, assign_ports, ports=ports, lease=lease), listens=False)

    @rule(who=st.integers(0, 1), ports=ports_, lease=st.sampled_from([10, 100, 1000]))
    def listen(self, who, ports, lease):
        self.promise(who, self.ask(who, listen, ports=ports, lease=lease), listens=True)

    @rule(who=st.integers(0, 1), spis=st.integers(1, 2), ports=st.none() | ports_)
    def ipsec(self, who, spis, ports):
        self.promise(who, self.ask(who, assign_spis, spis=spis, ports=ports, lease=100), listens=False)

    @precondition(lambda self: self.promised)
    @rule(data=st.data(), how=st.sampled_from(["free", "revoke", "extend"]))
    def touch(self, data, how):
        key = data.draw(st.sampled_from(sorted(self.promised)))
        who = [talk.peer.owner for talk in self.talks].index(key.owner)
        if how == "extend":
            assert self.ask(who, extend, key.bind_id, lease=500).lease_time.value >= 500
            return
        if how == "revoke":
            assert self.talks[0].gateway.revoke(key, now=self.talks[0].now)
            self.talks[0].drain()
        else:
            assert self.ask(who, free, key.bind_id).bind_id.value == key.bind_id
        del self.promised[key]

    @rule(seconds=st.sampled_from([1, 10, 100, 400]))
    def wait(self, seconds):
        for talk in self.talks:
            talk.now += seconds
        self.talks[0].gateway.handle_timer(now=self.talks[0].now)
        self.talks[0].drain()
        self.promised = {key: each for key, each in self.promised.items() if key in self.ledger.leases}
        for who, talk in enumerate(self.talks):
            if talk.peer.owner not in self.ledger.registrations:
                self.ids[who] = client_of(talk, self.counter)
                self.promised = {key: each for key, each in self.promised.items() if key.owner != talk.peer.owner}

    @rule(who=st.integers(0, 1))
    def leave(self, who):
        self.ask(who, deregister)
        self.promised = {k: each for k, each in self.promised.items() if k.owner != self.talks[who].peer.owner}
        self.counter += 1
        self.ids[who] = client_of(self.talks[who], self.counter)

    @rule()
    def restart(self):
        gateway = make_gateway(make_policy(lease_minimum=10), small_pool(), seed=self.counter)
        for talk in self.talks:
            talk.gateway = gateway
        self.ledger.restart(gateway, self.talks[0].now)

    @invariant()
    def every_port_is_with_the_youngest_that_listens_or_else_with_its_lender(self):
        assert set(self.promised) == set(self.ledger.leases)
        for port in PORTS:
            flow = Flow(realm=FAR, local=SHARED, remote=REMOTE, kind=Kind.PORT, value=port)
            entry = self.ledger.table.lookup(flow)
            wanted = [key for key, (ports, _) in self.promised.items() if port in ports]
            assert len({key.owner for key in wanted}) <= 1
            assert (None if entry is None else entry.binding.key) == max(wanted, default=None)
            if entry is not None:
                (selector,) = (each for each in entry.binding.selectors if each.owns(flow))
                listens = self.promised[entry.binding.key][1]
                assert selector.remote.admit is (Admit.ANYONE if listens else Admit.CONTACTED)
        for key, (ports, _) in self.promised.items():
            binding = self.ledger.leases[key][0]
            assert set(resource_of(binding).ports or ()) | set(lent_by(binding)) == ports

    def teardown(self):
        for who in range(2):
            self.leave(who)
        for talk in self.talks:
            talk.now += 120
        assert len(self.ask(0, assign_ports, ports=tuple(PORTS)).local_ports.port_set) == len(PORTS)
        assert len(self.ask(1, assign_spis, spis=4).spi.spi_set) == len(SPIS)


Lending.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLending = Lending.TestCase
