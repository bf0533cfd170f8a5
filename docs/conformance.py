# SPDX-License-Identifier: BSD-3-Clause
"""Makes docs/conformance.md out of docs/conformance/*.toml, and refuses to where a test does not exist.

A file there has the requirements of one document, in the order of its sections. Each says what is asked, in our
words; of whom; how strongly; and which tests show it, or why none does::

    [[requirement]]
    section = "9.2.3"
    level = "MUST"            in capitals where the RFC writes so; "text": it is said without such a word
    who = "gateway"           gateway, host, both, or peer; of IPAE and SIP router, host, or both
    text = "..."
    tests = ["test_302_already_registered_carries_the_client_id", "icmp.toml: a redirect is ...", "scenario spoofing"]
    status = "deviates"       done if nothing is said; silent, deviates, not applicable
    why = "..."               with any status but done

A test is named by its function, which is unique or has its file in front (``test_host.py::test_x``); a fixture by file
and name; a scenario of the lab by name.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parent.parent
TABLES = Path(__file__).parent / "conformance"
TITLES = MappingProxyType(
    {
        "3102": "RFC 3102, Realm Specific IP: Framework",
        "3103": "RFC 3103, Realm Specific IP: Protocol Specification",
        "3104": "RFC 3104, RSIP Support for End-to-end IPsec",
        "3105": "RFC 3105, Finding an RSIP Server with SLP",
        "ipae": "draft-crocker-ip-encaps-01, IP Address Encapsulation",
        "8507": "RFC 8507, Simple Internet Protocol",
        "t93": "draft-ietf-ipae-transition-00, what we follow of it",
        "p94": "draft-ietf-sipp-spec-00, what we follow of it",
    }
)
"""Documents, as the marks of tests call them."""
LEVELS = (
    *("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY NOT"),
    *("must", "must not", "shall", "shall not", "required", "should", "may", "may not"),
)
"""Words of the documents; and these, which bind less or are our reading."""
SOFTER = ("recommended", "desirable", "text")
STATUSES = ("done", "silent", "deviates", "not applicable")
"""``silent``: the RFC leaves it open, and ``why`` says what we do."""
PARTIES = ("gateway", "router", "host", "both", "peer")


class ConformanceError(Exception):
    """The table says what is not so."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One row."""

    rfc: str
    "Number of the RFC, or what else ``TITLES`` has."
    section: str
    level: str
    who: str
    text: str
    tests: list[str] = field(default_factory=list)
    status: str = "done"
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse a row that contradicts itself."""
        where = f"{self.rfc} §{self.section}: {self.text}"
        if self.level not in (*LEVELS, *SOFTER) or self.who not in PARTIES or self.status not in STATUSES:
            raise ConformanceError(f"{where}: {self.level}, {self.who} or {self.status} is no such word")
        if self.status in ("done", "silent") and not self.tests:
            raise ConformanceError(f"{where}: {self.status}, and no test shows it")
        if (self.status == "done") == bool(self.why):
            raise ConformanceError(f"{where}: a reason is for what is not done as it is written")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a row calls a test, found."""

    label: str
    path: str
    "From the root."
    node: str | None
    "pytest's name of it, less parameters; None for a fixture or a scenario, which have a test of their own."


def requirements() -> list[Requirement]:
    """Every row, in order."""
    return [
        Requirement(rfc=rfc, **row)
        for rfc in TITLES
        for row in tomllib.loads(file_of(rfc).read_text(encoding="utf-8"))["requirement"]
    ]


def file_of(rfc: str) -> Path:
    """Where the rows of a document are."""
    return TABLES / (f"rfc{rfc}.toml" if rfc.isdigit() else f"{rfc}.toml")


