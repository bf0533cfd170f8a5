# SPDX-License-Identifier: BSD-3-Clause
"""UDP, TCP, ESP, AH and GRE, with scapy as second opinion."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE

from isthmus.address import Address
from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire import gre
from isthmus.wire.transport import (
    Protocol,
    TcpFlag,
    TcpHeader,
    UdpHeader,
    emit_udp,
    icmp_identifier,
    ports,
    spi,
    transport_checksum,
)
from wire.strategies import ipv4_addresses, tcp_headers, u16, u32, udp_headers, unhurried

DATA = st.binary(max_size=40)


def test_protocol_numbers() -> None:
    assert [int(p) for p in Protocol] == [1, 4, 6, 17, 41, 47, 50, 51, 58]


@unhurried
@given(udp_headers)
def test_any_udp_header_survives(header: UdpHeader) -> None:
    assert UdpHeader.parse(header.emit()) == header
    assert ports(Protocol.UDP, header.emit()) == (header.src_port, header.dst_port)


@unhurried
@given(tcp_headers, DATA)
def test_any_tcp_header_survives(header: TcpHeader, data: bytes) -> None:
    octets = header.emit()
    assert len(octets) == header.octets
    assert TcpHeader.parse(octets + data) == header
    assert ports(Protocol.TCP, octets) == (header.src_port, header.dst_port)


@unhurried
@given(st.binary(max_size=80))
def test_any_octets_are_a_header_or_a_wire_error(octets: bytes) -> None:
    for kind in (UdpHeader, TcpHeader, gre.GreHeader):
        try:
            header = kind.parse(octets)
        except WireError:
            continue
        again = header.emit()
        assert octets.startswith(again)


@pytest.mark.rfc("768", "0")
def test_udp_lengths_are_checked() -> None:
    with pytest.raises(Truncated):
        UdpHeader.parse(bytes(7))
    with pytest.raises(Malformed):
        UdpHeader.parse(bytes.fromhex("0001000200070000"))
    with pytest.raises(ValueError):
        UdpHeader(src_port=1, dst_port=2, length=7)
    with pytest.raises(ValueError):
        UdpHeader(src_port=1 << 16, dst_port=2, length=8)


@pytest.mark.rfc("793", "3.1")
def test_tcp_lengths_are_checked() -> None:
    octets = TcpHeader(src_port=1, dst_port=2, sequence=3, flags=TcpFlag.SYN, options=bytes(8)).emit()
    for n in range(len(octets)):
        with pytest.raises(Truncated):
            TcpHeader.parse(octets[:n])
    with pytest.raises(Malformed, match="Data Offset"):
        TcpHeader.parse(octets[:12] + b"\x40" + octets[13:])
    for wrong in ({"sequence": 1 << 32}, {"flags": 256}, {"options": b"\0"}, {"window": 1 << 16}):
        with pytest.raises(ValueError):
            TcpHeader(**{"src_port": 1, "dst_port": 2, "sequence": 3, "flags": 0} | wrong)


@pytest.mark.rfc("768", "0")
@unhurried
@given(ipv4_addresses, ipv4_addresses, u16, u16, DATA)
def test_our_udp_is_scapys(src: Address, dst: Address, sport: int, dport: int, data: bytes) -> None:
    assume(str(dst) != "0.0.0.0")
    theirs = bytes(IP(src=str(src), dst=str(dst)) / UDP(sport=sport, dport=dport) / data)[20:]
    assert emit_udp(src=src, dst=dst, src_port=sport, dst_port=dport, payload=data) == theirs


def test_udp_over_ipv6_is_scapys() -> None:
    src, dst = Address.parse("2001:db8::1"), Address.parse("2001:db8::2")
    theirs = bytes(IPv6(src=str(src), dst=str(dst)) / UDP(sport=1, dport=2) / b"data")[40:]
    assert emit_udp(src=src, dst=dst, src_port=1, dst_port=2, payload=b"data") == theirs


@pytest.mark.rfc("768", "0")
def test_a_udp_checksum_is_never_zero() -> None:
    src = dst = Address.parse("0.0.0.0")
    zero = (0xFFFF - 17 - 8 - 8).to_bytes(2, "big")
    octets = zero + bytes.fromhex("000000080000")
    assert transport_checksum(src=src, dst=dst, protocol=Protocol.UDP, octets=octets) == 0xFFFF
    tcp = (0xFFFF - 6 - 8 - 8).to_bytes(2, "big") + bytes.fromhex("000000080000")
    assert transport_checksum(src=src, dst=dst, protocol=Protocol.TCP, octets=tcp) == 0


@unhurried
@given(ipv4_addresses, u16, u16, u32, u32, st.integers(0, 255), DATA)
def test_scapys_tcp_is_read(src: Address, sport: int, dport: int, seq: int, ack: int, flags: int, data: bytes) -> None:
    segment = TCP(sport=sport, dport=dport, seq=seq, ack=ack, flags=flags, options=[("MSS", 1460), ("SAckOK", b"")])
    theirs = bytes(IP(src=str(src), dst="10.0.0.1") / segment / data)[20:]
    header = TcpHeader.parse(theirs)
    assert (header.src_port, header.dst_port, header.sequence, header.acknowledgement) == (sport, dport, seq, ack)
    assert (header.flags, header.options) == (flags, bytes.fromhex("020405b404020000"))
    assert header.emit() + data == theirs
    blank = theirs[:16] + bytes(2) + theirs[18:]
    dst = Address.parse("10.0.0.1")
    assert transport_checksum(src=src, dst=dst, protocol=Protocol.TCP, octets=blank) == header.checksum


@pytest.mark.rfc("4303", "2")
def test_spis_of_esp_and_ah() -> None:
    assert spi(Protocol.ESP, bytes(ESP(spi=0x12345678, seq=1))) == 0x12345678
    assert spi(Protocol.AH, bytes(AH(spi=0x9ABCDEF0, seq=1))) == 0x9ABCDEF0
    assert spi(Protocol.UDP, bytes(20)) is None
    assert spi(Protocol.ESP, bytes(3)) is None
    assert spi(Protocol.AH, bytes(7)) is None


def test_what_is_not_there_is_none() -> None:
    assert ports(Protocol.UDP, b"\0\1\0") is None
    assert ports(Protocol.ESP, bytes(20)) is None
    assert icmp_identifier(bytes.fromhex("0800000012340001")) == 0x1234
    assert icmp_identifier(bytes.fromhex("0000000012340001")) == 0x1234
    assert icmp_identifier(bytes.fromhex("0300000012340001")) is None
    assert icmp_identifier(bytes.fromhex("08000000123400")) is None


@pytest.mark.rfc("2784", "2.1")
@pytest.mark.parametrize("with_checksum", [False, True])
def test_gre_is_scapys(with_checksum: bool) -> None:
    inner = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"odd")
    ours = gre.emit(gre.ETHERTYPE_IPV4, inner, with_checksum=with_checksum)
    assert ours == bytes(GRE(proto=0x0800, chksum_present=int(with_checksum)) / inner)
    header = gre.GreHeader.parse(ours)
    assert (header.protocol_type, header.octets) == (0x0800, 8 if with_checksum else 4)
    assert header.emit() + inner == ours


@pytest.mark.rfc("2784", "2.3")
def test_gre_refuses_what_it_must_and_ignores_what_it_must() -> None:
    for bit in range(1, 6):
        with pytest.raises(Malformed, match="bits 1 to 5"):
            gre.GreHeader.parse((0x8000 >> bit).to_bytes(2, "big") + b"\x08\x00" + bytes(8))
    for bit in range(6, 13):
        octets = (0x8000 >> bit).to_bytes(2, "big") + b"\x08\x00"
        assert gre.GreHeader.parse(octets).emit() == octets, "ignored and kept"
    for version in range(1, 8):
        with pytest.raises(Malformed, match="Version"):
            gre.GreHeader.parse(bytes((0, version)) + b"\x08\x00")


@pytest.mark.rfc("2890", "2")
def test_gre_keys_and_sequence_numbers_are_refused() -> None:
    for options in ({"key_present": 1, "key": 5}, {"seqnum_present": 1, "sequence_number": 5}):
        with pytest.raises(Malformed):
            gre.GreHeader.parse(bytes(GRE(proto=0x0800, **options)))


@pytest.mark.rfc("2784", "2.5")
def test_a_gre_checksum_is_verified_where_it_can_be() -> None:
    octets = bytearray(gre.emit(0x0800, b"payload", with_checksum=True))
    octets[-1] ^= 1
    with pytest.raises(Malformed, match="Checksum"):
        gre.GreHeader.parse(octets)
    assert gre.GreHeader.parse(octets, verify=False).checksum is not None
    for n in (0, 3, 4, 7):
        with pytest.raises(Truncated):
            gre.GreHeader.parse(octets[:n])
    for wrong in ({"reserved1": 1}, {"checksum": 1 << 16}, {"reserved": 128}):
        with pytest.raises(ValueError):
            gre.GreHeader(**{"protocol_type": 0x0800} | wrong)
