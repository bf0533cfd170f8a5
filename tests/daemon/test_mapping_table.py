# SPDX-License-Identifier: BSD-3-Clause
"""One realm's mapping table: files and zones together, programmed whole or not at all, over the control socket."""

import asyncio

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.mapping import Mapping
from isthmus.daemon.control import ControlError
from isthmus.daemon.mapping_table import MappingTable, mappings_handler, read_table, remap_handler
from isthmus.errors import ConfigError, PlaneError
from isthmus.ipae.mapping import MappingRefused, OwnNetwork, parse

ONE = "serial 1\n129.144.0.0/16 c20.4.0.3\n192.9.5.0/24 c1.213.77.5\n"
TWO = "serial 2\n129.144.0.0/16 c20.4.0.9\n130.1.0.0/16 c1.2.2.8\n"


def mapping(text):
    return parse(text.encode()).mapping


class Plane:
    """Takes mappings, unless it is told not to."""

    def __init__(self):
        self.has = Mapping.of()
        self.times = 0
        self.full = False

    async def apply(self, whole):
        if self.full:
            raise PlaneError("the table is full")
        self.has = whole
        self.times += 1


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.map"
    path.write_text(ONE)
    return path


def test_the_file_is_read_again_and_the_difference_told(file):
    async def script():
        plane = Plane()
        table = MappingTable("far", plane.apply, path=file)
        await table.start()
        assert plane.has == mapping(ONE)
        file.write_text(TWO)
        answer = await remap_handler({"far": table})({"do": "remap"}, None)
        assert plane.has == mapping(TWO) == table.mapping
        return answer

    answer = asyncio.run(script())
    assert answer.pop("octets") >= 18
    assert answer == {
        "realm": "far",
        "entries": 2,
        "digest": mapping(TWO).digest,
        "sources": [{"name": str(file), "serial": 2, "entries": 2}],
        "added": 1,
        "removed": 1,
        "changed": 1,
    }


def test_a_wrong_file_leaves_everything_as_it_was(file, tmp_path):
    async def script():
        plane = Plane()
        own = OwnNetwork(Prefix.parse("130.1.2.0/24"))
        table = MappingTable("far", plane.apply, path=file, own=[own])
        await table.start()
        (tmp_path / "b.map").write_text(TWO)
        for path, error in ((tmp_path / "b.map", MappingRefused), (tmp_path / "none.map", ConfigError)):
            with pytest.raises(error):
                await table.reload(path)
        assert plane.times == 1
        assert table.mapping == mapping(ONE)
        assert table.describe()["sources"][0]["serial"] == 1

    asyncio.run(script())


def test_what_the_plane_refuses_does_not_count(file, tmp_path):
    async def script():
        plane = Plane()
        table = MappingTable("far", plane.apply, path=file)
        await table.start()
        plane.full = True
        (tmp_path / "b.map").write_text(TWO)
        with pytest.raises(PlaneError):
            await table.reload(tmp_path / "b.map")
        assert table.mapping == mapping(ONE)
        plane.full = False
        await table.set_answers(mapping("1.0.0.0/8 c1.1.1.1"), "map.example.")
        assert plane.has == mapping(ONE + "1.0.0.0/8 c1.1.1.1")

    asyncio.run(script())


def test_nothing_is_programmed_where_nothing_differs(file):
    async def script():
        plane = Plane()
        table = MappingTable("far", plane.apply, path=file)
        await table.start()
        await table.reload()
        await table.set_zone(mapping(ONE), "map.example.", 7)
        assert plane.times == 1

    asyncio.run(script())


def test_the_file_counts_before_the_zone_and_the_zone_before_single_answers(file):
    async def script():
        plane = Plane()
        table = MappingTable("far", plane.apply, path=file)
        await table.start()
        await table.set_answers(mapping("129.144.0.0/16 c3.3.3.3\n5.0.0.0/8 c3.3.3.3\n6.0.0.0/8 c3.3.3.3"), "map.")
        await table.set_zone(mapping("129.144.0.0/16 c2.2.2.2\n5.0.0.0/8 c2.2.2.2"), "map.", 7)
        assert plane.has == mapping(ONE + "5.0.0.0/8 c2.2.2.2\n6.0.0.0/8 c3.3.3.3")
        assert [each["serial"] for each in table.describe()["sources"]] == [1, 7, None]

    asyncio.run(script())


def test_requests_name_their_realm_where_there_are_several(file):
    async def script():
        one, two = (MappingTable(name, Plane().apply, path=file) for name in ("one", "two"))
        ask = remap_handler({"one": one, "two": two})
        with pytest.raises(ControlError, match="choose one of one, two"):
            await ask({"do": "remap"}, None)
        with pytest.raises(ControlError, match="realm three has no mapping table"):
            await ask({"do": "remap", "realm": "three"}, None)
        with pytest.raises(ControlError, match="not an absolute path"):
            await ask({"do": "remap", "realm": "two", "path": "a.map"}, None)
        assert (await ask({"do": "remap", "realm": "two", "path": str(file)}, None))["added"] == 2
        assert len(one.mapping) == 0
        with pytest.raises(ControlError, match="no realm of this daemon"):
            await remap_handler({})({"do": "remap"}, None)

    asyncio.run(script())


def test_without_a_file_there_is_nothing_to_read_again():
    async def script():
        table = MappingTable("far", Plane().apply)
        await table.start()
        with pytest.raises(ConfigError, match="no mapping file is configured"):
            await table.reload()

    asyncio.run(script())


def test_a_daemon_says_what_an_address_is_mapped_to(file):
    async def script():
        table = MappingTable("far", Plane().apply, path=file)
        await table.start()
        ask = mappings_handler({"far": table})
        [row] = await ask({"do": "mappings", "lookup": "192.9.5.7"}, None)
        assert row["found"] == {"prefix": "192.9.5.0/24", "image": "c1.213.77.5/32"}
        [row] = await ask({"do": "mappings", "lookup": "192.9.6.7"}, None)
        assert row["found"] is None
        [row] = await ask({"do": "mappings"}, None)
        assert "found" not in row

    asyncio.run(script())


def test_reading_says_where_it_failed(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.map: No such file"):
        read_table(tmp_path / "none.map")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_table(tmp_path)
    (tmp_path / "a.map").write_text(ONE)
    assert read_table(tmp_path / "a.map").mapping.lookup(Address.parse("192.9.5.1")) is not None
