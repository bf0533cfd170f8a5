# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus address``: a SIP address in every form that something else wants it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import output

if TYPE_CHECKING:
    from isthmus.address import Prefix
    from isthmus.ipae.neutral import Sockets

_LABELS = {
    "sip": "SIP",
    "hex": "hexadecimal",
    "c": "C bit",
    "site": "site",
    "ipv4": "IPv4",
    "ipv6": "IPv6 of programs",
    "ipv6_compatible": "the same, with a peer of C = 1",
    "dns": "DNS record",
    "carried": "carried as",
}


@output.plain_errors
def address(
    texts: Annotated[list[str], typer.Argument(metavar="ADDRESS...", help="SIP addresses or prefixes, or IPv6.")],
    *,
    full: Annotated[str, typer.Option("--full", metavar="PREFIX", help="PF: 'full' of [node].")] = "",
    compatible: Annotated[str, typer.Option("--compatible", metavar="PREFIX", help="PC: 'compatible' of [node].")] = "",
    as_json: output.Json = False,
) -> None:
    """Show a SIP address or prefix in every form that something else wants it in.

    It is read in any notation of the sources: 1.213.77.5/192.3.4.1, c1.213.77.5/192.3.4.1, 129.213.77.5:192.3.4.1,
    01D5:4D05:C003:0401, 1D5:4D05:192.3.4.1; a prefix as 1.213.77.5, 1.213., 1.2.2.8/201.5.7.0/56; and from the IPv6
    address by which programs know it. Shown are the IPv6 address to give to a program, the data of a DNS record, and
    how routing daemons carry it. No daemon is asked.
    """
    from isthmus.ipae.neutral import Sockets

    given = {"full": full, "compatible": compatible}
    try:
        sockets = Sockets(**{name: _ipv6_prefix(text) for name, text in given.items() if text})
    except ValueError as error:
        output.fail(str(error))
    rows = [_described(_read(each, sockets), sockets) for each in texts]
    if as_json:
        output.print_json(rows)
        return
    for at, row in enumerate(rows):
        if at:
            typer.echo("")
        for key, value in row.items():
            said = f"{value}, {_C_WORDS[value]}" if key == "c" else value
            typer.echo(f"{_LABELS[key]:<32}{said}")


_C_WORDS = {0: "takes SIP", 1: "takes IPv4"}


def _ipv6_prefix(text: str) -> Prefix:
    from isthmus.address import Prefix

    return Prefix.parse(text)


def _read(text: str, sockets: Sockets) -> Prefix:
    """The SIP prefix, one of 64 bits if it is an address, that a text means."""
    from isthmus.address import Address, Family, Prefix
    from isthmus.ipae.routing import sip_prefix

    try:
        written = Prefix.parse(text)
    except ValueError:
        written = None
    if written is None or written.family is Family.IPV4:
        try:
            return Prefix.parse_sip(text)
        except ValueError as error:
            output.fail(str(error))
    found: Address | None = sockets.to_sip(written.address) if written.whole else None
    carried = Prefix.of(found) if found is not None else sip_prefix(written, sockets.full)
    if carried is None:
        output.fail(f"{text} stands for no SIP address: it is not under {sockets.full} or {sockets.compatible}")
    return carried


def _described(prefix: Prefix, sockets: Sockets) -> dict[str, Any]:
    from isthmus.address import upper_text
    from isthmus.ipae.records import HOST, emit_host, unknown_type_text
    from isthmus.ipae.routing import carried

    one = prefix.address
    as_ipv6 = str(carried(prefix, sockets.full))
    if not prefix.whole:
        return {"sip": str(prefix), "hex": prefix.hex, "carried": as_ipv6}
    row: dict[str, Any] = {
        "sip": str(one),
        "hex": one.hex,
        "c": int(one.c_bit),
        "site": upper_text(one.site.address.upper),
        "ipv4": str(one.low),
        "ipv6": str(sockets.name_of(one)),
    }
    if not one.c_bit:
        row["ipv6_compatible"] = str(sockets.to_ipv6(one, compatible=True))
    return row | {"dns": f"TYPE{int(HOST)} {unknown_type_text(emit_host(one))}", "carried": as_ipv6}
