# SPDX-License-Identifier: BSD-3-Clause
"""isthmus decode."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from cli.program import ROOT, answer, refused, run, started
from isthmus.cli import decode
from isthmus.wire import pcapng

REGISTER = "0102000b0b000400000001"
VECTORS = json.loads((ROOT / "tests" / "vectors" / "rsip.json").read_text())
PACKETS = {
    "tcp": IP(src="10.0.0.4", dst="10.0.0.1") / TCP(sport=40000, dport=80, flags="S"),
    "ipip": IP(src="10.0.0.4", dst="10.0.0.1")
    / IP(src="149.112.240.55", dst="192.156.136.22")
    / TCP(sport=10000, dport=80),
    "gre": IP(src="10.0.0.4", dst="10.0.0.1") / GRE() / IP(src="149.112.240.55", dst="192.156.136.22") / UDP() / b"x",
    "icmp": IP(src="192.0.2.1", dst="149.112.240.55") / ICMP(type=3, code=4, nexthopmtu=1400) / IP() / UDP(),
    "rsip": IP(src="10.0.0.4", dst="10.0.0.1") / UDP(sport=40001, dport=4555) / Raw(bytes.fromhex(REGISTER)),
}


def test_hex_becomes_a_tree_with_one_line_for_each_field():
    shown = run("decode", REGISTER).stdout
    assert shown.splitlines()[0] == "RSIP REGISTER_REQUEST"
    assert "message_counter: 1" in shown


@pytest.mark.parametrize(
    "text",
    [
        "01 02 00 0b 0b 00 04 00 00 00 01",
        "01:02:00:0b:0b:00:04:00:00:00:01",
        "0x01 0x02 0x00 0x0b 0x0b 0x00 0x04 0x00 0x00 0x00 0x01",
        "0x0000:  0102 000b 0b00\n0x0006:  0400 0000 01",
        "00000000: 0102 000b 0b00 0400 0000 01  |...........|",
        "0000   01 02 00 0b 0b 00\n0006   04 00 00 00 01",
        "# a register request\n01020 00b0b 0004 000000 01  # the counter",
    ],
)
def test_every_way_to_write_hex(text):
    assert answer("decode", "-", stdin=text)["type"] == "REGISTER_REQUEST"


def test_an_empty_line_separates_packets():
    result = run("decode", "--json", stdin=f"{REGISTER}\n\n{REGISTER}\n")
    assert [json.loads(line)["number"] for line in result.stdout.splitlines()] == [1, 2]


@pytest.mark.parametrize("name", PACKETS)
def test_packets_in_hex_and_in_captures_say_the_same(name, tmp_path):
    packet = PACKETS[name]
    shown = run("decode", "--lines", bytes(packet).hex()).stdout.strip()
    assert "[" not in shown, "no layer has an error"
    capture = tmp_path / "it.pcap"
    wrpcap(str(capture), [Ether() / packet])
    assert run("decode", capture).stdout.strip().endswith(shown)
    framed = run("decode", "--lines", bytes(Ether(dst="02:00:00:00:00:01") / packet).hex()).stdout.strip()
    assert framed == shown, "an Ethernet frame in hex is recognized"


def test_the_packets_are_named_by_what_is_inside():
    assert "RSIP REGISTER_REQUEST" in run("decode", bytes(PACKETS["rsip"]).hex()).stdout
    line = run("decode", "--lines", bytes(PACKETS["ipip"]).hex()).stdout
    assert line.index("10.0.0.4") < line.index("149.112.240.55") < line.index("TCP 10000 > 80")


@pytest.mark.parametrize(
    "vector",
    VECTORS["messages"] if isinstance(VECTORS, dict) else VECTORS,
    ids=lambda each: str(each.get("id", each.get("name"))),
)
def test_every_vector_is_a_message_without_fault(vector):
    octets = next(value for key, value in vector.items() if key in ("hex", "bytes", "octets"))
    layer = answer("decode", octets)
    assert layer["layer"] == "rsip"
    assert "error" not in layer


def test_a_raw_file_is_one_packet(tmp_path):
    file = tmp_path / "packet.bin"
    file.write_bytes(bytes(PACKETS["tcp"]) + b"\xff")
    assert answer("decode", file)["layer"] == "ipv4"


def test_a_capture_that_is_cut_off_is_shown_as_far_as_it_goes(tmp_path):
    whole = io.BytesIO()
    writer = pcapng.CaptureWriter(whole)
    writer.add_interface()
    for _ in range(2):
        writer.write(pcapng.Frame(octets=bytes(PACKETS["tcp"]), time_ns=1_800_000_000_000_000_001))
    file = tmp_path / "cut.pcapng"
    file.write_bytes(whole.getvalue()[:-10])
    result = run("decode", file)
    assert result.exit_code == 2
    assert "1 2027-01-15T08:00:00.000000001Z IP 10.0.0.4 > 10.0.0.1" in result.stdout
    assert "damaged after packet 1" in result.stderr


def test_frames_without_ip_are_said_to_be_so(tmp_path):
    file = tmp_path / "arp.pcap"
    wrpcap(str(file), [Ether(type=0x806) / Raw(b"\0" * 28)])
    assert "no IP packet" in run("decode", file).stdout
    assert answer("decode", file)["error"].startswith("no IP packet")


def test_what_is_neither_a_file_nor_hex_is_refused():
    assert "no file that there is, and no octets in hex" in refused("decode", "capture.pcap")
    assert "nothing to decode" in refused("decode", "-", stdin="")


def test_a_directory_is_refused(tmp_path):
    assert str(tmp_path) in refused("decode", tmp_path)


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    file = tmp_path / "many"
    file.write_text(f"{REGISTER}\n\n" * 20000)
    with started("decode", file) as program:
        program.stdout.readline()
        program.stdout.close()
        said = program.stderr.read()
        assert program.wait(timeout=60) == 0, said
    assert b"Traceback" not in said
    assert b"BrokenPipe" not in said


@given(st.binary(max_size=200))
def test_any_octets_are_shown(octets):
    item = decode.Item(octets=octets)
    assert decode.describe(item)["layer"]
    for as_tree in (True, False):
        assert decode._shown(1, item, as_tree=as_tree)


@given(
    st.sampled_from(list(PACKETS)),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=4),
    st.integers(0, 90),
)
def test_damaged_packets_are_shown(name, changes, length):
    octets = bytearray(bytes(PACKETS[name]))
    for at, value in changes:
        octets[at % len(octets)] = value
    item = decode.Item(octets=bytes(octets[:length]))
    assert decode.describe(item)["layer"]
    assert decode._shown(1, item, as_tree=True)


@given(
    st.binary(max_size=300),
    st.sampled_from(sorted(decode._CAPTURE_MAGIC)),
    st.integers(0, 300),
    st.integers(0, 1 << 66),
)
def test_any_capture_is_shown_or_refused(octets, magic, link_type, time_ns):
    try:
        items = list(decode.items_of(magic + octets))
    except decode.WireError:
        return
    items.append(decode.Item(octets=octets, time_ns=time_ns, frame=pcapng.Frame(octets=octets, link_type=link_type)))
    for item in items:
        assert decode._shown(1, item, as_tree=False)


@given(st.text(max_size=60))
def test_any_words_are_hex_or_not(words):
    found = decode.from_hex(words)
    assert found is None or all(found)


def test_examples_in_the_tour_decode():
    tour = (Path(ROOT) / "docs" / "tour.md").read_text()
    commands = [line.strip() for line in tour.splitlines() if line.strip().startswith('isthmus decode "01')]
    assert commands
    for command in commands:
        assert "error" not in answer("decode", command.partition('"')[2].strip('"'))


SIP_PACKET = next(
    hop["hex"]
    for scenario in json.loads((ROOT / "tests" / "vectors" / "ipae.json").read_text())["scenarios_tcp"]
    for hop in scenario["hops"]
    if hop["stack"][0]["header"] == "SIP"
)


def test_version_6_under_the_ethertype_of_ipv4_is_sip(tmp_path):
    capture = tmp_path / "sip.pcap"
    octets = bytes.fromhex(SIP_PACKET)
    wrpcap(
        str(capture), [Ether(dst="02:00:00:00:00:01", type=kind) / Raw(octets + bytes(5)) for kind in (0x0800, 0x86DD)]
    )
    simple, ipv6 = run("decode", capture).stdout.strip().splitlines()
    assert "SIP 1.213.77.5/192.3.4.1 > 1.2.2.8/201.5.7.250 TCP hlim 61 | TCP 49152 > 7" in simple
    assert "ipv6 [IPv6 packet" in ipv6
    framed = bytes(Ether(dst="02:00:00:00:00:01", type=0x0800) / Raw(octets)).hex()
    assert run("decode", SIP_PACKET).stdout == run("decode", framed).stdout
    assert answer("decode", SIP_PACKET)["payload"]["checksum_fits"] == ["full"]


def test_the_order_of_the_sip_header_is_told_not_guessed():
    octets = bytearray(bytes.fromhex(SIP_PACKET))
    octets[6:8] = octets[7], octets[6]
    assert "hlim 61" in run("decode", "--header-order", "seed", bytes(octets).hex()).stdout
    assert "hlim 6\n" in run("decode", bytes(octets).hex()).stdout
