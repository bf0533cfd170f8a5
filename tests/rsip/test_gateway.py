# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway grants, for how long, and what it says by itself."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Method, Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import (
    Bind,
    Deregister,
    Ending,
    Extend,
    Peer,
    Prolong,
    Register,
    Remember,
    Send,
    Unbind,
)
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Flow, Kind
from isthmus.border.verdict import Reason, Violation
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy, TunnelType
from isthmus.wire.rsip.message import (
    DeregisterResponse,
    ErrorResponse,
    ExtendResponse,
    FreeResponse,
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
    make_pool,
)
from rsip.requests import assign_address, assign_ports, client_of, code_of, deregister, extend, free, register

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


# Lease times


@pytest.mark.rfc("3103", "6")
@pytest.mark.parametrize(("suggested", "granted"), [(None, 600), (0, 600), (1, 60), (100, 100), (10**9, 3600)])
def test_the_host_suggests_and_the_gateway_decides(suggested, granted):
    talk = raw()
    client_id = client_of(talk)
    assert talk.ask(assign_ports(client_id, lease=suggested)).lease_time.value == granted
    assert talk.ledger.leases[BindingKey(ALICE, 1)][1].expires_at == START + granted


@pytest.mark.rfc("3103", "6")
def test_r_is_max_of_r_and_every_binding():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=100))
    assert talk.ledger.registrations[ALICE].expires_at == START + 600
    talk.ask(assign_ports(client_id, 3, lease=1800))
    assert talk.ledger.registrations[ALICE].expires_at == START + 1800
    talk.now += 50
    talk.ask(extend(client_id, 1, 4, lease=3600))
    assert talk.ledger.registrations[ALICE].expires_at == START + 3650
    talk.ask(free(client_id, 1, 5))
    assert talk.ledger.registrations[ALICE].expires_at == START + 3650


def test_an_extension_counts_from_now_and_never_shortens():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=1000))
    talk.now += 100.5
    assert talk.ask(extend(client_id, 1, 3, lease=60)).lease_time.value == 899
    assert talk.ledger.leases[BindingKey(ALICE, 1)][1].expires_at == START + 1000
    assert talk.ask(extend(client_id, 1, 4)).lease_time.value == 899
    assert talk.ask(extend(client_id, 1, 5, lease=2000)).lease_time.value == 2000
    assert talk.ledger.leases[BindingKey(ALICE, 1)][1].expires_at == START + 2100.5


def test_a_binding_ends_when_its_lease_does_and_the_host_is_told():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=100))
    assert talk.gateway.get_timer() == START + 100
    talk.now += 99.9
    talk.gateway.handle_timer(now=talk.now)
    assert unasked(talk) == []
    talk.now = START + 100
    talk.gateway.handle_timer(now=talk.now)
    effects = talk.gateway.next_effects()
    assert effects[0] == Unbind(key=BindingKey(ALICE, 1), ending=Ending.EXPIRED)
    (answer,) = [parse(each.data) for each in effects if isinstance(each, Send)]
    assert isinstance(answer, FreeResponse)
    assert (answer.message_counter.value, answer.client_id.value, answer.bind_id.value) == (0, client_id, 1)
    assert talk.gateway.get_timer() == START + 600


@pytest.mark.rfc("3103", "9.5.3")
def test_a_registration_ends_with_its_last_binding_and_the_host_is_told():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=3600))
    talk.ask(assign_ports(client_id, 3, lease=3600))
    talk.now += 3600
    talk.gateway.handle_timer(now=talk.now)
    effects = talk.gateway.next_effects()
    assert [type(each) for each in effects] == [Unbind, Unbind, Deregister, Send]
    answer = parse(effects[-1].data)
    assert isinstance(answer, DeregisterResponse)
    assert (answer.message_counter.value, answer.client_id.value) == (0, client_id)
    assert len(talk.gateway) == 0
    assert talk.gateway.get_timer() is None


