# SPDX-License-Identifier: BSD-3-Clause
"""A service behind the gateway, called by strangers: ``isthmus expose``, ``isthmus run --listen``, ``listen = true``."""

import os
import secrets
import signal
import subprocess

import pytest

from isthmus.daemon.control import call
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import LabError

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
AUTO = Setting(plane="auto")
SERVICE = """
import socket, sys
with socket.create_server(("", int(sys.argv[1])), backlog=16) as server:
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        connection.sendall(f"you are {peer[0]} {peer[1]}".encode())
        connection.recv(1)
        connection.close()
"""
CALL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=8) as connection:
    print(connection.recv(100).decode(), "of", *connection.getsockname())
"""


@pytest.fixture
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as made:
        made["gateway"].up(figure.gateway_configuration(made, AUTO))
        yield made


def host_up(lab, leases=""):
    text = figure.host_configuration(lab, AUTO, "host-a", lease=False)
    lab["host-a"].up(text + leases)
    assert wait_until(lambda: report(lab)["registered"], 10)


def report(lab):
    return call(lab["host-a"].socket_path, {"do": "host"})


def service(lab, port, *, name="service"):
    return lab["host-a"].start(name, ISTHMUS[0], "-c", SERVICE, str(port), ready="ready")


def called(lab, address, port):
    """Call from the far side: what the service says, and who called really."""
    said, _, real = lab["server"].run(ISTHMUS[0], "-c", CALL, address, str(port)).stdout.strip().partition(" of ")
    return said, f"you are {real}"


def expose(lab, *words, name="expose"):
    daemon = lab["host-a"].start(name, *ISTHMUS, "expose", *words, ready=figure.SHARED)
    line = next(each for each in daemon.log.read_text().splitlines() if each.startswith(figure.SHARED))
    address, _, port = line.rpartition(":")
    return daemon, address, int(port)


def rules(lab):
    return lab["host-a"].run("nft", "list", "tables").stdout


@pytest.mark.rfc("3103", "9.16.3")
def test_a_service_on_the_same_port_hears_a_stranger_and_sees_its_true_address(lab):
    host_up(lab)
    service(lab, 12345)
    daemon, address, port = expose(lab, "12345", "--public", "12345", "--socket", str(lab["host-a"].socket_path))
    assert (address, port) == (figure.SHARED, 12345)
    said, truth = called(lab, address, port)
    assert said == truth
    assert figure.SERVER in said
    who = truth.removeprefix("you are ").replace(" ", " port ")
    assert wait_until(lambda: f"{who} calls" in daemon.log.read_text(), 15), "who calls is shown"
    assert "isthmus_expose" not in rules(lab), "nothing is translated"
    daemon.process.send_signal(signal.SIGINT)
    daemon.process.wait(timeout=20)
    assert report(lab)["leases"] == []
    assert wait_until(lambda: lab["gateway"].isthmus("leases") == [], 15)


def test_a_public_port_of_its_own_is_translated_here_and_the_caller_stays_visible(lab):
    host_up(lab)
    service(lab, 80)
    daemon, address, port = expose(lab, "80", "--socket", str(lab["host-a"].socket_path))
    assert port != 80
    said, truth = called(lab, address, port)
    assert said == truth
    assert "isthmus_expose" in rules(lab)
    daemon.process.terminate()
    daemon.process.wait(timeout=20)
    assert "isthmus_expose" not in rules(lab)


def test_without_a_daemon_expose_brings_its_own_and_leaves_nothing(lab):
    before = lab["host-a"].run("ip", "-o", "link").stdout
    service(lab, 80)
    daemon, address, port = expose(lab, "80", "--gateway", figure.GATEWAY_NEAR)
    said, truth = called(lab, address, port)
    assert said == truth
    daemon.process.send_signal(signal.SIGINT)
    daemon.process.wait(timeout=20)
    assert lab["host-a"].run("ip", "-o", "link").stdout == before
    assert "4555:" not in lab["host-a"].run("ip", "rule").stdout
    assert wait_until(lambda: lab["gateway"].isthmus("leases") == [], 15)


def test_what_a_killed_expose_left_is_removed_by_the_next(lab):
    host_up(lab)
    service(lab, 80)
    daemon, _, _ = expose(lab, "80", "--socket", str(lab["host-a"].socket_path))
    daemon.process.kill()
    daemon.process.wait(timeout=20)
    assert rules(lab).count("isthmus_expose") == 1
    _, address, port = expose(lab, "80", "--socket", str(lab["host-a"].socket_path), name="again")
    assert rules(lab).count("isthmus_expose") == 1
    said, truth = called(lab, address, port)
    assert said == truth


def test_a_device_that_is_down_does_not_end_it(lab):
    host_up(lab)
    daemon, _, _ = expose(lab, "80", "--socket", str(lab["host-a"].socket_path))
    lab["host-a"].run("ip", "link", "set", "rsip0", "down")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(timeout=1)


def test_a_revoked_port_is_followed_by_another(lab):
    host_up(lab)
    service(lab, 80)
    daemon, _, port = expose(lab, "80", "--socket", str(lab["host-a"].socket_path))
    (row,) = lab["gateway"].isthmus("leases")
    call(lab["gateway"].socket_path, {"do": "revoke", "host": row["host"], "bind_id": row["bind_id"]})
    assert wait_until(lambda: "the lease is over (revoked)" in daemon.log.read_text(), 15)
    assert wait_until(lambda: "published again at" in daemon.log.read_text(), 10)
    (again,) = report(lab)["leases"]
    assert again["ports"] != str(port), "what was leased rests before anybody gets it again"
    said, truth = called(lab, figure.SHARED, int(again["ports"]))
    assert said == truth


def test_a_taken_port_is_refused_in_one_line(lab):
    host_up(lab)
    with pytest.raises(LabError, match="the gateway says no"):
        expose(lab, "80", "--public", "80", "--socket", str(lab["host-a"].socket_path))


def test_a_program_listens_on_a_port_of_its_own_namespace(lab):
    host_up(lab)
    listen = ("run", "--socket", str(lab["host-a"].socket_path), "--listen", "12080", "--ports", "16")
    lab["host-a"].start("run", *ISTHMUS, *listen, "--", ISTHMUS[0], "-c", SERVICE, "12080", ready="ready")
    said, truth = called(lab, figure.SHARED, 12080)
    assert said == truth
    rows = lab["gateway"].isthmus("leases")
    assert {row["address"] for row in rows} == {figure.SHARED}
    assert "12080" in [row["ports"] for row in rows]


def test_a_configured_listen_is_held_and_answers_leave_by_the_tunnel(lab):
    host_up(lab, '[[host.lease]]\nlisten = true\nports = "12000"\n')
    assert wait_until(lambda: len(report(lab)["leases"]) == 1, 10)
    (row,) = report(lab)["leases"]
    assert (row["ports"], row["listens"], row["device"]) == ("12000", True, "rsip0")
    service(lab, 12000)
    said, truth = called(lab, figure.SHARED, 12000)
    assert said == truth
    assert "192.156" not in lab["host-a"].run("ip", "route").stdout, "no route leads there but by the rule"


def test_without_root_it_says_so(lab):
    done = subprocess.run(
        [*ISTHMUS, "expose", "80", "--socket", "/nonexistent/socket"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no isthmus answers here" in done.stderr
    assert "Traceback" not in done.stderr
