# SPDX-License-Identifier: BSD-3-Clause
"""The result as a picture, in SVG: two charts do not need a library.

Left: how many times smaller the router's table is, by the share of prefixes that are exceptions,
with the line at ten. Right: how many routes each table has, with its memory and lookup time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from isthmus.sim.claim import TENFOLD
from isthmus.sim.routing import Result, Size

WIDTH, HEIGHT = 1080, 460
_TOP, _BOTTOM = 70, 400
_LEFT = (80, 560)
_RIGHT = (790, 1040)
_MOST_EXCEPTIONS = 0.25
_COLOURS = ("#0b5fa5", "#7a4fa3", "#b3541e")
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.title{font-size:16px;font-weight:bold}.small{font-size:11px;fill:#555}"
    ".grid{stroke:#ddd}.axis{stroke:#555}.limit{stroke:#c1121f;stroke-dasharray:6 4}.line{fill:none;stroke-width:2}"
)


def svg(result: Result) -> str:
    """Draw a result."""
    where = f"{result.prefixes:,} prefixes, {result.sites:,} sites, {result.countries} countries"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(20, 28, f"Routes of a border router of region {result.country}.{result.region}: {where}", "title"),
        *_ratios(result),
        *_sizes((result.flat, result.mapping, result.sip_without_regions, result.sip)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _ratios(result: Result) -> Iterator[str]:
    """Draw the curves F / (T + eps F), and as points the tables that were built."""
    curves = {
        "this router": result.sip.entries,
        "average (spec 7.1)": result.formula.entries(),
        "without regions": result.sip_without_regions.entries,
    }
    top = 10.0 ** math.ceil(math.log10(max(TENFOLD, *(result.prefixes / each for each in curves.values()))))
    yield _text(_LEFT[0], 54, "times smaller than flat IPv4")
    power = 1.0
    while power <= top:
        y = _log(power, top)
        yield f'<line class="grid" x1="{_LEFT[0]}" x2="{_LEFT[1]}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(_LEFT[0] - 8, y + 4, f"{power:,.0f}", end=True)
        power *= 10
    for percent in range(0, round(_MOST_EXCEPTIONS * 100) + 1, 5):
        yield _text(_share(percent / 100) - 8, _BOTTOM + 20, f"{percent} %")
    yield _text(_LEFT[0], _BOTTOM + 42, "share of prefixes that stay visible everywhere (exceptions)")
    limit = _log(TENFOLD, top)
    yield f'<line class="limit" x1="{_LEFT[0]}" x2="{_LEFT[1]}" y1="{limit:.1f}" y2="{limit:.1f}"/>'
    if 0 < result.failing_prefixes <= _MOST_EXCEPTIONS:
        x = _share(result.failing_prefixes)
        yield f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        yield _text(x + 6, _BOTTOM - 10, f"fails above {result.failing_prefixes:.1%}", "small")
    for at, (name, entries) in enumerate(curves.items()):
        shares = [_MOST_EXCEPTIONS * step / 200 for step in range(201)]
        ratios = [result.prefixes / (entries + share * result.prefixes) for share in shares]
        points = " ".join(f"{_share(s):.1f},{_log(r, top):.1f}" for s, r in zip(shares, ratios, strict=True))
        yield f'<polyline class="line" stroke="{_COLOURS[at]}" points="{points}"/>'
        y = _TOP + 14 + 20 * at
        yield f'<line x1="390" x2="415" y1="{y - 4}" y2="{y - 4}" stroke="{_COLOURS[at]}" stroke-width="2"/>'
        yield _text(422, y, name)
    for step in result.steps:
        if step.exceptions <= _MOST_EXCEPTIONS:
            x, y = _share(step.exceptions), _log(step.ratio, top)
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_COLOURS[0]}"/>'
    yield f'<line class="axis" x1="{_LEFT[0]}" x2="{_LEFT[1]}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>'


def _sizes(sizes: Sequence[Size]) -> Iterator[str]:
    """Draw a bar for each table, by powers of ten."""
    most = math.ceil(math.log10(max(10, *(each.entries for each in sizes))))
    yield _text(_RIGHT[0], 54, "entries (by powers of ten), memory, one lookup")
    unit = (_RIGHT[1] - _RIGHT[0]) / most
    for power in range(most + 1):
        x = _RIGHT[0] + power * unit
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        yield _text(x - 6, _BOTTOM + 20, f"10^{power}", "small")
    height = (_BOTTOM - _TOP) / len(sizes)
    for at, size in enumerate(sizes):
        y = _TOP + at * height + 12
        long = unit * math.log10(max(1, size.entries))
        colour = "#777" if at < 2 else _COLOURS[2] if at == 2 else _COLOURS[0]
        yield f'<rect x="{_RIGHT[0]}" y="{y:.1f}" width="{long:.1f}" height="{height - 40:.1f}" fill="{colour}"/>'
        yield _text(_RIGHT[0] - 10, y + (height - 40) / 2 + 4, size.name, end=True)
        figures = f"{size.entries:,} entries, {size.octets / 1e6:,.2f} MB, {size.nanoseconds:,.0f} ns"
        yield _text(_RIGHT[0], y + height - 26, figures, "small")


def _share(exceptions: float) -> float:
    return _LEFT[0] + (_LEFT[1] - _LEFT[0]) * exceptions / _MOST_EXCEPTIONS


def _log(value: float, top: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * max(0.0, math.log10(value)) / math.log10(top)


def _text(x: float, y: float, text: str, style: str = "", *, end: bool = False) -> str:
    kind = f' class="{style}"' if style else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{anchor}>{escape(text)}</text>'
