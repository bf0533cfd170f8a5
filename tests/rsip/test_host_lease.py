# SPDX-License-Identifier: BSD-3-Clause
"""A host and time: renewals, and timers of its own (RFC 3103 §6, §9.11)."""

from __future__ import annotations

import pytest

from isthmus.border.effect import Ending
from isthmus.rsip.events import (
    Assigned,
    Deregistered,
    Extended,
    Freed,
    Registered,
)
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.codes import MessageType
from rsip.conversation import START, Conversation
from rsip.scripted import sent_types, types


@pytest.mark.rfc("3103", "9.11.3")
def test_a_binding_is_renewed_at_half_and_at_seven_eighths():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports(lease_seconds=1000)
    talk.run()
    talk.advance(499.9)
    assert "EXTEND_REQUEST" not in sent_types(talk)
    talk.drop(7)
    talk.advance(0.2)
    assert sent_types(talk)[-1] == "EXTEND_REQUEST"
    talk.advance(374)
    assert types(talk.take(alice)) == [Registered, Assigned]
    talk.advance(1)
    assert talk.take(alice) == [Extended(request=0, bind_id=1, expires_at=START + 1875)]
    lease = [message.lease_time.value for _, message in talk.sent if message.type is MessageType.EXTEND_REQUEST]
    assert set(lease) == {1000}


def test_a_binding_is_held_for_days():
    talk = Conversation()
    alice = talk.registered()
    alice.assign_ports()
    alice.assign_address(lease_seconds=3600)
    talk.advance(3 * 86_400)
    assert len(alice.bindings) == 2
    assert set(types(talk.take(alice))) == {Registered, Assigned, Extended}
    assert len(talk.ledger.leases) == 2


def test_a_lease_counts_from_the_first_transmission_and_ends_by_our_own_timer():
    talk = Conversation()
    alice = talk.registered()
    talk.drop(2, source="gateway")
    alice.assign_ports(lease_seconds=100)
    talk.advance(1)
    assigned = talk.take(alice)[-1]
    assert assigned.expires_at == START + 100
    talk.drop(10_000)
    talk.advance(98.9)
    assert 1 in alice.bindings
    talk.advance(0.2)
    assert talk.take(alice) == [Freed(bind_id=1, ending=Ending.EXPIRED)]
    talk.advance(1)  # the last renewal is given up
    assert alice.state is HostState.REGISTERED
    talk.advance(600)
    assert talk.take(alice) == [Deregistered(ending=Ending.EXPIRED)]
    assert alice.state is HostState.UNREGISTERED


def test_a_registration_without_bindings_ends():
    talk = Conversation()
    alice = talk.registered()
    talk.advance(600)
    assert types(talk.take(alice)) == [Registered, Deregistered]
    assert len(talk.gateway) == 0


def test_our_own_registration_timer_ends_a_request_under_way():
    talk = Conversation()
    alice = talk.registered()
    talk.advance(599.9)
    talk.drop(100)
    request = alice.assign_ports()
    talk.advance(1)
    refused, deregistered = sorted(talk.take(alice)[1:], key=lambda event: type(event).__name__, reverse=True)
    assert (refused.request, refused.code) == (request, 301)
    assert deregistered == Deregistered(ending=Ending.EXPIRED)
