# SPDX-License-Identifier: BSD-3-Clause
"""What a person sees of a lab: checks as they are made, who holds what, and a live view."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.scenario import Check, Result
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import LabError

_EVERY_SECONDS = 1.5
_RECENT = 10

console = Console(highlight=False)


def print_check(check: Check) -> None:
    """Print one check, as soon as it is made."""
    mark = Text(" ok   ", style="green") if check.ok else Text(" FAIL ", style="bold red")
    seen = check.detail.partition("\n")[0]
    console.print(Text.assemble(mark, check.name, (f"  {seen}", "dim")), soft_wrap=True)


def print_end(result: Result) -> None:
    """Print what it all came to, and on failure what the daemons said."""
    failed = [check for check in result.checks if not check.ok]
    if failed and result.logs:
        console.print(Text(result.logs), soft_wrap=True)
    if result.ok:
        sentence = f"{result.scenario}: all {len(result.checks)} checks hold ({result.seconds:.1f} s)"
        console.print(Text(sentence, style="bold green"))
    else:
        names = "; ".join(check.name for check in failed) or "nothing was checked"
        sentence = f"{result.scenario}: {len(failed)} of {len(result.checks)} checks do not hold: {names}"
        console.print(Text(sentence, style="bold red"), soft_wrap=True)


def print_summary(lab: Lab) -> None:
    """Print who leased what, and whom the server saw, as far as the network has these."""
    parts = [table(lab) for node, table in (("gateway", _leases), ("server", _requests)) if node in lab.nodes]
    console.print(Group(Text(), *(each for part in parts for each in (part, Text()))))
    console.print(_planes(lab))


def watch(lab: Lab) -> None:
    """Let the hosts fetch again and again and show what happens, until Ctrl-C."""
    if not {"gateway", "server", *figure.HOSTS} <= lab.nodes.keys():
        console.print("There is no live view of this network.")
        return
    try:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                began = time.monotonic()
                two_hosts.fetch_at_once(lab)
                live.update(_picture(lab), refresh=True)
                time.sleep(max(0.1, _EVERY_SECONDS - (time.monotonic() - began)))
    except KeyboardInterrupt:
        console.print("taking everything away ...")


def _planes(lab: Lab) -> Text:
    planes = {name: node.plane for name, node in lab.nodes.items() if "isthmus" in node.daemons}
    return Text("Planes: " + ", ".join(f"{name} {plane}" for name, plane in planes.items()), style="dim")


def _picture(lab: Lab) -> Group:
    hint = Text("Ctrl-C ends it. In another terminal: isthmus lab shell host-a", style="dim")
    try:
        parts = (_leases(lab), Text(), _counters(lab), Text(), _requests(lab), Text(), _planes(lab), hint)
    except LabError as error:
        return Group(Text(str(error), style="red"), hint)
    return Group(*parts)


def _leases(lab: Lab) -> Table:
    table = _table("Who leased what", "host", "address", "ports", "client", "bind", "until")
    names = {address: name for name, address in figure.HOSTS.items()}
    for row in lab["gateway"].isthmus("leases"):
        host = str(row["host"])
        cells = (
            f"{names.get(host, '')} {host}",
            row["address"],
            _what(row),
            row["client_id"],
            row["bind_id"],
        )
        table.add_row(*map(str, cells), _clock(row.get("expires_at")))
    return table


def _what(row: dict[str, Any]) -> str:
    """What of its address a lease is for."""
    if row.get("method") == "RSA_IP":
        return "all"
    spis = f"SPIs {row['spis']}" if row.get("spis") else ""
    return ", ".join(filter(None, (row["ports"], spis))) or "IKE"


def _counters(lab: Lab) -> Table:
    table = _table("What the gateway counted", "packets", "reason")
    for reason, count in lab["gateway"].isthmus("counters").items():
        if count:
            table.add_row(str(count), reason)
    return table


def _requests(lab: Lab) -> Table:
    table = _table(f"Whom the server {figure.SERVER} saw", "time", "address", "port", "asked for", "leased to")
    held = two_hosts.leased_ports(lab)
    names = {address: name for name, address in figure.HOSTS.items()}
    for row in two_hosts.requests(lab)[-_RECENT:]:
        owners = [names.get(host, host) for host, ports in held.items() if row["port"] in ports]
        owner = owners[0] if row["peer"] == figure.SHARED and owners else "nobody"
        table.add_row(_clock(row["at"]), row["peer"], str(row["port"]), f"{row['kind']} {row['path']}", owner)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _clock(when: Any) -> str:
    """A time of day in the zone of this machine."""
    if when is None or when == "forever":
        return "forever"
    moment = datetime.fromisoformat(when) if isinstance(when, str) else datetime.fromtimestamp(when, tz=UTC)
    return moment.astimezone().strftime("%H:%M:%S")
