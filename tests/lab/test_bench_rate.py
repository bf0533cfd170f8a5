# SPDX-License-Identifier: BSD-3-Clause
"""The search of the benchmarks for the highest rate that a server keeps up with."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from lab.machine import ROOT


@pytest.fixture(scope="module")
def rate():
    """bench/ is no package: its files are found by their place."""
    spec = importlib.util.spec_from_file_location("rate", ROOT / "bench/rate.py")
    module = sys.modules["rate"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["rate"]


class Server:
    """Keeps up with so many cycles a second, and is late with the others."""

    def __init__(self, rate, capacity, *, most_asked=float("inf"), bad_moments=()):
        self.rate, self.capacity, self.most_asked = rate, capacity, most_asked
        self.bad_moments = set(bad_moments)
        self.asked = []

    def play(self, asked):
        self.asked.append(asked)
        begun = min(asked, self.most_asked)
        in_time = 0 if len(self.asked) in self.bad_moments else min(begun, self.capacity)
        return self.rate.Trial(asked=asked, begun=begun, in_time=in_time, late_ratio=1 - in_time / begun)


@pytest.mark.parametrize("capacity", [90, 1_000, 2_999, 3_000, 12_345, 200_000])
def test_the_highest_rate_is_found(rate, capacity):
    server = Server(rate, capacity)
    best = rate.highest(server.play, 3000)
    assert best.kept_up
    assert capacity * 0.97 <= best.in_time <= capacity
    assert len(server.asked) < 40


def test_one_bad_moment_does_not_end_the_search(rate):
    best = rate.highest(Server(rate, 10_000, bad_moments=(2, 7)).play, 3000)
    assert best.in_time >= 9_700


def test_a_generator_that_gives_no_more_ends_the_search(rate):
    server = Server(rate, 50_000, most_asked=8_000)
    best = rate.highest(server.play, 3000)
    assert best.in_time == 8_000
    assert max(server.asked) < 12_000


def test_who_never_keeps_up_is_told_as_such(rate):
    assert not rate.highest(Server(rate, 0.001).play, 3000).kept_up
