# SPDX-License-Identifier: BSD-3-Clause
"""Messages out of a byte stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import MessageError
from isthmus.wire.rsip.stream import MessageStream
from wire.samples import VECTORS
from wire.strategies import unhurried

THREE = [VECTORS["E1"], VECTORS["E8"], VECTORS["E27"]]
GARBAGE = b"GET / HTTP/1.1\r\n"


def test_one_octet_at_a_time() -> None:
    stream = MessageStream()
    assert [message for octet in b"".join(THREE) for message in stream.feed(bytes((octet,)))] == THREE
    assert stream.pending == 0


def test_cut_at_every_boundary() -> None:
    whole = b"".join(THREE)
    for cut in range(len(whole) + 1):
        stream = MessageStream()
        assert stream.feed(whole[:cut]) + stream.feed(whole[cut:]) == THREE


@unhurried
@given(st.lists(st.sampled_from(list(VECTORS.values())), max_size=6), st.data())
def test_however_it_is_cut(messages: list[bytes], data: st.DataObject) -> None:
    rest, stream, found = b"".join(messages), MessageStream(), []
    while rest:
        n = data.draw(st.integers(1, len(rest)))
        found += stream.feed(rest[:n])
        rest = rest[n:]
    assert found == messages


def test_the_longest_message_and_the_shortest() -> None:
    longest = b"\x01\x02\xff\xff" + bytes(65531)
    stream = MessageStream()
    assert stream.feed(longest + b"\x01\x02\x00\x04") == [longest, b"\x01\x02\x00\x04"]


@pytest.mark.rfc("3103", "9")
@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (GARBAGE, ErrorCode.UNSUPPORTED_RSIP_VERSION),
        (b"\x01\x02\x00\x03", ErrorCode.BAD_MESSAGE),
        (b"\x02\x02\x00\x00", ErrorCode.BAD_MESSAGE),
    ],
)
def test_a_broken_stream_says_so_once(octets: bytes, code: ErrorCode) -> None:
    stream = MessageStream()
    with pytest.raises(MessageError) as caught:
        stream.feed(octets)
    assert caught.value.code == code
    assert stream.broken
    assert stream.feed(VECTORS["E1"]) == []
    assert stream.pending == 0


def test_messages_in_front_of_the_fault_are_not_lost() -> None:
    stream = MessageStream()
    assert stream.feed(VECTORS["E1"] + VECTORS["E2"] + GARBAGE) == [VECTORS["E1"], VECTORS["E2"]]
    assert stream.broken
    with pytest.raises(MessageError):
        stream.feed(b"")
    assert stream.feed(b"") == []


@unhurried
@given(st.lists(st.binary(max_size=20)))
def test_any_octets_give_messages_or_one_error(pieces: list[bytes]) -> None:
    stream, errors = MessageStream(), 0
    for piece in pieces:
        try:
            for message in stream.feed(piece):
                assert len(message) == int.from_bytes(message[2:4], "big")
        except MessageError:
            errors += 1
    assert errors <= 1
