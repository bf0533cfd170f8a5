# SPDX-License-Identifier: BSD-3-Clause
"""The table of other border routers' cases is whole, and what it names exists and says the same of itself."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from isthmus.border.verdict import Reason
from plane.fixture import NOW, build, load, scene, stage
from plane.octets import whole
from plane.planes import PlaneUnderTest, planes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import border_cases  # noqa: E402  docs/ is on the path for this
import conformance  # noqa: E402
from border_cases import BorderCase  # noqa: E402
from conformance import ConformanceError  # noqa: E402

ROWS = border_cases.cases()
FIXTURES = [each for each in load() if each.peer]


def test_every_case_of_the_others_is_there_once() -> None:
    assert Counter(row.peer for row in ROWS) == {"lwaftr": 84, "map": 16, "nat44": 10}
    assert [name for name, times in Counter(map(str, ROWS)).items() if times > 1] == []
    assert [row.peer for row in ROWS] == sorted((row.peer for row in ROWS), key=list(border_cases.TITLES).index)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_a_case_names_exists(row: BorderCase) -> None:
    for name in row.tests:
        assert (ROOT / conformance.find(name).path).exists()
    assert len(row.tests) == len(set(row.tests))


def test_fixtures_and_table_name_each_other() -> None:
    said = {(peer, f"{each.file}.toml: {each.name}") for each in FIXTURES for peer in each.peer}
    files = {f"{each.file}.toml" for each in FIXTURES}
    listed = {(str(row), name) for row in ROWS for name in row.tests if name.partition(": ")[0] in files}
    marked = {fixture for _, fixture in said}
    assert said <= listed, "a fixture is of a case that does not name it"
    assert {pair for pair in listed if pair[1] in marked} <= said, "a case names a fixture that is of others"


def test_every_fixture_of_these_files_has_its_case() -> None:
    assert [str(each) for each in load() if each.file in {"lwaftr", "spoof_br"} and not each.peer] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peer": "somebody"}, "none of"),
        ({"tests": []}, "or a reason"),
        ({"not_applicable": "because"}, "or a reason"),
        ({"tests": [], "not_applicable": "because", "differs": "a little"}, "shown by a test"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(changes: dict[str, object], words: str) -> None:
    row: dict[str, object] = {"peer": "lwaftr", "name": "x", "tests": ["test_y"]}
    with pytest.raises(ConformanceError, match=words):
        BorderCase(**(row | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("plane", planes(), ids=lambda plane: plane.name)
def test_sixty_four_packets_go_round(plane: PlaneUnderTest) -> None:
    """lwAFTR's hairpinned packets, 64 of them: a table of peers is no bottleneck, and none gets another's octets."""
    if (reason := plane.available()) is not None:
        pytest.skip(reason)
    border, effects = stage(scene("lwaftr"))
    outer = {"ipv6": "fd00::4 -> fd00::1"}
    inner = [
        {"ipv4": "149.112.240.55 -> 149.112.240.55", "tcp": f"{10048 + at} -> {10112 + at}", "payload": "x" * at}
        for at in range(64)
    ]
    outcomes = plane.run(border, effects, [(1, build(each | {"outer": outer})) for each in inner], NOW)
    assert [each[:3] for each in outcomes] == [("forward", Reason.FORWARDED_INWARD, 1)] * 64
    assert [each[3][40:] for each in outcomes if each[3]] == [whole(each | {"ttl": 63}) for each in inner]
    assert not plane.punted
