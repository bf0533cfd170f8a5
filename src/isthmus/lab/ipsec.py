# SPDX-License-Identifier: BSD-3-Clause
"""The seed's Figure 1 with stock kernels that know IPsec, and what is configured in it.

::

    host-a 10.0.0.4 ──┐                                                      192.156.136.0/24
                      lan ── 10.0.0.1 gateway 149.112.240.55 ── carrier ── 192.156.136.22 peer
    host-b 10.0.0.5 ──┘

The hosts and the peer are machines of one User Mode Linux guest; the gateway runs on the machine's
own kernel, since there is its plane. The carrier is a router like any other; captures are made there,
on the public side of the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.border.ranges import Ranges
from isthmus.lab import figure, strongswan, uml
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.strongswan import Association, Connection
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, LabError, Network, NodePlan
from isthmus.lab.uml import Machine, Plug

GATEWAY, CARRIER, GUESTS, PEER = "gateway", "carrier", "guests", "peer"
PUBLIC_SIDE = "wan"
"""The carrier's interface toward the gateway."""
FAR_SIDE = "far"
"""The carrier's interface toward the peer."""
CARRIER_NEAR, CARRIER_FAR = "149.112.240.1", "192.156.136.1"
SPIS = Ranges.of((0x10000, 0x1FFFF))
"""SPIs of the shared address that are leased."""
CONTROL = "/run/isthmus/host.sock"
"""The control socket of each host's daemon, in its own /run."""
_LEASE_SECONDS = 15.0


