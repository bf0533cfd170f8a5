# SPDX-License-Identifier: BSD-3-Clause
"""Makes the parts of docs/ that come from the program. cog calls it.

``make docs`` renews them, ``tests/test_docs.py`` fails where they are not current::

    cog -r -I docs docs/*.md README.md
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_REMARK = re.compile(r"^\s*(?:#|/?\*)?\s*(?:#|/?\*)\s*(Deviation|Silent): (.*)$")
_CONTINUED = re.compile(r"^\s*(?:#|\*) ?(.*?)\s*$")


def commands() -> str:
    """Every command of the program: what it says about itself, its arguments and options."""
    from typer.main import get_command

    from isthmus.cli import app

    group: Any = get_command(app)
    context: Any = group.make_context("isthmus", [], resilient_parsing=True)
    return "\n".join(
        line for name in group.list_commands(context) for line in _command(group, context, name, "isthmus")
    )


def command_names() -> list[str]:
    """The name of every command and subcommand, as they are typed."""
    return re.findall(r"^##+ (isthmus .*)$", commands(), re.MULTILINE)


def _command(group: Any, context: Any, name: str, path: str) -> Iterator[str]:
    command = group.get_command(context, name)
    full = f"{path} {name}"
    yield f"##{'#' * path.count(' ')} {full}\n"
    yield _paragraphs(command.help or "") + "\n"
    if hasattr(command, "commands"):
        for each in command.list_commands(context):
            yield from _command(command, context, each, full)
        return
    words = [_argument(each) for each in command.params if each.param_type_name == "argument"]
    yield f"    {' '.join([full, '[OPTIONS]', *words])}\n"
    for each in command.params:
        if not getattr(each, "hidden", False) and each.name != "help":
            yield f"* `{_names(each)}`: {each.help or ''}{_default(each)}"
    yield ""


def _paragraphs(text: str) -> str:
    return inspect.cleandoc(text).replace("\f", "")


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _argument(parameter)
    names = " / ".join(
        [", ".join(parameter.opts), *([", ".join(parameter.secondary_opts)] if parameter.secondary_opts else [])]
    )
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required or value is None or isinstance(value, bool | tuple | list) or callable(value):
        return ""
    return f" Default: `{value}`."


def reasons() -> str:
    """Every drop reason and every RSIP error."""
    from isthmus.cli.explain import explanations

    lines = []
    for kind, title in (("reason", "Reasons"), ("error", "RSIP errors")):
        lines.append(f"## {title}\n")
        for each in explanations():
            if each.kind == kind:
                lines.append(f"### {each.name} ({each.number})\n\n**{each.happened}**\n\n{each.why}\n")
                told = f" Told to the host: {each.rsip_error}." if each.rsip_error else ""
                lines.append(f"*What to do:* {each.do}\n\n*Source:* {each.rfc}.{told}\n")
    return "\n".join(lines)


def messages() -> str:
    """Every log message."""
    from isthmus.daemon.messages import Message

    lines = []
    for each in Message:
        level, sentence, paragraph = each.value[:3]
        word = {10: "debug", 20: "info", 30: "warning", 40: "error"}.get(level, str(level))
        lines.append(f"### {each.name} ({word})\n\n**{sentence}** {paragraph}\n")
    return "\n".join(lines)


def model() -> str:
    """What the package of the model says about itself."""
    import isthmus.border

    text = inspect.cleandoc(isthmus.border.__doc__ or "").partition("\n")[2].strip()
    return _markdown(text)


def _markdown(text: str) -> str:
    """Turn the little reStructuredText of a docstring into Markdown: code, literal blocks and simple tables."""
    text = re.sub(r"^(=+(?: +=+)+)\n(.*?)\n\1\n(.*?)\n\1$", _table, text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("::\n", ":\n")


def _table(found: re.Match[str]) -> str:
    edges = [each.span() for each in re.finditer(r"=+", found[1])]
    spans = [(start, None if at == len(edges) - 1 else edges[at + 1][0]) for at, (start, _) in enumerate(edges)]
    rows = [[line[start:stop].strip() for start, stop in spans] for line in (found[2], *found[3].splitlines())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(spans), *lines[1:]])


def deviations(word: str, *, of: str = "RSIP") -> str:
    """Every ``# Deviation:`` or ``# Silent:`` of the sources of RSIP or IPAE, with the file that it stands in."""
    lines = ["| what | where |", "| --- | --- |"]
    for path in _sources():
        source = path.read_text(encoding="utf-8")
        if _is_of_ipae(path, source) != (of == "IPAE"):
            continue
        for kind, remark in remarks(source):
            if kind == word:
                where = path.relative_to(ROOT)
                lines.append(f"| {remark.replace('|', chr(92) + '|')} | [{where.name}](../{where}) |")
    return "\n".join(lines)


def _is_of_ipae(path: Path, source: str) -> bool:
    """Whether a source file is about IPAE: by its package, by what it says of itself, or by what it uses."""
    about = ast.get_docstring(ast.parse(source)) or ""
    words = re.search(r"\b(IPAE|SIP)\b", about)
    return words is not None or "isthmus.ipae" in source or not {"ipae", "sim", "sip"}.isdisjoint(path.parts)


def remarks(text: str) -> Iterator[tuple[str, str]]:
    """The remarks in one source file: (Deviation or Silent, the sentence on one line)."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        found = _REMARK.match(line)
        if found is None:
            continue
        words = [found[2]]
        for more in lines[at + 1 :]:
            rest = _CONTINUED.match(more)
            if words[-1].endswith("*/") or rest is None or _REMARK.match(more) or rest[1] in ("", "/"):
                break
            words.append(rest[1])
        yield found[1], " ".join(words).replace("*/", "").strip()


def _sources() -> list[Path]:
    """The package, without the lab; the kernel plane repeats the reference plane."""
    package = ROOT / "src" / "isthmus"
    return [path for path in sorted(package.rglob("*.py")) if package / "lab" not in path.parents]
