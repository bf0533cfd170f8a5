# SPDX-License-Identifier: BSD-3-Clause
"""One packet, seen on every link between two hosts, against what the specification computed (spec 4).

``ipae_hops.json`` has the octets of each hop of the seed's scenarios. Identifications that a system
chooses are its own affair, and the header checksum follows from them: both are left out of the comparison.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import neutral
from isthmus.checksum import checksum
from isthmus.lab.capture import Capture, Captured, capturing
from isthmus.lab.chain import LEFT, Chain, Kind
from isthmus.lab.lab import Lab
from isthmus.lab.node import Node, wait_until
from isthmus.lab.scenario import Check
from isthmus.wire.text import line

FULL = Prefix.parse("fd49:5041:4500:6d74::/64")
COMPATIBLE = Prefix.parse("fd53:4950:4300::/48")
"""The prefixes of SIP addresses at IPv6 sockets, unless a configuration says others (spec 8.2)."""
_C_BIT = 1 << 63


def socket_address(destination: Address, source: Address) -> Address:
    """The IPv6 address that a program writes to, or has, for a SIP address (spec 8.2).

    Args:
        destination: Whose address it is.
        source: The other end's.
    """
    if (destination.number | source.number) & _C_BIT:
        return neutral(COMPATIBLE, destination)
    return Address(Family.IPV6, FULL.address.number | destination.number)


@dataclass(frozen=True, slots=True)
class Journey:
    """What a packet looks like on each link of a scenario."""

    transport: str
    segment: bytes
    hops: tuple[bytes, ...]

    @classmethod
    def of(cls, scenario: str, transport: str) -> Journey:
        """Read one of ``ipae_hops.json``."""
        known: dict[str, Any] = json.loads(files("isthmus.lab").joinpath("ipae_hops.json").read_text(encoding="ascii"))
        found = known[scenario][transport]
        return cls(transport, bytes.fromhex(found["segment"]), tuple(map(bytes.fromhex, found["hops"])))

    @property
    def ends(self) -> tuple[Address, Address]:
        """Source and destination in the SIP header, of the first hop that has one."""
        packet = next(each for each in map(_sip, self.hops) if each)
        return Address.from_octets(packet[8:16]), Address.from_octets(packet[16:24])


def _sip(packet: bytes) -> bytes:
    """The SIP packet in a packet, if there is one."""
    if packet[0] >> 4 == 6:
        return packet
    return packet[20:] if packet[9] == 41 else b""


def alike(expected: bytes, seen: bytes) -> bool:
    """Whether two packets differ in what the sender of an IPv4 header chooses only; the checksum has to be right."""
    if expected[0] >> 4 == 6:
        return seen == expected
    if len(seen) < 20 or checksum(seen[:20]):
        return False
    return seen[:4] + seen[6:10] + seen[12:] == expected[:4] + expected[6:10] + expected[12:]


def send(node: Node, kind: Kind, journey: Journey) -> None:
    """Send the packet of a journey as the first system does: an IPv4 host by itself, others by their IPv6 sockets."""
    if kind is Kind.IPV4_HOST:
        packet, family, where = journey.hops[0], socket.AF_INET, socket.inet_ntoa(journey.hops[0][16:20])
    else:
        source, destination = journey.ends
        packet, where = _as_ipv6(journey, socket_address(source, destination), socket_address(destination, source))
        family = socket.AF_INET6

    def write() -> None:
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (where, 0))

    node.inside(write)


def _as_ipv6(journey: Journey, source: Address, destination: Address) -> tuple[bytes, str]:
    protocol = {"tcp": 6, "udp": 17}[journey.transport]
    header = struct.pack("!IHBB", 6 << 28, len(journey.segment), protocol, 64)
    return header + source.octets + destination.octets + journey.segment, str(destination)


@contextlib.contextmanager
def everywhere(chain: Chain, lab: Lab) -> Iterator[list[Capture]]:
    """Capture on every link of a row, in order from the left."""
    with contextlib.ExitStack() as open_:
        yield [open_.enter_context(capturing(lab[each.name], LEFT)) for each in chain.stations[1:]]


def check_journey(chain: Chain, lab: Lab, scenario: str, transport: str, *, back: bool = False) -> Check:
    """Send the packet of a scenario and compare every hop: addresses, TTL, header stack, octets.

    Args:
        chain: The row.
        lab: Where it stands.
        scenario: As ``ipae_hops.json`` calls it.
        transport: ``tcp`` or ``udp``.
        back: Whether it goes from right to left.
    """
    journey = Journey.of(scenario, transport)
    first = chain.hosts[1] if back else chain.hosts[0]
    with everywhere(chain, lab) as captures:
        links = captures[::-1] if back else captures
        send(lab[first.name], first.kind, journey)
        wait_until(lambda: all(map(_was_seen, journey.hops, links)), 3)
    wrong = [at for at, seen in enumerate(map(_was_seen, journey.hops, links), 1) if not seen]
    name = f"{scenario}, {transport.upper()}: every hop as computed"
    if not wrong and len(links) == len(journey.hops):
        return Check(name, ok=True, detail=" | ".join(line(each, ethertype=0x0800) for each in journey.hops))
    at = wrong[0] - 1
    other = "; ".join(line(each.octets, ethertype=0x0800) for each in _candidates(links[at].packets)) or "nothing"
    return Check(
        name, ok=False, detail=f"hop {at + 1} should be {line(journey.hops[at], ethertype=0x0800)}; seen: {other}"
    )


def _was_seen(expected: bytes, capture: Capture) -> bool:
    return any(alike(expected, each.octets) for each in tuple(capture.packets))


def _candidates(packets: list[Captured]) -> list[Captured]:
    return packets[:4]
