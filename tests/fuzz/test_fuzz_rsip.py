# SPDX-License-Identifier: BSD-3-Clause
"""A fixed, bounded run of the fuzzer, the same every time."""

from __future__ import annotations

import random

import pytest

from fuzz.fuzz_rsip import SEEDS, check, mutate

_RUNS = 20_000


def test_every_seed_is_a_message() -> None:
    assert len(SEEDS) == 30
    assert all(check(seed) for seed in SEEDS)


@pytest.mark.rfc("3103", "14")
def test_mutations_give_a_message_or_an_error() -> None:
    rng = random.Random(3103)
    octets, good = SEEDS[0], 0
    for _ in range(_RUNS):
        octets = mutate(octets, rng)
        good += check(octets)
    assert _RUNS // 50 < good < _RUNS, "mutations must reach both sides"


def test_plain_noise_gives_a_message_or_an_error() -> None:
    rng = random.Random(3104)
    for _ in range(2_000):
        check(rng.randbytes(rng.randrange(60)))
        noise = rng.randbytes(rng.randrange(40))
        check(bytes((1, rng.choice((2, 14, 22)))) + (4 + len(noise)).to_bytes(2, "big") + noise)


def test_truncations_of_every_seed() -> None:
    for seed in SEEDS:
        for n in range(len(seed)):
            assert not check(seed[:n])
