# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing the RSIP parser: any octets give a value or a WireError, never anything else.

Mutations know what a message looks like, so that most of them get past the lengths and reach
the grammar. In the test suite ``test_fuzz_rsip.py`` goes further than ``test_targets.py``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from isthmus.errors import WireError
from isthmus.wire.rsip.message import MessageError, emit, parse

_VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "rsip.json").read_text())
SEEDS = [bytes.fromhex(entry["hex"]) for entry in _VECTORS["messages"]]
CODES = frozenset({106, 201, 202, 203, 204, 205, 206, 207})
_TYPES = [*range(1, 18), 22, 23]
_PARAMETERS = [*range(1, 13), 22]


def split(octets: bytes) -> list[tuple[int, bytes]]:
    """Cut a message into parameters as far as that goes; forgiving, and not our parser."""
    items, at = [], 4
    while at + 3 <= len(octets):
        length = int.from_bytes(octets[at + 1 : at + 3], "big")
        items.append((octets[at], octets[at + 3 : at + 3 + length]))
        at += 3 + length
    return items


_POOL = sorted({item for seed in SEEDS for item in split(seed)})


def _change_octet(value: bytes, rng: random.Random) -> bytes:
    if not value:
        return bytes((rng.randrange(256),))
    at = rng.randrange(len(value))
    return value[:at] + bytes((rng.choice((0, 1, 2, 255, rng.randrange(256))),)) + value[at + 1 :]


def _mutate_items(items: list[tuple[int, bytes]], rng: random.Random) -> None:
    at = rng.randrange(len(items)) if items else 0
    action = rng.randrange(8)
    if action == 0 or not items:
        items.insert(rng.randrange(len(items) + 1), rng.choice(_POOL))
    elif action == 1:
        del items[at]
    elif action == 2:
        items.insert(rng.randrange(len(items) + 1), items[at])
    elif action == 3:
        other = rng.randrange(len(items))
        items[at], items[other] = items[other], items[at]
    elif action == 4:
        items[at] = (rng.choice((*_PARAMETERS, rng.randrange(256))), items[at][1])
    elif action == 5:
        items[at] = (items[at][0], items[at][1][: rng.randrange(len(items[at][1]) + 1)])
    elif action == 6:
        items[at] = (items[at][0], items[at][1] + rng.randbytes(rng.randrange(5)))
    else:
        items[at] = (items[at][0], _change_octet(items[at][1], rng))


def mutate(octets: bytes, rng: random.Random) -> bytes:
    """Change a message in one to four ways, and mostly put its lengths right again."""
    if len(octets) < 4 or rng.random() < 0.2:
        octets = rng.choice(SEEDS)
    version, kind = octets[:2]
    items = split(octets)
    for _ in range(rng.randrange(1, 5)):
        if rng.random() < 0.15:
            kind = rng.choice((*_TYPES, rng.randrange(256)))
        else:
            _mutate_items(items, rng)
    body = b"".join(bytes((number,)) + len(value).to_bytes(2, "big") + value for number, value in items)
    length = 4 + len(body)
    damage = rng.random()
    if damage < 0.05:
        length += rng.randrange(-4, 5)
    elif damage < 0.08:
        version = rng.randrange(256)
    mutated = bytes((version, kind)) + (length & 0xFFFF).to_bytes(2, "big") + body
    if 0.08 <= damage < 0.12:
        mutated = _change_octet(mutated, rng)
    elif 0.12 <= damage < 0.15:
        mutated = mutated[: rng.randrange(len(mutated) + 1)]
    return mutated


def _judge(error: WireError, octets: bytes) -> None:
    """Hold an error to its promises: a code to answer with, and a place inside of the message."""
    if not isinstance(error, MessageError) or error.code not in CODES or not 0 <= error.at <= len(octets):
        raise AssertionError(error) from error


def check(octets: bytes) -> bool:
    """Hold the parser to its promises; return whether the octets are a message."""
    try:
        message = parse(octets, strict=False)
    except WireError as error:
        _judge(error, octets)
        message = None
    if message is not None:
        assert emit(message) == octets, "what is read must be written again"
    try:
        same = parse(octets)
    except WireError as error:
        _judge(error, octets)
        return message is not None
    assert same == message, "strict may refuse more, and must not read differently"
    return True
