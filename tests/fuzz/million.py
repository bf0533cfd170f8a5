# SPDX-License-Identifier: BSD-3-Clause
"""A million random and mutated control messages, into the parser and into a live gateway.

The parser gives a value or a ``WireError``; the gateway gives no exception and at most one
answer to whoever sent the message::

    PYTHONPATH=src:tests python tests/fuzz/million.py 1000000

The same number gives the same messages, so that what it finds can be found again. Shorter runs
of it are part of the test suite (``test_million.py``).
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from fuzz.fuzz_rsip import SEEDS, check, mutate
from isthmus.address import Address
from isthmus.border.effect import Peer, Send
from isthmus.border.ranges import Ranges
from isthmus.wire.rsip.codes import MessageType
from isthmus.wire.rsip.message import parse
from rsip.conversation import SHARED, make_gateway, make_policy, make_pool

_HOSTS = [
    *(Peer(1, Address.parse(f"10.0.0.{each}"), 40001) for each in range(4, 8)),
    *(Peer(1, Address.parse(f"10.0.0.{each}"), 40002, each) for each in range(8, 11)),
    Peer(1, Address.parse("192.0.2.1"), 40001),
    Peer(2, Address.parse("10.0.0.4"), 40001),
]
"""Over UDP, over TCP, a stranger, and one from the wrong realm."""
_CLIENT_ID, _BIND_ID, _COUNTER = 4, 5, 11


def personal(octets: bytes, rng: random.Random, client_id: int, counter: int) -> bytes:
    """Let most messages carry their sender's Client ID, a likely Bind ID and the next counter."""
    out, at = bytearray(octets), 4
    while at + 7 <= len(out):
        kind, length = out[at], int.from_bytes(out[at + 1 : at + 3], "big")
        if length == 4 and kind in (_CLIENT_ID, _BIND_ID, _COUNTER) and rng.random() < 0.9:
            number = {_CLIENT_ID: client_id, _BIND_ID: rng.randrange(1, 5), _COUNTER: counter}[kind]
            out[at + 3 : at + 7] = number.to_bytes(4, "big")
        at += 3 + length
    return bytes(out)


def _next(octets: bytes, rng: random.Random) -> bytes:
    """A right message, a wrong one, one further from right than the last, or noise."""
    choice = rng.random()
    if choice < 0.3:
        return rng.choice(SEEDS)
    if choice < 0.6:
        return mutate(rng.choice(SEEDS), rng)
    return mutate(octets, rng) if choice < 0.95 else rng.randbytes(rng.randrange(64))


def run(count: int, seed: int = 3103) -> Counter[str]:
    """Send that many messages; returns how many were answered by what.

    Raises:
        AssertionError: two answers to one message, or an answer to somebody else.
    """
    rng = random.Random(seed)
    pool = make_pool(spis={SHARED: Ranges.of((0x1000, 0x1FFFF))}, ike=[SHARED])
    gateway = make_gateway(make_policy(requests_per_second=None), pool)
    octets, now, known, counters, seen = SEEDS[0], 1e9, dict[Address, int](), Counter[Peer](), Counter[str]()
    for number in range(count):
        octets = _next(octets, rng)
        peer = rng.choice(_HOSTS)
        counters[peer] += 1
        message = personal(octets, rng, known.get(peer.address, 1), counters[peer])
        check(message)
        now += 0.01
        (gateway.receive_message if peer.connection else gateway.receive_datagram)(message, peer, now=now)
        answers = []
        for effect in gateway.next_effects():
            if isinstance(effect, Send):
                answer = parse(effect.data)
                unasked = answer.message_counter is not None and not answer.message_counter.value
                if not (unasked and answer.type in (MessageType.FREE_RESPONSE, MessageType.DE_REGISTER_RESPONSE)):
                    answers.append((effect.peer, answer))
        assert len(answers) <= 1, f"message {number}: {len(answers)} answers to {message.hex()}"
        for whom, answer in answers:
            assert whom == peer, f"message {number} of {peer} was answered to {whom}"
            if answer.type is MessageType.REGISTER_RESPONSE:
                known[peer.address] = answer.client_id.value
            seen[answer.type.name] += 1
        seen["silence"] += not answers
    return seen


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    answers = Counter[str]()
    for start in range(0, total, 50_000):
        answers += run(min(50_000, total - start), seed=3103 + start)
        print(f"{min(start + 50_000, total)} of {total} messages", file=sys.stderr)
    print(", ".join(f"{name} {count}" for name, count in answers.most_common()))
