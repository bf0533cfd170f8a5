# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus nat``: hosts without RSIP beside those with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import output

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

Configuration = Annotated[Path, typer.Argument(metavar="CONFIG", help="The gateway's configuration.")]


@app.callback()
def nat() -> None:
    """Let hosts without RSIP go out by address translation, on ports that no pool has.

    [gateway.nat] of the configuration names the address, its ports and the private networks. The
    running daemon keeps the rules, in a table of nftables of their own; these commands
    show, set, compare and remove them without it. Needs CAP_NET_ADMIN.
    """


@app.command()
@output.plain_errors
def show(
    config: Configuration,
    *,
    wanted: Annotated[bool, typer.Option("--wanted", help="Those that the configuration asks for.")] = False,
) -> None:
    """Print the rules that stand, as 'nft -f' reads them."""
    from isthmus.daemon import nat as rules
    from isthmus.daemon.config import load

    loaded = load(config)
    text = rules.ruleset(loaded) if wanted else rules.standing(loaded)
    typer.echo(text.rstrip() or f"There is no table {rules.table_name(loaded)}.")


@app.command()
@output.plain_errors
def apply(config: Configuration) -> None:
    """Write the rules, over what stands of them, in one transaction."""
    from isthmus.daemon import nat as rules
    from isthmus.daemon.config import load

    loaded = load(config)
    rules.apply(loaded)
    typer.echo(f"{rules.table_name(loaded)}: written")


@app.command()
@output.plain_errors
def check(config: Configuration, *, as_json: output.Json = False) -> None:
    """Compare the rules with what is wanted, and look for whatever else may use leased ports.

    That is: rules of other tables that translate to a leased port, and the ephemeral ports of
    this machine's own programs where the shared address is its own. Each finding comes with
    what to do. The exit status is 1 if there is any.
    """
    from isthmus.daemon import nat as rules
    from isthmus.daemon.config import load

    found = list(rules.faults(load(config)))
    if as_json:
        output.print_json({"ok": not found, "faults": [asdict(each) for each in found]})
    elif not found:
        typer.echo("Nothing but the leases uses what is leased.")
    for each in () if as_json else found:
        typer.echo(f"{each.what}\n    → {each.remedy}")
    if found:
        raise typer.Exit(1)


@app.command()
@output.plain_errors
def remove(config: Configuration) -> None:
    """Remove the rules; hosts without RSIP have no way out any more."""
    from isthmus.daemon import nat as rules
    from isthmus.daemon.config import load

    loaded = load(config)
    rules.remove(loaded)
    typer.echo(f"{rules.table_name(loaded)}: removed")
