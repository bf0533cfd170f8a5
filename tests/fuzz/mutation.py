# SPDX-License-Identifier: BSD-3-Clause
"""Octets near other octets: what every fuzz target does to its corpus, with atheris and without."""

from __future__ import annotations

import random
from collections.abc import Sequence

_TELLING = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 20, 31, 32, 47, 50, 51, 63, 64, 127, 128, 224, 240, 254, 255)
_LONGEST = 4096


def mutate(octets: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Change octets in one to four ways: a bit, an octet, a number, a piece gone, doubled, moved or from elsewhere."""
    changed = bytearray(octets)
    for _ in range(rng.randrange(1, 5)):
        _change(changed, rng, others)
    return bytes(changed[:_LONGEST])


def _change(octets: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    action = rng.randrange(9) if octets else 8
    at = rng.randrange(len(octets)) if octets else 0
    piece = octets[at : at + rng.randrange(1, 24)]
    if action == 0:
        octets[at] ^= 1 << rng.randrange(8)
    elif action == 1:
        octets[at] = rng.choice(_TELLING)
    elif action == 2:
        octets[at] = rng.randrange(256)
    elif action == 3:
        number = int.from_bytes(octets[at : at + 2], "big") + rng.choice((-20, -8, -4, -1, 1, 4, 8, 20))
        octets[at : at + 2] = (number & 0xFFFF).to_bytes(2, "big")
    elif action == 4:
        del octets[at : at + len(piece)]
    elif action == 5:
        octets[at:at] = piece
    elif action == 6:
        del octets[at:]
    elif action == 7:
        to = rng.randrange(len(octets))
        octets[to : to + len(piece)] = piece
    else:
        other = rng.choice(others) if others else rng.randbytes(16)
        start = rng.randrange(len(other)) if other else 0
        octets[at:at] = other[start : start + rng.randrange(1, 64)]
