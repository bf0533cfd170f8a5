# SPDX-License-Identifier: BSD-3-Clause
"""A wrong configuration names file, key and reason, and changes nothing."""

import copy
import tomllib

import pytest

from isthmus.address import Address
from isthmus.daemon import config as configuration
from isthmus.daemon.gateway import border, pool
from isthmus.errors import ConfigError

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
    ],
)
def test_an_error_names_file_key_and_reason(path, value, key, words):
    with pytest.raises(ConfigError) as caught:
        configuration.parse(changed(path, value), "gateway.toml")
    assert caught.value.path == "gateway.toml"
    assert caught.value.key == key
    assert words in str(caught.value)


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
