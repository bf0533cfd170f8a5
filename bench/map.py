# SPDX-License-Identifier: BSD-3-Clause
"""Flat mapping tables, beside the kernel's routing table: ``python bench/map.py [--json] [--quick]``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import crossing
import networks
import report
from isthmus.errors import IsthmusError
from isthmus.lab.lab import standing
from mapping import CHANGED, FEW, MANY
from report import Figure, progress, publish

ENTRIES, QUICK_ENTRIES = 1_000_000, 20_000
METHOD = (
    "A border router's mapping of {entries:,} IPv4 prefixes, lengths as in the default-free zone and 2 % /32, placed"
    " by chance; theirs: the same prefixes in the kernel's routing table (ip -batch; bpf_fib_lookup, no neighbour)."
    " Lookups and packets: the kernel plane's own code by BPF_PROG_TEST_RUN, over 2^20 destinations in random order,"
    " medians of {rounds} rounds; the loop's and the clock's own cost subtracted. 10 entries: ten /24 of the table, and"
    " destinations in them."
)
HERE = Path(__file__).parent


def figures(found: dict[str, float]) -> Iterator[Figure]:
    """The measured values in the form of every benchmark."""

    def figure(name: str, unit: str, ours: float, theirs: float | None = None) -> Figure:
        shown = [None if each is None else round(each) if each >= 1000 else round(each, 3) for each in (ours, theirs)]
        ratio = None if theirs is None else round(ours / theirs, 3)
        return Figure(name=name, unit=unit, ours=shown[0], theirs=shown[1], ratio=ratio)

    def rate(nanoseconds: str) -> float:
        return 1e9 / found[nanoseconds]

    def megabytes(octets: str) -> float:
        return found[octets] / 1e6

    yield figure("file, read and checked", "s", found["parse"])
    yield figure("of that, checked", "s", found["validate"])
    yield figure("memory while reading, the most", "MB", megabytes("parse octets"))
    yield figure("flattened for the reference plane", "s", found["flatten"])
    yield figure("memory, reference plane", "MB", megabytes("reference octets"))
    yield figure("loaded into the kernel plane", "s", found["kernel load"], found["routes load"])
    yield figure("memory, kernel plane", "MB", megabytes("kernel octets"), megabytes("routes octets"))
    yield figure(f"{found['changed']:,.0f} entries changed in the kernel plane", "s", found["kernel change"])
    yield figure("lookups, kernel plane", "lookups/s", rate(f"lookup ns, {MANY}"), rate("routes lookup ns"))
    yield figure(f"lookups, kernel plane, {FEW}", "lookups/s", rate(f"lookup ns, {FEW}"))
    yield figure("lookups, reference plane", "lookups/s", rate("reference lookup ns"))
    yield figure("lookups, direct table in NumPy", "lookups/s", rate("direct lookup ns"))
    for way, words in (("into", "from IPv4 to SIP"), ("out", "from SIP to IPv4")):
        names = [f"{way} ns, {each}" for each in (MANY, FEW)]
        yield figure(f"packet {words}, beside {FEW}", "ns", *(found[each] for each in names))


def main() -> int:
    """Measure and print."""
    options = report.parser(__doc__, "a small table, one round: shows that it works").parse_args()
    report.ask_for_root("map", "it makes namespaces and loads eBPF")
    rounds = options.rounds or (1 if options.quick else 7)
    entries = QUICK_ENTRIES if options.quick else ENTRIES
    try:
        with standing(networks.network("bench-map")) as lab:
            path = crossing.compile_object(lab.record.directory)
            progress(f"a table of {entries:,} entries")
            words = (sys.executable, str(HERE / "mapping.py"), str(path), str(entries), str(rounds))
            found = json.loads(lab["gateway"].run(*words, seconds=600).stdout)
    except (IsthmusError, subprocess.CalledProcessError) as error:
        print(f"bench map: {error}", file=sys.stderr)
        return 2
    found["changed"] = min(CHANGED, entries // 10)
    return publish("map", list(figures(found)), METHOD.format(entries=entries, rounds=rounds), as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
