# SPDX-License-Identifier: BSD-3-Clause
"""Draws the plots of docs/performance.md from docs/figures/*.json: ``python bench/plot.py``, or ``make docs``.

A plot is a function that picks from what a benchmark has told what there is to see, and one that draws it. The plot
says in its metadata what it was made of, so that a stale one is known without drawing it again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parents[1] / "docs/figures"
MOST_LATE = 0.025
LEASES = (1, 100, 10_000, 1_000_000)
"""Where the axis says how many."""
Told = Mapping[str, Any]
"""What a benchmark has told."""
BLUE, SKY, ORANGE, RED, GREEN, GREY = "#2a78b5", "#56a9d8", "#d98a00", "#d1495b", "#1f9a78", "#808489"
INK, PAPER, GRID = "#24292f", "#ffffff", "#d4d8dd"
DARK = {INK: "#dfe4ea", PAPER: "#14181d", GRID: "#3a4048"}
"""What these three are to readers who want it dark; the colours of data are seen on both."""
WAYS_OF_NAT = {
    "nftables masquerade": ("nftables masquerade", RED, "s"),
    "forwarding": ("plain forwarding", GREY, "D"),
    "TC, anyone": ("isthmus at TC, anyone", BLUE, "o"),
    "TC, contacted": ("isthmus at TC, contacted", SKY, "^"),
    "XDP, anyone": ("isthmus at XDP, anyone", GREEN, "o"),
    "XDP, contacted": ("isthmus at XDP, contacted", ORANGE, "^"),
}
WAYS_OF_LEASE = {"isthmus": ("isthmus", BLUE, "o")}
WAYS_OF_HOST = {"native": GREY, "isthmus run": BLUE, "slirp4netns": ORANGE, "pasta": RED}
TIMES = (10, 30, 100, 300, 1000, 3000)
"""Microseconds where the axis says them."""
Curves = dict[str, list[tuple[float, float, float, float]]]
"""By their name: x, median, least and most."""


def told(name: str) -> Told:
    """What a benchmark has told."""
    loaded: Told = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def spread(runs: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most, as precise as can be seen."""
    return tuple(float(f"{each:.4g}") for each in (statistics.median(runs), min(runs), max(runs)))  # type: ignore[return-value]


# --- cost against leases --------------------------------------------------------------------


def pick_packet(found: Told) -> dict[str, Curves]:
    """Nanoseconds over leases, by who may write; of IPv4 outer headers."""
    curves: dict[str, Curves] = {"anyone": defaultdict(list), "contacted": defaultdict(list)}
    most = max(each.get("leases", 0) for each in found["series"])
    for each in found["series"]:
        if each.get("tunnel") == "ipip":
            name = f"{each['hook'].upper()}, {each['what']}"
            curves[each["admit"]][name].append((each["leases"], *spread(each["runs"])))
        elif each["what"] in {"encapsulates", "decapsulates"}:
            name = f"{each['hook'].upper()}, {each['what']} only, no lookup"
            for curve in curves.values():
                curve[name] = [(leases, *spread(each["runs"])) for leases in (1, most)]
    return {admit: {name: sorted(points) for name, points in sorted(many.items())} for admit, many in curves.items()}


def draw_packet(data: dict[str, Curves], figure: Any) -> None:
    """One panel for each who may write."""
    panels = figure.subplots(1, 2, sharey=True)
    looks = {
        "TC, inward": (BLUE, "o", "-"),
        "TC, outward": (SKY, "^", "-"),
        "XDP, inward": (GREEN, "o", "-"),
        "XDP, outward": (ORANGE, "^", "-"),
        "TC, encapsulates only, no lookup": (BLUE, "", ":"),
        "XDP, encapsulates only, no lookup": (GREEN, "", ":"),
    }
    for panel, (admit, goal) in zip(panels, (("anyone", 100), ("contacted", 192)), strict=True):
        for name, (colour, marker, line) in looks.items():
            if points := data[admit].get(name):
                x, middle, low, high = zip(*points, strict=True)
                panel.plot(x, middle, color=colour, marker=marker, linestyle=line, label=name, markersize=5)
                if marker:
                    panel.vlines(x, low, high, color=colour, linewidth=1)
        panel.axhline(goal, color=RED, linestyle="--", linewidth=1, label="goal at a million leases")
        panel.set_xscale("log")
        panel.set_xticks(LEASES, [f"{each:,}" for each in LEASES])
        panel.minorticks_off()
        panel.set_title(f"admit = {admit}")
        panel.set_xlabel("leases, packets in random order")
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("ns of the program for a packet")
    _legend(figure, panels[0], columns=3)


