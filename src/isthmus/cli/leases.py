# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus leases``: who holds what now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from isthmus.cli import output

_PAGE = 500


@output.plain_errors
def leases(
    *,
    socket: output.Socket = None,
    state: output.State = None,
    as_json: output.Json = False,
) -> None:
    """Show every lease: which host holds which address, ports and SPIs, and until when.

    At a gateway these are all that it has granted; at a host those that it holds.
    Asks the running daemon, or reads a lease store with --state, which needs no daemon.
    """
    rows = from_store(state) if state is not None else _pages(socket)
    rows = [output.with_times(row, "granted_at", "expires_at") for row in rows]
    if as_json:
        output.print_json(rows)
    elif not rows:
        typer.echo("Nobody holds a lease.")
    else:
        columns = ("HOST", "CLIENT", "BIND", "ADDRESS", "PORTS", "SPIS", "METHOD", "TUNNEL", "GRANTED", "EXPIRES")
        output.print_table(columns, (_cells(row) for row in rows))


def _pages(socket: Path | None) -> list[dict[str, Any]]:
    """Ask a daemon for all of its leases; a gateway gives a page at a time."""
    rows: list[dict[str, Any]] = []
    after: list[Any] | None = None
    while True:
        page: list[dict[str, Any]] = output.ask(socket, do="leases", limit=_PAGE, after=after)
        rows += page
        if len(page) != _PAGE or not page[-1].get("host"):
            return rows
        before, after = after, [page[-1]["host"], page[-1]["bind_id"]]
        if after == before:
            return page


def from_store(path: Path) -> list[dict[str, Any]]:
    """Read the leases of a store file, in the form that the daemon gives them.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    from isthmus.daemon.rows import lease_row

    with output.existing_store(path) as store:
        return [lease_row(held) for held in store.leases()]


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    names = ("host", "client_id", "bind_id", "address", "ports", "spis", "method", "tunnel", "granted_at", "expires_at")
    cells = {name: row.get(name) for name in names}
    if row.get("ike"):
        cells["ports"] = f"{cells['ports']}, 500 (IKE)" if cells["ports"] else "500 (IKE)"
    elif not cells["ports"] and not cells["spis"]:
        cells["ports"] = "all"
    return tuple(cells.values())
