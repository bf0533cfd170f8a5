# SPDX-License-Identifier: BSD-3-Clause
"""Whether what a gateway sends is what it has to: packets of ``bpf/generator.bpf.c`` behind it, octet for octet."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import leases
from isthmus.address import Address, Family
from isthmus.checksum import checksum
from isthmus.lab import figure
from isthmus.lab.topology import LabError

_ETHERNET, _IPV4 = 14, b"\x08\x00"
_PEERS, _PEER_BITS, _SCATTER, _FIRST_PORT = 0xC6120000, 17, 40503, 7
_UNSCATTER = pow(_SCATTER, -1, 1 << _PEER_BITS)
_TTL = 63
_WORD = (1 << 32) - 1
_ENOUGH = 100


def drain(tap: int) -> list[bytes]:
    """The frames that a TAP device holds, which does not block."""
    found = []
    while True:
        try:
            found.append(os.read(tap, 2048))
        except BlockingIOError:
            return found


def mix(number: int) -> int:
    """``mix`` of the generator."""
    number ^= number >> 16
    number = number * 0x7FEB352D & _WORD
    number ^= number >> 15
    number = number * 0x846CA68B & _WORD
    return number ^ number >> 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What comes out of a gateway."""

    flows: int
    "How many there are; 0: each packet is one."
    leases: int
    tunnel: str | None
    masquerade: bool

    def check(self, frames: Sequence[bytes], name: str) -> None:
        """Raise ``LabError`` if one is wrong, or if there are too few."""
        packets = [frame[_ETHERNET:] for frame in frames if frame[_ETHERNET - 2 : _ETHERNET] == _IPV4]
        if len(packets) < _ENOUGH:
            raise LabError(f"{name}: only {len(packets)} packets to look at")
        for packet in packets:
            if packet != (expected := self.packet(packet)):
                raise LabError(f"{name}: {packet.hex()} came out where {expected.hex()} is right")

    def packet(self, seen: bytes) -> bytes:
        """What the packet has to be whose destination and port this one has."""
        peer, port = struct.unpack_from("!I2xH", seen, 16)
        flow = (port - _FIRST_PORT << _PEER_BITS) + (peer * _UNSCATTER & (1 << _PEER_BITS) - 1)
        if self.flows and flow >= self.flows:
            raise LabError(f"{seen.hex()} is of flow {flow}, which there is none")
        lease = mix(flow) * self.leases >> 32
        source = leases.address(lease) if self.tunnel else leases.host(lease)
        if self.masquerade:
            source = Address.parse(figure.SHARED)
        udp = struct.pack("!HHHH", leases.first_port(lease) + flow % leases.PORTS, port, 26, 0) + bytes(18)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, _TTL, socket.IPPROTO_UDP, 0)
        addresses = source.octets + Address(Family.IPV4, peer).octets
        return head[:10] + checksum(head + addresses).to_bytes(2, "big") + addresses + udp
