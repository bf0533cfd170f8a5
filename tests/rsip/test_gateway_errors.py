# SPDX-License-Identifier: BSD-3-Clause
"""Every error that a request can raise.

A test is named after each error that it provokes; ``test_every_error_is_provoked_by_a_test_that_names_it`` looks
that none is left out.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.effect import Peer
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.rsip.policy import ClientRule
from isthmus.wire.rsip.codes import ErrorCode, Method, RemotePolicy, TunnelType
from isthmus.wire.rsip.envelope import MessageError
from isthmus.wire.rsip.message import ErrorResponse, RegisterResponse, emit, parse
from isthmus.wire.rsip.parameter import ClientId
from isthmus.wire.rsip.stream import MessageStream
from rsip.by_hand import ANY_ADDRESS, ANY_PORT, COUNTER, client, code, message, raw, tlv
from rsip.conversation import OTHER, REMOTE, SHARED, WHOLE, Raw, make_gateway, make_pool
from rsip.requests import (
    assign_address,
    assign_ports,
    assign_spis,
    client_of,
    code_of,
    deregister,
    extend,
    free,
    register,
)

MACRO, MICRO, NONE = int(RemotePolicy.MACRO), int(RemotePolicy.MICRO), int(RemotePolicy.NONE)


def test_102_use_tcp_where_udp_is_not_served():
    talk = raw(udp=False)
    answer = talk.ask(register(7))
    assert code_of(answer) == 102
    assert answer.message_counter.value == 7
    talk.connection = 1
    assert isinstance(talk.ask(register(None)), RegisterResponse)


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.rfc("3103", "7.1")
@pytest.mark.parametrize(
    ("policy", "request_"),
    [
        ({"local": 2}, assign_ports(0, ports=2)),
        ({"local": 2}, assign_ports(0, ports=(4096, 4097))),
        ({"local": 2}, assign_address(0)),
        ({"remote": MACRO}, assign_ports(0)),
        ({"remote": MACRO}, assign_address(0)),
        ({"remote": MICRO}, assign_ports(0, remote_ports=(80,))),
        ({"remote": MICRO}, assign_ports(0, remote=REMOTE)),
        ({"remote": MICRO}, assign_ports(0, remote=REMOTE, remote_ports=(80, 443))),
        ({"remote": MICRO}, assign_address(0, remote=REMOTE)),
    ],
)
def test_103_flow_policy_violation(policy, request_):
    talk = raw(**policy)
    client_id = client_of(talk)
    assert code_of(talk.ask(replace(request_, client_id=ClientId(client_id)))) == 103
    assert not talk.ledger.leases


@pytest.mark.rfc("3103", "8.11")
def test_105_message_counter_required_on_udp_only():
    talk = raw()
    answer = talk.ask(register(None))
    assert code_of(answer) == 105
    assert answer.message_counter.value == 0
    assert isinstance(Raw(talk.gateway, connection=3).ask(register(None)), RegisterResponse)


def test_106_unsupported_version():
    assert code(raw().octets(message(2, COUNTER, version=2))) == 106


@pytest.mark.rfc("3103", "9")
def test_201_missing_parameter():
    talk = raw()
    client_id = client_of(talk)
    assert code(talk.octets(message(10, client(client_id), COUNTER))) == 201
    assert code(talk.octets(message(8, client(client_id), ANY_ADDRESS, ANY_PORT, ANY_ADDRESS, COUNTER))) == 201
    assert code(talk.octets(message(12, COUNTER))) == 201


def test_202_duplicate_parameter():
    talk = raw()
    client_id = client_of(talk)
    assert code(talk.octets(message(4, client(client_id), client(client_id), COUNTER))) == 202
    assert code(talk.octets(message(4, client(client_id), COUNTER, COUNTER))) == 202


def test_203_extra_parameter():
    talk = raw()
    client_id = client_of(talk)
    assert code(talk.octets(message(4, client(client_id), tlv(5, bytes(4)), COUNTER))) == 203


def test_204_illegal_parameter():
    assert code(raw().octets(message(2, COUNTER, tlv(99, b"?")))) == 204


@pytest.mark.parametrize(
    "parameter",
    [tlv(3, b"\0"), tlv(1, b""), tlv(1, b"\x05abcd"), tlv(2, b"\x02\0\x07\0\x08\0\x09"), tlv(2, b"\x02\0")],
)
def test_205_bad_parameter(parameter):
    assert code(raw().octets(message(2, COUNTER, parameter))) == 205


@pytest.mark.rfc("3103", "8.1")
def test_205_for_a_local_address_by_name():
    talk = raw()
    name = tlv(1, b"\x04www.example.com")
    octets = message(8, client(client_of(talk)), name, ANY_PORT, ANY_ADDRESS, ANY_PORT, COUNTER)
    assert code(talk.octets(octets)) == 205


def test_205_for_counter_zero_which_is_for_unasked_messages():
    assert code_of(raw().ask(register(0))) == 205


@pytest.mark.parametrize("kind", [0, 18, 21, 24, 200, 240, 243, 255])
def test_206_unknown_message(kind):
    assert code(raw().octets(message(kind, COUNTER))) == 206


@pytest.mark.parametrize("kind", [3, 5, 7, 9, 11, 13, 15, 17, 23, 242])
def test_206_for_responses_which_gateways_are_never_sent(kind):
    assert code(raw().octets(message(kind, COUNTER))) == 206


@pytest.mark.parametrize(
    "octets",
    [b"", b"\x01", b"\x01\x02\0", message(2, COUNTER, length=3), message(2, COUNTER, length=12), message(2, b"\x0b\0")],
)
def test_207_bad_message(octets):
    assert code(raw().octets(octets)) == 207


def test_207_for_required_parameters_in_the_wrong_order():
    talk = raw()
    client_id = client_of(talk)
    assert code(talk.octets(message(12, tlv(5, bytes(4)), client(client_id), COUNTER))) == 207


@pytest.mark.parametrize("kind", [16, 22, 241])
def test_208_for_messages_that_are_not_served(kind):
    assert code(raw(listen=False).octets(message(kind, COUNTER))) == 208


@pytest.mark.parametrize(("method", "request_"), [(Method.RSA_IP, assign_ports), (Method.RSAP_IP, assign_address)])
def test_208_for_a_method_that_is_not_offered(method, request_):
    talk = raw(methods=(method,))
    assert code_of(talk.ask(request_(client_of(talk)))) == 208


@pytest.mark.rfc("3103", "9.10.3")
@pytest.mark.rfc("3103", "9.12.3")
@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.rfc("3103", "10.2.2")
@pytest.mark.parametrize("request_", [deregister(5), assign_ports(5), assign_address(5), extend(5, 1), free(5, 1)])
def test_301_register_first(request_):
    assert code_of(raw().ask(request_)) == 301


@pytest.mark.rfc("3103", "9.2.3")
def test_302_already_registered_carries_the_client_id():
    talk = raw()
    client_id = client_of(talk)
    talk.port += 1
    answer = talk.ask(register(1))
    assert code_of(answer) == 302
    assert answer.client_id.value == client_id


@pytest.mark.rfc("3103", "9.2.3")
@pytest.mark.parametrize("address", ["11.0.0.4", "10.9.0.4", "2001:db8::4"])
def test_304_registration_denied(address):
    rules = (
        ClientRule(prefix=Prefix.parse("10.0.0.0/8")),
        ClientRule(prefix=Prefix.parse("10.9.0.0/16"), admitted=False),
        ClientRule(prefix=Prefix.parse("2001:db8::/32")),  # but the tunnel ends at an IPv4 address
    )
    talk = raw(clients=rules)
    talk.address = address
    assert code_of(talk.ask(register())) == 304
    assert len(talk.gateway) == 0


@pytest.mark.rfc("3103", "9.10.3")
@pytest.mark.rfc("3103", "9.12.3")
@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.parametrize(
    "request_", [deregister, assign_ports, assign_address, lambda c: extend(c, 1), lambda c: free(c, 1)]
)
def test_305_bad_client_id(request_):
    talk = raw()
    wrong = client_of(talk) ^ 1
    answer = talk.ask(request_(wrong))
    assert code_of(answer) == 305
    assert answer.client_id.value == wrong


@pytest.mark.rfc("3103", "9.10.3")
@pytest.mark.parametrize("request_", [extend, free])
@pytest.mark.parametrize("bound", [False, True])
def test_306_bad_bind_id(request_, bound):
    talk = raw()
    client_id = client_of(talk)
    if bound:
        talk.ask(assign_ports(client_id))
    answer = talk.ask(request_(client_id, 77))
    assert code_of(answer) == 306
    assert (answer.client_id.value, answer.bind_id.value) == (client_id, 77)


def test_306_for_the_binding_of_another_host():
    talk = raw()
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    talk.ask(assign_ports(client_of(talk)))
    assert code_of(bob.ask(free(client_of(bob), 1))) == 306


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.parametrize("tunnel", [0, 2, 3, 77])
def test_307_bad_tunnel_type(tunnel):
    talk = raw(tunnel_types=(TunnelType.IP_IP,))
    assert code_of(talk.ask(assign_ports(client_of(talk), tunnel=tunnel))) == 307


@pytest.mark.rfc("3103", "9.6.3")
def test_308_no_address_is_left():
    talk = raw(pool=make_pool(quota=Quota(addresses=99)))
    client_id = client_of(talk)
    for counter in range(2, 6):
        talk.ask(assign_address(client_id, counter))
    assert code_of(talk.ask(assign_address(client_id, 6))) == 308
    assert len(talk.ledger.leases) == 4


@pytest.mark.rfc("3103", "9.8.3")
def test_308_when_nothing_is_shared():
    talk = raw(pool=make_pool(shared=[]))
    assert code_of(talk.ask(assign_ports(client_of(talk)))) == 308


def test_308_and_309_when_the_host_has_enough():
    talk = raw(pool=make_pool(quota=Quota(ports=8, addresses=1)))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, ports=8))
    talk.ask(assign_address(client_id, 3))
    assert code_of(talk.ask(assign_ports(client_id, 4, ports=1))) == 309
    assert code_of(talk.ask(assign_address(client_id, 5))) == 308


@pytest.mark.rfc("3103", "9.8.3")
def test_309_any_n_ports_are_all_or_nothing():
    talk = raw(pool=make_pool(shared=[(SHARED, Ranges.of((4096, 4096 + 99)))], quota=Quota(ports=999)))
    client_id = client_of(talk)
    assert code_of(talk.ask(assign_ports(client_id, 2, ports=101))) == 309
    assert talk.ask(assign_ports(client_id, 3, ports=64)).bind_id.value == 1
    assert code_of(talk.ask(assign_ports(client_id, 4, ports=64))) == 309
    assert len(talk.ledger.leases) == 1


@pytest.mark.rfc("3103", "9.6.3")
def test_310_the_requested_address_is_in_use():
    talk = raw()
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    talk.ask(assign_address(client_of(talk), address=WHOLE.address))
    assert code_of(bob.ask(assign_address(client_of(bob), address=WHOLE.address))) == 310


@pytest.mark.rfc("3103", "9.8.3")
def test_311_the_requested_ports_are_in_use_even_one_of_them():
    talk = raw()
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    talk.ask(assign_ports(client_of(talk), address=SHARED, ports=(5000, 5001)))
    bobs = client_of(bob)
    assert code_of(bob.ask(assign_ports(bobs, 2, address=SHARED, ports=(5001, 5002)))) == 311
    assert code_of(bob.ask(assign_ports(bobs, 3, ports=(5001,)))) == 311


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.parametrize("request_", [assign_ports, assign_address])
@pytest.mark.parametrize("address", [OTHER, Address.parse("10.0.0.4"), Address.parse("2001:db8::1")])
def test_312_the_requested_address_is_not_ours(request_, address):
    talk = raw()
    assert code_of(talk.ask(request_(client_of(talk), address=address))) == 312


def test_312_a_shared_address_is_not_to_be_had_whole_nor_a_whole_one_by_port():
    talk = raw()
    client_id = client_of(talk)
    assert code_of(talk.ask(assign_address(client_id, 2, address=SHARED))) == 312
    assert code_of(talk.ask(assign_ports(client_id, 3, address=WHOLE.address))) == 312


@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.parametrize("ports", [(4095,), (8191, 8192), (22,), (5060,)])
def test_313_the_requested_ports_are_forbidden(ports):
    talk = raw(forbidden_ports=Ranges.of(5060))
    assert code_of(talk.ask(assign_ports(client_of(talk), address=SHARED, ports=ports))) == 313


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.parametrize("remote", [REMOTE, "www.bar.com", Address.parse("2001:db8::1")])
@pytest.mark.parametrize("policy", [MACRO, MICRO])
def test_314_the_remote_address_is_not_allowed(remote, policy):
    talk = raw(remote=policy, remotes_denied=(Prefix.parse("192.156.0.0/16"),))
    assert code_of(talk.ask(assign_ports(client_of(talk), remote=remote, remote_ports=(80,)))) == 314


def test_314_whatever_is_named_must_be_allowed_even_without_a_policy():
    talk = raw(remotes_allowed=(Prefix.parse("198.51.100.0/24"),))
    client_id = client_of(talk)
    assert code_of(talk.ask(assign_ports(client_id, 2, remote=REMOTE))) == 314
    assert talk.ask(assign_ports(client_id, 3, remote=Address.parse("198.51.100.7"))).bind_id.value == 1
    assert talk.ask(assign_ports(client_id, 4)).bind_id.value == 2


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
def test_315_the_remote_port_is_not_allowed():
    talk = raw(remote=MICRO, remote_ports_denied=Ranges.of(25))
    client_id = client_of(talk)
    assert code_of(talk.ask(assign_ports(client_id, 2, remote=REMOTE, remote_ports=(25,)))) == 315
    assert talk.ask(assign_ports(client_id, 3, remote=REMOTE, remote_ports=(80,))).bind_id.value == 1


@pytest.mark.rfc("3102", "3.3")
@pytest.mark.rfc("3103", "14")
@pytest.mark.rfc("3103", "5")
def test_101_and_102_for_who_switches_the_transport():
    talk = raw()
    client_id = client_of(talk)
    tcp = Raw(talk.gateway, connection=5, ledger=talk.ledger)
    assert code_of(tcp.ask(assign_ports(client_id, None))) == 101
    assert code_of(tcp.ask(register(None))) == 302
    assert tcp.ask(deregister(client_id, None)).client_id.value == client_id
    client_id = client_of(tcp, None)
    assert code_of(talk.ask(assign_ports(client_id, 20))) == 102


@pytest.mark.rfc("3103", "9.4.3")
def test_303_is_never_sent_and_301_says_the_same():
    """303 exists and no rule uses it (spec I3); what it means is answered with 301."""
    talk = raw()
    client_id = client_of(talk)
    talk.ask(deregister(client_id, 2))
    assert code_of(talk.ask(deregister(client_id, 3))) == 301
    assert ErrorCode.ALREADY_UNREGISTERED not in talk.gateway.refusals


def ipsec() -> dict:
    return {"pool": make_pool(spis={SHARED: Ranges.of((4096, 4103))})}


def test_401_the_host_may_not_use_ipsec():
    rule = ClientRule(prefix=Prefix.parse("10.0.0.0/8"), ipsec=False)
    talk = raw(clients=(rule,), **ipsec())
    assert code_of(talk.ask(assign_spis(client_of(talk)))) == 401


def test_402_no_spi_can_be_had():
    talk = raw(**ipsec())
    assert code_of(talk.ask(assign_spis(client_of(talk), spis=9))) == 402


@pytest.mark.rfc("3104", "6.2")
def test_403_the_requested_spi_is_in_use():
    talk = raw(**ipsec())
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)
    talk.ask(assign_spis(client_of(talk), spis=(4096,)))
    assert code_of(bob.ask(assign_spis(client_of(bob), spis=(4096,)))) == 403


def test_every_error_is_provoked_by_a_test_that_names_it():
    """104 is a driver's to say, when its store or its plane fails: no request makes the core fail."""
    tests = Path(__file__).parent.parent
    files = (Path(__file__), tests / "daemon" / "test_driver.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    names = re.findall(r"^def (test_\w+)", text, flags=re.MULTILINE)
    named = {int(number) for name in names for number in re.findall(r"_(\d{3})(?=_|$)", name)}
    assert named == set(map(int, ErrorCode))


def test_an_error_is_never_answered():
    talk = raw()
    assert talk.octets(emit(ErrorResponse(error=parse(talk.octets(message(99))[0]).error))) == []
    assert talk.octets(message(1, tlv(3, b"malformed"))) == []


def test_malformed_datagrams_of_strangers_are_not_answered():
    talk = raw()
    talk.address = "192.0.2.99"
    assert talk.octets(b"\x01\x02") == []
    assert talk.octets(message(99, COUNTER)) == []
    assert code_of(talk.ask(register())) == 304


def test_the_far_realm_is_not_answered_at_all():
    gateway = make_gateway()
    gateway.receive_datagram(emit(register()), Peer(2, Address.parse("10.0.0.4"), 40001), now=0.0)
    assert gateway.next_effects() == ()


def test_a_broken_stream_is_answered_once():
    talk = raw()
    talk.connection = 4
    with pytest.raises(MessageError) as raised:
        MessageStream().feed(b"\x01\x02\x00\x01")
    talk.gateway.receive_broken_stream(raised.value, talk.peer, now=talk.now)
    sends = talk.drain()
    assert [code_of(parse(send.data)) for send in sends] == [207]


def test_who_asks_too_often_is_not_answered_on_udp_and_refused_on_tcp():
    talk = raw(requests_per_second=10.0, requests_burst=5)
    answers = [talk.octets(emit(deregister(1, n))) for n in range(1, 9)]
    assert [len(each) for each in answers] == [1] * 5 + [0] * 3
    talk.connection = 1
    assert code_of(talk.ask(deregister(1, None))) == 101
    talk.now += 0.2
    assert code_of(talk.ask(deregister(1, None))) == 301
