# SPDX-License-Identifier: BSD-3-Clause
"""Control messages that are not served are counted, each once (RFC 3103 §11; spec 19)."""

from __future__ import annotations

from collections import Counter

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey
from isthmus.border.effect import Peer
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.envelope import MessageError
from isthmus.wire.rsip.message import ErrorResponse, emit, parse
from isthmus.wire.rsip.parameter import Error
from isthmus.wire.rsip.stream import MessageStream
from rsip.conversation import FAR, Raw, make_gateway, make_policy
from rsip.requests import assign_ports, client_of, code_of, deregister, extend, free, query, register


def raw(**policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy)))


def victim_and_thief() -> tuple[Raw, Raw, int, int]:
    talk = raw()
    thief = Raw(talk.gateway, address="10.0.0.66", ledger=talk.ledger)
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id))
    return talk, thief, client_id, client_of(thief)


@pytest.mark.rfc("3103", "9.4.3")
@pytest.mark.parametrize(
    "steal", [lambda c: free(c, 1), lambda c: extend(c, 1), deregister, assign_ports, query, lambda c: free(c, 77)]
)
def test_anothers_client_id_is_refused_and_counted(steal):
    talk, thief, client_id, _ = victim_and_thief()
    assert code_of(thief.ask(steal(client_id))) == 305
    assert talk.gateway.refusals == {ErrorCode.BAD_CLIENT_ID: 1}
    assert BindingKey(talk.peer.owner, 1) in talk.ledger.leases


@pytest.mark.rfc("3103", "9.12.3")
@pytest.mark.parametrize("steal", [free, extend])
def test_anothers_bind_id_is_refused_and_counted(steal):
    talk, thief, _, thiefs = victim_and_thief()
    assert code_of(thief.ask(steal(thiefs, 1))) == 306
    assert talk.gateway.refusals == {ErrorCode.BAD_BIND_ID: 1}
    assert list(talk.ledger.leases) == [BindingKey(talk.peer.owner, 1)]


@pytest.mark.parametrize("steal", [lambda c: free(c, 1), deregister])
def test_another_private_address_is_nobody_and_is_counted(steal):
    talk, _, client_id, _ = victim_and_thief()
    nobody = Raw(talk.gateway, address="10.0.0.99", ledger=talk.ledger)
    assert code_of(nobody.ask(steal(client_id))) == 301
    assert talk.gateway.refusals == {ErrorCode.REGISTER_FIRST: 1}


def test_a_replay_is_answered_again_or_is_stale_or_is_refused_and_does_nothing():
    talk = raw()
    client_id = client_of(talk)
    old = emit(assign_ports(client_id, 2))
    answer = talk.octets(old)
    assert talk.octets(old) == answer
    talk.ask(free(client_id, 1, 3))
    assert talk.octets(old) == []
    talk.port += 1
    talk.ask(deregister(client_id, 4))
    talk.port += 1
    assert len(talk.octets(old)) == 1
    assert talk.gateway.refusals == {"duplicate": 1, "stale": 1, ErrorCode.REGISTER_FIRST: 1}
    assert not talk.ledger.leases


def test_every_way_not_to_be_served_is_counted():
    talk = raw(requests_per_second=10.0, requests_burst=5)
    gateway = talk.gateway
    gateway.receive_datagram(emit(register()), Peer(FAR, Address.parse("10.0.0.4"), 4555), now=talk.now)
    stranger = Raw(gateway, address="192.0.2.9")
    stranger.octets(b"\x01\x02")
    stranger.ask(register())
    talk.octets(emit(ErrorResponse(error=Error(ErrorCode.UNKNOWN_ERROR))))
    talk.octets(b"\x01")
    for counter in range(6):
        talk.octets(emit(deregister(1, counter + 1)))
    talk.now += 10
    talk.connection = 1
    with pytest.raises(MessageError) as raised:
        MessageStream().feed(b"\x01\x02\x00\x01")
    gateway.receive_broken_stream(raised.value, talk.peer, now=talk.now)
    gateway.receive_broken_stream(raised.value, Peer(FAR, Address.parse("10.0.0.4"), 1, 2), now=talk.now)
    assert gateway.refusals == Counter(
        {
            "stranger": 3,
            ErrorCode.REGISTRATION_DENIED: 1,
            "error": 1,
            ErrorCode.BAD_MESSAGE: 2,
            ErrorCode.REGISTER_FIRST: 3,
            "rate": 3,
        }
    )


def test_what_is_served_is_not_counted():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2))
    talk.ask(query(client_id, counter=3))
    talk.ask(extend(client_id, 1, 4))
    talk.ask(free(client_id, 1, 5))
    talk.ask(deregister(client_id, 6))
    assert not talk.gateway.refusals


def test_use_tcp_is_counted():
    talk = raw(udp=False)
    assert code_of(talk.ask(register())) == 102
    assert talk.gateway.refusals == {ErrorCode.USE_TCP: 1}


@pytest.mark.rfc("3103", "10.1")
def test_after_the_last_counter_comes_1_and_what_came_before_is_stale():
    talk = raw()
    last = (1 << 32) - 1
    answer = talk.ask(register(last - 1))
    client_id = answer.client_id.value
    old = emit(assign_ports(client_id, last))
    talk.octets(old)
    assert talk.ask(assign_ports(client_id, 1)).bind_id.value == 2
    assert talk.octets(old) == []
    assert talk.gateway.refusals == {"stale": 1}
    assert talk.ask(free(client_id, 1, 2)).message_counter.value == 2


def test_no_request_is_so_long_that_its_answer_does_not_fit():
    talk = raw()
    talk.connection = 1
    client_id = client_of(talk, None)
    body = emit(assign_ports(client_id, None, remote="a" * 255))
    room = 65535 - len(body)
    vendor = b"\x0c" + (room - 3).to_bytes(2, "big") + bytes(room - 3)
    (octets,) = talk.octets(body[:2] + (65535).to_bytes(2, "big") + body[4:] + vendor)
    assert len(parse(octets).remote_address.octets) == 255
