# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus run``."""

from __future__ import annotations

from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from isthmus.cli import output


@output.plain_errors
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD [ARG]...", help="The program to run.")],
    *,
    socket: Annotated[Path | None, typer.Option(help="Control socket of the host daemon.")] = None,
    config: Annotated[Path | None, typer.Option(help="The host daemon's configuration, to find its socket.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Without a daemon: the RSIP gateway's address.")] = None,
    interface: Annotated[str | None, typer.Option(help="Without a daemon: the interface toward the gateway.")] = None,
    transport: Annotated[str, typer.Option(help="Without a daemon: udp or tcp.")] = "udp",
    ports: Annotated[
        int, typer.Option(min=1, max=255, help="Ports to lease at first, and whenever they run short.")
    ] = 64,
    whole: Annotated[bool, typer.Option("--whole", help="Lease a whole address (RSA-IP).")] = False,
    listen: Annotated[
        str | None, typer.Option(metavar="PORTS", help="Ports of the leased address that anybody may call, like 8080.")
    ] = None,
    remote: Annotated[
        str | None, typer.Option(help="The only peer; a host under a remote flow policy must name one.")
    ] = None,
    remote_port: Annotated[int | None, typer.Option(min=1, max=65535, help="The peer's only port, likewise.")] = None,
    dns: Annotated[str | None, typer.Option(help="A DNS server for the program.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Say on standard error what was leased.")] = False,
) -> None:
    """Run one unmodified program on a leased address and port range, in a namespace of its own.

    The program sees one interface with the leased address. Its connections use ports of the
    lease; when half of them are in use, more are asked for. With --listen it is a server, too: those ports
    are leased beside the others, and the program sees who calls. Its exit status is passed on (127 if
    there is no such program), and what was leased is given back when it ends.

    Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN: it makes a network namespace).
    """
    from contextlib import ExitStack

    from isthmus.daemon.control import find_socket
    from isthmus.daemon.program import Program, route_to, temporary_agent

    output.on_end(_leave)
    listens = output.port_ranges("--listen", listen) if listen is not None else None
    resolver = output.ip_address("--dns", dns) if dns is not None else None
    with ExitStack() as stack:
        if gateway is not None:
            far = output.ip_address("--gateway", gateway)
            near = interface or route_to(far)
            where = stack.enter_context(temporary_agent(gateway=far, interface=near, transport=transport))
        else:
            where = find_socket(socket, config)
        program = Program(where, ports=ports, whole=whole, listen=listens, remote=remote, remote_port=remote_port)
        stack.callback(program.close)
        if show:
            held = program.grant.ports or "all ports"
            typer.echo(f"isthmus: {program.grant.address} {held}", err=True)
        try:
            status = program.run(command, resolver=resolver)
        except (FileNotFoundError, PermissionError) as error:
            typer.echo(f"isthmus: {command[0]}: {error.strerror}", err=True)
            status = 127 if isinstance(error, FileNotFoundError) else 126
    raise typer.Exit(status)


def _leave(number: int, _frame: FrameType | None) -> None:
    """End in order, so that namespace, device and lease are given back."""
    raise SystemExit(128 + number)
