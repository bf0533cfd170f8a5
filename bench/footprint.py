# SPDX-License-Identifier: BSD-3-Clause
"""How much memory a daemon takes: its processes, and the maps in the kernel that it holds; and how much time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_FIELD = re.compile(r"^(\w+):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Octets."""

    processes: int
    "Their memory, each page that several share by parts (Pss), less the pages of maps."
    maps: int
    "What the kernel has allocated for maps (memlock in fdinfo)."

    @property
    def all(self) -> int:
        """Both."""
        return self.processes + self.maps


def processes(pid: int) -> list[int]:
    """A process and all that it has started."""
    children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text(encoding="ascii").split()
    return [pid, *(each for child in children for each in processes(int(child)))]


def footprint(pid: int) -> Footprint:
    """Look at a daemon."""
    maps: dict[int, int] = {}
    total = mapped = 0
    for each in processes(pid):
        total += _pss(_PROC / str(each) / "smaps_rollup")
        mapped += _mapped(_PROC / str(each) / "smaps")
        maps |= _maps(_PROC / str(each) / "fdinfo")
    return Footprint(processes=total - mapped, maps=sum(maps.values()))


def processor_seconds(pid: int) -> float:
    """How long a daemon's processes have worked."""
    ticks = 0
    for each in processes(pid):
        fields = (_PROC / str(each) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _pss(path: Path) -> int:
    return 1024 * int(dict(_FIELD.findall(path.read_text(encoding="ascii")))["Pss"])


def _mapped(path: Path) -> int:
    """The pages of maps: they are in the maps' sum, too."""
    found, ours = 0, False
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if "-" in words[0]:
            ours = words[-1].endswith("bpf-map")
        elif ours and words[0] == "Pss:":
            found += 1024 * int(words[1])
    return found


def _maps(path: Path) -> dict[int, int]:
    """Octets by the number of a map."""
    found = {}
    for each in path.iterdir():
        try:
            fields = dict(_FIELD.findall(each.read_text(encoding="ascii")))
        except OSError:
            continue
        if "map_id" in fields:
            found[int(fields["map_id"])] = int(fields["memlock"])
    return found
