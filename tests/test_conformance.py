# SPDX-License-Identifier: BSD-3-Clause
"""The table of what the documents ask names tests that exist, and nothing is marked that it does not know."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import conformance  # noqa: E402  docs/ is on the path for this
from conformance import ConformanceError, Requirement  # noqa: E402

ROWS = conformance.requirements()
NODES = sorted({shown.node for row in ROWS for name in row.tests if (shown := conformance.find(name)).node})


def test_every_document_is_there():
    counts = Counter(row.rfc for row in ROWS)
    assert counts.keys() == conformance.TITLES.keys()
    assert counts["3102"] > 50
    assert counts["3103"] > 180
    assert counts["3104"] > 30
    assert counts["3105"] > 10
    assert counts["ipae"] > 85
    assert counts["8507"] > 55


def test_no_row_is_there_twice():
    twice = [
        key for key, count in Counter((row.rfc, row.section, row.who, row.text) for row in ROWS).items() if count > 1
    ]
    assert not twice


@pytest.mark.parametrize("rfc", conformance.TITLES)
def test_sections_come_in_order(rfc):
    def place(section):
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in section.split(".")]

    sections = [place(row.section) for row in ROWS if row.rfc == rfc]
    assert sections == sorted(sections)


def test_every_test_that_a_row_names_is_found():
    for row in ROWS:
        for name in row.tests:
            assert (ROOT / conformance.find(name).path).exists()


def test_pytest_collects_every_test_that_is_named():
    """What the table found by reading is what pytest would run."""
    files = sorted({node.partition("::")[0] for node in NODES})
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    collected = {line.partition("[")[0] for line in ended.stdout.splitlines() if "::" in line}
    assert not [node for node in NODES if node not in collected], ended.stdout[-2000:]


def test_every_clause_that_a_test_is_marked_with_is_in_the_table():
    sections = {(row.rfc, row.section) for row in ROWS}

    def known(rfc, section):
        return any(
            rfc == each and (section == place or place.startswith(f"{section}.") or section.startswith(f"{place}."))
            for each, place in sections
        )

    lone = [
        f"{where}: {rfc} §{section}"
        for _, rfc, section, where in conformance.marked()
        if rfc in conformance.TITLES and not known(rfc, section)
    ]
    assert not lone


def test_every_row_with_a_requirement_word_has_a_test_that_is_marked_with_its_clause():
    """Fixtures name their clauses themselves, scenarios in their titles."""
    marks = {}
    for function, rfc, section, _ in conformance.marked():
        marks.setdefault(function, set()).add((rfc, section))
    lone = []
    for row in (each for each in ROWS if each.level in conformance.LEVELS and each.status == "done"):
        functions = [name.rpartition("::")[2] for name in row.tests if conformance.find(name).node]
        clauses = {section for name in functions for rfc, section in marks.get(name, ()) if rfc == row.rfc}
        near = {
            each
            for each in clauses
            if f"{row.section}.".startswith(f"{each}.") or f"{each}.".startswith(f"{row.section}.")
        }
        if functions and not near:
            lone.append(f"{row.rfc} §{row.section}: {functions}")
    assert not lone


def test_every_must_is_done_or_says_why_not():
    for row in ROWS:
        assert row.status == "done" or len(row.why) > 10, f"{row.rfc} §{row.section}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"level": "OUGHT"}, "no such word"),
        ({"who": "nobody"}, "no such word"),
        ({"status": "nearly"}, "no such word"),
        ({"tests": []}, "no test shows it"),
        ({"status": "deviates"}, "a reason"),
        ({"why": "because"}, "a reason"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(changes, words):
    row = {"rfc": "3103", "section": "1", "level": "MUST", "who": "both", "text": "Is.", "tests": ["test_x"]}
    with pytest.raises(ConformanceError, match=words):
        Requirement(**(row | changes))


@pytest.mark.parametrize(
    "name",
    [
        "test_that_nobody_wrote",
        "scenario of-nothing",
        "icmp.toml: a case of nothing",
        "nothing.toml: a case",
        "x.py::test_y",
    ],
)
def test_a_test_that_does_not_exist_fails_the_build(name):
    with pytest.raises(ConformanceError):
        conformance.find(name)
