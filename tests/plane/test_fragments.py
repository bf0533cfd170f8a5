# SPDX-License-Identifier: BSD-3-Clause
"""Fragments: what is cut can be put together, in any order; and what waits has limits (RFC 791 §3.2; RFC 3102 §6.3)."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.verdict import Forward, Hold, Pass, Reason, Reply
from isthmus.plane.reference import ReferencePlane, fragment
from isthmus.plane.reference.fragment import Fragments, Part, Whole, cut, ipv4_part, whole_ipv4
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from plane.fixture import NOW, build, scene, stage

PRIVATE, PUBLIC = 1, 2
IN = {"ipv4": "192.156.136.22 -> 149.112.240.55", "udp": "53 -> 10000"}
SRC, DST = Address.parse("192.156.136.22"), Address.parse("149.112.240.55")


def gateway() -> ReferencePlane:
    border, effects = stage(scene("gateway"))
    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Whole packets of any size, some with options, sound or not."""
    words = draw(st.integers(0, 10))
    options = draw(st.binary(min_size=4 * words, max_size=4 * words))
    size = draw(st.integers(8, 3000))
    header = Ipv4Header(
        tos=draw(st.integers(0, 255)),
        total_length=20 + len(options) + size,
        identification=draw(st.integers(0, 0xFFFF)),
        reserved=draw(st.booleans()),
        df=draw(st.booleans()),
        ttl=draw(st.integers(0, 255)),
        protocol=draw(st.sampled_from([1, 6, 17, 50, 51, 132])),
        src=SRC,
        dst=DST,
        options=options,
    )
    return header.emit() + random.Random(size).randbytes(size)


def put(waiting: Fragments, octets: bytes, *, source: object = "somebody", now: float = NOW) -> Whole | Reason | None:
    return waiting.add(ipv4_part(Ipv4View.parse(octets), "here", source), now=now)


@pytest.mark.rfc("791", "3.2")
@given(packet=packets(), mtu=st.integers(68, 1500), seed=st.integers())
def test_what_is_cut_is_put_together_in_any_order(packet: bytes, mtu: int, seed: int) -> None:
    pieces = list(cut(packet, mtu))
    assert all(len(piece) <= mtu for piece in pieces)
    assert all(Ipv4View.parse(piece).checksum_ok for piece in pieces)
    if len(pieces) == 1:
        assert pieces == [packet]
        return
    assert all(len(Ipv4View.parse(piece).payload) % 8 == 0 for piece in pieces[:-1])
    waiting, whole = Fragments(), None
    random.Random(seed).shuffle(pieces)
    for at, piece in enumerate(pieces):
        whole = put(waiting, piece)
        if len(pieces) > fragment.MOST_FRAGMENTS:
            assert whole is (None if at < fragment.MOST_FRAGMENTS else Reason.FRAGMENT_LIMIT)
        else:
            assert (whole is None) == (at < len(pieces) - 1)
    if len(pieces) <= fragment.MOST_FRAGMENTS:
        assert isinstance(whole, Whole)
        expected = bytearray(packet)
        Ipv4View.parse(expected).fix_checksum()
        marked = whole_ipv4(whole)
        assert marked == bytes(expected)
        assert sorted(whole.parts) == sorted(pieces)
        assert (len(waiting), waiting.octets) == (0, 0)


@pytest.mark.rfc("791", "3.1")
@given(packet=packets())
def test_later_fragments_have_the_copied_options_only(packet: bytes) -> None:
    first, *later = cut(packet, 100)
    assert Ipv4View.parse(first).options == Ipv4View.parse(packet).options
    headers = {bytes(Ipv4View.parse(piece).options) for piece in later}
    assert len(headers) <= 1
    for options in headers:
        at = 0
        while at < len(options) and options[at]:
            assert options[at] & 0x80
            at += options[at + 1]


