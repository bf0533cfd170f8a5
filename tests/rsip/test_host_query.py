# SPDX-License-Identifier: BSD-3-Clause
"""A host that asks what is local and what is remote (RFC 3103 §9.14, §9.15)."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.rsip.events import Answered, Place, Refused, Registered
from isthmus.rsip.locality import Locality
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.message import ErrorResponse, QueryRequest, QueryResponse
from isthmus.wire.rsip.parameter import ClientId, Error, MessageCounter
from rsip.conversation import START, Conversation, make_policy
from rsip.scripted import heard, say, scripted, types

NET, INNER = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.20.0.0/16")
HOST_ADDRESS = Address.parse("10.20.0.7")
LOCALITY = Locality(local=(NET,), remote=(INNER,), local_names=("here.example",), remote_names=("there.here.example",))


def answered(talk, host, **asked):
    number = host.query(**asked)
    talk.run()
    event = talk.take(host)[-1]
    assert isinstance(event, Answered)
    assert event.request == number
    return event


@pytest.mark.rfc("3102", "6.5")
@pytest.mark.rfc("3103", "9.14.3")
def test_several_addresses_networks_and_names_at_once():
    talk = Conversation(policy=make_policy(query=LOCALITY))
    alice = talk.registered()
    event = answered(
        talk,
        alice,
        addresses=[Address.parse("10.1.1.1"), HOST_ADDRESS],
        networks=[INNER],
        names=["www.here.example", "www.there.here.example"],
    )
    assert event.is_local(Address.parse("10.1.1.1"))
    assert not event.is_local(HOST_ADDRESS)
    assert not event.is_local(INNER)
    assert event.is_local("www.here.example")
    assert not event.is_local("www.there.here.example")
    request = next(message for _, message in talk.sent if isinstance(message, QueryRequest))
    assert len(request.tuples) == 5
    assert alice.state is HostState.REGISTERED


@pytest.mark.rfc("3103", "9.14.3")
def test_a_query_about_nothing_asks_for_everything():
    talk = Conversation(policy=make_policy(query=LOCALITY))
    alice = talk.registered()
    event = answered(talk, alice)
    assert Place(what=NET, is_local=True) in event.places
    assert event.is_local(Address.parse("10.1.1.1"))
    assert not event.is_local(HOST_ADDRESS), "the longest network decides"


@pytest.mark.rfc("3103", "9.15.3")
def test_what_the_gateway_does_not_know_is_remote():
    talk = Conversation(policy=make_policy())
    alice = talk.registered()
    event = answered(talk, alice, addresses=[HOST_ADDRESS], names=["nowhere.example"])
    assert not event.is_local(HOST_ADDRESS)
    assert not event.is_local("nowhere.example")


def test_a_tuple_of_its_own_comes_before_every_network():
    event = Answered(request=1, places=(Place(what=NET, is_local=True), Place(what=HOST_ADDRESS, is_local=False)))
    assert not event.is_local(HOST_ADDRESS)
    assert event.is_local(Address.parse("10.20.0.8"))
    assert Answered(request=1, places=(Place(what="A.example.", is_local=True),)).is_local("a.EXAMPLE")


@pytest.mark.rfc("3103", "17")
def test_a_query_changes_no_state_whatever_becomes_of_it():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    talk.run()
    talk.take(alice)
    talk.drop(7)
    number = alice.query()
    talk.advance(13)
    assert talk.take(alice) == [Refused(request=number, code=None, problem="no answer")]
    assert alice.state is HostState.ASSIGNED


def test_a_query_is_asked_again_after_loss_of_sync():
    talk = Conversation(policy=make_policy(query=LOCALITY))
    alice = talk.registered()
    talk.restart_gateway(keep_leases=False)
    number = alice.query()
    talk.run()
    assert types(talk.take(alice)) == [Registered, Registered, Answered]
    assert number


def test_the_answer_must_be_ours():
    host = scripted()
    number = host.query()
    host.datagrams_to_send(now=START)
    say(host, QueryResponse(client_id=ClientId(6), message_counter=MessageCounter(2)))
    say(host, QueryResponse(client_id=ClientId(5), message_counter=MessageCounter(3)))
    assert heard(host) == []
    assert host.ignored == {"client_id": 1, "counter": 1}
    say(host, ErrorResponse(error=Error(208), message_counter=MessageCounter(2), client_id=ClientId(5)))
    assert [(each.request, each.code) for each in heard(host)] == [(number, 208)]
