# SPDX-License-Identifier: BSD-3-Clause
"""Control messages of whom they are not from: refused, without effect, and counted (RFC 3103 §9.1, §10.1, §10.2, §11).

A host is known by its private address (RFC 3103 §11). So a message from another private address, with whatever
Client ID and Bind ID, can do nothing to it; nor can what was said before and is said again. A host believes its
gateway's address and port only, and there only what answers its request or concerns what it holds.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isthmus.border.effect import Peer
from isthmus.rsip.answers import Ignored
from isthmus.wire.rsip.codes import ErrorCode, MessageType
from isthmus.wire.rsip.message import (
    DeregisterResponse,
    ErrorResponse,
    ExtendResponse,
    FreeResponse,
    ListenRequest,
    QueryRequest,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import BindId, ClientId, Error, LeaseTime, MessageCounter, Ports, RsipAddress
from rsip.conversation import FAR, GATEWAY_PEER, NEAR, Address, Conversation, Ledger, Raw, make_gateway
from rsip.requests import assign_address, assign_ports, client_of, deregister, extend, free, register

numbers = st.integers(1, (1 << 32) - 1)


def listen(client_id, counter):
    return ListenRequest(
        client_id=ClientId(client_id),
        local_address=RsipAddress.any(),
        local_ports=Ports.any_of(1),
        remote_address=RsipAddress.any(),
        remote_ports=Ports.any_of(1),
        message_counter=MessageCounter(counter),
    )


def query(client_id, counter):
    return QueryRequest(client_id=ClientId(client_id), message_counter=MessageCounter(counter))


MAKERS = {
    "deregister": lambda client, bind, counter: deregister(client, counter),
    "ports": lambda client, bind, counter: assign_ports(client, counter),
    "address": lambda client, bind, counter: assign_address(client, counter),
    "extend": extend,
    "free": free,
    "listen": lambda client, bind, counter: listen(client, counter),
    "query": lambda client, bind, counter: query(client, counter),
}


class Scene:
    """Alice holds two bindings; Mallory has another private address."""

    def __init__(self, *, registered: bool, udp: bool = True) -> None:
        self.gateway, self.ledger = make_gateway(), Ledger()
        self.alice = Raw(self.gateway, ledger=self.ledger)
        self.client_id = client_of(self.alice)
        self.heard = [register(1), assign_ports(self.client_id, 2), assign_ports(self.client_id, 3)]
        for message in self.heard[1:]:
            assert self.alice.ask(message).type is MessageType.ASSIGN_RESPONSE_RSAP_IP
        self.mallory = Raw(self.gateway, address="10.0.0.66", connection=0 if udp else 7, ledger=self.ledger)
        self.own_id = client_of(self.mallory) if registered else None
        self.gateway.refusals.clear()

    def alices(self):
        """Everything that is Alice's."""
        owner = self.alice.peer.owner
        return (
            self.ledger.registrations[owner],
            {key: held for key, held in self.ledger.leases.items() if key.owner == owner},
            self.ledger.answers.get(owner),
        )


@pytest.mark.rfc("3103", "9.10.3")
@pytest.mark.rfc("3103", "9.12.3")
@pytest.mark.rfc("3103", "9.4.3")
@settings(max_examples=200)
@given(
    registered=st.booleans(),
    udp=st.booleans(),
    asked=st.lists(st.tuples(st.sampled_from(sorted(MAKERS)), st.integers(1, 3)), min_size=1, max_size=8),
)
def test_nothing_from_another_private_address_touches_a_hosts_leases(registered, udp, asked):
    """With Alice's own Client ID and Bind IDs, over UDP and TCP, registered or not."""
    scene = Scene(registered=registered, udp=udp)
    before = scene.alices()
    expected = ErrorCode.BAD_CLIENT_ID if registered else ErrorCode.REGISTER_FIRST
    for counter, (what, bind_id) in enumerate(asked, 10):
        answer = scene.mallory.ask(MAKERS[what](scene.client_id, bind_id, counter))
        assert answer.error.value == expected
        assert scene.alices() == before
    assert scene.gateway.refusals == {expected: len(asked)}


@pytest.mark.rfc("3103", "9.10.3")
@pytest.mark.rfc("3103", "9.12.3")
@settings(max_examples=100)
@given(what=st.sampled_from(["extend", "free"]), bind_id=numbers)
def test_a_bind_id_of_another_host_is_no_bind_id(what, bind_id):
    scene = Scene(registered=True)
    before = scene.alices()
    for number, counter in ((bind_id, 10), (1, 11), (2, 12)):
        answer = scene.mallory.ask(MAKERS[what](scene.own_id, number, counter))
        assert answer.error.value == ErrorCode.BAD_BIND_ID
        assert answer.bind_id.value == number
    assert scene.alices() == before
    assert scene.gateway.refusals == {ErrorCode.BAD_BIND_ID: 3}


@settings(max_examples=100)
@given(what=st.sampled_from(sorted(MAKERS)), client_id=numbers)
def test_a_client_id_that_is_made_up_is_refused_from_the_hosts_own_address(what, client_id):
    scene = Scene(registered=False)
    assume(client_id != scene.client_id)
    _, leases, _ = scene.alices()
    answer = scene.alice.ask(MAKERS[what](client_id, 1, 4))
    assert answer.error.value == ErrorCode.BAD_CLIENT_ID
    assert scene.alices()[1] == leases
    assert scene.gateway.refusals == {ErrorCode.BAD_CLIENT_ID: 1}


