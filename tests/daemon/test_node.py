# SPDX-License-Identifier: BSD-3-Clause
"""A host that speaks SIP for its programs, among neighbours of each kind on one link, on the reference plane.

::

    old  10.0.0.6 ---+
                     +--- one wire, site 1.2.2.8
    new  10.0.0.5 ---+    its programs have IPv6 sockets
    two  10.0.0.7 ---+    likewise; speaks SIP to its neighbours as it is
    four 10.0.0.8 ---+    IPv4 sockets, and an alias for ``two``
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator

import pytest

from daemon.test_border import CALL, SERVICE
from isthmus.address import Address
from isthmus.daemon.control import call
from isthmus.ipae.neutral import Sockets
from isthmus.lab.lab import Lab, standing
from isthmus.lab.node import ISTHMUS
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, Network, NodePlan

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
HOSTS = {"old": "10.0.0.6", "new": "10.0.0.5", "two": "10.0.0.7", "four": "10.0.0.8"}
ALIAS_OF_TWO = "100.64.171.218"
ALIAS = f"""[node.alias]
pools = ["100.64.0.0/16"]
[[node.alias.fixed]]
alias = "{ALIAS_OF_TWO}"
address = "1.2.2.8/{HOSTS["two"]}"
"""


def name_of(host: str, c: str = "") -> str:
    """What programs call a host: an IPv6 address."""
    return str(Sockets().name_of(Address.parse_sip(f"{c}1.2.2.8/{HOSTS[host]}")))


def network() -> Network:
    plug = tuple(
        Cable(
            End(node=name, interface="eth0", addresses=(f"{address}/24",)),
            End(node="wire", interface=f"to-{name}"),
        )
        for name, address in HOSTS.items()
    )
    plans = tuple(NodePlan(name=name, sysctls=OPEN_FORWARDING) for name in HOSTS)
    return Network(name=f"n{secrets.token_hex(3)}", nodes=(*plans, NodePlan(name="wire", segment=True)), cables=plug)


def configuration(lab: Lab, name: str, *more: str) -> str:
    run = lab[name].run_directory
    lines = (
        f'[isthmus]\nname = "{name}"\nrun = "{run}"\nplane = "reference"',
        '[[realm]]\nname = "link"\ninterface = "eth0"',
        f'[node]\naddress = "1.2.2.8/{HOSTS[name]}"\nnear = "link"',
        *more,
    )
    return "\n".join((*lines, ""))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(network()) as made:
        made["new"].up(configuration(made, "new", 'ipv4 = "programs"'))
        made["two"].up(configuration(made, "two", 'neighbours = "native"', 'ipv4 = "programs"'))
        made["four"].up(configuration(made, "four", 'sockets = "ipv4"', ALIAS))
        for name, family in (("old", "4"), ("new", "6"), ("two", "6")):
            made[name].start("service", ISTHMUS[0], "-c", SERVICE, family, ready="ready")
        yield made


def talk(lab: Lab, node: str, where: str) -> None:
    assert "1 received" in lab[node].run("ping", "-c1", "-W3", where, check=False).stdout
    done = lab[node].run(sys.executable, "-c", CALL, where, seconds=40)
    assert done.stdout.splitlines() == ["TCP True", *(f"UDP {size} True" for size in (1, 500, 1472, 4000))]


@pytest.mark.rfc("ipae", "4.5.1")
def test_programs_hear_a_host_of_the_site_that_knows_ipv4_only(lab: Lab) -> None:
    talk(lab, "old", HOSTS["new"])


@pytest.mark.rfc("ipae", "4.5.1")
def test_and_call_it(lab: Lab) -> None:
    talk(lab, "new", name_of("old", "c"))


@pytest.mark.rfc("ipae", "3.4")
def test_one_host_speaks_sip_in_ipv4_and_is_answered_in_sip_alone(lab: Lab) -> None:
    talk(lab, "new", name_of("two"))
    talk(lab, "two", name_of("new"))
    for name in ("new", "two"):
        counts = call(lab[name].socket_path, {"do": "counters"})
        assert counts["TRANSLATED_TO_SIP"] > 100
        assert counts["TRANSLATED_FROM_SIP"] > 100


@pytest.mark.rfc("ipae", "4.5.1")
def test_an_alias_is_as_far_away_as_the_host_that_it_stands_for(lab: Lab) -> None:
    talk(lab, "four", ALIAS_OF_TWO)
    assert "ttl=64 " in lab["four"].run("ping", "-c1", "-W3", ALIAS_OF_TWO).stdout
    (alias,) = call(lab["four"].socket_path, {"do": "aliases"})
    assert (alias["alias"], alias["address"], alias["until"]) == (ALIAS_OF_TWO, f"1.2.2.8/{HOSTS['two']}", None)


def test_what_no_prefix_of_ours_has_is_refused_at_once_and_not_sent_anywhere(lab: Lab) -> None:
    """A browser asks for IPv6 addresses only if a socket can be connected to the IPv6 Internet."""
    script = (
        "import errno, socket\n"
        "with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as box:\n"
        "    box.connect(('2001:db8::1', 53))\n"
        "with socket.socket(socket.AF_INET6) as call:\n"
        "    call.settimeout(5)\n"
        "    print(errno.errorcode[call.connect_ex(('2001:db8::1', 53))])\n"
    )
    assert lab["new"].run(ISTHMUS[0], "-c", script).stdout.strip() in ("ENETUNREACH", "EHOSTUNREACH")


def test_a_node_says_who_it_is(lab: Lab) -> None:
    said = call(lab["new"].socket_path, {"do": "status"})
    assert said["role"] == "node"
    assert said["address"] == "1.2.2.8/10.0.0.5"
    assert said["known_as"][0] == name_of("new")
    assert said["mtu"] == 1496


def test_the_kernel_counts_no_checksum_error(lab: Lab) -> None:
    for name in HOSTS:
        errors = {
            line.split()[0]: int(line.split()[1])
            for line in lab[name].run("nstat", "-asz").stdout.splitlines()
            if "CsumError" in line or "InCsumErrors" in line
        }
        assert errors
        assert not any(errors.values()), (name, errors)
