# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus routes``: where SIP packets go, and what becomes SIP."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli import output

_COLUMNS = {
    "routes": ("realm", "to", "via", "device", "learned"),
    "aliases": ("realm", "alias", "address", "until"),
    "refused": ("route", "sip", "because"),
}
_NOTHING = {
    "routes": "Nothing is routed.",
    "aliases": "No alias is leased.",
    "refused": "No route of a routing daemon is refused.",
}


@output.plain_errors
def routes(
    *,
    aliases: Annotated[bool, typer.Option("--aliases", help="Show aliases instead.")] = False,
    refused: Annotated[
        bool, typer.Option("--refused", help="Show what a routing daemon offers and is not used, and why, instead.")
    ] = False,
    socket: output.Socket = None,
    as_json: output.Json = False,
) -> None:
    """Show the bindings of an IPAE border router or node: routes, gateways, programs' devices.

    A row whose realm is "sip" says where SIP packets for a prefix go; one of another realm, what of that realm
    becomes SIP. The longest prefix counts. LEARNED says which routes are a routing daemon's. Mapping tables are shown
    by 'isthmus map'.
    """
    if aliases and refused:
        raise typer.BadParameter("--aliases and --refused are two different tables: ask for one")
    which = "aliases" if aliases else "refused" if refused else "routes"
    rows = output.ask(socket, do=which)
    if aliases:
        rows = [output.with_times(row, "until") for row in rows]
    if as_json:
        output.print_json(rows)
    elif not rows:
        typer.echo(_NOTHING[which])
    else:
        columns = _COLUMNS[which]
        output.print_table([each.upper() for each in columns], [[_cell(row[each]) for each in columns] for row in rows])


def _cell(value: object) -> object:
    return {True: "yes", False: None}.get(value, value) if isinstance(value, bool) else value