# --- rate against flows ---------------------------------------------------------------------


def pick_nat(found: Told) -> dict[str, Any]:
    """Packets a second of the gateway's core, over flows."""
    packets = [each for each in found["series"] if each["what"] == "packets"]
    kinds = list(dict.fromkeys(each["flows"] for each in packets))
    curves: Curves = defaultdict(list)
    for each in packets:
        rates = [1e3 / run["cost"] for run in each["runs"]]
        curves[each["way"]].append((kinds.index(each["flows"]), *spread(rates)))
    return {"kinds": kinds, "curves": {way: sorted(points) for way, points in curves.items()}}


def draw_nat(data: dict[str, Any], figure: Any) -> None:
    """All ways on one panel."""
    panel = figure.subplots()
    for way, (label, colour, marker) in WAYS_OF_NAT.items():
        if points := data["curves"].get(way):
            x, middle, low, high = zip(*points, strict=True)
            panel.plot(x, middle, color=colour, marker=marker, label=label)
            panel.vlines(x, low, high, color=colour, linewidth=1)
    panel.set_yscale("log")
    highest = max(point[3] for points in data["curves"].values() for point in points)
    ticks = [each for each in (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10) if each <= 2 * highest]
    panel.set_yticks(ticks, [f"{each:g}" for each in ticks])
    panel.minorticks_off()
    labels = [kind.replace("flow in", "flow\nin") for kind in data["kinds"]]
    panel.set_xticks(range(len(labels)), labels)
    panel.margins(x=0.08)
    panel.set_ylabel("million packets a second of one core")
    panel.set_xlabel("flows")
    _legend(figure, panel, columns=3)


# --- leases ---------------------------------------------------------------------------------


def pick_lease(found: Told) -> dict[str, Any]:
    """Cycles in time over cycles asked for, and whether few enough were late."""
    return {
        each["way"]: [
            (round(run["asked"]), round(run["in_time"]), run["late_ratio"] <= MOST_LATE) for run in each["runs"]
        ]
        for each in found["series"]
    }


def draw_lease(data: dict[str, Any], figure: Any) -> None:
    """Every rate that was played."""
    panel = figure.subplots()
    looks = [(BLUE, "o"), (RED, "s"), (ORANGE, "^")]
    most = max(run[0] for runs in data.values() for run in runs) / 1e3
    panel.plot((0, most), (0, most), color=GREY, linestyle=":", label="all in time")
    for (way, runs), (colour, marker) in zip(data.items(), looks, strict=False):
        for fine in (True, False):
            points = [(asked / 1e3, done / 1e3) for asked, done, good in runs if good is fine]
            if points:
                x, y = zip(*points, strict=True)
                label = way if way == "isthmus" else f"Kea, {way}"
                face = colour if fine else "none"
                more = "" if fine else ", too many late"
                panel.plot(x, y, marker, color=colour, markerfacecolor=face, label=label + more)
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("thousand cycles begun a second")
    panel.set_ylabel("thousand cycles in time a second")
    _legend(figure, panel, columns=3)


# --- programs of a host ---------------------------------------------------------------------


def pick_host(found: Told) -> dict[str, dict[str, dict[str, float]]]:
    """By kind of figure, by name: each way's."""
    picked: dict[str, dict[str, dict[str, float]]] = {"Gbit/s": {}, "us": {}}
    for each in found["figures"]:
        name, _, other = each["name"].partition(", beside ")
        many = picked[each["unit"]].setdefault(name, {})
        many["isthmus run"], many[other or "native"] = each["ours"], each["theirs"]
    return picked


