# SPDX-License-Identifier: BSD-3-Clause
"""SIP for programs that use IPv6 and IPv4 sockets: whatever their kernels write is right (spec 8; vectors/ipae.json)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.border.crossing import Native, Translate
from isthmus.border.realm import End
from isthmus.border.verdict import Drop, Forward, Reason, Reply
from isthmus.checksum import PseudoHeader, checksum, pseudo_header
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.ipv6 import Ipv6Header, Ipv6View
from isthmus.wire.sip.header import SipView
from isthmus.wire.sip.pseudo import fits, transport_rule
from isthmus.wire.sip.pseudo import transport_checksum as sip_checksum
from isthmus.wire.transport import emit_udp, transport_checksum
from plane.sip_nodes import FAR, LINK, NOW, O_SITE, PC, PF, SIP, SITE, SOCKETS, System, ip, sip

ROWS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())["mapping"]
ADDRESSES = st.builds(
    lambda c, above, below: Address(sip("1.1.1.1/1.1.1.1").family, c << 63 | above << 32 | below),
    st.booleans(),
    st.integers(0x01000000, 0x7EFFFFFF),
    st.integers(0x01000000, 0x7E000000),
)


def host(address: str) -> System:
    """A host with a link of SIP for everything."""
    made = System(nodes=(address,)).sockets(address)
    for prefix in ("0000:0000:0000:0000/1", "8000:0000:0000:0000/1"):
        made.bind(SIP, Prefix.parse_sip(prefix), Native(realm=LINK))
    return made


def sent(node: str, src: Address, dst: Address, segment: bytes, number: int) -> bytes:
    """The SIP packet that a program's IPv6 packet becomes."""
    header = Ipv6Header(payload_length=len(segment), next_header=number, hop_limit=64, src=src, dst=dst)
    verdict = host(node).plane().process(SOCKETS, header.emit() + segment, now=NOW)
    assert isinstance(verdict, Forward), verdict
    return verdict.packets[0]


@pytest.mark.rfc("ipae", "4.5.1")
@pytest.mark.parametrize(
    "row", ROWS["ipv6_socket_rows"], ids=lambda row: f"{row['src_sip']} {row['dst_sip']} {row['transport']}"
)
def test_the_rows_of_the_vectors(row: dict[str, Any]) -> None:
    number = 6 if row["transport"] == "TCP" else 17
    src, dst = ip(row["src_v6"]), ip(row["dst_v6"])
    segment = bytearray(
        struct.pack("!HHIIBBHHH", 49152, 7, 1, 2, 0x50, 24, 8192, 0, 0)
        if number == 6
        else struct.pack("!HHHH", 49152, 7, 13, 0)
    )
    segment += b"hello"
    place = 16 if number == 6 else 6
    found = transport_checksum(src=src, dst=dst, protocol=number, octets=bytes(segment))
    segment[place : place + 2] = found.to_bytes(2, "big")
    view = SipView.parse(sent(row["src_sip"], src, dst, bytes(segment), number))
    assert (str(view.src), str(view.dst)) == (row["src_sip"], row["dst_sip"])
    rule = PseudoHeader.FULL if row["rule"] == "full" else PseudoHeader.COMPATIBLE
    assert transport_rule(view.src, view.dst) is rule
    assert bytes(view.payload) == bytes(segment)
    assert fits(rule, src=view.src, dst=view.dst, payload_type=number, octets=view.payload)


@pytest.mark.rfc("ipae", "8.3")
@pytest.mark.parametrize("row", ROWS["ipv4_alias_rows"], ids=lambda row: row["peer"])
def test_an_ipv4_socket_that_knows_an_alias(row: dict[str, Any]) -> None:
    peer, alias = sip(row["peer"]), ip(row["alias"])
    system = System(site=O_SITE).gateway(O_SITE).native([row["peer"].split("/")[0]], FAR, "128.1.1.9")
    system.bind(SITE, Prefix.of(alias), Translate(realm=SIP, image=Prefix.of(peer)))
    datagram = emit_udp(src=ip("192.3.4.1"), dst=alias, src_port=5000, dst_port=7, payload=b"hello")
    header = Ipv4Header(src=ip("192.3.4.1"), dst=alias, protocol=17, df=True, total_length=20 + len(datagram))
    verdict = system.plane().process(SITE, header.emit() + datagram, now=NOW)
    assert isinstance(verdict, Forward)
    view = SipView.parse(verdict.packets[0])
    assert view.dst == peer
    assert fits(transport_rule(view.src, view.dst), src=view.src, dst=view.dst, payload_type=17, octets=view.payload)


@pytest.mark.rfc("ipae", "8.3")
def test_an_alias_of_the_wrong_residue_fails_as_it_should() -> None:
    peer, alias = sip("1.2.2.8/201.5.7.250"), ip("100.64.108.192")
    system = System(site=O_SITE).gateway(O_SITE).native(["1.2.2.8"], FAR, "128.1.1.9")
    system.bind(SITE, Prefix.of(alias), Translate(realm=SIP, image=Prefix.of(peer)))
    datagram = emit_udp(src=ip("192.3.4.1"), dst=alias, src_port=5000, dst_port=7, payload=b"hello")
    header = Ipv4Header(src=ip("192.3.4.1"), dst=alias, protocol=17, df=True, total_length=20 + len(datagram))
    verdict = system.plane().process(SITE, header.emit() + datagram, now=NOW)
    assert isinstance(verdict, Forward)
    view = SipView.parse(verdict.packets[0])
    rule = transport_rule(view.src, view.dst)
    assert not fits(rule, src=view.src, dst=view.dst, payload_type=17, octets=view.payload)


