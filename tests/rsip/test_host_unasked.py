# SPDX-License-Identifier: BSD-3-Clause
"""What a host hears without having asked, and from whom it believes it (RFC 3103 §9.1, §9.5, §9.13, §10.4)."""

from __future__ import annotations

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey
from isthmus.border.effect import Ending, Peer
from isthmus.rsip.events import (
    Deregistered,
    Freed,
    Lost,
    Refused,
    Warned,
)
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.message import (
    DeregisterResponse,
    ErrorResponse,
    ExtendResponse,
    FreeRequest,
    FreeResponse,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    Error,
    LeaseTime,
    MessageCounter,
)
from rsip.conversation import GATEWAY, START, Conversation
from rsip.scripted import ZERO, granted_response, heard, registered_response, say, scripted, types

THREE = MessageCounter(3)


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


@pytest.mark.rfc("3103", "10.4")
def test_errors_about_packets_are_passed_on():
    host = scripted()
    say(
        host,
        ErrorResponse(error=Error(313), message_counter=MessageCounter(0), client_id=ClientId(5), bind_id=BindId(2)),
    )
    assert heard(host) == [Warned(code=313, bind_id=2)]


@pytest.mark.rfc("3103", "9.1")
@pytest.mark.rfc("3103", "10.2.1")
@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "malformed"),
        (b"\x01\x05\x00\x04", "malformed"),
        (b"\xff" * 40, "malformed"),
        (DeregisterResponse(client_id=ClientId(6), message_counter=ZERO), "client_id"),
        (DeregisterResponse(client_id=ClientId(5)), "counter"),
        (DeregisterResponse(client_id=ClientId(5), message_counter=MessageCounter(9)), "counter"),
        (FreeResponse(client_id=ClientId(5), bind_id=BindId(99), message_counter=ZERO), "bind_id"),
        (FreeResponse(client_id=ClientId(6), bind_id=BindId(1), message_counter=ZERO), "client_id"),
        (ErrorResponse(error=Error(313), message_counter=ZERO), "client_id"),
        (ErrorResponse(error=Error(313), message_counter=ZERO, client_id=ClientId(6)), "client_id"),
        (ErrorResponse(error=Error(301), message_counter=MessageCounter(3), client_id=ClientId(5)), "counter"),
        (registered_response(5, 0), "unexpected"),
        (registered_response(5, 1), "counter"),
        (granted_response(5, 7, 0), "unexpected"),
        (granted_response(5, 7, 2), "counter"),
        (FreeRequest(client_id=ClientId(5), bind_id=BindId(1), message_counter=ZERO), "unexpected"),
    ],
)
def test_bad_messages_are_dropped_without_a_word_and_counted(message, why):
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    heard(host)
    say(host, message)
    assert heard(host) == []
    assert host.datagrams_to_send(now=START) == []
    assert (host.client_id, list(host.bindings), host.state) == (5, [1], HostState.ASSIGNED)
    assert host.ignored == {why: 1}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (
            ExtendResponse(client_id=ClientId(5), bind_id=BindId(2), lease_time=LeaseTime(9), message_counter=THREE),
            "bind_id",
        ),
        (
            ExtendResponse(client_id=ClientId(6), bind_id=BindId(1), lease_time=LeaseTime(9), message_counter=THREE),
            "client_id",
        ),
        (FreeResponse(client_id=ClientId(5), bind_id=BindId(2), message_counter=THREE), "bind_id"),
        (granted_response(5, 1, 3), "unexpected"),
        (ErrorResponse(error=Error(101), message_counter=THREE, client_id=ClientId(6)), "client_id"),
        (ErrorResponse(error=Error(101), message_counter=THREE, client_id=ClientId(5), bind_id=BindId(2)), "bind_id"),
    ],
)
def test_an_answer_with_the_right_counter_must_be_about_what_was_asked(message, why):
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    host.extend(1)
    host.datagrams_to_send(now=START)
    heard(host)
    say(host, message)
    assert heard(host) == []
    assert host.ignored == {why: 1}
    assert host.state is HostState.ASSIGNED_EXTEND_PENDING


@pytest.mark.parametrize(
    "source", [Peer(1, GATEWAY, 4556), Peer(1, Address.parse("10.0.0.66"), 4555), Peer(2, GATEWAY, 4555)]
)
def test_only_the_gateways_address_and_port_are_believed(source):
    host = scripted()
    say(host, DeregisterResponse(client_id=ClientId(5), message_counter=ZERO), source=source)
    assert heard(host) == []
    assert host.ignored == {"stranger": 1}
