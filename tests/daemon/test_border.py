# SPDX-License-Identifier: BSD-3-Clause
"""A border router and a node that come up from TOML, between real IP stacks, on both planes.

::

    a  192.3.4.1 --- r1 --- 128.1.1.0/24 --- r3 --- 201.5.7.250  d    IPv4 hosts
       1.213.77.5                            |      1.2.2.8
                                             +----- n, m              SIP only, their interfaces have no IPv4 address

The cables are veth pairs as they come, with all their offloads.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from isthmus.daemon.control import call
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, Network, NodePlan, run_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
A, D, N, M = "192.3.4.1", "201.5.7.250", "201.5.9.77", "201.5.10.78"
LEASED = "128.1.1.77"
ROUTER = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
SERVICE = """
import socket, sys, threading
family = socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET
box = socket.socket(family, socket.SOCK_DGRAM)
box.bind(("", 7))
def datagrams():
    while True:
        octets, peer = box.recvfrom(65535)
        box.sendto(octets[::-1], peer)
threading.Thread(target=datagrams, daemon=True).start()
with socket.create_server(("", 7), family=family) as server:
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        while octets := connection.recv(65536):
            connection.sendall(octets)
        connection.close()
"""
NAMES = """
import socket
import dns.message, dns.rcode, dns.rrset
known = {("n.example.", 65401): "# 8 01020208c905094d", ("4.3.192.map.example.", 65400): "# 6 011801d54d05"}
there = {"n.example.", "192.map.example.", "3.192.map.example.", "4.3.192.map.example."}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as box:
    box.bind(("127.0.0.1", 5300))
    print("ready", flush=True)
    while True:
        octets, peer = box.recvfrom(4096)
        query = dns.message.from_wire(octets)
        answer = dns.message.make_response(query)
        name, rdtype = query.question[0].name, query.question[0].rdtype
        if said := known.get((str(name), rdtype)):
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", f"TYPE{rdtype}", chr(92) + said))
        elif str(name) not in there:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        box.sendto(answer.to_wire(), peer)
"""
RESOLVE = """
import sys
import dns.message, dns.query, dns.rdatatype
query = dns.message.make_query("n.example.", sys.argv[2])
for record in dns.query.udp(query, sys.argv[1], timeout=5).answer:
    print(record[0])
"""
CALL = """
import socket, sys, threading
where = (sys.argv[1], 7)
octets = bytes(range(256)) * 400
with socket.create_connection(where, timeout=10) as connection:
    threading.Thread(target=lambda: (connection.sendall(octets), connection.shutdown(socket.SHUT_WR))).start()
    heard = b""
    while part := connection.recv(65536):
        heard += part
    print("TCP", heard == octets)
    family = connection.family
with socket.socket(family, socket.SOCK_DGRAM) as box:
    box.settimeout(1)
    for size in (1, 500, 1472, 4000):
        sent = octets[:size]
        for _ in range(4):  # what teaches the sender that it is too large is lost
            box.sendto(sent, where)
            try:
                print("UDP", size, box.recv(65535) == sent[::-1])
                break
            except TimeoutError:
                continue
"""


def cable(left: tuple[str, ...], right: tuple[str, ...]) -> Cable:
    ends = (End(node=node, interface=name, addresses=tuple(has)) for node, name, *has in (left, right))
    return Cable(*ends)


def network() -> Network:
    return Network(
        name=f"b{secrets.token_hex(3)}",
        nodes=(
            NodePlan(name="a", routes=("default via 192.3.4.2",)),
            NodePlan(name="r1", sysctls=ROUTER),
            NodePlan(name="r3", sysctls=ROUTER),
            NodePlan(name="d", routes=("default via 201.5.7.9",)),
            NodePlan(name="n", sysctls=OPEN_FORWARDING),
            NodePlan(name="m", sysctls=OPEN_FORWARDING),
        ),
        cables=(
            cable(("a", "eth0", f"{A}/24"), ("r1", "lan0", "192.3.4.2/24")),
            cable(("r1", "wan0", "128.1.1.1/24"), ("r3", "wan0", "128.1.1.3/24")),
            cable(("r3", "lan0", "201.5.7.9/24"), ("d", "eth0", f"{D}/24")),
            cable(("r3", "sip1", "10.9.9.1/24"), ("n", "eth0")),
            cable(("r3", "sip2", "10.9.8.1/24"), ("m", "eth0")),
        ),
    )


def general(lab: Lab, name: str, plane: str) -> str:
    node = lab[name]
    return f'[isthmus]\nname = "{name}"\nrun = "{node.run_directory}"\nplane = "{plane}"\n'


def r1(lab: Lab, plane: str) -> str:
    return (
        general(lab, "r1", plane)
        + f"""
