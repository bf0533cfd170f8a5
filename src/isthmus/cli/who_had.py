# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus who-had``: which host held an address and port, now, at a time, or ever."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.address import Address
from isthmus.cli import output


@output.plain_errors
def who_had(
    what: Annotated[str, typer.Argument(metavar="ADDRESS[:PORT]", help="A leased address, and a port of it.")],
    *,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="ISO 8601, seconds since 1970, or now. Default: ever.")
    ] = None,
    socket: output.Socket = None,
    state: output.State = None,
    as_json: output.Json = False,
) -> None:
    """Say which host held an address and port: the question of an abuse desk.

    Without --at, everybody who ever held it is listed, the latest first. A time without a zone
    is taken in the zone of this machine. Without a port, every holder of any part of the address
    is listed. The exit status is 0 if there is an answer, and 1 if it is "nobody".
    """
    address, port = endpoint(what)
    when = _time(at)
    if state is not None:
        rows = from_store(state, address, port=port, at=when)
    else:
        rows = output.ask(socket, do="who-had", address=str(address), port=port, at=when)
    rows = [output.with_times(row, "granted_at", "ended_at", "expires_at") for row in rows]
    if as_json:
        output.print_json(rows)
    elif not rows:
        typer.echo(f"Nobody held {what}{f' at {output.time_text(when)}' if when is not None else ', ever'}.")
    else:
        columns = ("HOST", "CLIENT", "BIND", "ADDRESS", "PORTS", "FROM", "UNTIL", "HOW IT ENDED")
        output.print_table(columns, (_cells(row) for row in rows))
    if not rows:
        raise typer.Exit(1)


def from_store(path: Path, address: Address, *, port: int | None, at: float | None) -> list[dict[str, Any]]:
    """Read the history in a store file, in the form that the daemon gives it.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    from isthmus.daemon.rows import tenure_row

    with output.existing_store(path) as store:
        tenures = store.who_had(address, port=port, at=at, now=output.read_time("now"))
    return [tenure_row(tenure) for tenure in tenures]


def endpoint(what: str) -> tuple[Address, int | None]:
    """Read ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; ends the program where it is none."""
    address, colon, port = what.partition(":")
    if what.count(":") > 1:
        address, colon, port = what.strip("[").partition("]:")
        address = address.rstrip("]")
    try:
        parsed = Address.parse(address)
    except ValueError:
        output.fail(f"{what!r}: {address!r} is no IP address; write ADDRESS or ADDRESS:PORT")
    if not colon:
        return parsed, None
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        output.fail(f"{what!r}: {port!r} is no port; ports are 1 to 65535")
    return parsed, int(port)


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return output.read_time(text)
    except ValueError as error:
        output.fail(f"--at: {error}")


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    ended = row.get("ended_at")
    until = ended or f"{row.get('expires_at')} (deadline)"
    how = row.get("ending") or "still held, or not ended yet"
    first = (row.get(name) for name in ("host", "client_id", "bind_id", "address"))
    return (*first, row.get("ports") or "all", row.get("granted_at"), until, how)
