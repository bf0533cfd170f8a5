# SPDX-License-Identifier: BSD-3-Clause
"""Route dumps of both forms, and the population that comes of them."""

import bz2
import gzip
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.errors import ConfigError, Unsupported
from isthmus.sim.attachment import populate
from isthmus.sim.dump import UNKNOWN, read_dump, read_registry
from sim import mrt

TEXT = """\
# prefix origin path
192.0.2.0/24 65001 64500 64510 65001 65001
192.0.2.0/24 65001 64501 64511 65001
198.51.100.0/24 AS65002 64500 64510 65002   # one provider
203.0.113.0/24 65003

2001:db8::/32 65001 64510 65001
0.0.0.0/0 65001
"""
ROUTES = [
    ("192.0.2.0/24", [[64500, 64510, 65001, 65001], [64501, 64511, 65001]]),
    ("198.51.100.0/24", [[64500, 64510, 65002]]),
    ("203.0.113.0/24", [[65003]]),
    ("2001:db8::/32", [[64510, 65001]]),
    ("0.0.0.0/0", [[65001]]),
]
WAYS = {
    (0xC0000200, 24): ((65001, 64510), (65001, 64511)),
    (0xC6336400, 24): ((65002, 64510),),
    (0xCB007100, 24): ((65003, UNKNOWN),),
}


def written(path, octets):
    path.write_bytes(octets)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
@pytest.mark.parametrize("octets", [TEXT.encode(), mrt.dump(ROUTES)], ids=["text", "mrt"])
def test_both_forms_say_the_same_packed_or_not(tmp_path, octets, pack):
    assert read_dump(written(tmp_path / "dump", pack(octets))).ways == WAYS


@pytest.mark.rfc("6396", "4.3")
def test_the_origin_of_a_path_that_ends_with_a_set_stands_before_it(tmp_path):
    dump = mrt.dump([("192.0.2.0/24", [[64500, 65001, {65008, 65009}], [{65008}]])])
    assert read_dump(written(tmp_path / "dump", dump)).ways == {(0xC0000200, 24): ((65001, 64500),)}


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"192.0.2.0/24\n", "line 1: '192.0.2.0/24' has no origin"),
        (b"\n192.0.2.1/24 1\n", "line 2: .* bits set beyond"),
        (b"192.0.2.0/33 1\n", "line 1: /33"),
        (b"192.0.2.0/24 many\n", "'many' is no AS number"),
        (b"192.0.2.0/24 0\n", "'0' is no AS number"),
        (b"192.0.2.0/24 4294967296\n", "no AS number"),
        (b"192.0.2.0/24 7 1 2 3\n", "ends with AS 3 and not with the origin, AS 7"),
        (b"", "no IPv4 route"),
        (b"2001:db8::/32 1\n", "no IPv4 route"),
        (b"\xff\xfe\x00\x01\xff\xff\xff", "neither MRT"),
        (mrt.dump(ROUTES)[:-3], "record 6: Invalid MRT data length"),
        (mrt.dump(ROUTES)[:-60], "record 5"),
        (gzip.compress(TEXT.encode())[:-9], "compressed file is broken"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, octets, words):
    path = written(tmp_path / "dump", octets)
    with pytest.raises(ConfigError, match=words) as caught:
        read_dump(path)
    assert str(path) in str(caught.value)


def test_without_mrtparse_text_can_still_be_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mrtparse", None)
    assert read_dump(written(tmp_path / "text", TEXT.encode())).ways == WAYS
    with pytest.raises(Unsupported, match=r"isthmus\[mrt\]"):
        read_dump(written(tmp_path / "mrt", mrt.dump(ROUTES)))


def test_a_site_is_where_most_of_its_networks_come_from(tmp_path):
    text = "10.1.0.0/16 9 1 9\n10.2.0.0/16 9 2 9\n10.3.0.0/16 9 2 9\n10.4.0.0/16 8 2 8\n10.5.0.0/16 7 1 7\n"
    people = populate(read_dump(written(tmp_path / "dump", text.encode())), countries=1)
    seven, eight, nine = people.place.tolist()
    assert eight == nine != seven
    assert people.networks_of.tolist() == [1, 1, 3]
    assert people.several.tolist() == [False] * 5


def test_a_network_seen_through_two_providers_or_from_two_origins_is_marked(tmp_path):
    text = (
        "10.1.0.0/16 9 1 9\n10.1.0.0/16 9 2 9\n10.2.0.0/16 9 1 9\n10.3.0.0/16 9 1 9\n10.3.0.0/16 8 1 8\n10.4.0.0/16 8\n"
    )
    people = populate(read_dump(written(tmp_path / "dump", text.encode())), countries=1)
    assert people.several.tolist() == [True, False, True, False]


def test_a_registry_says_which_country_an_as_is_of(tmp_path):
    registry = read_registry(
        written(
            tmp_path / "delegated",
            b"2|ripencc|20261121|3|19930901|20261121|+0100\nripencc|*|asn|*|2|summary\n"
            b"ripencc|DE|asn|65001|2|19930901|allocated|x\nripencc|FR|asn|64510|1|19930901|assigned\n"
            b"ripencc|FR|ipv4|192.0.2.0|256|19930901|assigned\nripencc||asn|65100|8||available\n",
        )
    )
    assert registry == {range(65001, 65003): "DE", range(64510, 64511): "FR"}
    people = populate(read_dump(written(tmp_path / "dump", TEXT.encode())), countries=5, registry=registry)
    assert people.country.tolist() == [1, 1, 2], "65001 and 65002 are German, 65003 is nobody's"


@pytest.mark.parametrize("octets", [b"nothing\n", b"ripencc|DE|asn|x|1|19930901|allocated\n"])
def test_a_registry_that_says_nothing_of_systems_is_refused(tmp_path, octets):
    with pytest.raises(ConfigError, match=r"registry\|country\|asn|names no AS numbers"):
        read_registry(written(tmp_path / "delegated", octets))


def test_more_providers_than_an_address_can_tell_apart_share_regions(tmp_path):
    text = "".join(f"10.{n // 256}.{n % 256}.0/24 {1000 + n} {5000 + n} {1000 + n}\n" for n in range(600))
    people = populate(read_dump(written(tmp_path / "dump", text.encode())), countries=1)
    assert people.region.max() == 255
    assert len(np.unique(people.upper)) == 600


def test_without_paths_countries_and_regions_are_made_by_chance(tmp_path):
    text = "".join(f"10.{n // 256}.{n % 256}.0/24 {1000 + n}\n" for n in range(600))
    dump = read_dump(written(tmp_path / "dump", text.encode()))
    people = populate(dump, countries=10, seed=1)
    assert len(np.unique(people.country)) == 10
    assert len(np.unique(people.upper)) == 600
    assert (populate(dump, countries=10, seed=1).upper == people.upper).all()
    assert not (populate(dump, countries=10, seed=2).upper == people.upper).all()


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_broken_dump_is_read_or_refused(tmp_path, data):
    """Whatever single octets are wrong, it is never anything but a ConfigError."""
    octets = bytearray(data.draw(st.sampled_from([TEXT.encode(), mrt.dump(ROUTES), mrt.dump(ROUTES[:1])])))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        dump = read_dump(written(tmp_path / "dump", bytes(octets)))
    except ConfigError:
        return
    populate(dump, countries=3)
