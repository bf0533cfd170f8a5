# SPDX-License-Identifier: BSD-3-Clause
"""Two neighbours that have IPv6 and IPv4 use IPv6; beside it one of them holds a lease for what has IPv4 only.

::

    host-a 2001:db8::4 10.0.0.4 ──┐
                                  lan ── 2001:db8::1 10.0.0.1 gateway 149.112.240.55 ── 192.156.136.22 server
    host-b 2001:db8::5 10.0.0.5 ──┘
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

from isthmus.lab import edge, figure, stock
from isthmus.lab.capture import IPV4, IPV6, Capture, capturing
from isthmus.lab.edge import Carried, cable, end
from isthmus.lab.lab import Lab
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.stock import by_name
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan

NAME = "ipv6-local"
ASKS, ANSWERS = "host-a", "host-b"
NEIGHBOUR = "host-b.edge.example"
HOSTS6 = {"host-a": "2001:db8::4", "host-b": "2001:db8::5"}


def network(name: str, *, ipv4: bool) -> Network:
    """Figure 1 with an edge network of IPv6.

    Args:
        name: Of the network.
        ipv4: Whether the edge network has IPv4, too.
    """
    gateway = [f"{edge.GATEWAY6}/64", *([f"{figure.GATEWAY_NEAR}/24"] if ipv4 else [])]
    nodes = (
        NodePlan(
            name="gateway",
            routes=(f"{figure.FAR} dev wan0 src {figure.SHARED}",),
            sysctls=OPEN_FORWARDING | edge.IPV6 | {"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(name="server", routes=(f"{figure.SHARED} dev eth0", f"{figure.PUBLIC} via {figure.SHARED} dev eth0")),
        NodePlan(name="lan", segment=True),
        *(NodePlan(name=host, sysctls=OPEN_FORWARDING | edge.IPV6) for host in HOSTS6),
    )
    cables = [
        cable(end("gateway", "lan0", *gateway), end("lan", "gateway")),
        cable(end("gateway", "wan0", f"{figure.SHARED}/32"), end("server", "eth0", f"{figure.SERVER}/24")),
    ]
    for host, address in HOSTS6.items():
        own = [f"{address}/64", *([f"{figure.HOSTS[host]}/24"] if ipv4 else [])]
        cables.append(cable(end(host, "eth0", *own), end("lan", host)))
    return Network(name=name, nodes=nodes, cables=tuple(cables))


def start(lab: Lab, setting: Setting) -> None:
    """Start the servers and the names, then the gateway and the one host that wants a lease."""
    if missing := missing_tools(*stock.PACKAGES):
        raise LabError(missing)
    stock.start_web(lab["server"], ipv6=False)
    stock.start_web(lab[ANSWERS], ipv6=True)
    stock.start_sshd(lab[ANSWERS], keys(lab))
    both = {NEIGHBOUR: (figure.HOSTS[ANSWERS], HOSTS6[ANSWERS]), edge.FAR_NAME: (figure.SERVER,)}
    stock.start_names(lab["gateway"], edge.GATEWAY6, both)
    lab["gateway"].up(edge.gateway_configuration(lab, setting, edge.GATEWAY6, figure.GATEWAY_NEAR))
    edge.start_hosts(lab, {ASKS: edge.host_configuration(lab, setting, ASKS)})


def keys(lab: Lab) -> Path:
    """Where the keys of ssh are."""
    return lab.record.directory / "keys"


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Go by name: to the neighbour, to the server far away, then to both at the same time."""
    records = {name: stock.look_up(lab[ASKS], edge.GATEWAY6, name) for name in (NEIGHBOUR, edge.FAR_NAME)}
    yield from names(records, ok=bool(records[NEIGHBOUR]["A"]))
    before = two_hosts.leased_ports(lab), carried_by(lab)
    with capturing(lab["lan"], ASKS, ethertypes=(IPV4, IPV6)) as near:
        yield from _to_the_neighbour(lab)
    yield _only(Carried.IPV6, near, f"between {ASKS} and {ANSWERS} there is nothing but plain IPv6")
    after = two_hosts.leased_ports(lab), carried_by(lab)
    yield Check("nothing of it concerns the gateway or a lease", before == after, f"{after[1]} packets in tunnels")
    yield from _both_at_once(lab)
    yield _ipv4_would_do(lab)


