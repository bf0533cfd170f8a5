# SPDX-License-Identifier: BSD-3-Clause
"""Captures of IP packets on an interface of a node, bounded, in memory or as a pcapng file."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.lab.node import Node
from isthmus.wire import pcapng

_EVERY_PROTOCOL = 0x0003
IPV4, IPV6 = 0x0800, 0x86DD
EVERYWHERE = ""
"""In place of an interface: all of them; what is forwarded is seen twice then, as it comes and as it goes."""
_LARGEST = 1 << 17


@dataclass(frozen=True, slots=True)
class Captured:
    """One packet as it passed."""

    at: float
    "Seconds since 1970."
    octets: bytes
    "From the IP header on."


@dataclass(slots=True)
class Capture:
    """What passed an interface while it was open; full captures stay as they are."""

    limit: int
    packets: list[Captured] = field(default_factory=list)
    missed: int = 0
    "Packets that came after the limit was reached."

    def add(self, octets: bytes) -> None:
        """Keep a packet, or count it."""
        if len(self.packets) < self.limit:
            self.packets.append(Captured(time.time(), octets))
        else:
            self.missed += 1

    def save(self, path: Path) -> None:
        """Write the packets as a pcapng file that starts at the IP header (link type RAW)."""
        with path.open("wb") as file:
            writer = pcapng.CaptureWriter(file)
            writer.add_interface(pcapng.RAW)
            for packet in self.packets:
                writer.write(pcapng.Frame(octets=packet.octets, time_ns=round(packet.at * 1e9)))


@contextlib.contextmanager
def capturing(
    node: Node, interface: str, limit: int = 10_000, *, ethertypes: tuple[int, ...] = (IPV4,)
) -> Iterator[Capture]:
    """Capture what passes an interface of a node, both ways, until the block ends.

    Args:
        node: The machine.
        interface: Its interface, or ``EVERYWHERE``.
        limit: Most packets that are kept.
        ethertypes: Which versions of IP.
    """
    capture = Capture(limit)
    over = threading.Event()
    opened = node.inside(lambda: _open(interface))
    thread = threading.Thread(
        target=_read, args=(opened, capture, over, ethertypes), name=f"capture {node.name}", daemon=True
    )
    thread.start()
    try:
        yield capture
        time.sleep(0.05)
    finally:
        over.set()
        thread.join()
        opened.close()


def _open(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
    if interface != EVERYWHERE:
        opened.bind((interface, _EVERY_PROTOCOL))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    opened.settimeout(0.05)
    return opened


def _read(opened: socket.socket, capture: Capture, over: threading.Event, ethertypes: tuple[int, ...]) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            octets, address = opened.recvfrom(_LARGEST)
            if address[1] in ethertypes:
                capture.add(octets)