def test_a_late_driver_still_expires_first():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=60))
    talk.now += 61
    answers = [parse(each) for each in talk.octets(emit(extend(client_id, 1, 3)))]
    assert [type(each) for each in answers] == [FreeResponse, ErrorResponse]
    assert code_of(answers[1]) == 306


def test_freed_ports_rest_two_minutes():
    talk = raw(pool=make_pool(shared=[(SHARED, Ranges.of((4096, 4099)))], slice_size=4))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=4))
    talk.ask(free(client_id, 1, 3))
    talk.now += 119.9
    assert code_of(talk.ask(assign_ports(client_id, 4, ports=4))) == 309
    talk.now += 0.1
    assert talk.ask(assign_ports(client_id, 5, ports=4)).bind_id.value == 2


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


# Unasked messages


def test_a_revoked_binding_is_told():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id))
    key = BindingKey(ALICE, 1)
    assert talk.gateway.revoke(key, now=talk.now)
    assert not talk.gateway.revoke(key, now=talk.now)
    (answer,) = unasked(talk)
    assert isinstance(answer, FreeResponse)
    assert talk.ledger.history[-2] == Unbind(key=key, ending=Ending.REVOKED)


@pytest.mark.rfc("3103", "9.5")
def test_a_dismissed_host_is_told():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id))
    assert talk.gateway.dismiss(ALICE, now=talk.now)
    assert not talk.gateway.dismiss(ALICE, now=talk.now)
    (answer,) = unasked(talk)
    assert isinstance(answer, DeregisterResponse)
    assert not talk.ledger.leases


def test_unasked_datagrams_go_to_the_port_of_the_last_valid_request():
    talk = raw()
    client_id = client_of(talk)
    talk.port = 40002
    talk.ask(assign_ports(client_id))
    talk.port = 40003
    talk.ask(assign_ports(client_id ^ 1, 3))
    talk.gateway.revoke(BindingKey(ALICE, 1), now=talk.now)
    (send,) = talk.drain()
    assert send.peer.port == 40002


def test_unasked_messages_go_to_the_newest_connection_that_is_open():
    talk = raw()
    one, two = (Raw(talk.gateway, connection=n, port=40000 + n, ledger=talk.ledger) for n in (1, 2))
    client_id = client_of(one, None)
    for n in (2, 3, 4, 5):
        (one if n == 2 else two).ask(assign_ports(client_id, None))

    def revoke(bind_id):
        talk.gateway.revoke(BindingKey(ALICE, bind_id), now=talk.now)
        return [send.peer.connection for send in talk.drain()]

    assert revoke(1) == [2]
    talk.gateway.connection_lost(two.peer)
    assert revoke(2) == [1]
    talk.gateway.connection_lost(one.peer)
    assert revoke(3) == []
    assert code_of(Raw(talk.gateway, connection=9, ledger=talk.ledger).ask(register(None))) == 302
    assert revoke(4) == []
    again = Raw(talk.gateway, connection=7, ledger=talk.ledger)
    assert again.ask(assign_ports(client_id, None)).bind_id.value == 5
    assert revoke(5) == [7]


@pytest.mark.parametrize("counter", [None, 17])
def test_on_tcp_a_counter_is_echoed_if_there_is_one(counter):
    talk = raw()
    talk.connection = 1
    answer = talk.ask(register(counter))
    assert (answer.message_counter.value if answer.message_counter else None) == counter
    assert (talk.ask(extend(1, 1, counter)).message_counter is None) == (counter is None)
    talk.gateway.dismiss(ALICE, now=talk.now)
    (answer,) = unasked(talk)
    assert (answer.message_counter.value if answer.message_counter else None) == (None if counter is None else 0)


# Violations

FLOW = Flow(realm=FAR, local=SHARED, remote=REMOTE, kind=Kind.PORT, value=5000, remote_port=80)


def violation(reason: Reason, *, owner: Owner = ALICE, flow: Flow | None = FLOW) -> Violation:
    return Violation(reason=reason, owner=owner, flow=flow, tunnel_kind=TunnelKind.IPIP)


