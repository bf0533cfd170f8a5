# SPDX-License-Identifier: BSD-3-Clause
"""Groups that hosts join by the hundred cost a gateway memberships on the far side, and hardly any sockets."""

import contextlib
import os
import secrets
import socket
import struct
from pathlib import Path

import pytest

from isthmus.address import Address
from isthmus.checksum import checksum
from isthmus.daemon.membership import ROBUSTNESS
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting
from isthmus.wire.igmp import PROTOCOL, ROUTER_ALERT

HOSTS, EACH = ("host-a", "host-b"), 100
root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


def report(groups, *, wanted):
    """A version 3 report (RFC 3376 §4.2): to exclude nobody is to join, to include nobody is to leave."""
    kind = 4 if wanted else 3
    records = b"".join(struct.pack("!BBH4s", kind, 0, 0, each.octets) for each in groups)
    body = struct.pack("!BBHHH", 0x22, 0, 0, 0, len(groups)) + records
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


def say(node, groups, *, wanted):
    """Like a host: as often as the robustness variable says (RFC 3376 §5.1), lest one be lost."""

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL) as opened:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, ROUTER_ALERT)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            for _ in range(ROBUSTNESS):
                opened.sendto(report(groups, wanted=wanted), ("224.0.0.22", 0))

    node.inside(send)


def sockets(daemon):
    """Not pipes: while the gateway looks for rules of others it has some, to nft and back."""
    found = 0
    for each in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(each.readlink()).startswith("socket:")
    return found


def groups_of(number):
    first = Address.parse(f"239.1.{number}.0")
    return [Address(first.family, first.number + at) for at in range(EACH)]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.rfc("3102", "5.4")
@root
def test_hundreds_of_groups_are_joined_by_a_few_sockets():
    network = figure.network(f"t{secrets.token_hex(3)}", HOSTS)
    with standing(network) as lab:
        gateway = lab["gateway"]
        lines = '\n[gateway.multicast]\ngroups = ["239.1.0.0/16"]\n'
        daemon = gateway.up(figure.gateway_configuration(lab, Setting(), more=lines))
        before = sockets(daemon)

        def joined():
            shown = gateway.run("ip", "maddress", "show", "dev", "wan0").stdout
            return sum("239.1." in line for line in shown.splitlines())

        for number, name in enumerate(HOSTS):
            say(lab[name], groups_of(number), wanted=True)
        assert wait_until(lambda: joined() == len(HOSTS) * EACH, 30), joined()
        assert wait_until(lambda: sockets(daemon) - before < 20, 10), sockets(daemon) - before
        say(lab[HOSTS[0]], groups_of(0), wanted=False)
        assert wait_until(lambda: joined() == EACH, 30), joined()
