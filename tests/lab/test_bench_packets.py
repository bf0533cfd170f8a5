# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks of packets make of counters, and what they take for a right packet."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path

import pytest

from lab.machine import ROOT


@pytest.fixture
def bench(monkeypatch):
    """bench/ is no package: its files find each other by their place."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module


def window(bench, *, run, sunk, naps=0, held_up=0, apart=70):
    sample = bench("sample")
    grown = sample.Reading(at=1000, made=5000, sunk=sunk, run=run, held_up=held_up, naps=naps)
    return sample.Window(grown=grown, apart=apart)


def test_a_window_counts_if_the_core_had_always_something_to_do_near_the_generators(bench):
    busy = window(bench, run=990, sunk=10)
    held_up = window(bench, run=600, sunk=6, held_up=400, naps=3)
    waits = window(bench, run=800, sunk=4, naps=20)
    far = window(bench, run=1000, sunk=2, apart=330)
    assert [each.counts for each in (busy, held_up, waits, far)] == [True, True, False, False]
    found = bench("sample").sampled([busy, held_up, waits, far])
    assert found.cost == pytest.approx(1590 / 16)
    assert found.apart == 70
    assert found.used == 0.5


def test_if_no_window_counts_all_of_them_are_shown_as_they_are(bench):
    found = bench("sample").sampled(
        [window(bench, run=800, sunk=4, naps=20), window(bench, run=1000, sunk=2, apart=330)]
    )
    assert found.cost == pytest.approx(1800 / 6)
    assert (found.used, found.apart, found.idle) == (0, 330, pytest.approx(0.1))


def frame(packet):
    return bytes(12) + b"\x08\x00" + packet


def packet_of(expected, flow):
    """The packet that has to come out of a flow."""
    peer = 0xC6120000 + ((flow & 0x1FFFF) * 40503 & 0x1FFFF)
    return expected.packet(bytes(16) + peer.to_bytes(4, "big") + bytes(2) + (7 + (flow >> 17)).to_bytes(2, "big"))


@pytest.mark.parametrize(("tunnel", "masquerade"), [("ipip", False), (None, True), (None, False)])
def test_packets_are_right_only_to_the_last_octet(bench, tunnel, masquerade):
    from isthmus.lab.topology import LabError

    expected = bench("outputs").Expected(flows=100_000, leases=1_000_000, tunnel=tunnel, masquerade=masquerade)
    frames = [frame(packet_of(expected, flow)) for flow in range(0, 100_000, 977)]
    expected.check([*frames, bytes(60)], "what is not IPv4 is not looked at")
    for at in range(len(frames[0]) - 14):
        wrong = bytearray(frames[7])
        wrong[14 + at] ^= 1
        with pytest.raises(LabError):
            expected.check([*frames, bytes(wrong)], "one bit")
    with pytest.raises(LabError, match="only 99"):
        expected.check(frames[:99], "too few")


def attached_programs():
    """The links to programs that this process holds."""
    abouts = []
    for entry in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            abouts.append(entry.read_text(encoding="ascii"))
    return sum("link_type" in about for about in abouts)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to load eBPF")
def test_what_counts_packets_is_detached_when_they_are_counted(bench, tmp_path):
    """Otherwise every packet pays for all runs before it."""
    loaded = bench("libbpf").BpfObject(bench("packets").compile_generator(tmp_path))
    before = attached_programs()
    with loaded.attached("transmits"):
        assert attached_programs() == before + 1
    assert attached_programs() == before
    loaded.close()
