# SPDX-License-Identifier: BSD-3-Clause
"""Packets through leases, out by the tunnel and back by an echo: each has a number, so that nothing is guessed.

A few at once say whether leases forward; a steady stream says when they did not.
"""

from __future__ import annotations

import itertools
import math
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from isthmus.checksum import checksum
from isthmus.lab import figure
from isthmus.lab.lab import Lab

SO_RCVBUFFORCE = 33
"""From asm-generic/socket.h."""
_ROOM = 16 << 20
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_MARK = struct.Struct("!4sI")
_MAGIC = b"ismi"
_IPIP, _UDP_NUMBER = 4, 17


@dataclass(frozen=True, slots=True, order=True)
class ProbedLease:
    """A lease that packets are sent through: the host and the leased address as text, and one port."""

    host: str
    address: str
    port: int


def _header(protocol: int, source: str, destination: str, octets: int) -> bytes:
    ends = socket.inet_aton(source), socket.inet_aton(destination)
    head = _IPV4.pack(0x45, 0, 20 + octets, 0, 0x4000, 64, protocol, 0, *ends)
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:]


class Probe:
    """The hosts' and the server's sockets."""

    def __init__(self, lab: Lab) -> None:
        """Open them."""
        host = lab["host"]
        self._out = host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        self._back = host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, _IPIP))
        self._far = lab["server"].udp_socket()
        self._far.bind((figure.SERVER, 0))
        self._port = self._far.getsockname()[1]
        self._sockets = (self._out, self._back, self._far)
        for each in self._sockets[1:]:
            each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _ROOM)
            each.setblocking(False)

    def send(self, number: int, lease: ProbedLease) -> None:
        """Send a packet of this number through a lease."""
        inner = _header(_UDP_NUMBER, lease.address, figure.SERVER, 8 + _MARK.size)
        inner += _UDP.pack(lease.port, self._port, 8 + _MARK.size, 0) + _MARK.pack(_MAGIC, number)
        outer = _header(_IPIP, lease.host, figure.GATEWAY_NEAR, len(inner))
        self._out.sendto(outer + inner, (figure.GATEWAY_NEAR, 0))

    def receive(self, seconds: float) -> tuple[list[tuple[int, str, int]], list[tuple[int, str]]]:
        """Wait so long for packets, and send back what has come to the server.

        Returns:
            What came to the server, each with its number and from where; what came to the hosts, each with its number
            and to whom.
        """
        ready, _, _ = select.select(self._sockets[1:], (), (), max(seconds, 0.0))
        out, back = [], []
        if self._far in ready:
            for octets, (address, port) in _all_of(self._far):
                if octets[:4] == _MAGIC:
                    out.append((_MARK.unpack(octets)[1], address, port))
                    self._far.sendto(octets, (address, port))
        if self._back in ready:
            for octets, _ in _all_of(self._back):
                if octets[48:52] == _MAGIC and octets[40:42] == self._port.to_bytes(2, "big"):
                    back.append((_MARK.unpack_from(octets, 48)[1], socket.inet_ntoa(octets[16:20])))
        return out, back

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()


def _all_of(sock: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    found = []
    try:
        while True:
            found.append(sock.recvfrom(2048))
    except BlockingIOError:
        return found


def forwarded(lab: Lab, leases: Sequence[ProbedLease], seconds: float = 2.0, burst: int = 64) -> int:
    """Send one packet through each of some leases; returns how many came out and back as they should."""
    probe = Probe(lab)
    out: set[int] = set()
    back: set[int] = set()
    try:
        for at, lease in enumerate(leases):
            probe.send(at, lease)
            last = at + 1 == len(leases)
            until = time.monotonic() + (seconds if last else 0.05)
            while (last or (at + 1) % burst == 0) and len(back) <= at and time.monotonic() < until:
                there, here = probe.receive(until - time.monotonic())
                out |= {n for n, address, port in there if (address, port) == (leases[n].address, leases[n].port)}
                back |= {n for n, host in here if host == leases[n].host}
    finally:
        probe.close()
    return len(out & back)


class Stream:
    """A steady stream of packets through some leases in turn, as long as it is entered."""

    def __init__(self, lab: Lab, leases: Sequence[ProbedLease], rate: float) -> None:
        """Set it up, so many packets a second."""
        self._probe = Probe(lab)
        self._leases, self._rate = leases, rate
        self._thread = threading.Thread(target=self._run)
        self._over = False
        self.sent: list[float] = []
        "When each was sent, by the monotonic clock."
        self.out: dict[int, float] = {}
        "When each came to the server."
        self.back: dict[int, float] = {}
        "When each came back."
        self.astray = 0

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, when all has had time to arrive."""
        self._over = True
        self._thread.join()
        self._probe.close()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over:
            if len(self.sent) <= (time.monotonic() - began) * self._rate:
                self._probe.send(len(self.sent), self._leases[len(self.sent) % len(self._leases)])
                self.sent.append(time.monotonic())
            self._take(began + len(self.sent) / self._rate - time.monotonic())
        until = time.monotonic() + 1.0
        while len(self.back) < len(self.sent) and time.monotonic() < until:
            self._take(0.05)

    def _take(self, seconds: float) -> None:
        there, here = self._probe.receive(seconds)
        now = time.monotonic()
        for number, address, port in there:
            lease = self._leases[number % len(self._leases)]
            self.astray += (address, port) != (lease.address, lease.port)
            self.out.setdefault(number, now)
        for number, host in here:
            self.astray += host != self._leases[number % len(self._leases)].host
            self.back.setdefault(number, now)

    def lost(self, after: float = -math.inf) -> int:
        """How many of those sent after a time have not come back."""
        return sum(at >= after and number not in self.back for number, at in enumerate(self.sent))

    def first(self, after: float) -> float:
        """When the first one came back after a time; infinite if none did."""
        return min((at for at in self.back.values() if at > after), default=math.inf)

    def longest_gap(self, after: float, before: float = math.inf) -> float:
        """The longest time in which nothing came back, between two times."""
        times = sorted(at for at in self.back.values() if after <= at <= before)
        return max((late - early for early, late in itertools.pairwise(times)), default=math.inf)
