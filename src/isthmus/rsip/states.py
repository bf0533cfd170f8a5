# SPDX-License-Identifier: BSD-3-Clause
"""The two state machines, as tables; there is no transition anywhere else.

The gateway's view of one host (spec 12.2, derived from RFC 3103 §6, §9, §10)::

                    REGISTER                 BIND
    UNREGISTERED ───────────▶ REGISTERED ───────────▶ ASSIGNED ◀─┐ BIND, EXTEND,
         ▲                     │   ▲   ▲                │   │     │ UNBIND (not the last)
         └────── DEREGISTER ───┘   └─── UNBIND_LAST ────┘   └─────┘
         └────────────────────── DEREGISTER ────────────────┘

The host's (RFC 3103 appendix D; spec 12.1) has a *pending* state for every request under
way. The RFC's figure leaves out EXTEND, LISTEN and what arrives unasked. What is ours:

=======================  ==========================================================
state                    why
=======================  ==========================================================
``*_EXTEND_PENDING``     EXTEND behaves like QUERY (spec 12.1)
``REG_FREE_PENDING``     the last binding ended by itself while its FREE was under way
``RESYNC_PENDING``       a DE-REGISTER for a Client ID that the two ends disagree about;
                         whatever is answered, the host is unregistered afterwards
                         (RFC 3103 §10.2.1, §10.2.2)
=======================  ==========================================================

A pair of state and event that has no next state has an error instead: the RSIP number
that a gateway answers, or that a host's own caller gets without anything being sent.
``tests/rsip/test_states.py`` checks that every pair is in exactly one of the two tables.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.errors import LocalProtocolError
from isthmus.wire.rsip.codes import ErrorCode, MessageType


class ClientState(enum.StrEnum):
    """What a gateway knows of one private address (RFC 3103 §6)."""

    UNREGISTERED = "UNREGISTERED"
    REGISTERED = "REGISTERED"
    ASSIGNED = "ASSIGNED"


class ClientEvent(enum.StrEnum):
    """What changes it. Requests are named by what they do when they are granted."""

    REGISTER = "REGISTER"
    BIND = "BIND"
    "ASSIGN, LISTEN and ASSIGN_RSIPSEC."
    EXTEND = "EXTEND"
    QUERY = "QUERY"
    UNBIND = "UNBIND"
    "One of several bindings ends: freed, expired or revoked."
    UNBIND_LAST = "UNBIND_LAST"
    DEREGISTER = "DEREGISTER"
    "By request, by expiry or by the operator."


_C, _E = ClientState, ClientEvent

CLIENT: dict[ClientState, dict[ClientEvent, ClientState]] = {
    _C.UNREGISTERED: {
        _E.REGISTER: _C.REGISTERED,
    },
    _C.REGISTERED: {
        _E.BIND: _C.ASSIGNED,
        _E.QUERY: _C.REGISTERED,
        _E.DEREGISTER: _C.UNREGISTERED,
    },
    _C.ASSIGNED: {
        _E.BIND: _C.ASSIGNED,
        _E.EXTEND: _C.ASSIGNED,
        _E.QUERY: _C.ASSIGNED,
        _E.UNBIND: _C.ASSIGNED,
        _E.UNBIND_LAST: _C.REGISTERED,
        _E.DEREGISTER: _C.UNREGISTERED,
    },
}
"""The gateway's view of one host (spec 12.2)."""

CLIENT_REFUSAL: dict[ClientState, dict[ClientEvent, ErrorCode]] = {
    # RFC 3103 §9.4.3, §9.6.3 …: everything but REGISTER needs a registration.
    _C.UNREGISTERED: {
        _E.BIND: ErrorCode.REGISTER_FIRST,
        _E.EXTEND: ErrorCode.REGISTER_FIRST,
        _E.QUERY: ErrorCode.REGISTER_FIRST,
        _E.UNBIND: ErrorCode.REGISTER_FIRST,
        _E.UNBIND_LAST: ErrorCode.REGISTER_FIRST,
        # Deviation: 303 ALREADY_UNREGISTERED exists (RFC 3103 §14), §9.4.3 and §10.2.2 want 301 (spec I3).
        _E.DEREGISTER: ErrorCode.REGISTER_FIRST,
    },
    # RFC 3103 §9.2.3; and without a binding no Bind ID can be right (§9.10.3, §9.12.3).
    _C.REGISTERED: {
        _E.REGISTER: ErrorCode.ALREADY_REGISTERED,
        _E.EXTEND: ErrorCode.BAD_BIND_ID,
        _E.UNBIND: ErrorCode.BAD_BIND_ID,
        _E.UNBIND_LAST: ErrorCode.BAD_BIND_ID,
    },
    _C.ASSIGNED: {
        _E.REGISTER: ErrorCode.ALREADY_REGISTERED,
    },
}
"""What a gateway answers where ``CLIENT`` has no entry."""

