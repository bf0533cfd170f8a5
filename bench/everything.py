# SPDX-License-Identifier: BSD-3-Clause
"""Runs benchmarks, keeps what they tell in docs/figures, and makes plots and tables of it: ``make bench``.

    python bench/everything.py [--quick] [NAME ...]

A goal that is missed is a figure; a benchmark that does not run to its end is a failure, and leaves what was there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from report import machine, progress

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs/figures"
DOCTOR = "doctor"
"""No benchmark: what the verifier makes of the programs."""
BENCHES = (DOCTOR, "packet", "nat", "lease", "churn", "million", "host", "forward", "map", "translate")
GOAL_MISSED = 1


def run(name: str, *, quick: bool) -> str | None:
    """Run one and keep what it tells; returns what was wrong."""
    words = [sys.executable, "-m", "isthmus", *((DOCTOR,) if name == DOCTOR else ("bench", name)), "--json"]
    words += ["--quick"] if quick and name != DOCTOR else []
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE)
    if done.returncode not in {0, GOAL_MISSED}:
        return f"ended with status {done.returncode}"
    try:
        told = json.loads(done.stdout)
        text = done.stdout.decode() if name != DOCTOR else budgets(told)
    except (ValueError, KeyError) as error:
        return f"told no figures: {error!r}"
    path = FIGURES / f"{name}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return None


def budgets(told: dict[str, object]) -> str:
    """Of what the doctor says, what belongs to the programs and not to the machine."""
    kept = {"programs": told["programs"], "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    return json.dumps(kept, indent=2) + "\n"


def renew() -> None:
    """Draw the plots and write the tables."""
    subprocess.run([sys.executable, str(ROOT / "bench/plot.py")], check=True)
    words = ["-m", "cogapp", "-r", "-P", "-I", "docs", "docs/performance.md"]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def main() -> int:
    """Run all of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs: show that it works, prove nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    options = parser.parse_args()
    if unknown := set(options.names).difference(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    FIGURES.mkdir(exist_ok=True)
    failed = {}
    names = options.names or BENCHES
    for at, name in enumerate(names, start=1):
        progress(f"--- {name} ({at} of {len(names)})")
        began = time.monotonic()
        if (wrong := run(name, quick=options.quick)) is not None:
            failed[name] = wrong
        progress(f"--- {name}: {wrong or 'done'}, {time.monotonic() - began:.0f} s")
    if len(failed) < len(names):
        renew()
    for name, wrong in failed.items():
        progress(f"bench {name} FAILED: it {wrong}; its figures are the old ones")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
