# SPDX-License-Identifier: BSD-3-Clause
"""A host on an IPv6-only network: control channel and tunnel over IPv6, leases of IPv4 (seed RSIP 4.3)."""

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
GATEWAY, HOST = "2001:db8::1", "2001:db8::4"


@pytest.fixture(scope="module")
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as made:
        for node, interface, address in (("gateway", "lan0", GATEWAY), ("host-a", "eth0", HOST)):
            made[node].run("sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=0")
            made[node].run("ip", "-4", "addr", "flush", "dev", interface)
            made[node].run("ip", "addr", "add", f"{address}/64", "dev", interface, "nodad")
        text = figure.gateway_configuration(made, AUTO, state="memory:")
        made["gateway"].up(text.replace(f'address = "{figure.GATEWAY_NEAR}"', f'address = "{GATEWAY}"'))
        made["server"].start("web", ISTHMUS[0], "-m", "isthmus.lab.web", "/dev/null", ready="ready")
        yield made


FETCH = ("curl", "--silent", "--show-error", "--max-time", "8", f"http://{figure.SERVER}/")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(("tunnel", "mtu"), [("ipip", 1460), ("gre", 1456)])
def test_a_daemon_leases_and_its_programs_reach_ipv4(lab, transport, tunnel, mtu):
    host = lab["host-a"]
    if "isthmus" in host.daemons:
        host.daemons["isthmus"].stop()
    text = figure.host_configuration(lab, AUTO, "host-a", ports=16).replace(figure.GATEWAY_NEAR, GATEWAY)
    more = f'near = "private"\ntransport = "{transport}"\ntunnel_type = "{tunnel}"\n'
    host.up(text.replace('near = "private"\n', more))
    assert wait_until(lambda: call(host.socket_path, {"do": "leases"}), 10)
    (row,) = call(host.socket_path, {"do": "leases"})
    assert (row["host"], row["endpoint"], row["mtu"]) == (HOST, GATEWAY, mtu)
    assert f"You are {figure.SHARED}" in host.run(*FETCH).stdout
    assert lab["gateway"].isthmus("leases")[0]["host"] == HOST
    assert host.run("ip", "-4", "-o", "addr", "show", "dev", "eth0").stdout == ""


def test_a_program_without_a_daemon(lab):
    host = lab["host-a"]
    if "isthmus" in host.daemons:
        host.daemons["isthmus"].stop()
    done = host.run(*ISTHMUS, "run", "--gateway", GATEWAY, "--show", "--", *FETCH)
    assert f"You are {figure.SHARED}" in done.stdout
    assert wait_until(lambda: lab["gateway"].isthmus("leases") == [], 15)
