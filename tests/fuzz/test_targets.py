# SPDX-License-Identifier: BSD-3-Clause
"""Every fuzz target, shortly: its corpus, and mutations of it that are the same every time."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.mutation import mutate
from fuzz.target import HERE, Target, names

_LARGEST_ENTRY = 4_096


@pytest.mark.parametrize("name", names())
def test_every_target_has_a_small_corpus(name: str) -> None:
    corpus = Target.load(name).corpus
    assert corpus
    assert all(len(each) <= _LARGEST_ENTRY for each in corpus)


@pytest.mark.parametrize("name", names())
def test_the_corpus_and_what_is_near_it(name: str) -> None:
    target, rng = Target.load(name), random.Random(name)
    for octets in target.corpus:
        target.check(octets)
    octets = target.corpus[0]
    for number in range(target.runs):
        if number % 4 == 0:
            octets = rng.choice(target.corpus)
        octets = target.mutate(octets, rng)
        target.check(octets)


@pytest.mark.parametrize("name", names())
def test_every_beginning_of_the_corpus(name: str) -> None:
    target = Target.load(name)
    for octets in target.corpus[:8]:
        for length in range(min(len(octets), 120)):
            target.check(octets[:length])


def test_the_same_seed_gives_the_same_octets() -> None:
    octets = bytes(range(64))
    assert mutate(octets, random.Random(1)) == mutate(octets, random.Random(1))
    assert len({mutate(octets, random.Random(seed)) for seed in range(100)}) > 90


def test_no_corpus_is_without_a_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} <= set(names())


def test_make_fuzz_drives_every_target() -> None:
    script = (HERE.parents[1] / "tools" / "fuzz.sh").read_text()
    assert "tests/fuzz/fuzz_*.py" in script
    assert "tests/fuzz/target.py" in script


def test_atheris_drives_a_target(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(HERE / "target.py"), "gre", "-runs=500"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "Done 500" in ended.stderr
