# SPDX-License-Identifier: BSD-3-Clause
"""Messages that are alike are read as if each were the first, and templates write what ``emit`` writes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.wire.rsip import likeness
from isthmus.wire.rsip import message as m
from isthmus.wire.rsip.parameter import BindId, ClientId, LeaseTime, MessageCounter, Ports, RsipAddress, RsipTunnelType
from isthmus.wire.rsip.template import Template
from wire.strategies import messages, unhurried

NUMBERS = st.integers(0, (1 << 32) - 1)


def outcome(octets):
    """What comes of reading a message: itself, or all that its error says."""
    try:
        envelope = m.parse_envelope(octets)
        identity = envelope.client_id, envelope.bind_id, envelope.message_counter
        message = m.parse_message(envelope)
    except m.MessageError as error:
        said = error.code, error.field, error.at, error.problem, error.message_type
        return said, error.client_id, error.bind_id, error.message_counter
    return envelope.type, envelope.parameters, identity, message, message.order, m.emit(message)


def read_anew(octets):
    """The outcome when nothing is known of messages like it."""
    likeness._known.clear()
    return outcome(octets)


def damaged(octets, at, other):
    """The same octets with one of them changed."""
    at %= len(octets)
    return octets[:at] + bytes((other,)) + octets[at + 1 :]


@unhurried
@given(messages, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_a_message_like_one_before_is_read_as_if_it_were_the_first(message, pairs):
    likeness._known.clear()
    alike = [m.emit(message)]
    for client_id, counter in pairs:
        changes = {"message_counter": MessageCounter(counter)}
        if hasattr(message, "client_id"):
            changes["client_id"] = ClientId(client_id)
        alike.append(m.emit(replace(message, **changes)))
    known = [outcome(each) for each in (*alike, *alike)]
    assert known == [read_anew(each) for each in (*alike, *alike)]


@unhurried
@given(messages, st.integers(0, 400), st.integers(0, 255), st.integers(-9, 9))
def test_what_is_wrong_with_a_message_is_found_though_one_like_it_was_good(message, at, other, cut):
    octets = m.emit(message)
    for bad in (damaged(octets, at, other), octets[:cut] if cut < 0 else octets + bytes(cut), octets[:11]):
        likeness._known.clear()
        outcome(octets)
        outcome(octets)
        known = outcome(bad)
        assert known == read_anew(bad)


def test_a_grammar_that_is_wrong_is_wrong_every_time():
    twice = m.emit_envelope(
        m.Envelope(type=m.FreeRequest.type, parameters=(ClientId(5), BindId(1), BindId(1), MessageCounter(2)))
    )
    assert outcome(twice) == outcome(twice) == read_anew(twice)
    assert outcome(twice)[0][0] == 202


def test_a_message_that_was_changed_is_not_taken_for_one_like_the_old():
    read = m.parse(m.emit(m.FreeRequest(client_id=ClientId(5), bind_id=BindId(1), message_counter=MessageCounter(2))))
    assert read.like is not None
    assert replace(read, bind_id=BindId(2)).like is None


def test_likenesses_do_not_pile_up():
    for number in range(2000):
        m.parse(m.emit(m.FreeRequest(client_id=ClientId(5), bind_id=BindId(number), message_counter=MessageCounter(2))))
    assert len(likeness._known) <= 512


def granted(client_id, bind_id, address, first, counter):
    return m.AssignResponseRsapIp(
        client_id=ClientId(client_id),
        bind_id=BindId(bind_id),
        local_address=RsipAddress.of(address),
        local_ports=Ports(count=16, ports=(first,)),
        remote_address=RsipAddress.any(),
        remote_ports=Ports.any_of(1),
        lease_time=LeaseTime(600),
        tunnel_type=RsipTunnelType(1),
        tunnel_endpoint=RsipAddress.of(Address.parse("10.0.0.1")),
        message_counter=MessageCounter(counter),
    )


@unhurried
@given(NUMBERS, NUMBERS, st.ip_addresses(v=4), st.integers(1, 60000), NUMBERS)
def test_a_template_writes_what_emit_writes(client_id, bind_id, address, first, counter):
    one = granted(1, 2, Address.parse("192.0.2.1"), 5, 6)
    template = Template(one, one.client_id, one.bind_id, one.local_address, one.local_ports, one.message_counter)
    leased = Address.parse(str(address))
    octets = template.fill(client_id, bind_id, leased.octets, first, counter)
    assert octets == m.emit(granted(client_id, bind_id, leased, first, counter))


def test_a_template_refuses_parts_that_are_not_there():
    one = granted(1, 2, Address.parse("192.0.2.1"), 5, 6)
    with pytest.raises(ValueError, match="does not stand there"):
        Template(one, one.message_counter, one.client_id)
    with pytest.raises(ValueError, match="no number"):
        Template(one, one.remote_address)
