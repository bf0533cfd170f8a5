# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus map``: mapping tables, from a file to a running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import output

if TYPE_CHECKING:
    from isthmus.border.mapping import Mapping
    from isthmus.ipae.mapping import OwnNetwork, Table

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A mapping file.")]


@app.callback()
def tables() -> None:
    """Check, compare and apply mapping tables: which SIP site an IPv4 network belongs to.

    A mapping file has one entry a line, '129.144.0.0/16 c1.2.2.8': an IPv4 prefix and what stands
    above its addresses. A file with anything wrong in it is refused whole.
    """


@app.command()
@output.plain_errors
def check(
    file: File,
    *,
    own: Annotated[
        list[str] | None,
        typer.Option("--own", metavar="PREFIX", help="A network behind your border; may be given again."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option("--site", metavar="UPPER", help="Your site, as 1.213.77.5: own networks may be mapped to it."),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Say whether a daemon would take a file, and every reason if it would not.

    Refused are: lines that are no entries, bits beyond a prefix length, countries 0 and 127, networks
    that no site has, a prefix with two images, and own networks that are mapped to another site. The exit
    status is 1 if there is any.
    """
    from isthmus.daemon.mapping_table import read_table
    from isthmus.ipae.mapping import MappingRefused

    try:
        table = read_table(file, _own(own or [], site))
    except MappingRefused as error:
        if as_json:
            faults = [{"place": each.place, "reason": each.reason} for each in error.faults]
            output.print_json({"ok": False, "faults": faults})
        for each in () if as_json else error.faults:
            typer.echo(f"{file}: {each}")
        raise typer.Exit(1) from error
    described = _described(table)
    if as_json:
        output.print_json({"ok": True, **described})
        return
    serial = "no serial number" if table.serial is None else f"serial {table.serial}"
    typer.echo(f"{_entries(described)}, {serial}")
    typer.echo(f"digest {described['digest']}")
    typer.echo(f"kernel plane: 64 MiB, and 1 KiB for each /24 that is cut up: {described['chunks']}")


@app.command()
@output.plain_errors
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A mapping file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The one that is to come in its place.")],
    *,
    as_json: output.Json = False,
) -> None:
    """Show what a new file adds (+), removes (-) and changes (~)."""
    from isthmus.daemon.mapping_table import read_table

    difference = read_table(old).mapping.diff(read_table(new).mapping)
    changes = list(zip(difference.before, difference.after, strict=True))
    if as_json:
        output.print_json(
            {
                "added": _rows(difference.added),
                "removed": _rows(difference.removed),
                "changed": [
                    {"prefix": str(before.prefix), "before": _upper(before), "after": _upper(after)}
                    for before, after in changes
                ],
            }
        )
        return
    lines = [
        *((entry.prefix, f"+ {entry.prefix} {_upper(entry)}") for entry in difference.added),
        *((entry.prefix, f"- {entry.prefix} {_upper(entry)}") for entry in difference.removed),
        *((before.prefix, f"~ {before.prefix} {_upper(before)} -> {_upper(after)}") for before, after in changes),
    ]
    for _, line in sorted(lines):
        typer.echo(line)
    counts = len(difference.added), len(difference.removed), len(difference.after)
    typer.echo("{} added, {} removed, {} changed".format(*counts), err=True)


@app.command()
@output.plain_errors
def apply(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A mapping file. Default: that of the daemon's configuration, again."),
    ] = None,
    *,
    realm: Annotated[
        str | None, typer.Option("--realm", metavar="NAME", help="The IPv4 realm, if several have a table.")
    ] = None,
    socket: output.Socket = None,
    as_json: output.Json = False,
) -> None:
    """Let a running daemon use a file, whole or not at all.

    The daemon reads and checks it beside the table that it has, and then changes what differs; no packet
    sees anything but the old table or the new one. At its next start the daemon reads the file of its configuration.
    """
    request: dict[str, Any] = {"do": "remap"}
    if file is not None:
        request["path"] = str(file.resolve())
    if realm is not None:
        request["realm"] = realm
    answer = output.ask(socket, **request)
    if as_json:
        output.print_json(answer)
        return
    counts = "{added} added, {removed} removed, {changed} changed".format(**answer)
    typer.echo(f"{answer['realm']}: {counts}; {_entries(answer)}")
    typer.echo(f"digest {answer['digest']}")


@app.command()
@output.plain_errors
def show(
    address: Annotated[
        str | None, typer.Argument(metavar="[ADDRESS]", help="An IPv4 address: say which entry decides about it.")
    ] = None,
    *,
    socket: output.Socket = None,
    as_json: output.Json = False,
) -> None:
    """Show the tables of a running daemon: where they came from, which version, and what DNS made of packets."""
    request: dict[str, Any] = {"do": "mappings"}
    if address is not None:
        request["lookup"] = str(output.ip_address("ADDRESS", address))
    rows = output.ask(socket, **request)
    if as_json:
        output.print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['realm']}: {_entries(row)}")
        typer.echo(f"    digest {row['digest']}")
        for source in row["sources"]:
            serial = "" if source["serial"] is None else f", serial {source['serial']}"
            typer.echo(f"    {source['entries']} from {source['name']}{serial}")
        for outcome, count in row.get("dns", {}).get("missed", {}).items():
            typer.echo(f"    {count} packets without a mapping: {outcome}")
        if address is not None:
            found = row["found"]
            typer.echo(f"    {address}: " + (f"{found['prefix']} to {found['image']}" if found else "not mapped"))


@app.command()
@output.plain_errors
def zone(
    file: File,
    *,
    origin: Annotated[str, typer.Option("--origin", metavar="NAME", help="The zone's name.")],
    server: Annotated[str, typer.Option("--server", metavar="NAME", help="Its nameserver.")] = "ns",
    address: Annotated[
        str | None, typer.Option("--address", metavar="IPV4", help="The nameserver's, if its name is in the zone.")
    ] = None,
    ttl: Annotated[int, typer.Option("--ttl", min=1, max=604800, help="Of every record, in seconds.")] = 3600,
    text: Annotated[bool, typer.Option("--text", help="Write TXT records, for servers without unknown types.")] = False,
) -> None:
    """Write a file as a DNS zone, to be served by any nameserver.

    The serial number is that of the file, or 1.
    """
    import dns.exception

    from isthmus.daemon.mapping_table import read_table
    from isthmus.ipae.records import ZoneHead, zone_lines

    table = read_table(file)
    head = ZoneHead(origin=origin, serial=table.serial or 1, server=server, address=address, ttl=ttl)
    try:
        for line in zone_lines(table.mapping, head, as_text=text):
            typer.echo(line)
    except dns.exception.DNSException as error:
        output.fail(f"--origin: {error}")


def _own(prefixes: list[str], site: str | None) -> list[OwnNetwork]:
    from isthmus.address import Address, Family, Prefix, parse_upper
    from isthmus.ipae.mapping import OwnNetwork

    try:
        upper = None if site is None else Prefix(Address(Family.SIP, parse_upper(site) << 32), 32)
    except ValueError as error:
        output.fail(f"--site: {error}")
    try:
        return [OwnNetwork(Prefix.parse(each), upper) for each in prefixes]
    except ValueError as error:
        output.fail(f"--own: {error}")


def _described(table: Table) -> dict[str, Any]:
    from isthmus.border.mapping import chunks_needed

    return {
        "entries": len(table.mapping),
        "serial": table.serial,
        "digest": table.mapping.digest,
        "octets": table.mapping.octets,
        "chunks": chunks_needed(table.mapping),
    }


def _entries(row: dict[str, Any]) -> str:
    return "1 entry" if row["entries"] == 1 else f"{row['entries']} entries"


def _upper(entry: Any) -> str:
    from isthmus.address import upper_text

    return upper_text(entry.image.address.upper)


def _rows(mapping: Mapping) -> list[dict[str, str]]:
    return [{"prefix": str(entry.prefix), "upper": _upper(entry)} for entry in mapping]