def table(rfc: str) -> str:
    """The table of one document, as Markdown."""
    lines = ["| § | level | who | what is asked | status | shown by |", "| --- | --- | --- | --- | --- | --- |"]
    for each in requirements():
        if each.rfc == rfc:
            shown = "<br>".join(f"[{one.label}](../{one.path})" for one in map(find, each.tests))
            status = each.status if not each.why else f"**{each.status}**: {each.why}"
            cells = (each.section, each.level, each.who, each.text, status, shown)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def summary() -> str:
    """How many rows there are of each status."""
    rows = requirements()
    lines = ["| | " + " | ".join(STATUSES) + " |", "| --- |" + " --- |" * len(STATUSES)]
    for rfc, title in TITLES.items():
        counts = (sum(row.rfc == rfc and row.status == status for row in rows) for status in STATUSES)
        lines.append(f"| {title} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def find(name: str) -> Shown:
    """Find what a row calls a test.

    Raises:
        ConformanceError: there is none of that name, or more than one.
    """
    if name.startswith("scenario "):
        scenario = name.removeprefix("scenario ")
        path = _scenarios().get(scenario)
        if path is None:
            raise ConformanceError(f"there is no scenario {scenario}")
        return Shown(label=f"lab: {scenario}", path=path, node=None)
    file, colon, case = name.partition(".toml: ")
    if colon:
        if case not in _fixtures(f"{file}.toml"):
            raise ConformanceError(f"{file}.toml has no case {case!r}")
        return Shown(label=f"{file}.toml: {case}", path=f"tests/fixtures/{file}.toml", node=None)
    file, _, function = name.rpartition("::")
    found = [each for each in _tests().get(function, ()) if not file or each.partition("::")[0].endswith(file)]
    if len({each.partition("::")[0] for each in found}) != 1:
        raise ConformanceError(f"{name} is {'in ' + ', '.join(found) if found else 'nowhere in tests/'}")
    return Shown(label=function, path=found[0].partition("::")[0], node=found[0])


def marked() -> Iterator[tuple[str, str, str, str]]:
    """Every ``rfc`` mark of a test: its function, the document, the section, and where it stands."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for each in node.decorator_list:
                    if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "rfc":
                        document, section = (str(word.value) for word in each.args if isinstance(word, ast.Constant))
                        yield node.name, document, section, f"{path.relative_to(ROOT)}:{each.lineno}"


@cache
def _scenarios() -> Mapping[str, str]:
    """Name of each scenario, and its file."""
    from isthmus.lab import scenarios
    from isthmus.lab.scenario import Scenario

    files = {}
    for path in sorted(Path(str(scenarios.__file__)).parent.glob("*.py")):
        module = import_module(f"{scenarios.__name__}.{path.stem}") if path.stem != "__init__" else None
        for held in vars(module).values() if module else ():
            for each in held if isinstance(held, tuple) else (held,):
                if isinstance(each, Scenario) and each.name in scenarios.SCENARIOS:
                    files[each.name] = str(path.relative_to(ROOT))
    return files


@cache
def _fixtures(file: str) -> frozenset[str]:
    path = ROOT / "tests" / "fixtures" / file
    if not path.exists():
        raise ConformanceError(f"there is no tests/fixtures/{file}")
    return frozenset(case["name"] for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"])


@cache
def _tests() -> Mapping[str, list[str]]:
    """Each test function, and pytest's names for it: those in classes that a test class inherits from, too."""
    classes: dict[str, ast.ClassDef] = {}
    modules = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        modules[path] = tree = ast.parse(path.read_text(encoding="utf-8"))
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found: dict[str, list[str]] = {}
    for path, tree in modules.items():
        if not path.name.startswith("test_"):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}::{node.name}")
            elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                for name in _methods(node, classes):
                    found.setdefault(name, []).append(f"{path.relative_to(ROOT)}::{node.name}::{name}")
    return found


def _methods(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
            yield each.name
    for parent in node.bases:
        name = parent.id if isinstance(parent, ast.Name) else parent.attr if isinstance(parent, ast.Attribute) else ""
        if name in classes and classes[name] is not node:
            yield from _methods(classes[name], classes)