@given(data=st.data())
def test_no_fragments_do_harm(data: st.DataObject) -> None:
    """Whatever comes: the memory counts right, nothing is put together that did not come, and in time all is gone."""
    waiting, now, came = Fragments(), NOW, Counter[int]()
    for _ in range(data.draw(st.integers(1, 40))):
        key = data.draw(st.integers(0, 3))
        part = Part(
            key=key,
            source=data.draw(st.integers(0, 2)),
            offset=8 * data.draw(st.integers(0, 6)),
            more=data.draw(st.booleans()),
            header=bytes(20),
            data=bytes([key]) * data.draw(st.sampled_from([0, 1, 7, 8, 8, 8, 16, 24])),
            octets=bytes([key]) * 28,
            needed=8,
        )
        now += data.draw(st.sampled_from([0, 0, 1, 12]))
        came[key] += 1
        waiting.expire(now)
        whole = waiting.add(part, now=now)
        assert 0 <= waiting.octets <= 28 * came.total()
        if isinstance(whole, Whole):
            assert set(whole.data) == {key}
            assert set(whole.parts) == {part.octets}
            assert len(whole.parts) <= came.pop(key)
    waiting.expire(now + fragment.LIFETIME_SECONDS)
    assert (len(waiting), waiting.octets) == (0, 0)


def first_of(identification: int, *, size: int = 8, src: str = "192.156.136.22") -> bytes:
    header = Ipv4Header(
        total_length=20 + size, identification=identification, mf=True, protocol=17, src=Address.parse(src), dst=DST
    )
    return header.emit() + bytes(size)


@pytest.mark.rfc("3102", "6.3")
def test_one_source_has_a_share_of_packets() -> None:
    waiting = Fragments()
    for at in range(fragment.MOST_PACKETS_OF_ONE):
        assert put(waiting, first_of(at), source="one") is None
    assert put(waiting, first_of(99), source="one") is Reason.FRAGMENT_LIMIT
    assert put(waiting, first_of(99), source="another") is None
    assert waiting.expire(NOW + 29.9) == 0
    assert waiting.expire(NOW + 30) == fragment.MOST_PACKETS_OF_ONE + 1
    assert put(waiting, first_of(99), source="one", now=NOW + 30) is None


@pytest.mark.rfc("3102", "6.3")
def test_one_source_has_a_share_of_octets() -> None:
    waiting, size = Fragments(), 16000
    fits = fragment.MOST_OCTETS_OF_ONE // (size + 20)
    assert [put(waiting, first_of(at, size=size), source="one") for at in range(fits)] == [None] * fits
    assert put(waiting, first_of(99, size=size), source="one") is Reason.FRAGMENT_LIMIT
    assert put(waiting, first_of(99, size=size), source="another") is None
    assert waiting.octets == (fits + 1) * (size + 20)


@pytest.mark.rfc("3102", "6.3")
def test_all_sources_have_a_limit_and_the_oldest_go() -> None:
    waiting = Fragments()
    for at in range(fragment.MOST_PACKETS):
        assert put(waiting, first_of(at), source=at) is None
    assert put(waiting, first_of(4711), source="late") is None
    assert (len(waiting), waiting.take_pushed_out(), waiting.take_pushed_out()) == (fragment.MOST_PACKETS, 1, 0)
    waiting, size = Fragments(), 60000
    fits = fragment.MOST_OCTETS // (size + 20)
    assert all(put(waiting, first_of(at, size=size), source=at) is None for at in range(fits))
    assert put(waiting, first_of(4711, size=size), source="late") is None
    assert waiting.octets == fits * (size + 20)
    assert waiting.take_pushed_out() == 1


