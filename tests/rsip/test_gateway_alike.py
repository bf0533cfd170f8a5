# SPDX-License-Identifier: BSD-3-Clause
"""A gateway that knows requests like the one before does what it does for every first one."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.border.effect import Bind, Peer, Send
from isthmus.border.ranges import Ranges
from isthmus.rsip.policy import ClientRule
from isthmus.wire.rsip import envelope
from isthmus.wire.rsip.codes import LocalPolicy, ParameterType, RemotePolicy
from isthmus.wire.rsip.message import AssignResponseRsapIp, emit, parse
from rsip.conversation import FAR, NEAR, REMOTE, SHARED, START, Unmoved, make_gateway, make_policy, make_pool
from rsip.requests import assign_address, assign_ports, assign_spis, deregister, free, register

HOSTS = [Peer(NEAR, Address.parse(f"10.{of}.0.{at}"), 40000) for of in (1, 2, 3, 4) for at in (1, 2)]
RULES = (
    ClientRule(prefix=Prefix.parse("10.0.0.0/8")),
    ClientRule(prefix=Prefix.parse("10.2.0.0/16"), local_policy=LocalPolicy.MICRO),
    ClientRule(prefix=Prefix.parse("10.3.0.0/16"), remote_policy=RemotePolicy.MICRO),
    ClientRule(prefix=Prefix.parse("10.4.0.0/16"), ipsec=False),
)
LAST = (
    *(int(each) for each in ParameterType if each is not ParameterType.MESSAGE_COUNTER),
    int(ParameterType.MESSAGE_COUNTER),
)
"An order of optional parameters with the counter at the end."

plain = st.builds(
    lambda remote_ports: lambda client_id, counter: assign_ports(client_id, counter, remote_ports=remote_ports),
    remote_ports=st.sampled_from([1, (80,)]),
)
assigns = st.builds(
    lambda **wanted: lambda client_id, counter: assign_ports(client_id, counter, **wanted),
    address=st.sampled_from([None, None, SHARED, REMOTE]),
    ports=st.sampled_from([1, 64, 65, 255, (4100,), (4100, 4101), (80,)]),
    remote=st.sampled_from([None, REMOTE, "name.example"]),
    remote_ports=st.sampled_from([1, 2, (80,)]),
    lease=st.sampled_from([None, 60, 100000]),
    tunnel=st.sampled_from([None, 1, 2, 3]),
)
others = st.one_of(
    st.just(lambda _, counter: register(counter)),
    st.just(assign_address),
    st.just(assign_spis),
    st.builds(lambda bind_id: lambda client_id, counter: free(client_id, bind_id, counter), st.integers(1, 3)),
    st.just(deregister),
)
requests = st.one_of(plain, plain, assigns, others)
steps = st.lists(
    st.tuples(st.integers(0, len(HOSTS) - 1), requests, st.booleans(), st.integers(0, 9)), min_size=15, max_size=40
)


def make(ceiling):
    pool = make_pool(spis={SHARED: Ranges.of((256, 511))}, ike=[SHARED])
    pool._rng = Unmoved()
    until = (lambda _address, now: now + 100 if int(now) % 2 else None) if ceiling else None
    return make_gateway(make_policy(clients=RULES), pool, lease_ceiling=until)


def effects_of(taken, ceiling):
    """What a gateway does in a conversation."""
    gateway, now, done = make(ceiling), START, []
    client_ids, counters = {}, dict.fromkeys(HOSTS, 0)
    for at, request, counter_last, more in taken:
        peer, now = HOSTS[at], now + more / 4
        counters[peer] += 1
        message = request(client_ids.get(peer, 5), counters[peer])
        data = emit(replace(message, order=LAST) if counter_last else message)
        gateway.receive_datagram(data, peer, now=now)
        effects = gateway.next_effects()
        for each in effects:
            if isinstance(each, Send) and (answer := parse(each.data)).type.name == "REGISTER_RESPONSE":
                client_ids[peer] = answer.client_id.value
        done.append(effects)
    return done, gateway.refusals


@settings(deadline=None, max_examples=150)
@given(steps, st.booleans())
def test_who_knows_requests_that_are_alike_does_the_same_as_who_does_not(taken, ceiling):
    taken = [*((at, lambda _, counter: register(counter), False, 0) for at in range(len(HOSTS))), *taken]
    known = effects_of(taken, ceiling)
    with patch.object(envelope, "likeness_of", lambda _: None), patch.object(envelope, "remember", lambda *_: None):
        assert effects_of(taken, ceiling) == known


def test_grants_to_hosts_that_ask_alike_say_what_was_bound():
    gateway = make(ceiling=False)
    for at in range(40):
        peer = Peer(NEAR, Address.parse(f"10.1.1.{at + 1}"), 40000 + at)
        gateway.receive_datagram(emit(register(at + 7)), peer, now=START)
        (admitted,) = (parse(each.data) for each in gateway.next_effects() if isinstance(each, Send))
        client_id = admitted.client_id.value
        gateway.receive_datagram(emit(assign_ports(client_id, at + 8, ports=16)), peer, now=START)
        effects = gateway.next_effects()
        (bound,) = (each.binding for each in effects if isinstance(each, Bind))
        (answer,) = (parse(each.data) for each in effects if isinstance(each, Send))
        assert isinstance(answer, AssignResponseRsapIp)
        assert answer.client_id.value == client_id
        assert answer.bind_id.value == bound.key.bind_id == 1
        assert answer.local_address.address == bound.address
        assert Ranges.of(*answer.local_ports.port_set) == bound.selectors[0].values
        assert answer.message_counter.value == at + 8
        assert bound.realm == FAR
        assert emit(answer) == next(each.data for each in effects if isinstance(each, Send))
