# SPDX-License-Identifier: BSD-3-Clause
"""isthmus check: a capture through a plane."""

from __future__ import annotations

import json
import os

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from cli.program import FIGURE_1, answer, refused, run
from cli.test_leases import BEGIN, HOST, bind
from isthmus.address import Address
from isthmus.border.binding import FOREVER, Owner, Registration
from isthmus.border.effect import Register
from isthmus.plane.reference import ReferencePlane
from isthmus.store import open_store
from isthmus.wire import pcapng

WEB, SHARED, GATEWAY = "192.156.136.22", "149.112.240.55", "10.0.0.1"
BINDINGS = """\
registered = ["private 10.0.0.5"]

[[bindings]]
owner = "private 10.0.0.4"
id = 1
local = "149.112.240.55"
ports = "10000-10063"
"""


def inward(port=10000, **more):
    return IP(src=WEB, dst=SHARED, **more) / TCP(sport=80, dport=port, flags="SA")


def outward(port=10000, host="10.0.0.4"):
    return IP(src=host, dst=GATEWAY) / IP(src=SHARED, dst=WEB) / TCP(sport=port, dport=80, flags="S")


@pytest.fixture
def place(tmp_path):
    """A directory with a configuration, bindings and a capture of six packets."""
    (tmp_path / "gateway.toml").write_text(FIGURE_1)
    (tmp_path / "bindings.toml").write_text(BINDINGS)
    packets = [
        inward(),
        inward(20000),
        inward(10064),
        outward(),
        outward(10064),
        outward(host="10.0.0.9"),
        IP(src="10.0.0.4", dst=GATEWAY) / UDP(sport=40000, dport=4555) / Raw(bytes.fromhex("01020004")),
    ]
    frames = [Ether() / packet for packet in packets]
    for at, frame in enumerate(frames):
        frame.time = BEGIN + at
    wrpcap(str(tmp_path / "in.pcap"), frames)
    return tmp_path


def replay(place, *options):
    return answer("check", place / "gateway.toml", place / "in.pcap", "--leases", place / "bindings.toml", *options)


EXPECTED = [
    ("public", "forward", "FORWARDED_INWARD", "private"),
    ("public", "pass", "PASSED", None),
    ("public", "drop", "NO_BINDING", None),
    ("private", "forward", "FORWARDED_OUTWARD", "public"),
    ("private", "drop", "SOURCE_PORT_NOT_LEASED", None),
    ("private", "drop", "UNREGISTERED", None),
    ("private", "pass", "PASSED", None),
]


def test_every_packet_has_a_verdict_and_a_reason(place):
    report = replay(place)
    assert [tuple(each[key] for key in ("realm", "verdict", "reason", "to")) for each in report["packets"]] == EXPECTED
    assert report["ok"]
    assert sum(report["counters"].values()) == len(EXPECTED)
    sent = bytes.fromhex(report["packets"][0]["out"][0])
    assert IP(sent).dst == "10.0.0.4"
    assert bytes(IP(sent)[TCP]) == bytes(inward()[TCP].__class__(bytes(inward())[20:])), "the transport is untouched"


def test_as_text(place):
    result = run("check", place / "gateway.toml", place / "in.pcap", "--leases", place / "bindings.toml")
    assert result.exit_code == 0
    assert "SOURCE_PORT_NOT_LEASED" in result.stdout
    assert f"IP {WEB} > {SHARED} TCP" in result.stdout


def test_what_is_written_is_what_is_expected_the_next_time(place):
    files = ["--out", place / "out.pcapng", "--counters", place / "counters.toml"]
    replay(place, *files, "--write")
    assert "NO_BINDING = 1" in (place / "counters.toml").read_text()
    with (place / "out.pcapng").open("rb") as file:
        frames = list(pcapng.read(file))
    assert [frame.interface for frame in frames] == [0, 1]
    assert replay(place, *files)["ok"]


def test_differences_are_told_and_end_with_1(place):
    (place / "counters.toml").write_text("NO_BINDING = 2\nFORWARDED_INWARD = 1\n")
    wrpcap(str(place / "out.pcap"), [Ether() / inward()])
    result = run(
        "check", place / "gateway.toml", place / "in.pcap", "--leases", place / "bindings.toml",
        "--counters", place / "counters.toml", "--out", place / "out.pcap", "--json",
    )  # fmt: skip
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["ok"]
    told = "\n".join(report["differences"])
    assert "NO_BINDING is 1, must be 2" in told
    assert "PASSED is 2, must be 0" in told
    assert "packet 1: sent 45" in told
    assert "2 packets were sent, 1 must be" in told


