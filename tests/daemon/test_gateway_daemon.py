# SPDX-License-Identifier: BSD-3-Clause
"""The gateway daemon in a network: what is revoked, what is refused and counted, hosts of both families."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tomllib

import pytest

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.daemon import config as configuration
from isthmus.daemon.gateway import pool
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, Network, NodePlan
from isthmus.store import open_store
from isthmus.wire.rsip.message import AssignRequestRsapIp, ErrorResponse, RegisterRequest, RegisterResponse, emit, parse
from isthmus.wire.rsip.parameter import ClientId, MessageCounter, Ports, RsipAddress

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
HERE = (sys.executable, "-m", "isthmus")
IPV6 = "2001:db8::1"


@pytest.fixture
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as made:
        made["gateway"].up(figure.gateway_configuration(made, Setting(plane="auto")))
        yield made


def host(lab, ports=16):
    lab["host-a"].up(figure.host_configuration(lab, Setting(plane="auto"), "host-a", ports=ports))
    assert wait_until(lambda: len(leases(lab)) == 1, 10)
    return leases(lab)[0]


def leases(lab):
    return lab["gateway"].isthmus("leases")


def revoke(lab, *words):
    gateway = lab["gateway"]
    return gateway.run(*HERE, "revoke", *words, "--json", "--socket", str(gateway.socket_path), check=False)


def first_port(row):
    return int(row["ports"].partition("-")[0])


@pytest.mark.rfc("3103", "9.13")
def test_what_holds_a_port_is_revoked_and_the_host_is_told(lab):
    row = host(lab)
    done = revoke(lab, f"{figure.SHARED}:{first_port(row)}")
    assert json.loads(done.stdout) == {"bindings": [f"{row['host']}#{row['bind_id']}"], "registration": None}
    assert wait_until(lambda: [each["bind_id"] for each in leases(lab)] not in ([], [row["bind_id"]]), 10)
    again = leases(lab)[0]
    assert again["client_id"] == row["client_id"], "told by FREE_RESPONSE; it is registered still, and asked again"
    assert again["ports"] != row["ports"]


def test_a_second_gateway_on_the_same_store_is_refused(lab):
    text = figure.gateway_configuration(lab, Setting(plane="reference"))
    path = lab["gateway"].directory / "second.toml"
    path.write_text(text.replace('name = "gateway"', 'name = "second"'))
    refused = lab["host-a"].run(*HERE, "up", str(path), check=False)
    assert refused.returncode == 2
    assert "another gateway keeps its leases here" in refused.stderr
    assert leases(lab) == [], "the first goes on"


def test_a_host_has_the_place_that_the_key_of_the_store_gives_it(lab):
    row = host(lab, ports=64)
    folder = lab["gateway"].directory
    with contextlib.closing(open_store(folder / "leases.db")) as store:
        key = store.place_key()
    config = configuration.parse(tomllib.loads(figure.gateway_configuration(lab, Setting(plane="auto"))), "gateway")
    computed = pool(config, key).take_ports(Owner(1, Address.parse(row["host"])), ports=64, now=0.0)
    assert str(computed.ports) == row["ports"]


@pytest.mark.rfc("3103", "9.5")
def test_a_host_loses_everything_and_is_told(lab):
    row = host(lab)
    done = revoke(lab, row["host"])
    assert json.loads(done.stdout) == {"bindings": [f"{row['host']}#{row['bind_id']}"], "registration": row["host"]}
    assert wait_until(lambda: [each["client_id"] for each in leases(lab)] not in ([], [row["client_id"]]), 15)
    past = lab["gateway"].isthmus("who-had", f"{figure.SHARED}:{first_port(row)}")
    assert past[0]["ending"] == "revoked"


def test_one_binding_is_revoked_by_its_number(lab):
    row = host(lab)
    done = revoke(lab, row["host"], str(row["bind_id"]))
    assert json.loads(done.stdout)["bindings"] == [f"{row['host']}#{row['bind_id']}"]


def test_what_nobody_holds_cannot_be_revoked(lab):
    for words in (("10.0.0.77",), ("10.0.0.77", "1"), (f"{figure.SHARED}:9",), (figure.SHARED,)):
        done = revoke(lab, *words)
        assert done.returncode == 2
        assert "nobody holds" in done.stderr
    assert revoke(lab, "10.0.0.4:5", "1").returncode == 2
    assert "no IP address" in revoke(lab, "host-a").stderr


@pytest.mark.rfc("3103", "14")
def test_refused_control_messages_are_counted_by_reason(lab):
    request = emit(
        AssignRequestRsapIp(
            client_id=ClientId(7),
            local_address=RsipAddress.any(),
            local_ports=Ports.any_of(1),
            remote_address=RsipAddress.any(),
            remote_ports=Ports.any_of(1),
            message_counter=MessageCounter(1),
        )
    )
    with lab["host-a"].udp_socket() as udp:
        udp.settimeout(5)
        udp.connect((figure.GATEWAY_NEAR, figure.CONTROL_PORT))
        for octets in (request, b"\x01\x02\x00"):
            udp.send(octets)
        answer = parse(udp.recv(2048))
    assert isinstance(answer, ErrorResponse)
    counted = lab["gateway"].isthmus("counters")
    assert counted["refused: REGISTER_FIRST"] == 1
    shown = lab["gateway"].run(*HERE, "counters", "--socket", str(lab["gateway"].socket_path)).stdout
    assert "answered with error 301" in shown


def six(name):
    """A near realm that has no IPv4 at all."""
    with_ipv6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
    quick = {"net.ipv6.conf.default.accept_dad": "0", "net.ipv6.conf.all.accept_dad": "0"}
    return Network(
        name=name,
        nodes=(
            NodePlan(name="host", sysctls=with_ipv6 | quick),
            NodePlan(name="gateway", sysctls=OPEN_FORWARDING | with_ipv6 | quick | {"net.ipv4.ip_forward": "1"}),
            NodePlan(name="server"),
        ),
        cables=(
            Cable(
                End(node="host", interface="eth0", addresses=("2001:db8::4/64 nodad",)),
                End(node="gateway", interface="lan0", addresses=(f"{IPV6}/64 nodad",)),
            ),
            Cable(
                End(node="gateway", interface="wan0", addresses=("149.112.240.55/24",)),
                End(node="server", interface="eth0", addresses=("149.112.240.1/24",)),
            ),
        ),
    )


def answered(udp: socket.socket, request: bytes) -> bytes:
    """Send it again until there is an answer, as a host does (RFC 3103 §10.1): the same one, however often it comes."""
    for _ in range(20):
        udp.send(request)
        with contextlib.suppress(TimeoutError, ConnectionError):
            return udp.recv(2048)
    raise TimeoutError("no answer to twenty requests")


@pytest.mark.rfc("3103", "9.3")
@pytest.mark.parametrize("plane", ["auto", "reference"])
def test_a_gateway_whose_near_realm_has_no_ipv4(plane):
    with standing(six(f"t{secrets.token_hex(3)}")) as lab:
        text = figure.gateway_configuration(lab, Setting(plane=plane))
        lab["gateway"].up(text.replace(f'"{figure.GATEWAY_NEAR}"', f'"{IPV6}"'))
        request = emit(RegisterRequest(message_counter=MessageCounter(1)))
        kind = socket.SOCK_DGRAM
        with lab["host"].inside(lambda: socket.socket(socket.AF_INET6, kind)) as udp:
            udp.settimeout(1)
            udp.connect((IPV6, figure.CONTROL_PORT))
            assert isinstance(parse(answered(udp, request)), RegisterResponse)
        with lab["host"].inside(lambda: socket.create_connection((IPV6, figure.CONTROL_PORT), 5)) as tcp:
            tcp.sendall(emit(RegisterRequest()))
            assert isinstance(parse(tcp.recv(2048)), ErrorResponse), "304: it is registered already"


def test_a_gateway_that_cannot_start_leaves_nothing():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as lab:
        gateway = lab["gateway"]
        text = figure.gateway_configuration(lab, Setting(plane="auto")).replace(figure.GATEWAY_NEAR, "10.0.0.99")
        gateway.run_directory.mkdir(parents=True)
        path = gateway.directory / "wrong.toml"
        path.write_text(text, encoding="utf-8")
        done = gateway.run(*HERE, "up", str(path), check=False)
        assert done.returncode == 2
        assert "is it an address of this machine?" in done.stderr
        links = gateway.run("ip", "-o", "link").stdout
        assert {line.split(": ")[1].partition("@")[0] for line in links.splitlines()} == {"lo", "lan0", "wan0"}
        assert "isthmus" not in gateway.run("nft", "list", "tables").stdout
        assert subprocess.run(["pgrep", "-f", str(path)], capture_output=True, check=False).returncode == 1


def at_xdp(gateway):
    return {each["ifname"] for each in json.loads(gateway.run("ip", "-j", "link").stdout) if "xdp" in each}


def test_realms_with_xdp_have_it_while_the_gateway_runs():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as made:
        gateway = made["gateway"]
        text = figure.gateway_configuration(made, Setting(plane="kernel"))
        daemon = gateway.up(text.replace('interface = "wan0"', 'interface = "wan0"\nxdp = true'))
        assert wait_until(lambda: at_xdp(gateway) == {"wan0"}, 10)
        assert host(made)["ports"]
        daemon.stop()
        assert at_xdp(gateway) == set()
