# SPDX-License-Identifier: BSD-3-Clause
"""The machine that the lab's tests run on: the program as a user runs it, and what could be left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABS = Path("/run/isthmus/lab")


def isthmus(*words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "isthmus", *words],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}


@dataclass(frozen=True)
class Machine:
    """What a lab could leave behind."""

    namespaces: tuple[str, ...]
    links: tuple[str, ...]
    tables: str
    mounts: tuple[str, ...]
    labs: tuple[str, ...]
    processes: tuple[str, ...]

    @classmethod
    def now(cls) -> Machine:
        netns = Path("/run/netns")
        links = json.loads(_said("ip", "-json", "link"))
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return cls(
            namespaces=tuple(sorted(each.name for each in netns.iterdir())) if netns.is_dir() else (),
            links=tuple(sorted(each["ifname"] for each in links)),
            tables=_said("nft", "list", "tables"),
            mounts=tuple(sorted(point for point in mounts if point.startswith("/run/isthmus"))),
            labs=tuple(sorted(str(each) for each in LABS.glob("*"))),
            processes=tuple(sorted(_lab_processes())),
        )


def _said(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30).stdout
    except FileNotFoundError:
        return ""


def _lab_processes() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(LABS) in line:
            found.append(line)
    return found
