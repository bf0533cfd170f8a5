# SPDX-License-Identifier: BSD-3-Clause
"""The tables are complete, and say what the RFC's diagrams say."""

import pytest

from isthmus.errors import LocalProtocolError
from isthmus.rsip.states import (
    CLIENT,
    CLIENT_REFUSAL,
    HOST,
    HOST_REFUSAL,
    REQUESTED,
    ClientEvent,
    ClientState,
    HostEvent,
    HostState,
    next_client_state,
    next_host_state,
)
from isthmus.wire.rsip.codes import ErrorCode, MessageType


@pytest.mark.parametrize("state", ClientState)
def test_every_event_at_a_gateway_has_a_next_state_or_an_error(state):
    assert set(CLIENT[state]) | set(CLIENT_REFUSAL[state]) == set(ClientEvent)
    assert not set(CLIENT[state]) & set(CLIENT_REFUSAL[state])


@pytest.mark.parametrize("state", HostState)
def test_every_event_at_a_host_has_a_next_state_or_an_error(state):
    assert set(HOST[state]) | set(HOST_REFUSAL[state]) == set(HostEvent)
    assert not set(HOST[state]) & set(HOST_REFUSAL[state])


@pytest.mark.parametrize(
    ("table", "first", "states"),
    [(CLIENT, ClientState.UNREGISTERED, ClientState), (HOST, HostState.UNREGISTERED, HostState)],
)
def test_every_state_is_reached_from_unregistered_and_leads_back(table, first, states):
    def reach(start):
        seen, todo = {start}, [start]
        while todo:
            for after in table[todo.pop()].values():
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    assert reach(first) == set(states)
    assert all(first in reach(state) for state in states)


@pytest.mark.rfc("3103", "15")
@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind.is_request])
def test_every_request_asks_for_something(kind):
    assert kind in REQUESTED


@pytest.mark.rfc("3103", "10.2.2")
@pytest.mark.parametrize("event", [event for event in ClientEvent if event is not ClientEvent.REGISTER])
def test_an_unregistered_host_must_register_first(event):
    assert CLIENT_REFUSAL[ClientState.UNREGISTERED][event] is ErrorCode.REGISTER_FIRST
    with pytest.raises(LocalProtocolError) as raised:
        next_client_state(ClientState.UNREGISTERED, event)
    assert raised.value.code == 301


PENDING = [state for state in HostState if "PENDING" in state]


@pytest.mark.rfc("3103", "17")
@pytest.mark.parametrize("state", PENDING)
def test_a_pending_request_has_three_ends_and_no_second_request_beside_it(state):
    assert {HostEvent.GRANTED, HostEvent.REFUSED, HostEvent.TIMED_OUT} <= set(HOST[state])
    assert not [event for event in HOST[state] if event.startswith("SEND")]


@pytest.mark.rfc("3103", "17")
@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        ("UNREGISTERED", "SEND_REGISTER", "REG_PENDING"),
        ("REG_PENDING", "GRANTED", "REGISTERED"),
        ("REG_PENDING", "REFUSED", "UNREGISTERED"),
        ("REG_PENDING", "TIMED_OUT", "UNREGISTERED"),
        ("REGISTERED", "SEND_QUERY", "REG_QUERY_PENDING"),
        ("REG_QUERY_PENDING", "GRANTED", "REGISTERED"),
        ("REG_QUERY_PENDING", "TIMED_OUT", "REGISTERED"),
        ("REGISTERED", "SEND_ASSIGN", "ASSIGN_PENDING"),
        ("ASSIGN_PENDING", "GRANTED", "ASSIGNED"),
        ("ASSIGN_PENDING", "REFUSED", "REGISTERED"),
        ("ASSIGN_PENDING", "TIMED_OUT", "REGISTERED"),
        ("REGISTERED", "SEND_DEREGISTER", "REG_DEREG_PENDING"),
        ("REG_DEREG_PENDING", "GRANTED", "UNREGISTERED"),
        ("REG_DEREG_PENDING", "TIMED_OUT", "UNREGISTERED"),
        ("REG_DEREG_PENDING", "REFUSED", "REGISTERED"),
        ("ASSIGNED", "SEND_QUERY", "ASSIGNED_QUERY_PENDING"),
        ("ASSIGNED", "SEND_ASSIGN", "ASSIGNED_ASSIGN_PENDING"),
        ("ASSIGNED_ASSIGN_PENDING", "GRANTED", "ASSIGNED"),
        ("ASSIGNED_ASSIGN_PENDING", "REFUSED", "ASSIGNED"),
        ("ASSIGNED_ASSIGN_PENDING", "TIMED_OUT", "ASSIGNED"),
        ("ASSIGNED", "SEND_FREE", "FREE_PENDING"),
        ("FREE_PENDING", "GRANTED", "ASSIGNED"),
        ("FREE_PENDING", "REFUSED", "ASSIGNED"),
        ("ASSIGNED", "LAST_BINDING_ENDED", "REGISTERED"),
        ("ASSIGNED", "SEND_DEREGISTER", "ASSIGNED_DEREG_PENDING"),
        ("ASSIGNED_DEREG_PENDING", "GRANTED", "UNREGISTERED"),
        ("ASSIGNED_DEREG_PENDING", "TIMED_OUT", "UNREGISTERED"),
        ("ASSIGNED_DEREG_PENDING", "REFUSED", "ASSIGNED"),
    ],
)
def test_the_host_goes_where_appendix_d_says(state, event, after):
    assert next_host_state(HostState(state), HostEvent(event)) is HostState(after)


@pytest.mark.parametrize("state", [state for state in HostState if state != "UNREGISTERED"])
def test_the_end_of_the_registration_leads_to_unregistered_from_everywhere(state):
    assert HOST[state][HostEvent.REGISTRATION_ENDED] is HostState.UNREGISTERED


def test_what_a_host_may_not_send_has_the_error_it_would_get():
    assert HOST_REFUSAL[HostState.UNREGISTERED][HostEvent.SEND_ASSIGN] is ErrorCode.REGISTER_FIRST
    assert HOST_REFUSAL[HostState.ASSIGNED][HostEvent.SEND_REGISTER] is ErrorCode.ALREADY_REGISTERED
    assert HOST_REFUSAL[HostState.REGISTERED][HostEvent.SEND_FREE] is ErrorCode.BAD_BIND_ID
    with pytest.raises(LocalProtocolError):
        next_host_state(HostState.REGISTERED, HostEvent.SEND_FREE)
