# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks have told is what docs/performance.md shows; its tables are tests/test_docs.py's, as all that cog makes."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs/figures"
PAGE = (ROOT / "docs/performance.md").read_text()
LARGEST = 40_000


def script(path):
    """Import a script without its folder: names there are plain words."""
    name = f"script_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    made = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


plot, measured = script(ROOT / "bench/plot.py"), script(ROOT / "docs/measured.py")


def test_every_benchmark_has_its_figures_and_its_place():
    commands = (ROOT / "src/isthmus/cli/bench.py").read_text()
    benches = set(re.findall(r'_run\(\s*"(\w+)"', commands))
    assert benches == set(measured.BENCHES)
    assert {path.stem for path in FIGURES.glob("*.json")} == benches | {"doctor"}
    for name in benches:
        assert f"`isthmus bench {name}`" in " ".join(PAGE.split())


def test_make_bench_runs_every_benchmark():
    tree = ast.parse((ROOT / "bench/everything.py").read_text())
    (listed,) = [
        each.value for each in tree.body if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "BENCHES"
    ]
    names = {each.value for each in listed.elts if isinstance(each, ast.Constant)}
    assert names == set(measured.BENCHES)


@pytest.mark.parametrize("name", measured.BENCHES)
def test_figures_are_as_published(name):
    told = measured.told(name)
    assert told["bench"] == name
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", told["date"])
    assert told["figures"]
    assert told["seconds"] > 0
    assert f"measured.method('{name}')" in PAGE or f'measured.method("{name}")' in PAGE


@pytest.mark.parametrize("name", measured.BENCHES)
def test_every_missed_goal_is_told(name):
    missed = PAGE.partition("\nMissed:\n")[2].partition("\n## ")[0]
    for each in measured.told(name)["figures"]:
        if each["met"] is False:
            assert re.search(rf"^\* `{name}`: .*{re.escape(each['name'])}", missed, re.MULTILINE)


@pytest.mark.parametrize("name", plot.PLOTS)
def test_plots_show_the_figures(name):
    assert plot.is_current(name), "a plot is stale: run 'make docs'"
    assert f"(figures/{name}.svg)" in PAGE
    drawn = FIGURES / f"{name}.svg"
    assert drawn.stat().st_size < LARGEST
    words = "".join(ET.parse(drawn).getroot().itertext())
    assert "prefers-color-scheme: dark" in words


def test_no_plot_is_left_over():
    assert {path.stem for path in FIGURES.glob("*.svg")} == set(plot.PLOTS)


def test_a_plot_is_drawn_the_same_twice():
    first = plot.svg("nat")
    assert plot.svg("nat") == first
    assert plot.made_of("nat") in first


def test_a_plot_is_stale_when_its_figures_change(tmp_path, monkeypatch):
    found = json.loads((FIGURES / "lease.json").read_text())
    found["series"][0]["runs"][0]["in_time"] += 1000
    (tmp_path / "lease.json").write_text(json.dumps(found))
    (tmp_path / "lease.svg").write_text((FIGURES / "lease.svg").read_text())
    monkeypatch.setattr(plot, "FIGURES", tmp_path)
    assert not plot.is_current("lease")


def test_a_benchmark_that_does_not_run_is_a_failure():
    words = "import everything; print(everything.run('nothing-of-the-kind', quick=True))"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT / "bench", capture_output=True, text=True, check=False
    )
    assert done.stdout == "ended with status 2\n"
    assert not (FIGURES / "nothing-of-the-kind.json").exists()


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0, "octets", "0"),
        (378_000_000.0, "octets", "378 MB"),
        (1_034_000, "packets/s", "1.03 million"),
        (896_139, "packets/s", "896,139"),
        (1.0, "", "1"),
        (0.132, "of the time", "0.13"),
        (52.04, "ns", "52.0"),
        (None, "ns", ""),
    ],
)
def test_figures_are_printed_with_as_many_digits_as_can_be_seen(number, unit, text):
    assert measured.value(number, unit) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1.00"), (0.0000267, "1/37,453"), (0, "0.00"), (23.4, "23.4"), (115, "115"), (None, "")]
)
def test_ratios_are_printed(number, text):
    assert measured.ratio(number) == text
