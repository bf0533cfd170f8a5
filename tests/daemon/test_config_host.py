# SPDX-License-Identifier: BSD-3-Clause
"""``[host]`` and ``[[host.lease]]``: what is understood, and what is refused with file, key and reason."""

import pytest

from isthmus.border.ranges import Ranges
from isthmus.daemon.config import parse
from isthmus.daemon.config.host import identity_of
from isthmus.errors import ConfigError


def config(*leases, **host):
    realm = {"name": "private", "interface": "eth0"}
    section = {"near": "private", "gateway": "10.0.0.1", **host, "lease": list(leases)}
    return parse({"realm": [realm], "host": section}, "host.toml").host


def test_the_usual_values():
    host = config({})
    (lease,) = host.lease
    assert (lease.wanted_ports, lease.device, lease.is_ephemeral) == (64, "rsip0", True)
    assert (host.tunnels, host.tunnel_type, host.transport) == ("plane", None, "udp")


@pytest.mark.parametrize(
    ("lease", "ports", "ephemeral"),
    [
        ({"ports": 8}, 8, True),
        ({"ports": "10000-10003"}, Ranges.of((10000, 10003)), True),
        ({"listen": True}, 1, False),
        ({"listen": True, "ports": "8080"}, Ranges.of(8080), False),
        ({"spis": 4}, None, True),
        ({"spis": 4, "ports": 16}, 16, True),
        ({"whole": True}, None, True),
        ({"identity": "fqdn:a.example"}, None, True),
        ({"remote": "192.0.2.1"}, 64, False),
        ({"remote": "www.example", "ephemeral": True}, 64, True),
    ],
)
def test_what_a_lease_asks_for(lease, ports, ephemeral):
    (read,) = config(lease).lease
    assert (read.wanted_ports, read.is_ephemeral) == (ports, ephemeral)


def test_spis_are_a_number_or_hexadecimal():
    assert config({"spis": 16}).lease[0].spis == 16
    assert config({"spis": "10000-10fff,20000"}).lease[0].spis == Ranges.of((0x10000, 0x10FFF), 0x20000)


def test_a_lease_cannot_live_on_the_interface_that_leads_to_the_gateway():
    with pytest.raises(ConfigError, match=r"host\.lease\[0\]\.device: 'eth0' is the interface of a"):
        config({"device": "eth0"})


def test_a_misspelt_table_is_named_before_what_is_missing_for_it():
    with pytest.raises(ConfigError, match=r"gatway: is not a key"):
        parse({"realm": [{"name": "private", "interface": "eth0"}], "gatway": {}, "host": {"near": "private", "lease": 1}},
              "host.toml")  # fmt: skip


def test_a_gateway_may_be_of_ipv6():
    assert str(config(gateway="2001:db8::1").gateway) == "2001:db8::1"


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ("fqdn:a.example", 2, b"a.example"),
        ("user:me@a.example", 3, b"me@a.example"),
        ("address:192.0.2.1", 1, b"\xc0\0\2\1"),
        ("key:secret", 11, b"secret"),
    ],
)
def test_identities(text, kind, data):
    assert identity_of(text) == (kind, data)


@pytest.mark.parametrize(
    ("lease", "key", "reason"),
    [
        ({"ports": 0}, "ports", "1 to 255"),
        ({"spis": 0}, "spis", "1 to 65535"),
        ({"spis": "ff"}, "spis", "100 to ffffffff"),
        ({"spis": True}, "spis", "how many"),
        ({"listen": True, "whole": True}, "lease", "do not go together"),
        ({"listen": True, "spis": 1}, "lease", "do not go together"),
        ({"whole": True, "ports": 4}, "lease", "do not go with whole"),
        ({"identity": "fqdn:a", "ports": 4}, "lease", "do not go with identity"),
        ({"remote_port": 80}, "lease", "needs remote"),
        ({"identity": "a.example"}, "identity", "fqdn:a.example"),
        ({"identity": "address:here"}, "identity", "here"),
    ],
)
def test_what_is_refused(lease, key, reason):
    with pytest.raises(ConfigError) as raised:
        config(lease)
    assert raised.value.path == "host.toml"
    assert key in raised.value.key
    assert reason in raised.value.reason


@pytest.mark.parametrize("host", [{"tunnels": "magic"}, {"tunnel_type": "l2tp"}, {"gateway": "fe80::1%eth0"}])
def test_what_is_refused_of_the_host(host):
    with pytest.raises(ConfigError) as raised:
        config({}, **host)
    assert next(iter(host)) in raised.value.key
