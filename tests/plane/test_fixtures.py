# SPDX-License-Identifier: BSD-3-Clause
"""Every fixture on every plane."""

from __future__ import annotations

from collections import Counter

import pytest

from isthmus.border.verdict import Forward, Reason
from plane.fixture import NOW, Fixture, load
from plane.planes import PlaneUnderTest, ReferenceUnderTest, planes

FIXTURES = load()
CAN_REPLY = {Reason.TTL_EXCEEDED, Reason.TOO_BIG}
"Where another plane may punt: the step can end in a Reply."

NOT_BY_A_FIXTURE = {
    Reason.PUNTED: "only a plane with a slow path behind it punts; test_fixtures allows it where the contract does",
    Reason.NOT_ALLOWED_HERE: "a SIP-only host's daemon says so; see its tests",
}


@pytest.mark.parametrize("plane", planes(), ids=lambda plane: plane.name)
@pytest.mark.parametrize("fixture", FIXTURES, ids=str)
def test_fixture(fixture: Fixture, plane: PlaneUnderTest) -> None:
    reason = plane.available()
    if reason is not None:
        pytest.skip(reason)
    outcomes = plane.run(fixture.border, fixture.effects, fixture.packets, NOW, waits=fixture.waits)
    assert len(outcomes) == len(fixture.packets)
    found, expected = fixture.comparable(outcomes[-1]), fixture.comparable(fixture.expected)
    assert found[:3] == expected[:3]
    assert _hex(found[3]) == _hex(expected[3])
    assert plane.extra() == fixture.counts
    if len(fixture.packets) - 1 in plane.punted:
        slow = fixture.slow or fixture.expected[0] in {"reply", "hold"} or fixture.expected[1] in CAN_REPLY
        assert slow, "left to the slow path, though the contract does not say so"
    violations = plane.violations()
    if violations is not None and len(fixture.packets) == 1:
        assert [each.reason for each in violations] == [fixture.expected[1]] * fixture.violation


def _hex(packet: bytes | None) -> str | None:
    return None if packet is None else packet.hex(" ", 4)


@pytest.mark.parametrize("fixture", [each for each in FIXTURES if each.device is not None], ids=str)
def test_a_host_delivers_to_the_device_of_the_binding(fixture: Fixture) -> None:
    plane = ReferenceUnderTest()
    plane.run(fixture.border, fixture.effects, fixture.packets, NOW, waits=fixture.waits)
    verdict = plane.verdicts[-1]
    assert isinstance(verdict, Forward)
    assert verdict.device == fixture.device


@pytest.mark.parametrize("fixture", [each for each in FIXTURES if each.neighbour or each.miss], ids=str)
def test_the_neighbour_and_what_is_asked_for(fixture: Fixture) -> None:
    plane = ReferenceUnderTest()
    plane.run(fixture.border, fixture.effects, fixture.packets, NOW, waits=fixture.waits)
    if fixture.neighbour is not None:
        verdict = plane.verdicts[-1]
        assert isinstance(verdict, Forward)
        assert str(verdict.neighbour) == fixture.neighbour
    assert [str(each.address) for each in plane.misses] == ([fixture.miss] if fixture.miss else [])


def test_every_reason_is_reached() -> None:
    named = {reason for fixture in FIXTURES for reason in (fixture.expected[1], *fixture.counts)}
    assert set(Reason) - named == set(NOT_BY_A_FIXTURE), "add a fixture, or say why there can be none"


def test_names_are_unique_and_cite_a_clause() -> None:
    assert [name for name, times in Counter(map(str, FIXTURES)).items() if times > 1] == []
    assert [str(fixture) for fixture in FIXTURES if not fixture.rfc] == []


def test_there_are_enough() -> None:
    assert len(FIXTURES) >= 480
