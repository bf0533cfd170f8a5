# SPDX-License-Identifier: BSD-3-Clause
"""Finding gateways by DHCP, with a real dnsmasq on the other side."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys

import pytest

from isthmus.address import Address
from isthmus.daemon.discovery import dhcp_client
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.scenario import Setting
from isthmus.wire.dhcp import DhcpMessage
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.transport import Protocol, emit_udp

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed"),
]
SCOPES = "01:" + ":".join(f"{each:02x}" for each in b"North,South")


@pytest.fixture(scope="module")
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as made:
        # A bridge that has just been made forwards nothing for up to a second.
        made["host-a"].run("ping", "-c1", "-W5", figure.GATEWAY_NEAR)
        yield made


def dnsmasq(lab, *options):
    """Serve these options at the gateway's near side, and nothing else; gives the process."""
    words = ("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--bind-interfaces",
             "--interface=lan0", "--dhcp-authoritative", "--dhcp-range=10.0.0.0,static", "--log-facility=-",
             f"--dhcp-leasefile={lab['gateway'].directory}/leases", "--pid-file")  # fmt: skip
    return lab["gateway"].start(
        "dnsmasq", "dnsmasq", *words, *(f"--dhcp-option={each}" for each in options), ready="dnsmasq-dhcp"
    )


def find(lab, *words, seconds="1"):
    command = (sys.executable, "-m", "isthmus", "find", "--interface", "eth0", "--seconds", seconds, "--json", *words)
    done = lab["host-a"].run(*command, check=False)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.rfc("3102", "3.5")
@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("224", "10.0.0.1,10.0.0.2", ["10.0.0.1", "10.0.0.2"]),
        ("254", "10.0.0.1", ["10.0.0.1"]),
        ("224", "01:02:03:04:05", []),
        ("225", "10.0.0.1", []),
    ],
)
def test_gateways_are_listed_by_the_option_that_is_configured(lab, option, value, found):
    server = dnsmasq(lab, f"{option},{value}")
    try:
        rows = find(lab, "--way", "dhcp", "--option", option if option == "254" else "224")
    finally:
        server.stop()
    assert [row["address"] for row in rows] == found
    assert all((row["port"], row["way"]) == (4555, "dhcp") for row in rows)


@pytest.mark.rfc("3105", "5")
def test_the_scopes_of_slp_come_by_dhcp(lab):
    server = dnsmasq(lab, "224,10.0.0.9", f"79,{SCOPES}")
    lab["gateway"].up(
        figure.gateway_configuration(lab, Setting(plane="reference"), state="memory:")
        + '\n[gateway.slp]\nscopes = ["SOUTH"]\n'
    )
    try:
        assert find(lab, "--way", "slp") == [], "whoever asks no DHCP server asks in DEFAULT"
        rows = find(lab, "--way", "dhcp", "--way", "slp")
        assert [(row["address"], row["way"]) for row in rows] == [("10.0.0.9", "dhcp"), (figure.GATEWAY_NEAR, "slp")]
        assert find(lab, "--way", "dhcp", "--way", "slp", "--scope", "EAST") == rows[:1], (
            "what is configured goes before"
        )
    finally:
        lab["gateway"].daemons["isthmus"].stop()
        server.stop()


def test_nobody_serves_dhcp(lab):
    assert find(lab, "--way", "dhcp", seconds="0.5") == []


def test_what_answers_another_question_is_not_believed():
    question = DhcpMessage.inform(xid=7, client=Address.parse("10.0.0.4"), hardware=b"\2\0\0\0\0\1", options=(224,))

    def packet(*, xid=7, op=2, hardware=question.hardware, kind=5, src_port=67):
        answer = DhcpMessage(op=op, xid=xid, hardware=hardware, options={53: bytes((kind,)), 224: bytes(4)})
        src, dst = Address.parse("10.0.0.1"), Address.parse("10.0.0.4")
        datagram = emit_udp(src=src, dst=dst, src_port=src_port, dst_port=68, payload=answer.emit())
        return Ipv4Header(total_length=20 + len(datagram), protocol=Protocol.UDP, src=src, dst=dst).emit() + datagram

    assert dhcp_client._read(packet(), question) is not None
    for wrong in ({"xid": 8}, {"op": 1}, {"hardware": b"\2\0\0\0\0\2"}, {"kind": 2}, {"kind": 6}, {"src_port": 1067}):
        assert dhcp_client._read(packet(**wrong), question) is None
    assert dhcp_client._read(packet()[:60], question) is None
    assert dhcp_client._read(b"", question) is None
