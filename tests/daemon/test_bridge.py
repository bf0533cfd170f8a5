# SPDX-License-Identifier: BSD-3-Clause
"""RSIP spoken over SIP by IPv6 sockets, at both ends: to RSIP it is a network like any other (issue 4, the bridge).

::

    sip  1.2.2.8/10.0.0.7 ─── SIP only ─── edge ─── 128.1.1 ─── gateway  1.3.3.3/128.1.1.5
                                                       └─ www 128.1.1.80, IPv4 only

``gateway`` is an IPAE host and an RSIP gateway; its hosts are known to it by all 64 bits.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from isthmus.address import Address
from isthmus.lab.capture import capturing
from isthmus.lab.edge import IPV6
from isthmus.lab.hops import socket_address
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import wait_until
from isthmus.lab.stock import fetch, requests_of, start_web
from isthmus.lab.topology import OPEN_FORWARDING, Network, NodePlan, wire
from isthmus.lab.traffic import check_sums, check_tcp, check_udp, url
from isthmus.lab.web import read_log
from isthmus.wire.sip.header import SipView
from isthmus.wire.transport import Protocol

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
HOST, GATEWAY = "1.2.2.8/10.0.0.7", "1.3.3.3/128.1.1.5"
LEASED, SERVER, PUBLISHED = "128.1.1.77", "128.1.1.80", 20080
ROUTER = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}


def known_as(address: str, *, to: str) -> str:
    """What IPv6 sockets call a SIP system."""
    return str(socket_address(Address.parse_sip(address), Address.parse_sip(to)))


def network() -> Network:
    return Network(
        name=f"t{secrets.token_hex(3)}",
        nodes=(
            NodePlan(name="sip", sysctls=OPEN_FORWARDING | IPV6),
            NodePlan(name="edge", sysctls=ROUTER),
            NodePlan(name="internet", segment=True),
            NodePlan(name="gateway", sysctls=ROUTER | IPV6),
            NodePlan(name="www"),
        ),
        cables=(
            wire(("sip", "eth0"), ("edge", "lan0", "10.0.0.1/8")),
            wire(("edge", "wan0", "128.1.1.3/24"), ("internet", "edge")),
            wire(("gateway", "wan0", "128.1.1.5/24"), ("internet", "gateway")),
            wire(("www", "eth0", f"{SERVER}/24"), ("internet", "www")),
        ),
    )


CONFIGURATIONS = {
    "edge": """
[[realm]]
name = "site"
interface = "lan0"
site = "1.2.2.8"
[[realm]]
name = "internet"
interface = "wan0"
[border]
address = "1.2.2.8/10.0.0.1"
milestone = "R"
[[border.route]]
to = "1.2.2.8"
c = 0
via = { native = "site" }
[[border.route]]
to = "1.3.3.3"
via = { ipae = "128.1.1.5" }
""",
    "gateway": f"""
[[realm]]
name = "internet"
interface = "wan0"
[[realm]]
name = "programs"
interface = "sip0"
[node]
address = "{GATEWAY}"
near = "internet"
device = "sip0"
[[node.route]]
to = "1.2.2.8"
via = {{ ipae = "128.1.1.3" }}
[gateway]
near = "programs"
realm = "internet"
address = "{known_as(GATEWAY, to=HOST)}"
[[gateway.pool]]
address = "{LEASED}"
ports = "20000-20999"
""",
    "sip": f"""
[[realm]]
name = "link"
interface = "eth0"
[[realm]]
name = "programs"
interface = "sip0"
[node]
address = "{HOST}"
profile = "sip-only"
near = "link"
border = "10.0.0.1"
device = "sip0"
[host]
near = "programs"
gateway = "{known_as(GATEWAY, to=HOST)}"
[[host.lease]]
ports = 16
routes = ["128.1.1.0/24"]
[[host.lease]]
ports = "{PUBLISHED}"
listen = true
""",
}


def configuration(lab: Lab, name: str, plane: str) -> str:
    general = f'[isthmus]\nname = "{name}"\nrun = "{lab[name].run_directory}"\nplane = "{plane}"\n'
    return general + CONFIGURATIONS[name]


@pytest.fixture(scope="module", params=["reference", "kernel"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with standing(network()) as made:
        start_web(made["www"], ipv6=False)
        for together in (("edge", "gateway"), ("sip",)):
            with ThreadPoolExecutor(len(together)) as pool:
                list(pool.map(lambda name: made[name].up(configuration(made, name, request.param)), together))
        assert wait_until(lambda: len(made["sip"].isthmus("leases")) == 2, 15, every=0.1), made.logs()
        yield made


def test_a_gateway_knows_its_host_by_all_of_its_address(lab: Lab) -> None:
    assert {row["host"] for row in lab["gateway"].isthmus("leases")} == {known_as(HOST, to=GATEWAY)}


@pytest.mark.rfc("3102", "2")
def test_its_programs_have_the_leased_address_on_the_server_too(lab: Lab) -> None:
    with capturing(lab["sip"], "eth0") as seen:
        done = lab["sip"].run(*fetch(url(SERVER, "/who"), "--write-out", "%{local_ip} %{local_port}"))
    assert done.stdout.splitlines()[-1].startswith(f"{LEASED} ")
    assert [f"{row['peer']} {row['port']}" for row in read_log(requests_of(lab["www"])) if row["path"] == "/who"] == [
        done.stdout.splitlines()[-1]
    ]
    types = [SipView.parse(each.octets).payload_type for each in seen.packets]
    assert types
    assert set(types) <= {Protocol.IPIP, Protocol.UDP}, "RSIP and its tunnel, in SIP"


def test_large_and_small(lab: Lab) -> None:
    for check in (check_tcp(lab["sip"], SERVER, "sip"), check_udp(lab["sip"], SERVER, "sip")):
        assert check.ok, check.detail
    sums = check_sums(lab["sip"], lab["www"])
    assert sums.ok, sums.detail


@pytest.mark.rfc("3103", "9.16")
def test_it_is_called_from_the_internet(lab: Lab) -> None:
    folder = lab["sip"].directory / "pages"
    folder.mkdir()
    page = (sys.executable, "-m", "http.server", str(PUBLISHED), "--directory", str(folder))
    server = lab["sip"].start("page", *page, ready="Serving HTTP")
    lab["www"].run(*fetch(url(LEASED, "/", PUBLISHED), "--fail"))
    assert f"{SERVER} - - " in server.tail()
