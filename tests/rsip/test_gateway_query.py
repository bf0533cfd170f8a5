# SPDX-License-Identifier: BSD-3-Clause
"""QUERY at a gateway: what is local and what is remote (RFC 3103 §9.14, §9.15; seed RSIP 4.2)."""

from __future__ import annotations

import struct

import pytest

from isthmus.address import Address, Prefix
from isthmus.rsip.locality import Locality
from isthmus.wire.rsip.codes import QueryIndicator
from isthmus.wire.rsip.message import QueryResponse, emit, parse
from rsip.conversation import Raw, make_gateway, make_policy
from rsip.requests import client_of, code_of, query

P, A = Prefix.parse, Address.parse
LOCALITY = Locality(
    local=(P("10.0.0.0/8"), P("10.9.1.0/24"), P("192.0.2.7"), P("2001:db8::/32")),
    remote=(P("10.9.0.0/16"), P("0.0.0.0/1"), P("10.1.1.1"), P("2001:db8::5")),
    local_names=("site-a.example", "special.b.example"),
    remote_names=("b.example", "old.site-a.example."),
    addresses={"printer": A("10.1.1.1"), "nobody": A("203.0.113.9")},
)


def raw(locality: Locality = LOCALITY, **policy) -> Raw:
    return Raw(make_gateway(make_policy(query=locality, **policy)))


def places(answer) -> list[tuple[str, bool]]:
    """What a response says: a thing, and whether it is local."""
    assert isinstance(answer, QueryResponse)
    return [(str(each.prefix or each.address), each.is_local) for each in answer.tuples]


@pytest.mark.rfc("3103", "9.14.3")
@pytest.mark.rfc("3103", "9.15.3")
@pytest.mark.parametrize(
    ("item", "answer"),
    [
        (A("10.2.3.4"), [("10.2.3.4/32", True)]),
        (A("10.9.2.3"), [("10.9.2.3/32", False)]),
        (A("10.9.1.3"), [("10.9.1.3/32", True)]),
        (A("10.1.1.1"), [("10.1.1.1/32", False)]),
        (A("10.1.1.2"), [("10.1.1.2/32", True)]),
        (A("9.9.9.9"), [("9.9.9.9/32", False)]),
        (A("192.0.2.7"), [("192.0.2.7/32", True)]),
        (A("192.0.2.8"), []),
        (A("2001:db8::4"), [("2001:db8::4/128", True)]),
        (A("2001:db8::5"), [("2001:db8::5/128", False)]),
        (P("10.9.1.0/25"), [("10.9.1.0/25", True)]),
        (P("10.9.0.0/16"), [("10.9.0.0/16", False), ("10.9.1.0/24", True)]),
        (
            P("10.0.0.0/8"),
            [("10.0.0.0/8", True), ("10.1.1.1/32", False), ("10.9.0.0/16", False), ("10.9.1.0/24", True)],
        ),
        (P("192.0.2.0/24"), [("192.0.2.7/32", True)]),
        (P("203.0.113.0/24"), []),
    ],
)
def test_the_most_specific_thing_known_decides_and_the_unknown_is_left_out(item, answer):
    talk = raw()
    assert places(talk.ask(query(client_of(talk), item))) == answer


@pytest.mark.rfc("3103", "9.14.3")
def test_several_things_are_asked_at_once():
    talk = raw()
    items = (A("10.2.3.4"), P("10.9.1.0/24"), "www.b.example", A("10.2.3.4"), A("198.51.100.1"), A("10.1.1.1"))
    answer = talk.ask(query(client_of(talk), *items, counter=9))
    assert answer.message_counter.value == 9
    assert places(answer) == [
        ("10.2.3.4/32", True),
        ("10.9.1.0/24", True),
        ("www.b.example", False),
        ("10.1.1.1/32", False),
    ]


@pytest.mark.rfc("3103", "9.14.3")
def test_no_tuple_asks_for_everything_and_hosts_come_before_networks():
    talk = raw()
    answer = talk.ask(query(client_of(talk)))
    told = places(answer)
    assert told == [
        ("2001:db8::5/128", False),
        ("192.0.2.7/32", True),
        ("10.1.1.1/32", False),
        ("site-a.example", True),
        ("special.b.example", True),
        ("b.example", False),
        ("old.site-a.example", False),
        ("10.9.1.0/24", True),
        ("10.9.0.0/16", False),
        ("10.0.0.0/8", True),
        ("0.0.0.0/1", False),
    ], "the IPv6 network cannot be written"


def test_nothing_known_is_an_empty_answer():
    talk = raw(Locality())
    client_id = client_of(talk)
    assert places(talk.ask(query(client_id))) == []
    assert places(talk.ask(query(client_id, A("10.0.0.4"), "a.example", counter=3))) == []


# Names


