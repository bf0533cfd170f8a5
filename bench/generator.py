# SPDX-License-Identifier: BSD-3-Clause
"""Sends small packets as fast as one core can, out of an interface of the namespace it runs in.

    python bench/generator.py PLAN.json

The plan names the object, the interface, the flows and the seconds; see ``Plan``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import libbpf
from isthmus.checksum import ones_sum

CPU = 0
_CHUNK = 1 << 17
_SETUP = struct.Struct("=QIIIIII4sI14s2x20s20s8s4x")
_FLOW = struct.Struct("=4s4s4s2s2s")
_UDP_PAYLOAD = 18


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send."""

    object: str
    interface: str
    mac: str
    "Of the gateway's end."
    seconds: float
    outer_dst: str | None
    "The gateway's tunnel end; None to send without tunnels."
    fresh: bool
    flows: list[tuple[str, str, int, str, int]]
    "Host, source, source port, destination, destination port."


def header(protocol: int, length: int) -> bytes:
    """An IPv4 header without addresses and checksum."""
    return struct.pack("!BBHHHBBHII", 0x45, 0, length, 0, 0x4000, 64, protocol, 0, 0, 0)


def generate(plan: Plan) -> int:
    """Send for the planned time; returns how many frames were made."""
    loaded = libbpf.BpfObject(Path(plan.object))
    flows, setups = loaded.map("flows"), loaded.map("setups")
    for at, (host, source, sport, destination, dport) in enumerate(plan.flows):
        ports = sport.to_bytes(2, "big"), dport.to_bytes(2, "big")
        addresses = [socket.inet_aton(each) for each in (host, source, destination)]
        libbpf.update(flows, at, _FLOW.pack(*addresses, *ports))
    udp = struct.pack("!HHHH", 0, 0, 8 + _UDP_PAYLOAD, 0) + bytes(_UDP_PAYLOAD)
    inner = header(17, 20 + len(udp))
    outer = header(4, 40 + len(udp)) if plan.outer_dst else b""
    ethernet = bytes.fromhex(plan.mac.replace(":", "")) + bytes.fromhex("020000000001") + b"\x08\x00"
    # Sums are of native words in the program; the one's complement sum does not mind, if all of it is swapped.
    sums = [socket.htons(ones_sum(each)) for each in (outer, inner)]
    libbpf.update(
        setups,
        0,
        _SETUP.pack(
            0,
            len(plan.flows),
            socket.if_nametoindex(plan.interface),
            int(bool(outer)),
            int(plan.fresh),
            *sums,
            socket.inet_aton(plan.outer_dst or "0.0.0.0"),
            0,
            ethernet,
            outer,
            inner,
            udp[:8],
        ),
    )
    os.sched_setaffinity(0, {CPU})
    deadline = time.monotonic() + plan.seconds
    program = loaded.program("generate")
    print("ready", flush=True)
    while time.monotonic() < deadline:
        libbpf.run_live(program, ethernet + outer + inner + udp, frames=_CHUNK)
    return int(_SETUP.unpack(libbpf.lookup(setups, 0, _SETUP.size))[0])


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        data = json.load(file)
    print(generate(Plan(**data)))
