# SPDX-License-Identifier: BSD-3-Clause
"""Requirements that no other test holds to by itself: errors where two would fit, and defaults of a host."""

from __future__ import annotations

import pytest

from isthmus.border.ranges import Ranges
from isthmus.rsip.events import Assigned, Refused
from isthmus.wire.rsip.message import AssignRequestRsapIp, DeregisterRequest, parse
from rsip.conversation import (
    GATEWAY_PEER,
    REMOTE,
    SHARED,
    START,
    WHOLE,
    Conversation,
    Host,
    Raw,
    make_gateway,
    make_pool,
)
from rsip.requests import assign_address, assign_ports, client_of, code_of, listen, query
from rsip.scripted import granted_response, heard, registered_response, say

OTHERS = "10.0.0.5"


def two(**pool):
    """Two hosts that ask one gateway."""
    alice = Raw(make_gateway(pool=make_pool(**pool)))
    bob = Raw(alice.gateway, address=OTHERS, ledger=alice.ledger)
    return alice, client_of(alice), bob, client_of(bob)


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.1.1")
def test_a_named_address_in_use_is_310_even_where_none_at_all_is_left():
    alice, client_id, bob, bobs_id = two()
    for counter in range(2, 6):
        alice.ask(assign_address(client_id, counter))
    assert code_of(bob.ask(assign_address(bobs_id, 2, address=WHOLE.address))) == 310
    assert code_of(bob.ask(assign_address(bobs_id, 3))) == 308


@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.parametrize("request_", [assign_ports, listen])
def test_a_named_shared_address_without_a_free_port_is_309_and_a_named_tuple_311(request_):
    alice, client_id, bob, bobs_id = two(shared=[(SHARED, Ranges.of((4096, 4103)))], slice_size=8)
    alice.ask(assign_ports(client_id, 2, ports=8))
    assert code_of(bob.ask(request_(bobs_id, 2, address=SHARED, ports=1))) == 309
    assert code_of(bob.ask(request_(bobs_id, 3, address=SHARED, ports=(4096,)))) == 311


@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.parametrize("request_", [assign_ports, listen])
def test_an_address_that_is_leased_whole_is_not_to_be_had_by_port_in_use_or_not(request_):
    alice, client_id, bob, bobs_id = two()
    assert code_of(bob.ask(request_(bobs_id, 2, address=WHOLE.address))) == 312
    alice.ask(assign_address(client_id, 2, address=WHOLE.address))
    assert code_of(bob.ask(request_(bobs_id, 3, address=WHOLE.address))) == 312


@pytest.mark.rfc("3103", "9.6.3")
@pytest.mark.rfc("3103", "9.8.3")
@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.parametrize(
    ("request_", "address", "empty"),
    [
        (assign_address, WHOLE.address, {"whole": []}),
        (assign_ports, SHARED, {"shared": []}),
        (listen, SHARED, {"shared": []}),
    ],
)
def test_a_named_address_of_no_pool_is_312_and_any_address_308(request_, address, empty):
    alice, client_id, *_ = two(**empty)
    assert code_of(alice.ask(request_(client_id, 2, address=address))) == 312
    assert code_of(alice.ask(request_(client_id, 3))) == 308


@pytest.mark.rfc("3103", "9.16.3")
@pytest.mark.rfc("3103", "9.14.3")
@pytest.mark.parametrize("request_", [listen, query])
def test_listen_and_query_want_a_registration_and_the_right_client_id(request_):
    stranger = Raw(make_gateway())
    assert code_of(stranger.ask(request_(5, counter=1))) == 301
    alice, client_id, *_ = two()
    assert code_of(alice.ask(request_(client_id ^ 1, counter=2))) == 305


@pytest.mark.rfc("3103", "9.3.3")
def test_host_must_assume_rsap_ip_and_ip_ip_where_the_gateway_names_neither():
    host = Host(gateway=GATEWAY_PEER)
    host.register()
    host.datagrams_to_send(now=START)
    response = registered_response(5, 1)
    assert not response.methods
    assert not response.tunnel_types
    say(host, response)
    heard(host)
    host.assign_ports(1)
    (octets,) = host.datagrams_to_send(now=START)
    request = parse(octets)
    assert isinstance(request, AssignRequestRsapIp)
    assert request.tunnel_type is None
    say(host, granted_response(5, 1, 2))
    (assigned,) = heard(host)
    assert isinstance(assigned, Assigned)
    assert assigned.tunnel_kind.name == "IPIP"
    assert assigned.tunnel_endpoint == GATEWAY_PEER.address


@pytest.mark.rfc("3103", "9.4.1")
def test_host_should_not_deregister_while_it_is_not_registered():
    host = Host(gateway=GATEWAY_PEER)
    host.deregister()
    assert not host.datagrams_to_send(now=START)
    assert [type(event) for event in heard(host)] == [Refused]


@pytest.mark.rfc("3103", "9.4.3")
def test_host_may_not_use_anything_after_it_has_deregistered():
    talk = Conversation()
    host = talk.registered()
    host.assign_ports(4)
    talk.run()
    host.deregister()
    talk.run()
    assert not host.bindings
    assert host.client_id is None
    host.assign_ports(1)
    assert not host.datagrams_to_send(now=talk.now)
    assert isinstance(talk.sent[-2][1], DeregisterRequest)


@pytest.mark.rfc("3102", "6.4")
def test_a_listen_is_denied_where_another_host_uses_the_port():
    alice, client_id, bob, bobs_id = two()
    alice.ask(listen(client_id, 2, ports=(5000,)))
    assert code_of(bob.ask(listen(bobs_id, 2, ports=(5000,)))) == 311
    assert code_of(bob.ask(assign_ports(bobs_id, 3, ports=(5000,), remote=REMOTE))) == 311
