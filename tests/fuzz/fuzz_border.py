# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing a whole border: packets in order, at a gateway and at a host, with time between them.

One input is a sequence of packets, each led by an octet that says where it arrives and what time it is,
and two that say how long it is. No exception, every packet is counted, and whatever is let through
passes ``border_scene.judge``.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.border_scene import FAR, LEASED, NEAR, NOW, gateway, host, judge, plane
from isthmus.border.verdict import Reason
from isthmus.checksum import checksum

RUNS = 4_000
_WAITS = (0.0, 0.1, 29.0, 31.0, 100.0, 4000.0)


def records(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut an input into its packets."""
    while len(octets) >= 3:
        length = int.from_bytes(octets[1:3], "big")
        yield octets[0], octets[3 : 3 + length]
        octets = octets[3 + length :]


def join(parts: list[tuple[int, bytes]]) -> bytes:
    """Make an input of packets."""
    return b"".join(bytes((what,)) + len(packet).to_bytes(2, "big") + packet for what, packet in parts)


def repair(octets: bytes) -> bytes:
    """Make the lengths and checksums of all packets right again, inside of tunnels too."""
    return join([(what, mend(packet)) for what, packet in records(octets)])


def mend(packet: bytes, depth: int = 0) -> bytes:
    """Make one packet's lengths and checksums right."""
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        packet = packet[:4] + (len(packet) - 40).to_bytes(2, "big") + packet[6:]
        return packet[:40] + (mend(packet[40:], depth + 1) if packet[6] == 4 and depth < 3 else packet[40:])
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return packet
    size = max(20, (packet[0] & 15) * 4)
    if size > len(packet):
        return packet
    body = packet[size:]
    protocol, is_fragment = packet[9], bool(int.from_bytes(packet[6:8], "big") & 0x3FFF)
    if depth < 3 and not is_fragment:
        if protocol == 4:
            body = mend(body, depth + 1)
        elif protocol == 47 and len(body) >= 4:
            shim = 8 if body[0] & 0x80 else 4
            body = body[:shim] + mend(body[shim:], depth + 1)
            if shim == 8:
                body = body[:4] + bytes(2) + body[6:]
                body = body[:4] + checksum(body).to_bytes(2, "big") + body[6:]
        elif protocol == 1 and len(body) >= 8:
            body = body[:2] + bytes(2) + body[4:]
            body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    header = bytes((0x40 | size // 4, packet[1])) + min(size + len(body), 0xFFFF).to_bytes(2, "big") + packet[4:10]
    header += bytes(2) + packet[12:size]
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def check(octets: bytes) -> None:
    """Let the packets arrive, one after the other."""
    scenes = {End: (made, plane(made)) for End, made in (("gateway", gateway()), ("host", host()))}
    now, seen = NOW, 0
    for what, packet in records(octets):
        (border, _), there = scenes["host" if what & 8 else "gateway"]
        realm = (LEASED if what & 1 else NEAR) if what & 8 else (FAR if what & 1 else NEAR)
        now += _WAITS[(what >> 4) % len(_WAITS)]
        judge(there, border, packet, there.process(realm, packet, now=now))
        seen += 1
    counted = sum(
        count
        for _, there in scenes.values()
        for reason, count in there.counters().items()
        if reason is not Reason.FRAGMENT_TIMEOUT
    )
    assert counted == seen, "every packet counts once"
    for _, there in scenes.values():
        there.events()
