# SPDX-License-Identifier: BSD-3-Clause
"""Two edge networks of IPv6 with a backbone of IPv4 between them: IPv6 in IPv4, and a lease for what has IPv4 only.

::

    host-a 2001:db8::4 ── lan-a ──┬── 2001:db8::1 gateway 149.112.240.55 ──┐
                                  └── 2001:db8::2 edge-a 203.0.113.2 ──────┤
                                                                        backbone ── 192.156.136.22 server
    host-b 2001:db8:b::5 ────────────── 2001:db8:b::1 edge-b 198.51.100.2 ─┘
           198.51.100.130

The seed's edge router does two things: it leases IPv4 to its hosts, and it puts their IPv6 into IPv4 toward
other edge networks. The first is isthmus, the second stock Linux (``sit``), here a machine beside it:
edge-a and edge-b are machines of a User Mode Linux guest, whose kernel has the driver for certain.
"""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.address import Address
from isthmus.lab import edge, figure, stock, uml
from isthmus.lab.capture import IPV4, IPV6, Capture, capturing
from isthmus.lab.edge import Carried, cable, end
from isthmus.lab.lab import Lab
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.scenarios.ipv6_local import came_from, carried_by, keys, names
from isthmus.lab.stock import by_name
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan
from isthmus.lab.uml import Machine, Plug

NAME = "ipv6-remote"
ROUTERS = "routers"
"""Where the guest runs."""
REMOTE = "host-b.remote.example"
HOST_A, HOST_B, HOST_B4 = "2001:db8::4", "2001:db8:b::5", "198.51.100.130"
EDGE_A, EDGE_B = "203.0.113.2", "198.51.100.2"
"""The ends of the tunnel between the edge routers."""
_EDGE_A6, _EDGE_B6, _EDGE_B4 = "2001:db8::2", "2001:db8:b::1", "198.51.100.129"
_NEAR6, _REMOTE6, _REMOTE4 = "2001:db8::/64", "2001:db8:b::/64", "198.51.100.128/25"
_TUNNEL_MTU = 1500 - 20
_TRANSFER = 200_000


def network() -> Network:
    """The wires; what the edge routers are is said when their guest boots."""
    forwards = {"net.ipv4.ip_forward": "1"}
    nodes = (
        NodePlan(
            name="gateway",
            routes=(
                f"149.112.240.1 dev wan0 src {figure.SHARED}",
                f"default via 149.112.240.1 dev wan0 src {figure.SHARED}",
            ),
            sysctls=OPEN_FORWARDING | edge.IPV6 | forwards,
        ),
        # No IPv6 here at all: what gets through it is IPv4.
        NodePlan(
            name="backbone", routes=(f"{figure.SHARED} dev gateway", f"{_REMOTE4} via {EDGE_B}"), sysctls=forwards
        ),
        NodePlan(name="server", routes=("default via 192.156.136.1",)),
        NodePlan(name="lan-a", segment=True),
        NodePlan(name=ROUTERS),
        NodePlan(name="host-a", routes=(f"{_REMOTE6} via {_EDGE_A6}",), sysctls=OPEN_FORWARDING | edge.IPV6),
        NodePlan(
            name="host-b", routes=(f"{_NEAR6} via {_EDGE_B6}", f"default via {_EDGE_B4}"), sysctls=dict(edge.IPV6)
        ),
    )
    cables = (
        cable(end("host-a", "eth0", f"{HOST_A}/64"), end("lan-a", "host-a")),
        cable(end("gateway", "lan0", f"{edge.GATEWAY6}/64"), end("lan-a", "gateway")),
        cable(end(ROUTERS, "a-lan"), end("lan-a", "edge-a")),
        cable(end("gateway", "wan0", f"{figure.SHARED}/32"), end("backbone", "gateway", "149.112.240.1/32")),
        cable(end(ROUTERS, "a-wan"), end("backbone", "edge-a", "203.0.113.1/30")),
        cable(end(ROUTERS, "b-wan"), end("backbone", "edge-b", "198.51.100.1/30")),
        cable(end("server", "eth0", f"{figure.SERVER}/24"), end("backbone", "server", "192.156.136.1/24")),
        cable(end(ROUTERS, "b-lan"), end("host-b", "eth0", f"{HOST_B}/64", f"{HOST_B4}/25")),
        uml.management(ROUTERS),
    )
    return Network(name=NAME, nodes=nodes, cables=cables)


