# SPDX-License-Identifier: BSD-3-Clause
"""isthmus explain."""

from __future__ import annotations

import re
import tomllib

import pytest

from cli.program import ROOT, answer, refused, run
from isthmus.border.verdict import Reason
from isthmus.cli import explain
from isthmus.wire.rsip.codes import ErrorCode

TABLE = tomllib.loads((ROOT / "src" / "isthmus" / "cli" / "explanations.toml").read_text())


def test_every_reason_and_every_error_has_a_paragraph_and_nothing_is_left_over():
    assert list(TABLE["reason"]) == [each.name for each in Reason]
    assert list(TABLE["error"]) == [each.name for each in ErrorCode]
    assert set(TABLE) == {"reason", "error"}


@pytest.mark.parametrize("each", explain.explanations(), ids=lambda each: each.name)
def test_a_paragraph_says_why_what_to_do_and_where_it_is_written(each):
    assert len(each.why) > 60
    assert each.do.endswith(".")
    assert re.search(r"RFC \d+ (§|appendix)|(seed|spec|T93) .*\d\.\d", each.rfc), each.rfc


@pytest.mark.parametrize("each", explain.explanations(), ids=lambda each: each.name)
def test_each_is_found_by_name_and_by_number(each):
    assert answer("explain", each.name)["number"] == each.number
    assert answer("explain", each.number)["name"] == each.name
    assert answer("explain", each.name.lower().replace("_", "-"))["name"] == each.name


def test_a_reason_says_what_the_host_is_told():
    assert "ERROR_RESPONSE 313 LOCAL_ADDRPORT_UNALLOWED" in " ".join(
        run("explain", "SOURCE_PORT_NOT_LEASED").stdout.split()
    )
    assert answer("explain", "NO_BINDING")["rsip_error"] is None


def test_all_and_none():
    assert len(answer("explain", "--all")) == len(Reason) + len(ErrorCode)
    listed = run("explain").stdout
    whole = run("explain", "--all").stdout
    for each in explain.explanations():
        assert each.name in listed
        assert f"{each.name} (" in whole


def test_unknown_words_get_a_hint():
    assert "did you mean NO_BINDING" in refused("explain", "no-bindings")
    assert "'isthmus explain' lists them all" in refused("explain", "999")
    assert "not both" in refused("explain", "NO_BINDING", "--all")


def test_log_messages_are_explained_too():
    told = answer("explain", "way_down")
    assert (told["kind"], told["level"]) == ("message", "warning")
    assert "WAY_DOWN (log, warning)" in run("explain", "WAY_DOWN").stdout
    assert "no log message 'WAY_DOW'" in refused("explain", "WAY_DOW")
