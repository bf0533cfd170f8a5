# SPDX-License-Identifier: BSD-3-Clause
"""A host and a gateway talking: requests, grants, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address import Address
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.errors import LocalProtocolError
from isthmus.rsip.events import (
    Deregistered,
    Extended,
    Freed,
    Refused,
    Registered,
)
from isthmus.rsip.states import HostState
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import (
    AssignRequestRsapIp,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import (
    RsipAddress,
)
from rsip.conversation import GATEWAY, REMOTE, SHARED, START, WHOLE, Conversation, make_policy, make_pool
from rsip.scripted import granted_response


@pytest.mark.rfc("3103", "9.10.1")
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


@pytest.mark.rfc("3103", "9.7.3")
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
