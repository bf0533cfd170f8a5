# SPDX-License-Identifier: BSD-3-Clause
"""Captures, ours and other people's."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import PcapNgReader, PcapWriter

from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire import pcapng
from isthmus.wire.pcapng import CaptureWriter, Frame, ip_octets, read
from wire.strategies import unhurried

PACKET = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"hello")


def frames_of(octets: bytes) -> list[Frame]:
    return list(read(io.BytesIO(octets)))


def written(*frames: Frame, link_types: tuple[int, ...] = (pcapng.RAW,)) -> bytes:
    file = io.BytesIO()
    writer = CaptureWriter(file)
    for number, link_type in enumerate(link_types):
        assert writer.add_interface(link_type, name=f"if{number}") == number
    for frame in frames:
        writer.write(frame)
    return file.getvalue()


@unhurried
@given(
    st.lists(
        st.builds(
            Frame,
            octets=st.binary(max_size=40),
            time_ns=st.integers(0, (1 << 64) - 1),
            interface=st.integers(0, 1),
            original_octets=st.one_of(st.none(), st.integers(100, 1000)),
        ),
        max_size=5,
    )
)
def test_any_frames_survive(frames: list[Frame]) -> None:
    assert frames_of(written(*frames, link_types=(pcapng.RAW, pcapng.RAW))) == frames


def test_scapy_reads_what_we_write() -> None:
    octets = written(Frame(octets=PACKET, time_ns=1_700_000_000_123_456_789))
    packets = list(PcapNgReader(io.BytesIO(octets)))
    assert [bytes(packet) for packet in packets] == [PACKET]
    assert float(packets[0].time) == pytest.approx(1_700_000_000.123456)


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_of_both_byte_orders_and_resolutions(endianness: str, nano: bool, tmp_path: object) -> None:
    path = tmp_path / "x.pcap"
    writer = PcapWriter(str(path), linktype=101, endianness=endianness, nano=nano)
    writer.write_header(None)
    writer.write_packet(PACKET, sec=1_700_000_000, usec=123_456_789 if nano else 123_456, caplen=33, wirelen=99)
    writer.close()
    (frame,) = frames_of(path.read_bytes())
    fraction = 123_456_789 if nano else 123_456_000
    assert frame == Frame(octets=PACKET, time_ns=1_700_000_000 * 10**9 + fraction, original_octets=99)


def section(order: str, *blocks: tuple[int, bytes]) -> bytes:
    octets = b""
    for kind, body in ((0x0A0D0D0A, struct.pack(order + "LHHq", 0x1A2B3C4D, 1, 0, -1)), *blocks):
        length = struct.pack(order + "L", len(body) + 12)
        octets += struct.pack(order + "L", kind) + length + body + length
    return octets


def interface(order: str, link_type: int, options: bytes = b"", snap: int = 0) -> tuple[int, bytes]:
    return 1, struct.pack(order + "HHL", link_type, 0, snap) + options


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_of_both_byte_orders_with_every_kind_of_packet_block(order: str) -> None:
    milliseconds = option(order, 9, b"\x03") + option(order, 14, struct.pack(order + "q", 10)) + option(order, 0, b"")
    binary = option(order, 9, b"\x81")
    octets = section(
        order,
        (0x0BAD, b"some"),
        interface(order, 1),
        interface(order, 101, milliseconds),
        interface(order, 276, binary),
        (6, struct.pack(order + "LLLLL", 0, 0, 5, 3, 9) + b"abc\0"),
        (6, struct.pack(order + "LLLLL", 1, 0, 5, 4, 4) + b"abcd"),
        (2, struct.pack(order + "HHLLLL", 2, 0, 0, 3, 2, 2) + b"ab\0\0"),
        (3, struct.pack(order + "L", 4) + b"wxyz"),
    )
    other = ">" if order == "<" else "<"
    octets += section(other, interface(other, 101, snap=2), (3, struct.pack(other + "L", 7) + b"pq\0\0"))
    assert frames_of(octets) == [
        Frame(octets=b"abc", link_type=1, time_ns=5000, original_octets=9),
        Frame(octets=b"abcd", link_type=101, time_ns=10_005_000_000, interface=1),
        Frame(octets=b"ab", link_type=276, time_ns=1_500_000_000, interface=2),
        Frame(octets=b"wxyz", link_type=1),
        Frame(octets=b"pq", link_type=101, original_octets=7),
    ]


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"", Truncated),
        (b"\x0a\x0d", Truncated),
        (b"nope", Malformed),
        (section("<")[:11], Truncated),
        (section("<")[:8] + b"abcd" + section("<")[12:], Malformed),
        (section("<")[:-4] + b"abcd", Malformed),
        (section("<", (6, bytes(20))), Malformed),
        (section("<", interface("<", 1), (6, bytes(8))), Truncated),
        (section("<", interface("<", 1), (6, struct.pack("<LLLLL", 0, 0, 0, 9, 9))), Truncated),
        (section("<", (1, b"1234")), Truncated),
        (section("<") + struct.pack("<LL", 5, 13), Malformed),
        (section("<") + struct.pack("<LL", 5, 4), Malformed),
        (section("<") + struct.pack("<LL", 5, 0xFFFFFFFC), Malformed),
        (bytes.fromhex("a1b2c3d4") + bytes(19), Truncated),
        (bytes.fromhex("a1b2c3d4") + bytes(20) + struct.pack(">LLLL", 0, 0, 9, 9), Truncated),
    ],
)
def test_damage_is_noticed(octets: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        frames_of(octets)


@unhurried
@given(st.binary(max_size=60), st.sampled_from([section("<", interface("<", 1)), bytes.fromhex("d4c3b2a1"), b""]))
def test_any_octets_are_frames_or_a_wire_error(octets: bytes, start: bytes) -> None:
    try:
        frames_of(start + octets)
    except WireError:
        return


def test_every_cut_of_a_capture_is_noticed_or_is_between_blocks() -> None:
    whole = written(Frame(octets=PACKET))
    clean = 0
    for n in range(4, len(whole)):
        try:
            frames_of(whole[:n])
            clean += 1
        except Truncated:
            pass
    assert clean == 2, "after the section header, and after the interface"


def test_a_frame_needs_an_interface_of_its_kind() -> None:
    writer = CaptureWriter(io.BytesIO())
    with pytest.raises(ValueError, match="not been added"):
        writer.write(Frame(octets=b""))
    writer.add_interface(pcapng.ETHERNET)
    with pytest.raises(ValueError, match="link type 1"):
        writer.write(Frame(octets=b""))
    with pytest.raises(ValueError, match="64 bits"):
        writer.write(Frame(octets=b"", link_type=1, time_ns=-1))


@pytest.mark.parametrize(
    ("link_type", "octets", "packet"),
    [
        (pcapng.RAW, PACKET, PACKET),
        (pcapng.IPV4, PACKET, PACKET),
        (pcapng.RAW, b"\x00", None),
        (pcapng.RAW, b"", None),
        (pcapng.ETHERNET, bytes(Ether(type=0x0800)) + PACKET, PACKET),
        (pcapng.ETHERNET, bytes(Ether() / Dot1Q(vlan=1) / Dot1Q(vlan=2, type=0x0800)) + PACKET, PACKET),
        (pcapng.ETHERNET, bytes(Ether(type=0x0806)) + PACKET, None),
        (pcapng.ETHERNET, bytes(12) + b"\x81\x00", None),
        (pcapng.ETHERNET, bytes(13), None),
        (pcapng.LINUX_SLL, bytes(14) + b"\x08\x00" + PACKET, PACKET),
        (pcapng.LINUX_SLL, bytes(16) + PACKET, None),
        (pcapng.LINUX_SLL2, b"\x86\xdd" + bytes(18) + b"\x60", b"\x60"),
        (pcapng.LINUX_SLL2, b"\x08\x00" + bytes(18), None),
        (0, PACKET, None),
    ],
)
def test_the_packet_in_a_frame(link_type: int, octets: bytes, packet: bytes | None) -> None:
    assert ip_octets(Frame(octets=octets, link_type=link_type)) == packet