def names(records: dict[str, dict[str, list[str]]], *, ok: bool) -> Iterator[Check]:
    """What DNS says about both names: one has an address of IPv6, the other has none."""
    *_, (far, of_far) = records.items()
    for name, found in records.items():
        right = bool(found["A"]) and not found["AAAA"] if name == far else bool(found["AAAA"]) and ok
        text = "; ".join(f"{kind} {' '.join(addresses) or 'none'}" for kind, addresses in found.items())
        yield Check(f"DNS knows {name}", right and bool(of_far), text)


def carried_by(lab: Lab) -> int:
    """How many packets of hosts the gateway has forwarded."""
    counters = lab["gateway"].isthmus("counters")
    return sum(count for reason, count in counters.items() if reason.startswith("FORWARDED"))


def _to_the_neighbour(lab: Lab) -> Iterator[Check]:
    done = by_name(lab[ASKS], edge.GATEWAY6, *stock.fetch(f"http://{NEIGHBOUR}/"))
    yield came_from(f"curl to {NEIGHBOUR}", done, f"You are {HOSTS6[ASKS]} ")
    done = by_name(lab[ASKS], edge.GATEWAY6, *_ssh(lab))
    yield came_from(f"ssh to {NEIGHBOUR}", done, f"{HOSTS6[ASKS]} ")


def _ssh(lab: Lab, more: str = "") -> list[str]:
    return stock.ssh(keys(lab), NEIGHBOUR, f'echo "$SSH_CONNECTION"{more}')


def came_from(name: str, done: CompletedProcess[str], expected: str) -> Check:
    """Judge a program by how what it said begins: with the address that the server has seen."""
    return Check(name, done.returncode == 0 and done.stdout.startswith(expected), stock.words(done))


def _only(kind: Carried, capture: Capture, name: str) -> Check:
    counted = edge.tally(capture.packets)
    return Check(name, edge.payload(counted) == {kind} and not capture.missed, edge.told(counted))


def _both_at_once(lab: Lab) -> Iterator[Check]:
    """One call within the edge network, one out of it, at the same time."""
    with capturing(lab["lan"], ASKS, ethertypes=(IPV4, IPV6)) as near:
        inside, outside = stock.at_once(
            lab[ASKS], edge.GATEWAY6, _ssh(lab, "; sleep 1"), stock.fetch(f"http://{edge.FAR_NAME}/seconds/1")
        )
    yield came_from(f"both at once: ssh to {NEIGHBOUR} over IPv6", inside, f"{HOSTS6[ASKS]} ")
    yield came_from(f"both at once: curl to {edge.FAR_NAME} by the lease", outside, f"You are {figure.SHARED} ")
    held = two_hosts.leased_ports(lab).get(HOSTS6[ASKS])
    port = two_hosts.requests(lab)[-1]["port"]
    yield Check(f"the server saw a port of {ASKS}'s lease", held is not None and port in held, f"{port} of {held}")
    counted = edge.tally(near.packets)
    ok = edge.payload(counted) == {Carried.IPV6, Carried.IPV4_IN_IPV6}
    yield Check("the one goes plainly, the other in the tunnel, IPv4 in IPv6", ok, edge.told(counted))


def _ipv4_would_do(lab: Lab) -> Check:
    """The other way is open, so that IPv6 was a choice."""
    done = by_name(lab[ASKS], edge.GATEWAY6, *stock.fetch(f"http://{NEIGHBOUR}/", "--ipv4"))
    return came_from(f"IPv4 to {NEIGHBOUR} would have done, too", done, f"You are {figure.HOSTS[ASKS]} ")


SCENARIO = Scenario(
    name=NAME,
    title="An IPv4/IPv6 host and its neighbour use IPv6; a lease is for what has IPv4 only",
    shows=("seed RSIP 4.3", "RFC 6724 6", "RFC 2473 3"),
    network=network(NAME, ipv4=True),
    start=start,
    play=play,
    root=True,
)