def draw_host(data: dict[str, dict[str, dict[str, float]]], figure: Any) -> None:
    """Throughput and times, each on a panel of its own."""
    panels = figure.subplots(1, 2)
    labels = {"Gbit/s": "TCP, Gbit/s", "us": "microseconds, median"}
    for panel, (unit, label) in zip(panels, labels.items(), strict=True):
        names = [name for name in data[unit] if not name.endswith("p99")]
        for at, (way, colour) in enumerate(WAYS_OF_HOST.items()):
            values = [data[unit][name].get(way, 0) for name in names]
            places = [x + 0.2 * at - 0.3 for x in range(len(names))]
            if unit == "us":
                panel.plot(places, values, "o", color=colour, markersize=9)
            else:
                panel.bar(places, values, 0.18, color=colour, label=way)
        if unit == "us":
            panel.set_yscale("log")
            panel.set_yticks(TIMES, [f"{each:,}" for each in TIMES])
            panel.set_ylim(10)
            panel.minorticks_off()
            panel.margins(x=0.2)
        panel.set_xticks(range(len(names)), [_broken(name) for name in names])
        panel.set_ylabel(label)
        panel.grid(visible=False, axis="x")
    _legend(figure, panels[0], columns=4)


def _broken(name: str) -> str:
    short = name.removeprefix("TCP ").removesuffix(", p50")
    return short.replace(", ", "\n").replace(" of ", "\nof ").replace(" and ", "\nand ")


def _legend(figure: Any, panel: Any, *, columns: int) -> None:
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


# --- all of them ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One picture."""

    bench: str
    "Which benchmark's figures it shows."
    pick: Callable[[Told], Any]
    draw: Callable[[Any, Any], None]
    inches: tuple[float, float] = (8.0, 4.6)


PLOTS = {
    "packet": Plot(bench="packet", pick=pick_packet, draw=draw_packet),
    "nat": Plot(bench="nat", pick=pick_nat, draw=draw_nat),
    "lease": Plot(bench="lease", pick=pick_lease, draw=draw_lease),
    "host": Plot(bench="host", pick=pick_host, draw=draw_host, inches=(9.0, 4.4)),
}


def made_of(name: str) -> str:
    """What says that a plot shows this, drawn so."""
    plot = PLOTS[name]
    shown = json.dumps(plot.pick(told(plot.bench)), sort_keys=True) + Path(__file__).read_text(encoding="utf-8")
    return hashlib.sha256(shown.encode()).hexdigest()


def is_current(name: str) -> bool:
    """Whether the plot that is there shows what there is to see."""
    path = FIGURES / f"{name}.svg"
    return path.exists() and made_of(name) in path.read_text(encoding="utf-8")


def svg(name: str) -> str:
    """Draw a plot; the same figures give the same octets."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    plot = PLOTS[name]
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "isthmus",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        **colours,
    }
    octets = io.StringIO()
    with mpl.rc_context(style):
        figure = Figure(figsize=plot.inches, layout="constrained")
        plot.draw(plot.pick(told(plot.bench)), figure)
        about = {"Date": None, "Creator": None, "Title": f"bench {name}", "Description": made_of(name)}
        figure.savefig(octets, format="svg", metadata=about)
    return _both_ways(octets.getvalue())


def _both_ways(drawn: str) -> str:
    """Let a plot be dark where its reader's pages are."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    rules += f"text{{fill:{DARK[INK]} !important}}"
    style = f'<style type="text/css">@media (prefers-color-scheme: dark){{{rules}}}</style>'
    drawn = re.sub(r"<!DOCTYPE.*?>\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", drawn)
    return re.sub(r"[ \t]+$", "", drawn.replace("</style>", f"</style>{style}", 1), flags=re.MULTILINE)


def main() -> None:
    """Draw what is not current."""
    for name in PLOTS:
        if not is_current(name):
            (FIGURES / f"{name}.svg").write_text(svg(name), encoding="utf-8")
            print(f"docs/figures/{name}.svg", flush=True)


if __name__ == "__main__":
    main()
