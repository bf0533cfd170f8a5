# SPDX-License-Identifier: BSD-3-Clause
"""isthmus leases, who-had and counters: through a daemon, and on a store file."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from cli.program import answer, process, refused, run
from isthmus.address import Address, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Ending, Register, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.border.verdict import Reason
from isthmus.store import open_store

BEGIN = 1_800_000_000.0
HOST = Owner(1, Address.parse("10.0.0.4"))
LEASE = {
    "client_id": 7,
    "host": "10.0.0.4",
    "bind_id": 1,
    "address": "149.112.240.55",
    "ports": "10000-10063",
    "spis": None,
    "ike": False,
    "identity": None,
    "admits": "contacted",
    "method": "RSAP_IP",
    "tunnel": "IPIP",
    "granted_at": BEGIN,
    "expires_at": BEGIN + 3600,
}
TENURE = {
    "host": "10.0.0.4",
    "client_id": 7,
    "bind_id": 1,
    "address": "149.112.240.55",
    "ports": "10000-10063",
    "granted_at": BEGIN,
    "ended_at": None,
    "ending": None,
    "expires_at": BEGIN + 3600,
}


def bind(bind_id: int, ports: str | None, *, expires_at: float, address: str = "149.112.240.55") -> Bind:
    local = Prefix.parse(address)
    selector = (
        Selector(realm=2, local=local)
        if ports is None
        else Selector(realm=2, local=local, kind=Kind.PORT, values=Ranges.parse(ports))
    )
    tunnel = Tunnel(realm=1, local=Address.parse("10.0.0.1"), remote=HOST.address)
    method = Method.RSA_IP if ports is None else Method.RSAP_IP
    return Bind(
        binding=Binding(key=BindingKey(HOST, bind_id), selectors=(selector,), crossing=tunnel),
        lease=Lease(client_id=7, method=method, granted_at=BEGIN, expires_at=expires_at),
    )


@pytest.fixture
def database(tmp_path):
    """A store with three leases: one that was freed, one that stands forever, one address held whole."""
    path = tmp_path / "leases.db"
    store = open_store(path)
    store.commit(
        [
            Register(registration=Registration(owner=HOST, client_id=7, expires_at=FOREVER)),
            bind(1, "10000-10063", expires_at=BEGIN + 3600),
            bind(2, "10064-10127", expires_at=FOREVER),
            bind(3, None, expires_at=FOREVER, address="149.112.240.64"),
        ],
        now=BEGIN,
    )
    store.commit([Unbind(key=BindingKey(HOST, 1), ending=Ending.FREED)], now=BEGIN + 600)
    store.close()
    return path


def is_time(text):
    return datetime.fromisoformat(text).utcoffset() is not None


def test_leases_of_a_daemon(daemon):
    daemon.results["leases"] = [LEASE]
    (row,) = answer("leases", "--socket", daemon.path)
    assert row | {"granted_at": BEGIN, "expires_at": BEGIN + 3600} == LEASE
    assert is_time(row["granted_at"])
    assert datetime.fromisoformat(row["expires_at"]).timestamp() == BEGIN + 3600
    shown = run("leases", "--socket", daemon.path).stdout
    assert "10.0.0.4" in shown
    assert "10000-10063" in shown
    assert row["expires_at"] in shown


def test_no_leases_are_said_to_be_none(daemon):
    daemon.results["leases"] = []
    assert answer("leases", "--socket", daemon.path) == []
    assert run("leases", "--socket", daemon.path).stdout == "Nobody holds a lease.\n"


def test_leases_of_a_store(database):
    rows = {row["bind_id"]: row for row in answer("leases", "--state", database)}
    assert set(rows) == {2, 3}
    assert rows[2]["ports"] == "10064-10127"
    assert rows[2]["expires_at"] == "forever"
    assert rows[3]["ports"] is None
    assert set(rows[2]) == set(LEASE)
    assert (rows[2]["admits"], rows[2]["ike"], rows[2]["identity"]) == ("anyone", False, None)
    assert "149.112.240.64  all" in run("leases", "--state", database).stdout


def test_who_had_of_a_daemon(daemon):
    daemon.results["who-had"] = [TENURE]
    (row,) = answer("who-had", "149.112.240.55:10000", "--at", "2027-01-15T08:00:00Z", "--socket", daemon.path)
    assert row["host"] == "10.0.0.4"
    assert row["ended_at"] is None
    assert is_time(row["granted_at"])
    assert daemon.requests == [{"do": "who-had", "address": "149.112.240.55", "port": 10000, "at": BEGIN}]
    shown = run("who-had", "149.112.240.55:10000", "--socket", daemon.path).stdout
    assert "still held" in shown


@pytest.mark.parametrize(
    "at", ["1800000100", "2027-01-15T08:01:40+00:00", "2027-01-15T09:01:40+01:00", "2027-01-15T08:01:40Z"]
)
def test_who_had_at_a_time(database, at):
    (row,) = answer("who-had", "149.112.240.55:10000", "--at", at, "--state", database)
    assert row["ending"] == "freed"
    assert datetime.fromisoformat(row["ended_at"]).timestamp() == BEGIN + 600
    assert set(row) == set(TENURE)


def test_a_time_without_zone_is_taken_in_the_zone_of_the_machine(database):
    for zone, at in (("UTC", "2027-01-15T08:01:40"), ("America/New_York", "2027-01-15T03:01:40")):
        ended = process("who-had", "149.112.240.55:10000", "--at", at, "--state", database, "--json", TZ=zone)
        assert len(json.loads(ended.stdout)) == 1, ended.stderr


@pytest.mark.parametrize(
    ("what", "at"),
    [
        ("149.112.240.55:9999", None),
        ("149.112.240.55:10000", "1800000600"),
        ("149.112.240.55:10000", "now"),
        ("192.0.2.1", None),
        ("192.0.2.1", "1e30"),
    ],
)
def test_nobody_is_said_clearly(database, what, at):
    options = ["--at", at] if at else []
    result = run("who-had", what, *options, "--state", database)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"Nobody held {what}")
    result = run("who-had", what, *options, "--state", database, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == []


def test_who_had_without_a_port_lists_every_holder(database):
    assert len(answer("who-had", "149.112.240.55", "--state", database)) == 2
    (row,) = answer("who-had", "149.112.240.64:80", "--state", database)
    assert row["ports"] is None, "who holds the address whole holds each of its ports"


def test_counters(daemon):
    daemon.results["counters"] = {"FORWARDED_INWARD": 3, "NO_BINDING": 1}
    counts = answer("counters", "--socket", daemon.path)
    assert list(counts) == [each.name for each in Reason]
    assert counts["FORWARDED_INWARD"] == 3
    shown = run("counters", "--socket", daemon.path).stdout.splitlines()
    assert len(shown) == 3
    assert shown[2].split()[:2] == ["1", "NO_BINDING"]


def test_a_daemon_that_refuses_is_quoted(daemon):
    for command in (["leases"], ["counters"], ["who-had", "192.0.2.1:1"]):
        assert refused(*command, "--socket", daemon.path) == "isthmus: cannot"


@pytest.mark.parametrize("command", [["leases"], ["counters"], ["who-had", "192.0.2.1:1"]])
def test_no_daemon_is_said_with_what_to_do(command, tmp_path):
    said = refused(*command, "--socket", tmp_path / "isthmus.sock")
    assert "isthmus up CONFIG" in said
    ended = process(*command, "--socket", tmp_path / "isthmus.sock")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [["leases"], ["who-had", "192.0.2.1:1"]])
def test_a_store_that_is_not_there_is_not_made(command, tmp_path):
    assert "no lease store here" in refused(*command, "--state", tmp_path / "leases.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["leases"], ["who-had", "192.0.2.1:1"]])
def test_a_file_that_is_no_store_is_said_to_be_none(command, tmp_path):
    file = tmp_path / "leases.db"
    file.write_text("something else, long enough to be read as a header of some database or other\n" * 10)
    assert str(file) in refused(*command, "--state", file)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("149.112.240.55:0", "no port"),
        ("149.112.240.55:65536", "no port"),
        ("149.112.240.55:http", "no port"),
        ("149.112.240.55:", "no port"),
        ("example.net:80", "no IP address"),
        ("300.1.1.1", "no IP address"),
        ("", "no IP address"),
    ],
)
def test_a_wrong_endpoint_is_explained(what, problem, tmp_path):
    assert problem in refused("who-had", what, "--socket", tmp_path / "none")


def test_an_ipv6_endpoint_is_understood(daemon):
    daemon.results["who-had"] = [TENURE]
    answer("who-had", "[2001:db8::1]:80", "--socket", daemon.path)
    answer("who-had", "2001:db8::1", "--socket", daemon.path)
    assert [(each["address"], each["port"]) for each in daemon.requests] == [("2001:db8::1", 80), ("2001:db8::1", None)]


@pytest.mark.parametrize("at", ["yesterday", "2027-13-01", "inf", "nan", ""])
def test_a_wrong_time_is_explained(at, tmp_path):
    assert "write ISO 8601" in refused("who-had", "192.0.2.1:1", "--at", at, "--socket", tmp_path / "none")
