# SPDX-License-Identifier: BSD-3-Clause
"""Makes the tables of docs/performance.md from docs/figures/*.json, which benchmarks have written. cog calls it.

``make bench`` renews the figures, ``make docs`` tables and plots; ``tests/test_docs.py`` fails where they disagree.
"""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures"
BENCHES = {
    "packet": "program time of a packet",
    "nat": "a gateway beside NAT",
    "lease": "durable leases, beside Kea",
    "churn": "leases that change hands",
    "million": "a million leases",
    "host": "programs of a host",
    "forward": "the kinds of tunnels",
    "map": "mapping tables of IPAE",
    "translate": "translation of IPAE, beside tayga",
}
MISSED = "**missed**"
_WIDTH = 120
_OF_PACKETS = re.compile(
    r"(?P<way>(?:TC|XDP) (?:in|out)ward), IPv(?P<outer>[46]) outer(?P<scattered>, hosts at random places)?,"
    r" (?P<admit>\w+),"
    r" (?P<leases>[\d,]+) leases(?P<beside> beside [\d,]+)?"
)
_OF_NAT = re.compile(r"(?P<way>(?:TC|XDP), \w+|forwarding), (?P<kind>.*?)(?P<wall>, on the wall)?")
_NAT, _PLAIN = "nftables masquerade", "forwarding"
Figure = Mapping[str, Any]


def told(bench: str) -> Mapping[str, Any]:
    """What a benchmark has told."""
    loaded: Mapping[str, Any] = json.loads((FIGURES / f"{bench}.json").read_text(encoding="utf-8"))
    return loaded


def value(number: float | None, unit: str = "") -> str:
    """A figure as it is printed: no more digits than can be seen."""
    if number is None:
        return ""
    if unit == "octets" and number >= 1e6:
        return f"{_short(number / 1e6)} MB"
    if number >= 1e6 and unit != "":
        return f"{_short(number / 1e6)} million"
    return _short(number)


def _short(number: float) -> str:
    if float(number).is_integer() or abs(number) >= 1000:
        return f"{number:,.0f}"
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2 if abs(number) >= 0.1 else 4
    return f"{number:.{digits}f}"


def ratio(number: float | None) -> str:
    """One figure to another."""
    if number is None:
        return ""
    return f"1/{1 / number:,.0f}" if 0 < number <= 0.01 else _short(number) if number >= 10 else f"{number:.2f}"


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)


def goals() -> str:
    """Every benchmark: when, how long, and which goals were missed."""
    body, missed = [], []
    for bench, words in BENCHES.items():
        found = told(bench)
        judged = [each for each in found["figures"] if each["met"] is not None]
        lost = [each["name"] for each in judged if not each["met"]]
        met = f"{len(judged) - len(lost)} of {len(judged)}" if judged else "none set"
        minutes = f"{max(1, round(found['seconds'] / 60))} min"
        body.append((f"`{bench}`", f"[{words}](#{_anchor(bench)})", found["date"], minutes, met))
        if lost:
            missed.append(f"* `{bench}`: {'; '.join(lost)}")
    made = rows(("bench", "what", "taken on", "took", "goals met"), body)
    return made + ("\n\nMissed:\n\n" + "\n".join(missed) if missed else "")


def _anchor(bench: str) -> str:
    """The section of the page that says how a benchmark measured."""
    page = (FIGURES.parent / "performance.md").read_text(encoding="utf-8")
    place = re.search(rf"measured\.method\(['\"]{bench}['\"]\)", page)
    if place is None:
        raise ValueError(f"performance.md does not say how {bench} measures")
    heading = page[: place.start()].rpartition("\n## ")[2].partition("\n")[0]
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def method(bench: str) -> str:
    """How a benchmark measured, and on what."""
    found = told(bench)
    return textwrap.fill(f"*Method.* {found['method']} {found['machine']}; {found['date']}.", _WIDTH)


def table(bench: str, only: str = ".", *, but: str | None = None, theirs: str = "") -> str:
    """The figures of a benchmark whose names a pattern is found in.

    Args:
        bench: Which benchmark.
        only: The pattern.
        but: A pattern of names that are left out.
        theirs: What ours are beside; without it there are no columns for it.
    """
    chosen = [
        each
        for each in told(bench)["figures"]
        if re.search(only, each["name"]) and not (but and re.search(but, each["name"]))
    ]
    judged = any(each["goal"] is not None for each in chosen)
    head = ["", "unit", "isthmus", *((theirs, "ratio") if theirs else ()), *(("goal",) if judged else ())]
    return rows(head, (_row(each, beside=bool(theirs), judged=judged) for each in chosen))


def _row(each: Figure, *, beside: bool, judged: bool) -> Iterator[str]:
    unit = each["unit"]
    yield each["name"]
    yield unit
    yield value(each["ours"], unit)
    if beside:
        yield value(each["theirs"], unit)
        yield ratio(each["ratio"])
    if judged:
        yield _goal(each)


def _goal(each: Figure) -> str:
    if each["goal"] is None:
        return ""
    words = value(each["goal"]) if each["ratio"] is None else f"ratio {ratio(each['goal'])}"
    return words if each["met"] else f"{words}, {MISSED}"