@pytest.mark.rfc("3102", "6.3")
def test_a_flood_of_fragments_does_not_keep_others_from_being_put_together() -> None:
    waiting = Fragments()
    packet = Ipv4Header(total_length=2020, identification=60000, protocol=17, src=SRC, dst=DST).emit() + bytes(2000)
    for at in range(3 * fragment.MOST_PACKETS):
        assert put(waiting, first_of(at % 65536), source=at) is None
    first, last = cut(packet, 1500)
    assert put(waiting, first, source="honest") is None
    for at in range(fragment.MOST_PACKETS // 2):
        assert put(waiting, first_of(at), source=("flood", at)) is None
    assert put(waiting, last, source="honest") is not None


@pytest.mark.rfc("5722", "4")
def test_a_spoilt_packet_takes_no_memory_but_its_place() -> None:
    waiting = Fragments()
    assert put(waiting, first_of(1)) is None
    assert put(waiting, first_of(1)) is Reason.FRAGMENT_OVERLAP
    assert (len(waiting), waiting.octets) == (1, 0)
    assert put(waiting, first_of(1)) is Reason.FRAGMENT_OVERLAP
    assert waiting.expire(NOW + 30) == 0, "what was refused has not waited"
    assert len(waiting) == 0


@pytest.mark.rfc("791", "3.1")
def test_a_packet_of_65535_octets_is_the_largest() -> None:
    packet = Ipv4Header(total_length=65535, protocol=17, src=SRC, dst=DST).emit() + bytes(65515)
    pieces, waiting = cut(packet, 1500), Fragments()
    assert len(pieces) == 45
    wholes = [put(waiting, piece) for piece in pieces]
    assert isinstance(wholes[-1], Whole)
    assert whole_ipv4(wholes[-1]) == packet
    last = bytearray(pieces[-1] + b"\0")
    last[2:4] = len(last).to_bytes(2, "big")
    assert put(Fragments(), bytes(last)) is Reason.FRAGMENT


@pytest.mark.rfc("3102", "6.3")
def test_what_is_the_machines_own_is_passed_as_it_came() -> None:
    plane = gateway()
    parts = [build({**IN, "udp": "53 -> 22", "size": 1020, "part": part}) for part in ([504, -1], [0, 504])]
    assert plane.process(PUBLIC, parts[0], now=NOW) == Hold()
    assert plane.process(PUBLIC, parts[1], now=NOW) == Pass(tuple(parts))


@pytest.mark.rfc("3102", "6.3")
def test_the_whole_is_decided_as_if_it_had_come_whole() -> None:
    parts = [build({**IN, "size": 1020, "part": part}) for part in ([504, -1], [0, 504])]
    plane = gateway()
    plane.process(PUBLIC, parts[0], now=NOW)
    put_together = plane.process(PUBLIC, parts[1], now=NOW)
    assert put_together == gateway().process(PUBLIC, build({**IN, "size": 1020}), now=NOW)
    assert (plane.counters()[Reason.HELD], plane.counters()[Reason.FORWARDED_INWARD]) == (1, 1)


@pytest.mark.rfc("791", "3.2")
def test_fragments_in_vain_are_counted_when_the_next_packet_comes() -> None:
    plane = gateway()
    plane.process(PUBLIC, build({**IN, "size": 1020, "part": [504, -1]}), now=NOW)
    assert plane.counters()[Reason.FRAGMENT_TIMEOUT] == 0
    plane.process(PUBLIC, build({**IN, "tcp": "80 -> 22"}), now=NOW + 30)
    assert plane.counters()[Reason.FRAGMENT_TIMEOUT] == 1


@pytest.mark.rfc("3102", "6.3")
def test_a_long_echo_reply_is_cut_for_the_way_back() -> None:
    border, effects = stage(scene("gateway"), [], {"public": {"mtu": 576}})
    plane = ReferencePlane(border)
    plane.apply(effects)
    request = {"ipv4": "192.156.136.22 -> 149.112.240.55", "echo": 9, "size": 1000}
    plane.process(PUBLIC, build({**request, "part": [552, -1]}), now=NOW)
    verdict = plane.process(PUBLIC, build({**request, "part": [0, 552]}), now=NOW)
    assert isinstance(verdict, Forward)
    assert [len(each) for each in verdict.packets] == [572, 448]
    assert plane.counters()[Reason.REPLIED] == 1


@pytest.mark.rfc("6864", "4.3")
def test_a_whole_packet_with_df_is_answered_and_fragments_with_df_are_not() -> None:
    whole = {**IN, "size": 1500, "df": True}
    assert isinstance(gateway().process(PUBLIC, build(whole), now=NOW), Reply)
    plane = gateway()
    plane.process(PUBLIC, build({**whole, "part": [1000, -1]}), now=NOW)
    verdict = plane.process(PUBLIC, build({**whole, "part": [0, 1000]}), now=NOW)
    assert isinstance(verdict, Forward)
    assert [Ipv4View.parse(each[20:]).df for each in verdict.packets] == [True, True]


def test_a_part_of_another_place_is_of_another_packet() -> None:
    waiting = Fragments()
    first, second = cut(build({**IN, "size": 1020}), 600)
    assert put(waiting, first) is None
    assert waiting.add(ipv4_part(Ipv4View.parse(second), "there", "somebody"), now=NOW) is None
    assert isinstance(put(waiting, second), Whole)
