# SPDX-License-Identifier: BSD-3-Clause
"""LISTEN at a gateway: servers behind it, for peers never contacted (RFC 3103 §9.16, §9.17)."""

from __future__ import annotations

from itertools import permutations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Method, Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind, Ending, Remember, Send, Unbind
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Flow, Kind
from isthmus.rsip.policy import ClientRule
from isthmus.wire.rsip.codes import RemotePolicy, TunnelType
from isthmus.wire.rsip.message import ListenResponse, emit
from rsip.conversation import FAR, NEAR, REMOTE, SHARED, START, WHOLE, Raw, make_gateway, make_policy, make_pool
from rsip.requests import assign_ports, client_of, code_of, deregister, extend, free, listen

ALICE = Owner(NEAR, Address.parse("10.0.0.4"))
ELSEWHERE = Address.parse("198.51.100.9")
MACRO, MICRO = int(RemotePolicy.MACRO), int(RemotePolicy.MICRO)


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def neighbour(talk: Raw) -> Raw:
    return Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)


def holder(talk: Raw, port: int) -> BindingKey | None:
    """Who gets what comes for a port of the shared address."""
    entry = talk.ledger.table.lookup(Flow(realm=FAR, local=SHARED, remote=REMOTE, kind=Kind.PORT, value=port))
    return None if entry is None else entry.binding.key


def bind_id(talk: Raw, port: int) -> int | None:
    key = holder(talk, port)
    return None if key is None else key.bind_id


@pytest.mark.rfc("3103", "9.16.3")
def test_gateway_must_forward_all_packets_for_a_port_listened_on():
    talk = raw()
    answer = talk.ask(listen(client_of(talk), ports=(5000,)))
    assert isinstance(answer, ListenResponse)
    (binding, lease) = talk.ledger.leases[BindingKey(ALICE, 1)]
    (selector,) = binding.selectors
    assert (selector.kind, selector.values, selector.address) == (Kind.PORT, Ranges.of(5000), SHARED)
    assert (selector.remote.admit, selector.remote.network) == (Admit.ANYONE, None)
    assert lease.method is Method.RSAP_IP


@pytest.mark.rfc("3102", "6.4")
@pytest.mark.rfc("3103", "9.17")
def test_a_listen_response_says_bind_id_tuple_tunnel_and_lease():
    talk = raw()
    answer = talk.ask(listen(client_of(talk), 7, ports=3, lease=100))
    assert (answer.bind_id.value, answer.lease_time.value, answer.message_counter.value) == (1, 100, 7)
    assert answer.local_address.address == SHARED
    assert Ranges.of(*answer.local_ports.port_set) == talk.ledger.leases[BindingKey(ALICE, 1)][0].selectors[0].values
    assert len(answer.local_ports.port_set) == 3
    assert answer.tunnel_type.value == 1
    assert answer.tunnel_endpoint.address == Address.parse("10.0.0.1")


@pytest.mark.rfc("3103", "9.17.1")
@pytest.mark.rfc("3103", "9.17.3")
@pytest.mark.parametrize(
    ("policy", "ask", "address", "ports"),
    [
        (3, {}, None, None),
        (3, {"remote": REMOTE, "remote_ports": (80,)}, None, None),
        (MACRO, {"remote": REMOTE}, REMOTE, None),
        (MICRO, {"remote": REMOTE, "remote_ports": (80,)}, REMOTE, (80,)),
    ],
)
def test_the_remote_fields_of_a_listen_follow_the_policy(policy, ask, address, ports):
    talk = raw(remote=policy, listen_micro=True)
    answer = talk.ask(listen(client_of(talk), **ask))
    assert (answer.remote_address.address, answer.remote_ports.port_set) == (address, ports)
    remote = talk.ledger.leases[BindingKey(ALICE, 1)][0].selectors[0].remote
    assert (remote.network, remote.port) == (address and Prefix.of(address), ports and ports[0])
    assert remote.admit is Admit.ANYONE


@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.parametrize(
    ("policy", "ask", "code"),
    [
        ({"remote": MACRO}, {}, 103),
        ({"remote": MICRO, "listen_micro": True}, {"remote": REMOTE}, 103),
        ({"remote": MICRO, "listen_micro": True}, {"remote_ports": (80,)}, 103),
        ({"local": 2}, {"ports": 2}, 103),
        ({"remote": MACRO}, {"remote": "www.bar.com"}, 314),
        ({"remotes_denied": (Prefix.of(REMOTE),)}, {"remote": REMOTE}, 314),
        ({"remote_ports_denied": Ranges.of(80)}, {"remote_ports": (80,)}, 315),
        ({}, {"address": REMOTE}, 312),
        ({}, {"address": WHOLE.address}, 312),
        ({}, {"ports": (80,)}, 313),
        ({"forbidden_ports": Ranges.of(5000)}, {"ports": (5000,)}, 313),
        ({"tunnel_types": (TunnelType.IP_IP,)}, {"tunnels": (2, 3)}, 307),
        ({"listen": False}, {}, 208),
    ],
)
def test_the_errors_of_listen_are_those_of_assign(policy, ask, code):
    talk = raw(**policy)
    assert code_of(talk.ask(listen(client_of(talk), **ask))) == code
    assert not talk.ledger.leases


