# SPDX-License-Identifier: BSD-3-Clause
"""A wrong configuration names file, key and reason, and changes nothing."""

import copy
import tomllib
from pathlib import Path

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Owner
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind
from isthmus.daemon import config as configuration
from isthmus.daemon.gateway import border, policy, pool
from isthmus.daemon.terms import control_addresses, link_mtu
from isthmus.errors import ConfigError
from isthmus.wire.rsip.codes import Method

GATEWAY = tomllib.loads("""
[isthmus]
name = "gateway"
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
[[gateway.pool]]
prefix = "149.112.240.64/29"
""")


def changed(path, value):
    data = copy.deepcopy(GATEWAY)
    *parents, last = path
    at = data
    for each in parents:
        at = at[each]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return data


def test_a_right_file_becomes_a_border_and_a_pool():
    config = configuration.parse(GATEWAY, "gateway.toml")
    made = border(config)
    assert [each.name for each in made.realms] == ["private", "public"]
    assert made.tunnel_ends[0].address == Address.parse("10.0.0.1")
    assert pool(config).free_ports() == 10000
    assert pool(config).free_addresses() == 8


@pytest.mark.parametrize(
    ("path", "value", "key", "words"),
    [
        (("gateway", "address"), "10.0.0.300", "gateway.address", "10.0.0.300"),
        (("gateway", "address"), None, "gateway.address", "required"),
        (("gateway", "adress"), "10.0.0.1", "gateway.adress", "not a key"),
        (("gateway", "near"), "privat", "gateway.near", "private, public"),
        (("gateway", "realm"), "private", "gateway.realm", "another realm"),
        (("gateway", "pool", 0, "ports"), "10000-", "gateway.pool[0].ports", "10000-19999"),
        (("gateway", "pool", 0, "ports"), "0-70000", "gateway.pool[0].ports", "1 to 65535"),
        (("gateway", "pool", 0, "ports"), None, "gateway.pool[0].ports", "required"),
        (("gateway", "pool", 1, "ports"), "1-2", "gateway.pool[1].ports", "prefix"),
        (("gateway", "pool", 1, "prefix"), "149.112.240.48/28", "gateway.pool[1]", "another pool"),
        (("gateway", "pool", 1, "prefix"), "149.112.240.65/29", "gateway.pool[1].prefix", "host bits"),
        (("gateway", "slice_size"), 48, "gateway.slice_size", "power of two"),
        (("gateway", "lease"), {"default": 10}, "gateway.lease", "minimum"),
        (("realm", 1, "interface"), "lan0", "realm[1].interface", "already"),
        (("realm", 1, "name"), "private", "realm[1].name", "already"),
        (("isthmus", "plane"), "fast", "isthmus.plane", "kernel"),
        (("gateway",), None, "", "nothing to do"),
        (("gateway", "address"), ["10.0.0.1", "10.0.0.2"], "gateway.address", "one address of each family"),
        (("gateway", "address"), [], "gateway.address", "empty"),
        (("gateway", "address"), "fe80::1%eth0", "gateway.address", "link-local"),
        (("gateway", "tunnel_address"), "2001:db8::2", "gateway.tunnel_address", "IPv4 address too"),
        (("gateway", "endpoint"), "/run/isthmus/x.sock", "gateway.tunnel_address", "required"),
        (("gateway", "tunnels"), [], "gateway.tunnels", "at least 1"),
        (("gateway", "tunnels"), ["l2tp"], "gateway.tunnels[0]", "ipip"),
        (("gateway", "attract"), "route", "gateway.attract", "arp"),
        (("gateway", "pool", 0, "spis"), "wxyz", "gateway.pool[0].spis", "hexadecimal"),
        (("gateway", "pool", 0, "spis"), "20-ff", "gateway.pool[0].spis", "100 to ffffffff"),
        (("gateway", "pool", 0, "spis"), 4096, "gateway.pool[0].spis", "true"),
        (("gateway", "pool", 0, "ike"), True, "gateway.pool[0].ike", "spis"),
        (("gateway", "pool", 1, "spis"), True, "gateway.pool[1].spis", "prefix"),
        (("gateway", "client"), [{"network": "2001:db8::1/64"}], "gateway.client[0].network", "host bits"),
        (("gateway", "query"), {"local": ["10.0.0.0/8"], "remote": ["10.0.0.0/8"]}, "gateway.query.remote", "local"),
        (("gateway", "query"), {"local_names": ["a..b"]}, "gateway.query.local_names", "domain name"),
        (("gateway", "multicast"), {"groups": ["10.0.0.0/8"]}, "gateway.multicast.groups", "224.0.0.0/4"),
        (("gateway", "nat"), {"address": "149.112.240.55", "ports": "1-2"}, "gateway.nat.networks", "required"),
    ],
)
def test_an_error_names_file_key_and_reason(path, value, key, words):
    with pytest.raises(ConfigError) as caught:
        configuration.parse(changed(path, value), "gateway.toml")
    assert caught.value.path == "gateway.toml"
    assert caught.value.key == key
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("address", "ports", "key", "words"),
    [
        ("149.112.240.55", "15000-25000", "gateway.nat.ports", "15000-19999 of 149.112.240.55 may be leased"),
        ("149.112.240.65", "20000-29999", "gateway.nat.address", "leased whole"),
        ("149.112.240.55", "20000-29999,40000", "gateway.nat.ports", "one range"),
    ],
)
def test_ports_of_nat_and_of_a_pool_are_disjoint(address, ports, key, words):
    nat = {"address": address, "ports": ports, "networks": ["10.0.0.0/24"]}
    with pytest.raises(ConfigError, match=words) as caught:
        configuration.parse(changed(("gateway", "nat"), nat), "gateway.toml")
    assert caught.value.key == key


