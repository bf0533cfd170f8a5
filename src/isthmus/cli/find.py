# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus find``: which RSIP gateways there are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli import output

if TYPE_CHECKING:
    from isthmus.daemon.config.discovery import DiscoverSection
    from isthmus.daemon.discovery.finding import Found
    from isthmus.daemon.discovery.near import NearInterface


@output.plain_errors
def find(
    *,
    interface: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to ask. Default: every interface that is up.")
    ] = None,
    way: Annotated[
        list[str] | None, typer.Option(metavar="dhcp|slp", help="How to ask; may be repeated. Default: both.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="SLP scope; may be repeated. Default: as DHCP says.")
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Ask this SLP agent by unicast; may be repeated. Default: multicast."),
    ] = None,
    predicate: Annotated[
        str, typer.Option(metavar="FILTER", help="What the gateway must be able to do, as '(tunnel-type=GRE)'.")
    ] = "",
    option: Annotated[int, typer.Option(help="The site-specific DHCP option that lists gateways.")] = 224,
    seconds: Annotated[float, typer.Option(help="How long each way may take.")] = 3.0,
    as_json: output.Json = False,
) -> None:
    """Find the RSIP gateways of this network, by DHCP and by SLP (RFC 3105), with what they say of themselves.

    Needs no daemon. The least loaded gateway of each way stands first; a host agent takes the first.
    The exit status is 1 if there is none. Asking by DHCP needs root.
    """
    from isthmus.daemon.discovery.near import interfaces, near_interface

    places = (near_interface(interface),) if interface is not None else interfaces()
    if not places:
        output.fail("no interface is up and has an IPv4 address")
    asked = _asked(way=way, scope=scope, agent=agent, option=option, seconds=seconds, predicate=predicate)
    rows = [each.row for each in asyncio.run(_everywhere(places, asked, predicate))]
    if as_json:
        output.print_json(rows)
    elif not rows:
        typer.echo(f"No gateway answers on {', '.join(each.name for each in places)}.")
    else:
        columns = ("GATEWAY", "PORT", "WAY", "LOAD", "TUNNELS", "TRANSPORTS", "IPSEC", "IKE", "INTERFACE", "URL")
        names = ("address", "port", "way", "load", "tunnels", "transports", "ipsec", "ike", "interface", "url")
        output.print_table(columns, (tuple(_cell(row[name]) for name in names) for row in rows))
    raise typer.Exit(0 if rows else 1)


def _asked(
    *,
    way: list[str] | None,
    scope: list[str] | None,
    agent: list[str] | None,
    option: int,
    seconds: float,
    predicate: str,
) -> DiscoverSection:
    """What the options say, checked as a configuration is."""
    from pydantic import ValidationError

    from isthmus.daemon.config.discovery import DiscoverSection
    from isthmus.errors import WireError
    from isthmus.wire.slp import predicate as predicates

    given = {"ways": way, "scopes": scope, "agents": agent}
    try:
        predicates.parse(predicate)
        return DiscoverSection.model_validate(
            {name: value for name, value in given.items() if value} | {"option": option, "seconds": seconds}
        )
    except WireError as error:
        output.fail(f"--predicate: {error.problem}")
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).removesuffix("s") if len(first["loc"]) > 1 else str(first["loc"][0])
        output.fail(f"--{name}: {first['msg']} (it says {first['input']!r})")


async def _everywhere(places: tuple[NearInterface, ...], asked: DiscoverSection, predicate: str) -> list[Found]:
    """Ask on every interface at once; what cannot be asked anywhere is an error, unless something was found."""
    from isthmus.daemon.discovery.finding import find_gateways
    from isthmus.errors import IsthmusError

    answers = await asyncio.gather(
        *(find_gateways(place, asked, predicate=predicate) for place in places), return_exceptions=True
    )
    found: list[Found] = []
    problems: list[BaseException] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            problems.append(answer)
        else:
            found.extend(answer)
    for problem in problems:
        if not isinstance(problem, IsthmusError) or not found:
            raise problem
    return found


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else value
