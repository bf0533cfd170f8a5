# SPDX-License-Identifier: BSD-3-Clause
"""Sends small packets as fast as one core can, out of an interface of the namespace it runs in.

    python bench/generator.py PLAN.json

The plan names the object, the interface, the flows and the seconds; see ``Plan``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import leases
import libbpf
import priority
from isthmus.checksum import ones_sum

CPU = 0
SETUP = struct.Struct("=Q11I14s2x20s20s8s4s40s")
"""``struct setup``; its first field is how many frames were made so far."""
_UDP_PAYLOAD = 18


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send."""

    object: str
    interface: str
    mac: str
    "Of the gateway's end."
    seconds: float
    tunnel: str | None
    "ipip, gre or ipv6; None to send without tunnels, from the hosts' own addresses."
    outer_dst: str
    "The gateway's tunnel end."
    flows: int
    "So many, by chance; 0: every packet is a flow of its own."
    leases: int
    "That the flows belong to."


TUNNELS = {None: 0, "ipip": 1, "gre": 2, "ipv6": 3}
_GRE = b"\x00\x00\x08\x00"


def outer_headers(plan: Plan, payload: int) -> tuple[bytes, bytes, bytes]:
    """The outer headers as templates: IPv4 without addresses, GRE shim, IPv6."""
    if plan.tunnel == "ipv6":
        destination = socket.inet_pton(socket.AF_INET6, plan.outer_dst)
        return b"", b"", struct.pack("!IHBB", 6 << 28, payload, 4, 64) + destination[:12] + bytes(4) + destination
    shim = _GRE if plan.tunnel == "gre" else b""
    return header(47 if shim else 4, 20 + len(shim) + payload) if plan.tunnel else b"", shim, b""


def header(protocol: int, length: int) -> bytes:
    """An IPv4 header without addresses and checksum."""
    return struct.pack("!BBHHHBBHII", 0x45, 0, length, 0, 0x4000, 64, protocol, 0, 0, 0)


def take_core() -> None:
    """Have the generator's core for this process."""
    os.sched_setaffinity(0, {CPU})
    priority.go_first()


def interrupt_after(seconds: float) -> None:
    """Let the kernel end what this process waits for then."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def generate(plan: Plan) -> int:
    """Send for the planned time; returns how many frames were made."""
    loaded = libbpf.BpfObject(Path(plan.object))
    setups = loaded.map("setups")
    udp = struct.pack("!HHHH", 0, 0, 8 + _UDP_PAYLOAD, 0) + bytes(_UDP_PAYLOAD)
    inner = header(17, 20 + len(udp))
    outer, shim, outer6 = outer_headers(plan, len(inner + udp))
    ethernet = (
        bytes.fromhex(plan.mac.replace(":", ""))
        + bytes.fromhex("020000000001")
        + (b"\x86\xdd" if outer6 else b"\x08\x00")
    )
    # Sums are of native words in the program; the one's complement sum does not mind, if all of it is swapped.
    sums = [socket.htons(ones_sum(each)) for each in (outer, inner)]
    numbers = [plan.flows, plan.leases, leases.PER_ADDRESS, leases.PORTS, leases.FIRST_HOST]
    numbers += [leases.FIRST_ADDRESS if plan.tunnel else 0, socket.if_nametoindex(plan.interface), TUNNELS[plan.tunnel]]
    numbers += sums
    numbers.append(int.from_bytes(socket.inet_aton(plan.outer_dst) if outer else bytes(4), sys.byteorder))
    headers = [ethernet, outer, inner, udp[:8], shim, outer6]
    libbpf.update(setups, 0, SETUP.pack(0, *numbers, *headers))
    take_core()
    program = loaded.program("generate")
    interrupt_after(plan.seconds)
    print("ready", flush=True)
    libbpf.run_live(program, ethernet + outer + shim + outer6 + inner + udp)
    return int(SETUP.unpack(libbpf.lookup(setups, 0, SETUP.size))[0])


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        data = json.load(file)
    print(generate(Plan(**data)))
