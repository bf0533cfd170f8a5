# SPDX-License-Identifier: BSD-3-Clause
"""The clock is anchored once per boot."""

import time

from isthmus.daemon.clock import Clock


def test_a_step_of_the_wall_clock_is_not_seen(monkeypatch):
    clock = Clock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: before - 86400)
    assert clock.now() >= before


def test_a_restart_within_a_boot_keeps_the_anchor(tmp_path, monkeypatch):
    first = Clock(tmp_path / "anchor")
    monkeypatch.setattr(time, "time", lambda: 12345.0)
    assert Clock(tmp_path / "anchor").boot_offset == first.boot_offset


def test_an_anchor_of_another_boot_or_a_broken_one_is_made_anew(tmp_path):
    anchor = tmp_path / "anchor"
    for text in ('{"boot_id": "another", "offset": 1.0}', "{", '{"boot_id": 3}', "null"):
        anchor.write_text(text, encoding="ascii")
        assert abs(Clock(anchor).now() - time.time()) < 5
