# SPDX-License-Identifier: BSD-3-Clause
"""Ephemeral ports: a host MUST draw them from what it leases (RFC 3102 §3.1).

Linux has one range for a network namespace and a list of ports within it that are not
to be drawn: the gaps between leases.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from isthmus.border.ranges import Ranges
from isthmus.daemon.device import inside, write_sysctl
from isthmus.daemon.offloop import off_loop

_FIRST = "net/ipv4/ip_unprivileged_port_start"
_RANGE = "net/ipv4/ip_local_port_range"
_GAPS = "net/ipv4/ip_local_reserved_ports"


@off_loop
def limit_ports(ports: Ranges, namespace: str | None = None) -> None:
    """Let programs draw from these ports only.

    Args:
        ports: Not empty.
        namespace: Whose programs; None: those of the namespace that we are in.
    """
    first, last = ports.pairs[0][0], ports.pairs[-1][1]
    gaps = Ranges.of((first, last)) - ports
    with inside(namespace) if namespace else contextlib.nullcontext():
        write_sysctl(_GAPS, str(gaps) if gaps else "\n")
        write_sysctl(_FIRST, str(min(first, 1024)))
        write_sysctl(_RANGE, f"{first} {last}")


class MachinePorts:
    """The ephemeral ports of the machine itself, which go back to what they were.

    Args:
        kept: A file that remembers what they were, also for the next daemon if this one is killed.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept

    def draw_from(self, ports: Ranges) -> None:
        """Let the machine's programs draw from these; from what they did before, if there are none."""
        if ports:
            if not self._kept.exists():
                before = {
                    name: Path("/proc/sys", name).read_text(encoding="ascii").strip()
                    for name in (_GAPS, _FIRST, _RANGE)
                }
                self._kept.write_text(json.dumps(before), encoding="ascii")
            limit_ports(ports)
        else:
            self.restore()

    def restore(self) -> None:
        """Undo; nothing to undo is no error."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            before = json.loads(self._kept.read_text(encoding="ascii"))
            for name in (_RANGE, _FIRST, _GAPS):
                write_sysctl(name, before[name] or "\n")
        self._kept.unlink(missing_ok=True)
