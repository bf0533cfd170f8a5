# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus up``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import output


@output.plain_errors
def up(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file; see examples/.")],
    *,
    check: Annotated[bool, typer.Option("--check", help="Only read the file and say whether it is right.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run what a configuration describes: an RSIP gateway or host, an IPAE border router or node, or two of them.

    Prints "ready" when it serves and stays in the foreground until SIGTERM or Ctrl-C, when it
    lets go of everything it made. If it is killed instead, what it pinned goes on forwarding,
    of leases until they end, and the next start takes it over.

    Needs CAP_NET_ADMIN and CAP_NET_RAW; the kernel plane CAP_BPF and CAP_PERFMON as well (CAP_SYS_ADMIN where
    a BPF file system must be mounted first); SLP, DHCP and the DNS servers of IPAE CAP_NET_BIND_SERVICE;
    port 4555 no privilege.
    """
    from isthmus.daemon.config import load

    loaded = load(config)
    if check:
        typer.echo(f"{config}: right")
        return
    from isthmus.daemon.main import serve

    serve(loaded, verbose=verbose)