def missing() -> str:
    """Say what is not installed that this needs, and how to get it; nothing if nothing is."""
    return "; ".join(filter(None, (uml.missing(), missing_tools(*stock.PACKAGES))))


def start(lab: Lab, setting: Setting) -> None:
    """Start the edge routers, the servers and the names, then the gateway and its host."""
    if lacks := missing():
        raise LabError(lacks)
    _boot(lab)
    stock.start_web(lab["server"], ipv6=False)
    stock.start_web(lab["host-b"], ipv6=True)
    stock.start_sshd(lab["host-b"], keys(lab))
    stock.start_names(lab["gateway"], edge.GATEWAY6, {REMOTE: (HOST_B4, HOST_B), edge.FAR_NAME: (figure.SERVER,)})
    lab["gateway"].up(edge.gateway_configuration(lab, setting, edge.GATEWAY6))
    edge.start_hosts(lab, {"host-a": edge.host_configuration(lab, setting, "host-a", (figure.FAR, _REMOTE4))})


def _boot(lab: Lab) -> None:
    plugs = (
        Plug(machine="edge-a", interface="a-lan", address=f"{_EDGE_A6}/64 nodad"),
        Plug(machine="edge-a", interface="a-wan", address=f"{EDGE_A}/30"),
        Plug(machine="edge-b", interface="b-lan", address=f"{_EDGE_B6}/64 nodad"),
        Plug(machine="edge-b", interface="b-wan", address=f"{EDGE_B}/30"),
    )
    machines = uml.boot(lab[ROUTERS], plugs, ("ipv6", "sit"))
    _edge_router(machines["edge-a"], (EDGE_A, EDGE_B), "203.0.113.1", _REMOTE6)
    _edge_router(machines["edge-b"], (EDGE_B, EDGE_A), "198.51.100.1", _NEAR6)
    machines["edge-b"].ip(f"address add {_EDGE_B4}/25 dev eth0")


