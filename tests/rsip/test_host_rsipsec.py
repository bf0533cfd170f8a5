# SPDX-License-Identifier: BSD-3-Clause
"""A host that asks for SPIs (RFC 3104 §6.2)."""

from __future__ import annotations

import pytest

from isthmus.border.binding import Method
from isthmus.border.ranges import Ranges
from isthmus.rsip.events import Assigned, Extended, Lost, Registered
from isthmus.rsip.states import HostState
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.message import (
    AssignRequestRsipsec,
    AssignResponseRsipsec,
    FreeRequest,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    IkeIdentity,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
    Spi,
)
from rsip.conversation import REMOTE, SHARED, START, Conversation, make_policy, make_pool
from rsip.scripted import heard, say, scripted, types


def talking(**policy):
    pool = make_pool(spis={SHARED: Ranges.of((0x1000, 0x1FFF))}, ike=[SHARED])
    return Conversation(pool=pool, policy=make_policy(**policy))


def granted(counter=2, **changes):
    return AssignResponseRsipsec(
        **{
            "client_id": ClientId(5),
            "bind_id": BindId(1),
            "local_address": RsipAddress.of(SHARED),
            "local_ports": Ports.not_needed(),
            "remote_address": RsipAddress.any(),
            "remote_ports": Ports.not_needed(),
            "spi": Spi.of((0x1000,)),
            "lease_time": LeaseTime(100),
            "tunnel_type": RsipTunnelType(1),
            "message_counter": MessageCounter(counter),
        }
        | changes
    )


@pytest.mark.rfc("3104", "6.2")
def test_address_ports_and_spis_are_asked_for_in_one_request():
    talk = talking()
    alice = talk.registered()
    alice.assign_spis(4, 8)
    talk.run()
    assigned = talk.take(alice)[-1]
    assert (assigned.method, assigned.address) == (Method.RSIPSEC, SHARED)
    assert (len(assigned.ports), len(assigned.spis)) == (8, 4)
    assert (assigned.ike, assigned.listens, assigned.whole) == (True, False, False)
    requests = [message for _, message in talk.sent if isinstance(message, AssignRequestRsipsec)]
    assert len(requests) == 1
    assert (requests[0].local_ports, requests[0].spi) == (Ports.any_of(8), Spi.any_of(4))


@pytest.mark.rfc("3104", "6.2")
def test_without_tcp_and_udp_both_ports_say_that_they_are_not_needed():
    talk = talking()
    alice = talk.registered()
    alice.assign_spis(2)
    talk.run()
    request = next(message for _, message in talk.sent if isinstance(message, AssignRequestRsipsec))
    assert request.local_ports.dont_need
    assert request.remote_ports.dont_need
    assigned = talk.take(alice)[-1]
    assert assigned.ports is None
    assert len(assigned.spis) == 2
    assert not assigned.whole


def test_the_very_spis_may_be_asked_for():
    talk = talking()
    alice = talk.registered()
    wanted = Ranges.of((0x1100, 0x110F), 0x1200)
    alice.assign_spis(wanted, Ranges.of(5000), lease_seconds=100)
    talk.run()
    assert talk.take(alice)[-1].spis == wanted
    talk.advance(60)
    assert types(talk.take(alice)) == [Extended]
    alice.free(1)
    talk.run()
    assert alice.state is HostState.REGISTERED
    bob = talk.registered("10.0.0.5")
    bob.assign_spis(Ranges.of(0x1200))
    talk.run()
    assert talk.take(bob)[-1].code == 403, "what was given back rests"


@pytest.mark.rfc("3104", "6")
@pytest.mark.parametrize("policy", [1, 2])
def test_the_flow_policies_are_those_of_rsap_ip(policy):
    talk = talking(remote=policy)
    alice = talk.registered()
    lacking = alice.assign_spis(1, 1)
    alice.assign_spis(1, 1, remote=REMOTE, remote_port=500)
    talk.run()
    refused, assigned = talk.take(alice)[1:]
    assert (refused.request, refused.code) == (lacking, 103)
    assert assigned.remote_address == REMOTE
    assert assigned.remote_port == (500 if policy == 2 else None)


@pytest.mark.rfc("3103", "9.9.3")
@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({"spis": 2}, {}),
        ({"spis": Ranges.of(0x1001)}, {}),
        ({}, {"spi": Spi.any_of(1)}),
        ({}, {"spi": Spi.of((0x1000, 0x1002))}),
        ({}, {"local_ports": Ports.of((5000,))}),
        ({"ports": 1}, {}),
        ({"ports": 1}, {"local_ports": Ports.of((5000,))}),
        ({}, {"remote_ports": Ports.of((80,))}),
        ({}, {"local_address": RsipAddress.any()}),
        ({}, {"tunnel_type": RsipTunnelType(3)}),
    ],
)
def test_spis_that_were_not_asked_for_are_given_back(asked, changes):
    host = scripted()
    request = host.assign_spis(**asked)
    host.datagrams_to_send(now=START)
    say(host, granted(**changes))
    (refused,) = heard(host)
    assert (refused.request, refused.code) == (request, None)
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


def test_an_incomprehensible_grant_of_spis_is_given_back():
    host = scripted()
    host.assign_spis()
    host.datagrams_to_send(now=START)
    say(host, emit(granted()).replace(b"\x06\0\x01\x01", b"\x07\0\x01\x01"))
    assert [each.code for each in heard(host)] == [None]
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


def test_ports_where_spis_were_asked_for_are_another_method():
    from rsip.scripted import granted_response

    host = scripted()
    host.assign_spis()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    assert heard(host)[0].problem == "another method than asked for"
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


def test_who_holds_port_500_itself_needs_no_cookies():
    host = scripted()
    host.assign_spis(1, Ranges.of(500))
    host.datagrams_to_send(now=START)
    say(host, granted(local_ports=Ports.of((500,)), remote_ports=Ports.any_of(1)))
    assert heard(host)[0].ike is False


@pytest.mark.rfc("3103", "10.2.2")
def test_the_same_spis_are_asked_for_again_after_the_gateway_forgot():
    talk = talking()
    alice = talk.registered()
    alice.assign_spis(4, 8)
    talk.run()
    held = alice.bindings[1]
    pool = make_pool(spis={SHARED: Ranges.of((0x1000, 0x1FFF))}, ike=[SHARED])
    talk.restart_gateway(keep_leases=False, pool=pool)
    alice.extend(1)
    talk.run()
    events = talk.take(alice)
    assert [type(each) for each in events[-3:]] == [Lost, Registered, Assigned]
    assert (events[-1].ports, events[-1].spis) == (held.ports, held.spis)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": Method.RSAP_IP, "ports": 1, "spis": 1},
        {"method": Method.RSIPSEC},
        {"method": Method.RSIPSEC, "spis": 0},
        {"method": Method.RSIPSEC, "spis": 65536},
        {"method": Method.RSIPSEC, "spis": 1, "ports": 256},
        {"method": Method.RSIPSEC, "spis": 1, "listens": True},
        {"method": Method.RSIPSEC, "listens": True, "ports": 1, "identity": IkeIdentity(kind=2, data=b"a")},
        {"method": Method.RSA_IP, "listens": True},
        {"method": Method.RSA_IP, "spis": 1},
    ],
)
def test_a_wish_that_no_message_can_say_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        Wish(**wrong)
