# SPDX-License-Identifier: BSD-3-Clause
"""Packets of the vectors at the hosts that they are for: format, checksum rule, connection, and quotes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.checksum import PseudoHeader
from isthmus.errors import Malformed, WireError
from isthmus.ipae.addressing import Format
from isthmus.ipae.connection import Connection, ConnectionTable, Heard, Hint, Listener
from isthmus.ipae.reception import read_quote, receive
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.sip.header import SipHeader
from isthmus.wire.sip.option import Fragmentation, SourceRoute
from isthmus.wire.sip.pseudo import transport_checksum

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())
TCP, UDP = 6, 17
O, D = Address.parse_sip("1.213.77.5/192.3.4.1"), Address.parse_sip("1.2.2.8/201.5.7.250")  # noqa: E741
FORMATS = {("IPv4",): Format.IPV4, ("IPv4", "SIP"): Format.IPAE, ("SIP",): Format.SIP}


def delivered():
    for row in VECTORS["scenarios_tcp"] + VECTORS["scenarios_udp"]:
        yield pytest.param(row, row["hops"][-1], id=f"{row['scenario']} {row['transport']}")


def host_of(row):
    """Who receives: D, or O in the reverse of 3.4.5."""
    address = Address.parse_sip(row["dst_sip"]).with_c_bit(c_bit=False)
    table = ConnectionTable([address])
    for protocol in (TCP, UDP):
        for port in (7, 49152):
            table.listen(Listener(protocol=protocol, local=None, port=port))
    return table


@pytest.mark.parametrize(("row", "hop"), list(delivered()))
class TestDelivered:
    @pytest.mark.rfc("ipae", "4.2")
    @pytest.mark.rfc("ipae", "5.3")
    def test_format_hop_limit_and_checksum(self, row, hop):
        got = receive(bytes.fromhex(hop["hex"]))
        headers = tuple(each["header"] for each in hop["stack"] if each["header"] not in ("TCP", "UDP"))
        assert got.packet_format is FORMATS[headers]
        assert got.hop_limit == row["hop_limit_or_ttl_delivered"]
        assert got.transport == bytes.fromhex(row["transport_segment"])
        assert got.checksum_fits

    @pytest.mark.rfc("ipae", "4.5")
    def test_a_connection_is_accepted_found_and_quoted(self, row, hop):
        octets = bytes.fromhex(hop["hex"])
        table, segment = host_of(row), receive(octets).segment()
        assert isinstance(table.lookup(segment), Heard)
        connection = table.accept(segment)
        assert table.received(segment) is connection
        assert connection.compatible == (row["rule_used_by_receiver"] != "full")
        # An error about our answer quotes the addresses the other way round; this quotes the very packet.
        sender = ConnectionTable([connection.remote])
        quote = read_quote(octets)
        ours = sender.open(
            protocol=quote.protocol,
            local=connection.remote,
            local_port=connection.remote_port,
            remote=connection.local,
            remote_port=connection.local_port,
            packet_format=quote.packet_format,
        )
        assert sender.quoted(quote) is ours

    def test_one_wrong_octet_does_not_fit(self, row, hop):
        octets = bytearray.fromhex(hop["hex"])
        octets[-1] ^= 1
        assert not receive(bytes(octets)).checksum_fits


def test_every_format_of_one_ipv4_peer_finds_its_connection():
    """3.4.1 arrives as IPv4, 3.4.3 in IPAE, 3.4.5 as SIP: one peer, one connection."""
    rows = {row["scenario"].split()[0]: row["hops"][-1]["hex"] for row in VECTORS["scenarios_tcp"]}
    table = ConnectionTable([D])
    connection = table.accept(receive(bytes.fromhex(rows["3.4.5"])).segment())
    for scenario in ("3.4.1", "3.4.3", "3.4.5"):
        assert table.received(receive(bytes.fromhex(rows[scenario])).segment()) is connection
    assert isinstance(connection, Connection)
    assert connection.remote == O.with_c_bit(c_bit=True)


class TestQuotes:
    def test_the_eight_octets_of_rfc_792_say_nothing_of_an_ipae_datagram(self):
        datagram = bytes.fromhex(VECTORS["icmp_relay"]["rfc792_quote_8"]["icmp_datagram"])
        assert read_quote(datagram[28:]) is None

    def test_a_relayed_error_is_about_our_connection(self):
        message = bytes.fromhex(VECTORS["icmp_relay"]["relayed_sip_icmp"]["hex"])
        quote = read_quote(message[32:])
        assert (quote.packet_format, quote.source, quote.destination, quote.ports) == (Format.SIP, O, D, (49152, 7))
        table = ConnectionTable([O])
        connection = table.open(
            protocol=TCP, local=O, local_port=49152, remote=D, remote_port=7, packet_format=Format.IPAE
        )
        assert table.quoted(quote) is connection

    def test_an_error_of_an_ip_only_router_quotes_our_own_ipae_datagram(self):
        row = next(row for row in VECTORS["scenarios_tcp"] if row["scenario"].startswith("3.4.2"))
        quote = read_quote(bytes.fromhex(row["hops"][0]["hex"])[: 20 + 24 + 8])
        assert (quote.packet_format, quote.destination, quote.ports) == (Format.IPAE, D, (49152, 7))

    def test_a_quote_that_ends_with_the_addresses_is_a_hint(self):
        row = next(row for row in VECTORS["scenarios_tcp"] if row["scenario"].startswith("3.4.4"))
        quote = read_quote(bytes.fromhex(row["hops"][-1]["hex"])[:24])
        table = ConnectionTable([O])
        connection = table.open(
            protocol=TCP, local=O, local_port=49152, remote=D, remote_port=7, packet_format=Format.SIP
        )
        assert table.quoted(quote) == Hint(connections=(connection,))

    def test_a_source_routed_one_is_about_the_final_destination(self):
        stop = Address.parse_sip("1.2.2.8/10.0.0.3")
        route = SourceRoute(addresses=(D,), payload_type=TCP).emit()
        segment = bytes.fromhex("c0000007") + bytes(16)
        header = SipHeader(src=O, dst=stop, payload_type=43, hop_limit=9, payload_length=len(route + segment)).emit()
        quote = read_quote(header + route + segment)
        assert (quote.destination, quote.ports) == (D, (49152, 7))

    @given(st.binary(max_size=80))
    def test_anything_may_stand_in_a_quote(self, octets):
        read_quote(octets)
        read_quote(b"\x60" + octets)
        read_quote(b"\x45" + octets)


class TestRefused:
    def sip(self, payload, payload_type=TCP, src=O):
        return SipHeader(
            src=src, dst=D, payload_type=payload_type, hop_limit=9, payload_length=len(payload)
        ).emit() + payload  # fmt: skip

    def test_a_wrong_header_checksum(self):
        octets = bytearray.fromhex(VECTORS["scenarios_tcp"][0]["hops"][0]["hex"])
        octets[10] ^= 1
        with pytest.raises(Malformed, match="Header Checksum"):
            receive(bytes(octets))

    def test_parts_of_packets(self):
        part = Fragmentation(identification=1, more=True, payload_type=TCP).emit() + bytes(8)
        with pytest.raises(Malformed, match="part"):
            receive(self.sip(part, 44))
        ipv4 = Ipv4Header(src=O.low, dst=D.low, protocol=TCP, ttl=9, mf=True, total_length=28).emit() + bytes(8)
        with pytest.raises(Malformed, match="part"):
            receive(ipv4)

    def test_other_versions_and_nothing(self):
        for octets in (b"", b"\x50" + bytes(40)):
            with pytest.raises(WireError):
                receive(octets)

    @pytest.mark.parametrize(("src", "taken"), [(O, False), (O.with_c_bit(c_bit=True), True)])
    def test_udp_without_checksum_comes_from_ipv4_hosts_only(self, src, taken):
        datagram = bytes.fromhex("c00000070009000061")
        assert receive(self.sip(datagram, UDP, src)).checksum_fits is taken

    def test_a_checksum_by_the_wrong_rule(self):
        segment = bytearray(bytes.fromhex("c0000007010203040506070850180200") + bytes(4))
        wrong = transport_checksum(PseudoHeader.COMPATIBLE, src=O, dst=D, payload_type=TCP, octets=bytes(segment))
        segment[16:18] = wrong.to_bytes(2, "big")
        assert not receive(self.sip(bytes(segment))).checksum_fits

    def test_a_transport_without_ports_is_no_segment(self):
        assert receive(self.sip(bytes(8), 1)).segment() is None