@pytest.mark.rfc("3103", "10.4")
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.SOURCE_ADDRESS_NOT_LEASED, 312),
        (Reason.SOURCE_PORT_NOT_LEASED, 313),
        (Reason.REMOTE_ADDRESS_NOT_ALLOWED, 314),
        (Reason.REMOTE_PORT_NOT_ALLOWED, 315),
        (Reason.WRONG_TUNNEL_TYPE, 307),
    ],
)
def test_each_of_the_five_misuses_is_told(reason, code):
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, ports=(5000,)))
    talk.gateway.report(violation(reason), now=talk.now)
    (answer,) = unasked(talk)
    assert code_of(answer) == code
    assert (answer.message_counter.value, answer.client_id.value, answer.bind_id.value) == (0, client_id, 1)


def test_a_misuse_of_no_binding_names_none():
    talk = raw()
    client_of(talk)
    talk.gateway.report(violation(Reason.SOURCE_ADDRESS_NOT_LEASED, flow=None), now=talk.now)
    talk.gateway.report(violation(Reason.SOURCE_PORT_NOT_LEASED), now=talk.now)
    assert [answer.bind_id for answer in unasked(talk)] == [None, None]


def test_misuses_are_told_once_a_second_for_each_host_and_code():
    talk = raw()
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    client_of(talk)
    client_of(bob)
    for _ in range(100):
        for owner in (talk.peer.owner, bob.peer.owner):
            for reason in (Reason.SOURCE_ADDRESS_NOT_LEASED, Reason.SOURCE_PORT_NOT_LEASED):
                talk.gateway.report(violation(reason, owner=owner), now=talk.now)
        talk.now += 0.025
    assert len(unasked(talk)) == 3 * 4


@pytest.mark.parametrize("reason", [Reason.NO_BINDING, Reason.FORGED_QUOTE, Reason.TTL_EXCEEDED])
def test_reasons_that_are_no_misuse_are_not_told(reason):
    talk = raw()
    client_of(talk)
    talk.gateway.report(violation(reason), now=talk.now)
    assert unasked(talk) == []


@pytest.mark.rfc("3103", "10.2.2")
def test_an_unregistered_source_hears_301_where_it_was_just_heard_or_at_rsips_own_port():
    talk = raw()
    for _ in range(5):
        talk.gateway.report(violation(Reason.UNREGISTERED), now=talk.now)
    (send,) = talk.drain()
    assert send.peer == Peer(talk.peer.realm, talk.peer.address, 4555)
    assert code_of(parse(send.data)) == 301
    assert parse(send.data).client_id is None
    talk.now += 2
    client_id = client_of(talk)
    talk.gateway.report(violation(Reason.UNREGISTERED), now=talk.now)
    assert unasked(talk) == []
    talk.ask(deregister(client_id))
    talk.now += 1
    talk.gateway.report(violation(Reason.UNREGISTERED), now=talk.now)
    (send,) = talk.drain()
    assert send.peer == talk.peer
    assert code_of(parse(send.data)) == 301
    talk.now += 60
    talk.gateway.report(violation(Reason.UNREGISTERED), now=talk.now)
    (send,) = talk.drain()
    assert send.peer.port == 4555


def test_without_udp_an_unregistered_source_hears_nothing():
    talk = raw(udp=False)
    talk.gateway.report(violation(Reason.UNREGISTERED), now=talk.now)
    assert unasked(talk) == []


def test_an_unasked_message_does_not_take_the_place_of_the_last_answer():
    talk = raw()
    client_id = client_of(talk)
    data = emit(assign_ports(client_id))
    first = talk.octets(data)
    talk.gateway.report(violation(Reason.SOURCE_ADDRESS_NOT_LEASED), now=talk.now)
    talk.gateway.revoke(BindingKey(ALICE, 1), now=talk.now)
    talk.drain()
    assert talk.octets(data) == first


