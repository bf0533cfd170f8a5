# SPDX-License-Identifier: BSD-3-Clause
"""A gateway that goes on where another with the same store stopped."""

from __future__ import annotations

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import (
    Ending,
    Unbind,
)
from isthmus.border.ranges import Ranges
from isthmus.wire.rsip.message import (
    ExtendResponse,
    FreeResponse,
    emit,
    parse,
)
from rsip.conversation import (
    NEAR,
    SHARED,
    START,
    Raw,
    make_gateway,
    make_policy,
    make_pool,
)
from rsip.requests import assign_address, assign_ports, client_of, code_of, deregister, extend, free, register

ALICE = Owner(NEAR, Address.parse("10.0.0.4"))


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool))


def unasked(talk: Raw):
    """What the gateway has sent by itself."""
    return [parse(send.data) for send in talk.drain()]


def restarted(talk: Raw, *, pool=None) -> None:
    talk.gateway = make_gateway(make_policy(), pool, seed=99)
    talk.ledger.restart(talk.gateway, talk.now)


def test_after_a_restart_client_ids_and_bind_ids_are_the_same():
    talk = raw()
    client_id = client_of(talk)
    ports = talk.ask(assign_ports(client_id, 2)).local_ports.port_set
    talk.ask(assign_address(client_id, 3))
    talk.now += 30
    restarted(talk)
    assert talk.gateway.next_effects() == ()
    assert isinstance(talk.ask(extend(client_id, 2, 4)), ExtendResponse)
    bob = Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger, now=talk.now)
    assert code_of(bob.ask(assign_ports(client_of(bob), ports=ports))) == 311
    assert isinstance(talk.ask(free(client_id, 1, 5)), FreeResponse)
    assert code_of(talk.ask(register(1))) == 302
    assert talk.ask(deregister(client_id, 7)).client_id.value == client_id


@pytest.mark.rfc("3103", "10.1")
def test_after_a_restart_a_copy_gets_the_remembered_answer_and_nothing_is_done_twice():
    talk = raw()
    client_id = client_of(talk)
    data = emit(assign_ports(client_id))
    first = talk.octets(data)
    restarted(talk)
    assert talk.octets(data) == first
    assert len(talk.ledger.leases) == 1
    gone = emit(deregister(client_id))
    first = talk.octets(gone)
    restarted(talk)
    assert talk.octets(gone) == first


def test_after_a_restart_no_bind_id_comes_back():
    talk = raw()
    client_id = client_of(talk)
    for counter in range(2, 8):
        talk.ask(assign_ports(client_id, counter))
    for bind_id in range(2, 7):
        talk.ask(free(client_id, bind_id, 10 + bind_id))
    restarted(talk)
    assert talk.ask(assign_ports(client_id, 30)).bind_id.value > 6


def test_after_a_restart_what_ran_out_meanwhile_ends():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2, lease=60))
    talk.ask(assign_ports(client_id, 3, lease=600))
    talk.now += 100
    restarted(talk)
    assert talk.gateway.get_timer() == START + 60
    talk.gateway.handle_timer(now=talk.now)
    (answer,) = unasked(talk)
    assert (answer.bind_id.value, answer.client_id.value) == (1, client_id)


def test_after_a_restart_what_was_given_back_still_rests():
    pool = {"shared": [(SHARED, Ranges.of((4096, 4099)))], "slice_size": 4}
    talk = raw(pool=make_pool(**pool))
    client_id = client_of(talk)
    talk.ask(assign_ports(client_id, 2))
    talk.ask(free(client_id, 1, 3))
    talk.now += 100
    restarted(talk, pool=make_pool(**pool))
    assert code_of(talk.ask(assign_ports(client_id, 4))) == 309
    talk.now += 20
    assert talk.ask(assign_ports(client_id, 5)).local_ports.port_set == (4096, 4097, 4098, 4099)


def test_a_binding_without_a_registration_is_ended_at_a_restart():
    talk = raw()
    client_id = client_of(talk)
    ports = talk.ask(assign_ports(client_id)).local_ports.port_set
    gateway = make_gateway()
    gateway.restore((), tuple(talk.ledger.leases.values()), (), (), now=talk.now)
    assert gateway.next_effects() == (Unbind(key=BindingKey(ALICE, 1), ending=Ending.REVOKED),)
    bob = Raw(gateway, address="10.0.0.5")
    assert code_of(bob.ask(assign_ports(client_of(bob), ports=ports))) == 311


def test_a_restored_host_may_come_back_by_the_other_transport_only_if_it_had_none():
    talk = raw()
    talk.connection = 1
    client_id = client_of(talk, None)
    restarted(talk)
    assert talk.ask(assign_ports(client_id, None)).bind_id.value > 0
    udp = Raw(talk.gateway, ledger=talk.ledger)
    assert code_of(udp.ask(assign_ports(client_id, 3))) == 102