@pytest.mark.rfc("ipae", "4.5.1")
@given(peer=ADDRESSES, payload=st.binary(max_size=300), zero=st.booleans())
def test_what_comes_to_a_program_has_a_right_checksum_in_ipv6(*, peer: Address, payload: bytes, zero: bool) -> None:
    node = sip(f"{O_SITE}/192.3.4.1")
    rule = transport_rule(peer, node)
    octets = bytearray(struct.pack("!HHHH", 7, 5000, 8 + len(payload), 0) + payload)
    if not zero:
        octets[6:8] = sip_checksum(rule, src=peer, dst=node, payload_type=17, octets=octets).to_bytes(2, "big")
    packet = struct.pack("!IHBB", 6 << 28, len(octets), 17, 9) + peer.octets + node.octets + octets
    verdict = host(str(node)).plane().process(SIP, packet, now=NOW, link=LINK)
    assert isinstance(verdict, Forward), verdict
    view = Ipv6View.parse(verdict.packets[0])
    assert view.hop_limit == 9
    assert checksum(view.payload, pseudo_header(view.src.octets, view.dst.octets, 17, len(octets))) == 0
    assert zero or bytes(view.payload) == bytes(octets)
    # And back: what the program answers with has its ends the other way round.
    answer = emit_udp(src=view.dst, dst=view.src, src_port=5000, dst_port=7, payload=payload)
    back = SipView.parse(sent(str(node), view.dst, view.src, answer, 17))
    assert (back.src, back.dst) == (node, peer)
    assert fits(rule, src=node, dst=peer, payload_type=17, octets=back.payload)


@pytest.mark.rfc("8507", "8.1")
@given(peer=ADDRESSES, body=st.binary(max_size=100))
def test_an_echo_of_a_program_is_right_on_both_sides(*, peer: Address, body: bytes) -> None:
    node = sip(f"{O_SITE}/192.3.4.1")
    compatible = peer.c_bit
    image = Translate(realm=SOCKETS, image=PF, compatible=PC)
    ends = image.image_of(node, compatible=compatible), image.image_of(peer, compatible=compatible)
    message = bytearray(b"\x80\0\0\0\0\7\0\1" + body)
    sums = pseudo_header(ends[0].octets, ends[1].octets, 58, len(message))
    message[2:4] = checksum(message, sums).to_bytes(2, "big")
    view = SipView.parse(sent(str(node), *ends, bytes(message), 58))
    assert view.payload_type == 1
    assert fits(PseudoHeader.FULL, src=node, dst=peer, payload_type=1, octets=view.payload)


@pytest.mark.rfc("ipae", "6.1")
def test_a_program_is_told_only_so_often() -> None:
    plane = System(nodes=(f"{O_SITE}/192.3.4.1",)).sockets(f"{O_SITE}/192.3.4.1").plane()
    segment = struct.pack("!HHHH", 1, 2, 8, 0)
    image = Translate(realm=SOCKETS, image=PF)
    ends = image.image_of(sip(f"{O_SITE}/192.3.4.1")), image.image_of(sip("9.9.9.9/9.9.9.9"))
    header = Ipv6Header(payload_length=8, next_header=17, src=ends[0], dst=ends[1])
    verdicts = [plane.process(SOCKETS, header.emit() + segment, now=NOW) for _ in range(12)]
    assert [type(each) for each in verdicts] == [Reply] * 10 + [Drop] * 2
    assert plane.counters()[Reason.RELAY_LIMIT] == 2


@pytest.mark.rfc("ipae", "6.1")
def test_ipv4_sockets_of_a_device_send_without_a_hop() -> None:
    """A host whose programs use IPv4 sockets and aliases: it is its own gateway."""
    node = sip("1.213.77.5/192.3.4.1")
    system = System(nodes=(str(node),), realms={SITE: {"end": End.HOST, "site": None, "sip": None}})
    system.native(["1.2.2.8"], LINK, None)
    system.bind(
        SITE, Prefix.parse("100.64.108.191/32"), Translate(realm=SIP, image=Prefix.of(sip("1.2.2.8/201.5.7.250")))
    )
    device = Translate(realm=SITE, image=Prefix.of(ip("192.3.4.1")))
    system.bind(SIP, Prefix.of(node), device, device="sip0p")
    datagram = emit_udp(src=ip("192.3.4.1"), dst=ip("100.64.108.191"), src_port=5000, dst_port=7, payload=b"")
    header = Ipv4Header(src=ip("192.3.4.1"), dst=ip("100.64.108.191"), protocol=17, df=True, ttl=1, total_length=28)
    plane = system.plane()
    verdict = plane.process(SITE, header.emit() + datagram, now=NOW, device="sip0p")
    assert isinstance(verdict, Forward)
    view = SipView.parse(verdict.packets[0])
    assert (view.src, view.hop_limit) == (node, 1)
    packet = bytearray(verdict.packets[0])
    packet[8:16], packet[16:24] = packet[16:24], packet[8:16]
    back = plane.process(SIP, bytes(packet), now=NOW, link=LINK)
    assert isinstance(back, Forward)
    assert (back.device, str(Ipv4View.parse(back.packets[0]).src)) == ("sip0p", "100.64.108.191")
