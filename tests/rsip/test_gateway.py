# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway grants, under which numbers, and by which effects."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Method, Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import (
    Bind,
    Deregister,
    Extend,
    Prolong,
    Register,
    Remember,
    Send,
    Unbind,
)
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy, TunnelType
from isthmus.wire.rsip.message import (
    emit,
    parse,
)
from rsip.conversation import (
    FAR,
    GATEWAY,
    NEAR,
    REMOTE,
    SHARED,
    START,
    WHOLE,
    Ledger,
    Raw,
    make_gateway,
    make_policy,
)
from rsip.requests import assign_address, assign_ports, client_of, deregister, extend, free, register

ALICE = Owner(NEAR, Address.parse("10.0.0.4"))


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def unasked(talk: Raw):
    """What the gateway has sent by itself."""
    return [parse(send.data) for send in talk.drain()]


# Granting


@pytest.mark.rfc("3103", "9.3")
def test_a_registration_lists_policy_methods_and_tunnels():
    talk = raw(remote=2)
    answer = talk.ask(register(41))
    assert answer.message_counter.value == 41
    assert answer.lease_time.value == 600
    assert (answer.flow_policy.local, answer.flow_policy.remote) == (1, 2)
    assert [each.value for each in answer.methods] == [2, 1]
    assert [each.value for each in answer.tunnel_types] == [1, 2]
    registration = talk.ledger.registrations[ALICE]
    assert (registration.client_id, registration.expires_at) == (answer.client_id.value, START + 600)
    assert (registration.local_policy, registration.remote_policy) == (1, 2)


def test_the_longest_prefix_decides_the_flow_policy():
    rules = (
        ClientRule(prefix=Prefix.parse("10.0.0.0/8")),
        ClientRule(
            prefix=Prefix.parse("10.0.0.4/32"), local_policy=LocalPolicy.MICRO, remote_policy=RemotePolicy.MACRO
        ),
    )
    talk = raw(clients=rules)
    policy = talk.ask(register()).flow_policy
    assert (policy.local, policy.remote) == (2, 1)


@pytest.mark.rfc("3102", "3.3")
@pytest.mark.rfc("3103", "7.3.2")
@pytest.mark.rfc("3103", "9.9")
def test_a_port_binding_is_what_the_response_says():
    talk = raw()
    answer = talk.ask(assign_ports(client_of(talk), ports=6, tunnel=2))
    (binding, lease) = talk.ledger.leases[BindingKey(ALICE, 1)]
    (selector,) = binding.selectors
    assert Ranges.of(*answer.local_ports.port_set) == selector.values
    assert len(selector.values) == 6
    assert (selector.realm, selector.kind, selector.address) == (FAR, Kind.PORT, SHARED)
    assert answer.local_address.address == SHARED
    assert selector.remote.network is None
    assert selector.remote.admit is Admit.CONTACTED
    tunnel = binding.crossing
    assert (tunnel.realm, tunnel.local, tunnel.remote) == (NEAR, GATEWAY, ALICE.address)
    assert (tunnel.kind, tunnel.mtu) == (TunnelKind.GRE, 1476)
    assert answer.tunnel_type.value == 2
    assert answer.tunnel_endpoint.address == GATEWAY
    assert (lease.method, lease.granted_at, lease.expires_at) == (Method.RSAP_IP, START, START + 600)


@pytest.mark.rfc("3102", "3.3")
@pytest.mark.rfc("3103", "7.3.1")
@pytest.mark.rfc("3103", "9.7")
def test_a_whole_address_hears_from_anyone():
    talk = raw()
    answer = talk.ask(assign_address(client_of(talk), address=WHOLE.address))
    (binding, lease) = talk.ledger.leases[BindingKey(ALICE, 1)]
    assert answer.local_address.address == WHOLE.address == binding.address
    assert binding.selectors[0].kind is None
    assert binding.selectors[0].remote.admit is Admit.ANYONE
    assert (binding.crossing.kind, binding.crossing.mtu) == (TunnelKind.IPIP, 1480)
    assert lease.method is Method.RSA_IP


def test_a_pool_may_admit_anyone():
    talk = raw(admit=Admit.ANYONE)
    talk.ask(assign_ports(client_of(talk)))
    assert talk.ledger.leases[BindingKey(ALICE, 1)][0].selectors[0].remote.admit is Admit.ANYONE


@pytest.mark.parametrize("ports", [(5000,), (5000, 5001, 5002), (5000, 5010, 6000), (6000, 5000)])
def test_named_ports_are_granted_as_named(ports):
    talk = raw()
    answer = talk.ask(assign_ports(client_of(talk), ports=ports))
    assert set(answer.local_ports.port_set) == set(ports)


@pytest.mark.rfc("3103", "9.3.3")
@pytest.mark.parametrize(
    ("offered", "asked", "granted"),
    [((1, 2), None, 1), ((2, 1), None, 1), ((2,), None, 2), ((1, 2), 2, 2), ((2, 1), 1, 1)],
)
def test_ip_ip_is_the_tunnel_of_who_does_not_say(offered, asked, granted):
    talk = raw(tunnel_types=tuple(TunnelType(each) for each in offered))
    assert talk.ask(assign_ports(client_of(talk), tunnel=asked)).tunnel_type.value == granted


