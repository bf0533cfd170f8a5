# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus map``: the commands, on files and against a daemon."""

import json

import pytest

from cli.program import answer, refused, run
from isthmus.ipae.mapping import parse

OLD = "serial 1\n129.144.0.0/16 c20.4.0.3\n192.9.5.0/24 c1.213.77.5\n192.9.5.2/32 1.213.77.5\n"
NEW = "serial 2\n129.144.0.0/16 c20.4.0.9\n192.9.5.0/24 c1.213.77.5\n10.0.0.0/8 c1.2.2.8\n"


@pytest.fixture
def old(tmp_path):
    (tmp_path / "old.map").write_text(OLD)
    return tmp_path / "old.map"


@pytest.fixture
def new(tmp_path):
    (tmp_path / "new.map").write_text(NEW)
    return tmp_path / "new.map"


def test_a_right_file_is_described(old):
    digest = parse(OLD.encode()).mapping.digest
    result = run("map", "check", old)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"3 entries, serial 1\ndigest {digest}\n")
    told = answer("map", "check", old)
    assert told["ok"]
    assert (told["entries"], told["serial"], told["digest"], told["chunks"]) == (3, 1, digest, 1)


def test_every_fault_of_a_wrong_file_is_told_with_its_line(tmp_path):
    path = tmp_path / "wrong.map"
    path.write_text("10.0.0.1/8 1.2.3.4\nnonsense\n")
    result = run("map", "check", path)
    assert result.exit_code == 1
    assert [each.removeprefix(f"{path}: ").partition(":")[0] for each in result.stdout.splitlines()] == [
        "line 1",
        "line 2",
    ]
    told = json.loads(run("map", "check", path, "--json").stdout)
    assert told["faults"][0] == {"place": "line 1", "reason": "10.0.0.1/8 has bits set beyond its length"}


def test_own_networks_are_checked_as_a_daemon_does(new):
    assert run("map", "check", new, "--own", "10.1.0.0/16").exit_code == 1
    assert run("map", "check", new, "--own", "10.1.0.0/16", "--site", "1.2.2.8").exit_code == 0
    assert run("map", "check", new, "--own", "11.0.0.0/8", "--own", "12.0.0.0/8").exit_code == 0
    assert "--own" in refused("map", "check", new, "--own", "ten")
    assert "--site" in refused("map", "check", new, "--own", "10.1.0.0/16", "--site", "1.2")
    assert "No such file" in refused("map", "check", new.with_name("none.map"))


def test_two_files_are_compared(old, new):
    result = run("map", "diff", old, new)
    assert result.stdout.splitlines() == [
        "+ 10.0.0.0/8 c1.2.2.8",
        "~ 129.144.0.0/16 c20.4.0.3 -> c20.4.0.9",
        "- 192.9.5.2/32 1.213.77.5",
    ]
    assert answer("map", "diff", old, new) == {
        "added": [{"prefix": "10.0.0.0/8", "upper": "c1.2.2.8"}],
        "removed": [{"prefix": "192.9.5.2/32", "upper": "1.213.77.5"}],
        "changed": [{"prefix": "129.144.0.0/16", "before": "c20.4.0.3", "after": "c20.4.0.9"}],
    }
    assert run("map", "diff", old, old).stdout == ""


def test_a_file_is_applied_to_a_running_daemon(daemon, old):
    daemon.results["remap"] = {"realm": "far", "entries": 3, "digest": "ab", "added": 3, "removed": 0, "changed": 0}
    result = run("map", "apply", old, "--socket", daemon.path)
    assert result.stdout == "far: 3 added, 0 removed, 0 changed; 3 entries\ndigest ab\n"
    assert answer("map", "apply", "--realm", "far", "--socket", daemon.path)["entries"] == 3
    assert daemon.requests == [{"do": "remap", "path": str(old)}, {"do": "remap", "realm": "far"}]


def test_the_tables_of_a_running_daemon_are_shown(daemon):
    row = {"realm": "far", "entries": 3, "digest": "ab", "sources": [{"name": "a.map", "serial": 7, "entries": 3}]}
    found = {"prefix": "192.9.5.0/24", "image": "c1.213.77.5/32"}
    daemon.results["mappings"] = [row | {"dns": {"missed": {"held": 4}}, "found": found}, row | {"found": None}]
    result = run("map", "show", "192.9.5.1", "--socket", daemon.path)
    assert result.stdout.splitlines() == [
        "far: 3 entries",
        "    digest ab",
        "    3 from a.map, serial 7",
        "    4 packets without a mapping: held",
        "    192.9.5.1: 192.9.5.0/24 to c1.213.77.5/32",
        "far: 3 entries",
        "    digest ab",
        "    3 from a.map, serial 7",
        "    192.9.5.1: not mapped",
    ]
    assert len(answer("map", "show", "--socket", daemon.path)) == 2
    assert daemon.requests == [{"do": "mappings", "lookup": "192.9.5.1"}, {"do": "mappings"}]
    assert "no IPv4" in refused("map", "show", "nonsense", "--socket", daemon.path)


def test_what_the_daemon_refuses_is_told(daemon, old):
    assert "cannot" in refused("map", "apply", old, "--socket", daemon.path)


def test_a_file_becomes_a_zone(old):
    result = run("map", "zone", old, "--origin", "map.example.", "--server", "ns.example.", "--ttl", "600")
    assert result.stdout.splitlines() == [
        "$ORIGIN map.example.",
        "$TTL 600",
        "@ SOA ns.example. hostmaster (1 600 150 1800 300)",
        "@ NS ns.example.",
        r"144.129 TYPE65400 \# 6 011014040003",
        r"5.9.192 TYPE65400 \# 6 011801D54D05",
        r"2.5.9.192 TYPE65400 \# 6 002001D54D05",
    ]
    text = run("map", "zone", old, "--origin", "map.example.", "--address", "192.0.2.1", "--text").stdout
    assert "ns A 192.0.2.1\n" in text
    assert '144.129 TXT "ipae=20.4.0.3 c=1 len=16"\n' in text
    assert "--origin" in refused("map", "zone", old, "--origin", "a..b")
