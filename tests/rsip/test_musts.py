# SPDX-License-Identifier: BSD-3-Clause
"""The MUSTs of RFC 3102 and 3103 that registration and assignment concern (spec 25), one test each, by name.

What concerns octets is tested in ``tests/wire``, packets in ``tests/plane``, sockets in
``tests/daemon``; LISTEN, QUERY and RSIPSEC in files of their own (``test_gateway_listen`` and so on).
"""

from __future__ import annotations

import pytest

from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Bind, Ending, Unbind
from isthmus.border.verdict import Reason, Violation
from isthmus.errors import LocalProtocolError
from isthmus.rsip.events import Assigned, Deregistered, Freed, Lost, Refused, Registered
from isthmus.rsip.host import Host
from isthmus.rsip.states import HOST_REFUSAL, HostEvent, HostState
from isthmus.wire.rsip.message import DeregisterResponse, ErrorResponse, FreeResponse, emit, parse
from isthmus.wire.rsip.parameter import ClientId
from rsip.conversation import GATEWAY_PEER, REMOTE, WHOLE, Conversation, Raw, make_gateway, make_policy, make_pool
from rsip.requests import assign_address, assign_ports, client_of, code_of, deregister, extend, free, register


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def neighbour(talk: Raw, last: int = 5) -> Raw:
    return Raw(talk.gateway, address=f"10.0.0.{last}", ledger=talk.ledger)


# Gateway


@pytest.mark.rfc("3103", "4")
def test_gateway_must_support_rsap_ip():
    talk = raw()
    assert talk.ask(assign_ports(client_of(talk))).bind_id.value == 1


@pytest.mark.rfc("3103", "9.3.3")
def test_gateway_must_give_unique_client_ids():
    gateway = make_gateway()
    assert len({client_of(Raw(gateway, address=f"10.1.{n}.9")) for n in range(250)}) == 250


@pytest.mark.rfc("3103", "9.2.3")
def test_gateway_must_answer_a_second_registration_with_302_and_the_client_id():
    talk = raw()
    client_id = client_of(talk)
    answer = talk.ask(register(2))
    assert (code_of(answer), answer.client_id.value) == (302, client_id)


@pytest.mark.rfc("3103", "9.2.3")
def test_gateway_must_deny_a_registration_that_policy_forbids_with_304():
    assert code_of(raw(clients=()).ask(register())) == 304


@pytest.mark.rfc("3103", "9.4.3")
@pytest.mark.parametrize(
    "message", [deregister, assign_ports, assign_address, lambda c: extend(c, 1), lambda c: free(c, 1)]
)
def test_gateway_must_answer_301_to_who_is_not_registered_and_305_to_a_wrong_client_id(message):
    talk = raw()
    assert code_of(talk.ask(message(1))) == 301
    client_id = client_of(neighbour(talk))
    assert code_of(neighbour(talk).ask(message(client_id ^ 1))) == 305


@pytest.mark.rfc("3103", "9.12.3")
@pytest.mark.parametrize("message", [extend, free])
def test_gateway_must_answer_306_to_a_wrong_bind_id(message):
    talk = raw()
    assert code_of(talk.ask(message(client_of(talk), 1))) == 306


@pytest.mark.rfc("3103", "9.7.3")
@pytest.mark.rfc("3103", "9.9.3")
@pytest.mark.parametrize("request_", [assign_ports, assign_address])
def test_gateway_must_answer_the_remote_fields_by_the_policy(request_):
    none, macro, micro = (raw(remote=policy) for policy in (3, 1, 2))
    ask = {"remote": REMOTE, "remote_ports": (80,)}
    answer = none.ask(request_(client_of(none), **ask))
    assert (answer.remote_address.dont_care, answer.remote_ports.dont_care) == (True, True)
    answer = macro.ask(request_(client_of(macro), **ask))
    assert (answer.remote_address.address, answer.remote_ports.dont_care) == (REMOTE, True)
    answer = micro.ask(request_(client_of(micro), **ask))
    assert (answer.remote_address.address, answer.remote_ports.port_set) == (REMOTE, (80,))


@pytest.mark.rfc("3102", "2")
@pytest.mark.rfc("3103", "9.9.3")
def test_gateway_must_always_assign_an_address_a_port_a_lease_and_a_tunnel_type():
    talk = raw()
    answer = talk.ask(assign_ports(client_of(talk), ports=1))
    assert answer.local_address.address is not None
    assert len(answer.local_ports.port_set) == 1
    assert answer.lease_time.value > 0
    assert answer.tunnel_type.value == 1


