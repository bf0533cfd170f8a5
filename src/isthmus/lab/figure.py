# SPDX-License-Identifier: BSD-3-Clause
"""The seed's Figure 1 as a network, and what is configured in it.

::

    host-a 10.0.0.4 ──┐
                      lan ── 10.0.0.1 gateway 149.112.240.55 ── 192.156.136.22 server
    host-b 10.0.0.5 ──┘
"""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.lab.lab import Lab
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, Network, NodePlan

GATEWAY_NEAR = "10.0.0.1"
GATEWAY_NEAR6 = "2001:db8::1"
SHARED = "149.112.240.55"
SERVER = "192.156.136.22"
PUBLIC = "149.112.240.0/24"
FAR = "192.156.136.0/24"
HOSTS = {"host-a": "10.0.0.4", "host-b": "10.0.0.5"}
CONTROL_PORT = 4555
POOL = f"""\
[[gateway.pool]]
address = "{SHARED}"
ports = "10000-19999"

[[gateway.pool]]
prefix = "149.112.240.64/29"
"""
"""What the gateway leases."""


def network(
    name: str, hosts: Sequence[str] = ("host-a", "host-b"), *, plain: Sequence[str] = (), offload: bool = False
) -> Network:
    """Figure 1 with these hosts, numbered from 10.0.0.4.

    Args:
        name: Of the network.
        hosts: Their names.
        plain: Those among them that do not speak RSIP, and have a default route by the gateway instead.
        offload: Whether packets may be large and unfinished on the way, as is fast; otherwise
            every packet looks on every link as it would on a real wire.
    """
    machines = [
        NodePlan(
            name="gateway",
            routes=(f"{FAR} dev wan0 src {SHARED}",),
            sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(name="server", routes=(f"{SHARED} dev eth0", f"{PUBLIC} via {SHARED} dev eth0")),
        NodePlan(name="lan", segment=True),
        *(
            NodePlan(
                name=host, sysctls=OPEN_FORWARDING, routes=(f"default via {GATEWAY_NEAR}",) if host in plain else ()
            )
            for host in hosts
        ),
    ]
    cables = [
        Cable(
            End(node="gateway", interface="lan0", addresses=(f"{GATEWAY_NEAR}/24",), offload=offload),
            End(node="lan", interface="gateway", offload=offload),
        ),
        Cable(
            End(node="gateway", interface="wan0", addresses=(f"{SHARED}/32",), offload=offload),
            End(node="server", interface="eth0", addresses=(f"{SERVER}/24",), offload=offload),
        ),
        *(
            Cable(
                End(node=host, interface="eth0", addresses=(f"{host_address(at)}/24",), offload=offload),
                End(node="lan", interface=host, offload=offload),
            )
            for at, host in enumerate(hosts)
        ),
    ]
    return Network(name=name, nodes=tuple(machines), cables=tuple(cables))


def host_address(at: int) -> str:
    """The private address of the n-th host, from 0."""
    return f"10.0.0.{4 + at}"


def gateway_configuration(
    lab: Lab,
    setting: Setting,
    *,
    name: str = "gateway",
    near: str = GATEWAY_NEAR,
    pool: str = POOL,
    state: str | None = None,
    more: str = "",
) -> str:
    """What ``isthmus up`` reads at a gateway.

    Args:
        lab: The network, for where files go.
        setting: Which plane to use.
        name: Which gateway.
        near: Its address on the hosts' link.
        pool: Its sections ``[[gateway.pool]]``.
        state: The lease store; a file of the lab if not given.
        more: Further lines of ``[gateway]``, and sections below it.
    """
    node = lab[name]
    return f"""\
[isthmus]
name = "{name}"
run = "{node.run_directory}"
state = "{state or node.directory / "leases.db"}"
plane = "{setting.plane}"

[[realm]]
name = "private"
interface = "lan0"

[[realm]]
name = "public"
interface = "wan0"

[gateway]
near = "private"
realm = "public"
address = "{near}"
{more}
{pool}"""


def host_configuration(
    lab: Lab,
    setting: Setting,
    host: str,
    *,
    gateway: str = f'gateway = "{GATEWAY_NEAR}"',
    lease: bool = True,
    ports: int = 64,
) -> str:
    """What ``isthmus up`` reads at a host.

    Args:
        lab: The network, for where files go.
        setting: Which plane to use.
        host: Which one.
        gateway: The lines of ``[host]`` that say where its gateway is, or how to find one.
        lease: Whether the host itself holds a lease; programs may hold others.
        ports: How many ports that is.
    """
    leased = f"""
[[host.lease]]
ports = {ports}
device = "rsip0"
routes = ["{FAR}"]
"""
    return f"""\
[isthmus]
name = "{host}"
run = "{lab[host].run_directory}"
plane = "{setting.plane}"

[[realm]]
name = "private"
interface = "eth0"

[host]
near = "private"
{gateway}
{leased if lease else ""}"""
