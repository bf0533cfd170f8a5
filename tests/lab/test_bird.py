# SPDX-License-Identifier: BSD-3-Clause
"""The files for BIRD that the documentation gives are files that BIRD takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BIRD = shutil.which("bird", path="/usr/sbin:/usr/bin:/sbin")
PAGE = Path(__file__).parents[2] / "docs" / "sip-routing.md"
FILES = re.findall(r"```\n(router id.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_two():
    assert len(FILES) == 2


@pytest.mark.skipif(BIRD is None, reason="there is no BIRD: install bird2")
@pytest.mark.parametrize("text", FILES, ids=["babel", "bgp"])
def test_bird_takes_what_the_documentation_gives(text, tmp_path):
    path = tmp_path / "bird.conf"
    path.write_text(text, encoding="ascii")
    done = subprocess.run([BIRD, "-p", "-c", path], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
