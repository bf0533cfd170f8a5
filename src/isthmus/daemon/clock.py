# SPDX-License-Identifier: BSD-3-Clause
"""A wall clock that is anchored once per boot.

Leases are kept in seconds since 1970, so that they mean something after a restart; yet
nothing here may jump when somebody sets the time. So the difference between the two
clocks is measured once per boot and name, kept in a file, and used until the next boot:
the deadlines in pinned maps and those in the store stay the same for a daemon that restarts.
"""

from __future__ import annotations

import json
import time
from pathlib import Path


class Clock:
    """Seconds since 1970, never stepping back within a boot."""

    def __init__(self, anchor: Path | None = None) -> None:
        """Anchor the clock.

        Args:
            anchor: A file that remembers the anchor of this boot; None: only for this process.
        """
        self._anchor = anchor
        self.boot_offset = _read(anchor) if anchor is not None else None
        "Seconds to add to CLOCK_BOOTTIME."
        if self.boot_offset is None:
            self.boot_offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
            if anchor is not None:
                anchor.parent.mkdir(parents=True, exist_ok=True)
                anchor.write_text(json.dumps({"boot_id": _boot_id(), "offset": self.boot_offset}), encoding="ascii")

    def now(self) -> float:
        """The time now, in seconds since 1970."""
        assert self.boot_offset is not None
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.boot_offset

    def forget(self) -> None:
        """Remove the anchor: nothing that is pinned depends on it any more."""
        if self._anchor is not None:
            self._anchor.unlink(missing_ok=True)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _read(anchor: Path) -> float | None:
    try:
        kept = json.loads(anchor.read_text(encoding="ascii"))
        return float(kept["offset"]) if kept["boot_id"] == _boot_id() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
