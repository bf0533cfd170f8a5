# SPDX-License-Identifier: BSD-3-Clause
"""A host that listens: ports that anybody may call, and the IKE of one initiator (RFC 3103 §9.16; seed RSIP 4.1)."""

from __future__ import annotations

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending
from isthmus.border.identity import identity_value
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind
from isthmus.rsip.events import Assigned, Extended, Freed, Lost, Refused, Registered
from isthmus.rsip.states import HostState
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.message import (
    FreeRequest,
    ListenRequest,
    ListenResponse,
    ListenResponseRsipIke,
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
)
from rsip.conversation import REMOTE, SHARED, START, Conversation, make_policy, make_pool
from rsip.scripted import heard, say, scripted, sent_types, types

ALICE = IkeIdentity(kind=2, data=b"alice.example")


def listen_response(counter, **changes):
    return ListenResponse(
        **{
            "client_id": ClientId(5),
            "bind_id": BindId(1),
            "local_address": RsipAddress.of(SHARED),
            "local_ports": Ports.of((5000,)),
            "remote_address": RsipAddress.any(),
            "remote_ports": Ports.any_of(1),
            "tunnel_type": RsipTunnelType(1),
            "lease_time": LeaseTime(100),
            "message_counter": MessageCounter(counter),
        }
        | changes
    )


@pytest.mark.rfc("3103", "9.17.3")
@pytest.mark.rfc("3103", "9.16.1")
@pytest.mark.parametrize("udp", [True, False])
def test_a_host_listens_extends_and_frees_like_any_binding(udp):
    talk = Conversation(udp=udp)
    alice = talk.registered()
    request = alice.listen(Ranges.of(5000), lease_seconds=100)
    talk.run()
    assigned = talk.take(alice)[-1]
    assert (assigned.request, assigned.bind_id, assigned.method) == (request, 1, Method.RSAP_IP)
    assert (assigned.address, assigned.ports, assigned.listens) == (SHARED, Ranges.of(5000), True)
    assert assigned.expires_at == START + 100
    assert alice.state is HostState.ASSIGNED
    (binding, _) = next(iter(talk.ledger.leases.values()))
    assert binding.selectors[0].remote.admit is Admit.ANYONE
    talk.advance(60)
    assert types(talk.take(alice)) == [Extended]
    alice.free(1)
    talk.run()
    assert talk.take(alice) == [Freed(bind_id=1, ending=Ending.FREED)]


@pytest.mark.rfc("3103", "9.16.2")
def test_a_listen_may_name_several_tunnel_types_and_an_assign_one():
    talk = Conversation()
    alice = talk.registered()
    alice.listen(2, tunnels=(TunnelKind.GRE, TunnelKind.IPIP))
    talk.run()
    assert talk.take(alice)[-1].tunnel_kind is TunnelKind.GRE
    request = next(message for _, message in talk.sent if isinstance(message, ListenRequest))
    assert [each.value for each in request.tunnel_types] == [2, 1]
    with pytest.raises(ValueError, match="an ASSIGN names one"):
        Wish(method=Method.RSAP_IP, ports=1, tunnels=(TunnelKind.GRE, TunnelKind.IPIP))


@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.parametrize(
    ("policy", "sent", "granted"),
    [
        (3, (None, None), (None, None)),
        (1, (REMOTE, 20), (REMOTE, None)),
        (2, (REMOTE, 20), (REMOTE, 20)),
    ],
)
def test_a_listen_names_the_peer_as_the_remote_policy_wants(policy, sent, granted):
    talk = Conversation(policy=make_policy(remote=policy, listen_micro=True))
    alice = talk.registered()
    alice.listen(Ranges.of(5000), remote=REMOTE, remote_port=20)
    talk.run()
    request = next(message for _, message in talk.sent if isinstance(message, ListenRequest))
    port = request.remote_ports.port_set
    assert (request.remote_address.address, port and port[0]) == sent
    assigned = talk.take(alice)[-1]
    assert (assigned.remote_address, assigned.remote_port) == granted


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.parametrize(
    ("policy", "asked", "ok"),
    [
        (3, {}, True),
        (1, {}, False),
        (1, {"remote": REMOTE}, True),
        (2, {"remote": REMOTE}, False),
        (2, {"remote": REMOTE, "remote_port": 80}, True),
    ],
)
@pytest.mark.parametrize("ask", ["assign_ports", "assign_address", "listen"])
def test_a_host_does_not_send_what_its_remote_policy_finds_lacking(ask, policy, asked, ok):
    talk = Conversation(policy=make_policy(remote=policy, listen_micro=True))
    alice = talk.registered()
    talk.sent.clear()
    request = getattr(alice, ask)(**asked)
    talk.run()
    event = talk.take(alice)[-1]
    if ok:
        assert isinstance(event, Assigned)
    else:
        assert (event.request, event.code) == (request, 103)
        assert talk.sent == []