[[realm]]
name = "site"
interface = "lan0"
site = "1.213.77.5"
[[realm]]
name = "internet"
interface = "wan0"
[border]
address = "1.213.77.5/192.3.4.2"
tunnel_ends = ["128.1.1.1"]
milestone = "R"
[[border.route]]
to = "1.2.2.8"
via = {{ ipae = "128.1.1.3" }}
[border.mapping]
file = "{lab["r1"].directory / "map.txt"}"
[border.alias]
pools = ["100.64.0.0/16"]
[border.dns]
listen = "192.3.4.2"
upstream = "127.0.0.1"
upstream_port = 5300
"""
    )


def r3(lab: Lab, plane: str) -> str:
    return (
        general(lab, "r3", plane)
        + f"""
[[realm]]
name = "site"
interface = "lan0"
site = "1.2.2.8"
[[realm]]
name = "internet"
interface = "wan0"
[[realm]]
name = "inside"
interface = "sip1"
site = "1.2.2.8"
[[realm]]
name = "inside2"
interface = "sip2"
site = "1.2.2.8"
[gateway]
near = "site"
realm = "internet"
address = "201.5.7.9"
[[gateway.pool]]
address = "{LEASED}"
ports = "20000-20999"
[border]
address = "1.2.2.8/10.9.9.1"
hosts = ["1.2.2.8/{M}"]
[[border.route]]
to = "1.213.77.5"
via = {{ ipae = "128.1.1.1", realm = "internet" }}
[[border.route]]
to = "c1.2.2.8"
via = {{ translate = "site" }}
[[border.route]]
to = "1.2.2.8/201.5.9.0/56"
c = 0
via = {{ native = "inside" }}
[[border.route]]
to = "1.2.2.8/201.5.10.0/56"
c = 0
via = {{ native = "inside2" }}
[border.mapping]
dns = {{ zone = "map.example", server = "127.0.0.1", port = 5300 }}
realm = "site"
"""
    )


def n(lab: Lab, plane: str) -> str:
    return (
        general(lab, "n", plane)
        + f"""
[[realm]]
name = "link"
interface = "eth0"
[node]
address = "1.2.2.8/{N}"
profile = "sip-only"
near = "link"
border = "10.9.9.1"
"""
    )


def m(lab: Lab, plane: str) -> str:
    """A SIP-only host that leases from an RSIP gateway which knows nothing of SIP but its site's border router."""
    return (
        general(lab, "m", plane)
        + f"""
[[realm]]
name = "link"
interface = "eth0"
[[realm]]
name = "programs"
interface = "sip0"
[node]
address = "1.2.2.8/{M}"
profile = "sip-only"
near = "link"
border = "10.9.8.1"
sockets = "ipv4"
peers = ["c1.2.2.8/201.5.7.9"]
[node.alias]
pools = ["100.65.0.0/16"]
[host]
near = "programs"
gateway = "201.5.7.9"
[[host.lease]]
ports = 16
routes = ["128.1.1.0/24"]
"""
    )


def write_map(lab: Lab, name: str, *lines: str) -> None:
    path = lab[name].directory / "map.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text("\n".join((*lines, "")), encoding="ascii")
    new.rename(path)