@pytest.mark.rfc("3103", "10.6")
def test_gateway_should_allow_servers_under_micro_policy_by_override_only():
    ask = {"remote": REMOTE, "remote_ports": (80,)}
    refused, allowed = raw(remote=MICRO), raw(remote=MICRO, listen_micro=True)
    assert code_of(refused.ask(listen(client_of(refused), **ask))) == 313
    assert allowed.ask(listen(client_of(allowed), **ask)).bind_id.value == 1


@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.rfc("3102", "6.4")
@pytest.mark.parametrize("first", [listen, assign_ports])
def test_gateway_must_deny_a_port_that_another_host_has(first):
    talk = raw()
    bob = neighbour(talk)
    talk.ask(first(client_of(talk), ports=(5000,)))
    client_id = client_of(bob)
    assert code_of(bob.ask(listen(client_id, 2, ports=(5000,)))) == 311
    assert code_of(bob.ask(listen(client_id, 3, ports=(4999, 5000)))) == 311
    assert code_of(bob.ask(assign_ports(client_id, 4, ports=(5000,)))) == 311


def test_309_where_any_n_ports_cannot_be_had():
    talk = raw(pool=make_pool(shared=[(SHARED, Ranges.of((4096, 4099)))], slice_size=4))
    assert code_of(talk.ask(listen(client_of(talk), ports=5))) == 309


@pytest.mark.rfc("3103", "9.16.2")
@pytest.mark.parametrize(
    ("offered", "asked", "granted"),
    [((1, 2), (), 1), ((1, 2), (2, 1), 2), ((1,), (3, 2, 1), 1), ((2,), (1, 2), 2), ((1, 2), (77, 2), 2)],
)
def test_of_several_tunnel_types_the_first_that_is_offered_is_granted(offered, asked, granted):
    talk = raw(tunnel_types=tuple(map(TunnelType, offered)))
    assert talk.ask(listen(client_of(talk), tunnels=asked)).tunnel_type.value == granted


@pytest.mark.rfc("3103", "9.17.1")
def test_listening_shares_the_bind_ids_and_is_extended_freed_and_expires_like_any_binding():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2))
    assert talk.ask(listen(client_id, 3, lease=100)).bind_id.value == 2
    assert talk.ask(extend(client_id, 2, 4, lease=900)).lease_time.value == 900
    assert talk.ask(free(client_id, 2, 5)).bind_id.value == 2
    assert talk.ask(listen(client_id, 6, lease=60)).bind_id.value == 3
    talk.gateway.handle_timer(now=START + 60)
    talk.drain()
    assert set(talk.ledger.leases) == {BindingKey(ALICE, 1)}


# Ports that the same host holds already


def test_a_host_may_listen_on_ports_that_it_holds():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000, 5001), lease=1000))
    talk.now += 10
    talk.gateway.receive_datagram(emit(listen(client_id, 3, ports=(5000,))), talk.peer, now=talk.now)
    effects = talk.gateway.next_effects()
    assert [type(each) for each in effects] == [Bind, Bind, Remember, Send]
    smaller, listening = effects[0], effects[1]
    assert (smaller.binding.key.bind_id, smaller.binding.selectors[0].values) == (1, Ranges.of(5001))
    assert smaller.binding.selectors[0].lent == Ranges.of(5000)
    assert (smaller.lease.granted_at, smaller.lease.expires_at) == (START + 10, START + 1000)
    assert (listening.binding.key.bind_id, listening.binding.selectors[0].remote.admit) == (2, Admit.ANYONE)
    talk.ledger.carry_out(effects, talk.now)
    assert (bind_id(talk, 5000), bind_id(talk, 5001)) == (2, 1)
    assert set(talk.gateway.holders(SHARED, port=5000)) == {BindingKey(ALICE, 1), BindingKey(ALICE, 2)}
    bob = neighbour(talk)
    assert code_of(bob.ask(listen(client_of(bob), ports=(5000,)))) == 311


def test_ports_go_back_when_the_listening_ends():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000,)))
    talk.ask(listen(client_id, 3, ports=(5000,)))
    assert talk.ledger.leases[BindingKey(ALICE, 1)][0].selectors[0].values == Ranges(())
    talk.gateway.receive_datagram(emit(free(client_id, 2, 4)), talk.peer, now=talk.now)
    effects = talk.gateway.next_effects()
    assert [type(each) for each in effects] == [Unbind, Bind, Remember, Send]
    talk.ledger.carry_out(effects, talk.now)
    assert bind_id(talk, 5000) == 1
    selector = talk.ledger.leases[BindingKey(ALICE, 1)][0].selectors[0]
    assert (selector.values, selector.lent, selector.remote.admit) == (Ranges.of(5000), Ranges(()), Admit.CONTACTED)


