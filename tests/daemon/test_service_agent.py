# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway answers to SLP (RFC 3105 §4): whether it answers, with what, and in which form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.advertised import AGENT, HERE, REQUEST, URL
from isthmus.daemon.discovery.template import Offer
from isthmus.wire.slp import attribute
from isthmus.wire.slp.codes import ErrorCode, Flag
from isthmus.wire.slp.message import (
    AttrRply,
    AttrRqst,
    Message,
    SaAdvert,
    SrvAck,
    SrvRply,
    SrvRqst,
    SrvTypeRply,
    SrvTypeRqst,
    UrlEntry,
    emit,
    parse,
)


def ask(body, *, multicast=False, agent=AGENT, language="en", extensions=()):
    """The agent's answer to a request, as a message; None if it is silent."""
    flags = Flag.REQUEST_MCAST if multicast else Flag.NONE
    message = Message(xid=7, body=body, language=language, flags=flags, extensions=extensions)
    octets = agent.answer(emit(message), multicast=multicast)
    if octets is None:
        return None
    reply = parse(octets)
    assert reply.xid == 7
    assert reply.language == language
    return reply.body


def error_of(body, **options):
    reply = ask(body, **options)
    assert ask(body, multicast=True, **options) is None, "errors are not sent to a multicast (RFC 2608 §7)"
    return reply.error


@pytest.mark.rfc("3105", "4")
@pytest.mark.parametrize("multicast", [True, False])
def test_the_gateway_answers_for_service_rsip_with_its_url_and_lifetime(multicast):
    assert ask(REQUEST, multicast=multicast) == SrvRply(urls=(UrlEntry(url=URL, lifetime=300),))


@pytest.mark.rfc("3105", "7")
def test_the_attributes_are_those_of_the_template():
    reply = ask(AttrRqst(url=URL, scopes=("DEFAULT",)))
    assert reply == AttrRply(
        attributes="(ipsec-support=true),(ike-support=false),(tunnel-type=IP-IP,GRE),(transport=UDP,TCP),(load=17)"
    )
    assert Offer.of(attribute.parse(reply.attributes)) == AGENT.offer()


@pytest.mark.rfc("3105", "6")
def test_the_load_alone_can_be_asked_for_and_is_that_of_the_moment():
    load = 3
    agent = replace(AGENT, offer=lambda: Offer(load=load))
    asked = AttrRqst(url=URL, scopes=("DEFAULT",), tags=("LOAD",))
    assert ask(asked, agent=agent).attributes == "(load=3)"
    load = 99
    assert ask(asked, agent=agent).attributes == "(load=99)"


@pytest.mark.rfc("3105", "5")
def test_scopes_tie_hosts_to_gateways():
    assert ask(replace(REQUEST, scopes=("north",))).urls, "case does not count"
    assert error_of(replace(REQUEST, scopes=("SOUTH",))) == ErrorCode.SCOPE_NOT_SUPPORTED
    assert error_of(replace(REQUEST, scopes=())) == ErrorCode.SCOPE_NOT_SUPPORTED
    assert error_of(AttrRqst(url=URL, scopes=("SOUTH",))) == ErrorCode.SCOPE_NOT_SUPPORTED


@pytest.mark.rfc("3105", "4")
@pytest.mark.parametrize(
    ("text", "suits"),
    [("(tunnel-type=GRE)", True), ("(tunnel-type=L2TP)", False), ("(&(load<=20)(ipsec-support=true))", True), ("(load<=5)", False)],
)  # fmt: skip
def test_a_query_by_attributes_finds_only_gateways_that_have_them(text, suits):
    assert ask(replace(REQUEST, predicate=text)) == (SrvRply(urls=(AGENT.entry,)) if suits else SrvRply())
    assert (ask(replace(REQUEST, predicate=text), multicast=True) is not None) is suits


@pytest.mark.rfc("2608", "6.3")
def test_an_agent_that_has_answered_already_is_silent():
    assert ask(replace(REQUEST, previous_responders=("10.0.0.9", HERE)), multicast=True) is None
    assert ask(replace(REQUEST, previous_responders=("10.0.0.9",)), multicast=True) is not None


@pytest.mark.rfc("2608", "7")
def test_what_cannot_be_answered_is_refused_by_unicast_only():
    assert error_of(replace(REQUEST, predicate="(load")) == ErrorCode.PARSE_ERROR
    assert error_of(replace(REQUEST, spi="key")) == ErrorCode.AUTHENTICATION_UNKNOWN
    assert error_of(REQUEST, extensions=((0x4001, b""),)) == ErrorCode.OPTION_NOT_UNDERSTOOD
    assert error_of(replace(REQUEST, predicate="(load=17)"), language="de") == ErrorCode.LANGUAGE_NOT_SUPPORTED
    assert ask(REQUEST, language="de").urls, "a URL has no language"
    assert ask(replace(REQUEST, predicate="(load=17)"), language="en-GB").urls
    assert ask(REQUEST, extensions=((1, b""),)).urls, "an extension that is optional"


@pytest.mark.rfc("2608", "7")
def test_a_request_that_does_not_parse_is_told_so_and_noise_is_not():
    cut = bytearray(emit(Message(xid=7, body=REQUEST)))
    cut[16:18] = b"\xff\xff"
    reply = parse(AGENT.answer(bytes(cut), multicast=False))
    assert reply.body == SrvRply(error=ErrorCode.PARSE_ERROR)
    assert AGENT.answer(bytes(cut), multicast=True) is None
    for noise in (b"", b"\2", bytes(64), b"\1" + bytes(cut[1:]), emit(Message(xid=7, body=SrvAck()))):
        assert AGENT.answer(noise, multicast=False) is None


def test_nothing_is_found_for_other_services():
    assert ask(replace(REQUEST, service_type="service:printer")) == SrvRply()
    assert ask(replace(REQUEST, service_type="service:printer"), multicast=True) is None
    assert ask(AttrRqst(url="service:rsip://10.0.0.2", scopes=("DEFAULT",))) == AttrRply()


@pytest.mark.rfc("2608", "10.1")
@pytest.mark.parametrize(("authority", "there"), [(None, True), ("", True), ("acme", False)])
def test_service_types_are_listed(authority, there):
    reply = ask(SrvTypeRqst(naming_authority=authority, scopes=("DEFAULT",)))
    assert reply == SrvTypeRply(service_types=("service:rsip",) if there else ())


@pytest.mark.rfc("2608", "8.6")
def test_a_service_agent_can_be_asked_for():
    request = SrvRqst(service_type="service:service-agent")
    expected = SaAdvert(url=f"service:service-agent://{HERE}", scopes=AGENT.scopes)
    assert ask(request, multicast=True) == expected
    assert ask(replace(request, scopes=("SOUTH",)), multicast=True) is None


@pytest.mark.rfc("2608", "6.2")
def test_an_answer_too_long_for_a_datagram_says_so_and_is_whole_over_tcp():
    agent = replace(
        AGENT, scopes=tuple(f"scope-{number}" for number in range(200)), offer=lambda: Offer(tunnel_types=("X" * 1500,))
    )
    octets = emit(Message(xid=7, body=AttrRqst(url=URL, scopes=("scope-3",))))
    short, whole = (agent.answer(octets, multicast=False, stream=stream) for stream in (False, True))
    assert parse(short).flags == Flag.OVERFLOW
    assert "X" * 1500 in parse(whole).body.attributes
