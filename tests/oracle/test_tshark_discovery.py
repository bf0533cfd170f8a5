# SPDX-License-Identifier: BSD-3-Clause
"""tshark's srvloc and dhcp dissectors read what we write, and find in it what we meant."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isthmus.address import Address
from isthmus.daemon.discovery.template import Offer, predicate
from isthmus.wire import dhcp
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.pcapng import CaptureWriter, Frame
from isthmus.wire.slp import attribute
from isthmus.wire.slp.codes import PORT, Flag
from isthmus.wire.slp.message import AttrRply, Message, SrvRply, SrvRqst, UrlEntry, emit
from isthmus.wire.transport import Protocol, emit_udp
from wire.test_slp import SAMPLES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

HERE, THERE = Address.parse("10.0.0.4"), Address.parse("10.0.0.1")
URL = "service:rsip://10.0.0.1:4455"
# Extensions are left out: tshark 4.0 does not look at them.
MESSAGES = {name: replace(message, extensions=()) for name, message in SAMPLES.items()}


def tshark(path: Path, *fields: str, ports: tuple[int, int], octets: list[bytes]) -> list[list[str]]:
    """Write datagrams and let tshark read them: one row each, one cell for each field."""
    with path.open("wb") as file:
        writer = CaptureWriter(file)
        writer.add_interface()
        for number, each in enumerate(octets):
            datagram = emit_udp(src=HERE, dst=THERE, src_port=ports[0], dst_port=ports[1], payload=each)
            header = Ipv4Header(total_length=20 + len(datagram), protocol=Protocol.UDP, src=HERE, dst=THERE)
            writer.write(Frame(octets=header.emit() + datagram, time_ns=number * 10**6))
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=\t", "-E", "occurrence=a", "-E", "aggregator=|"]  # fmt: skip
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def slp(path: Path, *fields: str, messages: list[Message]) -> list[list[str]]:
    return tshark(path, *fields, ports=(40000, PORT), octets=[emit(each) for each in messages])


def test_tshark_finds_every_header_and_no_fault(tmp_path: Path) -> None:
    fields = ("srvloc.version", "srvloc.function", "srvloc.pktlen", "srvloc.xid", "srvloc.langtag", "_ws.malformed")
    rows = slp(tmp_path / "slp.pcapng", *fields, messages=list(MESSAGES.values()))
    for message, row in zip(MESSAGES.values(), rows, strict=True):
        expected = [2, int(message.body.function), len(emit(message)), message.xid]
        assert [int(cell) for cell in row[:4]] == expected, message
        assert row[4:] == [message.language, ""], message


@pytest.mark.rfc("3105", "7")
def test_tshark_reads_the_question_for_an_rsip_server(tmp_path: Path) -> None:
    wanted = predicate(tunnel_types=("IP-IP", "GRE"), transport="UDP", ipsec=True)
    request = SrvRqst(
        service_type="service:rsip", scopes=("A", "B"), predicate=wanted, previous_responders=("10.0.0.1",)
    )
    asked = ("prlist", "srvtypelist", "scopelist", "predicate")
    (row,) = slp(
        tmp_path / "slp.pcapng",
        *(f"srvloc.srvreq.{each}" for each in asked),
        "srvloc.flags_v2.reqmulti",
        "srvloc.flags_v2.fresh",
        messages=[Message(xid=1, body=request, flags=Flag.REQUEST_MCAST)],
    )
    assert row[:4] == ["10.0.0.1", "service:rsip", "A,B", wanted]
    assert [cell.lower() in ("1", "true") for cell in row[4:]] == [True, False]


@pytest.mark.rfc("3105", "4")
def test_tshark_reads_the_url_and_the_attributes_of_an_rsip_server(tmp_path: Path) -> None:
    offered = attribute.emit(Offer(tunnel_types=("IP-IP", "GRE"), transports=("UDP", "TCP"), load=17).attributes)
    reply = Message(xid=1, body=SrvRply(urls=(UrlEntry(url=URL, lifetime=300),)))
    (found,) = slp(tmp_path / "a.pcapng", "srvloc.url.url", "srvloc.url.lifetime", "srvloc.errv2", messages=[reply])
    assert found[:2] == [URL, "300"]
    assert int(found[2], 0) == 0
    attributes = Message(xid=2, body=AttrRply(attributes=offered))
    (said,) = slp(tmp_path / "b.pcapng", "srvloc.attrrply.attrlist", messages=[attributes])
    assert said == [offered]


def test_tshark_reads_a_dhcpinform(tmp_path: Path) -> None:
    octets = dhcp.DhcpMessage.inform(xid=9, client=HERE, hardware=b"\2\0\0\0\0\1", options=(224, 78, 79)).emit()
    fields = (
        "dhcp.option.dhcp",
        "dhcp.ip.client",
        "dhcp.hw.mac_addr",
        "dhcp.option.request_list_item",
        "_ws.malformed",
    )
    (row,) = tshark(tmp_path / "d.pcapng", *fields, ports=(dhcp.CLIENT_PORT, dhcp.SERVER_PORT), octets=[octets])
    assert row == ["8", "10.0.0.4", "02:00:00:00:00:01", "224|78|79", ""]