def test_the_lender_may_end_first():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000, 5001), lease=60))
    talk.ask(listen(client_id, 3, ports=(5000, 6000)))
    talk.now += 60
    talk.gateway.handle_timer(now=talk.now)
    talk.drain()
    assert (bind_id(talk, 5000), bind_id(talk, 5001), bind_id(talk, 6000)) == (2, None, 2)
    talk.ask(free(client_id, 2, 4))
    assert not talk.ledger.leases


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
@pytest.mark.parametrize("restart_before", [0, 1, 2])
def test_whatever_ends_first_everything_returns_to_the_pool(order, restart_before):
    """#1 has 5000-5003; #2 listens on 5001-5002, #3 on 5002-5004; each ends in turn, and a restart lies between."""
    pool = {"shared": [(SHARED, Ranges.of((5000, 5007)))], "slice_size": 8, "quota": Quota(ports=8)}
    talk = raw(pool=make_pool(**pool))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000, 5001, 5002, 5003)))
    talk.ask(listen(client_id, 3, ports=(5001, 5002)))
    talk.ask(listen(client_id, 4, ports=(5002, 5003, 5004)))
    assert [bind_id(talk, port) for port in range(5000, 5005)] == [1, 2, 3, 3, 3]
    has = {1: {5000, 5001, 5002, 5003}, 2: {5001, 5002}, 3: {5002, 5003, 5004}}
    for counter, ended in enumerate(order, 5):
        if counter - 5 == restart_before:
            talk.gateway = make_gateway(make_policy(), make_pool(**pool), seed=99)
            talk.ledger.restart(talk.gateway, talk.now)
        talk.ask(free(client_id, ended, counter))
        del has[ended]
        for port in range(5000, 5005):
            wanted = max((each for each, ports in has.items() if port in ports), default=None)
            assert bind_id(talk, port) == wanted, (ended, port)
    assert not talk.ledger.leases
    talk.now += 120
    assert len(talk.ask(assign_ports(client_id, 20, ports=8)).local_ports.port_set) == 8


def test_listening_takes_nothing_from_the_older_binding():
    talk = raw(remote=MACRO)
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000,), remote=REMOTE, tunnel=2))
    assert code_of(talk.ask(listen(client_id, 3, ports=(5000,), remote=ELSEWHERE))) == 311
    assert code_of(talk.ask(listen(client_id, 4, ports=(5000,), remote=REMOTE, tunnels=(1,)))) == 307
    answer = talk.ask(listen(client_id, 5, ports=(5000,), remote=REMOTE, tunnels=(1, 2)))
    assert answer.tunnel_type.value == int(TunnelKind.GRE)
    assert talk.ask(listen(client_id, 6, ports=(5000,), remote=REMOTE)).tunnel_type.value == 2


def test_a_rest_that_cannot_be_had_leaves_everything_as_it_was():
    talk = raw()
    bob = neighbour(talk)
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000,)))
    bob.ask(assign_ports(client_of(bob), ports=(5001,)))
    assert code_of(talk.ask(listen(client_id, 3, ports=(5000, 5001)))) == 311
    assert code_of(talk.ask(listen(client_id, 4, ports=(5000, 80)))) == 313
    assert bind_id(talk, 5000) == 1
    talk.ask(deregister(client_id))
    assert [each.owner for each in talk.ledger.leases] == [bob.peer.owner]


def test_a_host_that_deregisters_while_it_listens_leaves_nothing():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000, 5001)))
    talk.ask(listen(client_id, 3, ports=(5000,)))
    talk.ask(deregister(client_id))
    assert not talk.ledger.leases
    assert not len(talk.ledger.table)
    ended = [each for each in talk.ledger.history if isinstance(each, Unbind)]
    assert [(each.key.bind_id, each.ending) for each in ended] == [(1, Ending.FREED), (2, Ending.FREED)]


def test_a_listening_binding_may_be_the_one_too_many():
    talk = raw(pool=make_pool(quota=Quota(bindings=1)))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000,)))
    assert code_of(talk.ask(listen(client_id, 3, ports=(5000,)))) == 309
    assert bind_id(talk, 5000) == 1


def test_the_longest_prefix_decides_who_may_listen():
    rules = (
        ClientRule(prefix=Prefix.parse("10.0.0.0/8")),
        ClientRule(prefix=Prefix.parse("10.0.0.4/32"), remote_policy=RemotePolicy.MICRO),
    )
    talk = raw(clients=rules)
    bob = neighbour(talk)
    assert code_of(talk.ask(listen(client_of(talk), remote=REMOTE, remote_ports=(80,)))) == 313
    assert bob.ask(listen(client_of(bob))).bind_id.value == 1
