# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway tells a host whose packets were dropped (RFC 3103 §10.4)."""

from __future__ import annotations

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import (
    Peer,
)
from isthmus.border.selector import Flow, Kind
from isthmus.border.verdict import Reason, Violation
from isthmus.wire.rsip.message import (
    emit,
    parse,
)
from rsip.conversation import (
    FAR,
    NEAR,
    REMOTE,
    SHARED,
    Raw,
    make_gateway,
    make_policy,
)
from rsip.requests import assign_ports, client_of, code_of, deregister

ALICE = Owner(NEAR, Address.parse("10.0.0.4"))


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def unasked(talk: Raw):
    """What the gateway has sent by itself."""
    return [parse(send.data) for send in talk.drain()]


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


def test_a_source_that_could_not_register_hears_nothing():
    talk = raw()
    stranger = Owner(NEAR, Address.parse("192.0.2.77"))
    talk.gateway.report(violation(Reason.UNREGISTERED, owner=stranger, flow=None), now=talk.now)
    assert unasked(talk) == []


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
