# SPDX-License-Identifier: BSD-3-Clause
"""A link within the tunnel that carries less than the tunnel was made for, in IPv4 and in IPv6 (RFC 2003 §5.1).

::

    host-a 10.1.0.4       IP-IP          ─┐
                                        branch ─ 1400 octets ─ core ── gateway 10.0.0.1 ─ 149.112.240.55 ── server
    host-b 2001:db8:1::5  IPv4 in IPv6   ─┘                            2001:db8::1

Neither gateway nor hosts are at the narrow link, and nothing is configured for it: outer packets are lost there, and
only the errors of ``core`` and ``branch`` say so, to the ends of the tunnels.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

from isthmus.lab import figure
from isthmus.lab.capture import IPV4, IPV6, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire

NAME = "narrow"
NARROW = 1400
HOST_A, HOST_B = "10.1.0.4", "2001:db8:1::5"
_CARRIED = {"host-a": NARROW - 20, "host-b": NARROW - 40}
"What fits: the narrow link less the outer header."
_IPV6_ON = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
_ROUTER = OPEN_FORWARDING | _IPV6_ON | {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}


def network() -> Network:
    """Two routers between the hosts and their gateway."""
    nodes = (
        NodePlan(
            name="gateway",
            routes=(
                "10.1.0.0/24 via 10.0.0.9",
                "2001:db8:1::/64 via 2001:db8::9",
                f"{figure.FAR} dev wan0 src {figure.SHARED}",
            ),
            sysctls=OPEN_FORWARDING | _IPV6_ON | {"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(name="server", routes=(f"{figure.SHARED} dev eth0",)),
        NodePlan(
            name="core",
            routes=("10.1.0.0/24 via 10.2.0.1", "2001:db8:1::/64 via 2001:db8:2::1"),
            sysctls=_ROUTER,
        ),
        NodePlan(
            name="branch",
            routes=("10.0.0.0/24 via 10.2.0.2", "2001:db8::/64 via 2001:db8:2::2"),
            sysctls=_ROUTER,
        ),
        NodePlan(name="host-a", routes=("10.0.0.0/24 via 10.1.0.1",), sysctls=OPEN_FORWARDING),
        NodePlan(name="host-b", routes=("2001:db8::/64 via 2001:db8:1::1",), sysctls=OPEN_FORWARDING | _IPV6_ON),
    )
    cables = (
        wire(
            ("gateway", "lan0", f"{figure.GATEWAY_NEAR}/24", f"{figure.GATEWAY_NEAR6}/64 nodad"),
            ("core", "lan0", "10.0.0.9/24", "2001:db8::9/64 nodad"),
        ),
        wire(("gateway", "wan0", f"{figure.SHARED}/32"), ("server", "eth0", f"{figure.SERVER}/24")),
        wire(
            ("core", "down0", "10.2.0.2/30", "2001:db8:2::2/64 nodad"),
            ("branch", "up0", "10.2.0.1/30", "2001:db8:2::1/64 nodad"),
            mtu=NARROW,
        ),
        wire(("host-a", "eth0", f"{HOST_A}/24"), ("branch", "a0", "10.1.0.1/24")),
        wire(("host-b", "eth0", f"{HOST_B}/64 nodad"), ("branch", "b0", "2001:db8:1::1/64 nodad")),
    )
    return Network(name=NAME, nodes=nodes, cables=cables)


def start(lab: Lab, setting: Setting) -> None:
    """Start the server, the gateway and both hosts, and wait until each host has its lease."""
    if missing := missing_tools("iperf3"):
        raise LabError(missing)
    for at, host in enumerate(_CARRIED):
        port = str(5201 + at)
        lab["server"].start(
            f"iperf3-{host}", "iperf3", "--server", "--forceflush", "--port", port, ready="Server listen"
        )
    near = f'address = "{figure.GATEWAY_NEAR}"'
    both = f'address = ["{figure.GATEWAY_NEAR}", "{figure.GATEWAY_NEAR6}"]'
    lab["gateway"].up(figure.gateway_configuration(lab, setting).replace(near, both))
    for host, end in (("host-a", figure.GATEWAY_NEAR), ("host-b", figure.GATEWAY_NEAR6)):
        text = figure.host_configuration(lab, setting, host)
        lab[host].up(text.replace(f'gateway = "{figure.GATEWAY_NEAR}"', f'gateway = "{end}"'))
    for host in _CARRIED:
        if not wait_until(lambda: two_hosts.holds_lease(lab, host), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Send more than fits, both ways, and ask who was told."""
    for at, (host, carried) in enumerate(_CARRIED.items()):
        for name, options in (("up"), ("down", ("--reverse",))):
            with capturing(lab["core"], "down0", ethertypes=(IPV4, IPV6)) as narrow:
                done = lab[host].run(
                    "iperf3", "--client", figure.SERVER, "--port", str(5201 + at), "--time", "1", "--json",
                    "--connect-timeout", "5000", "--bitrate", "20M", *options, check=False, seconds=40,
                )  # fmt: skip
            largest = max((len(packet.octets) for packet in narrow.packets), default=0)
            ok = _received(done) >= 300 << 10 and NARROW - 8 <= largest <= NARROW
            text = f"{_received(done)} octets received; the largest packet on the narrow link has {largest} octets"
            yield Check(f"{host}: TCP {name} by a link of {NARROW} octets within its tunnel", ok, text)
        # The way to host-b carries less than that to host-a, and both have one address there.
        route = " ".join(lab["server"].run("ip", "route", "get", figure.SHARED).stdout.split())
        yield Check(f"the server is told {carried} octets for {host}", f" mtu {carried}" in route, route)
        yield _program_told(lab, host, carried)
    told = lab["gateway"].isthmus("counters").get("REPLIED", 0)
    yield Check("it was the gateway that told the server", told > 0, f"REPLIED counted {told}")


def _received(done: subprocess.CompletedProcess[str]) -> int:
    try:
        return int(json.loads(done.stdout)["end"]["sum_received"]["bytes"])
    except (ValueError, KeyError):
        return 0


_TOLD = """\
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.setsockopt(socket.IPPROTO_IP, 10, 2)
    udp.connect((sys.argv[1], 7777))
    for size in [int(sys.argv[2])] * 5:
        try:
            udp.send(bytes(size))
        except OSError:
            break
        time.sleep(0.3)
    print("path", udp.getsockopt(socket.IPPROTO_IP, 14))
"""


def _program_told(lab: Lab, host: str, carried: int) -> Check:
    """A program that forbids fragments and asks what its way carries (RFC 1191 §6.2)."""
    done = lab[host].run(ISTHMUS[0], "-c", _TOLD, figure.SERVER, str(carried - 28 + 1), check=False, seconds=20)
    said = (done.stdout or done.stderr).strip()
    return Check(f"{host}: a program is told {carried} octets", said == f"path {carried}", said)


SCENARIO = Scenario(
    name=NAME,
    title="A narrow link between gateway and hosts: large packets are not lost, and their senders are told",
    shows=("RFC 2003 4", "RFC 2003 5.1", "RFC 2473 7.1", "RFC 2473 8", "RFC 1191 4", "RFC 8201 4"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
