# SPDX-License-Identifier: BSD-3-Clause
"""IPv4 to SIP and back at a gateway (seed IPAE 5.1, 5.2; spec 3.3 to 3.5; vectors/ipae.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.border.rules import Df0, IcmpPseudo, Rules
from isthmus.border.verdict import Forward, Pass, Reason, Reply
from isthmus.checksum import checksum
from isthmus.wire.icmp import IcmpMessage
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.sip.header import SipView
from isthmus.wire.sip.pseudo import fits, transport_rule
from isthmus.wire.transport import emit_udp
from plane.sip_nodes import D_HOST, D_SITE, EVERYTHING, FAR, LINK, NOW, O_HOST, O_SITE, SIP, SITE, System, ip

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())
FAR_SITE = "c1.2.2.8"


def gateway(image: str = FAR_SITE, mtu: int = 1500, **more: Any) -> System:
    """The border of O's site with a native link to the rest of the world."""
    site: dict[int, dict[str, Any]] = {FAR: {"mtu": mtu}, SITE: {"mtu": mtu}}
    made = System(site=O_SITE, ends=((SITE, "192.3.4.2"),), realms=site, **more).gateway(O_SITE)
    return made.mapping({"201.5.7.0/24": image}).native([image], FAR, "128.1.1.9")


def ipv4(payload: bytes, protocol: int = 17, src: str = O_HOST, dst: str = D_HOST, **fields: Any) -> bytes:
    """An IPv4 packet."""
    size = 20 + len(fields.get("options", b""))
    header = Ipv4Header(src=ip(src), dst=ip(dst), protocol=protocol, total_length=size + len(payload), **fields)
    return header.emit() + payload


def udp(octets: int = 20) -> bytes:
    """A UDP datagram with a payload of so many octets."""
    payload = bytes(at & 0xFF for at in range(octets))
    return emit_udp(src=ip(O_HOST), dst=ip(D_HOST), src_port=5000, dst_port=6000, payload=payload)


def out(system: System, packet: bytes, realm: int = SITE, link: int | None = None) -> list[bytes]:
    """What a packet becomes."""
    verdict = system.plane().process(realm, packet, now=NOW, link=link)
    assert isinstance(verdict, Forward), verdict
    return list(verdict.packets)


def back(packets: list[bytes]) -> list[bytes]:
    """What the gateway of the far site makes of SIP packets."""
    system = System(site=D_SITE, realms={LINK: {"site": None}}).gateway(D_SITE)
    plane = system.plane()
    made: list[bytes] = []
    for packet in packets:
        verdict = plane.process(SIP, packet, now=NOW, link=LINK)
        assert isinstance(verdict, Forward), verdict
        made += verdict.packets
    return made


# --- vectors ------------------------------------------------------------------------------


@pytest.mark.rfc("ipae", "5.1")
def test_df_zero_is_marked_by_a_fragmentation_header() -> None:
    row = VECTORS["fragments"]["df0_whole_datagram_marked"]
    (packet,) = out(gateway(), bytes.fromhex(row["ipv4_in"]))
    assert packet.hex() == row["sip"]
    (again,) = back([packet])
    assert again.hex() == row["ipv4_out"]