def test_an_endpoint_says_whose_configuration_is_meant(place):
    head = FIGURE_1.partition("[gateway]")[0]
    (place / "endpoint.toml").write_text(f"{head}[endpoint]\n")
    assert "gateway's configuration" in refused("check", place / "endpoint.toml", place / "in.pcap")


def test_without_leases_nothing_is_leased(place):
    report = answer("check", place / "gateway.toml", place / "in.pcap")
    assert report["counters"] == {"NO_BINDING": 2, "PASSED": 2, "UNREGISTERED": 3}


def fill(path):
    store = open_store(path)
    other = Owner(1, Address.parse("10.0.0.5"))
    registered = [
        Register(registration=Registration(owner=each, client_id=at, expires_at=FOREVER))
        for at, each in enumerate((HOST, other))
    ]
    store.commit([*registered, bind(1, "10000-10063", expires_at=BEGIN + 3)], now=BEGIN)
    store.close()


def test_leases_of_a_store_and_the_time_of_each_packet(place):
    fill(place / "leases.db")
    report = answer("check", place / "gateway.toml", place / "in.pcap", "--state", place / "leases.db")
    reasons = [each["reason"] for each in report["packets"]]
    assert reasons[0] == "FORWARDED_INWARD"
    assert reasons[3] == "LEASE_EXPIRED", "three seconds later the lease is over"
    options = ["--state", place / "leases.db", "--at", str(BEGIN)]
    assert answer("check", place / "gateway.toml", place / "in.pcap", *options)["packets"][3]["verdict"] == "forward"


def test_the_store_of_the_configuration_is_used(place):
    fill(place / "leases.db")
    (place / "gateway.toml").write_text(FIGURE_1.replace("memory:", str(place / "leases.db")))
    assert answer("check", place / "gateway.toml", place / "in.pcap")["packets"][0]["verdict"] == "forward"


def test_interfaces_of_a_capture_are_realms_by_place(place):
    with (place / "two.pcapng").open("wb") as file:
        writer = pcapng.CaptureWriter(file)
        writer.add_interface(name="eth1")
        writer.add_interface(name="eth0")
        for interface in (0, 1):
            writer.write(pcapng.Frame(octets=bytes(inward()), interface=interface))
    report = answer("check", place / "gateway.toml", place / "two.pcapng", "--leases", place / "bindings.toml")
    assert [(each["realm"], each["verdict"]) for each in report["packets"]] == [
        ("private", "pass"),
        ("public", "forward"),
    ]


def test_the_realm_can_be_said(place):
    report = replay(place, "--realm", "public")
    assert {each["realm"] for each in report["packets"]} == {"public"}
    assert "none of private, public" in refused("check", place / "gateway.toml", place / "in.pcap", "--realm", "dmz")


def test_wrong_input_is_explained(place):
    config, capture = place / "gateway.toml", place / "in.pcap"
    assert "nothing.pcap" in refused("check", config, place / "nothing.pcap")
    assert "is no capture" in refused("check", config, config)
    assert "nothing.toml: cannot be read" in refused("check", place / "nothing.toml", capture)
    assert "where to" in refused("check", config, capture, "--write")
    assert "not both" in refused("check", config, capture, "--leases", config, "--state", config)
    (place / "counters.toml").write_text("NO_BINDINGS = 2\n")
    assert "isthmus explain" in refused("check", config, capture, "--counters", place / "counters.toml")
    (place / "counters.toml").write_text("NO_BINDINGS 2\n")
    assert "is not TOML" in refused("check", config, capture, "--counters", place / "counters.toml")
    assert "write ISO 8601" in refused("check", config, capture, "--at", "soon")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bindings = 3", "bindings: must be an array"),
        ("[[binding]]", "binding: is no key here"),
        ("[[bindings]]\nid = 1", "bindings[0]: owner is required"),
        ('[[bindings]]\nowner = "10.0.0.4"', "bindings[0]: '10.0.0.4' is not \"REALM ADDRESS\""),
        ('[[bindings]]\nowner = "dmz 10.0.0.4"', "is no realm of the configuration"),
        ('[[bindings]]\nowner = "private 10.0.0.4"\nid = 1\nlocal = "1.2.3.4"\nports = "x"', "bindings[0]: "),
        ('[[bindings]]\nowner = "private 10.0.0.4"\nid = 1\nlocal = "1.2.3.4"\nkind = "l2tp"', "bindings[0]: L2TP"),
        (
            '[[bindings]]\nowner = "private 10.0.0.4"\nid = 1\nlocal = "1.2.3.4"\nport = 3',
            "bindings[0].port: is no key here",
        ),
        ("registered = [1]", "registered[0]: "),
        ("registered =", "is not TOML"),
    ],
)
def test_a_wrong_file_of_bindings_names_file_key_and_reason(place, text, problem):
    file = place / "wrong.toml"
    file.write_text(text)
    said = refused("check", place / "gateway.toml", place / "in.pcap", "--leases", file)
    assert str(file) in said
    assert problem in said


