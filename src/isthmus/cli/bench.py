# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus bench``: the benchmarks of a checkout, by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import isthmus
from isthmus.cli import output

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Benchmarks, each beside what people use today. They are in bench/ of a checkout, and need root.",
)

Quick = Annotated[bool, typer.Option("--quick", help="One short round: shows that it works, proves nothing.")]


@app.callback()
def bench() -> None:
    """Benchmarks, each beside what people use today.

    They are in bench/ of a checkout, and need root. The exit status is 1 if a goal was missed.
    """


@app.command()
@output.plain_errors
def churn(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Let leases change hands, 10,000 changes a second, while packets of other leases flow both ways.

    None of those may be blocked, and no packet may reach a lease's former holder.
    """
    _run("churn", quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def forward(
    *,
    quick: Quick = False,
    against: Annotated[
        str | None, typer.Option(metavar="REVISION", help="A commit whose plane is measured in the same run, too.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Measure TCP throughput and the rate of small packets, beside nftables masquerade.

    Each kind of tunnel is measured: IP-IP, GRE, IPv4 in IPv6.
    """
    _run("forward", *(("--against", against) if against else ()), quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def host(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure throughput and latency of a program under isthmus run, beside the same program natively.

    Also beside slirp4netns and pasta, where they are installed (Debian: apt-get install slirp4netns passt).
    """
    _run("host", quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def lease(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure durable full cycles a second (REGISTER, ASSIGN), and how long one takes, beside Kea under perfdhcp.

    Needs Kea and perfdhcp (Debian: apt-get install kea-dhcp4-server kea-admin).
    """
    _run("lease", quick=quick, as_json=as_json)


@app.command(name="map")
@output.plain_errors
def mapping(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure mapping tables of a million IPv4 prefixes, beside the kernel's routing table.

    Reading and loading them, memory, lookups, changes, and what they cost a packet.
    """
    _run("map", quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def million(
    *,
    quick: Quick = False,
    leases: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, max=1 << 20, help="Leases, if not a million.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Fill a gateway with a million leases, restart it, ask who had them, and let them all run out at once.

    Measures the memory that each takes, and how long it all takes. Needs 3 GB below /var/tmp, and 15 minutes or so.
    """
    _run("million", *(() if leases is None else ("--leases", str(leases))), quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def nat(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure what a gateway forwards beside nftables masquerade, and what it keeps for it.

    Packets by the number of flows at TC and XDP, TCP, new connections, memory, log.
    """
    _run("nat", quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def packet(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure what a packet costs in the eBPF programs themselves, at TC and XDP, by the number of leases."""
    _run("packet", quick=quick, as_json=as_json)


@app.command()
@output.plain_errors
def translate(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure translation between IPv4 and SIP, beside tayga's between IPv4 and IPv6.

    Needs tayga (Debian: apt-get install tayga) and /dev/net/tun.
    """
    _run("translate", quick=quick, as_json=as_json)


def _run(name: str, *more: str, quick: bool, as_json: bool) -> None:
    script = Path(isthmus.__file__).parents[2] / "bench" / f"{name}.py"
    if not script.is_file():
        output.fail(
            f"{script} is not there: benchmarks run from a checkout of the source, not from an installed package"
        )
    options = [word for word, wanted in (("--quick", quick), ("--json", as_json)) if wanted]
    raise typer.Exit(subprocess.run([sys.executable, str(script), *options, *more], check=False).returncode)