@pytest.fixture(scope="module", params=["reference", "kernel"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with standing(network()) as made:
        write_map(made, "r1", "201.5.7.0/24  c1.2.2.8")
        for name in ("r1", "r3"):
            made[name].start("names", ISTHMUS[0], "-c", NAMES, ready="ready")
        for name, text in (("r1", r1), ("r3", r3), ("n", n), ("m", m)):
            made[name].up(text(made, request.param))
        for name, family in (("d", "4"), ("n", "6"), ("a", "4"), ("r1", "4")):
            made[name].start("service", ISTHMUS[0], "-c", SERVICE, family, ready="ready")
        yield made


def ask(lab: Lab, node: str, **request: Any) -> Any:
    return call(lab[node].socket_path, request)


def talk(lab: Lab, node: str, where: str) -> None:
    done = lab[node].run(sys.executable, "-c", CALL, where, seconds=40)
    assert done.stdout.splitlines() == ["TCP True", *(f"UDP {size} True" for size in (1, 500, 1472, 4000))]


def ping(lab: Lab, node: str, where: str, *words: str) -> str:
    return lab[node].run("ping", "-c1", "-W3", *words, where, check=False).stdout


def alias_of_n(lab: Lab) -> str:
    """What hosts of a's site know n by: it is made when n first speaks to one of them."""
    known = "fd53:4950:4300"
    seen = lab["n"].run(sys.executable, "-c", SEEN_BY, known).stdout.strip()
    assert "1 received" in ping(lab, "n", seen)
    return next(row["alias"] for row in ask(lab, "r1", do="aliases") if row["address"] == f"1.2.2.8/{N}")


SEEN_BY = """
import sys
from isthmus.address import Address
from isthmus.ipae.neutral import Sockets
print(Sockets().name_of(Address.parse_sip("c1.213.77.5/192.3.4.1")))
"""


@pytest.mark.rfc("ipae", "8.1")
def test_what_no_table_has_is_asked_of_a_nameserver_while_the_packet_waits(lab: Lab) -> None:
    assert ask(lab, "r3", do="mappings")[0]["entries"] == 0
    assert "1 received" in ping(lab, "d", A), "the first packet got there, too"
    assert ask(lab, "r3", do="mappings")[0]["entries"] == 1
    talk(lab, "d", A)
    assert "Destination Host Unreachable" in ping(lab, "d", "9.9.9.9")


@pytest.mark.rfc("ipae", "3.4.1")
def test_ipv4_hosts_cross_a_sip_network_that_neither_knows_of(lab: Lab) -> None:
    assert "ttl=62" in ping(lab, "a", D), "each border router costs one hop, the tunnel none"
    talk(lab, "a", D)


@pytest.mark.rfc("ipae", "5.2")
def test_a_host_without_sip_knows_one_that_has_nothing_else_by_an_alias(lab: Lab) -> None:
    alias = alias_of_n(lab)
    assert alias.startswith("100.64.")
    talk(lab, "a", alias)
    assert ask(lab, "n", do="counters")["TRANSLATED_FROM_SIP"] > 0


@pytest.mark.rfc("ipae", "8.3")
def test_a_name_is_answered_with_an_alias_that_works_at_once(lab: Lab) -> None:
    alias = lab["a"].run(sys.executable, "-c", RESOLVE, "192.3.4.2", "A").stdout.strip()
    assert alias.startswith("100.64.")
    assert "1 received" in ping(lab, "a", alias)
    assert {"realm": "site", "alias": alias, "address": f"1.2.2.8/{N}"}.items() <= ask(lab, "r1", do="aliases")[
        0
    ].items()
    seen = lab["a"].run(sys.executable, "-c", RESOLVE, "192.3.4.2", "AAAA").stdout.strip()
    assert seen == "fd49:5041:4500:6d74:102:208:c905:94d"


@pytest.mark.rfc("8507", "8.4")
def test_a_host_whose_interface_has_no_ipv4_address_is_found_by_arp(lab: Lab) -> None:
    assert lab["n"].run("ip", "-4", "-o", "addr", "show", "dev", "eth0").stdout == ""
    lab["r3"].run("ip", "neigh", "flush", "dev", "sip1")
    alias_of_n(lab)
    assert N in lab["r3"].run("ip", "neigh", "show", "dev", "sip1").stdout


@pytest.mark.rfc("ipae", "4.2")
def test_a_sip_only_host_takes_no_ipv4_packets(lab: Lab) -> None:
    with lab["r3"].inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)) as raw:
        before = ask(lab, "n", do="counters")["NOT_ALLOWED_HERE"]
        alias_of_n(lab)
        found = re.search(r"link/ether (\S+)", lab["n"].run("ip", "link", "show", "dev", "eth0").stdout)
        assert found
        header = bytes.fromhex("4500001c00000000401100000a090901") + bytes(map(int, N.split(".")))
        raw.sendto(header + bytes(8), ("sip1", 0x0800, 0, 0, bytes.fromhex(found[1].replace(":", ""))))
    assert wait_until(lambda: ask(lab, "n", do="counters")["NOT_ALLOWED_HERE"] == before + 1, 15)


def test_the_border_router_itself_reaches_what_its_hosts_reach(lab: Lab) -> None:
    alias = alias_of_n(lab)
    assert "1 received" in ping(lab, "r1", alias, "-I", "192.3.4.2")


