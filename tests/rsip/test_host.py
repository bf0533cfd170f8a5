# SPDX-License-Identifier: BSD-3-Clause
"""A host and a gateway talking: requests, renewals, losses, restarts of either end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending, Peer
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.errors import LocalProtocolError
from isthmus.rsip.events import (
    Assigned,
    Deregistered,
    Extended,
    Freed,
    Lost,
    Refused,
    Registered,
    Warned,
)
from isthmus.rsip.host import Host
from isthmus.rsip.reliability import RFC_INITIAL_SECONDS, Retransmission
from isthmus.rsip.states import HostState
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.codes import ErrorCode, MessageType
from isthmus.wire.rsip.message import (
    AssignRequestRsapIp,
    AssignResponseRsapIp,
    DeregisterResponse,
    ErrorResponse,
    FreeRequest,
    FreeResponse,
    RegisterResponse,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    Error,
    FlowPolicy,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
)
from rsip.conversation import GATEWAY, GATEWAY_PEER, REMOTE, SHARED, START, WHOLE, Conversation, make_policy, make_pool

MS = 0.001


def types(events):
    return [type(each) for each in events]


def sent_types(talk):
    return [message.type.name for _, message in talk.sent]


# The ordinary life


@pytest.mark.parametrize("udp", [True, False])
def test_register_assign_extend_free_deregister(udp):
    talk = Conversation(udp=udp)
    alice = talk.registered()
    (registered,) = talk.take(alice)
    assert isinstance(registered, Registered)
    assert alice.client_id == registered.client_id
    request = alice.assign_ports(6)
    talk.run()
    (assigned,) = talk.take(alice)
    assert (assigned.request, assigned.bind_id, assigned.method) == (request, 1, Method.RSAP_IP)
    assert (assigned.address, len(assigned.ports)) == (SHARED, 6)
    assert (assigned.tunnel_endpoint, assigned.tunnel_kind) == (GATEWAY, TunnelKind.IPIP)
    assert assigned.expires_at == START + 600
    assert alice.bindings == {1: assigned}
    assert alice.state is HostState.ASSIGNED
    alice.extend(1, lease_seconds=1200)
    talk.run()
    assert talk.take(alice) == [Extended(request=3, bind_id=1, expires_at=START + 1200)]
    assert alice.bindings[1].expires_at == START + 1200
    alice.free(1)
    talk.run()
    assert talk.take(alice) == [Freed(bind_id=1, ending=Ending.FREED)]
    assert alice.state is HostState.REGISTERED
    alice.deregister()
    talk.run()
    assert talk.take(alice) == [Deregistered(ending=Ending.FREED)]
    assert alice.state is HostState.UNREGISTERED
    assert alice.client_id is None
    assert alice.get_timer() is None
    assert not talk.ledger.leases
    assert not talk.ledger.registrations


def test_a_whole_address_named_and_in_gre():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_address(WHOLE.address, lease_seconds=100, tunnel=TunnelKind.GRE)
    talk.run()
    assigned = talk.take(alice)[-1]
    assert (assigned.address, assigned.ports, assigned.method) == (WHOLE.address, None, Method.RSA_IP)
    assert assigned.tunnel_kind is TunnelKind.GRE
    assert assigned.expires_at == START + 100


@pytest.mark.parametrize(
    ("policy", "remote", "port", "granted"),
    [
        (1, REMOTE, None, (REMOTE, None)),
        (2, REMOTE, 80, (REMOTE, 80)),
        (3, REMOTE, 80, (None, None)),
        (3, "www.bar.com", None, (None, None)),
    ],
)
def test_the_remote_limit_of_a_binding(policy, remote, port, granted):
    talk = Conversation(policy=make_policy(remote=policy))
    alice = talk.registered()
    alice.assign_ports(1, remote=remote, remote_port=port)
    talk.run()
    assigned = talk.take(alice)[-1]
    assert (assigned.remote_address, assigned.remote_port) == granted


def test_the_tunnel_may_end_elsewhere_or_by_default_at_the_gateway():
    wish = Wish(method=Method.RSAP_IP, ports=1)
    response = granted_response(1, 1, 2)
    event = wish.granted(response, request=1, gateway=GATEWAY, sent_at=0.0)
    assert event.tunnel_endpoint == GATEWAY
    elsewhere = Address.parse("10.0.0.2")
    response = replace(response, tunnel_endpoint=RsipAddress.of(elsewhere))
    assert wish.granted(response, request=1, gateway=GATEWAY, sent_at=0.0).tunnel_endpoint == elsewhere


def test_requests_go_out_one_by_one_and_count_from_one():
    talk = Conversation()
    alice = talk.host()
    for _ in range(2):
        alice.register()
    assert len(alice.datagrams_to_send(now=talk.now)) == 1
    assert alice.datagrams_to_send(now=talk.now) == []
    talk = Conversation()
    alice = talk.host()
    alice.register()
    for _ in range(3):
        alice.assign_ports()
    talk.run()
    counters = [message.message_counter.value for _, message in talk.sent]
    assert counters == [1, 1, 2, 2, 3, 3, 4, 4]
    assert len(alice.bindings) == 3


# Refusals


def test_a_refusal_names_the_request_and_the_code():
    talk = Conversation(policy=make_policy(clients=()))
    alice = talk.registered()
    assert talk.take(alice) == [Refused(request=1, code=ErrorCode.REGISTRATION_DENIED, problem="REGISTRATION_DENIED")]
    assert alice.state is HostState.UNREGISTERED


def test_what_may_not_be_asked_is_refused_and_not_sent():
    talk = Conversation()
    alice = talk.host()
    asked = [alice.assign_ports(), alice.assign_address(), alice.deregister()]
    talk.run()
    assert [(each.request, each.code) for each in talk.take(alice)] == [(n, 301) for n in asked]
    assert talk.sent == []
    alice.register()
    alice.register()
    talk.run()
    assert [type(each) for each in talk.take(alice)] == [Registered, Refused]
    for call in (alice.free, alice.extend):
        with pytest.raises(LocalProtocolError) as raised:
            call(7)
        assert raised.value.code == 306
    alice.assign_ports()
    talk.run()
    alice.free(1)
    twice = alice.free(1)
    talk.run()
    assert talk.take(alice)[-1].request == twice


@pytest.mark.parametrize("ports", [0, 256, Ranges.of(), Ranges.of((1000, 1255))])
def test_a_request_holds_1_to_255_ports(ports):
    with pytest.raises(ValueError, match="1 to 255"):
        Conversation().host().assign_ports(ports)


def test_a_wish_for_a_whole_address_has_no_ports():
    with pytest.raises(ValueError, match="RSA_IP"):
        Wish(method=Method.RSA_IP, ports=4)


# Loss and duplication on UDP


@pytest.mark.rfc("3103", "5")
def test_a_host_repeats_itself_after_12_5_to_400_ms_and_gives_up_after_1587_5():
    talk = Conversation()
    alice = talk.host(retransmission=Retransmission(initial_seconds=RFC_INITIAL_SECONDS))
    talk.drop(99)
    request = alice.register()
    talk.advance(1.5874)
    assert [round((at - START) / MS, 3) for at, _ in talk.sent] == [0, 12.5, 37.5, 87.5, 187.5, 387.5, 787.5]
    assert len({emit(message) for _, message in talk.sent}) == 1
    assert talk.take(alice) == []
    talk.advance(0.0002)
    assert talk.take(alice) == [Refused(request=request, code=None, problem="no answer")]
    assert alice.state is HostState.UNREGISTERED
    talk.advance(60)
    assert len(talk.sent) == 7


@pytest.mark.rfc("3103", "10.1")
@pytest.mark.parametrize("source", ["host", "gateway"])
@pytest.mark.parametrize("losses", [1, 3, 6])
def test_a_lost_request_or_answer_is_repeated_and_acted_on_once(source, losses):
    talk = Conversation()
    alice = talk.registered()
    for ask in (alice.assign_ports, lambda: alice.extend(1), lambda: alice.free(1), alice.deregister):
        talk.drop(losses, source=source)
        ask()
        talk.advance(13)
    assert types(talk.take(alice)) == [Registered, Assigned, Extended, Freed, Deregistered]
    binds = [each for each in talk.ledger.history if type(each).__name__ == "Bind"]
    assert len(binds) == 1
    assert alice.state is HostState.UNREGISTERED


def test_a_lost_registration_answer_is_repeated_and_not_302():
    talk = Conversation()
    alice = talk.host()
    talk.drop(1, source="gateway")
    alice.register()
    talk.advance(1)
    assert types(talk.take(alice)) == [Registered]
    assert len(talk.gateway) == 1


def test_duplicates_and_reordering_change_nothing():
    talk = Conversation()
    alice = talk.host()
    talk.duplicate(99)
    alice.register()
    alice.assign_ports(4)
    alice.assign_address()
    talk.run()
    assert types(talk.take(alice)) == [Registered, Assigned, Assigned]
    assert len(talk.ledger.leases) == 2
    talk.duplicate(0)
    talk.reorder(2)
    bob = talk.host("10.0.0.5")
    bob.register()
    alice.deregister()
    talk.advance(5)
    assert types(talk.take(alice)) == [Deregistered]
    assert types(talk.take(bob)) == [Registered]


def test_an_old_request_that_arrives_late_is_not_acted_on():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    (late,) = alice.datagrams_to_send(now=talk.now)
    talk.gateway.receive_datagram(late, talk.peer_of(alice), now=talk.now)
    talk.run()
    alice.free(1)
    talk.run()
    talk.gateway.receive_datagram(late, talk.peer_of(alice), now=talk.now)
    talk.run()
    assert not talk.ledger.leases


@pytest.mark.parametrize(
    ("ask", "event", "after"),
    [
        ("assign_ports", Refused, HostState.ASSIGNED),
        ("extend", Refused, HostState.ASSIGNED),
        ("free", Freed, HostState.REGISTERED),
        ("deregister", Deregistered, HostState.UNREGISTERED),
    ],
)
def test_after_the_seventh_silence_the_host_falls_back(ask, event, after):
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    talk.run()
    talk.take(alice)
    talk.drop(7)
    getattr(alice, ask)(*([1] if ask in ("extend", "free") else []))
    talk.advance(13)
    assert types(talk.take(alice)) == [event]
    assert alice.state is after


def test_on_tcp_nothing_is_repeated():
    talk = Conversation(udp=False)
    alice = talk.host(response_seconds=3.0)
    talk.drop(1)
    alice.register()
    talk.advance(2.9)
    assert len(talk.sent) == 1
    talk.advance(0.2)
    assert types(talk.take(alice)) == [Refused]


def test_a_lost_connection_fails_the_request_and_keeps_the_bindings():
    talk = Conversation(udp=False)
    alice = talk.registered()
    alice.assign_ports()
    talk.run()
    alice.assign_ports()
    assert alice.datagrams_to_send(now=talk.now)
    alice.connection_lost(now=talk.now)
    talk.gateway.connection_lost(talk.peer_of(alice))
    talk.run()
    assert types(talk.take(alice)) == [Registered, Assigned, Refused]
    alice.connection_lost(now=talk.now)
    alice.extend(1)
    talk.run()
    assert types(talk.take(alice)) == [Extended]


# Time


@pytest.mark.rfc("3103", "9.11.3")
def test_a_binding_is_renewed_at_half_and_at_seven_eighths():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(lease_seconds=1000)
    talk.run()
    talk.advance(499.9)
    assert "EXTEND_REQUEST" not in sent_types(talk)
    talk.drop(7)
    talk.advance(0.2)
    assert sent_types(talk)[-1] == "EXTEND_REQUEST"
    talk.advance(374)
    assert types(talk.take(alice)) == [Registered, Assigned]
    talk.advance(1)
    assert talk.take(alice) == [Extended(request=0, bind_id=1, expires_at=START + 1875)]
    lease = [message.lease_time.value for _, message in talk.sent if message.type is MessageType.EXTEND_REQUEST]
    assert set(lease) == {1000}


def test_a_binding_is_held_for_days():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    alice.assign_address(lease_seconds=3600)
    talk.advance(3 * 86_400)
    assert len(alice.bindings) == 2
    assert set(types(talk.take(alice))) == {Registered, Assigned, Extended}
    assert len(talk.ledger.leases) == 2


def test_a_lease_counts_from_the_first_transmission_and_ends_by_our_own_timer():
    talk = Conversation()
    alice = talk.registered()
    talk.drop(2, source="gateway")
    alice.assign_ports(lease_seconds=100)
    talk.advance(1)
    assigned = talk.take(alice)[-1]
    assert assigned.expires_at == START + 100
    talk.drop(10_000)
    talk.advance(98.9)
    assert 1 in alice.bindings
    talk.advance(0.2)
    assert talk.take(alice) == [Freed(bind_id=1, ending=Ending.EXPIRED)]
    talk.advance(1)  # the last renewal is given up
    assert alice.state is HostState.REGISTERED
    talk.advance(600)
    assert talk.take(alice) == [Deregistered(ending=Ending.EXPIRED)]
    assert alice.state is HostState.UNREGISTERED


def test_a_registration_without_bindings_ends():
    talk = Conversation()
    alice = talk.registered()
    talk.advance(600)
    assert types(talk.take(alice)) == [Registered, Deregistered]
    assert len(talk.gateway) == 0


def test_our_own_registration_timer_ends_a_request_under_way():
    talk = Conversation()
    alice = talk.registered()
    talk.advance(599.9)
    talk.drop(100)
    request = alice.assign_ports()
    talk.advance(1)
    refused, deregistered = sorted(talk.take(alice)[1:], key=lambda event: type(event).__name__, reverse=True)
    assert (refused.request, refused.code) == (request, 301)
    assert deregistered == Deregistered(ending=Ending.EXPIRED)


# What the gateway says by itself


def test_a_revoked_binding_is_over_at_once_and_the_host_stays_registered():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    alice.assign_ports()
    talk.run()
    talk.take(alice)
    owner = talk.peer_of(alice).owner
    talk.gateway.revoke(BindingKey(owner, 1), now=talk.now)
    talk.run()
    assert talk.take(alice) == [Freed(bind_id=1, ending=Ending.REVOKED)]
    assert alice.state is HostState.ASSIGNED
    talk.gateway.revoke(BindingKey(owner, 2), now=talk.now)
    talk.run()
    assert alice.state is HostState.REGISTERED


@pytest.mark.parametrize("ask", ["assign_ports", "extend", "free", "deregister"])
def test_the_last_binding_may_be_revoked_while_a_request_is_under_way(ask):
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    talk.run()
    talk.take(alice)
    getattr(alice, ask)(*([1] if ask in ("extend", "free") else []))
    requests = alice.datagrams_to_send(now=talk.now)
    talk.gateway.revoke(BindingKey(talk.peer_of(alice).owner, 1), now=talk.now)
    talk.run()
    assert talk.take(alice) == [Freed(bind_id=1, ending=Ending.REVOKED)]
    for data in requests:
        talk.gateway.receive_datagram(data, talk.peer_of(alice), now=talk.now)
    talk.run()
    after = {"assign_ports": HostState.ASSIGNED, "deregister": HostState.UNREGISTERED}
    assert alice.state is after.get(ask, HostState.REGISTERED)
    assert not [event for event in talk.take(alice) if isinstance(event, Lost)]


def test_a_dismissed_host_holds_nothing_any_more():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    talk.run()
    talk.take(alice)
    alice.assign_ports()
    alice.datagrams_to_send(now=talk.now)
    talk.gateway.dismiss(talk.peer_of(alice).owner, now=talk.now)
    talk.run()
    assert types(talk.take(alice)) == [Deregistered, Refused]
    assert (alice.bindings, alice.client_id, alice.get_timer()) == ({}, None, None)


def scripted(**options) -> tuple[Host, int]:
    """A host that believes whatever this file says; registered as client 5."""
    host = Host(gateway=GATEWAY_PEER, **options)
    host.register()
    host.datagrams_to_send(now=START)
    say(host, registered_response(5, 1))
    assert isinstance(host.next_event(), Registered)
    return host


def say(host, message, *, source=GATEWAY_PEER, now=START):
    host.receive_datagram(message if isinstance(message, bytes) else emit(message), source, now=now)


def heard(host):
    events = []
    while (event := host.next_event()) is not None:
        events.append(event)
    return events


def registered_response(client_id, counter, *, remote=3):
    return RegisterResponse(
        client_id=ClientId(client_id),
        lease_time=LeaseTime(600),
        flow_policy=FlowPolicy(local=1, remote=remote),
        message_counter=MessageCounter(counter),
    )


def granted_response(client_id, bind_id, counter, **changes) -> AssignResponseRsapIp:
    return AssignResponseRsapIp(
        **{
            "client_id": ClientId(client_id),
            "bind_id": BindId(bind_id),
            "local_address": RsipAddress.of(SHARED),
            "local_ports": Ports.of((5000,)),
            "remote_address": RsipAddress.any(),
            "remote_ports": Ports.any_of(1),
            "lease_time": LeaseTime(100),
            "tunnel_type": RsipTunnelType(1),
            "message_counter": MessageCounter(counter),
        }
        | changes
    )


@pytest.mark.rfc("3103", "10.4")
def test_errors_about_packets_are_passed_on():
    host = scripted()
    say(
        host,
        ErrorResponse(error=Error(313), message_counter=MessageCounter(0), client_id=ClientId(5), bind_id=BindId(2)),
    )
    assert heard(host) == [Warned(code=313, bind_id=2)]


ZERO = MessageCounter(0)


@pytest.mark.rfc("3103", "9.1")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01\x05\x00\x04",
        b"\xff" * 40,
        DeregisterResponse(client_id=ClientId(6), message_counter=ZERO),
        DeregisterResponse(client_id=ClientId(5)),
        DeregisterResponse(client_id=ClientId(5), message_counter=MessageCounter(9)),
        FreeResponse(client_id=ClientId(5), bind_id=BindId(99), message_counter=ZERO),
        FreeResponse(client_id=ClientId(6), bind_id=BindId(1), message_counter=ZERO),
        ErrorResponse(error=Error(313), message_counter=ZERO),
        ErrorResponse(error=Error(313), message_counter=ZERO, client_id=ClientId(6)),
        ErrorResponse(error=Error(301), message_counter=MessageCounter(3), client_id=ClientId(5)),
        registered_response(5, 0),
        registered_response(5, 1),
        granted_response(5, 7, 0),
        granted_response(5, 7, 2),
        FreeRequest(client_id=ClientId(5), bind_id=BindId(1), message_counter=ZERO),
    ],
)
def test_bad_messages_are_dropped_without_a_word(message):
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    heard(host)
    say(host, message)
    assert heard(host) == []
    assert host.datagrams_to_send(now=START) == []
    assert (host.client_id, list(host.bindings), host.state) == (5, [1], HostState.ASSIGNED)


@pytest.mark.parametrize(
    "source", [Peer(1, GATEWAY, 4556), Peer(1, Address.parse("10.0.0.66"), 4555), Peer(2, GATEWAY, 4555)]
)
def test_only_the_gateways_address_and_port_are_believed(source):
    host = scripted()
    say(host, DeregisterResponse(client_id=ClientId(5), message_counter=ZERO), source=source)
    assert heard(host) == []


# Answers that are not what was asked for


@pytest.mark.rfc("3103", "9.9.3")
@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({"ports": 2}, {}),
        ({"ports": Ranges.of(5001)}, {}),
        ({"address": WHOLE.address}, {}),
        ({"tunnel": TunnelKind.GRE}, {}),
        ({}, {"tunnel_type": RsipTunnelType(3)}),
        ({}, {"tunnel_type": RsipTunnelType(77)}),
        ({}, {"local_ports": Ports.any_of(1)}),
        ({}, {"local_address": RsipAddress.any()}),
        ({}, {"lease_time": LeaseTime(0)}),
        ({}, {"remote_address": RsipAddress.of(REMOTE)}),
        ({}, {"remote_ports": Ports.of((80,))}),
        ({}, {"tunnel_endpoint": RsipAddress.fqdn("gw")}),
    ],
)
def test_what_was_not_asked_for_is_given_back(asked, changes):
    host = scripted()
    request = host.assign_ports(**asked)
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2, **changes))
    (refused,) = heard(host)
    assert (refused.request, refused.code) == (request, None)
    assert host.bindings == {}
    (data,) = host.datagrams_to_send(now=START)
    free = parse(data)
    assert isinstance(free, FreeRequest)
    assert (free.client_id.value, free.bind_id.value) == (5, 1)
    say(host, FreeResponse(client_id=ClientId(5), bind_id=BindId(1), message_counter=MessageCounter(3)))
    assert heard(host) == []
    assert host.state is HostState.REGISTERED


@pytest.mark.rfc("3103", "9.9.3")
def test_an_incomprehensible_grant_is_given_back():
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    data = bytearray(emit(granted_response(5, 1, 2)))
    data[data.index(b"\x02\0\x03\x01") + 2] = 2  # the Ports parameter is now two octets long, and the rest is askew
    say(host, bytes(data))
    assert heard(host) == []  # not even the counter could be found: the request is repeated
    broken = emit(granted_response(5, 1, 2)).replace(b"\x06\0\x01\x01", b"\x07\0\x01\x01")  # no Tunnel Type
    say(host, broken)
    (refused,) = heard(host)
    assert refused.code is None
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


@pytest.mark.parametrize(("policy", "ok"), [(1, False), (2, False)])
def test_the_remote_limit_must_come_back_under_a_remote_policy(policy, ok):
    host = Host(gateway=GATEWAY_PEER)
    host.register()
    host.datagrams_to_send(now=START)
    say(host, registered_response(5, 1, remote=policy))
    host.assign_ports(remote=REMOTE, remote_port=80)
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    assert types(heard(host)) == [Registered, Refused]


def test_a_bind_id_that_is_held_already_is_not_believed():
    host = scripted()
    for counter in (2, 3):
        host.assign_ports()
        host.datagrams_to_send(now=START)
        say(host, granted_response(5, 1, counter))
    assert types(heard(host)) == [Assigned, Refused]
    assert list(host.bindings) == [1]
    assert host.datagrams_to_send(now=START) == []


def test_a_free_response_refuses_an_extension():
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    host.extend(1)
    host.datagrams_to_send(now=START)
    say(host, FreeResponse(client_id=ClientId(5), bind_id=BindId(1), message_counter=MessageCounter(3)))
    assert heard(host)[1:] == [Freed(bind_id=1, ending=Ending.REVOKED)]
    assert host.state is HostState.REGISTERED


def test_answers_on_tcp_need_no_counter():
    gateway = replace(GATEWAY_PEER, connection=1)
    host = Host(gateway=gateway)
    host.register()
    host.datagrams_to_send(now=START)
    host.receive_message(emit(replace(registered_response(5, 1), message_counter=None)), now=START)
    host.assign_ports()
    host.datagrams_to_send(now=START)
    host.receive_message(emit(replace(granted_response(5, 1, 1), message_counter=None)), now=START)
    host.receive_message(emit(FreeResponse(client_id=ClientId(5), bind_id=BindId(1))), now=START)
    assert types(heard(host)) == [Registered, Assigned, Freed]
    say(host, DeregisterResponse(client_id=ClientId(5), message_counter=ZERO), source=gateway)
    assert types(heard(host)) == [Deregistered]


# Restarts


@pytest.mark.rfc("3103", "10.2.1")
def test_302_after_a_restart_of_the_host_deregisters_the_old_id_and_registers_anew():
    talk = Conversation()
    alice = talk.registered()
    old = alice.client_id
    alice.assign_ports()
    talk.run()
    talk.remove(alice)
    again = talk.registered(port=40001)
    talk.advance(1)
    assert types(talk.take(again)) == [Registered]
    assert again.client_id not in (None, old)
    assert sent_types(talk)[4:] == [
        "REGISTER_REQUEST",
        "ERROR_RESPONSE",
        "DE_REGISTER_REQUEST",
        "DE_REGISTER_RESPONSE",
        "REGISTER_REQUEST",
        "REGISTER_RESPONSE",
    ]
    assert not talk.ledger.leases
    again.assign_ports()
    talk.run()
    assert types(talk.take(again)) == [Assigned]


def test_302_for_ever_is_given_up():
    host = Host(gateway=GATEWAY_PEER)
    host.register()
    counter = 0
    for _ in range(20):
        for data in host.datagrams_to_send(now=START):
            counter = parse(data).message_counter.value
            say(host, ErrorResponse(error=Error(302), message_counter=MessageCounter(counter), client_id=ClientId(9)))
    assert [each.code for each in heard(host)] == [302]
    assert counter <= 6
    assert host.state is HostState.UNREGISTERED


@pytest.mark.rfc("3103", "10.2.2")
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("ask", ["extend", "assign_ports", "free"])
def test_301_is_loss_of_sync(ask, keep):
    talk = Conversation()
    alice = talk.registered(keep=keep)
    first = alice.assign_ports(4)
    second = alice.assign_address()
    talk.run()
    old, held = alice.client_id, alice.bindings
    talk.take(alice)
    talk.restart_gateway(keep_leases=False)
    talk.sent.clear()
    getattr(alice, ask)(*([1] if ask in ("extend", "free") else []))
    talk.run()
    assert sent_types(talk)[1:6:2] == ["ERROR_RESPONSE"] * 2 + ["REGISTER_RESPONSE"]
    assert sent_types(talk)[2] == "DE_REGISTER_REQUEST"
    events = talk.take(alice)
    lost = [(each.request, each.bind_id) for each in events if isinstance(each, Lost)]
    assert lost == ([(second, 2)] if ask == "free" else [(first, 1), (second, 2)])
    assert [each for each in events if isinstance(each, Freed)] == (
        [Freed(bind_id=1, ending=Ending.FREED)] if ask == "free" else []
    )
    assigned = [each for each in events if isinstance(each, Assigned)]
    kept = [request for request, _ in lost] if keep else []
    assert [each.request for each in assigned][: len(kept)] == kept
    assert len(assigned) == len(kept) + (ask == "assign_ports")
    for each in assigned[: len(kept)]:
        before = held[1 if each.request == first else 2]
        assert (each.address, each.ports) == (before.address, before.ports)
    assert alice.client_id != old


def test_what_was_lost_and_is_taken_meanwhile_is_replaced():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(4)
    talk.run()
    ports = alice.bindings[1].ports
    talk.restart_gateway(keep_leases=False)
    bob = talk.registered("10.0.0.5")
    bob.assign_ports(ports)
    talk.run()
    alice.extend(1)
    talk.run()
    assigned = talk.take(alice)[-1]
    assert isinstance(assigned, Assigned)
    assert len(assigned.ports) == 4
    assert not assigned.ports.overlaps(ports)


def test_a_renewal_finds_out_about_a_gateway_without_memory():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(4)
    talk.run()
    talk.restart_gateway(keep_leases=False)
    talk.advance(3600)
    assert [type(each) for each in talk.take(alice)][:5] == [Registered, Assigned, Lost, Registered, Assigned]
    assert len(alice.bindings) == len(talk.ledger.leases) == 1


def test_a_gateway_with_memory_is_not_noticed():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(4)
    talk.run()
    talk.take(alice)
    for seed in range(5):
        talk.advance(200)
        talk.restart_gateway(keep_leases=True, seed=seed)
    talk.advance(3600)
    assert set(types(talk.take(alice))) == {Extended}


def test_306_loses_one_binding_only():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(4)
    alice.assign_ports(4)
    talk.run()
    talk.take(alice)
    talk.drop(1, source="gateway")
    talk.gateway.revoke(BindingKey(talk.peer_of(alice).owner, 1), now=talk.now)
    talk.run()
    alice.extend(1)
    talk.run()
    assert types(talk.take(alice)) == [Lost, Assigned]
    assert sorted(alice.bindings) == [2, 3]
    talk.drop(1, source="gateway")
    talk.gateway.revoke(BindingKey(talk.peer_of(alice).owner, 2), now=talk.now)
    talk.run()
    alice.free(2)
    talk.run()
    assert talk.take(alice) == [Freed(bind_id=2, ending=Ending.FREED)]


def test_301_unasked_is_loss_of_sync_too():
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    heard(host)
    say(host, ErrorResponse(error=Error(301), message_counter=ZERO, client_id=ClientId(5)))
    assert heard(host) == [Warned(code=301, bind_id=None), Lost(request=2, bind_id=1)]
    assert parse(host.datagrams_to_send(now=START)[0]).client_id.value == 5
    assert host.state is HostState.RESYNC_PENDING


@pytest.mark.rfc("3103", "10.2.2")
def test_301_about_nobody_is_only_a_hint_and_is_looked_into_now_and_then():
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    heard(host)
    for _ in range(3):
        say(host, ErrorResponse(error=Error(301), message_counter=ZERO))
    asked = [parse(each) for each in host.datagrams_to_send(now=START)]
    assert [(type(each).__name__, each.bind_id.value) for each in asked] == [("ExtendRequest", 1)]
    assert heard(host) == []
    say(host, ErrorResponse(error=Error(301), message_counter=asked[0].message_counter))
    assert heard(host) == [Lost(request=2, bind_id=1)]


@pytest.mark.parametrize("code", [301, 303])
def test_a_deregistration_that_the_gateway_has_forgotten_has_succeeded(code):
    host = scripted()
    host.deregister()
    host.datagrams_to_send(now=START)
    say(host, ErrorResponse(error=Error(code), message_counter=MessageCounter(2)))
    assert heard(host) == [Deregistered(ending=Ending.FREED)]
    assert host.state is HostState.UNREGISTERED


def test_a_deregistration_may_be_refused():
    host = scripted()
    host.deregister()
    host.datagrams_to_send(now=START)
    say(host, ErrorResponse(error=Error(101), message_counter=MessageCounter(2)))
    assert types(heard(host)) == [Refused]
    assert host.state is HostState.REGISTERED


def test_losing_sync_for_ever_is_given_up():
    host = scripted()
    host.assign_ports()
    for _ in range(30):
        for data in host.datagrams_to_send(now=START):
            message = parse(data)
            counter = message.message_counter
            if message.type is MessageType.REGISTER_REQUEST:
                say(host, registered_response(5, counter.value))
            else:
                say(host, ErrorResponse(error=Error(301), message_counter=counter))
    events = heard(host)
    assert [each.code for each in events if isinstance(each, Refused)] == [301]
    assert isinstance(events[-1], Refused)


def test_more_can_be_had_until_the_quota_is_used_up():
    talk = Conversation(pool=make_pool(quota=Quota(ports=8)))
    alice = talk.registered()
    for _ in range(3):
        alice.assign_ports(4)
    talk.run()
    assert [each.code for each in talk.take(alice) if isinstance(each, Refused)] == [309]
    assert len(alice.bindings) == 2


def test_every_change_of_state_of_a_host_is_traced():
    trace = []
    talk = Conversation()
    alice = talk.registered(trace=trace.append)
    alice.assign_ports()
    talk.run()
    alice.free(1)
    talk.run()
    assert [each.after for each in trace] == [
        "REG_PENDING",
        "REGISTERED",
        "ASSIGN_PENDING",
        "ASSIGNED",
        "FREE_PENDING",
        "ASSIGNED",
        "REGISTERED",
    ]
    assert isinstance(parse(emit(Wish(method=Method.RSAP_IP, ports=1).message(5, 2))), AssignRequestRsapIp)
