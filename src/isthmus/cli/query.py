# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus query``: what is local and what remote."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli import output


@output.plain_errors
def query(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|ADDRESS|NETWORK]...", help="What to ask about. Default: all that there is."),
    ] = None,
    *,
    socket: output.Socket = None,
    as_json: output.Json = False,
) -> None:
    """Ask the gateway, through the running host daemon, what is local and what remote (RFC 3103 §9.14).

    Where two sites use the same addresses, a name tells them apart: its address may look local and still be of the
    other site. What the gateway says nothing about counts as remote. It may answer more than it was asked.
    """
    found = output.ask(socket, do="query", what=what or [])
    if as_json:
        output.print_json(found)
        return
    asked = {row["what"] for row in found["asked"]}
    told = {row["what"] for row in found["answered"]}
    rows = [(row["what"], _where(row["local"]), _by(row["what"] in told)) for row in found["asked"]]
    rows += [(row["what"], _where(row["local"]), _by(True)) for row in found["answered"] if row["what"] not in asked]
    if rows:
        output.print_table(("WHAT", "WHERE", "BECAUSE"), rows)
    else:
        typer.echo("The gateway tells nothing: everything counts as remote.")


def _where(local: bool) -> str:
    return "local" if local else "remote"


def _by(told: bool) -> str:
    return "the gateway says so" if told else "of what the gateway says around it, or does not say"
