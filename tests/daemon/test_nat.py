# SPDX-License-Identifier: BSD-3-Clause
"""NAT beside the leases: what is written, and what is found to be wrong."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from ipaddress import IPv4Address

import pytest

from isthmus.daemon import config as configuration
from isthmus.daemon import nat

TEXT = """
[isthmus]
name = "natted"
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
[[gateway.pool]]
address = "149.112.240.55"
ports = "10000-19999"
spis = true
ike = true
[[gateway.pool]]
prefix = "149.112.240.64/29"
[gateway.nat]
address = "149.112.240.55"
ports = "20000-29999"
networks = ["10.0.0.0/24", "10.1.0.0/24"]
"""
GATEWAY = tomllib.loads(TEXT)
SHARED = IPv4Address("149.112.240.55")
root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nftables")


@pytest.fixture
def config():
    return configuration.parse(GATEWAY, "gateway.toml")


def rule(*statements, table="home", chain="out", family="ip"):
    return {"rule": {"family": family, "table": table, "chain": chain, "handle": 7, "expr": list(statements)}}


def leaving(name, op="=="):
    return {"match": {"op": op, "left": {"meta": {"key": "oifname"}}, "right": name}}


def found(config, monkeypatch, *rules, own=(SHARED,)):
    monkeypatch.setattr(nat, "_listed", lambda: list(rules))
    return [each.what for each in nat.foreign_rules(config, "wan0", frozenset(own))]


def test_private_sources_go_to_ports_that_no_pool_has(config):
    text = nat.ruleset(config)
    assert "snat to 149.112.240.55:20000-29999" in text
    assert 'oifname "wan0" ip saddr { 10.0.0.0/24, 10.1.0.0/24 }' in text
    assert "masquerade" not in text


def test_what_is_leased_is_not_tracked(config):
    text = nat.ruleset(config)
    for side, port in (("saddr", "sport"), ("daddr", "dport")):
        assert f"ip {side} 149.112.240.55 meta l4proto {{ tcp, udp }} th {port} {{ 500, 10000-19999 }} notrack" in text
        assert f"ip {side} 149.112.240.64/29 notrack" in text
        assert f"ip {side} 149.112.240.55 meta l4proto {{ esp, ah }} notrack" in text


@root
def test_an_address_for_ipsec_only_has_no_ports_that_could_be_tracked():
    text = TEXT.replace('ports = "10000-19999"\nspis = true\nike = true', "spis = true")
    ipsec_only = configuration.parse(tomllib.loads(text), "gateway.toml")
    assert "th sport {" not in nat.ruleset(ipsec_only)
    # nft writes names where the machine has /etc/protocols, and numbers elsewhere.
    assert re.search(r"meta l4proto \{ (esp, ah|50, 51|50-51) \} notrack", nat.wanted(ipsec_only))


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (({"masquerade": None},), "may masquerade to 149.112.240.55 port 500,10000-19999"),
        (({"masquerade": {"port": {"range": [19000, 30000]}}},), "port 19000-19999"),
        (({"snat": {"addr": "149.112.240.55", "port": 10000}},), "may translate to 149.112.240.55 port 10000"),
        (({"snat": {"addr": {"range": ["149.112.240.54", "149.112.240.56"]}}},), "149.112.240.55 port"),
        (({"snat": {"addr": {"prefix": {"addr": "149.112.240.64", "len": 32}}}},), "149.112.240.64 port 1-65535"),
        (({"xt": None},), "a rule of iptables"),
        ((leaving("wan0"), {"masquerade": None}), "may masquerade"),
        ((leaving("lan0", "!="), {"masquerade": None}), "may masquerade"),
    ],
)
def test_rules_of_others_that_may_use_leased_ports_are_found(config, monkeypatch, statements, words):
    whats = found(config, monkeypatch, rule(*statements))
    assert len(whats) == 1
    assert words in whats[0]


@pytest.mark.parametrize(
    "made",
    [
        rule({"masquerade": {"port": {"range": [30000, 40000]}}}),
        rule({"snat": {"addr": "149.112.240.55", "port": {"range": [20000, 29999]}}}),
        rule({"snat": {"addr": "192.0.2.1"}}),
        rule(leaving("lan0"), {"masquerade": None}),
        rule(leaving("wan0", "!="), {"masquerade": None}),
        rule({"masquerade": None}, family="ip6"),
        rule({"snat": {"addr": "149.112.240.55"}}, table="isthmus_nat_natted"),
        rule({"counter": {}}, {"accept": None}),
        {"table": {"name": "home"}},
    ],
)
def test_rules_of_others_that_do_not_are_left_alone(config, monkeypatch, made):
    assert found(config, monkeypatch, made) == []


def test_masquerade_hurts_only_where_the_address_is_the_interfaces_own(config, monkeypatch):
    assert found(config, monkeypatch, rule({"masquerade": None}), own=[IPv4Address("192.0.2.1")]) == []


@pytest.mark.parametrize(
    ("drawn", "reserved", "own", "words"),
    [
        ("32768 60999", "", True, None),
        ("15000 60999", "", True, "port 15000-19999"),
        ("15000 60999", "10000-19999", True, None),
        ("15000 60999", "16000-19999", True, "port 15000-15999"),
        ("15000 60999", "", False, None),
    ],
)
def test_ephemeral_ports_of_the_gateway_itself(config, monkeypatch, drawn, reserved, own, words):
    settings = {"ip_local_port_range": drawn, "ip_local_reserved_ports": reserved}
    monkeypatch.setattr(nat, "_setting", settings.get)
    faults = list(nat.ephemeral_faults(config.gateway, frozenset({SHARED} if own else ())))
    assert len(faults) == (words is not None)
    if words:
        assert words in faults[0].what
        assert "ip_local_reserved_ports" in faults[0].remedy


@pytest.mark.root
@root
def test_the_kernel_says_back_what_is_wanted_and_what_differs(config):
    """In a network namespace of its own, entered by a child."""
    script = """
import sys, tomllib
from isthmus.daemon import config as configuration, nat
config = configuration.parse(tomllib.loads(sys.stdin.read()), "x")
print(*(each.what for each in nat._table_faults(config)), sep="|")
nat.apply(config)
print(*(each.what for each in nat._table_faults(config)), sep="|")
nat._nft("flush", "chain", "ip", nat.table_name(config), "only")
nat._nft("add", "rule", "ip", nat.table_name(config), "only", "accept")
print(*(each.what for each in nat._table_faults(config)), sep="|")
nat.apply(config)
nat.apply(config)
print(*(each.what for each in nat._table_faults(config)), sep="|")
nat.remove(config)
nat.remove(config)
print(nat.standing(config))
"""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", script],
        input=TEXT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    none, right, wrong, again, gone = done.stdout.splitlines()
    assert none == "the table isthmus_nat_natted is not there"
    assert right == again == gone == ""
    assert "isthmus_nat_natted lacks: oifname" in wrong
    assert "has what does not belong there: accept" in wrong
