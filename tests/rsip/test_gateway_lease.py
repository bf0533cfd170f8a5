# SPDX-License-Identifier: BSD-3-Clause
"""How long a gateway lets a lease last, and what it says by itself when one ends."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Deregister, Ending, Peer, Send, Unbind
from isthmus.border.ranges import Ranges
from isthmus.rsip.gateway import ENDED_AT_ONCE
from isthmus.rsip.policy import ClientRule
from isthmus.wire.rsip.message import DeregisterResponse, ErrorResponse, FreeResponse, RegisterResponse, emit, parse
from rsip.conversation import (
    NEAR,
    REMOTE,
    SHARED,
    START,
    WHOLE,
    Conversation,
    Raw,
    make_gateway,
    make_policy,
    make_pool,
)
from rsip.requests import assign_address, assign_ports, client_of, code_of, extend, free, listen, register

ALICE = Owner(NEAR, Address.parse("10.0.0.4"))


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def unasked(talk: Raw):
    """What the gateway has sent by itself."""
    return [parse(send.data) for send in talk.drain()]


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


@pytest.mark.rfc("3103", "9.10.3")
@pytest.mark.rfc("3103", "9.11.1")
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


def test_a_host_may_lose_all_it_holds_and_stay_registered():
    talk = raw()
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    client_id = client_of(talk)
    bob.ask(assign_ports(client_of(bob)))
    for counter in (2, 3):
        talk.ask(assign_ports(client_id, counter))
    assert talk.gateway.revoke_all(ALICE, now=talk.now) == 2
    assert [answer.bind_id.value for answer in unasked(talk)] == [1, 2]
    assert len(talk.gateway) == 2
    assert talk.gateway.revoke_all(ALICE, now=talk.now) == 0
    assert talk.gateway.revoke_all(Owner(NEAR, Address.parse("10.0.0.99")), now=talk.now) == 0
    assert talk.ask(assign_ports(client_id, 4)).bind_id.value == 3


def test_the_holder_of_an_address_and_port_is_known():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000, 5001)))
    talk.ask(assign_ports(client_id, 3, ports=(6000,)))
    talk.ask(assign_address(client_id, 4, address=WHOLE.address))
    one, two, three = (BindingKey(ALICE, n) for n in (1, 2, 3))
    holders = talk.gateway.holders
    assert (holders(SHARED, port=5001), holders(SHARED, port=6000), holders(SHARED, port=7)) == ((one,), (two,), ())
    assert (holders(SHARED), holders(WHOLE.address, port=7), holders(REMOTE)) == ((one, two), (three,), ())


# Extending that is refused


@pytest.mark.rfc("3103", "9.10.3")
def test_an_extension_that_policy_refuses_is_answered_with_free_response_and_the_binding_is_over():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id))
    rules = (ClientRule(prefix=Prefix.parse("10.0.0.0/8"), admitted=False),)
    talk.gateway = make_gateway(make_policy(clients=rules), seed=9)
    talk.ledger.restart(talk.gateway, talk.now)
    data = emit(extend(client_id, 1, 3))
    (answer,) = (parse(each) for each in talk.octets(data))
    assert isinstance(answer, FreeResponse)
    assert (answer.message_counter.value, answer.bind_id.value) == (3, 1)
    assert not talk.ledger.leases
    assert [parse(each) for each in talk.octets(data)] == [answer], "a copy of the request hears the same"
    assert code_of(talk.ask(extend(client_id, 1, 4))) == 306


# Cascaded gateways


def under(until: float | None, **changes) -> Raw:
    """A gateway whose pool is leased from another until some time."""
    return Raw(make_gateway(lease_ceiling=lambda address, now: until if address == SHARED else None, **changes))


@pytest.mark.rfc("3102", "4.2.1")
@pytest.mark.parametrize(("wanted", "granted"), [(None, 100), (60, 60), (3600, 100)])
def test_gateway_must_not_lease_longer_than_its_parent_leases_to_it(wanted, granted):
    talk = under(START + 100.5)
    client_id = client_of(talk)
    assert talk.ask(assign_ports(client_id, lease=wanted)).lease_time.value == granted
    assert talk.ledger.leases[BindingKey(ALICE, 1)][1].expires_at <= START + 100.5
    talk.now += 50
    assert talk.ask(extend(client_id, 1, 3, lease=900)).lease_time.value == 50
    assert talk.ledger.leases[BindingKey(ALICE, 1)][1].expires_at <= START + 100.5
    assert talk.ask(assign_address(client_id, 4, lease=900)).lease_time.value == 900


@pytest.mark.rfc("3102", "4.2.1")
def test_what_the_parent_takes_back_is_leased_no_more_and_extended_no_more():
    until = START + 600
    talk = Raw(make_gateway(lease_ceiling=lambda address, now: until))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=(5000,)))
    until = START
    assert code_of(talk.ask(assign_ports(client_id, 3, ports=(6000,)))) == 308
    assert code_of(talk.ask(listen(client_id, 4, ports=(5000, 5001)))) == 308
    assert isinstance(talk.ask(extend(client_id, 1, 5)), FreeResponse)
    assert not talk.ledger.leases
    until = START + 600
    assert talk.ask(assign_ports(client_id, 6, ports=(6000,))).bind_id.value == 2, "what nobody got needs no rest"
    assert len(talk.ledger.resting) == 1


def test_a_parent_that_shortens_its_lease_shortens_ours_at_the_next_extension():
    until = START + 600
    talk = Raw(make_gateway(lease_ceiling=lambda address, now: until))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2))
    until = START + 200
    assert talk.ask(extend(client_id, 1, 3)).lease_time.value == 200
    assert talk.gateway.get_timer() == START + 200


def test_very_many_leases_that_run_out_at_once_end_in_goes_and_the_host_that_is_heard_first():
    talk = Conversation()
    peers = [Peer(NEAR, Address.parse(f"10.1.{number >> 8}.{number & 255}"), 5000) for number in range(600)]
    for peer in peers:
        talk.gateway.receive_datagram(emit(register(1)), peer, now=START)
    talk.ledger.carry_out(talk.gateway.next_effects(), START)
    late = START + 100_000
    talk.gateway.receive_datagram(emit(register(2)), peers[-1], now=late)
    effects = talk.gateway.next_effects()
    talk.ledger.carry_out(effects, late)
    assert len([each for each in effects if isinstance(each, Deregister)]) == ENDED_AT_ONCE + 1
    answers = [parse(each.data) for each in effects if isinstance(each, Send) and each.peer == peers[-1]]
    assert [type(each) for each in answers] == [DeregisterResponse, RegisterResponse]
    while talk.gateway.get_timer() <= late:
        talk.gateway.handle_timer(now=late)
        talk.ledger.carry_out(talk.gateway.next_effects(), late)
    assert list(talk.ledger.registrations) == [peers[-1].owner]
