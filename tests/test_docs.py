# SPDX-License-Identifier: BSD-3-Clause
"""The docs are kept: generated parts are current, nothing is left out, links resolve, examples load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.program import run
from isthmus.border.verdict import Reason
from isthmus.cli import COMMANDS
from isthmus.daemon import config
from isthmus.daemon.messages import Message
from isthmus.lab.scenarios import SCENARIOS
from isthmus.wire.rsip.codes import ErrorCode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / each for each in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))])
GENERATED = [page for page in PAGES if "[[[cog" in page.read_text()]
_LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

sys.path.insert(0, str(DOCS))
import generate  # noqa: E402


def text(name):
    return (ROOT / name).read_text()


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_generated_parts_are_current(page):
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "cogapp", "--check", "-P", str(page.relative_to(ROOT))]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert ended.returncode == 0, f"{page.name} is stale: run 'make docs'\n{ended.stdout}{ended.stderr}"


def test_some_parts_are_generated():
    assert {page.name for page in GENERATED} == {
        "border-cases.md",
        "cli.md",
        "conformance.md",
        "ipae.md",
        "messages.md",
        "model.md",
        "performance.md",
        "reasons.md",
        "rsip.md",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_place_in_the_docs(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5
    assert f"## isthmus {name}\n" in text("docs/cli.md")


def test_every_subcommand_has_a_sentence():
    page = text("docs/cli.md")
    for name in generate.command_names():
        after = page.partition(f" {name}\n")[2].strip()
        assert re.match(r"[A-Z][^#]{10,}", after), f"{name} says nothing about itself"


def test_every_option_has_help():
    bare = [line for line in text("docs/cli.md").splitlines() if re.fullmatch(r"\* `[^`]+`:\s*", line)]
    assert not bare


@pytest.mark.parametrize("each", [*Reason, *ErrorCode], ids=lambda each: each.name)
def test_every_reason_and_error_is_documented(each):
    assert f"### {each.name} ({int(each)})" in text("docs/reasons.md")


def test_every_log_message_is_documented():
    for each in Message:
        assert f"### {each.name} (" in text("docs/messages.md")


def test_every_reason_has_its_place_on_the_path():
    page = text("docs/data-plane.md")
    counted_elsewhere = {"PASSED", "PUNTED", "REPLIED", "NO_ROUTE"}
    assert not [each.name for each in Reason if f"`{each.name}`" not in page and each.name not in counted_elsewhere]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    for target in _LINK.findall(_FENCED.sub("", page.read_text())):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_linked_from_another():
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in _LINK.findall(page.read_text())
        if not target.startswith("http")
    }
    lone = [page.name for page in DOCS.rglob("*.md") if page.resolve() not in linked]
    assert not lone


def commands_in(name):
    """What a page tells its reader to type, one command each."""
    for line in text(name).splitlines():
        if line.startswith("    "):
            for part in re.split(r"\s#\s|&&|;", line.strip()):
                yield part.strip()


def test_commands_of_the_readme_exist():
    for command in commands_in("README.md"):
        word = command.split()[0] if command else ""
        if word.startswith("./"):
            assert os.access(ROOT / word, os.X_OK), f"README: {word} cannot be run"
    assert {"./run", "./test"} <= set(commands_in("README.md"))


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/tour.md",
        "docs/troubleshooting.md",
        "docs/stores.md",
        "docs/performance.md",
        "CONTRIBUTING.md",
    ],
)
def test_commands_of_the_program_exist_with_their_options(page):
    known = set(generate.command_names())
    reference = text("docs/cli.md")
    spoken = [*commands_in(page), *re.findall(r"`(isthmus [^`]+)`", text(page))]
    for command in (each for each in spoken if each.startswith("isthmus ")):
        words = command.partition(" -- ")[0].split()
        name = " ".join(words[:3]) if " ".join(words[:3]) in known else " ".join(words[:2])
        if words[1] in {"COMMAND", "--help"}:
            continue
        assert name in known, f"{page}: {command}"
        section = reference.partition(f" {name}\n")[2].partition("\n## ")[0]
        for option in (each for each in words if each.startswith("--")):
            assert option in section, f"{page}: {command}: {option}"


def test_scenarios_of_the_tour_exist():
    from isthmus.lab.scenarios import SCENARIOS

    named = re.findall(r"isthmus lab (?:run|up) ([a-z-]+)", text("docs/tour.md"))
    assert named
    assert set(named) <= set(SCENARIOS)


TABLES = {"lease", "quota", "pool", "client", "query", "nat", "parent", "multicast", "slp", "discover"}
"""Keys that are tables."""


@pytest.mark.parametrize("name", ["gateway.toml", "host.toml"])
def test_examples_load(name):
    loaded = config.load(ROOT / "examples" / name)
    assert (loaded.gateway is not None) == (name == "gateway.toml")
    assert (loaded.host is not None) == (name == "host.toml")


@pytest.mark.parametrize(
    "section",
    [
        "General",
        "GatewaySection",
        "LeaseSection",
        "QuotaSection",
        "PoolSection",
        "ClientSection",
        "QuerySection",
        "NatSection",
        "MulticastSection",
        "HostSection",
        "HostLeaseSection",
    ],
)
def test_every_key_is_in_an_example(section):
    examples = text("examples/gateway.toml") + text("examples/host.toml")
    for key in getattr(config, section).model_fields:
        if key not in {"seed", *TABLES}:
            assert re.search(rf"^(?:# )?{key}\s*=", examples, re.MULTILINE), f"{section}.{key} is in no example"


@pytest.mark.parametrize("name", ["gateway.toml", "host.toml"])
def test_what_an_example_calls_a_default_is_one(name):
    given = tomllib.loads(text(f"examples/{name}"))
    loaded = config.load(ROOT / "examples" / name)
    section, role = ("gateway", loaded.gateway) if loaded.gateway is not None else ("host", loaded.host)
    own = {"near", "realm", "address", "gateway", *TABLES}
    for key, value in given[section].items():
        if key not in own:
            assert (
                list(value) == list(type(role).model_fields[key].default)
                if isinstance(value, list)
                else value == type(role).model_fields[key].default
            ), key
    for table in ("lease", "quota"):
        if section == "gateway":
            default = type(getattr(role, table))()
            assert given[section][table] == default.model_dump(), table


def test_deviations_are_gathered_from_comments():
    source = """
    # Deviation: RFC 1 wants this;
    # we do that.
    x = 1
    /* Silent: nobody says */
    # Silent: one.
    # Deviation: two.
    """
    assert list(generate.remarks(source)) == [
        ("Deviation", "RFC 1 wants this; we do that."),
        ("Silent", "nobody says"),
        ("Silent", "one."),
        ("Deviation", "two."),
    ]
    assert "| RFC 1812 §4.3.2.5" in text("docs/rsip.md")
    assert "| RFC 8507 §6" in text("docs/ipae.md")


def test_every_section_and_erratum_of_the_seed_has_its_place():
    page = text("docs/ipae.md")
    assert sorted(re.findall(r"\*\*E(\d+)\*\*", page), key=int) == [str(number) for number in range(1, 36)]
    sections = re.findall(r"^(?:#+ |\*\*)(\d(?:\.\d)*)\b", page, re.MULTILINE)
    assert sections == sorted(sections)


def test_every_scenario_of_ipae_is_on_its_page():
    page = text("docs/ipae.md")
    shown = [name for name, each in SCENARIOS.items() if any("IPAE" in clause for clause in each.shows)]
    assert not [name for name in shown if f"`{name}`" not in page]


def test_the_status_has_a_date():
    assert re.search(r"works and what does not \(\d{4}-\d{2}-\d{2}\)", text("README.md"))
