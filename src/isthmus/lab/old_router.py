# SPDX-License-Identifier: BSD-3-Clause
"""An IPv4 router as there were in 1992: its errors quote a header and eight octets, and name no MTU (RFC 792).

``python -m isthmus.lab.old_router INTERFACE INTERFACE`` forwards between two interfaces of its namespace.
Addresses, routes, MTUs and ARP are those of the machine, whose own forwarding is off; what a router decides about a
packet (lifetime, fragments, errors) is here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field

from isthmus.address import Address
from isthmus.errors import WireError
from isthmus.plane.reference.fragment import cut
from isthmus.wire.icmp import IcmpMessage, IcmpType, IcmpView, Unreachable
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol

QUOTED_OCTETS = 8
"""What is quoted behind the IP header (RFC 792)."""
_ETHERTYPE = 0x0800
_GET_ADDRESS, _GET_MTU = 0x8915, 0x8921
"SIOCGIFADDR, SIOCGIFMTU."
_ROUTE_SECONDS = 1.0
_LARGEST = 1 << 16


@dataclass(slots=True)
class Side:
    """One of its interfaces."""

    name: str
    packets: socket.socket
    address: Address

    @classmethod
    def of(cls, name: str) -> Side:
        """Open an interface for what comes in on it."""
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        packets.bind((name, _ETHERTYPE))
        return cls(name, packets, Address.from_octets(_ask(name, _GET_ADDRESS)[20:24]))

    @property
    def mtu(self) -> int:
        """What its link carries, in octets."""
        return int(struct.unpack_from("i", _ask(self.name, _GET_MTU), 16)[0])


@dataclass(slots=True)
class OldRouter:
    """A router between two links."""

    sides: dict[str, Side]
    out: socket.socket
    "Takes whole packets, which go by the routes of the machine."
    routes: dict[str, tuple[float, str | None]] = field(default_factory=dict)
    "Destination to when it was asked for and by which interface it is reached; None: by none."
    identification: int = 0

    def receive(self, side: Side) -> None:
        """Take one packet from an interface; packets to the machine itself are its own business."""
        octets, (_, _, kind, *_) = side.packets.recvfrom(_LARGEST)
        if kind != socket.PACKET_HOST or any(octets[16:20] == each.address.octets for each in self.sides.values()):
            return
        with contextlib.suppress(WireError):
            view = Ipv4View.parse(bytearray(octets))
            if view.checksum_ok:
                self.forward(side, view)

    def forward(self, side: Side, packet: Ipv4View) -> None:
        """Send a packet on, or tell its sender why not (RFC 791 §3.2; RFC 792)."""
        if packet.ttl <= 1:
            self.tell(side, packet, IcmpType.TIME_EXCEEDED, 0)
            return
        further = self.sides.get(self.way(str(packet.dst)) or "")
        if further is None:
            self.tell(side, packet, IcmpType.DESTINATION_UNREACHABLE, Unreachable.NETWORK)
            return
        mtu = further.mtu
        if packet.df and packet.total_length > mtu:
            self.tell(side, packet, IcmpType.DESTINATION_UNREACHABLE, Unreachable.FRAGMENTATION_NEEDED)
            return
        packet.ttl -= 1
        for part in cut(packet.octets, mtu):
            self.send(part, str(packet.dst))

    def tell(self, side: Side, packet: Ipv4View, kind: IcmpType, code: int) -> None:
        """Send an error to the sender of a packet (RFC 792): the MTU, which came in 1990, is not in it."""
        is_error = packet.protocol == Protocol.ICMP and (
            len(packet.payload) < QUOTED_OCTETS or IcmpView.parse(packet.payload).is_error
        )
        if packet.fragment_offset or is_error:
            return
        message = IcmpMessage(type=kind, code=code, body=bytes(packet.header) + bytes(packet.payload[:QUOTED_OCTETS]))
        self.identification = self.identification % 0xFFFF + 1
        octets = message.emit()
        header = Ipv4Header(
            total_length=20 + len(octets),
            identification=self.identification,
            protocol=Protocol.ICMP,
            src=side.address,
            dst=packet.src,
        )
        self.send(header.emit() + octets, str(packet.src))

    def send(self, packet: bytes, destination: str) -> None:
        """Hand a packet to the link."""
        with contextlib.suppress(OSError):
            self.out.sendto(packet, (destination, 0))

    def way(self, destination: str) -> str | None:
        """By which interface a destination is reached."""
        at, interface = self.routes.get(destination, (0.0, None))
        if time.monotonic() >= at + _ROUTE_SECONDS:
            found = subprocess.run(
                ["ip", "-json", "route", "get", destination], capture_output=True, text=True, check=False, timeout=10
            )
            interface = None if found.returncode else json.loads(found.stdout)[0].get("dev")
            self.routes[destination] = time.monotonic(), interface
        return interface


def _ask(interface: str, what: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, what, struct.pack("256s", interface.encode()))


def serve(*interfaces: str) -> None:
    """Route until the process is ended."""
    sides = {name: Side.of(name) for name in interfaces}
    router = OldRouter(sides, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with selectors.DefaultSelector() as ready:
        for side in sides.values():
            ready.register(side.packets, selectors.EVENT_READ, side)
        while True:
            for key, _ in ready.select():
                router.receive(key.data)


if __name__ == "__main__":
    serve(*sys.argv[1:])