@pytest.mark.parametrize(
    ("name", "is_local"),
    [
        ("site-a.example", True),
        ("www.site-a.example", True),
        ("WWW.Site-A.EXAMPLE.", True),
        ("old.site-a.example", False),
        ("x.old.site-a.example", False),
        ("www.b.example", False),
        ("special.b.example", True),
        ("verysite-a.example", None),
        ("example", None),
        ("printer", False),
        ("nobody", None),
    ],
)
def test_a_name_is_where_the_longest_domain_around_it_is_or_else_its_address(name, is_local):
    talk = raw()
    answer = places(talk.ask(query(client_of(talk), name)))
    assert answer == ([] if is_local is None else [(name, is_local)])


def test_two_sites_that_both_use_10_are_told_apart_by_name():
    """Seed RSIP 4.2: by its address the other site's host would be local."""
    locality = Locality(
        local=(P("10.0.0.0/8"),),
        local_names=("site-a.example",),
        remote_names=("site-b.example",),
        addresses={"db.site-a.example": A("10.0.0.9"), "db.site-b.example": A("10.0.0.9")},
    )
    talk = raw(locality)
    answer = talk.ask(query(client_of(talk), "db.site-a.example", "db.site-b.example", A("10.0.0.9")))
    assert places(answer) == [("db.site-a.example", True), ("db.site-b.example", False), ("10.0.0.9/32", True)]
    assert answer.tuples[1].indicator.value == QueryIndicator.REMOTE_ADDRESS


@pytest.mark.parametrize(
    "wrong",
    [
        {"local": (P("10.0.0.0/8"),), "remote": (P("10.0.0.0/8"),)},
        {"local_names": ("a.example",), "remote_names": ("A.example.",)},
    ],
)
def test_nothing_is_both_local_and_remote(wrong):
    with pytest.raises(ValueError, match="both local and remote"):
        Locality(**wrong)


# What goes into a message


@pytest.mark.parametrize("ask", [(), (P("10.0.0.0/8"),)])
def test_a_long_answer_over_udp_stays_below_1200_octets_and_over_tcp_below_the_longest_message(ask):
    many = Locality(
        local=(P("10.0.0.0/8"), *(P(f"10.{n}.0.0/16") for n in range(1, 200))),
        remote=tuple(P(f"10.{n % 200}.{n // 200}.7") for n in range(6000)),
    )
    talk = raw(many)
    client_id = client_of(talk)
    (datagram,) = talk.octets(emit(query(client_id, *ask)))
    assert 1150 < len(datagram) <= 1200
    tcp = Raw(make_gateway(make_policy(query=many)), connection=1)
    (message,) = tcp.octets(emit(query(client_of(tcp, None), *ask, counter=None)))
    assert 65500 < len(message) <= 65535
    assert parse(message).tuples
    if not ask:
        assert all(not each.is_network for each in parse(datagram).tuples), "the most specific first"


# Errors


@pytest.mark.rfc("3103", "9.14.3")
def test_a_query_needs_a_registration_and_the_right_client_id():
    talk = raw()
    assert code_of(talk.ask(query(5))) == 301
    client_id = client_of(talk)
    assert code_of(talk.ask(query(client_id ^ 1))) == 305


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


ADDRESS, MASK = tlv(1, b"\x01\x0a\0\0\0"), tlv(1, b"\x02\xff\0\0\0")
NAME = tlv(1, b"\x04a.example")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (tlv(10, b"\0\x01"), 201),  # an indicator alone
        (tlv(10, b"\0\x02") + ADDRESS, 201),  # a network without netmask
        (tlv(10, b"\0\x02") + ADDRESS + ADDRESS, 205),  # an address in place of the netmask
        (tlv(10, b"\0\x02") + NAME + MASK, 205),  # a network by name
        (tlv(10, b"\0\x01") + MASK, 205),  # a netmask in place of an address
        (tlv(10, b"\0\x01") + tlv(1, b"\x01"), 205),  # any address
        (tlv(10, b"\0\x03") + ADDRESS, 205),  # a question that says "remote"
        (tlv(10, b"\0\x09") + ADDRESS, 205),
        (tlv(10, b"\0\x02") + ADDRESS + tlv(1, b"\x02\xff\0\xff\0"), 205),  # a netmask with a gap
        (tlv(10, b"\0\x02") + tlv(1, b"\x01\x0a\0\0\x01") + MASK, 205),  # bits beyond the netmask
        (ADDRESS, 203),  # an address without indicator
    ],
)
def test_malformed_tuples_are_201_203_or_205(parameters, code):
    talk = raw()
    body = tlv(4, client_of(talk).to_bytes(4, "big")) + tlv(11, b"\0\0\0\x02") + parameters
    (answer,) = talk.octets(struct.pack("!BBH", 1, 14, 4 + len(body)) + body)
    assert code_of(parse(answer)) == code


def test_a_query_changes_nothing_and_is_traced():
    trace = []
    talk = Raw(make_gateway(make_policy(query=LOCALITY), trace=trace.append))
    client_id = client_of(talk)
    before = len(talk.ledger.history)
    talk.ask(query(client_id, A("10.0.0.4")))
    assert len(talk.ledger.history) == before + 1, "only the answer"
    assert [each.event for each in trace] == ["REGISTER", "QUERY"]
