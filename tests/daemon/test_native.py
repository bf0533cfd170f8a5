# SPDX-License-Identifier: BSD-3-Clause
"""A host whose tunnels are its kernel's own, in User Mode Linux: nothing of ours is in the way of a packet."""

import os
import secrets

import pytest

from isthmus.lab import figure, uml
from isthmus.lab.lab import standing
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import OPEN_FORWARDING, Cable, End, Network, NodePlan
from isthmus.lab.uml import Plug

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
    pytest.mark.skipif(bool(uml.missing()), reason=f"User Mode Linux: {uml.missing()}"),
]
AUTO = Setting(plane="auto")
MODULES = ("tunnel4", "ip_tunnel", "ipip", "gre", "ip_gre", "tunnel6", "ip6_tunnel", "ip6_gre")
SOCKET = "/run/isthmus/host.sock"
NEAR6, HOST6 = "fd00:1::1", "fd00:1::4"


def network(name):
    nodes = [
        NodePlan(
            name="gateway",
            routes=(f"{figure.FAR} dev wan0 src {figure.SHARED}",),
            sysctls=OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"},
        ),
        NodePlan(name="server", routes=(f"{figure.SHARED} dev eth0", f"{figure.PUBLIC} via {figure.SHARED} dev eth0")),
        NodePlan(name="guests"),
    ]
    cables = [
        Cable(
            End(node="gateway", interface="lan0", addresses=(f"{figure.GATEWAY_NEAR}/24",), offload=False),
            End(node="guests", interface="host", offload=False),
        ),
        Cable(
            End(node="gateway", interface="wan0", addresses=(f"{figure.SHARED}/32",), offload=False),
            End(node="server", interface="eth0", addresses=(f"{figure.SERVER}/24",), offload=False),
        ),
        uml.management("guests"),
    ]
    return Network(name=name, nodes=tuple(nodes), cables=tuple(cables))


@pytest.fixture(scope="module")
def lab():
    with standing(network(f"t{secrets.token_hex(3)}")) as made:
        machines = uml.boot(made["guests"], [Plug(machine="host", interface="host", address="10.0.0.4/24")], MODULES)
        made["server"].start("web", ISTHMUS[0], "-m", "isthmus.lab.web", "/dev/null", ready="ready")
        made.host = machines["host"]
        made["gateway"].run("sysctl", "-qw", "net.ipv6.conf.lan0.disable_ipv6=0")
        made["gateway"].run("ip", "addr", "add", f"{NEAR6}/64", "dev", "lan0", "nodad")
        made.host.ip(f"addr add {HOST6}/64 dev eth0 nodad")
        yield made


def up(lab, *, near="10.0.0.1", of_gateway="", of_host=""):
    lab.host.stop("isthmus")
    if "isthmus" in lab["gateway"].daemons:
        lab["gateway"].daemons["isthmus"].stop()
    text = figure.gateway_configuration(lab, AUTO, state="memory:", more=of_gateway)
    lab["gateway"].up(text.replace(f'address = "{figure.GATEWAY_NEAR}"', f'address = "{near}"'))
    lab.host.up(f"""\
[isthmus]
name = "host"
run = "/run/isthmus"
[[realm]]
name = "private"
interface = "eth0"
[host]
near = "private"
gateway = "{near}"
tunnels = "native"
{of_host}
[[host.lease]]
ports = 16
routes = ["{figure.FAR}"]
""")
    assert wait_until(lambda: held(lab), 10)
    return held(lab)[0]


def held(lab):
    return lab.host.isthmus("leases", socket_path=SOCKET)


def page(lab):
    return lab.host.run("curl", "--silent", "--show-error", "--max-time", "8", f"http://{figure.SERVER}/").stdout


def test_nothing_of_ours_carries_packets_and_programs_have_the_lease(lab):
    lease = up(lab)
    assert f"You are {figure.SHARED}" in page(lab)
    first, last = lease["ports"].split("-")
    assert lab.host.run("cat", "/proc/sys/net/ipv4/ip_local_port_range").stdout.split() == [first, last]
    links = lab.host.run("ip", "-o", "link").stdout
    assert "rsip0p" not in links, "no veth pair"
    assert lab.host.isthmus("counters", socket_path=SOCKET)["FORWARDED_OUTWARD"] == 0
    lab.host.stop("isthmus")
    assert "rsip0" not in lab.host.run("ip", "-o", "link").stdout
    assert "4555:" not in lab.host.run("ip", "rule").stdout


@pytest.mark.parametrize(
    ("near", "of_gateway", "of_host", "device", "mtu"),
    [
        ("10.0.0.1", "", "", "ipip", 1480),
        ("10.0.0.1", "", 'tunnel_type = "gre"', "gre", 1476),
        ("10.0.0.1", "gre_checksum = true", 'tunnel_type = "gre"\ngre_checksum = true', "gre", 1472),
        (NEAR6, "", "", "ip6tnl", 1460),
        (NEAR6, "", 'tunnel_type = "gre"', "ip6gre", 1456),
    ],
    ids=["ipip", "gre", "gre-checksum", "ipip-over-ipv6", "gre-over-ipv6"],
)
def test_every_tunnel_has_a_device_of_the_kernel(lab, near, of_gateway, of_host, device, mtu):
    up(lab, near=near, of_gateway=of_gateway, of_host=of_host)
    shown = lab.host.run("ip", "-d", "link", "show", "rsip0").stdout
    assert device in shown
    assert f"mtu {mtu}" in shown
    assert f"You are {figure.SHARED}" in page(lab)
