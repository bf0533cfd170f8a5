# SPDX-License-Identifier: BSD-3-Clause
"""tshark as a second reader of what we write; its known faults are listed here, not hidden.

Wireshark's dissector is an independent reading of RFC 3103. We compare what it found on
the wire (types, lengths, raw values), not what it makes of it; where it is wrong about
the meaning, a test says so, and fails on the day it is mended.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isthmus.address import Address
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.pcapng import CaptureWriter, Frame
from isthmus.wire.rsip import message as m
from isthmus.wire.rsip.codes import PORT, ParameterType
from isthmus.wire.rsip.parameter import MessageCounter, Spi, VendorSpecific, number_of
from isthmus.wire.transport import Protocol, emit_udp
from wire.samples import LAVISH, VECTORS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

HOST, GATEWAY = Address.parse("10.0.0.5"), Address.parse("10.0.0.1")
FIELDS = (
    "rsip.version",
    "rsip.message_type",
    "rsip.message_length",
    "rsip.parameter.type",
    "rsip.parameter.length",
    "rsip.parameter.value",
)

# Vendor Specific parameters stand in front of the counter, because of W5.
# Messages under private-use numbers are ours alone: tshark does not look into them.
_ALL = VECTORS | {
    name: m.emit(replace(message, order=(ParameterType.VENDOR_SPECIFIC,) * 2)) for name, message in LAVISH.items()
}
MESSAGES = {name: octets for name, octets in _ALL.items() if octets[1] < 241}
"What tshark must find as we wrote it, without exception; the faults below are about other messages or other fields."


def capture(path: Path, messages: list[bytes]) -> None:
    """Write each message as a UDP datagram, in the direction it has."""
    with path.open("wb") as file:
        writer = CaptureWriter(file)
        writer.add_interface()
        for number, octets in enumerate(messages):
            request = m.parse_envelope(octets, strict=False).type.is_request
            src, dst = (HOST, GATEWAY) if request else (GATEWAY, HOST)
            src_port, dst_port = (40001, PORT) if request else (PORT, 40001)
            datagram = emit_udp(src=src, dst=dst, src_port=src_port, dst_port=dst_port, payload=octets)
            header = Ipv4Header(total_length=20 + len(datagram), protocol=Protocol.UDP, src=src, dst=dst)
            writer.write(Frame(octets=header.emit() + datagram, time_ns=number * 10**6))


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """Run tshark over a capture: one row per packet, one cell per field, repeated fields joined by commas."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"]  # fmt: skip
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("|") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    path = tmp_path_factory.mktemp("tshark") / "messages.pcapng"
    capture(path, list(MESSAGES.values()))
    rows = tshark(path, *FIELDS, "_ws.malformed", "ip.checksum.status", "udp.checksum.status")
    return dict(zip(MESSAGES, rows, strict=True))


def cells(cell: str) -> list[str]:
    return cell.split(",") if cell else []


def test_there_are_all_vectors_and_all_types() -> None:
    assert len(VECTORS) == 30
    assert len(LAVISH) == 21


@pytest.mark.rfc("3103", "9")
@pytest.mark.parametrize("name", MESSAGES)
def test_tshark_finds_what_we_wrote(name: str, seen: dict[str, list[str]]) -> None:
    version, kind, length, types, lengths, values, malformed, *_ = seen[name]
    envelope = m.parse_envelope(MESSAGES[name])
    ours = [(number_of(parameter), parameter.emit().hex()) for parameter in envelope.parameters]
    assert (int(version), int(kind), int(length)) == (1, envelope.type, len(MESSAGES[name]))
    assert [int(number) for number in cells(types)] == [number for number, _ in ours]
    assert [int(number) for number in cells(lengths)] == [len(value) // 2 for _, value in ours]
    # A value without octets is no field to tshark, so it has no row.
    assert [value.replace(":", "") for value in cells(values)] == [value for _, value in ours if value]
    assert not malformed


def test_tshark_reads_the_message_from_our_capture_with_our_headers(seen: dict[str, list[str]]) -> None:
    for row in seen.values():
        ip_status, udp_status = row[-2:]
        assert ip_status in ("1", "2"), "good, or not verified by default"
        assert udp_status in ("1", "2", "3")


def _one(tmp_path: Path, octets: bytes, *fields: str) -> list[str]:
    path = tmp_path / "one.pcapng"
    capture(path, [octets])
    (row,) = tshark(path, *fields)
    return row


def test_known_fault_w4_spi_dont_care_last_is_malformed_to_tshark(tmp_path: Path) -> None:
    message = m.parse(VECTORS["E23"])
    assert isinstance(message, m.AssignRequestRsipsec)
    last = m.emit(replace(message, message_counter=None, lease_time=None))
    assert _one(tmp_path, last, "_ws.malformed") != [""]
    phantom = _one(tmp_path, VECTORS["E23"], "rsip.parameter.spi")
    assert phantom != [""], "it sees an SPI that is not there"
    assert message.spi == Spi.any_of(2)


def test_known_fault_w4_only_the_first_spi_is_shown(tmp_path: Path) -> None:
    assert len(cells(_one(tmp_path, VECTORS["E25"], "rsip.parameter.spi")[0])) == 1


def test_known_fault_w5_the_value_of_a_vendor_is_read_two_octets_too_late(tmp_path: Path) -> None:
    bare = m.emit(m.RegisterRequest(vendor=(VendorSpecific(vendor_id=241, subtype=1),)))
    assert m.parse(bare).vendor[0].value == b""
    assert _one(tmp_path, bare, "_ws.malformed") != [""], "it runs past the end"
    assert "deadbeef" not in _verbose(tmp_path, VECTORS["E28"]).split("Vendor")[-1]


def _verbose(tmp_path: Path, octets: bytes) -> str:
    path = tmp_path / "one.pcapng"
    capture(path, [octets])
    command = ["tshark", "-n", "-r", str(path), "-O", "rsip"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("fault", "name", "shown"),
    [
        ("W1: IPsec errors are numbered one too low", "E26", "Error: Unknown"),
        ("W2: method 3 is unknown", "E4", "Unknown RSIP Method"),
        ("W3: a range ends one too high", "E6", "1234 - 1238"),
        ("W9: message 23 is misspelt", "E25", "RSIPEC"),
    ],
)
def test_known_faults_of_interpretation(tmp_path: Path, fault: str, name: str, shown: str) -> None:
    assert shown.lower() in _verbose(tmp_path, VECTORS[name]).lower(), f"mended? {fault}"


def test_known_fault_w6_an_indicator_of_one_octet_is_read_as_two(tmp_path: Path) -> None:
    octets = bytes.fromhex("010e0017 04000400000001 0a000101 010005010a000001")
    message = m.parse(octets)
    assert isinstance(message, m.QueryRequest)
    assert message.tuples[0].indicator.value == 1
    assert _one(tmp_path, octets, "rsip.parameter.indicator") == ["0x0101"]


def test_known_fault_w8_tshark_is_no_judge_of_grammar(tmp_path: Path) -> None:
    swapped = m.emit_envelope(m.Envelope(type=m.FreeRequest.type, parameters=(MessageCounter(1), MessageCounter(2))))
    with pytest.raises(m.MessageError):
        m.parse(swapped)
    assert _one(tmp_path, swapped, "_ws.malformed") == [""]
