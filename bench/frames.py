# SPDX-License-Identifier: BSD-3-Clause
"""Small packets of IPv4, IPv6 and SIP, whole, and a process that sends them out of an interface of its namespace.

    python bench/frames.py PLAN.json

All are UDP with 18 octets of payload. One core sends them, at a rate or as fast as it can.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import generator
import libbpf
from isthmus.checksum import checksum, pseudo_header

MOST = 1 << 16
_OCTETS = 96
_UDP = 17
_IPAE = 41
_PAYLOAD = bytes(18)
SETUP = struct.Struct("=QQIIII")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send."""

    object: str
    interface: str
    mac: str
    "Of the gateway's end."
    seconds: float
    rate: int
    "Packets a second; 0: as many as one core can send."
    version: str
    "EtherType, four hex digits."
    packets: list[str]
    "In hex digits, all of one length: at most 65,536."


def datagram(src: bytes, dst: bytes, ports: tuple[int, int]) -> bytes:
    """A UDP datagram whose checksum covers these two addresses."""
    head = struct.pack("!HHHH", *ports, 8 + len(_PAYLOAD), 0)
    total = pseudo_header(src, dst, _UDP, len(head + _PAYLOAD))
    return head[:6] + checksum(head + _PAYLOAD, total).to_bytes(2, "big") + _PAYLOAD


def ipv4(src: bytes, dst: bytes, payload: bytes, protocol: int = _UDP) -> bytes:
    """An IPv4 packet with DF."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0, src, dst)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(src: bytes, dst: bytes, payload: bytes) -> bytes:
    """An IPv6 packet."""
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), _UDP, 64, src, dst) + payload


def sip(src: bytes, dst: bytes, payload: bytes) -> bytes:
    """A SIP packet."""
    return struct.pack("!IHBB8s8s", 6 << 28, len(payload), _UDP, 64, src, dst) + payload


def ipae(outer_src: bytes, outer_dst: bytes, packet: bytes) -> bytes:
    """An IPAE datagram."""
    return ipv4(outer_src, outer_dst, packet, _IPAE)


def compile_object(directory: Path) -> Path:
    """Compile the generator and the sink."""
    target = directory / "frames.bpf.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    words = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-isystem", include]
    source = Path(__file__).parent / "bpf/frames.bpf.c"
    subprocess.run([*words, "-c", str(source), "-o", str(target)], check=True)
    return target


def send(plan: Plan) -> int:
    """Send for the planned time; returns how many frames were made."""
    loaded = libbpf.BpfObject(Path(plan.object))
    frames, setups = loaded.map("frames"), loaded.map("setups")
    ethernet = bytes.fromhex(plan.mac.replace(":", "") + "020000000001" + plan.version)
    whole = [ethernet + bytes.fromhex(each) for each in plan.packets]
    for at, frame in enumerate(whole):
        libbpf.update(frames, at, frame.ljust(_OCTETS, b"\0"))
    gap = 10**9 // plan.rate if plan.rate else 0
    interface = socket.if_nametoindex(plan.interface)
    libbpf.update(setups, 0, SETUP.pack(time.monotonic_ns(), gap, 0, len(whole), len(whole[0]), interface))
    generator.take_core()
    program = loaded.program("generate")
    generator.interrupt_after(plan.seconds)
    print("ready", flush=True)
    libbpf.run_live(program, whole[0])
    return int(SETUP.unpack(libbpf.lookup(setups, 0, SETUP.size))[2])


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        data = json.load(file)
    print(send(Plan(**data)))
