# SPDX-License-Identifier: BSD-3-Clause
"""The order of spec 6: each message is wrong in two ways, and the earlier check wins."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.rsip.policy import ClientRule
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy, TunnelType
from isthmus.wire.rsip.message import FreeResponse, emit
from rsip.by_hand import COUNTER, client, code, message, raw, tlv
from rsip.conversation import OTHER, REMOTE
from rsip.requests import (
    assign_ports,
    client_of,
    extend,
    free,
)

MACRO, MICRO, NONE = int(RemotePolicy.MACRO), int(RemotePolicy.MICRO), int(RemotePolicy.NONE)


WRONG_HEADER = {"length": 3}
BAD_VALUE, UNKNOWN_TYPE, SHORT_TLV = tlv(3, b"\0"), tlv(99, b"?"), b"\x03\0\x09\0"
DENIED = Address.parse("192.0.2.77")


@pytest.mark.rfc("3103", "9.1.1")
@pytest.mark.rfc("3103", "14")
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (lambda c: message(2, COUNTER, version=9, length=3), 207),  # header before version
        (lambda c: message(99, COUNTER, version=9), 106),  # version before type
        (lambda c: message(99, COUNTER, SHORT_TLV), 206),  # type before parameters
        (lambda c: message(22, COUNTER, SHORT_TLV), 208),  # service before parameters
        (lambda c: message(22, COUNTER, BAD_VALUE), 208),
        (lambda c: message(9, COUNTER, BAD_VALUE), 206),
        (lambda c: message(2, UNKNOWN_TYPE, SHORT_TLV), 207),  # walk before types of parameters
        (lambda c: message(2, BAD_VALUE, UNKNOWN_TYPE), 204),  # types before values
        (lambda c: message(2, BAD_VALUE), 205),  # values before the counter
        (lambda c: message(4, client(c ^ 1)), 105),  # counter before Client ID
        (lambda c: message(2, client(c), COUNTER), 302),  # registered before grammar
        (lambda c: message(4, client(c ^ 1), client(c), COUNTER), 305),  # Client ID before grammar
        (lambda c: message(12, client(c), client(c), tlv(3, bytes(4)), COUNTER), 202),  # twice before extra
        (lambda c: message(12, client(c), tlv(3, bytes(4)), COUNTER), 203),  # extra before missing
        (lambda c: message(12, tlv(5, bytes(4)), COUNTER), 201),  # missing before Bind ID
        (lambda c: message(12, tlv(5, bytes(4)), client(c), COUNTER), 207),  # order before Bind ID
        (lambda c: emit(extend(c, 99)), 306),
        (lambda c: emit(assign_ports(c, tunnel=3)), 307),  # tunnel before flow policy
        (lambda c: emit(assign_ports(c, remote=None, address=OTHER)), 103),  # flow policy before remote and local
        (lambda c: emit(assign_ports(c, ports=2, remote=DENIED, remote_ports=(25,))), 103),
        (lambda c: emit(assign_ports(c, ports=1, remote=DENIED, remote_ports=(25,))), 314),  # address before port
        (lambda c: emit(assign_ports(c, ports=1, remote=REMOTE, remote_ports=(25,), address=OTHER)), 315),
        (lambda c: emit(assign_ports(c, ports=(5060,), remote=REMOTE, remote_ports=(80,), address=OTHER)), 312),
        (lambda c: emit(assign_ports(c, ports=(5060,), remote=REMOTE, remote_ports=(80,))), 313),
    ],
)
def test_the_earlier_of_two_errors_wins(octets, expected):
    talk = raw(
        local=int(LocalPolicy.MICRO),
        remote=MICRO,
        tunnel_types=(TunnelType.IP_IP,),
        remotes_denied=(Prefix.of(DENIED),),
        remote_ports_denied=Ranges.of(25),
        forbidden_ports=Ranges.of(5060),
    )
    client_id = client_of(talk)
    assert code(talk.octets(octets(client_id))) == expected


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (message(99, COUNTER, version=9), 102),  # transport before everything
        (b"\x01", 102),
        (message(2), 102),
    ],
)
def test_the_transport_comes_first_of_all(octets, expected):
    assert code(raw(udp=False).octets(octets)) == expected


@pytest.mark.rfc("3103", "10.2.2")
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (message(12, tlv(5, bytes(4)), COUNTER), 301),  # registered before grammar
        (message(4, client(9), client(9), COUNTER), 301),
        (message(8, COUNTER), 301),
        (message(14, COUNTER), 301),
        (message(16, COUNTER), 301),
        (message(22, COUNTER), 208),
    ],
)
def test_a_rebooted_gateway_says_301_to_whatever_can_be_read(octets, expected):
    assert code(raw().octets(octets)) == expected


def test_denied_comes_before_grammar():
    talk = raw(clients=(ClientRule(prefix=Prefix.parse("10.0.0.0/8"), admitted=False),))
    assert code(talk.octets(message(2, client(1), COUNTER))) == 304
    talk = raw()
    assert code(talk.octets(message(2, client(1), COUNTER))) == 203
    assert len(talk.gateway) == 0


def test_after_any_of_these_errors_the_gateway_serves_as_before():
    talk = raw()
    client_id = client_of(talk)
    for octets in (b"\x01", message(99), message(12, client(client_id), COUNTER), message(2, BAD_VALUE)):
        talk.octets(octets)
    talk.ask(assign_ports(client_id, 50))
    assert isinstance(talk.ask(free(client_id, 1, 51)), FreeResponse)
