# SPDX-License-Identifier: BSD-3-Clause
"""Who goes first on a core, so that a measurement has one to itself although others work on the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

FIRST = -20
"""The niceness of what goes first."""


def go_first(process: int = 0) -> None:
    """Let a process go before nearly all others on its core.

    Linux shares a core between sessions before it does between the processes of one (``sched_autogroup_enabled``), so
    that a process's own niceness says nothing beside those of other sessions: its session's has to be set, too.

    Args:
        process: By its id; 0: this one. It leads a session of its own.
    """
    os.setpriority(os.PRIO_PROCESS, process, FIRST)
    group = Path(f"/proc/{process or 'self'}/autogroup")
    if group.exists():
        group.write_text(str(FIRST), encoding="ascii")


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Let this thread run whenever it is ready to, so that what it reads together is of one moment.

    It has to sleep most of the time. What it starts meanwhile is scheduled like anything else.
    """
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
