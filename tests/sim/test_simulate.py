# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus simulate routing``, as it is typed."""

import xml.etree.ElementTree as ET

import pytest

from cli.program import answer, refused, run
from sim import mrt

SMALL = ("--countries", 8, "--prefixes", 3000, "--sites", 400, "--lookups", 1000)
TIMES = {"nanoseconds"}


def timeless(value):
    """A result without what a clock said."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def test_it_says_where_the_claim_holds_and_where_it_fails():
    result = run("simulate", "routing", *SMALL, "--multihomed", 0.3, "--moved", 0.05)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("3,000 prefixes of 400 sites in ")
    assert any(line.startswith("flat IPv4") and "3,000" in line for line in lines)
    assert any(line.startswith("50.0%") and line.endswith("fails") for line in lines)
    assert "The tenfold claim fails here above" in result.stdout
    assert "all of these" in result.stdout
    assert "IPAE, renumbered" in result.stdout


def test_the_same_seed_gives_the_same_answer_but_for_the_times():
    one, same, other = (
        timeless(answer("simulate", "routing", *SMALL, "--seed", seed, "--multihomed", 0.1)) for seed in (7, 7, 8)
    )
    assert one == same
    assert one != other


def test_the_exceptions_are_those_that_were_asked_for():
    result = answer("simulate", "routing", *SMALL, "--exceptions", "0,0.5")
    assert [each["exceptions"] for each in result["steps"]] == [0, 0.5]
    assert result["steps"][0]["ratio"] > 10 > result["steps"][1]["ratio"]


def test_the_router_stands_where_it_is_put():
    result = answer("simulate", "routing", *SMALL, "--router", "3.1")
    assert (result["country"], result["region"]) == (3, 1)


@pytest.mark.rfc("ipae", "8.1")
def test_the_known_years_are_those_of_the_specification():
    rows = answer("simulate", "routing", "--table")
    assert [round(row["ratio"]) for row in rows] == [48, 950, 1510, 1300, 1799]
    assert [row["entries"] for row in rows] == [492, 551, 513, 596, 589]
    assert all(row["source"] for row in rows)
    assert "1,799" in run("simulate", "routing", "--table").stdout


def test_a_dump_is_taken_as_it_is(tmp_path):
    dump = tmp_path / "rib.mrt"
    routes = [(f"10.{n}.0.0/16", [[1, 20 + n % 3, 100 + n % 9], [2, 30, 100 + n % 9]][: 1 + n % 2]) for n in range(60)]
    dump.write_bytes(mrt.dump(routes))
    registry = tmp_path / "delegated"
    registry.write_text("apnic|JP|asn|100|5|20200101|allocated\napnic|AU|asn|105|4|20200101|allocated\n")
    result = answer("simulate", "routing", "--dump", dump, "--registry", registry, "--lookups", 100)
    assert (result["prefixes"], result["sites"], result["countries"]) == (60, 9, 2)
    assert [(each["kind"], each["networks"]) for each in result["kept"]] == [("multi-homed, in the dump", 30)]
    assert result["flat"]["entries"] == 60


def test_prefixes_with_two_providers_count_as_multihomed(tmp_path):
    dump = tmp_path / "dump.txt"
    dump.write_text(
        "".join(f"10.{n}.0.0/16 {100 + n} {way} {100 + n}\n" for n in range(40) for way in (1, 2)[: 1 + n % 2])
    )
    result = answer("simulate", "routing", "--dump", dump, "--countries", 1, "--lookups", 100)
    assert [(each["kind"], each["sites"], each["networks"]) for each in result["kept"]] == [
        ("multi-homed, in the dump", 20, 20)
    ]


@pytest.mark.parametrize("more", [(), ("--largest", "0.9", "--exceptions", "0")])
def test_the_plot_is_a_picture(tmp_path, more):
    path = tmp_path / "claim.svg"
    assert run("simulate", "routing", *SMALL, *more, "--plot", path).exit_code == 0
    root = ET.fromstring(path.read_text())
    names = [each.tag.rpartition("}")[2] for each in root.iter()]
    assert names.count("polyline") == 3
    assert names.count("rect") == 1 + 4
    width, height = float(root.get("width")), float(root.get("height"))
    for each in root.iter():
        assert 0 <= float(each.get("x", 0)) <= width
        assert 0 <= float(each.get("y", 0)) <= height


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plot", "x.png"), "what is drawn is SVG; name it x.svg"),
        (("--registry", "x"), "give --dump as well"),
        (("--dump", "x", "--sites", "3"), "--sites is for networks made by chance"),
        (("--dump", "/nowhere/x"), "/nowhere/x: No such file"),
        (("--countries", "10", "--sites", "3"), "each country needs a site"),
        ((*SMALL, "--exceptions", "0,2"), "--exceptions: '2' is no share"),
        ((*SMALL, "--exceptions", "many"), "--exceptions: 'many' is no share"),
        ((*SMALL, "--moved", "1.5"), "--moved: 1.5 is no share"),
        ((*SMALL, "--router", "x"), "write country and region by number"),
        ((*SMALL, "--router", "8.99"), "there is no region 8.99"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, words):
    assert words in refused("simulate", "routing", *arguments)