# Restarting


def restarted(talk: Raw, *, pool=None) -> None:
    talk.gateway = make_gateway(make_policy(), pool, seed=99)
    talk.ledger.restart(talk.gateway, talk.now)


def test_after_a_restart_client_ids_and_bind_ids_are_the_same():
    talk = raw()
    client_id = client_of(talk)
    ports = talk.ask(assign_ports(client_id, 2)).local_ports.port_set
    talk.ask(assign_address(client_id, 3))
    talk.now += 30
    restarted(talk)
    assert talk.gateway.next_effects() == ()
    assert isinstance(talk.ask(extend(client_id, 2, 4)), ExtendResponse)
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger, now=talk.now)
    assert code_of(bob.ask(assign_ports(client_of(bob), ports=ports))) == 311
    assert isinstance(talk.ask(free(client_id, 1, 5)), FreeResponse)
    assert code_of(talk.ask(register(1))) == 302
    assert talk.ask(deregister(client_id, 7)).client_id.value == client_id


@pytest.mark.rfc("3103", "10.1")
def test_after_a_restart_a_copy_gets_the_remembered_answer_and_nothing_is_done_twice():
    talk = raw()
    client_id = client_of(talk)
    data = emit(assign_ports(client_id))
    first = talk.octets(data)
    restarted(talk)
    assert talk.octets(data) == first
    assert len(talk.ledger.leases) == 1
    gone = emit(deregister(client_id))
    first = talk.octets(gone)
    restarted(talk)
    assert talk.octets(gone) == first


def test_after_a_restart_no_bind_id_comes_back():
    talk = raw()
    client_id = client_of(talk)
    for counter in range(2, 8):
        talk.ask(assign_ports(client_id, counter))
    for bind_id in range(2, 7):
        talk.ask(free(client_id, bind_id, 10 + bind_id))
    restarted(talk)
    assert talk.ask(assign_ports(client_id, 30)).bind_id.value > 6


def test_after_a_restart_what_ran_out_meanwhile_ends():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=60))
    talk.ask(assign_ports(client_id, 3, lease=600))
    talk.now += 100
    restarted(talk)
    assert talk.gateway.get_timer() == START + 60
    talk.gateway.handle_timer(now=talk.now)
    (answer,) = unasked(talk)
    assert (answer.bind_id.value, answer.client_id.value) == (1, client_id)


def test_after_a_restart_what_was_given_back_still_rests():
    pool = {"shared": [(SHARED, Ranges.of((4096, 4099)))], "slice_size": 4}
    talk = raw(pool=make_pool(**pool))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2))
    talk.ask(free(client_id, 1, 3))
    talk.now += 100
    restarted(talk, pool=make_pool(**pool))
    assert code_of(talk.ask(assign_ports(client_id, 4))) == 309
    talk.now += 20
    assert talk.ask(assign_ports(client_id, 5)).local_ports.port_set == (4096, 4097, 4098, 4099)


def test_a_binding_without_a_registration_is_ended_at_a_restart():
    talk = raw()
    client_id = client_of(talk)
    ports = talk.ask(assign_ports(client_id)).local_ports.port_set
    gateway = make_gateway()
    gateway.restore((), tuple(talk.ledger.leases.values()), (), (), now=talk.now)
    assert gateway.next_effects() == (Unbind(key=BindingKey(ALICE, 1), ending=Ending.REVOKED),)
    bob = Raw(gateway, address="10.0.0.5")
    assert code_of(bob.ask(assign_ports(client_of(bob), ports=ports))) == 311


def test_a_restored_host_may_come_back_by_the_other_transport_only_if_it_had_none():
    talk = raw()
    talk.connection = 1
    client_id = client_of(talk, None)
    restarted(talk)
    assert talk.ask(assign_ports(client_id, None)).bind_id.value > 0
    udp = Raw(talk.gateway, ledger=talk.ledger)
    assert code_of(udp.ask(assign_ports(client_id, 3))) == 102


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
