# SPDX-License-Identifier: BSD-3-Clause
"""Networks of namespaces, declared as values, and the ``ip`` commands that make them.

A node is a network namespace ``ist-<network>-<node>``. A node may be a *segment*: a namespace
that holds nothing but a bridge, into which every cable that ends there is plugged; it is the
wire that several machines share, and the place from which a capture sees them all.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.errors import IsthmusError

NETNS = Path("/run/netns")
PREFIX = "ist"
_FIRST_INDEX = 10
_CARRIER_SECONDS = 10.0

OPEN_FORWARDING = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"}
"""For every node that stands between realms: leased addresses arrive by tunnels, where no route points."""

_NO_FILTER = "for each in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $each ] || echo 0 >$each; done"
"""For a segment: the kernel's bridge may look into packets and drop what is no IPv4 and has its EtherType, as SIP."""
_QUIET = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}


class LabError(IsthmusError):
    """The lab cannot be built, or a program in it did not do what everything else rests on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One machine of the network."""

    name: str
    routes: tuple[str, ...] = ()
    "In the words of ``ip route add``."
    sysctls: Mapping[str, str] = field(default_factory=dict)
    segment: bool = False
    "Whether it is a shared wire, a bridge and nothing else."


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a cable: an interface of a node."""

    node: str
    interface: str
    addresses: tuple[str, ...] = ()
    mtu: int = 1500
    offload: bool = True
    "Whether it hands on packets whose transport checksum is not filled in, and large unsegmented ones."


@dataclass(frozen=True, slots=True)
class Cable:
    """A veth pair."""

    left: End
    right: End


def wire(left: tuple[str, ...], right: tuple[str, ...], *, mtu: int = 1500) -> Cable:
    """A cable on which every packet looks as on a real wire: finished, and no larger than the MTU.

    Args:
        left: Node, interface, and any number of addresses.
        right: Likewise.
        mtu: Of both ends, in octets.
    """
    ends = (
        End(node=node, interface=interface, addresses=tuple(addresses), mtu=mtu, offload=False)
        for node, interface, *addresses in (left, right)
    )
    return Cable(*ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Everything that makes up one network."""

    name: str
    nodes: tuple[NodePlan, ...]
    cables: tuple[Cable, ...]

    def __post_init__(self) -> None:
        """Refuse cables to nowhere and names used twice."""
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"network {self.name}: two nodes share a name")
        ends = [end for cable in self.cables for end in (cable.left, cable.right)]
        for end in ends:
            if end.node not in names:
                raise ValueError(f"network {self.name}: a cable ends at {end.node}, which is no node")
        if len({(end.node, end.interface) for end in ends}) != len(ends):
            raise ValueError(f"network {self.name}: two cables share an interface")

    def namespace(self, node: str) -> str:
        """The name of a node's namespace, as ``ip netns`` lists it."""
        return f"{PREFIX}-{self.name}-{node}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The names of all its namespaces."""
        return tuple(self.namespace(node.name) for node in self.nodes)


def build(network: Network) -> None:
    """Make a network, and wait until every cable carries; what exists when it fails is the caller's to remove.

    Raises:
        LabError: one of the commands failed.
    """
    for name in network.namespaces:
        _run(["ip", "netns", "add", name])
    _batch(None, _cable_lines(network))
    for node in network.nodes:
        ends = [end for cable in network.cables for end in (cable.left, cable.right) if end.node == node.name]
        namespace = network.namespace(node.name)
        _set_sysctls(namespace, _QUIET | dict(node.sysctls))
        if node.segment:
            run_in(namespace, ["sh", "-ec", _NO_FILTER])
        _batch(namespace, _node_lines(node, ends))
        for end in ends:
            if not end.offload:
                without_offload(namespace, end.interface)
    until = time.monotonic() + _CARRIER_SECONDS
    for name in network.namespaces:
        while idle := _without_carrier(name):
            if time.monotonic() > until:
                raise LabError(f"{name}: {', '.join(idle)} not up within {_CARRIER_SECONDS:g} seconds")
            time.sleep(0.01)


def without_offload(namespace: str, interface: str) -> None:
    """Make an interface send finished checksums and packets no larger than its MTU."""
    run_in(namespace, ["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])


def run_in(namespace: str, command: list[str]) -> str:
    """Run a command in a namespace and return what it prints.

    ``nsenter`` and not ``ip netns exec``: the latter mounts another /sys, and pins disappear from sight.

    Raises:
        LabError: it failed.
    """
    return _run(["nsenter", f"--net={NETNS / namespace}", "--", *command])


def _cable_lines(network: Network) -> Iterable[str]:
    # Two ends of the same index are, to the kernel, no pair whose carrier is urgent: it looks once a second.
    for at, cable in enumerate(network.cables):
        left, right = cable.left, cable.right
        index = _FIRST_INDEX + 2 * at
        yield (
            f"link add name {left.interface} index {index} mtu {left.mtu} netns {network.namespace(left.node)}"
            f" type veth peer name {right.interface} index {index + 1} mtu {right.mtu}"
            f" netns {network.namespace(right.node)}"
        )


def _without_carrier(namespace: str) -> list[str]:
    """The ends of cables that do not carry yet, and lose what is sent."""
    links = json.loads(_run(["ip", "-n", namespace, "-json", "link", "show", "type", "veth"]))
    return [link["ifname"] for link in links if link and link["operstate"] != "UP"]


def _node_lines(node: NodePlan, ends: list[End]) -> Iterable[str]:
    yield "link set lo up"
    if node.segment:
        yield "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        yield "link set br0 up"
    for end in ends:
        if node.segment:
            yield f"link set dev {end.interface} master br0"
        for address in end.addresses:
            yield f"address add {address} dev {end.interface}"
        yield f"link set dev {end.interface} up"
    for route in node.routes:
        yield f"route add {route}"


def _set_sysctls(namespace: str, sysctls: Mapping[str, str]) -> None:
    script = "; ".join(f"echo {value} > /proc/sys/{key.replace('.', '/')}" for key, value in sysctls.items())
    run_in(namespace, ["sh", "-ec", script])


def _batch(namespace: str | None, lines: Iterable[str]) -> None:
    commands = list(lines)
    where = ["-n", namespace] if namespace else []
    try:
        _run(["ip", *where, "-batch", "-"], "\n".join(commands) + "\n")
    except LabError as error:
        at = str(error).rpartition("Command failed -:")[2]
        if at.isdigit() and 0 < int(at) <= len(commands):
            raise LabError(f"ip {' '.join(where)} {commands[int(at) - 1]}: {error}") from error
        raise


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)}: no answer within 30 seconds") from error
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
