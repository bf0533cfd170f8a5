# SPDX-License-Identifier: BSD-3-Clause
"""What a flat mapping table costs, step by step, and the kernel's routing table with the same prefixes.

    python bench/mapping.py OBJECT ENTRIES ROUNDS

It runs in the gateway's namespace of ``networks.network`` and prints one JSON object, times in seconds unless the name
says otherwise.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import border_router
import flat_table
from crossing import DESTINATIONS, MAPPING, ROUTES, Crossing, crossing, neighbours
from isthmus.border.effect import Remap
from isthmus.border.mapping import DirectTable, Mapping
from isthmus.ipae import mapping as mapping_file
from isthmus.lab import figure

CHANGED = 1000
FEW = "10 entries"
MANY = "all entries"
_SOME = 20_000
_LOOKUPS = 1 << 22
_RUNS = 400_000
_T = TypeVar("_T")


def timed(do: Callable[[], _T]) -> tuple[float, _T]:
    """How long something takes, and what it gives."""
    started = time.perf_counter()
    result = do()
    return time.perf_counter() - started, result


def resident(which: str = "VmRSS") -> int:
    """Octets of this process in memory; "VmHWM" for the most there ever were."""
    line = next(each for each in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if which in each)
    return int(line.split()[1]) << 10


def validated(table: Mapping) -> float:
    """Seconds to find that nothing is wrong with rows that have been read."""
    columns = table.numbers.tolist(), table.lengths.tolist(), table.uppers.tolist()
    rows = mapping_file.Rows(*columns, list(range(len(table))))
    return timed(lambda: mapping_file.accept(rows, source="the bench"))[0]


def in_user_space(table: Mapping, found: dict[str, float]) -> Mapping:
    """Read the file, and look up as the reference plane does."""
    found["validate"] = validated(table)
    octets = flat_table.text(table)
    found["file octets"] = len(octets)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the most there ever were begins anew
    found["parse"], read = timed(lambda: mapping_file.parse(octets, source="the bench").mapping)
    found["parse octets"] = resident("VmHWM") - before
    if read != table:
        raise SystemExit("the file says something else than the table")
    found["flatten"], _ = timed(lambda: read.spans)
    found["reference octets"] = read.octets
    wanted = flat_table.addresses(flat_table.some_of(read, _SOME))
    spent, _ = timed(lambda: [read.lookup(each) for each in wanted])
    found["reference lookup ns"] = spent / _SOME * 1e9
    return read


def in_numpy(table: Mapping, found: dict[str, float]) -> None:
    """The direct table in memory of one's own."""
    found["direct load"], direct = timed(lambda: DirectTable.allocate(table))
    many = flat_table.some_of(table, DESTINATIONS)
    spent, images = timed(lambda: direct.lookup_many(many))
    if not images.all():
        raise SystemExit("an address of the table was not found")
    found["direct lookup ns"] = spent / DESTINATIONS * 1e9


def in_the_kernel(path: Path, table: Mapping, rounds: int, found: dict[str, float]) -> None:
    """The kernel plane: few entries and all of them in turn."""
    tables = {FEW: flat_table.ten_of(table), MANY: table}
    seen: dict[str, list[float]] = {}
    with crossing(path, "native", tables[FEW]) as few, crossing(path, "native", Mapping.of()) as many:
        found["kernel load"], _ = timed(lambda: _remap(many, table))
        found["kernel octets"] = many.plane.mapping_octets
        routers = {FEW: few, MANY: many}
        for name, router in routers.items():
            router.talk_to(flat_table.some_of(tables[name], DESTINATIONS))
        for _ in range(rounds):
            for name, router in routers.items():
                into, out = router.packets(_RUNS)
                here = {"into": into, "out": out, "lookup": router.lookup(MAPPING, _LOOKUPS)}
                for what, spent in here.items():
                    seen.setdefault(f"{what} ns, {name}", []).append(spent)
        found["routes load"], found["routes octets"] = routes(table)
        spent = [many.lookup(ROUTES, _LOOKUPS) for _ in range(rounds)]
        found["routes lookup ns"] = statistics.median(spent)
        changed = flat_table.moved(table, min(CHANGED, len(table) // 10))
        found["kernel change"], _ = timed(lambda: _remap(many, changed))
    found |= {name: statistics.median(each) for name, each in seen.items()}


def _remap(router: Crossing, table: Mapping) -> None:
    router.plane.apply([Remap(realm=border_router.SITE, sip=border_router.SIP, mapping=table)])


def routes(table: Mapping) -> tuple[float, int]:
    """Enter the same prefixes into the kernel's routing table; seconds, and the octets that it says it takes."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".routes") as file:
        via = f"via {figure.SERVER} dev wan0 onlink"
        for number, length in zip(table.numbers.tolist(), table.lengths.tolist(), strict=True):
            a, b, c, d = number.to_bytes(4, "big")
            file.write(f"route add {a}.{b}.{c}.{d}/{length} {via}\n")
        file.flush()
        spent, _ = timed(lambda: subprocess.run(["ip", "-force", "-batch", file.name], check=True))
    sizes = [
        int(line.split()[2]) << 10
        for line in Path("/proc/net/fib_triestat").read_text(encoding="utf-8").splitlines()
        if line.startswith("Total size:")
    ]
    return spent, sum(sizes)


def main() -> None:
    """Measure everything."""
    path, entries, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    neighbours()
    table = flat_table.flat_table(entries)
    found: dict[str, float] = {"entries": len(table)}
    read = in_user_space(table, found)
    in_numpy(read, found)
    in_the_kernel(path, read, rounds, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
