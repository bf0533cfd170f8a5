# SPDX-License-Identifier: BSD-3-Clause
"""The program at XDP on wires: between drivers alone, after its daemon has gone, and taken away again."""

from __future__ import annotations

import json
import sys

import pytest

from isthmus.border.realm import End
from isthmus.border.verdict import Reason
from plane import test_kernel_real
from plane.one_end import SHARED, WHOLE
from plane.test_kernel_real import DYING, WAYS, Lab, ask, echoing, transfer

pytestmark = test_kernel_real.pytestmark
lab = test_kernel_real.lab
MINE = ("gn0", "gp0")


@pytest.fixture
def before_tc(lab: Lab) -> Lab:
    """Both ends serve, the gateway's by XDP, too; both daemons have gone, and neighbours are known."""
    # A veth takes frames from XDP only if its peer has NAPI; and frames in a program's memory keep no promise of a checksum.
    for node, interface in (("h", "hn0"), ("s", "sp0")):
        lab.run(node, "ethtool", "-K", interface, "gro", "on", "tx", "off", "txvlan", "off")
    lab.run("g", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    lab.daemon(End.HOST)
    lab.daemon(End.GATEWAY, what="xdp")
    with echoing(lab, "s", 5353):
        ask(lab, "a", "192.0.2.80", 5353, patience=2)
        ask(lab, "b", "192.0.2.80", 5353, patience=2)
    return lab


def attached(lab: Lab) -> set[str]:
    """Which interfaces of the gateway have a program at XDP."""
    return {each["ifname"] for each in json.loads(lab.run("g", "ip", "-j", "link")) if "xdp" in each}


@pytest.mark.parametrize("lab", WAYS[::3], indirect=True, ids=lambda way: way.name)
def test_packets_both_ways_and_round_without_tc(before_tc: Lab) -> None:
    lab = before_tc
    assert attached(lab) == set(MINE)
    forwarded = [lab.count(End.GATEWAY, each) for each in (Reason.FORWARDED_INWARD, Reason.FORWARDED_OUTWARD)]
    for interface in MINE:
        lab.run("g", "tc", "filter", "del", "dev", interface, "ingress")
    with echoing(lab, "s", 5353), echoing(lab, "a", 10009), echoing(lab, "b", 7):
        for node, address, port in (("a", "192.0.2.80", 5353), ("s", SHARED, 10009), ("s", WHOLE, 7), ("a", WHOLE, 7)):
            asked, answered = ask(lab, node, address, port, seconds=0.05)
            assert asked == answered, f"{node} to {address}"
    after = [lab.count(End.GATEWAY, each) for each in (Reason.FORWARDED_INWARD, Reason.FORWARDED_OUTWARD)]
    assert all(more > less for less, more in zip(forwarded, after, strict=True)), (forwarded, after)
    assert ask(lab, "s", SHARED, 10064, patience=0.1) == (1, 0)
    assert lab.count(End.GATEWAY, Reason.NO_BINDING) == 1


def test_streams_what_needs_tc_and_its_end(before_tc: Lab) -> None:
    assert transfer(before_tc, "a", "s", "192.0.2.80", 8080)[0] == str(SHARED)
    assert transfer(before_tc, "s", "a", SHARED, 10007)[0] == "192.0.2.80"
    before_tc.run("s", sys.executable, "-c", DYING, str(SHARED), "10007")
    assert before_tc.count(End.GATEWAY, Reason.PUNTED) == 1
    before_tc.daemon(End.GATEWAY)
    assert attached(before_tc) == set(), "a daemon without it has taken it away"
    assert before_tc.daemon(End.GATEWAY, what="xdp")["adopted"] is True
    assert attached(before_tc) == set(MINE)
    before_tc.daemon(End.GATEWAY, what="destroy")
    assert attached(before_tc) == set()
