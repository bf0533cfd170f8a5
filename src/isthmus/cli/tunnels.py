# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus tunnels``: what is known of the ways to other IPAE systems."""

from __future__ import annotations

from typing import Any

import typer

from isthmus.cli import output


@output.plain_errors
def tunnels(*, socket: output.Socket = None, as_json: output.Json = False) -> None:
    """Show what errors of IP-only routers have taught of the ways to other IPAE systems.

    Soft state: the largest datagram that gets through, for ten minutes; that the other end cannot be
    reached, and by whom that was said, and how many hops were not enough, for half a minute. A way of which nothing is
    known is not shown, and is as good as its interface. A way from one SIP address to another is shown at a host where
    the way between them carries less than an IPv6 program can be told of: the largest SIP packet.
    """
    rows = [output.with_times(row, "until") for row in output.ask(socket, do="tunnels")]
    if as_json:
        output.print_json(rows)
    elif not rows:
        typer.echo("Nothing is known of any way that its interface would not say.")
    else:
        output.print_table(("REALM", "FROM", "TO", "MTU", "DOWN, SAYS", "HOPS", "UNTIL"), map(_cells, rows))


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    return row["realm"], row["local"], row["remote"], row["mtu"], row["down"], row["hops"], row["until"]
