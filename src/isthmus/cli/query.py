# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus query``: what is local and what remote."""

from __future__ import annotations

from typing import Annotated, Any

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
    told = found["answered"]
    rows = [*found["asked"], *(row for row in told if row["what"] not in asked)]
    if rows:
        cells = [(row["what"], _where(row["local"]), _by(row, told)) for row in rows]
        output.print_table(("WHAT", "WHERE", "BECAUSE"), cells)
    else:
        typer.echo("The gateway tells nothing: everything counts as remote.")


def _where(local: bool) -> str:
    return "local" if local else "remote"


def _by(row: dict[str, Any], answered: list[dict[str, Any]]) -> str:
    """Why it is local or not; silence means remote (RFC 3103 §9.15.3)."""
    networks = [each["what"] for each in answered if _is_around(each["what"], row["what"])]
    if any(each["what"] == row["what"] for each in answered):
        return "the gateway says so"
    return f"of what the gateway says of {max(networks, key=_length)}" if networks else "the gateway says nothing of it"


def _is_around(network: str, what: str) -> bool:
    from isthmus.address import Address, Prefix

    try:
        inner = Prefix.parse(what) if "/" in what else Prefix.of(Address.parse(what))
        return "/" in network and Prefix.parse(network).covers(inner)
    except ValueError:
        return False


def _length(network: str) -> int:
    return int(network.partition("/")[2])