HOST_CONFIG = '[[realm]]\nname = "private"\ninterface = "eth0"\n[host]\nnear = "private"\ngateway = "10.0.0.1"\n'
HOST_BINDINGS = """\
[[bindings]]
owner = "private 10.0.0.1"
id = 1
local = "149.112.240.55"
ports = "10000-10063"
tunnel = "10.0.0.4 -> 10.0.0.1"
device = "rsip0p"
"""


def test_a_host_is_checked_as_well(place):
    (place / "host.toml").write_text(HOST_CONFIG)
    (place / "host-bindings.toml").write_text(HOST_BINDINGS)
    program = IP(src=SHARED, dst=WEB) / TCP(sport=10000, dport=80, flags="S")
    stranger = IP(src=SHARED, dst=WEB) / TCP(sport=9, dport=80, flags="S")
    tunnelled = IP(src=GATEWAY, dst="10.0.0.4") / inward()
    wrpcap(str(place / "host.pcap"), [Ether() / each for each in (program, stranger, tunnelled)])
    options = ["--leases", place / "host-bindings.toml"]
    report = answer("check", place / "host.toml", place / "host.pcap", *options)
    assert [(each["realm"], each["reason"], each["to"]) for each in report["packets"]] == [
        ("leased", "FORWARDED_OUTWARD", "private"),
        ("leased", "SOURCE_PORT_NOT_LEASED", None),
        ("private", "FORWARDED_INWARD", "leased"),
    ]
    assert "give them with --leases" in refused("check", place / "host.toml", place / "host.pcap")
    (place / "host-bindings.toml").write_text(HOST_BINDINGS.replace("tunnel", "#"))
    assert "tunnel is required" in refused("check", place / "host.toml", place / "host.pcap", *options)


def on_the_kernel(*arguments):
    result = run("check", *arguments, "--json")
    if result.exit_code == 2 and os.geteuid() != 0:
        pytest.skip(f"the kernel plane cannot run here: {result.stderr.strip()}")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_kernel_plane_says_the_same(place):
    options = [place / "gateway.toml", place / "in.pcap", "--leases", place / "bindings.toml"]
    report = on_the_kernel(*options, "--plane", "kernel")
    assert [tuple(each[key] for key in ("realm", "verdict", "reason", "to")) for each in report["packets"]] == EXPECTED
    assert report == answer("check", *options)
    assert on_the_kernel(*options, "--plane", "both") == report


def test_what_the_kernel_plane_punts_is_no_difference(place):
    wrpcap(str(place / "in.pcap"), [Ether() / inward(ttl=1), Ether() / inward(ttl=64), Ether() / inward(9)])
    options = [place / "gateway.toml", place / "in.pcap", "--leases", place / "bindings.toml"]
    verdicts = {
        plane: [each["verdict"] for each in on_the_kernel(*options, "--plane", plane)["packets"]]
        for plane in ("reference", "kernel", "both")
    }
    assert verdicts == {
        "reference": ["reply", "forward", "pass"],
        "kernel": ["punt", "forward", "pass"],
        "both": ["reply", "forward", "pass"],
    }


def test_a_host_on_the_kernel_plane(place):
    (place / "host.toml").write_text(HOST_CONFIG)
    (place / "host-bindings.toml").write_text(HOST_BINDINGS)
    wrpcap(str(place / "host.pcap"), [Ether() / IP(src=GATEWAY, dst="10.0.0.4") / inward()])
    options = [place / "host.toml", place / "host.pcap", "--leases", place / "host-bindings.toml"]
    assert on_the_kernel(*options, "--plane", "both")["packets"][0]["reason"] == "FORWARDED_INWARD"


def test_a_plane_that_differs_is_told(place, monkeypatch):
    from isthmus.border.verdict import Drop, Reason
    from isthmus.cli import replay as module

    class Wrong(ReferencePlane):
        def process(self, realm, packet, *, now):
            verdict = super().process(realm, packet, now=now)
            return Drop(Reason.MALFORMED) if isinstance(verdict, Drop) else verdict

    monkeypatch.setattr(module, "kernel", lambda border, effects, now: Wrong(border))
    result = run("check", place / "gateway.toml", place / "in.pcap", "--plane", "both")
    assert result.exit_code == 1
    assert "differs: packet 1: reference drop NO_BINDING, kernel drop MALFORMED" in result.stdout
