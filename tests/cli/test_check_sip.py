# SPDX-License-Identifier: BSD-3-Clause
"""isthmus check: a capture through the plane of an IPAE border router, and of a host."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

from cli.program import answer, refused, run
from isthmus.wire.ipv4 import Ipv4View

IPV4, IPV6 = 0x0800, 0x86DD
BORDER = """\
[[realm]]
name = "site"
interface = "no-site0"
site = "{site}"
[[realm]]
name = "internet"
interface = "no-wan0"
[border]
[[border.route]]
to = "{there}"
via = {{ ipae = "{other}", realm = "internet" }}
[border.mapping]
file = "{file}"
"""
NODE = """\
[[realm]]
name = "link"
interface = "no-eth0"
[node]
address = "1.213.77.5/192.3.4.1"
near = "link"
border = "192.3.4.254"
"""
HERE = ("--address", "site=192.3.4.254/24", "--address", "internet=128.1.1.1/24")
THERE = ("--address", "site=201.5.7.254/24", "--address", "internet=128.2.1.2/24")
REQUEST = IP(src="192.3.4.1", dst="201.5.7.250", ttl=64, flags="DF") / TCP(sport=40000, dport=80, flags="S")


@pytest.fixture
def place(tmp_path):
    """Two border routers as on the cover of docs/tour.md, and a host."""
    here = BORDER.format(site="1.213.77.5", there="1.2.2.8", other="128.2.1.2", file=tmp_path / "here.map")
    there = BORDER.format(site="1.2.2.8", there="1.213.77.5", other="128.1.1.1", file=tmp_path / "there.map")
    (tmp_path / "here.toml").write_text(here)
    (tmp_path / "there.toml").write_text(there)
    (tmp_path / "here.map").write_text("201.5.7.0/24 c1.2.2.8\n")
    (tmp_path / "there.map").write_text("192.3.4.0/24 c1.213.77.5\n")
    (tmp_path / "node.toml").write_text(NODE)
    return tmp_path


def capture(place, *packets, kind=IPV4):
    wrpcap(str(place / "in.pcap"), [Ether(dst="02:00:00:00:00:01", type=kind) / bytes(each) for each in packets])
    return place / "in.pcap"


def row(report, at=0):
    found = report["packets"][at]
    return tuple(found[key] for key in ("realm", "verdict", "reason", "to"))


def test_a_packet_goes_through_both_border_routers(place):
    first = answer("check", place / "here.toml", capture(place, REQUEST), *HERE)
    assert row(first) == ("site", "forward", "TRANSLATED_TO_SIP", "internet")
    inside = bytes.fromhex(first["packets"][0]["out"][0])
    second = answer("check", place / "there.toml", capture(place, inside), *THERE)
    assert row(second) == ("internet", "forward", "TRANSLATED_FROM_SIP", "site")
    out = bytes.fromhex(second["packets"][0]["out"][0])
    assert Ipv4View.parse(out).ttl == 62
    assert out[20:] == bytes(REQUEST)[20:], "the transport is untouched"


def test_a_mapping_file_instead_of_the_configured_one(place):
    (place / "other.map").write_text("10.0.0.0/8 c1.2.2.8\n")
    options = (*HERE, "--mapping", place / "other.map")
    assert row(answer("check", place / "here.toml", capture(place, REQUEST), *options))[1:3] == ("pass", "PASSED")


@pytest.mark.root
def test_both_planes_agree_about_sip(place):
    fragment = IP(src="192.3.4.1", dst="201.5.7.250", flags="MF") / (b"x" * 64)
    file = capture(place, REQUEST, fragment, REQUEST)
    result = run("check", place / "here.toml", file, *HERE, "--plane", "both")
    assert result.exit_code == 0, result.output
    inside = answer("check", place / "here.toml", file, *HERE, "--plane", "kernel")
    assert [each["verdict"] for each in inside["packets"]] == ["forward", "punt", "forward"]


@pytest.mark.parametrize("plane", ["reference", pytest.param("kernel", marks=pytest.mark.root)])
def test_packets_of_programs_at_a_host(place, plane):
    program = IPv6(src="fd49:5041:4500:6d74:1d5:4d05:c003:401", dst="fd49:5041:4500:6d74:102:208:c905:7fa") / TCP()
    options = ("--address", "link=192.3.4.1/24", "--plane", plane)
    report = answer("check", place / "node.toml", capture(place, program, kind=IPV6), *options)
    assert row(report) == ("sockets", "forward", "TRANSLATED_TO_SIP", "link")


def test_what_is_on_a_link_beside_ipv4_and_sip_is_left_out(place):
    wrpcap(str(place / "in.pcap"), [Ether() / ARP(), Ether() / IPv6(dst="ff02::2") / TCP(), Ether() / REQUEST])
    for file, options in (("here.toml", HERE), ("node.toml", ("--address", "link=192.3.4.1/24"))):
        report = answer("check", place / file, place / "in.pcap", *options)
        assert [each["number"] for each in report["packets"]] == [3]


def test_errors_say_what_to_do(place):
    file = capture(place, REQUEST)
    assert "--address REALM=ADDRESS/LENGTH" in refused("check", place / "here.toml", file)
    assert "with a realm of site, internet" in refused("check", place / "here.toml", file, "--address", "lan=1.2.3.4/8")
    assert "prefix length" in refused("check", place / "here.toml", file, "--address", "site=1.2.3.4/33")
    assert "none of site, internet, sip" in refused("check", place / "here.toml", file, *HERE, "--realm", "lan")
    (place / "here.map").write_text("192.3.4.0/24 c1.2.2.8\n")
    assert "192.3.4.0/24" in refused("check", place / "here.toml", file, *HERE)
