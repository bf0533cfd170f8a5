# SPDX-License-Identifier: BSD-3-Clause
"""Who answers ARP for what: a gateway for its pool, also when it is dead; a host for its own address only."""

import contextlib
import json
import os
import secrets
import socket
import time

import pytest

from isthmus.address import Address, Prefix
from isthmus.daemon.arp import announcement, on_link
from isthmus.lab.lab import standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenarios.two_hosts import start_server
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, Network, NodePlan

BY_PORT, WHOLE, NOBODYS = "203.0.113.10", "203.0.113.65", "203.0.113.200"
PRIVATE = "10.0.0.4"
GATEWAY = """\
[isthmus]
name = "gateway"
run = "{run}"
state = "{state}"
[[realm]]
name = "private"
interface = "lan0"
[[realm]]
name = "public"
interface = "wan0"
[gateway]
near = "private"
realm = "public"
address = "10.0.0.1"
attract = "{attract}"
[[gateway.pool]]
address = "203.0.113.10"
ports = "10000-19999"
[[gateway.pool]]
prefix = "203.0.113.64/29"
[[gateway.pool]]
prefix = "198.51.100.0/29"
"""
HOST = """\
[isthmus]
name = "host"
run = "{run}"
[[realm]]
name = "private"
interface = "eth0"
[host]
near = "private"
gateway = "10.0.0.1"
[[host.lease]]
ports = 64
routes = ["203.0.113.0/24"]
"""


def network(name):
    plain = {"offload": False}
    return Network(
        name=name,
        nodes=(
            NodePlan(name="host", sysctls=OPEN_FORWARDING),
            NodePlan(name="gateway", sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}),
            NodePlan(name="server"),
        ),
        cables=(
            Cable(
                End(node="host", interface="eth0", addresses=(f"{PRIVATE}/24",), **plain),
                End(node="gateway", interface="lan0", addresses=("10.0.0.1/24",), **plain),
            ),
            Cable(
                End(node="gateway", interface="wan0", addresses=("203.0.113.1/24",), **plain),
                End(node="server", interface="eth0", addresses=("203.0.113.2/24",), **plain),
            ),
        ),
    )


@pytest.fixture
def lab():
    with standing(network(f"t{secrets.token_hex(3)}")) as made:
        yield made


root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


def up(lab, attract="arp"):
    node = lab["gateway"]
    text = GATEWAY.format(run=node.run_directory, state=node.directory / "leases.db", attract=attract)
    return node.up(text)


@contextlib.contextmanager
def wire(node, interface):
    """A raw socket for ARP frames."""

    def make():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        opened.bind((interface, 0x0806))
        return opened

    with node.inside(make) as opened:
        yield opened


def frames(opened, seconds):
    opened.settimeout(0.05)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            frame, where = opened.recvfrom(2048)
            if where[2] != socket.PACKET_OUTGOING:
                yield frame


def request(mac, own, wanted):
    body = bytes.fromhex("0001080006040001") + mac + own.octets + bytes(6) + wanted.octets
    return b"\xff" * 6 + mac + b"\x08\x06" + body


def who_has(node, interface, wanted, own="0.0.0.0"):
    """The hardware addresses that answer a request for an address."""
    with wire(node, interface) as opened:
        mac = opened.getsockname()[4]
        opened.send(request(mac, Address.parse(own), Address.parse(wanted)))
        octets = Address.parse(wanted).octets
        return {each[22:28] for each in frames(opened, 0.5) if each[20:22] == b"\0\2" and each[28:32] == octets}


def hardware_address(node, interface):
    with wire(node, interface) as opened:
        return opened.getsockname()[4]


def test_what_of_the_pools_lies_on_the_link():
    def on(pools, *networks):
        return [str(each) for each in on_link(map(Prefix.parse, pools), map(Prefix.parse, networks))]

    assert on(["203.0.113.10/32", "198.51.100.0/29"], "203.0.113.0/24") == ["203.0.113.10/32"]
    assert on(["203.0.112.0/22"], "203.0.113.0/24") == ["203.0.113.0/24"], "as far as the link goes"
    assert on(["203.0.113.0/24"], "203.0.113.0/24", "203.0.113.0/24") == ["203.0.113.0/24"]


