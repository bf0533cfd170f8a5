# SPDX-License-Identifier: BSD-3-Clause
"""Hosts find their gateway: by DHCP, by SLP from the group and from one agent, and the least loaded of two.

::

    host-a 10.0.0.4 ──┐                                             ┌── 192.156.136.22 server
    host-b 10.0.0.5 ──┤  ┌─ 10.0.0.1 gateway   149.112.240.55 ──────┤
           dhcp .53 ──lan┤                                         wan
                         └─ 10.0.0.2 gateway-b 149.112.240.56 ──────┘
                                     port 4455
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, LabError, Network, NodePlan, without_offload

NAME = "discovery"
OPTION = 224
DEAD = "10.0.0.9"
"""The first gateway that DHCP names; nobody is there."""
SERVER, FAR, PUBLIC = "192.156.136.22", "192.156.136.0/24", "149.112.240.0/24"
GATEWAYS = {"gateway": ("10.0.0.1", "149.112.240.55", 4555), "gateway-b": ("10.0.0.2", "149.112.240.56", 4455)}
"""Near address, leased address, control port: RFC 3105 §7 has 4455 in its example."""
HOSTS = {"host-a": "10.0.0.4", "host-b": "10.0.0.5"}
_DHCP = "10.0.0.53"


def network() -> Network:
    """Two gateways between the same two segments."""
    forwarding = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
    nodes = [
        *(
            NodePlan(name=name, routes=(f"{FAR} dev wan0 src {leased}",), sysctls=forwarding)
            for name, (_, leased, _) in GATEWAYS.items()
        ),
        NodePlan(name="server", routes=(f"{PUBLIC} dev eth0",)),
        NodePlan(name="dhcp"),
        *(NodePlan(name=host, sysctls=OPEN_FORWARDING) for host in HOSTS),
        NodePlan(name="lan", segment=True),
        NodePlan(name="wan", segment=True),
    ]
    near = {name: (near, "lan0") for name, (near, _, _) in GATEWAYS.items()}
    near |= {host: (address, "eth0") for host, address in HOSTS.items()} | {"dhcp": (_DHCP, "eth0")}
    far = {name: (f"{leased}/32", "wan0") for name, (_, leased, _) in GATEWAYS.items()}
    far |= {"server": (f"{SERVER}/24", "eth0")}
    cables = [_cable(node, interface, f"{address}/24", "lan") for node, (address, interface) in near.items()]
    cables += [_cable(node, interface, address, "wan") for node, (address, interface) in far.items()]
    return Network(name=NAME, nodes=tuple(nodes), cables=tuple(cables))


def _cable(node: str, interface: str, address: str, segment: str) -> Cable:
    return Cable(
        End(node=node, interface=interface, addresses=(address,), offload=False),
        End(node=segment, interface=node, offload=False),
    )


def start(lab: Lab, setting: Setting) -> None:
    """Start both gateways, the DHCP server, and a host that makes the first gateway the more loaded one."""
    if missing := missing_tools("dnsmasq-base"):
        raise LabError(missing)
    two_hosts.start_server(lab)
    lab["dhcp"].start("dnsmasq", *_dnsmasq(lab))
    for name in GATEWAYS:
        lab[name].up(_gateway(lab, setting, name))
    lab["host-b"].up(_host(lab, setting, "host-b", f'gateway = "{GATEWAYS["gateway"][0]}"', ports=200))
    if not wait_until(lambda: two_hosts.holds_lease(lab, "host-b"), 10, every=0.1):
        raise LabError("host-b got no lease within 10 seconds")


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Ask in every way; then be a host that knows nothing, by DHCP and by SLP, and lose a gateway."""
    yield from _ask(lab)
    yield from _by_dhcp(lab, setting)
    yield from _by_slp(lab, setting)


def _ask(lab: Lab) -> Iterator[Check]:
    first, second = (address for address, _, _ in GATEWAYS.values())
    rows = _find(lab, "--way", "dhcp")
    seen = [row["address"] for row in rows]
    yield Check("DHCP: the site-specific option lists gateways", seen == [DEAD, first], _text(rows))
    rows = _find(lab, "--way", "slp")
    loads = {row["address"]: row["load"] for row in rows}
    complete = loads == {first: 20, second: 0}
    yield Check("SLP: the group answers, each gateway with its load", complete, _text(rows))
    yield Check("SLP: the least loaded stands first", [row["address"] for row in rows] == [second, first], _text(rows))
    port = next((row["port"] for row in rows if row["address"] == second), None)
    yield Check("SLP: the URL's port counts", port == GATEWAYS["gateway-b"][2], f"port {port}")
    rows = _find(lab, "--way", "slp", "--agent", first)
    yield Check("SLP: one agent asked by unicast", [row["address"] for row in rows] == [first], _text(rows))
    rows = _find(lab, "--way", "slp", "--predicate", "(&(tunnel-type=IP-IP)(transport=UDP)(load<=10))")
    yield Check(
        "SLP: who is not what is asked for stays silent", [row["address"] for row in rows] == [second], _text(rows)
    )
    rows = _find(lab, "--way", "slp", "--scope", "ELSEWHERE", "--seconds", "1")
    yield Check("SLP: other scopes find nothing", not rows, _text(rows))


