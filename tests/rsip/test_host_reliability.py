# SPDX-License-Identifier: BSD-3-Clause
"""A host whose messages are lost, repeated or late: UDP, TCP, counters (RFC 3103 §5, §10.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.rsip.events import (
    Assigned,
    Deregistered,
    Extended,
    Freed,
    Refused,
    Registered,
)
from isthmus.rsip.host import Host
from isthmus.rsip.reliability import LAST_COUNTER, RFC_INITIAL_SECONDS, Retransmission
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.message import (
    DeregisterResponse,
    FreeResponse,
    emit,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
)
from rsip.conversation import GATEWAY_PEER, START, Conversation
from rsip.scripted import ZERO, granted_response, heard, registered_response, say, types

MS = 0.001


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


@pytest.mark.rfc("3103", "10.1")
@pytest.mark.parametrize("udp", [True, False])
def test_after_the_last_counter_comes_1_and_never_0(udp):
    talk = Conversation(udp=udp)
    alice = talk.host(last_counter=LAST_COUNTER - 2)
    alice.register()
    alice.assign_ports()
    talk.run()
    alice.extend(1)
    alice.free(1)
    talk.run()
    counters = [message.message_counter.value for _, message in talk.sent]
    assert counters == [LAST_COUNTER - 1] * 2 + [LAST_COUNTER] * 2 + [1] * 2 + [2] * 2
    assert types(talk.take(alice)) == [Registered, Assigned, Extended, Freed]
