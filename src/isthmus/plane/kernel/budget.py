# SPDX-License-Identifier: BSD-3-Clause
"""What the programs cost the kernel's verifier: how many instructions it looks at, and how long that takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from isthmus.plane.kernel.loader import Object
from isthmus.plane.kernel.pinned import OBJECTS, read_object

ALLOWED = 1_000_000
"Instructions that the verifier looks at before it gives up (BPF_COMPLEXITY_LIMIT_INSNS)."
_SMALL = {"slices": 1 << 10, "endpoints": 1 << 8, "ring": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One program."""

    program: str
    hook: str
    "Where it is attached: tc or xdp."
    instructions: int
    "That the verifier looked at; 0 before Linux 5.16."
    seconds: float
    "For verifying and compiling it."


def budgets() -> list[Budget]:
    """Load every program and let go of it.

    Raises:
        Unsupported: the kernel, its verifier or our rights do not suffice.
    """
    return [each for hook, name in OBJECTS.items() for each in _load(hook, name)]


def _load(hook: str, name: str) -> list[Budget]:
    opened = Object(name, read_object(name))
    for each, entries in _SMALL.items():
        if each in opened.names:
            opened.size(each, entries)
    programs, maps = opened.load_all(*opened.programs)
    end = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    found = []
    for program, loaded in sorted(programs.items(), key=lambda each: each[1].loaded_at, reverse=True):
        seconds, end = (end - loaded.loaded_at) / 1e9, loaded.loaded_at
        found.append(Budget(program=program, hook=hook, instructions=loaded.verified_instructions, seconds=seconds))
    for loaded in programs.values():
        loaded.close()
    for made in maps.values():
        made.close()
    return found[::-1]
