# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus nat`` and ``isthmus revoke``: what they print and how they end."""

import json

import pytest

from cli.program import refused, run
from isthmus.daemon import nat
from isthmus.daemon.nat import Fault

CONFIG = """\
[[realm]]
name = "private"
interface = "eth1"
[[realm]]
name = "public"
interface = "eth0"
[gateway]
near = "private"
realm = "public"
address = "10.0.0.1"
[[gateway.pool]]
address = "149.112.240.55"
ports = "10000-19999"
[gateway.nat]
address = "149.112.240.55"
ports = "20000-29999"
networks = ["10.0.0.0/24"]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    return path


def test_what_is_wanted_is_shown_without_any_privilege(config):
    shown = run("nat", "show", config, "--wanted").stdout
    assert "table ip isthmus_nat_isthmus {" in shown
    assert "snat to 149.112.240.55:20000-29999" in shown


def test_a_fault_is_printed_with_its_remedy_and_the_exit_status_is_1(config, monkeypatch):
    monkeypatch.setattr(nat, "faults", lambda _config: [Fault(what="this is wrong", remedy="do that")])
    result = run("nat", "check", config)
    assert (result.exit_code, result.stdout) == (1, "this is wrong\n    → do that\n")
    result = run("nat", "check", config, "--json")
    assert json.loads(result.stdout) == {"ok": False, "faults": [{"what": "this is wrong", "remedy": "do that"}]}
    assert result.exit_code == 1


def test_nothing_wrong_is_said_and_the_exit_status_is_0(config, monkeypatch):
    monkeypatch.setattr(nat, "faults", lambda _config: [])
    result = run("nat", "check", config)
    assert (result.exit_code, result.stdout) == (0, "Nothing but the leases uses what is leased.\n")
    assert json.loads(run("nat", "check", config, "--json").stdout) == {"ok": True, "faults": []}


def test_a_wrong_configuration_is_refused(tmp_path):
    assert "cannot be read" in refused("nat", "check", tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (("10.0.0.4",), {"host": "10.0.0.4"}),
        (("10.0.0.4", "7"), {"host": "10.0.0.4", "bind_id": 7}),
        (("149.112.240.55:10016",), {"host": "149.112.240.55", "port": 10016}),
        (("2001:db8::4", "1"), {"host": "2001:db8::4", "bind_id": 1}),
    ],
)
def test_what_revoke_asks_the_daemon(daemon, words, request_):
    daemon.results["revoke"] = {"bindings": ["10.0.0.4#7"], "registration": "10.0.0.4"}
    result = run("revoke", *words, "--socket", daemon.path)
    assert result.stdout == "10.0.0.4#7: revoked\n10.0.0.4: not registered any more\n"
    assert daemon.requests == [{"do": "revoke"} | request_]


def test_a_port_and_a_bind_id_do_not_go_together(daemon):
    assert "not both" in refused("revoke", "149.112.240.55:10016", "1", "--socket", daemon.path)
