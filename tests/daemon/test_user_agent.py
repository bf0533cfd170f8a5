# SPDX-License-Identifier: BSD-3-Clause
"""How a host asks by SLP, and what it believes (RFC 2608 §6.3; RFC 3105 §6)."""

from __future__ import annotations

import pytest

from daemon.advertised import AGENT, REQUEST
from isthmus.daemon.discovery.convergence import Convergence
from isthmus.daemon.discovery.template import Offer, predicate
from isthmus.wire.slp import attribute
from isthmus.wire.slp.codes import Flag
from isthmus.wire.slp.message import (
    AttrRply,
    Message,
    SrvRply,
    emit,
    parse,
)


def asking(*, multicast=True, seconds=3.0):
    return Convergence(REQUEST, xid=7, now=0.0, seconds=seconds, retry=0.5, multicast=multicast)


def answer(body=None, xid=7):
    return emit(Message(xid=xid, body=body or SrvRply(urls=(AGENT.entry,))))


@pytest.mark.rfc("2608", "6.3")
def test_a_question_to_the_group_is_repeated_with_those_who_answered_until_nobody_new_does():
    question = asking()
    first = parse(question.poll(now=0.0))
    assert first.flags == Flag.REQUEST_MCAST
    assert question.poll(now=0.4) is None
    assert question.receive(answer(), "10.0.0.1") is not None
    assert question.receive(answer(), "10.0.0.1") is None, "the same again"
    again = parse(question.poll(now=0.5))
    assert again.xid == first.xid
    assert again.body.previous_responders == ("10.0.0.1",)
    assert question.timer == 1.5, "the wait doubles"
    assert question.receive(answer(), "10.0.0.2") is not None
    assert parse(question.poll(now=1.5)).body.previous_responders == ("10.0.0.1", "10.0.0.2")
    assert question.timer == 3.0
    assert question.poll(now=3.0) is None
    assert question.done
    assert [each.responder for each in question.replies] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.rfc("2608", "6.3")
def test_it_is_over_when_a_repetition_brings_nobody_new():
    question = asking(seconds=60)
    question.poll(now=0.0)
    question.receive(answer(), "10.0.0.1")
    assert question.poll(now=0.5) is not None
    assert question.poll(now=1.5) is None
    assert question.done


@pytest.mark.rfc("2608", "6.3")
def test_nobody_answers_and_the_time_is_over():
    question = asking(seconds=4.0)
    sent = [moment / 10 for moment in range(60) if question.poll(now=moment / 10) is not None]
    assert sent == [0.0, 0.5, 1.5, 3.5]
    assert question.done
    assert question.timer is None


def test_it_is_over_when_those_who_answered_do_not_fit_into_a_datagram():
    question = asking(seconds=60)
    question.poll(now=0.0)
    for number in range(200):
        question.receive(answer(), f"10.0.{number}.1")
    assert question.poll(now=0.5) is None
    assert question.done


def test_one_agent_is_believed_once():
    question = asking(multicast=False)
    assert parse(question.poll(now=0.0)).flags == Flag.NONE
    question.receive(answer(), "10.0.0.1")
    assert question.done


@pytest.mark.parametrize(
    "octets", [b"", bytes(40), answer(xid=8), answer(AttrRply()), emit(Message(xid=7, body=REQUEST))]
)
def test_what_is_no_answer_to_the_question_counts_for_nothing(octets):
    question = asking()
    question.poll(now=0.0)
    assert question.receive(octets, "10.0.0.1") is None
    assert not question.replies


@pytest.mark.rfc("3105", "7")
def test_the_query_names_the_tunnel_types_that_the_host_can_use():
    assert predicate(tunnel_types=("IP-IP",)) == "(tunnel-type=IP-IP)"
    both = predicate(tunnel_types=("IP-IP", "GRE"), transport="UDP", ipsec=True)
    assert both == "(&(|(tunnel-type=IP-IP)(tunnel-type=GRE))(transport=UDP)(ipsec-support=true))"
    assert predicate() == ""


@pytest.mark.rfc("3105", "7")
def test_attributes_that_are_missing_have_the_defaults_of_the_template():
    assert Offer.of(()) == Offer(tunnel_types=("IP-IP",), transports=("TCP",), load=None)


@pytest.mark.rfc("3105", "7")
@pytest.mark.parametrize(("text", "load"), [("(load=0)", 0), ("(load=100)", 100), ("(load=101)", None), ("(load=-1)", None), ("(load=true)", None), ("load", None)])  # fmt: skip
def test_a_load_is_a_number_from_0_to_100(text, load):
    assert Offer.of(attribute.parse(text)).load == load