@pytest.mark.rfc("3103", "10.5")
def test_gateway_must_answer_310_or_311_to_what_is_in_use():
    talk = raw()
    bob, client_id = neighbour(talk), client_of(talk)
    talk.ask(assign_address(client_id, 2, address=WHOLE.address))
    talk.ask(assign_ports(client_id, 3, ports=(5000,)))
    bobs = client_of(bob)
    assert code_of(bob.ask(assign_address(bobs, 2, address=WHOLE.address))) == 310
    assert code_of(bob.ask(assign_ports(bobs, 3, ports=(4999, 5000)))) == 311


@pytest.mark.rfc("3103", "9.8.3")
def test_gateway_must_grant_any_n_ports_all_or_nothing():
    talk = raw(pool=make_pool(shared=[(WHOLE.address, make_pool().claims[0].values)], whole=[], slice_size=1))
    client_id = client_of(talk)
    for n in range(16):
        assert len(talk.ask(assign_ports(client_id, 2 + n, ports=255)).local_ports.port_set) == 255
    assert code_of(talk.ask(assign_ports(client_id, 40, ports=255))) == 309


@pytest.mark.rfc("3103", "9.5.3")
@pytest.mark.rfc("3103", "9.4.3")
def test_gateway_must_delete_all_bindings_on_deregistration():
    talk = raw()
    client_id = client_of(talk)
    for counter in range(2, 7):
        talk.ask(assign_ports(client_id, counter))
    talk.ask(deregister(client_id))
    assert not talk.ledger.leases
    ended = [each.ending for each in talk.ledger.history if isinstance(each, Unbind)]
    assert ended == [Ending.FREED] * 5


@pytest.mark.rfc("3103", "9.5.3")
def test_gateway_must_send_a_deregister_response_when_the_registration_expires():
    talk = raw()
    client_id = client_of(talk)
    talk.gateway.handle_timer(now=talk.now + 600)
    (send,) = talk.drain()
    answer = parse(send.data)
    assert isinstance(answer, DeregisterResponse)
    assert answer.client_id.value == client_id


@pytest.mark.rfc("3103", "10.1")
@pytest.mark.parametrize("counter", [1, 2, 77, 2**32 - 1])
def test_gateway_must_echo_the_message_counter(counter):
    talk = raw()
    assert talk.ask(register(counter)).message_counter.value == counter
    assert (
        talk.ask(free(1, 1, counter + 1 if counter < 2**32 - 1 else 1)).message_counter.value
        == counter % (2**32 - 1) + 1
    )


@pytest.mark.rfc("3103", "10.1")
def test_gateway_must_use_counter_0_for_what_is_unasked():
    talk = raw()
    owner = Owner(1, talk.peer.address)
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id))
    talk.gateway.report(Violation(reason=Reason.WRONG_TUNNEL_TYPE, owner=owner, flow=None, tunnel_kind=2), now=talk.now)
    talk.gateway.revoke(BindingKey(owner, 1), now=talk.now)
    talk.gateway.dismiss(owner, now=talk.now)
    messages = [parse(send.data) for send in talk.drain()]
    assert [type(each) for each in messages] == [ErrorResponse, FreeResponse, DeregisterResponse]
    assert [each.message_counter.value for each in messages] == [0, 0, 0]


@pytest.mark.rfc("3103", "10.1")
@pytest.mark.rfc("3103", "8.11")
@pytest.mark.rfc("3103", "14")
def test_gateway_must_require_the_message_counter_on_udp():
    assert code_of(raw().ask(register(None))) == 105


@pytest.mark.rfc("3103", "10.1")
def test_gateway_must_repeat_its_last_message_for_a_duplicate():
    talk = raw()
    client_id = client_of(talk)
    for message in (
        assign_ports(client_id, 2),
        extend(client_id, 1, 3),
        free(client_id, 9, 4),
        deregister(client_id, 5),
    ):
        first = talk.octets(emit(message))
        before = len(talk.ledger.history)
        for _ in range(6):
            talk.now += 0.3
            assert talk.octets(emit(message)) == first
        assert len(talk.ledger.history) == before + 6, "only Send"
    talk.now += 2
    assert talk.octets(emit(message)) == first


@pytest.mark.rfc("3103", "10.4")
@pytest.mark.parametrize("reason", [Reason(n) for n in (10, 11, 12, 13, 14)])
def test_gateway_must_tell_a_host_of_its_misuse(reason):
    talk = raw()
    client_of(talk)
    talk.gateway.report(
        Violation(reason=reason, owner=Owner(1, talk.peer.address), flow=None, tunnel_kind=1), now=talk.now
    )
    (send,) = talk.drain()
    assert code_of(parse(send.data)) == reason.rsip_code in (307, 312, 313, 314, 315)


@pytest.mark.rfc("3103", "9.1")
def test_gateway_must_put_one_error_in_an_error_response():
    talk = raw(local=2, remote=2)
    answer = talk.ask(assign_ports(client_of(talk), ports=9, tunnel=77))
    assert emit(answer).count(b"\x08\x00\x02\x01") == 1


