# SPDX-License-Identifier: BSD-3-Clause
"""Reader and Writer."""

from __future__ import annotations

import pytest

from isthmus.errors import Malformed, Truncated
from isthmus.wire.cursor import Reader, Writer


def test_a_reader_reads_in_network_order() -> None:
    reader = Reader(bytes(range(1, 11)))
    assert (reader.u8("a"), reader.u16("b"), reader.u32("c")) == (1, 0x0203, 0x04050607)
    assert (reader.position, reader.end, reader.left) == (7, 10, 3)
    assert reader.take(1, "d") == b"\x08"
    assert reader.rest() == b"\x09\x0a"
    assert reader.rest() == b""


def test_a_reader_names_what_is_cut_short_and_does_not_move() -> None:
    reader = Reader(b"\x01\x02\x03")
    reader.u8("first")
    with pytest.raises(Truncated) as caught:
        reader.u32("second")
    assert (caught.value.field, caught.value.at, caught.value.need, caught.value.have) == ("second", 1, 4, 2)
    assert reader.u16("second") == 0x0203


def test_a_restriction_must_be_used_up_exactly() -> None:
    reader = Reader(bytes(8))
    with reader.restrict_to(4, "inner"):
        assert reader.end == 4
        with reader.restrict_to(2, "innermost"):
            reader.u16("x")
        reader.u16("y")
    assert reader.left == 4
    with pytest.raises(Malformed, match="2 octets of 4 left over"), reader.restrict_to(4, "inner"):
        reader.u16("x")
    assert reader.end == 8


def test_a_restriction_limits_reading_and_is_limited_itself() -> None:
    reader = Reader(bytes(4))
    with pytest.raises(Truncated), reader.restrict_to(2, "inner"):
        reader.u32("x")
    assert reader.end == 4
    with pytest.raises(Truncated), reader.restrict_to(5, "inner"):
        pass


def test_a_writer_appends_and_patches() -> None:
    writer = Writer()
    writer.u8(1, "version")
    writer.u16(0, "length")
    writer.u32(0xDEADBEEF, "data")
    writer.octets(b"xy")
    writer.patch_u16(1, writer.position, "length")
    assert bytes(writer) == bytes.fromhex("01 0009 deadbeef") + b"xy"


@pytest.mark.parametrize("number", [-1, 256])
def test_a_writer_refuses_what_does_not_fit(number: int) -> None:
    writer = Writer()
    with pytest.raises(Malformed, match="8 bits"):
        writer.u8(number, "field")
    writer.u16(7, "field")
    with pytest.raises(Malformed, match="16 bits"):
        writer.patch_u16(0, 1 << 16, "field")
    assert bytes(writer) == b"\0\x07"