def _edge_router(machine: Machine, ends: tuple[str, str], backbone: str, beyond: str) -> None:
    """Make a machine a router with a configured tunnel to the other one (RFC 4213 §3)."""
    local, remote = ends
    # The backbone has no IPv6, and gets none of its chatter.
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth1/disable_ipv6"):
        machine.run("sh", "-c", f"echo 1 > /proc/sys/{key}")
    machine.ip(
        f"route add default via {backbone}",
        f"tunnel add sit1 mode sit local {local} remote {remote} ttl 64",
        "link set sit1 up",
        f"route add {beyond} dev sit1",
    )


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Go by name to the other edge network, then to what has IPv4 only, then to both at once."""
    records = {name: stock.look_up(lab["host-a"], edge.GATEWAY6, name) for name in (REMOTE, edge.FAR_NAME)}
    yield from names(records, ok=bool(records[REMOTE]["A"]))
    before = carried_by(lab)
    with (
        capturing(lab["lan-a"], "host-a", ethertypes=(IPV4, IPV6)) as near,
        capturing(lab["backbone"], "edge-a", ethertypes=(IPV4, IPV6)) as between,
        capturing(lab["host-b"], "eth0", ethertypes=(IPV4, IPV6)) as beyond,
    ):
        yield from _to_the_other_edge(lab)
    yield from _on_the_wires(near, between, beyond)
    after = carried_by(lab)
    yield Check("nothing of it passes the RSIP gateway", before == after, f"{after - before} packets forwarded")
    yield from _both_at_once(lab)
    yield _by_ipv4(lab)


def _to_the_other_edge(lab: Lab) -> Iterator[Check]:
    page = stock.fetch(f"http://{REMOTE}/octets/{_TRANSFER}", "--output", "/dev/null")
    done = by_name(lab["host-a"], edge.GATEWAY6, *page, "--write-out", "%{size_download} %{local_ip} %{remote_ip}")
    yield came_from(f"curl to {REMOTE}", done, f"{_TRANSFER} {HOST_A} {HOST_B}")
    done = by_name(lab["host-a"], edge.GATEWAY6, *_ssh(lab))
    yield came_from(f"ssh to {REMOTE}, which sees its true peer", done, f"{HOST_A} ")


def _ssh(lab: Lab, more: str = "") -> list[str]:
    return stock.ssh(keys(lab), REMOTE, f'echo "$SSH_CONNECTION"{more}')


def _on_the_wires(near: Capture, between: Capture, beyond: Capture) -> Iterator[Check]:
    for name, capture in (("the near edge network", near), ("the remote edge network", beyond)):
        counted = edge.tally(capture.packets)
        yield Check(f"plain IPv6 in {name}", edge.payload(counted) == {Carried.IPV6}, edge.told(counted))
    counted = edge.tally(between.packets)
    ends = {_addresses(packet.octets, 12, 4) for packet in between.packets}
    inner = {_addresses(packet.octets[20:], 8, 16) for packet in between.packets}
    ok = counted.keys() == {Carried.IPV6_IN_IPV4} and ends == {(EDGE_A, EDGE_B), (EDGE_B, EDGE_A)}
    yield Check("protocol 41 and nothing else on the backbone", ok, f"{edge.told(counted)}, from {EDGE_A} to {EDGE_B}")
    ok = {(HOST_A, HOST_B), (HOST_B, HOST_A)} <= inner
    yield Check("in it the very addresses of both hosts", ok, "; ".join(" > ".join(pair) for pair in sorted(inner)))
    largest = max((len(packet.octets) for packet in between.packets), default=0)
    text = f"the largest has {largest} octets, {_TUNNEL_MTU} of them IPv6"
    yield Check("packets fill the tunnel: the hosts know its MTU", largest == _TUNNEL_MTU + 20, text)


def _addresses(octets: bytes, at: int, size: int) -> tuple[str, str]:
    """Source and destination of a header."""
    return (
        str(Address.from_octets(octets[at : at + size])),
        str(Address.from_octets(octets[at + size : at + 2 * size])),
    )


def _both_at_once(lab: Lab) -> Iterator[Check]:
    """IPv6 to the other edge and a lease for the backbone, by one host at one time."""
    with (
        capturing(lab["lan-a"], "host-a", ethertypes=(IPV4, IPV6)) as near,
        capturing(lab["backbone"], "gateway", ethertypes=(IPV4, IPV6)) as far,
    ):
        inside, outside = stock.at_once(
            lab["host-a"], edge.GATEWAY6, _ssh(lab, "; sleep 1"), stock.fetch(f"http://{edge.FAR_NAME}/seconds/1")
        )
    yield came_from(f"both at once: ssh to {REMOTE} over IPv6", inside, f"{HOST_A} ")
    yield came_from(f"both at once: curl to {edge.FAR_NAME} by the lease", outside, f"You are {figure.SHARED} ")
    held = two_hosts.leased_ports(lab).get(HOST_A)
    port = two_hosts.requests(lab)[-1]["port"]
    yield Check("the server saw a port of host-a's lease", held is not None and port in held, f"{port} of {held}")
    counted, beyond = edge.tally(near.packets), edge.tally(far.packets)
    ok = edge.payload(counted) == {Carried.IPV6, Carried.IPV4_IN_IPV6} and edge.payload(beyond) == {Carried.IPV4}
    text = f"edge: {edge.told(counted)}; gateway's public side: {edge.told(beyond)}"
    yield Check("three ways are told apart: IPv6, IPv4 in IPv6, and IPv6 in IPv4 farther on", ok, text)


def _by_ipv4(lab: Lab) -> Check:
    """The remote host has IPv4, too; who insists on it goes by the lease."""
    done = by_name(lab["host-a"], edge.GATEWAY6, *stock.fetch(f"http://{REMOTE}/", "--ipv4"))
    return came_from(f"IPv4 to {REMOTE} goes by the lease", done, f"You are {figure.SHARED} ")


SCENARIO = Scenario(
    name=NAME,
    title="Between IPv6 edge networks in IPv4, by stock edge routers; beside it a lease for what has IPv4 only",
    shows=("seed RSIP 4.3", "RFC 4213 3", "RFC 2473 3"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
