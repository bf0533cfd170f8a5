# SPDX-License-Identifier: BSD-3-Clause
"""How far the generator's core and the gateway's are from each other: runs ``load/apart.c``.

A packet goes from one to the other, and what that costs is no gateway's doing. Those who run virtual machines move
their cores: a line of the cache takes 50 to 90 ns to the other core and back for some time here, then 310 to 390 ns.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report import progress

NEAR = 150
"""Nanoseconds, there and back, that two cores have which share a cache."""
_EVERY = 0.5


def compile_load(directory: Path) -> Path:
    """Compile what looks."""
    source, target = Path(__file__).parent / "load/apart.c", directory / "apart"
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-pthread", str(source), "-o", str(target)]
    subprocess.run(words, check=True)
    return target


@dataclass(slots=True)
class Patience:
    """Waits until the cores are near each other, all in all for so many seconds."""

    seconds: float

    def wait(self, load: Path, cores: Sequence[int]) -> int:
        """Wait; returns how far they are from each other now, in nanoseconds there and back."""
        began, waits = time.monotonic(), False
        while (found := far(load, cores)) > NEAR and time.monotonic() - began < self.seconds:
            if not waits:
                progress(f"waiting until the two cores are near each other: {found} ns")
            waits = True
            time.sleep(_EVERY)
        if waits:
            self.seconds -= time.monotonic() - began
        return found


def far(load: Path, cores: Sequence[int]) -> int:
    """How far two cores are from each other, in nanoseconds there and back."""
    words = [str(load), *map(str, cores)]
    return int(subprocess.run(words, check=True, capture_output=True, timeout=10).stdout)