def network(name: str) -> Network:
    """The wires; what the machines of the guest are is said when it boots."""
    nodes = [
        NodePlan(
            name=GATEWAY,
            routes=(
                f"{CARRIER_NEAR} dev wan0 src {figure.SHARED}",
                f"{figure.FAR} via {CARRIER_NEAR} dev wan0 src {figure.SHARED}",
            ),
            sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(
            name=CARRIER,
            routes=(f"{figure.SHARED} dev {PUBLIC_SIDE}", f"{figure.PUBLIC} via {figure.SHARED} dev {PUBLIC_SIDE}"),
            sysctls={"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(name="lan", segment=True),
        NodePlan(name=GUESTS),
    ]
    cables = [
        Cable(_end(GATEWAY, "lan0", f"{figure.GATEWAY_NEAR}/24"), _end("lan", GATEWAY)),
        Cable(_end(GATEWAY, "wan0", f"{figure.SHARED}/32"), _end(CARRIER, PUBLIC_SIDE, f"{CARRIER_NEAR}/32")),
        Cable(_end(CARRIER, FAR_SIDE, f"{CARRIER_FAR}/24"), _end(GUESTS, PEER)),
        *(Cable(_end("lan", host), _end(GUESTS, host)) for host in figure.HOSTS),
        uml.management(GUESTS),
    ]
    return Network(name=name, nodes=tuple(nodes), cables=tuple(cables))


def _end(node: str, interface: str, *addresses: str) -> End:
    return End(node=node, interface=interface, addresses=addresses, offload=False)


def missing() -> str:
    """Say what is not installed that these networks need, and how to get it; nothing if nothing is."""
    return "; ".join(filter(None, (uml.missing(), strongswan.missing())))


def boot(lab: Lab) -> None:
    """Boot the guest with its machines: both hosts and the peer.

    Raises:
        LabError: something is not installed, or it does not boot.
    """
    if lacks := missing():
        raise LabError(lacks)
    plugs = [Plug(machine=host, interface=host, address=f"{address}/24") for host, address in figure.HOSTS.items()]
    plugs.append(Plug(machine=PEER, interface=PEER, address=f"{figure.SERVER}/24"))
    uml.boot(lab[GUESTS], plugs, strongswan.MODULES)
    peer = machine(lab, PEER)
    peer.ip(f"route add default via {CARRIER_FAR}")
    peer.start("web", ISTHMUS[0], "-m", "isthmus.lab.web", "/run/requests.jsonl", ready="ready")


def machine(lab: Lab, name: str) -> Machine:
    """A machine of the guest."""
    return Machine(name, lab[GUESTS])


def gateway_configuration(lab: Lab, setting: Setting) -> str:
    """What ``isthmus up`` reads at the gateway: it leases SPIs, and IKE, with the shared address."""
    spis = f'ports = "10000-19999"\nspis = "{SPIS.pairs[0][0]:x}-{SPIS.pairs[0][1]:x}"\nike = true'
    return figure.gateway_configuration(
        lab, setting, pool=figure.POOL.replace('ports = "10000-19999"', spis), name=GATEWAY
    )


def host_configuration(*leases: str) -> str:
    """What ``isthmus up`` reads at a host: tunnels of the kernel, and these lines for each of its leases."""
    sections = [f'[[host.lease]]\n{lease}\nroutes = ["{figure.FAR}"]\n' for lease in leases]
    return f"""\
[isthmus]
name = "host"
run = "/run/isthmus"

[[realm]]
name = "private"
interface = "eth0"

[host]
near = "private"
gateway = "{figure.GATEWAY_NEAR}"
tunnels = "native"
{"".join(sections)}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What one binding gives to a host."""

    address: str
    ports: Ranges
    spis: Ranges
    method: str

    def __str__(self) -> str:
        """As a person reads it."""
        spis = ", ".join(f"{first:#x}-{last:#x}" for first, last in self.spis.pairs)
        parts = [f"ports {self.ports}" if self.ports else "", f"SPIs {spis}" if spis else ""]
        nothing = "whole" if self.method == "RSA_IP" else "IKE"
        return f"{self.address} {' '.join(filter(None, parts)) or nothing}"


def leases(lab: Lab, host: str) -> list[Lease]:
    """What a host holds, as its own daemon says."""
    return [
        Lease(
            address=str(row["address"]),
            ports=_ranges(row.get("ports")),
            spis=_ranges(row.get("spis")),
            method=str(row.get("method")),
        )
        for row in machine(lab, host).isthmus("leases", socket_path=CONTROL)
    ]


def _ranges(text: str | None) -> Ranges:
    return Ranges.parse(text) if text else Ranges(())


def start_host(lab: Lab, host: str, *wanted: str, refused: int = 0) -> None:
    """Start a host's daemon and wait until it holds what it wants.

    Args:
        lab: The network.
        host: Which one.
        wanted: The lines of each of its leases.
        refused: How many of them it will not get.

    Raises:
        LabError: it does not start, or gets too little.
    """
    machine(lab, host).up(host_configuration(*wanted))
    count = len(wanted) - refused
    if not wait_until(lambda: _settled(lab, host, count), _LEASE_SECONDS, every=0.2):
        raise LabError(f"{host} did not get {count} leases within {_LEASE_SECONDS:g} seconds")


def _settled(lab: Lab, host: str, wanted: int) -> bool:
    """Whether a host holds so many leases, and its kernel has their addresses."""
    rows = [row for row in lab[GATEWAY].isthmus("leases") if row["host"] == figure.HOSTS[host]]
    known = machine(lab, host).run("ip", "-4", "-brief", "address").stdout
    return len(rows) >= wanted and all(f"{row['address']}/" in known for row in rows)


def identity(host: str, protocol: str) -> str:
    """The IKE identity of a machine: another for each protocol, since a responder chooses its child by that."""
    return f"{host}.{protocol}.example"


IDENTITIES = tuple(identity(name, kind) for name in (*figure.HOSTS, PEER) for kind in ("esp", "ah"))


def peer_connections() -> list[Connection]:
    """What the peer knows: whoever has the secret may come, from anywhere; nothing about RSIP."""
    return [
        Connection(name=kind, local_id=identity(PEER, kind), remote_id="%any", protocol=kind) for kind in ("esp", "ah")
    ]


def host_connections(host: str, address: str, ports: Ranges | None) -> list[Connection]:
    """What a host knows: the peer, and what it may have protected toward it."""
    return [
        Connection(
            name=kind,
            local_id=identity(host, kind),
            remote_id=identity(PEER, kind),
            protocol=kind,
            local_address=address,
            remote_address=figure.SERVER,
            local_selectors=strongswan.selectors(address, ports),
            remote_selectors=strongswan.selectors(figure.SERVER),
        )
        for kind in ("esp", "ah")
    ]


def inbound(lab: Lab, name: str, protocol: str) -> list[Association]:
    """The security associations by which a machine receives."""
    there = strongswan.associations(machine(lab, name))
    ours = (figure.SERVER,) if name == PEER else (figure.SHARED,)
    return [each for each in there if each.protocol == protocol and each.dst in ours]


def counted(lab: Lab, reasons: Sequence[str]) -> int:
    """How many packets the gateway has counted under these reasons."""
    counters = lab[GATEWAY].isthmus("counters")
    return sum(int(counters.get(reason, 0)) for reason in reasons)
