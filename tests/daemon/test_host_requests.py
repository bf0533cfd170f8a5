# SPDX-License-Identifier: BSD-3-Clause
"""What a real host daemon asks for besides ports: SPIs, locality, a single peer; and what it does not believe."""

import json
import os
import secrets
import signal
import socket

import pytest

from isthmus.daemon.control import ControlError, call
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import NETNS, LabError
from isthmus.wire.rsip.message import DeregisterResponse, emit
from isthmus.wire.rsip.parameter import ClientId, MessageCounter

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
AUTO = Setting(plane="auto")
MORE = """
[gateway.query]
local = ["10.0.0.0/8"]
remote = ["10.77.0.0/16"]
local_names = ["here.example"]
remote_names = ["there.example"]

[[gateway.client]]
network = "10.0.0.4/32"

[[gateway.client]]
network = "10.0.0.5/32"
remote_policy = "macro"
"""


@pytest.fixture(scope="module")
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}")) as made:
        text = figure.gateway_configuration(made, AUTO, state="memory:")
        made["gateway"].up(
            text.replace('ports = "10000-19999"', 'ports = "10000-19999"\nspis = true\nike = true') + MORE
        )
        for host in ("host-a", "host-b"):
            made[host].up(figure.host_configuration(made, AUTO, host, lease=False))
            assert wait_until(lambda: ask(made, host, do="host")["registered"], 10)  # noqa: B023
        yield made


def ask(lab, host, **request):
    return call(lab[host].socket_path, request)


@pytest.mark.parametrize("what", ["10.0.0.999", "two words", "a..example", "2001:db8::/32", "10.0.0.1/24"])
def test_what_is_no_address_no_network_and_no_name_is_not_asked(lab, what):
    with pytest.raises(ControlError, match=r"is no |can ask about"):
        ask(lab, "host-a", do="query", what=[what])


def query(lab, *what):
    done = lab["host-a"].run(*ISTHMUS, "query", *what, "--json", "--socket", str(lab["host-a"].socket_path))
    return json.loads(done.stdout)


def test_what_is_local_is_asked_by_address_network_and_name(lab):
    what = ["10.1.2.3", "10.77.0.1", "10.77.0.0/16", "192.0.2.1", "www.here.example", "www.there.example", "who.else"]
    found = query(lab, *what)
    assert {row["what"]: row["local"] for row in found["asked"]} == dict(
        zip(what, [True, False, False, False, True, False, False], strict=True)
    )
    everything = {row["what"]: row["local"] for row in query(lab)["answered"]}
    assert everything["10.0.0.0/8"] is True
    assert everything["10.77.0.0/16"] is False
    shown = lab["host-a"].run(*ISTHMUS, "query", "10.1.2.3", "--socket", str(lab["host-a"].socket_path)).stdout
    assert "local" in shown


def test_a_network_that_is_none_is_said_plainly(lab):
    with pytest.raises(LabError, match=r"10\.0\.0\.1/8 is no network"):
        query(lab, "10.0.0.1/8")


@pytest.mark.rfc("3104", "6.2")
def test_spis_and_ports_are_held_together_and_given_back_together(lab):
    def rows():
        return [row for row in lab["gateway"].isthmus("leases") if row["method"] == "RSIPSEC"]

    host = lab["host-a"]
    config = host.directory / "isthmus.toml"
    text = figure.host_configuration(lab, AUTO, "host-a", lease=False)
    host.daemons["isthmus"].stop()
    host.up(text + f'[[host.lease]]\nspis = 8\nports = 16\nroutes = ["{figure.FAR}"]\n')
    assert wait_until(lambda: len(rows()) == 1, 10)
    (row,) = ask(lab, "host-a", do="leases")
    assert (row["spis"], row["ports"]) == (rows()[0]["spis"], rows()[0]["ports"])
    host.daemons["isthmus"].stop()
    assert wait_until(lambda: rows() == [], 15)
    assert config.exists()
    host.up(text)


def test_under_a_remote_policy_the_peer_must_be_named(lab):
    run = ("run", "--socket", str(lab["host-b"].socket_path), "--ports", "4")
    with pytest.raises(LabError, match="wants the peer's address"):
        lab["host-b"].run(*ISTHMUS, *run, "--", "true")
    lab["host-b"].run(*ISTHMUS, *run, "--remote", figure.SERVER, "--", "true")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_is_ended_gives_everything_back(lab, how):
    def held() -> int:
        return len(lab["host-b"].isthmus("leases"))

    before = held()
    words = (*ISTHMUS, "run", "--socket", str(lab["host-b"].socket_path), "--remote", figure.SERVER)
    script = "readlink /proc/self/ns/net; echo ready; exec sleep 60"
    running = lab["host-b"].start(how.name, *words, "--", "sh", "-c", script, ready="ready")
    namespace = int(running.tail().partition("net:[")[2].partition("]")[0])
    assert held() == before + 1
    # By its name: the kernel gives the number to the next namespace, which may be another test's.
    (name,) = (path for path in NETNS.glob("isthmus-*") if path.stat().st_ino == namespace)
    running.process.send_signal(how)
    assert running.process.wait(10) == 128 + how
    assert not name.exists()
    assert wait_until(lambda: held() == before, 15)


def test_what_the_lease_limits_leaves_by_no_other_way(lab):
    held = {"do": "acquire", "ports": 4, "remote": figure.SERVER}
    with pytest.raises(ControlError, match="cannot be asked for"):
        ask(lab, "host-b", do="acquire", ports=0, remote=figure.SERVER)
    row = call(lab["host-b"].socket_path, held)
    assert (row["remote"], row["remote_port"]) == (figure.SERVER, None)
    assert row["device"] == "rsip0"


def test_messages_as_from_the_gateway_are_ignored_and_counted(lab):
    before = ask(lab, "host-a", do="host")
    wrong = ClientId(before["client_id"] ^ 1)
    spoofed = [
        (4556, DeregisterResponse(client_id=ClientId(before["client_id"]), message_counter=MessageCounter(0))),
        (4556, DeregisterResponse(client_id=wrong, message_counter=MessageCounter(0))),
    ]

    def send():
        for port, message in spoofed:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((figure.GATEWAY_NEAR, port))
                sender.sendto(emit(message), ("10.0.0.4", before["control_port"]))

    lab["gateway"].inside(send)
    assert wait_until(lambda: ask(lab, "host-a", do="host")["ignored"].get("stranger") == len(spoofed), 15)
    after = ask(lab, "host-a", do="host")
    assert (after["client_id"], after["registered"]) == (before["client_id"], True)
    assert ask(lab, "host-a", do="counters")["ignored: stranger"] == len(spoofed)
