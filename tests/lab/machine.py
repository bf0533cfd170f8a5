# SPDX-License-Identifier: BSD-3-Clause
"""The machine that the lab's tests run on: the program as a user runs it, and what could be left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from isthmus.lab.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
LABS = Path("/run/isthmus/lab")
SHARED = bool(os.environ.get("ISTHMUS_TESTS_BESIDE"))
"""Whether other tests run on this machine at the same time, as ./test has it."""


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


PLAINLY = ("env", "--default-signal=INT")
"""Starts a program that Ctrl-C ends, also where a shell in the background has made it ignored."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}


@dataclass(frozen=True)
class Machine:
    """What a lab could leave behind."""

    namespaces: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    mounts: frozenset[str]
    labs: frozenset[str]
    processes: frozenset[str]

    def since(self, before: Machine) -> dict[str, list[str]]:
        """What is there now and was not before."""
        new = {each.name: sorted(getattr(self, each.name) - getattr(before, each.name)) for each in fields(self)}
        return {name: there for name, there in new.items() if there}

    @classmethod
    def now(cls) -> Machine:
        """What there is; while other tests run beside these, only what has a scenario's name."""
        if SHARED:
            return cls._of_scenarios()
        netns = Path("/run/netns")
        links = json.loads(_said("ip", "-json", "link"))
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        names = [each.name for each in netns.iterdir()] if netns.is_dir() else []
        return cls(
            namespaces=frozenset(name for name in names if name.startswith(("ist-", "isthmus-"))),
            links=frozenset(each["ifname"] for each in links),
            tables=frozenset(_said("nft", "list", "tables").splitlines()),
            mounts=frozenset(point for point in mounts if point.startswith("/run/isthmus")),
            labs=frozenset(str(each) for each in LABS.glob("*")),
            processes=frozenset(_lab_processes()),
        )

    @classmethod
    def _of_scenarios(cls) -> Machine:
        marks = tuple(f"{LABS}/{name}" for name in (*SCENARIOS, "bench-"))
        nobody: frozenset[str] = frozenset()
        namespaces = [each.name for each in Path("/run/netns").glob("ist-*")]
        return cls(
            namespaces=frozenset(
                each for each in namespaces if each.startswith(tuple(f"ist-{name}-" for name in (*SCENARIOS, "bench")))
            ),
            links=nobody,
            tables=nobody,
            mounts=nobody,
            labs=frozenset(str(each) for each in LABS.glob("*") if str(each).startswith(marks)),
            processes=frozenset(line for line in _lab_processes() if any(mark in line for mark in marks)),
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
