# SPDX-License-Identifier: BSD-3-Clause
"""Any octets into a gateway or a host: no exception, and at most one answer."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.border.ranges import Ranges
from isthmus.rsip.host import Host
from isthmus.wire.rsip.message import emit, parse
from rsip.conversation import (
    GATEWAY_PEER,
    REMOTE,
    SHARED,
    START,
    Conversation,
    Ledger,
    Raw,
    make_gateway,
    make_pool,
)
from rsip.requests import (
    assign_address,
    assign_ports,
    assign_spis,
    client_of,
    deregister,
    extend,
    free,
    listen,
    listen_ike,
    query,
    register,
)


def octets_near(valid: list[bytes]):
    """Octets of a valid message with a few changed, cut, or put in."""

    def change(data: bytes, edits: list[tuple[int, int, int]]) -> bytes:
        changed = bytearray(data)
        for kind, at, value in edits:
            if kind == 0 and changed:
                changed[at % len(changed)] = value
            elif kind == 1:
                changed.insert(at % (len(changed) + 1), value)
            elif changed:
                del changed[at % len(changed)]
        if len(changed) >= 4 and (not edits or edits[0][2] % 4):
            changed[2:4] = len(changed).to_bytes(2, "big")
        return bytes(changed)

    edits = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 80), st.integers(0, 255)), max_size=4)
    return st.builds(change, st.sampled_from(valid), edits)


def requests(client_id: int) -> list[bytes]:
    made = (
        register(3),
        assign_ports(client_id, 4, ports=(5000, 5003)),
        assign_address(client_id, 5, remote="www.bar.com"),
        assign_spis(client_id, 10, spis=3, ports=2),
        listen(client_id, 11, ports=(5001,)),
        listen_ike(client_id, 12),
        query(client_id, REMOTE, "www.bar.com", counter=13),
        extend(client_id, 1, 6, lease=100),
        free(client_id, 1, 7),
        deregister(client_id, 8),
    )
    return [emit(each) for each in made]


def pool():
    return make_pool(spis={SHARED: Ranges.of((0x1000, 0x1FFF))}, ike=[SHARED])


ANY = make_gateway(pool=pool())
CLIENT_ID = client_of(Raw(ANY))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=80), octets_near(requests(CLIENT_ID))), max_size=12), st.booleans())
def test_any_octets_get_one_answer_at_most(messages, udp):
    talk = Raw(make_gateway(pool=pool()), connection=0 if udp else 1)
    assert client_of(talk) == CLIENT_ID
    talk.ask(assign_ports(CLIENT_ID, 2))
    for data in messages:
        talk.now += 0.1
        answers = talk.octets(data)
        assert len(answers) <= 1
        for answer in answers:
            assert not parse(answer).type.is_request


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_octets_leave_a_host_in_order(data):
    talk = Conversation(pool=pool())
    alice = talk.registered()
    alice.assign_ports(4)
    alice.listen(1)
    alice.assign_spis(2, 1)
    alice.query()
    talk.run()
    said = [emit(message) for _, message in talk.sent if not message.type.is_request]
    alice.extend(1)
    for octets in data.draw(st.lists(st.one_of(st.binary(max_size=60), octets_near(said)), max_size=12)):
        alice.receive_datagram(octets, GATEWAY_PEER, now=talk.now)
        alice.datagrams_to_send(now=talk.now)
    talk.ledger = Ledger()
    alice.handle_timer(now=talk.now + 10_000)
    alice.datagrams_to_send(now=talk.now + 10_000)


@given(st.binary(max_size=60))
def test_any_octets_before_a_registration_leave_a_host_alone(octets):
    host = Host(gateway=GATEWAY_PEER)
    host.receive_datagram(octets, GATEWAY_PEER, now=START)
    assert host.next_event() is None
    assert host.datagrams_to_send(now=START) == []