REQUESTED: dict[MessageType, ClientEvent] = {
    MessageType.REGISTER_REQUEST: ClientEvent.REGISTER,
    MessageType.DE_REGISTER_REQUEST: ClientEvent.DEREGISTER,
    MessageType.ASSIGN_REQUEST_RSA_IP: ClientEvent.BIND,
    MessageType.ASSIGN_REQUEST_RSAP_IP: ClientEvent.BIND,
    MessageType.ASSIGN_REQUEST_RSIPSEC: ClientEvent.BIND,
    MessageType.LISTEN_REQUEST: ClientEvent.BIND,
    MessageType.LISTEN_REQUEST_RSIP_IKE: ClientEvent.BIND,
    MessageType.EXTEND_REQUEST: ClientEvent.EXTEND,
    MessageType.FREE_REQUEST: ClientEvent.UNBIND,
    MessageType.QUERY_REQUEST: ClientEvent.QUERY,
}
"""What each request asks for; there is no other list of what a gateway may be sent."""


class HostState(enum.StrEnum):
    """Where a host stands with its gateway (RFC 3103 appendix D)."""

    UNREGISTERED = "UNREGISTERED"
    REG_PENDING = "REG_PENDING"
    RESYNC_PENDING = "RESYNC_PENDING"
    REGISTERED = "REGISTERED"
    REG_QUERY_PENDING = "REG_QUERY_PENDING"
    REG_EXTEND_PENDING = "REG_EXTEND_PENDING"
    REG_FREE_PENDING = "REG_FREE_PENDING"
    REG_DEREG_PENDING = "REG_DEREG_PENDING"
    ASSIGN_PENDING = "ASSIGN_PENDING"
    ASSIGNED = "ASSIGNED"
    ASSIGNED_QUERY_PENDING = "ASSIGNED_QUERY_PENDING"
    ASSIGNED_EXTEND_PENDING = "ASSIGNED_EXTEND_PENDING"
    ASSIGNED_ASSIGN_PENDING = "ASSIGNED_ASSIGN_PENDING"
    FREE_PENDING = "FREE_PENDING"
    ASSIGNED_DEREG_PENDING = "ASSIGNED_DEREG_PENDING"


class HostEvent(enum.StrEnum):
    """What moves it. The first seven are requests being sent for the first time."""

    SEND_REGISTER = "SEND_REGISTER"
    SEND_QUERY = "SEND_QUERY"
    SEND_ASSIGN = "SEND_ASSIGN"
    "LISTEN and ASSIGN_RSIPSEC too."
    SEND_EXTEND = "SEND_EXTEND"
    SEND_FREE = "SEND_FREE"
    SEND_DEREGISTER = "SEND_DEREGISTER"
    SEND_RESYNC = "SEND_RESYNC"
    "A DE-REGISTER for a Client ID that the two ends disagree about."

    GRANTED = "GRANTED"
    "The request under way got its response."
    REFUSED = "REFUSED"
    "It got an ERROR_RESPONSE."
    TIMED_OUT = "TIMED_OUT"
    "It got nothing, seven times (RFC 3103 §5)."

    BINDING_ENDED = "BINDING_ENDED"
    "A binding went, others are left: freed, revoked by the gateway, or its lease ran out."
    LAST_BINDING_ENDED = "LAST_BINDING_ENDED"
    REGISTRATION_ENDED = "REGISTRATION_ENDED"
    "An unasked DE-REGISTER_RESPONSE, our own timer, or 301 to a DE-REGISTER_REQUEST."


_H, _V = HostState, HostEvent


def _pending(granted: HostState, back: HostState, *, last: HostState | None = None) -> dict[HostEvent, HostState]:
    """One row: where a request under way leads to, with ``last`` for a pending state that has bindings."""
    row = {
        _V.GRANTED: granted,
        _V.REFUSED: back,
        _V.TIMED_OUT: back,
        _V.REGISTRATION_ENDED: _H.UNREGISTERED,
    }
    return row if last is None else row | {_V.LAST_BINDING_ENDED: last}