@pytest.mark.rfc("3103", "7.3.3")
@pytest.mark.rfc("3103", "9.9.3")
@pytest.mark.parametrize(
    ("policy", "remote", "ports", "address_back", "ports_back"),
    [
        (3, None, 1, None, None),
        (3, REMOTE, (80,), None, None),
        (3, "www.bar.com", 1, "www.bar.com", None),
        (1, REMOTE, 1, REMOTE, None),
        (1, REMOTE, (80,), REMOTE, None),
        (2, REMOTE, (80,), REMOTE, (80,)),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_the_remote_fields_of_the_response_follow_the_policy(policy, remote, ports, address_back, ports_back, whole):
    talk = raw(remote=policy)
    request = assign_address if whole else assign_ports
    answer = talk.ask(request(client_of(talk), remote=remote, remote_ports=ports))
    got = answer.remote_address
    assert (got.name or got.address) == address_back
    assert answer.remote_ports.port_set == ports_back
    limit = talk.ledger.leases[BindingKey(ALICE, 1)][0].selectors[0].remote
    assert limit.network == (Prefix.of(REMOTE) if isinstance(address_back, Address) else None)
    assert limit.port == (80 if ports_back else None)


# Identifiers


def test_client_ids_are_unlike_each_other_not_zero_and_repeatable():
    def ids():
        gateway = make_gateway()
        return [client_of(Raw(gateway, address=f"10.0.{n}.4")) for n in range(200)]

    first = ids()
    assert len(set(first)) == 200
    assert 0 not in first
    assert ids() == first


@pytest.mark.rfc("3103", "8.5")
def test_bind_ids_count_from_one_for_each_host_and_are_not_used_twice():
    talk = raw()
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    alices, bobs = client_of(talk), client_of(bob)
    assert [talk.ask(assign_ports(alices, n)).bind_id.value for n in (2, 3)] == [1, 2]
    assert bob.ask(assign_ports(bobs)).bind_id.value == 1
    talk.ask(free(alices, 2, 4))
    assert talk.ask(assign_ports(alices, 5)).bind_id.value == 3


# The order and the completeness of effects


def test_effects_come_in_the_order_in_which_they_arose():
    talk = raw()
    gateway, peer = talk.gateway, talk.peer

    def effects(message):
        gateway.receive_datagram(emit(message), peer, now=talk.now)
        return gateway.next_effects()

    first = effects(register())
    client_id = first[0].registration.client_id
    assert [type(each) for each in first] == [Register, Remember, Send]
    assert [type(each) for each in effects(assign_ports(client_id, 2))] == [Bind, Remember, Send]
    assert [type(each) for each in effects(assign_ports(client_id, 3, lease=900))] == [Bind, Prolong, Remember, Send]
    assert [type(each) for each in effects(extend(client_id, 1, 4, lease=1200))] == [Extend, Prolong, Remember, Send]
    assert [type(each) for each in effects(free(client_id, 1, 5))] == [Unbind, Remember, Send]
    assert [type(each) for each in effects(free(client_id, 1, 6))] == [Send]
    assert [type(each) for each in effects(deregister(client_id, 7))] == [Unbind, Deregister, Remember, Send]
    assert gateway.next_effects() == ()


def test_what_is_remembered_is_the_request_and_its_answer():
    talk = raw()
    data = emit(register(8))
    (answer,) = talk.octets(data)
    assert talk.ledger.answers[ALICE] == Remember(owner=ALICE, port=40001, counter=8, request=data, answer=answer)


def test_nothing_is_remembered_of_tcp():
    talk = raw()
    talk.connection = 3
    client_of(talk, None)
    assert talk.ledger.answers == {}


# Odds and ends


def test_every_change_of_state_is_traced():
    trace = []
    talk = Raw(make_gateway(trace=trace.append))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2))
    talk.ask(assign_ports(client_id, 3))
    talk.ask(extend(client_id, 1, 4))
    talk.ask(free(client_id, 1, 5))
    talk.ask(free(client_id, 2, 6))
    talk.ask(deregister(client_id, 7))
    assert [each.event for each in trace] == [
        "REGISTER",
        "BIND",
        "BIND",
        "EXTEND",
        "UNBIND",
        "UNBIND_LAST",
        "DEREGISTER",
    ]
    assert [each.after for each in trace][-2:] == ["REGISTERED", "UNREGISTERED"]
    assert {each.who for each in trace} == {"10.0.0.4"}
    assert all(each.effects > 0 and each.now == START for each in trace)


def test_the_same_calls_give_the_same_effects():
    def play():
        gateway, effects = make_gateway(), []
        for n in range(20):
            talk = Raw(gateway, address=f"10.0.0.{n}", ledger=Ledger())
            client_id = client_of(talk)
            talk.ask(assign_ports(client_id, 2, ports=n + 1))
            effects += talk.ledger.history
        return effects

    assert play() == play()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_minimum": 0},
        {"lease_default": 10},
        {"lease_maximum": 100},
        {"registration_lease": 0},
        {"tunnel_types": ()},
        {"tunnel_types": (TunnelType.L2TP,)},
        {"methods": ()},
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValueError):
        GatewayPolicy(clients=(), **wrong)


def test_a_gateway_refuses_a_pool_of_another_realm():
    with pytest.raises(ValueError, match="realm"):
        make_gateway(realm=9)
