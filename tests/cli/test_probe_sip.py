# SPDX-License-Identifier: BSD-3-Clause
"""isthmus doctor: what a border router or node of IPAE needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.cli import probe_sip
from isthmus.cli.finding import Finding, Status
from isthmus.daemon import config

REALM = {"name": "link", "interface": "lo", "site": "1.213.77.5"}


def found(**tables: object) -> dict[str, Finding]:
    loaded = config.parse({"realm": [REALM], **tables}, "file.toml")
    return {each.name: each for each in probe_sip.findings(loaded)}


def test_an_address_that_the_machine_does_not_have_is_missing() -> None:
    seen = found(border={"tunnel_ends": ["192.0.2.1"]})["border addresses"]
    assert seen.status is Status.MISSING
    assert "no interface of a [[realm]] has 192.0.2.1" in seen.detail
    assert seen.remedy


def test_one_that_it_has_is_well() -> None:
    seen = found(border={"tunnel_ends": ["127.0.0.1"]})
    assert seen["border addresses"].detail == "IPAE datagrams come to 127.0.0.1"
    assert "receive merging" in seen["merging lo"].detail


def test_a_node_is_told_what_its_programs_can_send() -> None:
    node = {"address": "1.213.77.5/127.0.0.1", "near": "link", "mtu": 1280}
    assert "up to 1280 octets" in found(node=node)["device sip0"].detail


@pytest.mark.parametrize(
    ("line", "status"), [("201.5.7.0/24 c1.2.2.8", Status.OK), ("10.0.0.0/8 c1.2.2.8", Status.MISSING)]
)
def test_a_mapping_file_is_read_as_the_daemon_would(tmp_path: Path, line: str, status: Status) -> None:
    path = tmp_path / "map.txt"
    path.write_text(f"{line}\n", encoding="ascii")
    border = {"mapping": {"file": str(path), "own": ["10.1.0.0/16"]}}
    assert found(border=border)["mapping"].status is status