@pytest.mark.rfc("3103", "10.1")
@settings(max_examples=100)
@given(order=st.permutations(range(6)), again=st.integers(1, 3))
def test_what_is_replayed_does_nothing_again(order, again):
    """The last request gets its answer again, the earlier ones nothing; all of it is counted."""
    scene = Scene(registered=False)
    said = [
        *scene.heard,
        extend(scene.client_id, 1, 4),
        free(scene.client_id, 2, 5),
        assign_ports(scene.client_id, 6),
    ]
    for message in said[3:]:
        scene.alice.ask(message)
    before = scene.alices()
    answers = [scene.alice.octets(emit(said[at])) for at in order for _ in range(again)]
    assert scene.alices() == before
    # A REGISTER with an old counter is what a restarted host sends, and ends in an error.
    assert sum(map(len, answers)) == 2 * again, "only the last request has an answer, and REGISTER its error"
    refused = scene.gateway.refusals
    assert refused == {"duplicate": again, "stale": 4 * again, ErrorCode.ALREADY_REGISTERED: again}


@pytest.mark.rfc("3103", "12")
@settings(max_examples=60)
@given(what=st.sampled_from([*sorted(MAKERS), "register"]), far=st.booleans())
def test_strangers_are_not_served(what, far):
    """From the far realm, or from an address that may not register."""
    scene = Scene(registered=False)
    before = scene.alices()
    message = register(9) if what == "register" else MAKERS[what](scene.client_id, 1, 9)
    peer = Peer(FAR, scene.alice.peer.address, 40001) if far else Peer(NEAR, Address.parse("192.0.2.66"), 40001)
    scene.gateway.receive_datagram(emit(message), peer, now=scene.alice.now)
    sent = scene.ledger.carry_out(scene.gateway.next_effects(), scene.alice.now)
    assert scene.alices() == before
    if far:
        assert not sent
        assert scene.gateway.refusals == {"stranger": 1}
    else:
        (send,) = sent
        assert parse(send.data).type is MessageType.ERROR_RESPONSE
        assert sum(scene.gateway.refusals.values()) == 1


# Spoofed as from the gateway


def holding():
    """A host with a binding and a request under way."""
    talk = Conversation()
    host = talk.registered()
    host.assign_ports(4)
    talk.run()
    host.extend(1)
    (request,) = host.datagrams_to_send(now=talk.now)
    talk.take(host)
    return talk, host, parse(request).message_counter.value


def state_of(host):
    return host.state, host.client_id, host.bindings


def from_gateway(kind, client_id, bind_id, counter):
    """What a gateway might say."""
    common = {"client_id": ClientId(client_id), "message_counter": MessageCounter(counter)}
    match kind:
        case "free":
            return FreeResponse(bind_id=BindId(bind_id), **common)
        case "deregister":
            return DeregisterResponse(**common)
        case "extend":
            return ExtendResponse(bind_id=BindId(bind_id), lease_time=LeaseTime(9999), **common)
        case _:
            return ErrorResponse(error=Error(ErrorCode.BAD_BIND_ID), bind_id=BindId(bind_id), **common)


KINDS = ("free", "deregister", "extend", "error")
SOURCES = (
    replace(GATEWAY_PEER, port=4556),
    replace(GATEWAY_PEER, address=Address.parse("10.0.0.2")),
    replace(GATEWAY_PEER, realm=FAR),
    replace(GATEWAY_PEER, address=Address.parse("192.156.136.22")),
)


@pytest.mark.rfc("3103", "9.1.3")
@settings(max_examples=150)
@given(kind=st.sampled_from(KINDS), source=st.sampled_from(SOURCES), unasked=st.booleans())
def test_a_host_believes_its_gateways_address_and_port_only(kind, source, unasked):
    """Even with the right Client ID, Bind ID and counter."""
    talk, host, counter = holding()
    before = state_of(host)
    message = from_gateway(kind, host.client_id, 1, 0 if unasked else counter)
    host.receive_datagram(emit(message), source, now=talk.now)
    assert state_of(host) == before
    assert host.next_event() is None
    assert host.ignored == {Ignored.STRANGER: 1}


@pytest.mark.rfc("3103", "9.1.3")
@pytest.mark.rfc("3103", "10.2.1")
@settings(max_examples=300)
@given(
    kind=st.sampled_from(KINDS),
    client_id=st.none() | numbers,
    bind_id=st.none() | st.integers(2, 1 << 31),
    counter=st.none() | st.just(0) | numbers,
)
def test_what_concerns_nothing_of_a_hosts_is_ignored_and_counted(kind, client_id, bind_id, counter):
    """A wrong Client ID, a wrong Bind ID, a wrong counter, or several of them."""
    talk, host, right = holding()
    wrong_client = client_id is not None and client_id != host.client_id
    wrong_bind = bind_id is not None and kind != "deregister"
    wrong_counter = counter not in (None, 0, right)
    assume(wrong_client or wrong_bind or wrong_counter)
    # An error with the counter of our request answers it; one about us that nobody asked for is a warning.
    assume(kind != "error" or wrong_counter or (counter == 0 and wrong_client))
    before = state_of(host)
    message = from_gateway(kind, client_id or host.client_id, bind_id or 1, right if counter is None else counter)
    host.receive_datagram(emit(message), GATEWAY_PEER, now=talk.now)
    assert state_of(host) == before
    assert sum(host.ignored.values()) == 1


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 16))
def test_a_gateways_messages_replayed_to_a_host_do_nothing_again(seed):
    rng = random.Random(seed)
    talk = Conversation()
    host = talk.registered()
    host.assign_ports(4)
    talk.run()
    host.extend(1)
    talk.run()
    said = [emit(message) for _, message in talk.sent if not message.type.is_request]
    before = state_of(host)
    for octets in rng.choices(said, k=5):
        host.receive_datagram(octets, GATEWAY_PEER, now=talk.now)
    assert state_of(host) == before
    assert host.ignored[Ignored.COUNTER] == 5
