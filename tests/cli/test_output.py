# SPDX-License-Identifier: BSD-3-Clause
"""What every command prints with, and what every command does with nonsense."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cli.program import process, run
from isthmus.cli import COMMANDS, output
from isthmus.errors import ConfigError


@given(st.integers(0, 1 << 33))
def test_times_survive(seconds):
    assert output.read_time(output.time_text(seconds)) == seconds
    assert datetime.fromisoformat(output.time_text(seconds)).utcoffset() is not None


@given(st.floats())
def test_every_time_has_a_text(seconds):
    assert output.time_text(seconds)


def test_times_that_are_none():
    assert output.time_text(math.inf) == "forever"
    assert output.time_text(None) == ""
    assert output.with_times({"a": 0, "b": None, "c": 1}, "a", "b", "d") == {
        "a": output.time_text(0),
        "b": None,
        "c": 1,
    }
    assert output.read_time("now") == pytest.approx(time.time(), abs=5)


def test_tables_are_not_cut_off(capsys):
    output.print_table(("ONE", "TWO"), [("x" * 300, None), ("[bold]", 3)])
    lines = capsys.readouterr().out.splitlines()
    assert "x" * 300 in lines[1]
    assert "[bold]" in lines[2]
    assert lines[1] == lines[1].rstrip()


def test_a_terminal_that_is_too_narrow_breaks_wide_columns_and_no_others(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    words = "what is said in many words " * 5
    output.print_table(("REASON", "REALM", "WHAT"), [("NO_BINDING", "site", words), ("x" * 20, None, "q" * 90)])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", each) for each in capsys.readouterr().out.splitlines()]
    assert all(len(each) <= 80 for each in lines)
    assert lines[1].split()[:3] == ["NO_BINDING", "site", "what"]
    assert "".join(lines).count("q") == 90
    assert " ".join(" ".join(lines).split()).count("many words") == 5
    output.print_table([str(each) for each in range(6)], [["z" * 20] * 6])
    assert capsys.readouterr().out.count("z" * 20) == 6, "too many columns for any terminal are not cut off either"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConfigError("gateway.toml", key="gateway.near", reason="is required"),
            "gateway.toml: gateway.near: is required",
        ),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), "x.toml: No such file or directory"),
        (OSError("strange"), "strange"),
    ],
)
def test_expected_errors_are_one_line_and_2(error, said, capsys):
    @output.plain_errors
    def command():
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == f"isthmus: {said}\n"


def test_an_error_that_nobody_expected_is_not_hidden():
    @output.plain_errors
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_are_refused_without_a_traceback(command):
    result = run(command, "--no-such-option")
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_as_a_process():
    assert process("--help").returncode == 0
    ended = process("no-such-command")
    assert ended.returncode == 2
    assert "No such command" in ended.stderr
    assert process("explain", "no-such-reason").returncode == 2


def test_help_does_not_load_what_is_slow():
    slow = ("pydantic", "scapy", "pyroute2", "sqlite3", "rich.table")
    program = f"import sys; from isthmus.cli import decode, explain, check, leases; print([each for each in {slow} if each in sys.modules])"
    import subprocess
    import sys

    from cli.program import ROOT

    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert ended.stdout.strip() == "[]"
