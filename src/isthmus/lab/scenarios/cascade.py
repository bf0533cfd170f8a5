# SPDX-License-Identifier: BSD-3-Clause
"""A gateway behind a gateway: the inner one leases out what the outer one leased to it (RFC 3102 §4.2).

::

    host-a 10.1.0.4 ─ 10.1.0.1 child 10.0.0.4 ─┐
                                               lan ─ 10.0.0.1 gateway 149.112.240.55 ─ 192.156.136.22 server
                            host-b 10.0.0.5 ───┘
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from isthmus.border.ranges import Ranges
from isthmus.lab import figure
from isthmus.lab.capture import capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import spoofing, two_hosts
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.wire.transport import Protocol

NAME = "cascade"
CHILD, CHILD_NEAR, INNER_HOST = "10.0.0.4", "10.1.0.1", "10.1.0.4"
PORTS = "19000-19127"
_LEASE_SECONDS = 90
"""Of the parent; children ask for more."""


def network() -> Network:
    """Figure 1, in which host-a has become a gateway with a host behind it."""
    nodes = (
        NodePlan(
            name="gateway",
            routes=(f"{figure.FAR} dev wan0 src {figure.SHARED}",),
            sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(name="server", routes=(f"{figure.SHARED} dev eth0", f"{figure.PUBLIC} via {figure.SHARED} dev eth0")),
        NodePlan(name="lan", segment=True),
        NodePlan(name="child", sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}),
        *(NodePlan(name=host, sysctls=OPEN_FORWARDING) for host in ("host-a", "host-b")),
    )
    cables = (
        wire(("gateway", "lan0", f"{figure.GATEWAY_NEAR}/24"), ("lan", "gateway")),
        wire(("gateway", "wan0", f"{figure.SHARED}/32"), ("server", "eth0", f"{figure.SERVER}/24")),
        wire(("child", "up0", f"{CHILD}/24"), ("lan", "child")),
        wire(("child", "lan0", f"{CHILD_NEAR}/24"), ("host-a", "eth0", f"{INNER_HOST}/24")),
        wire(("host-b", "eth0", "10.0.0.5/24"), ("lan", "host-b")),
    )
    return Network(name=NAME, nodes=nodes, cables=cables)


def start(lab: Lab, setting: Setting) -> None:
    """Start from the outside inward: each gateway needs the one before it."""
    two_hosts.start_server(lab)
    more = f"[gateway.lease]\nmaximum = {_LEASE_SECONDS}\ndefault = {_LEASE_SECONDS}\n"
    lab["gateway"].up(figure.gateway_configuration(lab, setting) + more)
    child = lab["child"]
    child.up(_child_as_host(lab, setting), name="upward")
    child.up(_child_as_gateway(lab, setting), name="child")
    lab["host-a"].up(_inner_host(lab, setting))
    lab["host-b"].up(figure.host_configuration(lab, setting, "host-b"))
    for host in ("host-a", "host-b"):
        if not wait_until(lambda: two_hosts.holds_lease(lab, host), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")


def _child_as_host(lab: Lab, setting: Setting) -> str:
    return f"""\
[isthmus]
name = "upward"
run = "{lab["child"].run_directory}"
plane = "{setting.plane}"

[[realm]]
name = "private"
interface = "up0"

[host]
near = "private"
gateway = "{figure.GATEWAY_NEAR}"

[[host.lease]]
ports = "{PORTS}"
device = "rsip0"
routes = ["{figure.FAR}"]
ephemeral = false
"""


def _child_as_gateway(lab: Lab, setting: Setting) -> str:
    node = lab["child"]
    return f"""\
[isthmus]
name = "child"
run = "{node.run_directory}"
state = "{node.directory / "leases.db"}"
plane = "{setting.plane}"

[[realm]]
name = "inner"
interface = "lan0"

[[realm]]
name = "leased"
interface = "rsip0"

[gateway]
near = "inner"
realm = "leased"
address = "{CHILD_NEAR}"
attract = "none"

[gateway.parent]
socket = "{node.run_directory}/upward.sock"

[gateway.lease]
default = 3600

