# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus explain``: what a drop reason, an RSIP error number or a log message means, and what to do about it."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any

import typer

from isthmus.border.verdict import Reason
from isthmus.cli import output
from isthmus.wire.rsip.codes import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything there is to say about one reason or one error."""

    kind: str
    "``reason`` (a packet left the path) or ``error`` (an RSIP request was refused)."
    name: str
    number: int
    happened: str
    "One sentence, from the enumeration itself."
    why: str
    "How it comes about in practice."
    do: str
    "What to do."
    rfc: str
    "The clause behind it."
    rsip_error: str | None
    "For a reason: the error that the host is told, if any."

    @property
    def text(self) -> str:
        """The explanation as paragraphs."""
        title = f"{self.name} ({'RSIP error' if self.kind == 'error' else 'reason'} {self.number})"
        told = f"Told to the host: ERROR_RESPONSE {self.rsip_error}." if self.rsip_error else ""
        parts = (title, self.happened, self.why, f"What to do: {self.do}", f"Source: {self.rfc}. {told}".rstrip())
        return "\n\n".join(parts)


@cache
def explanations() -> tuple[Explanation, ...]:
    """Every explanation: the reasons, then the errors, each by number."""
    import tomllib
    from importlib.resources import files

    table = tomllib.loads((files("isthmus.cli") / "explanations.toml").read_text(encoding="utf-8"))
    reasons = tuple(
        Explanation(
            kind="reason",
            name=each.name,
            number=int(each),
            happened=each.sentence,
            rsip_error=_error_name(each.rsip_code),
            **table["reason"][each.name],
        )
        for each in Reason
    )
    errors = tuple(
        Explanation(
            kind="error",
            name=each.name,
            number=int(each),
            happened=each.meaning,
            rsip_error=None,
            **table["error"][each.name],
        )
        for each in ErrorCode
    )
    return reasons + errors


def find(word: str) -> Explanation | None:
    """Find the explanation of a name, in any case and with - or _, or of a number."""
    name = word.strip().upper().replace("-", "_").replace(" ", "_")
    for each in explanations():
        if each.name == name or str(each.number) == name:
            return each
    return None


@output.plain_errors
def explain(
    word: Annotated[
        str | None,
        typer.Argument(
            metavar="[REASON|NUMBER|MESSAGE]",
            help="A reason such as NO_BINDING, an RSIP error such as 313, or a log message such as WAY_DOWN.",
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Explain every reason and every error.")] = False,
    as_json: output.Json = False,
) -> None:
    """Say what a drop reason, an RSIP error or a log message means, why it happens and what to do.

    The counters of 'isthmus counters', the verdicts of 'isthmus check' and the log all use
    these names. Without a word, every reason and error is listed with one sentence.
    """
    if word is not None and everything:
        output.fail("give a word or --all, not both")
    message = None if word is None or find(word) is not None else _message(word)
    if message is not None:
        if as_json:
            output.print_json(message)
        else:
            typer.echo(_wrapped("{name} (log, {level})\n\n{happened}\n\n{do}".format(**message)))
        return
    chosen = explanations() if word is None else (one(word),)
    if as_json:
        found: list[dict[str, Any]] = [asdict(each) for each in chosen]
        output.print_json(found[0] if word is not None else found)
    elif word is None and not everything:
        output.print_table(("NUMBER", "NAME", "MEANING"), ((e.number, e.name, e.happened) for e in chosen))
    else:
        typer.echo("\n\n\n".join(_wrapped(each.text) for each in chosen))


def _message(word: str) -> dict[str, str] | None:
    """What a log message means."""
    from isthmus.daemon.messages import Message

    name = word.strip().upper()
    if name not in Message.__members__:
        return None
    level, happened, do = Message[name].value
    return {
        "kind": "message",
        "name": name,
        "level": logging.getLevelName(level).lower(),
        "happened": happened,
        "do": do,
    }


def one(word: str) -> Explanation:
    """Find an explanation, or end the program with a hint."""
    from difflib import get_close_matches

    found = find(word)
    if found is None:
        names = [each.name for each in explanations()]
        near = get_close_matches(word.upper().replace("-", "_"), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "'isthmus explain' lists them all"
        output.fail(f"there is no reason, no RSIP error and no log message {word!r}; {hint}")
    return found


def _wrapped(text: str) -> str:
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.split("\n\n"))


def _error_name(code: int) -> str | None:
    return f"{code} {next(each.name for each in ErrorCode if each == code)}" if code else None
