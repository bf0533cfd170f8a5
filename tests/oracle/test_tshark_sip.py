# SPDX-License-Identifier: BSD-3-Clause
"""The Wireshark dissector of SIP and IPAE in contrib/, run by tshark over the vectors.

tshark verifies TCP and UDP by itself, through the IPv6 addresses that the dissector gives it: that the
checksums are good is Wireshark's judgement of our rules, not ours.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from isthmus.address import Address
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.pcapng import ETHERNET, CaptureWriter, Frame
from isthmus.wire.sip.header import HeaderOrder, SipHeader
from isthmus.wire.sip.icmp import Router, RouterAdvertisement, SipIcmpMessage, parameter_problem, redirect
from isthmus.wire.sip.igmp import SipIgmpMessage
from isthmus.wire.sip.option import OptionLayout, SourceRoute
from isthmus.wire.sip.pseudo import IcmpProfile, icmp_rule, pseudo_sum
from isthmus.wire.sip.special import ALL_ROUTERS
from wire.sip_samples import HOPS, VECTORS, sip

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

SCRIPT = Path(__file__).parents[2] / "contrib" / "wireshark" / "isthmus-sip.lua"
LINK = bytes.fromhex("020000000001 020000000002")
SRC, DST = sip("1.213.77.5/192.3.4.1"), sip("1.2.2.8/201.5.7.250")
WHOLE = bytes.fromhex(HOPS["3.4.4 IPAE host to SIP host TCP 4"]["hex"])
GOOD = "1"


def tshark(
    path: Path, packets: list[bytes], *fields: str, options: tuple[str, ...] = (), ethertype: int = 0x0800
) -> list[list[str]]:
    """Run tshark with the dissector over packets in Ethernet: one row each, repeated fields joined by commas."""
    with path.open("wb") as file:
        writer = CaptureWriter(file)
        writer.add_interface(link_type=ETHERNET)
        for number, octets in enumerate(packets):
            writer.write(
                Frame(octets=LINK + ethertype.to_bytes(2, "big") + octets, time_ns=number * 10**6, link_type=ETHERNET)
            )
    command = ["tshark", "-n", "-X", f"lua_script:{SCRIPT}", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"]  # fmt: skip
    for each in ("tcp.check_checksum:TRUE", "udp.check_checksum:TRUE", *options):
        command += ["-o", each]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Lua Error" not in done.stdout + done.stderr, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


def verbose(path: Path, packet: bytes) -> str:
    tshark(path, [packet], "frame.number")
    command = ["tshark", "-n", "-X", f"lua_script:{SCRIPT}", "-r", str(path), "-V"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Lua Error" not in said
    return said


def packet(payload_type: int, payload: bytes, src: Address = SRC, dst: Address = DST) -> bytes:
    return SipHeader(payload_length=len(payload), payload_type=payload_type, src=src, dst=dst).emit() + payload


def icmp(message: SipIcmpMessage) -> bytes:
    rule = icmp_rule(SRC, DST, IcmpProfile.IPAE)
    start = pseudo_sum(rule, src=SRC, dst=DST, payload_type=1, length=message.length)
    return packet(1, message.emit(start))


@pytest.mark.rfc("ipae", "3.4.1")
@pytest.mark.rfc("ipae", "4.5.1")
def test_every_hop_of_every_scenario(tmp_path: Path) -> None:
    rows = tshark(
        tmp_path / "hops.pcapng",
        [bytes.fromhex(hop["hex"]) for hop in HOPS.values()],
        "ip.src", "ip.ttl", "simpleip.src", "simpleip.dst", "simpleip.src_hex", "simpleip.hop_limit", "simpleip.length",
        "simpleip.type", "tcp.checksum.status", "udp.checksum.status", "_ws.malformed",
    )  # fmt: skip
    assert len(rows) == len(HOPS)
    for hop, row in zip(HOPS.values(), rows, strict=True):
        layers = {each["header"]: each for each in hop["stack"]}
        outer, inner = layers.get("IPv4", {}), layers.get("SIP", {})
        assert row[:2] == [str(outer.get("src", "")), str(outer.get("ttl", ""))]
        hexadecimal = f"0x{inner['src_hex'].replace(':', '').lower()}" if inner else ""
        assert row[2:5] == [inner.get("src", ""), inner.get("dst", ""), hexadecimal]
        assert row[5:8] == [str(inner.get(each, "")) for each in ("hop_limit", "payload_length", "payload_type")]
        assert row[8:10] == ([GOOD, ""] if "TCP" in layers else ["", GOOD]), "the checksum is right by Wireshark"
        assert row[10] == ""


def test_wrong_checksums_are_seen(tmp_path: Path) -> None:
    damaged = WHOLE[:-1] + bytes((WHOLE[-1] ^ 1,))
    echo = icmp(SipIcmpMessage(type=8, body=b"abc"))
    rows = tshark(
        tmp_path / "wrong.pcapng",
        [damaged, echo, echo[:-1] + b"x"],
        "tcp.checksum.status",
        "simpleip.icmp.checksum.rule",
    )
    assert rows[0][0] != GOOD
    assert [row[1] for row in rows[1:]] == ["full", ""]


@pytest.mark.rfc("8507", "6")
def test_source_routes_and_their_final_destination(tmp_path: Path) -> None:
    rows = tshark(
        tmp_path / "routes.pcapng",
        [bytes.fromhex(each["sip"]) for each in VECTORS["lsrr_sip_sr"]],
        "simpleip.sr.next",
        "simpleip.sr.num",
        "simpleip.final",
        "udp.checksum.status",
    )
    assert rows == [
        [str(each["sip_next_addr"]), "2", each["pseudo_header_destination"], GOOD] for each in VECTORS["lsrr_sip_sr"]
    ]


@pytest.mark.rfc("8507", "7")
def test_fragments(tmp_path: Path) -> None:
    vectors = VECTORS["fragments"]
    packets = [bytes.fromhex(vectors["df0_whole_datagram_marked"]["sip"])]
    packets += [
        bytes.fromhex(each["sip_header_and_frag"]) + bytes(each["sip_length"] - 32) for each in vectors["fragments"]
    ]
    rows = tshark(
        tmp_path / "fragments.pcapng",
        packets,
        "simpleip.frag.id",
        "simpleip.frag.more",
        "simpleip.frag.offset",
        "udp.srcport",
    )
    assert [row[:3] for row in rows] == [["0x0000cafe", "0", "0"], ["0x0000beef", "1", "0"], ["0x0000beef", "0", "552"]]
    assert rows[0][3] == "5000"
    assert rows[2][3] == "", "there is no header in a later fragment"


@pytest.mark.rfc("8507", "8.1")
def test_icmp_and_igmp(tmp_path: Path) -> None:
    router = sip("1.2.2.8/10.0.0.3")
    packets = {
        "too big": bytes.fromhex(VECTORS["icmp_relay"]["relayed_sip_icmp"]["hex"]),
        "pointer": icmp(parameter_problem(WHOLE, 28)),
        "redirect": icmp(redirect(WHOLE, router)),
        "routers": icmp(RouterAdvertisement(lifetime=9, routers=(Router(SRC, -1), Router(router, 3))).message()),
        "igmp": packet(2, SipIgmpMessage(group=ALL_ROUTERS[1]).emit(0)),
    }
    fields = ("mtu", "pointer", "router", "preference", "checksum.rule")
    rows = tshark(
        tmp_path / "icmp.pcapng",
        list(packets.values()),
        *(f"simpleip.icmp.{each}" for each in fields),
        "simpleip.quoted.dst_port",
        "simpleip.igmp.group",
        "tcp.port",
    )
    assert dict(zip(packets, rows, strict=True)) == {
        "too big": ["986", "", "", "", "full", "7", "", ""],
        "pointer": ["", "28", "", "", "full", "7", "", ""],
        "redirect": ["", "", str(router), "", "full", "7", "", ""],
        "routers": ["", "", f"{SRC},{router}", "-1,3", "full", "", "", ""],
        "igmp": ["", "", "", "", "", "", str(ALL_ROUTERS[1]), ""],
    }


def test_the_pseudo_header_of_icmp_is_named(tmp_path: Path) -> None:
    packets = [bytes.fromhex(VECTORS["icmp_translate"][profile]["sip_packet"]) for profile in IcmpProfile]
    rows = tshark(tmp_path / "icmp.pcapng", packets, "simpleip.icmp.checksum.rule")
    wanted = {IcmpProfile.IPAE: "full", IcmpProfile.SIP92: "sip92", IcmpProfile.SIPP94_C1: "unsized"}
    assert rows == [[wanted[profile]] for profile in IcmpProfile]


def test_protocol_41_is_told_by_its_length_and_ipv6_stays_ipv6(tmp_path: Path) -> None:
    outer = {"src": Address.parse("10.0.0.1"), "dst": Address.parse("10.0.0.2"), "protocol": 41}
    inner = {each["verdict"]: bytes.fromhex(each["payload"]) for each in VECTORS["demux"]}
    inner["neither"] = inner["ipv6"] + b"\0"
    packets = [Ipv4Header(total_length=20 + len(each), **outer).emit() + each for each in inner.values()]
    rows = tshark(tmp_path / "41.pcapng", packets, "simpleip.hop_limit", "ipv6.hlim", "ipae.neither")
    assert [bool(each) for each in rows[0]] == [True, False, False]
    assert [bool(each) for each in rows[1]] == [False, True, False]
    assert bool(rows[2][2])
    assert tshark(tmp_path / "6.pcapng", [inner["ipv6"]], "ipv6.hlim", "simpleip", ethertype=0x86DD) == [["64", ""]]


@pytest.mark.rfc("ipae", "4.3")
def test_quotes_of_ip_only_routers(tmp_path: Path) -> None:
    octets = bytes.fromhex(VECTORS["icmp_relay"]["rfc792_quote_8"]["icmp_datagram"])
    ((limit, length, src),) = tshark(
        tmp_path / "quote.pcapng", [octets], "simpleip.hop_limit", "simpleip.length", "simpleip.src"
    )
    assert (limit, length, src) == ("63", "1420", "")


def test_order_and_layout_are_preferences(tmp_path: Path) -> None:
    header = SipHeader(payload_length=16, payload_type=43, hop_limit=9, src=SRC, dst=DST)
    octets = header.emit(HeaderOrder.SEED) + SourceRoute(addresses=(DST,), payload_type=59).emit(OptionLayout.SIPP94)
    options = ("simpleip.order:seed: hop limit, payload type", "simpleip.layout:sipp94 (draft-ietf-sipp-spec-00)")
    rows = tshark(
        tmp_path / "seed.pcapng",
        [octets],
        "simpleip.type",
        "simpleip.hop_limit",
        "simpleip.sr.address",
        options=options,
    )
    assert rows == [["43", "9", str(DST)]]


def test_packets_that_are_cut_short_are_no_lua_error(tmp_path: Path) -> None:
    route = packet(43, SourceRoute(addresses=(SRC, DST), payload_type=6).emit() + WHOLE[24:])
    nested = icmp(redirect(route, SRC))
    packets = [each[:length] for each in (route, nested, WHOLE) for length in range(1, len(each))]
    rows = tshark(tmp_path / "cut.pcapng", packets, "frame.number")
    assert len(rows) == len(packets)


def test_people_see_the_notation_of_the_seed(tmp_path: Path) -> None:
    said = verbose(tmp_path / "one.pcapng", WHOLE)
    assert f"Simple Internet Protocol (RFC 8507), {SRC} > {DST}, hop limit 61" in said