[[gateway.pool]]
address = "{figure.SHARED}"
ports = "{PORTS}"
"""


def _inner_host(lab: Lab, setting: Setting) -> str:
    text = figure.host_configuration(lab, setting, "host-a", ports=32)
    return text.replace(f'gateway = "{figure.GATEWAY_NEAR}"', f'gateway = "{CHILD_NEAR}"')


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Fetch through two gateways; look at what each lets through, and for how long."""
    inner = lab["child"].isthmus("leases")
    outer = [row for row in lab["gateway"].isthmus("leases") if row["host"] == CHILD]
    yield from _who_holds_what(inner, outer)
    with capturing(lab["lan"], "child") as between, capturing(lab["server"], "eth0") as far:
        done = lab["host-a"].run(
            "curl", "--silent", "--show-error", "--max-time", "10", f"http://{figure.SERVER}/", check=False
        )
    yield Check(
        "a host behind two gateways fetches the page", done.returncode == 0, (done.stdout or done.stderr).strip()
    )
    seen = [request for request in two_hosts.requests(lab) if request["kind"] == "http"]
    held = Ranges.parse(str(inner[0]["ports"])) if inner else Ranges(())
    ok = bool(seen) and seen[-1]["peer"] == figure.SHARED and int(seen[-1]["port"]) in held
    yield Check("the server saw a port of the inner lease", ok, f"{seen[-1] if seen else 'nobody'}, leased {held}")
    tunnelled = [packet.octets for packet in between.packets if packet.octets[9] == Protocol.IPIP]
    nested = [octets for octets in tunnelled if octets[29] == Protocol.IPIP]
    ok = bool(tunnelled) and not nested and bool(far.packets)
    yield Check(
        "each level takes its tunnel off and puts the next on",
        ok,
        f"{len(tunnelled)} packets in one tunnel, {len(nested)} in two",
    )
    pages = lab["host-b"].run("curl", "--silent", "--max-time", "10", f"http://{figure.SERVER}/", check=False)
    yield Check("a host of the outer gateway is beside it", pages.returncode == 0, pages.stdout.strip())
    yield _spoofed(lab)
    yield from _taken_back(lab)


def _who_holds_what(inner: list[dict[str, Any]], outer: list[dict[str, Any]]) -> Iterator[Check]:
    ok = len(inner) == 1 and len(outer) == 1 and inner[0]["address"] == outer[0]["address"] == figure.SHARED
    ok = ok and Ranges.parse(str(outer[0]["ports"])).covers(Ranges.parse(str(inner[0]["ports"])))
    text = "; ".join(f"{row['host']} has {row['address']} {row['ports']}" for row in (*outer, *inner))
    yield Check("the inner lease lies within the outer one", ok, text)
    left = [datetime.fromisoformat(row["expires_at"]).timestamp() - time.time() for row in (*outer, *inner)]
    ok = len(left) == 2 and 0 < left[1] <= left[0] + 1
    yield Check(
        "and does not last longer, though the host may have an hour",
        ok,
        " and ".join(f"{seconds:.0f} s" for seconds in left) + " are left",
    )


def _spoofed(lab: Lab) -> Check:
    """The inner gateway checks its own hosts; nothing of it reaches the outer one (RFC 3102 §4.2.1)."""
    before = lab["child"].isthmus("counters").get("SOURCE_PORT_NOT_LEASED", 0)
    outer = lab["gateway"].isthmus("counters").get("SOURCE_PORT_NOT_LEASED", 0)
    misuse = spoofing.misuses(own=0, others=19127)[0]
    lab["host-a"].send_raw(Protocol.IPIP, CHILD_NEAR, misuse.inner())
    wait_until(lambda: lab["child"].isthmus("counters").get("SOURCE_PORT_NOT_LEASED", 0) > before, 3, every=0.2)
    counted = lab["child"].isthmus("counters").get("SOURCE_PORT_NOT_LEASED", 0) - before
    passed = lab["gateway"].isthmus("counters").get("SOURCE_PORT_NOT_LEASED", 0) - outer
    return Check(
        "a spoofed packet ends at the first gateway", (counted, passed) == (1, 0), f"inner {counted}, outer {passed}"
    )


def _taken_back(lab: Lab) -> Iterator[Check]:
    """What the outer gateway revokes, the inner one's hosts lose too."""
    lab["gateway"].run(*ISTHMUS, "revoke", CHILD, "--socket", str(lab["gateway"].socket_path))
    gone = wait_until(lambda: not lab["child"].isthmus("leases"), 6, every=0.3)
    yield Check(
        "what the outer gateway takes back, the inner one takes back",
        gone,
        "no inner lease is left" if gone else "it is still there",
    )


SCENARIO = Scenario(
    name=NAME,
    title="A gateway behind a gateway leases out what it has leased, and never for longer",
    shows=("RFC 3102 4.2", "RFC 3102 4.2.1", "RFC 3103 9.13"),
    network=network(),
    start=start,
    play=play,
)