@pytest.mark.rfc("5227", "3")
def test_an_announcement_is_a_request_for_the_address_that_sends_it():
    mac = bytes.fromhex("02000000000a")
    frame = announcement(mac, Address.parse("203.0.113.10"))
    assert frame[:14] == b"\xff" * 6 + mac + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040001")
    assert frame[22:32] == mac + bytes([203, 0, 113, 10])
    assert frame[32:] == bytes(6) + bytes([203, 0, 113, 10])


@pytest.mark.root
@pytest.mark.slow
@root
def test_the_gateway_answers_for_its_pool_also_when_it_is_dead(lab):
    server, mac = lab["server"], {hardware_address(lab["gateway"], "wan0")}
    assert who_has(server, "eth0", BY_PORT, "203.0.113.2") == set()
    daemon = up(lab)
    for asked in (BY_PORT, WHOLE):
        assert who_has(server, "eth0", asked, "203.0.113.2") == mac
        assert who_has(server, "eth0", asked) == mac, "a probe (RFC 5227 2.1.1) is answered as well"
    assert who_has(server, "eth0", NOBODYS, "203.0.113.2") == set()
    daemon.kill()
    assert who_has(server, "eth0", WHOLE, "203.0.113.2") == mac, "packets flow on, so they must arrive"
    up(lab)
    assert who_has(server, "eth0", WHOLE, "203.0.113.2") == mac
    lab["gateway"].daemons["isthmus"].stop()
    assert who_has(server, "eth0", WHOLE, "203.0.113.2") == set()
    assert who_has(server, "eth0", "203.0.113.1", "203.0.113.2") == mac, "its own address is its own"


@pytest.mark.root
@pytest.mark.slow
@root
def test_a_pool_that_is_routed_is_left_alone(lab):
    up(lab, attract="none")
    assert who_has(lab["server"], "eth0", BY_PORT, "203.0.113.2") == set()
    lab["gateway"].daemons["isthmus"].stop()
    up(lab)
    shown = lab["gateway"].run("ip", "route", "show", "table", "local", "proto", "73").stdout
    assert "203.0.113.64/29" in shown
    assert "198.51.100" not in shown, "no network of the interface covers it"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.rfc("5227", "2.3")
@root
def test_it_announces_what_it_takes_and_defends_it(lab):
    mac = hardware_address(lab["gateway"], "wan0")
    with wire(lab["server"], "eth0") as opened:
        up(lab)
        seen = [each for each in frames(opened, 3.0) if each[28:32] == each[38:42]]
        announced = {str(Address.from_octets(each[28:32])) for each in seen}
        assert {BY_PORT, WHOLE} <= announced
        assert not any(each.startswith("198.51.100.") for each in announced)
        assert [each[22:28] for each in seen if each[28:32] == Address.parse(BY_PORT).octets] == [mac, mac]
        opened.send(announcement(b"\x02\0\0\0\0\x99", Address.parse(BY_PORT)))
        answers = [each for each in frames(opened, 1.0) if each[28:32] == Address.parse(BY_PORT).octets]
        assert [each[22:28] for each in answers] == [mac]
    said = lab["gateway"].daemons["isthmus"].log.read_text(encoding="utf-8")
    conflict = next(json.loads(line) for line in said.splitlines() if "ADDRESS_CONFLICT" in line)
    assert (conflict["address"], conflict["used_by"]) == (BY_PORT, "02:00:00:00:00:99")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.rfc("3102", "3.1")
@root
def test_a_host_answers_for_its_private_address_and_never_for_a_leased_one(lab):
    up(lab)
    host, gateway = lab["host"], lab["gateway"]
    host.up(HOST.format(run=host.run_directory))
    assert wait_until(lambda: bool(host.isthmus("leases")), 10)
    leased = host.isthmus("leases")[0]["address"]
    assert leased == BY_PORT
    assert leased in host.run("ip", "-4", "address").stdout
    assert who_has(gateway, "lan0", PRIVATE, "10.0.0.1") == {hardware_address(host, "eth0")}
    assert who_has(gateway, "lan0", leased, "10.0.0.1") == set()
    assert who_has(gateway, "lan0", leased) == set()
    start_server(lab)
    done = host.run("curl", "--silent", "--max-time", "5", "http://203.0.113.2/")
    assert done.stdout.startswith(f"You are {BY_PORT} port "), "what the gateway attracts reaches the host"