def test_a_pool_that_shares_port_500_by_cookie_does_not_lease_it():
    data = changed(("gateway", "pool", 0), {"address": "149.112.240.55", "ports": "500", "spis": True, "ike": True})
    with pytest.raises(ConfigError, match="500") as caught:
        configuration.parse(data, "gateway.toml")
    assert caught.value.key == "gateway.pool[0].ports"


def test_a_pool_for_ipsec_offers_spis_and_port_500():
    pools = [{"address": "149.112.240.55", "ports": "10000-19999", "spis": "1000-1fff,c0000000", "ike": True}]
    config = configuration.parse(changed(("gateway", "pool"), pools), "gateway.toml")
    claims = {each.kind: each.values for each in pool(config).claims}
    assert claims[Kind.SPI] == Ranges(((0x1000, 0x1FFF), (0xC0000000, 0xC0000000)))
    assert Kind.COOKIE in claims
    assert Method.RSIPSEC in policy(config).methods
    assert Method.RSIPSEC not in policy(configuration.parse(GATEWAY, "gateway.toml")).methods


def test_any_ports_are_computed_with_a_key_unless_they_are_to_be_random():
    def given(key, **choice):
        data = copy.deepcopy(GATEWAY)
        data["gateway"] |= choice
        one = pool(configuration.parse(data, "gateway.toml"), key)
        return one.take_ports(Owner(1, Address.parse("10.0.0.4")), ports=64, now=0.0).ports.pairs[0][0]

    keys = [bytes([number] * 32) for number in range(5)]
    computed = [given(key) for key in keys]
    assert computed == [given(key, choice="computed") for key in keys]
    assert len(set(computed)) > 1
    assert given(None) == 10048 + 64 * (Address.parse("10.0.0.4").number % 155)
    assert len({given(keys[0], choice="random") for _ in range(20)}) > 1


def test_a_near_realm_without_ipv4_needs_none():
    config = configuration.parse(changed(("gateway", "address"), "2001:db8::1"), "gateway.toml")
    assert [each.address for each in border(config).tunnel_ends] == [Address.parse("2001:db8::1")]
    assert {each.prefix.family for each in policy(config).clients} >= {Family.IPV6}


def test_one_address_of_each_family_and_tunnels_that_end_elsewhere():
    data = changed(("gateway", "address"), None)
    data["gateway"] |= {"addresses": ["10.0.0.1", "2001:db8::1"], "tunnel_address": ["10.0.0.9", "2001:db8::9"]}
    config = configuration.parse(data, "gateway.toml")
    assert [str(each) for each in control_addresses(config)] == ["10.0.0.1", "2001:db8::1"]
    assert sorted(str(each.address) for each in border(config).tunnel_ends) == ["10.0.0.9", "2001:db8::9"]


def test_the_tunnels_mtu_is_that_of_the_near_interface_unless_it_is_said():
    data = changed(("realm", 0, "interface"), "lo")
    assert link_mtu(configuration.parse(data, "gateway.toml")) == 65535, "of lo, as far as IP goes"
    data["gateway"]["tunnel_mtu"] = 1400
    assert link_mtu(configuration.parse(data, "gateway.toml")) == 1420


def test_what_is_told_to_who_asks_what_is_local():
    query = {"local": ["10.0.0.0/24", "10.9.0.1"], "remote_names": ["site-b.example"]}
    locality = policy(configuration.parse(changed(("gateway", "query"), query), "gateway.toml")).query
    assert locality.of_prefix(Prefix.parse("10.0.0.7")) is True
    assert locality.of_name("www.site-b.example") is False


def test_the_example_is_right():
    configuration.load(Path(__file__).parents[2] / "examples" / "gateway.toml")


def test_a_file_that_is_not_toml_or_not_there(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("[gateway\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad.toml: is not TOML.*line 1"):
        configuration.load(bad)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        configuration.load(tmp_path / "none.toml")
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        configuration.load(bad)
