# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus revoke``: end leases before their time."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli import output
from isthmus.cli.who_had import endpoint


@output.plain_errors
def revoke(
    what: Annotated[
        str,
        typer.Argument(
            metavar="HOST|ADDRESS[:PORT]", help="A host's private address, or a leased address and a port of it."
        ),
    ],
    bind_id: Annotated[
        int | None, typer.Argument(metavar="[BIND_ID]", help="Of that host; without it, everything it has.")
    ] = None,
    *,
    socket: output.Socket = None,
    as_json: output.Json = False,
) -> None:
    """End leases at the gateway before their time; their hosts are told (RFC 3103 sections 9.5, 9.13).

    With a host and the bind ID of 'isthmus leases' one lease ends; with a leased address and
    port whatever holds that port; with a host alone, all that it has and its registration. What is
    revoked rests like what was given back. A host whose configuration wants a lease asks for
    another: to keep it out, take its network out of [[gateway.client]].
    """
    address, port = endpoint(what)
    if bind_id is not None and port is not None:
        output.fail(f"{what} {bind_id}: give a port or a bind ID, not both")
    request: dict[str, object] = {"host": str(address)}
    request |= {"port": port} if port is not None else {}
    request |= {"bind_id": bind_id} if bind_id is not None else {}
    ended = output.ask(socket, do="revoke", **request)
    if as_json:
        output.print_json(ended)
        return
    for each in ended["bindings"]:
        typer.echo(f"{each}: revoked")
    if ended["registration"]:
        typer.echo(f"{ended['registration']}: not registered any more")
