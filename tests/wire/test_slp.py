# SPDX-License-Identifier: BSD-3-Clause
"""SLPv2: octets to messages and back, attributes, predicates, URLs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.promise import stays_within
from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire.slp import attribute, predicate
from isthmus.wire.slp.attribute import Attribute
from isthmus.wire.slp.codes import Flag
from isthmus.wire.slp.message import (
    BODIES,
    AttrRply,
    AttrRqst,
    DaAdvert,
    Header,
    Message,
    SaAdvert,
    SrvAck,
    SrvDeReg,
    SrvReg,
    SrvRply,
    SrvRqst,
    SrvTypeRply,
    SrvTypeRqst,
    UrlEntry,
    emit,
    parse,
)
from isthmus.wire.slp.text import escape, fold, join, like, split, unescape
from isthmus.wire.slp.url import ServiceUrl
from wire.strategies import u16, u32, unhurried

# Put together by hand from the figures of RFC 2608 §8 and §8.1.
REQUEST = bytes.fromhex(
    "02 01 000040 2000 000000 1234 0002 656e"  # version 2, SrvRqst, 64 octets, multicast, no extension, XID, "en"
    "0008 31302e302e302e31"  # previous responder 10.0.0.1
    "000c 736572766963653a72736970"  # service:rsip
    "0007 44454641554c54"  # DEFAULT
    "000b 286c6f61643c3d31303029"  # (load<=100)
    "0000"  # no SPI
)
URL = UrlEntry(url="service:rsip://10.0.0.1:4455", lifetime=300)
ATTRIBUTES = "(ipsec-support=false),(tunnel-type=IP-IP,GRE),(load=17)"
SAMPLES: dict[str, Message] = {
    "SrvRqst": Message(xid=7, body=SrvRqst(service_type="service:rsip", scopes=("DEFAULT",)), flags=Flag.REQUEST_MCAST),
    "SrvRply": Message(xid=7, body=SrvRply(urls=(URL, URL))),
    "SrvRply, empty": Message(xid=7, body=SrvRply()),
    "SrvReg": Message(
        xid=1,
        flags=Flag.FRESH,
        body=SrvReg(url=URL, service_type="service:rsip", scopes=("A", "B"), attributes=ATTRIBUTES),
    ),
    "SrvDeReg": Message(xid=2, body=SrvDeReg(scopes=("A",), url=URL, tags="load")),
    "SrvAck": Message(xid=1, body=SrvAck(error=4)),
    "AttrRqst": Message(
        xid=9, body=AttrRqst(previous_responders=("10.0.0.2",), url=URL.url, scopes=("A",), tags=("load", "tun*"))
    ),
    "AttrRply": Message(xid=9, body=AttrRply(attributes=ATTRIBUTES)),
    "DAAdvert": Message(
        xid=0, body=DaAdvert(boot_timestamp=1, url="service:directory-agent://10.0.0.3", scopes=("A",), spis=("x",))
    ),
    "SrvTypeRqst, all": Message(xid=3, body=SrvTypeRqst(scopes=("A",))),
    "SrvTypeRqst, IANA": Message(xid=3, body=SrvTypeRqst(naming_authority="", scopes=("A",))),
    "SrvTypeRply": Message(xid=3, body=SrvTypeRply(service_types=("service:rsip", "service:printer:lpr"))),
    "SAAdvert": Message(xid=4, body=SaAdvert(url="service:service-agent://10.0.0.1", scopes=("A",))),
    "extended": Message(xid=5, body=SrvAck(), extensions=((1, b"ab"), (0x4001, b""), (2, b"cde")), language="de-CH"),
}


@pytest.mark.rfc("2608", "8.1")
def test_a_request_put_together_by_hand() -> None:
    message = parse(REQUEST)
    assert message == Message(
        xid=0x1234,
        flags=Flag.REQUEST_MCAST,
        body=SrvRqst(
            previous_responders=("10.0.0.1",),
            service_type="service:rsip",
            scopes=("DEFAULT",),
            predicate="(load<=100)",
        ),
    )
    assert emit(message) == REQUEST


def test_there_is_a_sample_of_each_function() -> None:
    assert {type(each.body) for each in SAMPLES.values()} == set(BODIES.values())
    assert sorted(BODIES) == list(range(1, 12))


@pytest.mark.parametrize("name", SAMPLES)
def test_there_and_back(name: str) -> None:
    assert parse(emit(SAMPLES[name])) == SAMPLES[name]


texts = st.text(st.characters(codec="utf-8"), max_size=20)
lists = st.lists(texts.map(str.strip).filter(bool), max_size=4).map(tuple)
entries = st.builds(UrlEntry, url=texts, lifetime=u16)
bodies = st.one_of(
    st.builds(SrvRqst, previous_responders=lists, service_type=texts, scopes=lists, predicate=texts, spi=texts),
    st.builds(SrvRply, error=st.just(0), urls=st.lists(entries, max_size=3).map(tuple)),
    st.builds(SrvReg, url=entries, service_type=texts, scopes=lists, attributes=texts, signatures=st.none()),
    st.builds(SrvDeReg, scopes=lists, url=entries, tags=texts),
    st.builds(SrvAck, error=u16),
    st.builds(AttrRqst, previous_responders=lists, url=texts, scopes=lists, tags=lists, spi=texts),
    st.builds(AttrRply, error=u16, attributes=texts, signatures=st.none()),
    st.builds(DaAdvert, error=u16, boot_timestamp=u32, url=texts, scopes=lists, attributes=texts, spis=lists, signatures=st.none()),
    st.builds(SrvTypeRqst, previous_responders=lists, naming_authority=st.none() | texts, scopes=lists),
    st.builds(SrvTypeRply, error=u16, service_types=lists),
    st.builds(SaAdvert, url=texts, scopes=lists, attributes=texts, signatures=st.none()),
)  # fmt: skip
messages = st.builds(
    Message,
    xid=u16,
    body=bodies,
    language=texts,
    flags=st.sampled_from([Flag.NONE, *Flag, Flag.OVERFLOW | Flag.FRESH]),
    extensions=st.lists(st.tuples(u16, st.binary(max_size=9)), max_size=3).map(tuple),
)


@unhurried
@given(messages)
def test_every_message_survives_a_round_trip(message: Message) -> None:
    assert parse(emit(message)) == message


@unhurried
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: REQUEST[:16] + tail))
def test_any_octets_are_a_message_or_an_error(octets: bytes) -> None:
    try:
        message = parse(octets)
    except WireError as error:
        stays_within(error, octets)
    else:
        assert parse(emit(message)) == message


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_cut_short_is_a_message(name: str) -> None:
    octets = emit(SAMPLES[name])
    for length in range(len(octets)):
        with pytest.raises(WireError):
            parse(octets[:length])


@pytest.mark.rfc("2608", "8")
@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (b"\x01" + REQUEST[1:], "version"),
        (REQUEST[:1] + b"\x0c" + REQUEST[2:], "function-id"),
        (REQUEST + b"\0", "length"),
        (REQUEST[:2] + b"\0\0\x0f" + REQUEST[5:], "length"),
        (REQUEST[:7] + b"\0\0\x04" + REQUEST[10:], "next-extension-offset"),
        (REQUEST[:7] + b"\0\0\x40" + REQUEST[10:], "next-extension-offset"),
        (REQUEST[:14] + b"\xff\xff" + REQUEST[16:], "language-tag"),
        (emit(SAMPLES["SrvAck"])[:-2] + b"\0\0\0", "length"),
    ],
)
def test_what_breaks_the_format_is_refused_with_the_field_named(octets: bytes, field: str) -> None:
    with pytest.raises((Malformed, Truncated)) as caught:
        parse(octets)
    assert caught.value.field == field


@pytest.mark.rfc("2608", "9.1")
def test_extensions_that_point_back_are_refused() -> None:
    octets = bytearray(emit(SAMPLES["extended"]))
    first = int.from_bytes(octets[7:10], "big")
    octets[first + 2 : first + 5] = first.to_bytes(3, "big")
    with pytest.raises(Malformed, match="does not lead on"):
        parse(bytes(octets))


@pytest.mark.rfc("2608", "7")
@pytest.mark.parametrize(("function", "kind"), [(2, SrvRply), (7, AttrRply), (10, SrvTypeRply), (8, DaAdvert)])
def test_a_reply_with_an_error_may_end_after_it(function: int, kind: type[Any]) -> None:
    octets = bytes((2, function, 0, 0, 18)) + bytes(5) + b"\0\x07\0\x02en\0\x02"
    assert parse(octets).body.error == 2
    assert isinstance(parse(octets).body, kind)
    with pytest.raises(Truncated):
        parse(octets[:-1] + b"\0")


def test_authentication_blocks_are_read_over() -> None:
    block = bytes.fromhex("0002 000a 00000000 0000")
    plain = emit(SAMPLES["AttrRply"])
    signed = plain[:2] + (len(plain) + 2 * len(block)).to_bytes(3, "big") + plain[5:-1] + b"\2" + block + block
    assert parse(signed) == SAMPLES["AttrRply"]
    with pytest.raises(Malformed, match="less than 4"):
        parse(signed.replace(b"\0\x0a", b"\0\x03"))


def test_more_urls_than_anybody_needs_are_refused() -> None:
    octets = bytearray(emit(SAMPLES["SrvRply, empty"]))
    octets[-2:] = b"\xff\xff"
    with pytest.raises(Malformed, match="65535 URL entries"):
        parse(bytes(octets))


def test_a_header_is_read_without_its_body() -> None:
    header = Header.parse(REQUEST)
    assert (header.function, header.xid, header.language, header.flags) == (1, 0x1234, "en", Flag.REQUEST_MCAST)


# --- text -------------------------------------------------------------------------------------


@pytest.mark.rfc("2608", "5")
def test_reserved_characters_are_escaped() -> None:
    assert escape("a,b(c)") == "a\\2cb\\28c\\29"
    assert unescape("a\\2cb\\28c\\29", "x") == "a,b(c)"
    for wrong in ("\\", "\\2", "\\zz", "a\\ 1"):
        with pytest.raises(Malformed):
            unescape(wrong, "x")


@unhurried
@given(lists)
def test_lists_survive_a_round_trip(items: tuple[str, ...]) -> None:
    assert split(join(items), "x") == items


@pytest.mark.rfc("2608", "6.4")
def test_case_and_white_space_count_for_nothing() -> None:
    assert fold(" Some  Scope ") == fold("some scope")
    assert fold("someone") != fold("some one")


@pytest.mark.parametrize(
    ("text", "asked", "same"),
    [
        ("tunnel-type", "tunnel-type", True),
        ("tunnel-type", "tunnel*", True),
        ("tunnel-type", "*type", True),
        ("tunnel-type", "*nn*-*", True),
        ("tunnel-type", "T*E", True),
        ("tunnel-type", "tunnel", False),
        ("aba", "ab*ba", False),
        ("abba", "ab*ba", True),
        ("", "*", True),
    ],
)
def test_asterisks_stand_for_anything(text: str, asked: str, same: bool) -> None:
    assert like(text, asked.split("*")) is same


def test_many_asterisks_take_no_longer() -> None:
    assert not like("a" * 5000, ("*a" * 2000 + "b").split("*"))


# --- attributes -------------------------------------------------------------------------------


@pytest.mark.rfc("3105", "7")
def test_the_attributes_of_the_template_are_read() -> None:
    read = attribute.parse("(ipsec-support=TRUE),(ike-support = false),(tunnel-type=IP-IP,GRE),(load=100),keyword")
    assert read == (
        Attribute("ipsec-support", (True,)),
        Attribute("ike-support", (False,)),
        Attribute("tunnel-type", ("IP-IP", "GRE")),
        Attribute("load", (100,)),
        Attribute("keyword"),
    )
    assert attribute.get(read, "Load") == (100,)
    assert attribute.get(read, "none") is None


values = st.one_of(
    st.booleans(),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.binary(max_size=6),
    st.text(st.sampled_from("xyz(),\\!<=>~ *_é"), max_size=12).map(lambda text: f"s{text}".strip()),
)
tags = st.text(st.sampled_from("abc-() *_"), max_size=8).map(lambda text: f"t{text}".strip())


@unhurried
@given(st.lists(st.builds(Attribute, tags, st.lists(values, max_size=3).map(tuple)), max_size=4).map(tuple))
def test_attributes_survive_a_round_trip(attributes: tuple[Attribute, ...]) -> None:
    assert attribute.parse(attribute.emit(attributes)) == attributes


@pytest.mark.parametrize(
    "text",
    ["(a=1", "(a)", "(a=1)(b=2)", "(a=1),", "(=1)", "(a*b=1)", "(a=1),,b", "(a=(1))", "a=1", "(a=\\FF\\0)", "a,"],
)
def test_what_is_no_attribute_list_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        attribute.parse(text)


@pytest.mark.rfc("2608", "10.3")
def test_a_tag_list_selects() -> None:
    everything = attribute.parse(ATTRIBUTES)
    assert attribute.select(everything, ()) == everything
    assert attribute.select(everything, ("LOAD",)) == (Attribute("load", (17,)),)
    assert [each.tag for each in attribute.select(everything, ("*-*",))] == ["ipsec-support", "tunnel-type"]


# --- predicates -------------------------------------------------------------------------------

HAS = attribute.parse("(tunnel-type=IP-IP,GRE),(load=17),(ipsec-support=true),(name=Gate  way),(id=\\ff\\01),kw")


@pytest.mark.rfc("2608", "8.1")
@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("(load=17)", True),
        ("(LOAD<=17)", True),
        ("(load>=18)", False),
        ("(load<=9)", False),
        ("(tunnel-type=gre)", True),
        ("(tunnel-type=L2TP)", False),
        ("(!(tunnel-type=L2TP))", True),
        ("(&(tunnel-type=GRE)(load<=20))", True),
        ("(&(tunnel-type=GRE)(load<=10))", False),
        ("(|(tunnel-type=L2TP)(load<=20))", True),
        ("( & (load=17) (kw=*) )", True),
        ("(ipsec-support=TRUE)", True),
        ("(ipsec-support>=true)", False),
        ("(ipsec-support=1)", False),
        ("(load=*)", True),
        ("(kw=*)", True),
        ("(kw=x)", False),
        ("(absent=*)", False),
        ("(!(absent=*))", True),
        ("(name= gate WAY )", True),
        ("(name~=gate way)", True),
        ("(name=g*w*y)", True),
        ("(name=g*x*y)", False),
        ("(load=1*)", False),
        ("(id=\\FF\\01)", True),
        ("(id=\\FF\\02)", False),
        ("(name>=gate)", True),
        ("(load=seventeen)", False),
    ],
)
def test_predicates(text: str, holds: bool) -> None:
    assert predicate.matches(predicate.parse(text), HAS) is holds


@pytest.mark.parametrize(
    "text",
    ["load=17", "(load)", "(load=17", "((load=17))x", "(&)", "(!(a=1)(b=2))", "(=1)", "(a*=1)", "(a>=1*)", "(a=\\1)",
     "(a=(b))", "()", "(a=1)(b=2)", "(" * 17 + "a=1" + ")" * 17, "(!" * 17 + "(a=1)" + ")" * 17, "(a=" + "x" * 2048 + ")"],
)  # fmt: skip
def test_what_is_no_predicate_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        predicate.parse(text)


@unhurried
@given(st.text(st.sampled_from("()&|!=<>~*\\ab1 ,"), max_size=40))
def test_any_text_is_a_predicate_or_an_error(text: str) -> None:
    try:
        wanted = predicate.parse(text)
    except Malformed:
        return
    assert predicate.matches(wanted, HAS) in (True, False)


# --- URLs -------------------------------------------------------------------------------------


@pytest.mark.rfc("3105", "7")
@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("service:rsip://gateway.mydomain:4455", "gateway.mydomain", 4455),
        ("service:rsip://10.0.0.1", "10.0.0.1", None),
        ("SERVICE:RSIP://[2001:db8::1]:4555/", "2001:db8::1", 4555),
        ("service:rsip://host;version=1", "host", None),
    ],
)
def test_service_urls(text: str, host: str, port: int | None) -> None:
    url = ServiceUrl.parse(text)
    assert (url.service_type, url.host, url.port) == ("service:rsip", host, port)
    assert ServiceUrl.parse(str(url)) == url


@pytest.mark.parametrize(
    "text",
    ["", "rsip://host", "service:rsip:host", "service:rsip://host:0", "service:rsip://host:65536", "service:rsip://a b",
     "service:rsip://host:x", "service:rsip://" + "a" * 1024],
)  # fmt: skip
def test_what_is_no_service_url_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        ServiceUrl.parse(text)
