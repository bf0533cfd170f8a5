# SPDX-License-Identifier: BSD-3-Clause
"""Descriptions of SIP and IPAE: right for good packets, and never an exception for any."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.wire import gre, text
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.sip.header import HeaderOrder, SipHeader
from isthmus.wire.sip.icmp import Router, RouterAdvertisement, SipIcmpMessage, parameter_problem, redirect
from isthmus.wire.sip.igmp import SipIgmpMessage
from isthmus.wire.sip.option import OptionLayout, SourceRoute
from isthmus.wire.sip.special import ALL_ROUTERS
from wire.sip_samples import HOPS, SCENARIOS, VECTORS, fragmentations, headers, sip, source_routes

SRC, DST = sip("1.213.77.5/192.3.4.1"), sip("1.2.2.8/201.5.7.250")
SIP4 = "SIP 1.213.77.5/192.3.4.1 > 1.2.2.8/201.5.7.250"
HOP = bytes.fromhex(HOPS["3.4.4 IPAE host to SIP host TCP 4"]["hex"])


def packet(payload_type: int, payload: bytes) -> bytes:
    return SipHeader(payload_length=len(payload), payload_type=payload_type, src=SRC, dst=DST).emit() + payload


@pytest.mark.parametrize("name", HOPS)
def test_every_hop_shows_its_stack(name: str) -> None:
    hop = HOPS[name]
    layers, layer = [], text.to_dict(bytes.fromhex(hop["hex"]))
    while layer is not None:
        layers.append(layer)
        assert "error" not in layer
        layer = layer.get("payload")
    assert [each["layer"] for each in layers] == [each["header"].lower() for each in hop["stack"]] + ["octets"]
    for shown, wanted in zip(layers, hop["stack"], strict=False):
        assert {
            key: wanted[key] for key in ("src", "dst", "ttl", "hop_limit") if key in wanted
        }.items() <= shown.items()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: f"{each['scenario']} {each['transport']}")
def test_the_rules_that_a_checksum_fits_are_named(scenario: dict[str, object]) -> None:
    names = {"v4": "ipv4", "compat": "compatible"}
    rules = scenario["checksum_under_each_rule"].items()
    wanted = {names.get(rule, rule) for rule, value in rules if value == scenario["checksum_in_packet"]}
    for hop in scenario["hops"]:
        layer = text.to_dict(bytes.fromhex(hop["hex"]))
        while layer["layer"] not in ("tcp", "udp"):
            before, layer = layer["layer"], layer["payload"]
        if before == "sip":
            assert set(layer["checksum_fits"]) == wanted
        else:
            assert "checksum_fits" not in layer


def test_a_checksum_that_fits_no_rule_is_bad() -> None:
    assert text.line(HOP).endswith(f"{SIP4} TCP hlim 61 | TCP 49152 > 7 PSH,ACK seq 16909060 | 11 octets")
    damaged = HOP[:-1] + bytes((HOP[-1] ^ 1,))
    assert "seq 16909060 bad checksum |" in text.line(damaged)


@pytest.mark.parametrize(
    ("octets", "line"),
    [
        (packet(99, b"abc"), f"{SIP4} 99 hlim 64 | 3 octets"),
        (
            packet(43, SourceRoute(addresses=(SRC, DST), next_address=1, payload_type=59).emit()),
            f"{SIP4} SIP-SR hlim 64 | SR 1/2 {SRC} {DST}",
        ),
        (
            packet(1, redirect(HOP, sip("1.2.2.8/10.0.0.3")).emit(0)[:20]),
            f"{SIP4} ICMP hlim 64 | SIP/ICMP REDIRECT code 1 preferred router 1.2.2.8/10.0.0.3 bad checksum | sip [",
        ),
        (
            packet(1, parameter_problem(HOP, 28).emit(0)),
            "PARAMETER_PROBLEM code 0 pointer 28 bad checksum | SIP 1.213.",
        ),
        (
            packet(1, RouterAdvertisement(lifetime=9, routers=(Router(SRC, -1),)).message().emit(0)),
            f"ROUTER_ADVERTISEMENT code 0 lifetime 9 routers ['{SRC} preference -1']",
        ),
        (packet(1, SipIcmpMessage(type=10).emit(0)), "SIP/ICMP ROUTER_SOLICITATION code 0"),
        (packet(1, SipIcmpMessage(type=77).emit(0)), "SIP/ICMP 77 code 0"),
        (packet(2, SipIgmpMessage(group=ALL_ROUTERS[1]).emit(0)), "SIP/IGMP REPORT 127.2.0.0/0.0.0.3"),
        (packet(2, SipIgmpMessage().emit(0)), "SIP/IGMP QUERY"),
        (packet(41, HOP), f"{SIP4} SIP hlim 64 | {SIP4} TCP hlim 61 | TCP"),
        (packet(43, b"\0\0\0\0\x09"), f"{SIP4} SIP-SR hlim 64 | sip_option [source routing header at octet 24"),
        (packet(1, b"\x03"), "sip_icmp [ICMP header at octet 0"),
        (packet(6, b""), f"{SIP4} TCP hlim 64 | tcp ["),
    ],
)
def test_short_forms(octets: bytes, line: str) -> None:
    assert line in text.line(octets)
    assert text.tree(octets)
    json.dumps(text.to_dict(octets))


def test_quotes_of_eight_octets_show_what_there_is() -> None:
    octets = bytes.fromhex(VECTORS["icmp_relay"]["rfc792_quote_8"]["icmp_datagram"])
    assert text.line(octets).endswith("SIP ttl 63 DF | SIP TCP hlim 63, 8 octets quoted")
    octets = bytes.fromhex(VECTORS["icmp_relay"]["rfc1812_quote"]["icmp_datagram"].rstrip("."))
    assert "| SIP 1.213.77.5/192.3.4.1 > 1.2.2.8/201.5.7.250 TCP hlim 63 | TCP 49152 > 7" in text.line(
        octets[:2] + (len(octets)).to_bytes(2, "big") + octets[4:]
    )


def test_an_error_over_sip_may_quote_ipv4() -> None:
    quoted = bytes.fromhex(HOPS["3.4.1 transit only TCP 1"]["hex"])
    octets = packet(1, SipIcmpMessage(type=3, code=1, body=quoted).emit(0))
    assert "| IP 192.3.4.1 > 201.5.7.250 TCP ttl 64 DF |" in text.line(octets)


def test_version_6_is_what_the_ethertype_says_or_the_length() -> None:
    assert text.line(HOP).startswith("SIP")
    assert text.line(HOP + b"\0" * 9, ethertype=0x0800).startswith("SIP"), "padded by the link"
    assert text.to_dict(HOP, ethertype=0x86DD)["layer"] == "ipv6"
    assert text.to_dict(HOP + b"\0")["layer"] == "ipv6"
    ipv6 = bytes.fromhex(next(each["payload"] for each in VECTORS["demux"] if each["verdict"] == "ipv6"))
    assert text.line(ipv6).startswith("IP6")
    outer = {"src": Address.parse("10.0.0.1"), "dst": Address.parse("10.0.0.2")}
    for inner, layer in ((HOP, "sip"), (ipv6, "ipv6"), (ipv6 + b"\0", "ipv6")):
        octets = Ipv4Header(total_length=20 + len(inner), protocol=41, **outer).emit() + inner
        assert text.to_dict(octets)["payload"]["layer"] == layer
        assert text.to_dict(octets)["protocol"] == ("SIP" if layer == "sip" else "IPV6")
    shim = gre.emit(0x0800, HOP)
    octets = Ipv4Header(total_length=20 + len(shim), protocol=47, **outer).emit() + shim
    assert text.to_dict(octets)["payload"]["payload"]["layer"] == "sip"


def test_order_and_layout_are_told() -> None:
    header = SipHeader(payload_length=16, payload_type=43, hop_limit=9, src=SRC, dst=DST)
    route = SourceRoute(addresses=(DST,), payload_type=99)
    octets = header.emit(HeaderOrder.SEED) + route.emit(OptionLayout.SIPP94)
    reading = text.SipReading(order=HeaderOrder.SEED, layout=OptionLayout.SIPP94)
    assert text.line(octets, sip=reading) == f"{SIP4} SIP-SR hlim 9 | SR 0/1 {DST}"


@given(st.binary(max_size=200), st.sampled_from([None, 0x0800, 0x86DD]))
def test_any_octets_are_described(octets: bytes, ethertype: int | None) -> None:
    for beginning in (b"", HOP[:4], HOP[:24]):
        assert text.tree(beginning + octets, ethertype=ethertype)
        assert text.line(beginning + octets, ethertype=ethertype)


@given(headers, source_routes, fragmentations, st.binary(max_size=80))
def test_any_headers_are_described(header: SipHeader, route: SourceRoute, part: object, payload: bytes) -> None:
    octets = header.emit() + route.emit() + part.emit() + payload
    described = text.to_dict(octets, ethertype=0x0800)
    assert described["layer"] == "sip"
    json.dumps(described)