@pytest.mark.rfc("3103", "9.17.3")
@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({"ports": 2}, {}),
        ({"ports": Ranges.of(5001)}, {}),
        ({"tunnels": (TunnelKind.GRE,)}, {}),
        ({}, {"tunnel_type": RsipTunnelType(3)}),
        ({}, {"local_address": RsipAddress.any()}),
        ({}, {"lease_time": LeaseTime(0)}),
        ({}, {"remote_ports": Ports.of((80,))}),
    ],
)
def test_a_listen_that_was_granted_otherwise_is_given_back(asked, changes):
    host = scripted()
    request = host.listen(**asked)
    host.datagrams_to_send(now=START)
    say(host, listen_response(2, **changes))
    (refused,) = heard(host)
    assert (refused.request, refused.code) == (request, None)
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


@pytest.mark.rfc("3103", "9.17.3")
def test_an_incomprehensible_listen_response_is_given_back():
    host = scripted()
    host.listen()
    host.datagrams_to_send(now=START)
    say(host, emit(listen_response(2)).replace(b"\x06\0\x01\x01", b"\x07\0\x01\x01"))
    assert [each.code for each in heard(host)] == [None]
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


def test_the_tunnel_of_a_listen_may_end_elsewhere():
    host = scripted()
    host.listen()
    host.datagrams_to_send(now=START)
    elsewhere = Address.parse("10.0.0.2")
    say(host, listen_response(2, tunnel_endpoint=RsipAddress.of(elsewhere)))
    assert heard(host)[0].tunnel_endpoint == elsewhere


@pytest.mark.rfc("3103", "10.2.2")
def test_what_was_listened_on_is_listened_on_again_after_the_gateway_forgot():
    talk = Conversation()
    alice = talk.registered()
    first = alice.listen(3)
    talk.run()
    ports = alice.bindings[1].ports
    talk.restart_gateway(keep_leases=False)
    alice.extend(1)
    talk.run()
    events = talk.take(alice)
    assert [type(each) for each in events] == [Registered, Assigned, Lost, Registered, Assigned]
    assert (events[-1].request, events[-1].ports, events[-1].listens) == (first, ports, True)
    assert sent_types(talk).count("LISTEN_REQUEST") == 2


def test_after_the_seventh_silence_a_listen_is_given_up():
    talk = Conversation()
    alice = talk.registered()
    talk.take(alice)
    talk.drop(7)
    request = alice.listen()
    talk.advance(13)
    assert talk.take(alice) == [Refused(request=request, code=None, problem="no answer")]
    assert alice.state is HostState.REGISTERED


def test_a_revoked_listen_is_over():
    talk = Conversation()
    alice = talk.registered()
    alice.listen()
    talk.run()
    talk.gateway.revoke(BindingKey(talk.peer_of(alice).owner, 1), now=talk.now)
    talk.run()
    assert talk.take(alice)[-1] == Freed(bind_id=1, ending=Ending.REVOKED)


def ike_pool():
    return make_pool(spis={SHARED: Ranges.of((0x1000, 0x1FFF))}, ike=[SHARED])


def test_the_ike_of_one_initiator_is_listened_for():
    talk = Conversation(pool=ike_pool())
    alice = talk.registered()
    alice.listen_ike(ALICE)
    talk.run()
    assigned = talk.take(alice)[-1]
    assert (assigned.method, assigned.listens, assigned.ike) == (Method.RSIPSEC, True, True)
    assert (assigned.ports, assigned.spis) == (None, None)
    assert assigned.identity == identity_value(2, b"alice.example")
    (binding, _) = next(iter(talk.ledger.leases.values()))
    assert {each.kind for each in binding.selectors} == {Kind.IDENTITY, Kind.COOKIE}
    bob = talk.registered("10.0.0.5")
    bob.listen_ike(ALICE)
    talk.run()
    assert talk.take(bob)[-1].code == 311


def test_another_initiator_than_asked_for_is_given_back():
    host = scripted()
    host.listen_ike(ALICE)
    host.datagrams_to_send(now=START)
    other = listen_response(2)
    say(
        host,
        ListenResponseRsipIke(
            client_id=other.client_id,
            bind_id=other.bind_id,
            local_address=other.local_address,
            ike_identity=IkeIdentity(kind=2, data=b"bob.example"),
            remote_address=other.remote_address,
            remote_ports=other.remote_ports,
            tunnel_type=other.tunnel_type,
            lease_time=other.lease_time,
            message_counter=other.message_counter,
        ),
    )
    assert "bob" in heard(host)[0].problem
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)