HOST: dict[HostState, dict[HostEvent, HostState]] = {
    _H.UNREGISTERED: {
        _V.SEND_REGISTER: _H.REG_PENDING,
        _V.SEND_RESYNC: _H.RESYNC_PENDING,
    },
    _H.REG_PENDING: _pending(_H.REGISTERED, _H.UNREGISTERED),
    _H.RESYNC_PENDING: _pending(_H.UNREGISTERED, _H.UNREGISTERED),
    _H.REGISTERED: {
        _V.SEND_QUERY: _H.REG_QUERY_PENDING,
        _V.SEND_ASSIGN: _H.ASSIGN_PENDING,
        _V.SEND_DEREGISTER: _H.REG_DEREG_PENDING,
        _V.REGISTRATION_ENDED: _H.UNREGISTERED,
    },
    _H.REG_QUERY_PENDING: _pending(_H.REGISTERED, _H.REGISTERED),
    _H.REG_EXTEND_PENDING: _pending(_H.REGISTERED, _H.REGISTERED),
    _H.REG_FREE_PENDING: _pending(_H.REGISTERED, _H.REGISTERED),
    _H.REG_DEREG_PENDING: _pending(_H.UNREGISTERED, _H.REGISTERED) | {_V.TIMED_OUT: _H.UNREGISTERED},
    _H.ASSIGN_PENDING: _pending(_H.ASSIGNED, _H.REGISTERED),
    _H.ASSIGNED: {
        _V.SEND_QUERY: _H.ASSIGNED_QUERY_PENDING,
        _V.SEND_ASSIGN: _H.ASSIGNED_ASSIGN_PENDING,
        _V.SEND_EXTEND: _H.ASSIGNED_EXTEND_PENDING,
        _V.SEND_FREE: _H.FREE_PENDING,
        _V.SEND_DEREGISTER: _H.ASSIGNED_DEREG_PENDING,
        _V.BINDING_ENDED: _H.ASSIGNED,
        _V.LAST_BINDING_ENDED: _H.REGISTERED,
        _V.REGISTRATION_ENDED: _H.UNREGISTERED,
    },
    _H.ASSIGNED_QUERY_PENDING: _pending(_H.ASSIGNED, _H.ASSIGNED, last=_H.REG_QUERY_PENDING)
    | {_V.BINDING_ENDED: _H.ASSIGNED_QUERY_PENDING},
    _H.ASSIGNED_EXTEND_PENDING: _pending(_H.ASSIGNED, _H.ASSIGNED, last=_H.REG_EXTEND_PENDING)
    | {_V.BINDING_ENDED: _H.ASSIGNED_EXTEND_PENDING},
    _H.ASSIGNED_ASSIGN_PENDING: _pending(_H.ASSIGNED, _H.ASSIGNED, last=_H.ASSIGN_PENDING)
    | {_V.BINDING_ENDED: _H.ASSIGNED_ASSIGN_PENDING},
    # "All binds gone?" (appendix D) is the event LAST_BINDING_ENDED, which follows the answer.
    _H.FREE_PENDING: _pending(_H.ASSIGNED, _H.ASSIGNED, last=_H.REG_FREE_PENDING) | {_V.BINDING_ENDED: _H.FREE_PENDING},
    _H.ASSIGNED_DEREG_PENDING: _pending(_H.UNREGISTERED, _H.ASSIGNED, last=_H.REG_DEREG_PENDING)
    | {_V.BINDING_ENDED: _H.ASSIGNED_DEREG_PENDING, _V.TIMED_OUT: _H.UNREGISTERED},
}
"""The host (spec 12.1)."""

HOST_REFUSAL: dict[HostState, dict[HostEvent, ErrorCode]] = {
    state: {
        event: (
            ErrorCode.REGISTER_FIRST
            if state in (_H.UNREGISTERED, _H.REG_PENDING, _H.RESYNC_PENDING)
            else ErrorCode.ALREADY_REGISTERED
            if event in (_V.SEND_REGISTER, _V.SEND_RESYNC)
            else ErrorCode.BAD_BIND_ID
        )
        for event in HostEvent
        if event not in row
    }
    for state, row in HOST.items()
}
"""Why a host does not even send, or what nothing can come of: the error that it would get."""


def next_client_state(state: ClientState, event: ClientEvent) -> ClientState:
    """Follow the gateway's table.

    Raises:
        LocalProtocolError: the gateway's code did what the table does not know; a bug.
    """
    after = CLIENT[state].get(event)
    if after is None:
        raise LocalProtocolError(CLIENT_REFUSAL[state][event], f"{event} in state {state}")
    return after


def next_host_state(state: HostState, event: HostEvent) -> HostState:
    """Follow the host's table.

    Raises:
        LocalProtocolError: the event does not belong to that state; nothing may be sent.
    """
    after = HOST[state].get(event)
    if after is None:
        raise LocalProtocolError(HOST_REFUSAL[state][event], f"{event} in state {state}")
    return after


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One record of the trace: replaying them is the log (conventions 6.5)."""

    now: float
    who: str
    "The host's private address, or the gateway's address at a host."
    state: ClientState | HostState
    event: ClientEvent | HostEvent
    after: ClientState | HostState
    effects: int
    "How many effects, or messages, the same call has produced so far."
