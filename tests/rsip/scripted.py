# SPDX-License-Identifier: BSD-3-Clause
"""A host that talks with a gateway that says whatever a test wants."""

from __future__ import annotations

from isthmus.rsip.events import (
    Registered,
)
from isthmus.rsip.host import Host
from isthmus.wire.rsip.message import (
    AssignResponseRsapIp,
    RegisterResponse,
    emit,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    FlowPolicy,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
)
from rsip.conversation import GATEWAY_PEER, SHARED, START

ZERO = MessageCounter(0)


def scripted(**options) -> tuple[Host, int]:
    """A host that believes whatever this file says; registered as client 5."""
    host = Host(gateway=GATEWAY_PEER, **options)
    host.register()
    host.datagrams_to_send(now=START)
    say(host, registered_response(5, 1))
    assert isinstance(host.next_event(), Registered)
    return host


def say(host, message, *, source=GATEWAY_PEER, now=START):
    host.receive_datagram(message if isinstance(message, bytes) else emit(message), source, now=now)


def heard(host):
    events = []
    while (event := host.next_event()) is not None:
        events.append(event)
    return events


def registered_response(client_id, counter, *, remote=3):
    return RegisterResponse(
        client_id=ClientId(client_id),
        lease_time=LeaseTime(600),
        flow_policy=FlowPolicy(local=1, remote=remote),
        message_counter=MessageCounter(counter),
    )


def granted_response(client_id, bind_id, counter, **changes) -> AssignResponseRsapIp:
    return AssignResponseRsapIp(
        **{
            "client_id": ClientId(client_id),
            "bind_id": BindId(bind_id),
            "local_address": RsipAddress.of(SHARED),
            "local_ports": Ports.of((5000,)),
            "remote_address": RsipAddress.any(),
            "remote_ports": Ports.any_of(1),
            "lease_time": LeaseTime(100),
            "tunnel_type": RsipTunnelType(1),
            "message_counter": MessageCounter(counter),
        }
        | changes
    )


def types(events):
    return [type(each) for each in events]


def sent_types(talk):
    return [message.type.name for _, message in talk.sent]
