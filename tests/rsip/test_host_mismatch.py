# SPDX-License-Identifier: BSD-3-Clause
"""Grants that are not what a host asked for are given back (RFC 3103 §9.7.3, §9.9.3, §9.17.3)."""

from __future__ import annotations

import pytest

from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending
from isthmus.border.ranges import Ranges
from isthmus.rsip.events import (
    Assigned,
    Freed,
    Refused,
    Registered,
)
from isthmus.rsip.host import Host
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.message import (
    FreeRequest,
    FreeResponse,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
)
from rsip.conversation import GATEWAY_PEER, REMOTE, START, WHOLE
from rsip.scripted import granted_response, heard, registered_response, say, scripted, types


@pytest.mark.rfc("3103", "9.7.3")
@pytest.mark.rfc("3103", "9.9.3")
@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({"ports": 2}, {}),
        ({"ports": Ranges.of(5001)}, {}),
        ({"address": WHOLE.address}, {}),
        ({"tunnel": TunnelKind.GRE}, {}),
        ({}, {"tunnel_type": RsipTunnelType(3)}),
        ({}, {"tunnel_type": RsipTunnelType(77)}),
        ({}, {"local_ports": Ports.any_of(1)}),
        ({}, {"local_address": RsipAddress.any()}),
        ({}, {"lease_time": LeaseTime(0)}),
        ({}, {"remote_address": RsipAddress.of(REMOTE)}),
        ({}, {"remote_ports": Ports.of((80,))}),
        ({}, {"tunnel_endpoint": RsipAddress.fqdn("gw")}),
    ],
)
def test_what_was_not_asked_for_is_given_back(asked, changes):
    host = scripted()
    request = host.assign_ports(**asked)
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2, **changes))
    (refused,) = heard(host)
    assert (refused.request, refused.code) == (request, None)
    assert host.bindings == {}
    (data,) = host.datagrams_to_send(now=START)
    free = parse(data)
    assert isinstance(free, FreeRequest)
    assert (free.client_id.value, free.bind_id.value) == (5, 1)
    say(host, FreeResponse(client_id=ClientId(5), bind_id=BindId(1), message_counter=MessageCounter(3)))
    assert heard(host) == []
    assert host.state is HostState.REGISTERED


@pytest.mark.rfc("3103", "9.9.3")
def test_an_incomprehensible_grant_is_given_back():
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    data = bytearray(emit(granted_response(5, 1, 2)))
    data[data.index(b"\x02\0\x03\x01") + 2] = 2  # the Ports parameter is now two octets long, and the rest is askew
    say(host, bytes(data))
    assert heard(host) == []  # not even the counter could be found: the request is repeated
    broken = emit(granted_response(5, 1, 2)).replace(b"\x06\0\x01\x01", b"\x07\0\x01\x01")  # no Tunnel Type
    say(host, broken)
    (refused,) = heard(host)
    assert refused.code is None
    assert isinstance(parse(host.datagrams_to_send(now=START)[0]), FreeRequest)


@pytest.mark.parametrize(("policy", "ok"), [(1, False), (2, False)])
def test_the_remote_limit_must_come_back_under_a_remote_policy(policy, ok):
    host = Host(gateway=GATEWAY_PEER)
    host.register()
    host.datagrams_to_send(now=START)
    say(host, registered_response(5, 1, remote=policy))
    host.assign_ports(remote=REMOTE, remote_port=80)
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    assert types(heard(host)) == [Registered, Refused]


def test_a_bind_id_that_is_held_already_is_not_believed():
    host = scripted()
    for counter in (2, 3):
        host.assign_ports()
        host.datagrams_to_send(now=START)
        say(host, granted_response(5, 1, counter))
    assert types(heard(host)) == [Assigned, Refused]
    assert list(host.bindings) == [1]
    assert host.datagrams_to_send(now=START) == []


def test_a_free_response_refuses_an_extension():
    host = scripted()
    host.assign_ports()
    host.datagrams_to_send(now=START)
    say(host, granted_response(5, 1, 2))
    host.extend(1)
    host.datagrams_to_send(now=START)
    say(host, FreeResponse(client_id=ClientId(5), bind_id=BindId(1), message_counter=MessageCounter(3)))
    assert heard(host)[1:] == [Freed(bind_id=1, ending=Ending.REVOKED)]
    assert host.state is HostState.REGISTERED
