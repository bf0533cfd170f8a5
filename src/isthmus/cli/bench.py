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
def lease(*, quick: Quick = False, as_json: output.Json = False) -> None:
    """Measure durable ASSIGNs a second over UDP, and how long one takes."""
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
