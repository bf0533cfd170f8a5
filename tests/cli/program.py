# SPDX-License-Identifier: BSD-3-Clause
"""Running the program: in this process, which is fast, and as a process of its own, which is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from isthmus.cli import app

ROOT = Path(__file__).parents[2]
FIGURE_1 = """\
[isthmus]
state = "memory:"

[[realm]]
name = "private"
interface = "eth1"

[[realm]]
name = "public"
interface = "eth0"

[gateway]
near = "private"
realm = "public"
address = "10.0.0.1"

[[gateway.pool]]
address = "149.112.240.55"
ports = "10000-19999"
"""


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """Run the program in this process; what it raises beside SystemExit fails the test."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(*arguments: object, stdin: str | bytes | None = None) -> Any:
    """Run it with --json and give what it said."""
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object, stdin: str | bytes | None = None) -> str:
    """Run it, see that it refuses as it should, and give the one line that it says."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("isthmus: ")
    return lines[0]


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a process, and wait for it."""
    with started(*arguments, **environment) as program:
        stdout, stderr = program.communicate(timeout=120)
    return subprocess.CompletedProcess(program.args, program.returncode, stdout.decode(), stderr.decode())


def started(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    """Run the program as a process."""
    command = [sys.executable, "-m", "isthmus", *map(str, arguments)]
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    variables = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables
    )
