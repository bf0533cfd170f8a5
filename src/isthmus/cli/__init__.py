# SPDX-License-Identifier: BSD-3-Clause
"""The command line: one file per subcommand, each loaded when it is asked for.

An error that isthmus raises on purpose is one line on standard error and exit status 2;
status 1 means that what was asked is not so (a check that failed).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from isthmus.errors import IsthmusError

COMMANDS = {
    "up": "Run the daemon: an RSIP gateway or host, an IPAE border router or node.",
    "run": "Run one program on a leased address, in a namespace of its own.",
    "expose": "Publish a service of this machine at a leased address.",
    "query": "Ask the gateway what is local and what remote.",
    "find": "Find the gateways of this network, by DHCP and SLP.",
    "leases": "Show who holds what.",
    "who-had": "Say who held an address and port, now or at a time.",
    "revoke": "End leases before their time, and tell their hosts.",
    "nat": "Hosts without RSIP beside those with it.",
    "map": "Mapping tables: which SIP site an IPv4 network belongs to.",
    "routes": "Show where SIP packets go, and what becomes SIP.",
    "tunnels": "Show what is known of the ways to other IPAE systems.",
    "counters": "Show packets by reason.",
    "address": "Show a SIP address in every form that something else wants.",
    "decode": "Octets or a capture to text.",
    "check": "Replay a capture through a plane.",
    "explain": "Explain a drop reason, an RSIP error or a log message.",
    "doctor": "Say what this machine can do, and what to do about the rest.",
    "lab": "Networks of namespaces to try and test isthmus in.",
    "simulate": "What the documents claim, measured.",
    "bench": "Benchmarks, each beside what people use today.",
}
"""Name to summary, in the order of the help. ``who-had`` is ``cli/who_had.py``."""


class LazyGroup(TyperGroup):
    """Imports a subcommand's module when it is used, so that the program starts fast."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Every name, in order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Load one."""
        if cmd_name not in COMMANDS:
            return None
        word = cmd_name.replace("-", "_")
        module = importlib.import_module(f"isthmus.cli.{word}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(name=cmd_name)(getattr(module, word))
        command = get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the summaries without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def isthmus() -> None:
    """Join address realms: RSIP leases bindings, IPAE derives them from an address.

    A border stands between two realms. A binding says: packets matching this selector
    cross by this tunnel.
    """


def main() -> None:
    """The program's entry point."""
    try:
        app()
    except IsthmusError as error:
        print(f"isthmus: {error}", file=sys.stderr)
        raise SystemExit(2) from error
