# SPDX-License-Identifier: BSD-3-Clause
"""What edge networks have in common: addresses of both families, and what is carried by what.

Captures are told apart by what is in an IP packet, outermost header first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from isthmus.lab import figure
from isthmus.lab.capture import Captured
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import Cable, End, LabError
from isthmus.wire.transport import Protocol

IPV6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
GATEWAY6 = figure.GATEWAY_NEAR6
FAR_NAME = "www.far.example"
"""The server that has no IPv6."""
_ICMPV6, _HOP_BY_HOP, _IPV6 = 58, 0, 41
_NEIGHBOUR_TYPES = range(133, 138)


def end(node: str, interface: str, *addresses: str) -> End:
    """One end of a cable on which packets look as on a real wire; IPv6 addresses are used at once."""
    ready = tuple(f"{address} nodad" if ":" in address else address for address in addresses)
    return End(node=node, interface=interface, addresses=ready, offload=False)


def cable(left: End, right: End) -> Cable:
    """A cable."""
    return Cable(left, right)


# --- what is configured -----------------------------------------------------------------------


def gateway_configuration(lab: Lab, setting: Setting, *addresses: str) -> str:
    """What ``isthmus up`` reads at the gateway, which has these addresses in the edge network."""
    both = ", ".join(f'"{address}"' for address in addresses)
    text = figure.gateway_configuration(lab, setting)
    return text.replace(f'address = "{figure.GATEWAY_NEAR}"', f"address = [{both}]")


def host_configuration(lab: Lab, setting: Setting, host: str, routes: Sequence[str] = (figure.FAR,)) -> str:
    """What it reads at a host, whose gateway is one of IPv6."""
    text = figure.host_configuration(lab, setting, host)
    text = text.replace(f'gateway = "{figure.GATEWAY_NEAR}"', f'gateway = "{GATEWAY6}"')
    return text.replace(f'routes = ["{figure.FAR}"]', "routes = [{}]".format(", ".join(f'"{each}"' for each in routes)))


def start_hosts(lab: Lab, configurations: Mapping[str, str]) -> None:
    """Start host daemons, and wait until each has its lease.

    Raises:
        LabError: one did not get it.
    """
    for host, text in configurations.items():
        lab[host].up(text)
    for host in configurations:
        if not wait_until(lambda: bool(lab[host].isthmus("leases")), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")


# --- what was on a wire -----------------------------------------------------------------------


class Carried(StrEnum):
    """What an IP packet is, as far as an edge network cares."""

    IPV4 = "plain IPv4"
    IPV6 = "plain IPv6"
    IPV4_IN_IPV6 = "IPv4 in IPv6"
    IPV4_IN_IPV4 = "IPv4 in IPv4"
    IPV6_IN_IPV4 = "IPv6 in IPv4"
    CONTROL = "RSIP"
    NEIGHBOURS = "neighbours"


def carried(octets: bytes) -> Carried:
    """Tell what a packet is."""
    version = octets[0] >> 4
    protocol, header = (octets[6], 40) if version == 6 else (octets[9], (octets[0] & 15) * 4)
    if protocol in {Protocol.IPIP, _IPV6}:
        inner = {Protocol.IPIP: 4, _IPV6: 6}[protocol]
        return Carried(f"IPv{inner} in IPv{version}")
    if version == 6 and (protocol == _HOP_BY_HOP or (protocol == _ICMPV6 and octets[40] in _NEIGHBOUR_TYPES)):
        return Carried.NEIGHBOURS
    ports = (octets[header : header + 2], octets[header + 2 : header + 4])
    if protocol in {Protocol.TCP, Protocol.UDP} and figure.CONTROL_PORT.to_bytes(2, "big") in ports:
        return Carried.CONTROL
    return Carried.IPV6 if version == 6 else Carried.IPV4


def tally(packets: Iterable[Captured]) -> Counter[Carried]:
    """Count packets by what they are."""
    return Counter(carried(packet.octets) for packet in packets)


def told(counted: Mapping[Carried, int]) -> str:
    """Say such counts."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items())) or "nothing"


def payload(counted: Mapping[Carried, int]) -> set[Carried]:
    """The kinds that carry what programs say."""
    return {kind for kind, count in counted.items() if count} - {Carried.CONTROL, Carried.NEIGHBOURS}
