# SPDX-License-Identifier: BSD-3-Clause
"""The network that benchmarks measure in, and the ways for packets to cross its gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, LabError, Network, NodePlan

FAR_MANY = "198.18.0.0/15"
"""Destinations behind the server, for many flows (RFC 2544's own)."""
FORWARD, NAT, ISTHMUS = "forwarding", "nftables masquerade", "isthmus"
TUNNELS = {ISTHMUS: "ipip", "isthmus by GRE": "gre", "isthmus by IPv4 in IPv6": "ipv6"}
"""Ways that lease, and their tunnels."""

_IPV6_ON = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
_NFT = """
table ip bench {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname "wan0" masquerade
  }
}
"""


def network(name: str) -> Network:
    """Host, gateway, server, in a row; every offload as it comes."""
    return Network(
        name=name,
        nodes=(
            NodePlan(
                name="gateway",
                routes=(
                    f"{figure.FAR} dev wan0 src {figure.SHARED}",
                    "10.0.0.0/8 dev lan0",
                    f"{FAR_MANY} via {figure.SERVER} dev wan0 onlink",
                ),
                sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"} | _IPV6_ON,
            ),
            NodePlan(
                name="host",
                routes=(f"{figure.FAR} via {figure.GATEWAY_NEAR} metric 100",),
                sysctls=OPEN_FORWARDING | _IPV6_ON,
            ),
            NodePlan(
                name="server",
                routes=(f"{figure.SHARED} dev eth0", f"10.0.0.0/8 via {figure.SHARED} dev eth0"),
                sysctls=OPEN_FORWARDING,
            ),
        ),
        cables=(
            Cable(
                End(node="host", interface="eth0", addresses=("10.0.0.4/24", "2001:db8::4/64 nodad")),
                End(
                    node="gateway",
                    interface="lan0",
                    addresses=(f"{figure.GATEWAY_NEAR}/24", f"{figure.GATEWAY_NEAR6}/64 nodad"),
                ),
            ),
            Cable(
                End(node="gateway", interface="wan0", addresses=(f"{figure.SHARED}/32",)),
                End(node="server", interface="eth0", addresses=(f"{figure.SERVER}/24",)),
            ),
        ),
    )


@contextlib.contextmanager
def masquerading(lab: Lab) -> Iterator[None]:
    """Let the gateway be what people use today."""
    gateway = lab["gateway"]
    path = gateway.directory / "bench.nft"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_NFT, encoding="utf-8")
    gateway.run("nft", "-f", str(path))
    try:
        yield
    finally:
        gateway.run("nft", "delete", "table", "ip", "bench")


@contextlib.contextmanager
def leasing(lab: Lab, tunnel: str = "ipip") -> Iterator[None]:
    """Let the gateway and the host be isthmus, on the kernel plane, joined by this kind of tunnel."""
    setting = Setting(plane="kernel")
    here, both = f'address = "{figure.GATEWAY_NEAR}"', f'address = ["{figure.GATEWAY_NEAR}", "{figure.GATEWAY_NEAR6}"]'
    lab["gateway"].up(figure.gateway_configuration(lab, setting, state="memory:").replace(here, both))
    gateway = figure.GATEWAY_NEAR6 if tunnel == "ipv6" else figure.GATEWAY_NEAR
    kind = "gre" if tunnel == "gre" else "ipip"
    line = f'gateway = "{gateway}"\ntunnel_type = "{kind}"'
    text = figure.host_configuration(lab, setting, "host", ports=255)
    try:
        lab["host"].up(text.replace(f'gateway = "{figure.GATEWAY_NEAR}"', line))
        if not wait_until(lambda: two_hosts.holds_lease(lab, "host"), 10, every=0.1):
            raise LabError("the host got no lease within 10 seconds")
        yield
    finally:
        for name in ("host", "gateway"):
            daemon = lab[name].daemons.pop("isthmus", None)
            if daemon:
                daemon.stop()


@contextlib.contextmanager
def crossing(lab: Lab, way: str) -> Iterator[None]:
    """Set the gateway up for one of the ways, and clear it again."""
    if way in TUNNELS:
        with leasing(lab, TUNNELS[way]):
            yield
    else:
        with masquerading(lab) if way == NAT else contextlib.nullcontext():
            yield
