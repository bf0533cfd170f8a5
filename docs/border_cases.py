# SPDX-License-Identifier: BSD-3-Clause
"""Makes docs/border-cases.md out of docs/border-cases.toml, and refuses to where a test does not exist.

The file has the cases of others, in their order and by their names, and what shows each at a border of ours::

    [[case]]
    peer = "lwaftr"           lwaftr, map, nat44
    name = "traffic class mapping"
    tests = ["lwaftr.toml: TOS becomes the traffic class, code point and congestion marks alike"]
    differs = "..."           what comes out otherwise here, and why
    not_applicable = "..."    in the place of tests: why there is nothing to show

Tests are named as in ``conformance``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from types import MappingProxyType

import conformance
from conformance import ROOT, ConformanceError

TITLES = MappingProxyType(
    {
        "lwaftr": "Snabb's lwAFTR: the end-to-end cases",
        "map": "VPP's border relay for MAP: spoofed sources, ICMP",
        "nat44": "VPP's NAT44-ED",
    }
)


@dataclass(frozen=True, kw_only=True)
class BorderCase:
    """One row."""

    peer: str
    name: str
    tests: list[str] = field(default_factory=list)
    differs: str = ""
    not_applicable: str = ""

    def __post_init__(self) -> None:
        """Refuse a row that contradicts itself."""
        if self.peer not in TITLES:
            raise ConformanceError(f"{self}: {self.peer} is none of {', '.join(TITLES)}")
        if bool(self.tests) == bool(self.not_applicable):
            raise ConformanceError(f"{self}: it has tests, or a reason why not")
        if self.differs and not self.tests:
            raise ConformanceError(f"{self}: what differs is shown by a test")

    def __str__(self) -> str:
        """As a fixture names it."""
        return f"{self.peer}: {self.name}"


def cases() -> list[BorderCase]:
    """Every row, in order."""
    text = (ROOT / "docs" / "border-cases.toml").read_text(encoding="utf-8")
    return [BorderCase(**row) for row in tomllib.loads(text)["case"]]


def summary() -> str:
    """How many rows there are of each peer, and how many of them come out otherwise or do not apply."""
    lines = ["| | cases | as there | otherwise | not applicable |", "| --- | --- | --- | --- | --- |"]
    for peer, title in TITLES.items():
        rows = [row for row in cases() if row.peer == peer]
        other, none = sum(bool(row.differs) for row in rows), sum(bool(row.not_applicable) for row in rows)
        lines.append(f"| {title} | {len(rows)} | {len(rows) - other - none} | {other} | {none} |")
    return "\n".join(lines)


def table(peer: str) -> str:
    """The cases of one peer, as Markdown."""
    lines = ["| case | shown by | otherwise here |", "| --- | --- | --- |"]
    for each in cases():
        if each.peer == peer:
            shown = "<br>".join(f"[{one.label}](../{one.path})" for one in map(conformance.find, each.tests))
            cells = (each.name, shown or "*not applicable*", each.differs or each.not_applicable)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