# --- packet -------------------------------------------------------------------------------


def packets(outer: str, *, scattered: bool = False) -> str:
    """Nanoseconds of the program, by leases; outer header of IPv4 or IPv6 ("4" or "6"), hosts in the leases' order."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    counts: dict[str, int] = {}
    goals_of: dict[str, set[str]] = {}
    for each in told("packet")["figures"]:
        found = _OF_PACKETS.fullmatch(each["name"])
        if found is None or (found["outer"], found["scattered"] is not None) != (outer, scattered):
            continue
        row = cells.setdefault((found["way"], found["admit"]), {})
        if found["beside"]:
            row["beside"] = ratio(each["ratio"]) + _if_missed(each)
            goals_of.setdefault("beside", set()).update(() if each["goal"] is None else [value(each["goal"])])
        else:
            counts[found["leases"]] = int(found["leases"].replace(",", ""))
            row[found["leases"]] = f"{each['ours']:.0f}{_if_missed(each)}"
            row["minimal"] = value(each["theirs"])
    columns = sorted(counts, key=counts.__getitem__)
    plural = [f"{count} lease{'s' if count != '1' else ''}" for count in columns]
    most = " ".join([*columns[-1:], "beside 1,000"]) + "".join(f" (goal {goal})" for goal in goals_of.get("beside", ()))
    head = ["ns", "admit", *plural, *([most] if goals_of else ()), "no lookup at all"]
    keys = [*columns, *(["beside"] if goals_of else ()), "minimal"]
    return rows(head, ((*name, *(row.get(key, "") for key in keys)) for name, row in cells.items()))


def _if_missed(each: Figure) -> str:
    if each["goal"] is None:
        return ""
    return "" if each["met"] else f" {MISSED}"


def yardsticks() -> str:
    """What parsing alone costs, in words."""
    parts = [
        f"{each['ours']:.0f} ns at {each['name'].partition(':')[0]}"
        for each in told("packet")["figures"]
        if each["name"].endswith("parse and return")
    ]
    return f"A program that only parses and returns takes {' and '.join(parts)}."


def budgets() -> str:
    """What the kernel's verifier makes of the programs (``isthmus doctor``)."""
    found = told("doctor")
    body = (
        (f"{each['hook'].upper()}, {each['program']}", f"{each['instructions']:,}", f"{each['seconds']:.2f} s")
        for each in found["programs"]
    )
    return rows(("program", "instructions looked at, of 1,000,000", "time to load"), body)


# --- nat ----------------------------------------------------------------------------------


def nat_costs() -> str:
    """Nanoseconds of the gateway's core for a packet, by flows: median, least and most."""
    found = [each for each in told("nat")["series"] if each["what"] == "packets"]
    kinds = list(dict.fromkeys(each["flows"] for each in found))
    ways = sorted({each["way"] for each in found}, key=lambda way: (way not in (_NAT, _PLAIN), way != _NAT, way))
    cells = {(each["way"], each["flows"]): [run["cost"] for run in each["runs"]] for each in found}

    def cell(way: str, kind: str) -> str:
        runs = cells.get((way, kind))
        return f"{statistics.median(runs):,.0f} ({min(runs):,.0f} to {max(runs):,.0f})" if runs else ""

    return rows(("ns", *kinds), ((_name(way), *(cell(way, kind) for kind in kinds)) for way in ways))


def _name(way: str) -> str:
    return {_PLAIN: "plain forwarding"}.get(way, way if way == _NAT else f"isthmus at {way}")


def nat_ratios() -> str:
    """Packets a second beside NAT's, by flows, with the goals."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    kinds: dict[str, None] = {}
    for each in told("nat")["figures"]:
        found = _OF_NAT.fullmatch(each["name"])
        if found is None or each["unit"] != "packets/s":
            continue
        kinds[found["kind"]] = None
        by = "the clock" if found["wall"] else "its core's time"
        goal = "" if each["goal"] is None else f" (goal {value(each['goal'])})"
        text = f"{value(each['ours'], 'packets/s')}, {ratio(each['ratio'])} times{goal}{_if_missed(each)}"
        cells.setdefault((_name(found["way"]), by), {})[found["kind"]] = text
    body = ((*way, *(row.get(kind, "") for kind in kinds)) for way, row in sorted(cells.items()))
    return rows(("packets a second, and how many times NAT's", "by", *kinds), body)


# --- host ---------------------------------------------------------------------------------


def programs() -> str:
    """What a program has of each way to its network."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for each in told("host")["figures"]:
        name, _, other = each["name"].partition(", beside ")
        row = cells.setdefault((name, each["unit"]), {"isthmus run": value(each["ours"])})
        row[other or "native"] = value(each["theirs"])
    ways = sorted({way for row in cells.values() for way in row}, key=lambda way: (way != "isthmus run", way))
    return rows(("", "unit", *ways), ((*name, *(row.get(way, "") for way in ways)) for name, row in cells.items()))


# --- all of them --------------------------------------------------------------------------


def minutes() -> str:
    """How long all of it took."""
    return f"{sum(told(bench)['seconds'] for bench in BENCHES) / 60:.0f} minutes"