@pytest.mark.rfc("3102", "6.1")
def test_gateway_must_not_use_a_freed_tuple_for_two_minutes():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(255)
    talk.run()
    ports = alice.bindings[1].ports
    alice.free(1)
    bob = talk.registered("10.0.0.5")
    talk.advance(119)
    bob.assign_ports(ports)
    talk.advance(1)
    assert [each.code for each in talk.take(bob) if isinstance(each, Refused)] == [311]
    bob.assign_ports(ports)
    talk.run()
    assert isinstance(talk.take(bob)[-1], Assigned)


# Host


@pytest.mark.rfc("3103", "9.2.1")
def test_host_must_register_first():
    talk = Conversation()
    alice = talk.host()
    alice.assign_ports()
    talk.run()
    assert [each.code for each in talk.take(alice)] == [301]
    assert talk.sent == []


@pytest.mark.rfc("3103", "9.2.1")
@pytest.mark.parametrize(
    "state", [state for state in HostState if state not in ("UNREGISTERED", "REG_PENDING", "RESYNC_PENDING")]
)
def test_host_must_have_one_registration_per_gateway(state):
    assert HOST_REFUSAL[state][HostEvent.SEND_REGISTER] == 302


@pytest.mark.rfc("3103", "9.5.1")
@pytest.mark.rfc("3103", "9.5.3")
@pytest.mark.rfc("3103", "9.13.3")
@pytest.mark.parametrize("ask", [None, "assign_ports", "assign_address", "deregister"])
def test_host_must_stop_using_resources_when_told_at_any_time(ask):
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    alice.assign_ports()
    talk.run()
    if ask:
        getattr(alice, ask)()
        alice.datagrams_to_send(now=talk.now)
    owner = talk.peer_of(alice).owner
    talk.gateway.revoke(BindingKey(owner, 1), now=talk.now)
    talk.run()
    assert list(alice.bindings) == [2]
    talk.gateway.dismiss(owner, now=talk.now)
    talk.run()
    assert alice.bindings == {}
    assert [type(each) for each in talk.take(alice)[3:5]] == [Freed, Deregistered]


@pytest.mark.rfc("3103", "10.1")
def test_host_must_count_its_messages_and_wait_for_each_answer():
    talk = Conversation()
    alice = talk.host()
    alice.register()
    alice.assign_ports()
    (first,) = alice.datagrams_to_send(now=talk.now)
    assert parse(first).message_counter.value == 1
    assert alice.datagrams_to_send(now=talk.now) == []
    talk.gateway.receive_datagram(first, talk.peer_of(alice), now=talk.now)
    talk.run()
    assert [message.message_counter.value for _, message in talk.sent] == [1, 2, 2]


@pytest.mark.rfc("3103", "5")
def test_host_must_retransmit_the_same_octets():
    talk = Conversation()
    alice = talk.host()
    talk.drop(3)
    alice.register()
    talk.advance(1)
    octets = [emit(message) for _, message in talk.sent]
    assert octets[0] == octets[1] == octets[2] == octets[3]
    assert isinstance(talk.take(alice)[0], Registered)


@pytest.mark.rfc("3103", "9.1")
def test_host_must_discard_bad_gateway_messages_silently():
    host = Host(gateway=GATEWAY_PEER)
    for data in (b"", b"\x01\x03\x00\x04", b"\x02" * 9, emit(DeregisterResponse(client_id=ClientId(3)))):
        host.receive_datagram(data, GATEWAY_PEER, now=0.0)
    assert host.next_event() is None
    assert host.datagrams_to_send(now=0.0) == []


@pytest.mark.rfc("3103", "10.2.2")
def test_host_must_take_301_as_loss_of_synchronisation():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    talk.run()
    talk.restart_gateway(keep_leases=False)
    alice.extend(1)
    talk.run()
    events = [type(each) for each in talk.take(alice)]
    assert events == [Registered, Assigned, Lost, Registered, Assigned]


@pytest.mark.rfc("3102", "3.1")
def test_host_must_be_able_to_ask_for_more_ports():
    talk = Conversation()
    alice = talk.registered()
    for _ in range(4):
        alice.assign_ports(64)
    talk.run()
    assert sum(len(each.ports) for each in alice.bindings.values()) == 256


@pytest.mark.rfc("3102", "2")
def test_host_must_not_name_what_it_does_not_hold():
    with pytest.raises(LocalProtocolError):
        Conversation().registered().free(1)
    talk = Conversation()
    talk.registered().assign_ports()
    talk.run()
    assert len([each for each in talk.ledger.history if isinstance(each, Bind)]) == 1
