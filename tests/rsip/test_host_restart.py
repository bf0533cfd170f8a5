# SPDX-License-Identifier: BSD-3-Clause
"""Loss of state at either end, as a host gets over it (RFC 3103 §10.2)."""

from __future__ import annotations

import pytest

from isthmus.border.binding import BindingKey
from isthmus.border.effect import Ending
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
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.codes import MessageType
from isthmus.wire.rsip.message import (
    ErrorResponse,
    parse,
)
from isthmus.wire.rsip.parameter import (
    ClientId,
    Error,
    MessageCounter,
)
from rsip.conversation import GATEWAY_PEER, START, Conversation
from rsip.scripted import ZERO, granted_response, heard, registered_response, say, scripted, sent_types, types


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


@pytest.mark.rfc("3103", "9.12.3")
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
