# SPDX-License-Identifier: BSD-3-Clause
"""Two hosts behind one public address talk with each other by it (RFC 3102 §6.7; spec 14.7)."""

import os
import secrets

import pytest

from isthmus.daemon.control import call
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Setting

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
AUTO = Setting(plane="auto")
SERVICE = """
import socket, sys, threading
def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as box:
        box.bind(("", int(sys.argv[1])))
        while True:
            octets, peer = box.recvfrom(65535)
            box.sendto(octets[::-1], peer)
threading.Thread(target=datagrams, daemon=True).start()
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
where = (sys.argv[1], int(sys.argv[2]))
with socket.create_connection(where, timeout=8) as connection:
    print(connection.recv(100).decode(), "of", *connection.getsockname())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as box:
    box.settimeout(8)
    for size in (9, 4000):
        octets = bytes(range(256)) * (size // 256 + 1)
        box.sendto(octets, where)
        print("UDP", len(octets), box.recv(65535) == octets[::-1])
"""


@pytest.fixture(scope="module")
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}")) as made:
        made["gateway"].up(figure.gateway_configuration(made, AUTO))
        text = figure.host_configuration(made, AUTO, "host-a", lease=False)
        made["host-a"].up(text + '[[host.lease]]\nlisten = true\nports = "12000"\n')
        made["host-b"].up(figure.host_configuration(made, AUTO, "host-b", ports=16))
        for host in ("host-a", "host-b"):
            assert wait_until(lambda: call(made[host].socket_path, {"do": "host"})["leases"], 10)  # noqa: B023
        made["host-a"].start("service", ISTHMUS[0], "-c", SERVICE, "12000", ready="ready")
        yield made


def check(said):
    tcp, *udp = said.splitlines()
    seen, _, real = tcp.partition(" of ")
    assert seen == f"you are {real}"
    assert real.split()[0] == figure.SHARED, "source and destination are the same address"
    assert udp == ["UDP 256 True", "UDP 4096 True"]


def test_from_a_machine_to_another(lab):
    check(lab["host-b"].run(ISTHMUS[0], "-c", CALL, figure.SHARED, "12000").stdout)


def test_from_a_program_to_a_machine(lab):
    run = ("run", "--socket", str(lab["host-b"].socket_path), "--ports", "16", "--")
    check(lab["host-b"].run(*ISTHMUS, *run, ISTHMUS[0], "-c", CALL, figure.SHARED, "12000").stdout)


def test_from_one_program_to_another_of_the_same_machine(lab):
    run = ("run", "--socket", str(lab["host-b"].socket_path))
    service = ("--listen", "12345", "--ports", "16", "--", ISTHMUS[0], "-c", SERVICE, "12345")
    lab["host-b"].start("run", *ISTHMUS, *run, *service, ready="ready")
    check(lab["host-b"].run(*ISTHMUS, *run, "--", ISTHMUS[0], "-c", CALL, figure.SHARED, "12345").stdout)
