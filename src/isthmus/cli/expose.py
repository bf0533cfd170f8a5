# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus expose``: a local service at a leased address."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import Annotated

import typer

from isthmus.cli import output


@output.plain_errors
def expose(
    port: Annotated[int, typer.Argument(min=1, max=65535, metavar="PORT", help="Where the service listens here.")],
    *,
    public: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port that callers use. Default: any that can be leased.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="The leased address. Default: any.")] = None,
    remote: Annotated[
        str | None, typer.Option(help="The only peer that may call; needed by a host under a remote flow policy.")
    ] = None,
    remote_port: Annotated[int | None, typer.Option(min=1, max=65535, help="The peer's only port, likewise.")] = None,
    socket: output.Socket = None,
    gateway: Annotated[str | None, typer.Option(help="Without a daemon: the RSIP gateway's address.")] = None,
    interface: Annotated[str | None, typer.Option(help="Without a daemon: the interface toward the gateway.")] = None,
    transport: Annotated[str, typer.Option(help="Without a daemon: udp or tcp.")] = "udp",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not say who calls.")] = False,
) -> None:
    """Publish a service of this machine at a leased address, TCP and UDP, until Ctrl-C.

    Prints ADDRESS:PORT, which anybody beyond the gateway may call (RSIP's LISTEN). The service sees its callers'
    own addresses and need not know of any of this; it must listen on 0.0.0.0, or on the leased address. If the public
    port is another than the service's, this machine translates it, with nftables. Needs root (CAP_NET_ADMIN).

    Whoever calls by TCP is shown on standard error. Should the lease be revoked, the same is asked for again.
    """
    from isthmus.daemon.control import find_socket
    from isthmus.daemon.exposure import Exposure
    from isthmus.daemon.program import route_to, temporary_agent

    output.on_end(_interrupt)
    with ExitStack() as stack:
        device = None
        if gateway is not None:
            far = output.ip_address("--gateway", gateway)
            near = interface or route_to(far)
            where = stack.enter_context(temporary_agent(gateway=far, interface=near, transport=transport))
            device = f"ist{secrets.token_hex(3)}"
        else:
            where = find_socket(socket)
        exposure = Exposure(
            where,
            port,
            public=public,
            address=address,
            remote=remote,
            remote_port=remote_port,
            device=device,
        )
        stack.callback(exposure.close)
        typer.echo(exposure.text)
        try:
            for each in exposure.callers():
                if isinstance(each, str):
                    typer.echo(f"isthmus: {each}", err=True)
                elif not quiet:
                    typer.echo(f"isthmus: {each} calls", err=True)
        except KeyboardInterrupt:
            pass


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