@pytest.mark.rfc("ipae", "8.3")
def test_where_ipv4_means_nothing_beyond_the_site_the_unmapped_is_refused(lab: Lab) -> None:
    said = ping(lab, "a", "9.9.9.9")
    assert "Destination Net Unknown" in said
    assert ask(lab, "r1", do="counters")["UNMAPPED"] + ask(lab, "r1", do="counters")["REPLIED"] > 0


def test_an_alias_that_nobody_has_leads_nowhere(lab: Lab) -> None:
    for node in ("a", "r1"):
        assert "Destination Net Unknown" in ping(lab, node, "100.64.1.2")


@pytest.mark.rfc("ipae", "4.3")
def test_what_errors_taught_of_a_way_is_shown_and_forgotten(lab: Lab) -> None:
    assert ask(lab, "r1", do="tunnels") == []
    rows = {(row["realm"], row["to"]): row["via"] for row in ask(lab, "r1", do="routes")}
    assert rows["sip", "1.2.2.8/32"] == "ipae 128.1.1.3 by internet from 128.1.1.1"
    assert rows["sip", "c1.213.77.5/32"] == "translate site 0.0.0.0/0", "the gateway to our own site needs no route"


def test_the_command_line_shows_routes_aliases_and_ways(lab: Lab) -> None:
    alias = alias_of_n(lab)
    socket_path = ("--socket", str(lab["r1"].socket_path))
    said = lab["r1"].run(*ISTHMUS, "routes", *socket_path).stdout
    assert re.search(r"sip +1\.2\.2\.8/32 +ipae 128\.1\.1\.3 by internet from 128\.1\.1\.1", said)
    assert alias in lab["r1"].run(*ISTHMUS, "routes", "--aliases", *socket_path).stdout
    assert lab["r1"].run(*ISTHMUS, "tunnels", *socket_path).stdout.startswith("Nothing is known of any way")
    assert lab["r1"].isthmus("map", "apply", str(lab["r1"].directory / "map.txt"))["entries"] == 1


def test_a_sip_only_host_leases_ports_of_a_public_address_from_an_rsip_gateway(lab: Lab) -> None:
    assert wait_until(lambda: ask(lab, "m", do="leases"), 15), lab["m"].daemons["isthmus"].tail()
    assert [row["address"] for row in ask(lab, "m", do="leases")] == [LEASED]
    before = ask(lab, "r3", do="counters")
    talk(lab, "m", "128.1.1.1")
    after = ask(lab, "r3", do="counters")
    assert after["FORWARDED_OUTWARD"] > before["FORWARDED_OUTWARD"]
    assert after["FORWARDED_INWARD"] > before["FORWARDED_INWARD"]
    assert "100.65" not in str(ask(lab, "m", do="aliases")), "the gateway is known by its own address"


def entries(lab: Lab) -> int:
    return ask(lab, "r1", do="status")["mappings"].get("site", 0)


@pytest.mark.rfc("ipae", "8.1")
def test_a_mapping_file_that_changes_counts_and_a_wrong_one_does_not(lab: Lab) -> None:
    write_map(lab, "r1", "201.5.7.0/24  c1.2.2.8", "9.9.9.0/24  c1.9.9.9")
    assert wait_until(lambda: entries(lab) == 2, 10)
    write_map(lab, "r1", "201.5.7.0/24  c1.2.2.8", "192.3.0.0/16  c1.9.9.9")
    time.sleep(1.5)
    assert entries(lab) == 2, "our own network was mapped elsewhere: refused whole"
    write_map(lab, "r1", "201.5.7.0/24  c1.2.2.8")
    assert wait_until(lambda: entries(lab) == 1, 10)
    said = lab["r1"].daemons["isthmus"].log.read_text(encoding="utf-8")
    assert re.search(r"MAPPING_REFUSED", said)
    assert "192.3.4.0/24 is here" in said
    assert "1 received" in ping(lab, "a", D)


def test_a_daemon_that_ends_leaves_nothing_behind(lab: Lab) -> None:
    assert "isthmus" in run_in(lab["n"].namespace, ["nft", "list", "tables"])
    assert lab["n"].daemons["isthmus"].stop() == 0
    assert run_in(lab["n"].namespace, ["nft", "list", "tables"]) == ""
    assert "sip0" not in run_in(lab["n"].namespace, ["ip", "-br", "link"])
    assert run_in(lab["n"].namespace, ["ip", "route", "show", "table", "local", "proto", "73"]) == ""
