# SPDX-License-Identifier: BSD-3-Clause
"""Lines that are written together read as if each were written by itself."""

from __future__ import annotations

import io
import json
import sys

import structlog

from isthmus.daemon import messages
from isthmus.daemon.messages import Message, configure, log, log_all

LINES = [
    (Message.REGISTERED, {"host": "10.0.0.4", "client_id": 4294967295}),
    (Message.BOUND, {"binding": "10.0.0.4#1", "holds": 'caf\u00e9 "quoted"\n; 149.112.240.55 port 10000-10015'}),
    (Message.WAY_NARROW, {}),
]


def written(monkeypatch, write):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(verbose=False)
    try:
        write()
    finally:
        structlog.reset_defaults()
        messages._json_to.clear()
    lines = stream.getvalue().splitlines()
    return [list(json.loads(each).items())[:-1] for each in lines], [json.loads(each)["timestamp"] for each in lines]


def test_a_batch_of_lines_reads_as_if_each_were_written_by_itself(monkeypatch):
    def one_by_one():
        for message, fields in LINES:
            log(message, **fields)

    single, times = written(monkeypatch, one_by_one)
    batch, same_time = written(monkeypatch, lambda: log_all(LINES))
    assert batch == single
    assert len(set(same_time)) == 1
    assert {len(each) for each in same_time} == {len(each) for each in times}


def test_nothing_is_written_for_no_lines(monkeypatch):
    assert written(monkeypatch, lambda: log_all([])) == ([], [])


def test_before_anything_is_configured_lines_are_written_one_by_one(capsys):
    log_all(LINES)
    assert "REGISTERED" in capsys.readouterr().out
