# SPDX-License-Identifier: BSD-3-Clause
"""The router of 1992 that scenarios have: what it forwards, and what it says when it does not."""

from __future__ import annotations

import socket

import pytest

from isthmus.address import Address
from isthmus.lab.capture import capturing
from isthmus.lab.lab import standing
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.topology import Network, NodePlan, wire
from isthmus.wire.icmp import IcmpType, IcmpView, Unreachable
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View

NETWORK = Network(
    name="test-old-router",
    nodes=(
        NodePlan(name="a", routes=("default via 10.1.0.2",)),
        NodePlan(name="old", sysctls={"net.ipv4.ip_forward": "0"}),
        NodePlan(name="b", routes=("default via 10.2.0.2",)),
    ),
    cables=(
        wire(("a", "eth0", "10.1.0.1/24"), ("old", "left0", "10.1.0.2/24")),
        wire(("old", "right0", "10.2.0.2/24"), ("b", "eth0", "10.2.0.1/24"), mtu=600),
    ),
)
PAYLOAD = bytes(range(250)) * 4
EXPERIMENT = 253


@pytest.fixture(scope="module")
def lab():
    with standing(NETWORK) as standing_lab:
        standing_lab["old"].start(
            "router", ISTHMUS[0], "-m", "isthmus.lab.old_router", "left0", "right0", ready="ready"
        )
        yield standing_lab


def send(lab, *, dst: str = "10.2.0.1", payload: bytes = PAYLOAD, df: bool = False, ttl: int = 64, offset: int = 0):
    """Send one packet from a to beyond the router, and return it with what is seen at both ends."""
    header = Ipv4Header(
        total_length=20 + len(payload),
        identification=4711,
        df=df,
        ttl=ttl,
        protocol=EXPERIMENT,
        fragment_offset=offset,
        src=Address.parse("10.1.0.1"),
        dst=Address.parse(dst),
    )
    packet = header.emit() + payload

    def write() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (dst, 0))

    with capturing(lab["a"], "eth0") as near, capturing(lab["b"], "eth0") as far:
        lab["a"].inside(write)
        there = wait_until(
            lambda: any(error(each) or len(each.octets) < 576 for each in near.packets + far.packets), 10
        )
        assert there or offset
    errors = [error(each) for each in near.packets if error(each)]
    return packet, errors, [each.octets for each in far.packets if each.octets[9] == EXPERIMENT]


def error(captured) -> IcmpView | None:
    view = Ipv4View.parse(captured.octets)
    if view.protocol != 1 or str(view.src) != "10.1.0.2":
        return None
    assert view.checksum_ok
    return IcmpView.parse(bytes(view.payload))


@pytest.mark.root
def test_it_counts_the_hop_and_passes_the_rest(lab):
    packet, errors, arrived = send(lab, payload=b"small")
    assert not errors
    seen = Ipv4View.parse(arrived[0])
    assert (seen.ttl, seen.checksum_ok, bytes(seen.payload)) == (63, True, b"small")
    assert arrived[0][:8] == packet[:8]


@pytest.mark.root
def test_its_error_quotes_a_header_and_eight_octets_and_names_no_mtu(lab):
    packet, (told,), arrived = send(lab, df=True)
    assert (told.type, told.code) == (IcmpType.DESTINATION_UNREACHABLE, Unreachable.FRAGMENTATION_NEEDED)
    assert told.next_hop_mtu == 0
    assert told.checksum_ok
    assert bytes(told.body) == packet[:28]
    assert not arrived


@pytest.mark.root
def test_it_cuts_what_may_be_cut(lab):
    _, errors, arrived = send(lab)
    assert not errors
    views = [Ipv4View.parse(each) for each in arrived]
    assert [each.total_length <= 600 and each.checksum_ok for each in views] == [True, True]
    assert [each.fragment_offset * 8 for each in views] == [0, len(views[0].payload)]
    assert b"".join(bytes(each.payload) for each in views) == PAYLOAD


@pytest.mark.root
def test_a_packet_ends_where_its_time_does(lab):
    packet, (told,), arrived = send(lab, ttl=1, payload=b"0123456789")
    assert told.type == IcmpType.TIME_EXCEEDED
    assert bytes(told.body) == packet[:28]
    assert not arrived


@pytest.mark.root
def test_nobody_is_told_of_a_later_fragment(lab):
    _, errors, arrived = send(lab, ttl=1, payload=bytes(8), offset=8)
    assert not errors
    assert not arrived


@pytest.mark.root
def test_it_knows_no_way_to_everywhere(lab):
    _, (told,), _ = send(lab, dst="10.9.0.1")
    assert (told.type, told.code) == (IcmpType.DESTINATION_UNREACHABLE, Unreachable.NETWORK)
