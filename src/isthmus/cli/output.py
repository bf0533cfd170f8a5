# SPDX-License-Identifier: BSD-3-Clause
"""What every command prints with: tables, JSON, times, and errors without a traceback.

Answers go to standard output, everything else to standard error. A command that cannot
do what was asked says so in one sentence and ends with 2; 1 is for a command that did its
work and whose answer is "no".
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

from isthmus.errors import IsthmusError, StoreUnavailable
from isthmus.store import LeaseStore

if TYPE_CHECKING:
    from isthmus.address import Address
    from isthmus.border.ranges import Ranges

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
"""The option that every command with an answer has."""

Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", help="The daemon's control socket. Default: the only one in /run/isthmus."
    ),
]
"""The option of every command that asks a daemon."""

State = Annotated[
    Path | None, typer.Option("--state", metavar="DB", help="Read this lease store instead of asking a daemon.")
]
"""The option of every command that can do without a daemon."""

_NARROW = 20
"Columns of a table that are not wider are never broken."
_UNLIMITED = 1000

_P = ParamSpec("_P")
_R = TypeVar("_R")


def on_end(leave: Callable[[int, FrameType | None], None]) -> None:
    """Let a command that holds something end in order, also when it is asked to by another or its terminal closes.

    Args:
        leave: Raises what ends it; not called for a SIGHUP that is ignored, as by ``nohup``.
    """
    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, leave)


def fail(problem: str) -> NoReturn:
    """Print what is wrong to standard error and end the program with 2."""
    typer.echo(f"isthmus: {problem}", err=True)
    raise typer.Exit(2)


def plain_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap a command so that an expected error becomes one sentence and exit status 2."""

    @functools.wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except IsthmusError as error:
            fail(str(error))
        except BrokenPipeError:
            # Whoever read us has gone; Python would complain of it once more when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            fail(f"{where}{error.strerror or error}")

    return wrapped


def print_json(value: object) -> None:
    """Print one JSON value, indented."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(value: object) -> None:
    """Print one JSON value on a line of its own (JSON lines)."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; where a terminal is too narrow, the wide columns go on in the next line.

    Where there is no terminal, each row is one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    wide = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    least = [min(each, _NARROW) for each in wide]
    console.width = max(console.width, sum(least) + 2 * len(least))
    for column, widest, narrowest in zip(columns, wide, least, strict=True):
        whole = widest == narrowest or console.width == _UNLIMITED
        table.add_column(column, no_wrap=whole, min_width=narrowest, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def time_text(seconds: float | None) -> str:
    """Give a time as ISO 8601 in the local zone; ``forever`` for what never ends, empty for None.

    A time beyond every calendar stays a number.
    """
    if seconds is None:
        return ""
    if math.isinf(seconds):
        return "forever"
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def read_time(text: str) -> float:
    """Read a time: ISO 8601, seconds since 1970, or ``now``.

    A time without a zone is taken in the zone of this machine.

    Raises:
        ValueError: none of the three.
    """
    if text == "now":
        return datetime.now(tz=UTC).timestamp()
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(seconds):
            return seconds
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        problem = f"{text!r} is no time: write ISO 8601 (2026-11-22T05:30:00+01:00), seconds since 1970, or now"
        raise ValueError(problem) from error


def with_times(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Give a row with these fields, seconds since 1970, as ISO 8601 with zone; None stays None."""
    return row | {name: time_text(row[name]) or None for name in names if name in row}


def ip_address(option: str, text: str) -> Address:
    """Read an address that an option gives, or end the program."""
    from isthmus.address import Address

    try:
        return Address.parse(text)
    except ValueError:
        fail(f"{option}: {text!r} is no IPv4 or IPv6 address")


def port_ranges(option: str, text: str) -> Ranges:
    """Read ports that an option gives, or end the program."""
    from isthmus.border.ranges import Ranges

    try:
        found = Ranges.parse(text)
    except ValueError:
        fail(f"{option}: {text!r} names no ports; write 8080, or 8080,9000-9010")
    if outside := found - Ranges.of((1, 0xFFFF)):
        fail(f"{option}: {outside} is no port; ports are 1 to 65535")
    return found


def ask(socket: Path | None, **request: object) -> Any:
    """Ask the daemon that a socket, or its absence, means.

    Raises:
        IsthmusError: nobody answers, or the daemon refused.
    """
    from isthmus.daemon.control import call, find_socket

    return call(find_socket(socket), request)


def existing_store(path: Path) -> closing[LeaseStore]:
    """Open a lease store to read it; unlike ``open_store``, never make one.

    Raises:
        StoreUnavailable: there is none, or it cannot be opened.
    """
    from isthmus.store import open_store

    if not path.is_file():
        raise StoreUnavailable(f"{path}: there is no lease store here; [isthmus] state in the configuration names it")
    return closing(open_store(path))
