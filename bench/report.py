# SPDX-License-Identifier: BSD-3-Clause
"""The form in which every benchmark tells its figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

_BEGAN = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing measured; None where a field does not apply."""

    name: str
    unit: str
    ours: float | None
    theirs: float | None = None
    ratio: float | None = None
    "Ours to theirs; for rates more is better, for times less."
    goal: float | None = None
    met: bool | None = None


def compare(name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None = None) -> Figure:
    """Make a figure of the medians of two series of rates."""
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = round(a / b, 3)
    met = None if goal is None else ratio >= goal
    return Figure(name=name, unit=unit, ours=_short(a), theirs=_short(b), ratio=ratio, goal=goal, met=met)


def _short(value: float) -> float:
    return round(value) if value >= 1000 else round(value, 3)


def machine() -> str:
    """What it was measured on, in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def parser(
    doc: str | None, quick: str = "one short round: shows that it works, proves nothing"
) -> argparse.ArgumentParser:
    """The options of every benchmark that is measured in rounds.

    Args:
        doc: What it measures.
        quick: What a short run is.
    """
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--json", action="store_true")
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--rounds", type=int)
    return made


def ask_for_root(bench: str, why: str) -> None:
    """Say that a benchmark needs root, and why.

    Raises:
        SystemExit: with 2, it is not run by root.
    """
    if os.geteuid():
        print(f"bench {bench} needs root: {why}", file=sys.stderr)
        raise SystemExit(2)


def publish(
    bench: str,
    figures: Sequence[Figure],
    method: str,
    *,
    as_json: bool,
    series: Sequence[Mapping[str, object]] | None = None,
) -> int:
    """Print the figures; returns 1 if a goal was missed, else 0.

    Args:
        bench: Which benchmark.
        figures: What it found.
        method: How, in sentences.
        as_json: For machines.
        series: Every run that the figures are made of, for plots; in JSON only.
    """
    if as_json:
        data = {"bench": bench, "figures": [asdict(each) for each in figures], "method": method, "machine": machine()}
        data |= {"date": datetime.now(UTC).date().isoformat(), "seconds": round(time.monotonic() - _BEGAN)}
        print(json.dumps(data | ({} if series is None else {"series": list(series)}), indent=2))
    else:
        table = Table(title=f"bench {bench}", title_justify="left", box=None, pad_edge=False)
        for column in ("what", "unit", "ours", "theirs", "ratio", "goal", "met"):
            table.add_column(column, no_wrap=True, justify="left" if column in {"what", "unit", "met"} else "right")
        for each in figures:
            met = {None: "", True: "yes", False: "NO"}[each.met]
            cells = (each.ours, each.theirs, each.ratio, each.goal)
            table.add_row(each.name, each.unit, *("" if cell is None else f"{cell:,}" for cell in cells), met)
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        console.print(table)
        console.print(f"\n{method}\n{machine()}", style="dim")
    return int(any(each.met is False for each in figures))


def progress(text: str) -> None:
    """Say on standard error what is being measured."""
    print(text, file=sys.stderr, flush=True)
