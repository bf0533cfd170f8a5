# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing a host that has a registration and a binding: whatever "the gateway" says, it stays in order.

One input is a sequence of pieces, each led by an octet that says what it is and one that says how long.
"""

from __future__ import annotations

from isthmus.border.effect import Peer
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.message import parse
from rsip.conversation import FAR, GATEWAY_PEER, NEAR, Address, Conversation

RUNS = 400
_SOURCES = (
    GATEWAY_PEER,
    GATEWAY_PEER,
    GATEWAY_PEER,
    Peer(NEAR, GATEWAY_PEER.address, 4556),
    Peer(NEAR, Address.parse("10.0.0.2"), 4555),
    Peer(FAR, GATEWAY_PEER.address, 4555),
)
_WAITS = (0.01, 1.0, 61.0, 700.0)


def check(octets: bytes) -> None:
    """Tell a host things, let it ask, let time pass."""
    talk = Conversation()
    host = talk.registered()
    host.assign_ports(4)
    talk.run()
    now = talk.now
    while octets:
        what, length = octets[0], octets[1] if len(octets) > 1 else 0
        piece, octets = octets[2 : 2 + length], octets[2 + length :]
        believed = what % 16 < 8
        before = (host.state, host.client_id, dict(host.bindings))
        if what % 8 < len(_SOURCES):
            source = _SOURCES[what % 8]
            host.receive_datagram(piece, source, now=now)
            if source != GATEWAY_PEER:
                assert (host.state, host.client_id, dict(host.bindings)) == before, "believed somebody else"
        elif what % 8 == 6:
            now += _WAITS[length % len(_WAITS)]
            host.handle_timer(now=now)
        elif believed:
            _ask(host, length)
        for data in host.datagrams_to_send(now=now):
            assert parse(data).type.is_request
        while host.next_event() is not None:
            pass
        _in_order(host)


def _ask(host: object, number: int) -> None:
    bound = sorted(host.bindings)  # type: ignore[attr-defined]
    match number % 5:
        case 0:
            host.register()  # type: ignore[attr-defined]
        case 1:
            host.deregister()  # type: ignore[attr-defined]
        case 2:
            host.assign_ports(1 + number % 7)  # type: ignore[attr-defined]
        case 3 if bound:
            host.extend(bound[0])  # type: ignore[attr-defined]
        case 4 if bound:
            host.free(bound[0])  # type: ignore[attr-defined]


def _in_order(host: object) -> None:
    """No binding without a registration."""
    unregistered = host.state in (HostState.UNREGISTERED, HostState.REG_PENDING)  # type: ignore[attr-defined]
    if unregistered or host.client_id is None:  # type: ignore[attr-defined]
        assert not host.bindings  # type: ignore[attr-defined]