def _by_dhcp(lab: Lab, setting: Setting) -> Iterator[Check]:
    lab["host-a"].up(_host(lab, setting, "host-a", _discover("dhcp")))
    held = wait_until(lambda: _holds(lab, "host-a", GATEWAYS["gateway"][1]), 20, every=0.2)
    name = "by DHCP: the first gateway does not answer, the next one leases"
    yield Check(name, held, f"holds {_text(_leases(lab, 'host-a'))}")
    yield _fetch(lab, "by DHCP", GATEWAYS["gateway"][1])
    lab["host-a"].daemons["isthmus"].stop()


def _by_slp(lab: Lab, setting: Setting) -> Iterator[Check]:
    lab["host-a"].up(_host(lab, setting, "host-a", _discover("slp")))
    held = wait_until(lambda: _holds(lab, "host-a", GATEWAYS["gateway-b"][1]), 10, every=0.2)
    yield Check("by SLP: the least loaded gateway leases", held, f"holds {_text(_leases(lab, 'host-a'))}")
    yield _fetch(lab, "by SLP", GATEWAYS["gateway-b"][1])
    lab["gateway-b"].daemons["isthmus"].kill()
    moved = wait_until(lambda: _holds(lab, "host-a", GATEWAYS["gateway"][1]), 30, every=0.5)
    yield Check("a gateway that dies is replaced by the other one", moved, f"holds {_text(_leases(lab, 'host-a'))}")
    yield _fetch(lab, "after the change", GATEWAYS["gateway"][1])


def _find(lab: Lab, *words: str) -> list[dict[str, Any]]:
    """Ask from host-b, which holds a lease already; the answer of an empty network is exit code 1 and no rows."""
    done = lab["host-b"].run(*ISTHMUS, "find", "--interface", "eth0", "--json", *words, check=False)
    if done.returncode not in (0, 1):
        raise LabError(f"isthmus find {' '.join(words)}: exit code {done.returncode}: {done.stderr.strip()}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _text(rows: list[dict[str, Any]]) -> str:
    def one(row: dict[str, Any]) -> str:
        load = f" load {row['load']}" if row.get("load") is not None else ""
        return f"{row['address']}{load}"

    return ", ".join(one(row) for row in rows) or "nothing"


def _leases(lab: Lab, host: str) -> list[dict[str, Any]]:
    """What a host holds; nothing while it is between two gateways."""
    try:
        rows: list[dict[str, Any]] = lab[host].isthmus("leases")
    except LabError:
        return []
    return rows


def _holds(lab: Lab, host: str, address: str) -> bool:
    return any(row["address"] == address for row in _leases(lab, host))


def _fetch(lab: Lab, when: str, address: str) -> Check:
    without_offload(lab["host-a"].namespace, "rsip0")
    done = lab["host-a"].run("curl", "--silent", "--show-error", "--max-time", "10", f"http://{SERVER}/", check=False)
    words = " ".join((done.stdout or done.stderr).split())
    return Check(f"{when}: a page is fetched from {address}", f"You are {address} " in done.stdout, words)


def _discover(way: str) -> str:
    return f'discover = {{ ways = ["{way}"], option = {OPTION}, seconds = 2, patience = 3 }}'


def _gateway(lab: Lab, setting: Setting, name: str) -> str:
    near, leased, port = GATEWAYS[name]
    more = f"""\
port = {port}

[gateway.lease]
registration = 8
minimum = 4
default = 8

[gateway.slp]
"""
    pool = f'[[gateway.pool]]\naddress = "{leased}"\nports = "10000-10999"\n'
    return figure.gateway_configuration(lab, setting, name=name, near=near, pool=pool, more=more)


def _host(lab: Lab, setting: Setting, name: str, gateway: str, *, ports: int = 64) -> str:
    return figure.host_configuration(lab, setting, name, gateway=f"first_timeout = 0.02\n{gateway}", ports=ports)


def _dnsmasq(lab: Lab) -> tuple[str, ...]:
    """A DHCP server that leases nothing and tells of gateways."""
    directory = lab["dhcp"].directory
    return (
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--bind-interfaces",
        "--interface=eth0",
        "--dhcp-authoritative",
        "--dhcp-range=10.0.0.0,static",
        f"--dhcp-option={OPTION},{DEAD},{GATEWAYS['gateway'][0]}",
        f"--dhcp-leasefile={directory}/dnsmasq.leases",
        f"--pid-file={directory}/dnsmasq.pid",
    )


SCENARIO = Scenario(
    name=NAME,
    title="A host that knows nothing finds its gateway by DHCP or SLP, the least loaded of two, and another one later",
    shows=("RFC 3105 4", "RFC 3105 5", "RFC 3105 6", "RFC 3105 7", "RFC 3102 3.5", "seed RSIP 3.1"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
