# SPDX-License-Identifier: BSD-3-Clause
"""A realm's interface may go and come again, as a leased device of a cascade does: the plane follows it."""

import os
import secrets

import pytest

from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.scenarios.two_hosts import holds_lease, start_server
from isthmus.lab.topology import NETNS

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]


def fetched(lab):
    done = lab["host-a"].run("curl", "--silent", "--max-time", "2", f"http://{figure.SERVER}/", check=False)
    return done.returncode == 0


def make_anew(lab):
    """The cable between gateway and server, with what stood on it."""
    gateway, server = lab["gateway"], lab["server"]
    gateway.run("ip", "link", "delete", "wan0")
    other = str(NETNS / server.namespace)
    gateway.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "eth0", "netns", other)
    for node, interface, address in ((gateway, "wan0", f"{figure.SHARED}/32"), (server, "eth0", f"{figure.SERVER}/24")):
        node.run("ethtool", "--offload", interface, "tx", "off", check=False)
        node.run("ip", "address", "add", address, "dev", interface)
        node.run("ip", "link", "set", interface, "up")
    gateway.run("ip", "route", "add", figure.FAR, "dev", "wan0", "src", figure.SHARED)
    server.run("ip", "route", "add", figure.SHARED, "dev", "eth0")


@pytest.mark.parametrize("plane", ["kernel", "reference"])
def test_a_plane_follows_an_interface_that_was_made_anew(plane):
    with standing(figure.network(f"t{secrets.token_hex(3)}", ("host-a",))) as lab:
        start_server(lab)
        setting = Setting(plane=plane)
        lab["gateway"].up(figure.gateway_configuration(lab, setting))
        lab["host-a"].up(figure.host_configuration(lab, setting, "host-a"))
        assert wait_until(lambda: holds_lease(lab, "host-a"), 10)
        assert wait_until(lambda: fetched(lab), 10)
        make_anew(lab)
        assert wait_until(lambda: fetched(lab), 20), lab["gateway"].daemons["isthmus"].tail()
