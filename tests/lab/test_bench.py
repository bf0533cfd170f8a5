# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks run to their end and tell their figures in one form; what the figures are is theirs to say."""

from __future__ import annotations

import json

import pytest

from lab.machine import isthmus

EXPECTED = {
    "forward": {
        "TCP up, 1 stream",
        "TCP down, 4 streams",
        "TCP up, 1 stream, isthmus by GRE",
        "TCP down, 1 stream, isthmus by IPv4 in IPv6",
        "small packets, 64 flows",
        "small packets, 100,000 flows",
        "small packets, 64 flows, isthmus by GRE",
        "small packets, 64 flows, isthmus by IPv4 in IPv6",
    },
    "map": {
        "file, read and checked",
        "loaded into the kernel plane",
        "memory, kernel plane",
        "lookups, kernel plane",
        "lookups, reference plane",
        "packet from IPv4 to SIP, beside 10 entries",
    },
    "translate": {
        "from IPv4, 64 hosts, translation",
        "to IPv4, 4,096 hosts, translation",
        "from IPv4, 4,096 hosts, gateway",
        "to IPv4, 64 hosts, gateway, IPAE datagrams",
        "to IPv4, 64 hosts, translator alone",
        "from IPv4, 64 hosts, gateway, full load",
    },
    "packet": {
        "TC: parse and return",
        "TC inward, IPv4 outer, anyone, 1,000 leases",
        "XDP outward, IPv4 outer, contacted, 1 leases",
        "XDP inward, IPv6 outer, contacted, 1,000 leases",
        "XDP inward, IPv4 outer, hosts at random places, contacted, 1,000 leases",
        "TC IPv4 translated to SIP and into a datagram, mapping of 1,000",
    },
    "nat": {
        "TC, contacted, 100,000 flows",
        "XDP, anyone, 100,000 flows, on the wall",
        "generator, dropped at once, beside the fastest way",
        "new TCP connections",
        "memory of 10,000 flows",
        "log of one lease, of one flow",
    },
    "lease": {
        "durable full cycles",
        "durable full cycles, beside Kea with its default",
        "cycle p50, 200 a second",
        "cycle p99, 200 a second",
    },
    "churn": {
        "lease changes, at TC",
        "packets of standing leases, at TC",
        "blocked, at TC",
        "misdelivered, at XDP",
        "packets of changing leases to their holder, at XDP",
        "blocked, by the protocol",
        "misdelivered, by the protocol",
    },
    "million": {
        "fill, full cycles",
        "leases of a sample that did not forward",
        "memory a lease",
        "restart, packets lost",
        "restart, full service",
        "restart after a reboot, first forwarded packet",
        "who-had over 10,000 rows, p99",
        "expiry of all",
        "expiry, tenures without an end in history",
        "expiry, packets of other leases lost",
    },
    "host": {
        "TCP up, 1 stream",
        "TCP up, 1 stream, beside slirp4netns",
        "round trip of 64 octets, p99",
        "round trip of 64 octets, p50, beside pasta",
    },
}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", EXPECTED)
def test_bench(name):
    done = isthmus("bench", name, "--quick", "--json", seconds=170)
    if "kernel threads are not seen" in done.stderr:
        pytest.skip("small packets are measured by kernel threads, which a PID namespace does not show")
    if name == "translate" and ("tayga is not installed" in done.stderr or "/dev/net/tun" in done.stderr):
        pytest.skip(done.stderr.strip())
    if name in {"host", "nat"} and "/dev/net/tun" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert told.keys() - {"series"} == {"bench", "figures", "method", "machine", "date", "seconds"}
    assert all(each["runs"] for each in told.get("series", ()))
    assert told["bench"] == name
    assert EXPECTED[name] <= {figure["name"] for figure in told["figures"]}
    for figure in told["figures"]:
        assert figure.keys() == {"name", "unit", "ours", "theirs", "ratio", "goal", "met"}
        if figure["unit"] == "octets" and figure["theirs"]:
            assert figure["ours"] >= 0  # what isthmus keeps for a flow is nothing
            continue
        # A goal of 0 is no matter of time: nothing is blocked or misdelivered, ever.
        assert figure["ours"] == 0 if figure["goal"] == 0 else figure["ours"] > 0, figure
        assert (figure["goal"] is None) == (figure["met"] is None)


@pytest.mark.parametrize("name", EXPECTED)
def test_bench_help(name):
    done = isthmus("bench", name, "--help")
    assert done.returncode == 0
    assert "--quick" in done.stdout
