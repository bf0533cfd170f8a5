# SPDX-License-Identifier: BSD-3-Clause
"""Descriptions of packets: right for good ones, and never an exception for any."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.wire import gre, icmp, text
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.ipv6 import Ipv6Header
from isthmus.wire.rsip.message import emit
from isthmus.wire.slp import message as slp
from isthmus.wire.transport import Protocol, TcpFlag, TcpHeader, emit_udp
from wire.samples import LAVISH, VECTORS
from wire.strategies import messages, unhurried

A, B = Address.parse("10.0.0.1"), Address.parse("192.0.2.7")


def ipv4(protocol: int, payload: bytes, **fields: int) -> bytes:
    return Ipv4Header(total_length=20 + len(payload), protocol=protocol, src=A, dst=B, **fields).emit() + payload


def udp(payload: bytes, dst_port: int = 53) -> bytes:
    return ipv4(Protocol.UDP, emit_udp(src=A, dst=B, src_port=40001, dst_port=dst_port, payload=payload))


SYN = ipv4(Protocol.TCP, TcpHeader(src_port=1, dst_port=2, sequence=3, flags=TcpFlag.SYN, options=bytes(4)).emit())


@pytest.mark.parametrize(
    ("packet", "line"),
    [
        (udp(b"abc"), "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 | UDP 40001 > 53 length 3 | 3 octets"),
        (SYN, "IP 10.0.0.1 > 192.0.2.7 TCP ttl 64 | TCP 1 > 2 SYN seq 3"),
        (
            ipv4(Protocol.IPIP, udp(b"")),
            "IP 10.0.0.1 > 192.0.2.7 IPIP ttl 64 | IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 | UDP 40001 > 53 length 0",
        ),
        (
            ipv4(Protocol.GRE, gre.emit(0x0800, SYN, with_checksum=True), df=True),
            "IP 10.0.0.1 > 192.0.2.7 GRE ttl 64 DF | GRE 0x0800 | IP 10.0.0.1 > 192.0.2.7 TCP ttl 64 | TCP 1 > 2 SYN seq 3",
        ),
        (
            ipv4(Protocol.ICMP, icmp.fragmentation_needed(udp(bytes(1400)), 1480)),
            (
                "IP 10.0.0.1 > 192.0.2.7 ICMP ttl 64 | ICMP DESTINATION_UNREACHABLE code 4 mtu 1480 | "
                "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 | UDP 40001 > 53 length 1400 | 520 octets"
            ),
        ),
        (
            ipv4(Protocol.ICMP, bytes.fromhex("0800000000050001")),
            "IP 10.0.0.1 > 192.0.2.7 ICMP ttl 64 | ICMP ECHO code 0 id 5 seq 1",
        ),
        (ipv4(50, bytes.fromhex("1234567800000001")), "IP 10.0.0.1 > 192.0.2.7 ESP ttl 64 | ESP spi 0x12345678"),
        (ipv4(50, b"\1"), "IP 10.0.0.1 > 192.0.2.7 ESP ttl 64 | ESP spi cut short"),
        (
            udp(bytes.fromhex("0101010101010101 0000000000000000 21202208 00000000 0000001c"), dst_port=500),
            (
                "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 | UDP 40001 > 500 length 28 | "
                "IKE v2 IKE_SA_INIT cookies 0101010101010101:0000000000000000"
            ),
        ),
        (
            udp(slp.emit(slp.Message(xid=7, body=slp.SrvRqst(service_type="service:rsip"))), dst_port=427),
            (
                "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 | UDP 40001 > 427 length 38 | "
                "SLP SRV_RQST xid 7 service_type service:rsip"
            ),
        ),
        (udp(b"abc", dst_port=500), "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 | UDP 40001 > 500 length 3 | ike [IKE header at octet 0: needs 28 octets, 3 left]"),
        (
            ipv4(2, bytes.fromhex("1600f8faef010203")),
            "IP 10.0.0.1 > 192.0.2.7 2 ttl 64 | IGMP type 0x16 join 239.1.2.3",
        ),
        (ipv4(132, b"12"), "IP 10.0.0.1 > 192.0.2.7 132 ttl 64 | 2 octets"),
        (ipv4(17, b"12345678", mf=True, fragment_offset=2), "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64 frag 16+ | 8 octets"),
        (ipv4(6, b"", header_checksum=1), "IP 10.0.0.1 > 192.0.2.7 TCP ttl 64 bad checksum | tcp [TCP header at octet 0: needs 20 octets, 0 left]"),
        (b"", "octets [IP version None]"),
        (b"\x45\0", "ipv4 [IPv4 header at octet 0: needs 20 octets, 2 left]"),
    ],
)  # fmt: skip
def test_one_line(packet: bytes, line: str) -> None:
    assert text.line(packet) == line


def test_ipv4_in_ipv6() -> None:
    src, dst = Address.parse("2001:db8::1"), Address.parse("2001:db8::2")
    packet = Ipv6Header(payload_length=len(SYN), next_header=4, src=src, dst=dst).emit() + SYN
    assert text.line(packet).startswith("IP6 2001:db8::1 > 2001:db8::2 IPIP hlim 64 | IP 10.0.0.1 > ")


@pytest.mark.rfc("3103", "12")
def test_rsip_is_recognised_by_its_port() -> None:
    line = text.line(udp(VECTORS["E8"], dst_port=4555))
    assert line.endswith(
        "RSIP ASSIGN_RESPONSE_RSAP_IP client id 5, bind id 1, address 149.112.240.156, ports 2049, "
        "address 38.196.73.6, ports 21, lease time 600, tunnel type IP_IP, address 10.0.0.2, message counter 2"
    )
    assert "RSIP" not in text.line(udp(VECTORS["E8"]))
    segment = TcpHeader(src_port=4555, dst_port=9, sequence=0, flags=TcpFlag.ACK).emit() + VECTORS["E1"]
    assert text.line(ipv4(Protocol.TCP, segment)).endswith("RSIP REGISTER_REQUEST")


def test_a_message_that_is_wrong_is_shown_with_the_fault() -> None:
    assert text.rsip_line(bytes.fromhex("01040004")) == (
        "RSIP DE_REGISTER_REQUEST [MISSING_PARAM: client_id at octet 4: required ClientId is absent]"
    )
    assert "unknown type 13 aa" in text.rsip_line(bytes.fromhex("010200080d0001aa"))
    assert "[BAD_MESSAGE" in text.rsip_line(b"")
    assert "[ILLEGAL_MESSAGE" in text.rsip_line(bytes.fromhex("01120004"))


def test_the_tree_indents_layers() -> None:
    lines = text.tree(udp(VECTORS["E19"], dst_port=4555)).splitlines()
    assert lines[0] == "IP 10.0.0.1 > 192.0.2.7 UDP ttl 64"
    assert "  ttl: 64" in lines
    assert "  UDP 40001 > 4555 length 23" in lines
    assert "    RSIP ERROR_RESPONSE" in lines
    assert lines[-3:] == [
        "      error: 314 REMOTE_ADDR_UNALLOWED",
        "      message_counter: 2",
        "      client_id: 3",
    ]
    assert text.rsip_tree(VECTORS["E28"]).splitlines()[-1] == "  vendor_specific: vendor 241 subtype 1 deadbeef"


def test_a_dictionary_is_json() -> None:
    described = json.loads(json.dumps(text.to_dict(udp(VECTORS["E15"], dst_port=4555))))
    rsip = described["payload"]["payload"]
    assert (described["layer"], described["src"], rsip["layer"], rsip["type"]) == (
        "ipv4",
        "10.0.0.1",
        "rsip",
        "QUERY_REQUEST",
    )
    assert rsip["parameters"][0] == {"parameter": "client_id", "text": "1", "value": "00000001"}


def test_endless_nesting_ends() -> None:
    packet = SYN
    for _ in range(200):
        packet = ipv4(Protocol.IPIP, packet)
    assert text.line(packet).count(" | ") < 12


@pytest.mark.parametrize("octets", [*VECTORS.values(), *map(emit, LAVISH.values())])
def test_every_message_can_be_described(octets: bytes) -> None:
    assert "error" not in {key for key in text.rsip_to_dict(octets) if key != "parameters"}
    assert text.rsip_tree(octets)


def _all(octets: bytes) -> None:
    json.dumps(text.to_dict(octets))
    json.dumps(text.rsip_to_dict(octets))
    for describe in (text.line, text.tree, text.rsip_line, text.rsip_tree):
        assert isinstance(describe(octets), str)


@unhurried
@given(st.binary(max_size=120))
def test_nothing_raises_for_any_octets(octets: bytes) -> None:
    _all(octets)
    _all(b"\x45" + octets)
    for protocol in (1, 4, 6, 17, 41, 47, 50, 51):
        _all(ipv4(protocol, octets))
    _all(udp(octets, dst_port=4555))


@unhurried
@given(messages)
def test_nothing_raises_for_any_message(message: object) -> None:
    _all(udp(emit(message), dst_port=4555))