@pytest.mark.rfc("ipae", "5.1")
@pytest.mark.rfc("8507", "7")
@pytest.mark.parametrize("sipp94", [False, True])
def test_fragments_become_fragments(*, sipp94: bool) -> None:
    whole = udp(1024)
    vectors = VECTORS["fragments"]
    for row, (first, last) in zip(vectors["fragments"], ((0, 552), (552, len(whole))), strict=True):
        packet = ipv4(whole[first:last], identification=0xBEEF, fragment_offset=first // 8, mf=last < len(whole))
        assert packet.hex().startswith(row["ipv4_in"].rstrip(".")[:48])
        rules = Rules(sipp94_options=sipp94)
        (sent,) = out(gateway(D_SITE, rules=rules), packet)
        assert len(sent) == row["sip_length"]
        assert sent[:24].hex() == row["sip_header_and_frag"][:48]
        assert sent[24:32].hex() == row["frag_header_1994" if sipp94 else "frag_header_1992"]


@pytest.mark.rfc("ipae", "5.1")
@pytest.mark.parametrize("row", VECTORS["lsrr_sip_sr"], ids=lambda row: f"pointer {row['lsrr_pointer']}")
def test_a_loose_source_route_becomes_a_source_route(row: dict[str, Any]) -> None:
    system = (
        System().gateway(O_SITE).mapping({"128.1.1.0/24": O_SITE, "10.0.0.0/24": "1.2.2.75", "201.5.7.0/24": D_SITE})
    )
    system.native(["1.2.2.75", D_SITE, O_SITE], FAR, "128.1.1.9")
    octets = bytearray.fromhex(row["ipv4"])
    octets[6] |= 0x40  # DF: the vectors have no fragmentation header
    octets[8] += 1  # and no hop
    Ipv4View.parse(octets).fix_checksum()
    (packet,) = out(system, bytes(octets))
    assert packet.hex() == row["sip"]
    exit_system = System(realms={SITE: {"site": None}}).gateway(O_SITE)
    exit_system.out_of(EVERYTHING)
    (again,) = out(exit_system, _with_hop_limit(packet, 65), SIP, LINK)
    octets[8], octets[4:6] = 64, again[4:6]
    Ipv4View.parse(octets).fix_checksum()
    assert again.hex() == octets.hex()


def _with_hop_limit(packet: bytes, hop_limit: int) -> bytes:
    octets = bytearray(packet)
    SipView.parse(octets).hop_limit = hop_limit
    return bytes(octets)


@pytest.mark.rfc("8507", "8.1")
@pytest.mark.parametrize(
    ("name", "pseudo"),
    [("ipae", IcmpPseudo.IPAE), ("sip92", IcmpPseudo.SIP92), ("sipp94-c1", IcmpPseudo.SIPP94)],
)
def test_icmp_gains_and_loses_its_pseudo_header(name: str, pseudo: IcmpPseudo) -> None:
    row = VECTORS["icmp_translate"][name]
    wanted = bytes.fromhex(row["sip_packet"])
    message = bytearray(wanted[24:])
    message[2:4] = bytes.fromhex(row["icmp_checksum_v4"])
    packet = ipv4(bytes(message), 1, df=True, ttl=64)
    rules = Rules(icmp_pseudo=pseudo)
    (found,) = out(gateway(D_SITE, rules=rules), packet)
    assert found.hex() == wanted.hex()
    system = System(site=D_SITE, realms={LINK: {"site": None}}, rules=rules).out_of(EVERYTHING)
    (again,) = out(system, found, SIP, LINK)
    assert again[20:] == bytes(message)


# --- properties ---------------------------------------------------------------------------

PROTOCOLS = st.integers(3, 255).filter(lambda number: number not in {41, 43, 44})
"What neither is ICMP or IGMP nor reads as an option header of SIP."


@pytest.mark.rfc("ipae", "5.2")
@given(
    payload=st.binary(max_size=900).filter(lambda octets: len(octets) >= 8),
    protocol=PROTOCOLS,
    identification=st.integers(0, 0xFFFF),
    df=st.booleans(),
    ttl=st.integers(3, 255),
)
def test_there_and_back_is_identity(*, payload: bytes, protocol: int, identification: int, df: bool, ttl: int) -> None:
    """But for one hop at each gateway, TOS, and the identification of what must not be fragmented."""
    packet = ipv4(payload, protocol, identification=identification, df=df, ttl=ttl)
    (again,) = back(out(gateway(), packet))
    expected = ipv4(payload, protocol, identification=again[4] << 8 | again[5], df=df, ttl=ttl - 2)
    assert again == expected
    assert df or Ipv4View.parse(again).identification == identification


@given(
    offset=st.integers(0, 400),
    octets=st.integers(1, 60).map(lambda number: number * 8),
    more=st.booleans(),
    identification=st.integers(0, 0xFFFF),
)
@pytest.mark.rfc("8507", "7")
def test_a_fragment_there_and_back_is_identity(*, offset: int, octets: int, more: bool, identification: int) -> None:
    fields: dict[str, Any] = {"fragment_offset": offset, "mf": more or offset == 0, "identification": identification}
    (again,) = back(out(gateway(), ipv4(bytes(octets), ttl=64, **fields)))
    assert again == ipv4(bytes(octets), ttl=62, **fields)


@pytest.mark.rfc("ipae", "4.5.1")
@given(
    payload=st.binary(max_size=200),
    upper=st.sampled_from([f"c{D_SITE}", D_SITE, "1.2.254.253", "c9.255.1.2"]),
    zero=st.booleans(),
)
def test_translation_never_touches_the_transport(*, payload: bytes, upper: str, zero: bool) -> None:
    """What an IPv4 host wrote is right by the compatible rule, whatever stands above its peer's address."""
    datagram = emit_udp(src=ip(O_HOST), dst=ip(D_HOST), src_port=5000, dst_port=6000, payload=payload)
    if zero:
        datagram = datagram[:6] + bytes(2) + datagram[8:]
    (packet,) = out(gateway(upper), ipv4(datagram, df=True))
    view = SipView.parse(packet)
    assert bytes(view.payload) == datagram
    rule = transport_rule(view.src, view.dst)
    assert zero or fits(rule, src=view.src, dst=view.dst, payload_type=17, octets=datagram)


@pytest.mark.rfc("ipae", "5.1")
@given(ttl=st.integers(2, 255))
def test_every_gateway_costs_one_hop(ttl: int) -> None:
    sent = out(gateway(), ipv4(udp(), ttl=ttl, df=True))
    assert [SipView.parse(each).hop_limit for each in sent] == [ttl - 1]
    if ttl > 2:
        assert [Ipv4View.parse(each).ttl for each in back(sent)] == [ttl - 2]


@given(
    kind=st.sampled_from([0, 8]),
    body=st.binary(max_size=1200),
    df=st.booleans(),
    pseudo=st.sampled_from(IcmpPseudo),
)
@pytest.mark.rfc("8507", "8.1")
def test_an_echo_there_and_back_is_identity(*, kind: int, body: bytes, df: bool, pseudo: IcmpPseudo) -> None:
    message = IcmpMessage(type=kind, rest=b"\x00\x07\x00\x01", body=body).emit()
    sent = out(gateway(rules=Rules(icmp_pseudo=pseudo)), ipv4(message, 1, df=df))
    system = System(site=D_SITE, realms={LINK: {"site": None}}, rules=Rules(icmp_pseudo=pseudo)).gateway(D_SITE)
    (again,) = (each for packet in sent for each in out(system, packet, SIP, LINK))
    found = again[20:]
    assert found == message or {found[2:4], message[2:4]} == {b"\0\0", b"\xff\xff"}
    assert checksum(found) == 0


@pytest.mark.rfc("8507", "7")
@pytest.mark.parametrize("df0", list(Df0))
def test_what_is_cut_is_the_same_when_it_is_put_together(df0: Df0) -> None:
    datagram = udp(1400)
    sent = out(gateway(mtu=1000, rules=Rules(df0=df0)), ipv4(datagram, identification=7))
    assert len(sent) > 1
    assert all(len(each) <= 1000 for each in sent)
    made = back(sent)
    assert b"".join(each[20:] for each in made) == datagram
    assert {Ipv4View.parse(each).identification for each in made} == {7}


@pytest.mark.rfc("ipae", "5.1")
def test_a_source_that_may_not_be_cut_is_told() -> None:
    plane = gateway(mtu=1000).plane()
    verdict = plane.process(SITE, ipv4(udp(1400), df=True), now=NOW)
    assert isinstance(verdict, Reply)
    assert verdict.reason is Reason.TOO_BIG
    assert plane.process(SITE, ipv4(udp(1400), protocol=41, df=True), now=NOW) == Pass()
