# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing reassembly: what is cut into fragments is put together again, or nothing comes of it.

One input says which packet is cut (its size), and then which pieces arrive: where each begins and how long it is
in units of eight octets, whether it claims to be the last, and what its octets are. Whatever comes whole out of
the tunnel that it goes into has octets of the pieces only, and a packet whose pieces all came, in whatever order
and without overlap, comes out as it was.
"""

from __future__ import annotations

import itertools
import random

from fuzz.border_scene import FAR, FAR_MTU, NOW, SHARED, gateway, judge, plane
from isthmus.address import Address
from isthmus.border.verdict import Forward, Reason
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View

RUNS = 2_000
_PEER = Address.parse("192.156.136.22")
_PORT = 13_000
"""Of a lease that hears from anyone, in a tunnel over IPv6."""
_IDENTIFICATIONS = itertools.count(1)


def _fragment(content: bytes, *, offset: int, more: bool, identification: int) -> bytes:
    header = Ipv4Header(
        total_length=20 + len(content),
        identification=identification,
        mf=more,
        fragment_offset=offset,
        protocol=17,
        src=_PEER,
        dst=SHARED,
    )
    return header.emit() + content


def check(octets: bytes) -> None:
    """Send the pieces that the input asks for, then a sound packet cut at places that the input chooses."""
    border, _ = scene = gateway()
    made = plane(scene)
    for at in range(1, len(octets) - 3, 4):
        offset, length, flags, filling = octets[at : at + 4]
        content = bytes((filling,)) * (length * 8 + (flags & 7 if flags & 64 else 0))
        packet = _fragment(content, offset=offset | (flags & 31) << 8, more=not flags & 32, identification=flags >> 7)
        judge(made, border, packet, made.process(FAR, packet, now=NOW + at / 100))
    _round_trip(made, border, octets)


def _round_trip(made: object, border: object, octets: bytes) -> None:
    rng = random.Random(octets)
    size = 8 + rng.randrange(2, 3000)
    datagram = (53).to_bytes(2, "big") + _PORT.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes(2)
    datagram += rng.randbytes(size - 8)
    cuts = sorted({0, *(8 * rng.randrange(1, size // 8 + 1) for _ in range(rng.randrange(1, 9)))} - {size})
    pieces = [
        _fragment(datagram[start:stop], offset=start // 8, more=stop != size, identification=0x7000)
        for start, stop in itertools.pairwise([*cuts, size])
    ]
    rng.shuffle(pieces)
    verdicts = [made.process(FAR, piece, now=NOW + 50) for piece in pieces]  # type: ignore[attr-defined]
    for piece, verdict in zip(pieces, verdicts, strict=True):
        judge(made, border, piece, verdict)  # type: ignore[arg-type]
    last = verdicts[-1]
    assert isinstance(last, Forward), f"{size} octets in {len(pieces)} pieces: {last}"
    assert last.reason is Reason.FORWARDED_INWARD
    inner = [Ipv4View.parse(packet[40:]) for packet in last.packets]
    assert b"".join(bytes(each.payload) for each in inner) == datagram
    assert max(len(each.octets) for each in inner) <= FAR_MTU
