# SPDX-License-Identifier: BSD-3-Clause
"""The house stands as docs/architecture.md says: storeys, sizes, names, no clock in the core."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "isthmus"
PYTHON = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "bench").rglob("*.py"), *(ROOT / "docs").glob("*.py")])
C = sorted([*(ROOT / "bpf").rglob("*.[ch]"), *(ROOT / "bench").rglob("*.[ch]")])
SCRIPTS = [
    path
    for path in sorted(
        [*ROOT.glob("*"), *(ROOT / "tools").glob("*"), *(ROOT / ".ci").glob("*"), *(ROOT / "tests").rglob("*.py")]
    )
    if path.is_file() and (path.suffix in {".py", ".sh"} or path.read_bytes()[:2] == b"#!" or path.name == "Makefile")
]
DATA = sorted(
    [
        *(ROOT / "examples").glob("*.toml"),
        *(ROOT / "tests" / "fixtures").rglob("*.toml"),
        *(ROOT / "contrib").rglob("*.service"),
        *(ROOT / "contrib").rglob("*.lua"),
    ]
)
CORE = ("wire", "border", "rsip", "ipae", "plane/reference")
LONGEST_FILE, LONGEST_FUNCTION = 500, 60


def name(path):
    return str(path.relative_to(ROOT))


def test_there_is_something_to_look_at():
    assert len(PYTHON) > 50
    assert any(path.name.endswith(".bpf.c") for path in C)


def test_imports_keep_to_the_storeys():
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program, "import-linter is not installed: ./test installs it"
    ended = subprocess.run(
        [program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_contracts_are_those_of_the_docs():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    storeys = [{part.strip().removeprefix("isthmus.") for part in re.split(r"[|:]", layer)} for layer in layers]
    assert storeys[0] == {"cli"}
    assert storeys[1] >= {"daemon", "lab", "sim"}
    assert storeys[2] >= {"rsip", "ipae", "store", "plane"}
    assert storeys[3] == {"border", "wire"}
    core = next(each for each in contracts if each["type"] == "forbidden" and "time" in each["forbidden_modules"])
    assert {f"isthmus.{part.replace('/', '.')}" for part in CORE} <= set(core["source_modules"])
    assert {"asyncio", "socket", "time", "sqlite3", "subprocess", "threading"} <= set(core["forbidden_modules"])


def test_every_package_stands_on_a_storey():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = " ".join(next(each["layers"] for each in contracts if each["type"] == "layers"))
    standing = {part.removeprefix("isthmus.") for part in re.findall(r"isthmus\.\w+", layers)}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} <= standing


@pytest.mark.parametrize("path", [*PYTHON, *C], ids=name)
def test_no_file_is_too_long(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_no_python_function_is_too_long(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - _body_begin(node) + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


def _body_begin(node):
    """First line of what a function does: a signature or docstring that is the help of a command may be long."""
    body = node.body
    if (
        isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        return body[1].lineno if len(body) > 1 else node.end_lineno
    return body[0].lineno


_C_BLOCK = re.compile(r"^[^\s#/}][^;]*?\)\s*\n?\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", C, ids=name)
def test_no_c_function_is_too_long(path):
    for found in _C_BLOCK.finditer(path.read_text()):
        lines = found[1].count("\n")
        assert lines <= LONGEST_FUNCTION, f"{found[0].splitlines()[0]}: {lines} lines"


def test_c_functions_are_found():
    found = [each for path in C for each in _C_BLOCK.finditer(path.read_text())]
    assert len(found) > 20


@pytest.mark.parametrize("path", [path for part in CORE for path in sorted((PACKAGE / part).rglob("*.py"))], ids=name)
def test_the_core_has_no_clock_and_no_chance(path):
    """import-linter sees imports; this sees datetime, uuid and unseeded random as well."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for each in names:
            assert each.partition(".")[0] not in {"time", "datetime", "uuid", "secrets", "os", "asyncio", "socket"}, (
                each
            )
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            assert node.func.value.id != "random" or node.func.attr == "Random", f"line {node.lineno}: unseeded"
            assert node.func.value.id != "random" or node.args, f"line {node.lineno}: random.Random() without a seed"


@pytest.mark.parametrize("path", [*PYTHON, *C, *SCRIPTS, *DATA], ids=name)
def test_every_file_begins_with_its_licence(path):
    head = "\n".join(path.read_text().splitlines()[:2])
    assert "SPDX-License-Identifier: " in head
    assert ("Dual BSD/GPL" if path.is_relative_to(ROOT / "bpf") and path in C else "BSD-3-Clause") in head


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_modules_are_named_for_what_they_hold(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


@pytest.mark.parametrize("path", [path for path in PYTHON if path.is_relative_to(PACKAGE)], ids=name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_nothing_stands_where_the_rest_will_go():
    for module in ("store/postgres", "daemon/metrics"):
        assert not (PACKAGE / module).is_dir(), f"{module} will be a module"


def test_the_root_has_no_desk():
    allowed = {
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml", "hatch_build.py", "run", "test",
        "src", "bpf", "tests", "docs", "examples", "tools", "bench", "contrib", ".ci", ".gitignore", ".gitattributes", ".github", ".clang-format",
    }  # fmt: skip
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} <= allowed
