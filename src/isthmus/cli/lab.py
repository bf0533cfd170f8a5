# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus lab``: networks of namespaces on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import output
from isthmus.daemon.control import RUN_VARIABLE
from isthmus.errors import IsthmusError
from isthmus.lab import lab, privilege
from isthmus.lab.lab import Lab, records, standing
from isthmus.lab.scenario import Scenario, Setting, play
from isthmus.lab.scenarios import SCENARIOS
from isthmus.lab.topology import NETNS, PREFIX

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Networks of namespaces to try and test isthmus in.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A scenario; 'isthmus lab list' has them.")]


@app.command(name="list")
@output.plain_errors
def list_scenarios(*, as_json: output.Json = False) -> None:
    """List the scenarios, and the clauses that each shows at work."""
    entries = [scenario.entry() for scenario in SCENARIOS.values()]
    if as_json:
        output.print_json(entries)
    else:
        output.print_table(
            ("NAME", "TITLE", "SHOWS"), [(each["name"], each["title"], ", ".join(each["shows"])) for each in entries]
        )


@app.command()
@output.plain_errors
def run(
    name: Name,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Stay up with a live view until Ctrl-C.")] = False,
    plane: Annotated[str, typer.Option(help="auto, kernel or reference.")] = "auto",
    as_json: output.Json = False,
) -> None:
    """Build the network of a scenario, play it, say what held, and take everything away.

    The exit status is 0 if all checks hold and 1 if one does not. Without root it runs inside an
    unprivileged user namespace, on the reference plane.
    """
    scenario = _scenario(name)
    setting = _setting(scenario, plane)
    if as_json:
        result = play(scenario, setting)
        output.print_json(result.entry())
    else:
        from isthmus.lab import view

        def stay(lab: Lab) -> None:
            view.print_summary(lab)
            if watch:
                view.watch(lab)

        typer.echo(f"{scenario.title}\n")
        result = play(scenario, setting, watcher=view.print_check, stay=stay)
        view.print_end(result)
    raise typer.Exit(0 if result.ok else 1)


@app.command()
@output.plain_errors
def up(name: Name, *, plane: Annotated[str, typer.Option(help="auto, kernel or reference.")] = "auto") -> None:
    """Build the network of a scenario, start its daemons, and leave it standing.

    'isthmus lab shell NODE' is a shell in one of its nodes, where commands find that node's daemon
    without --socket; 'isthmus lab down' takes it away.
    """
    scenario = _scenario(name)
    if privilege.setting() is None:
        output.fail("lab up needs root: a user namespace ends with the process that made it; use 'isthmus lab run'")
    with standing(scenario.network, keep=True) as network:
        scenario.start(network, _setting(scenario, plane))
    nodes = [node.name for node in scenario.network.nodes if not node.segment]
    typer.echo(f"{name} is up: {', '.join(nodes)}")
    typer.echo(f"  isthmus lab shell {nodes[0]}")
    serving = [name for name in nodes if network[name].socket_path.exists()]
    asked = "routes" if any("IPAE" in each for each in scenario.shows) else "leases"
    for each in serving[:1]:
        typer.echo(f"  isthmus lab shell {each} -- isthmus {asked}")
    typer.echo(f"  isthmus lab down {name}")


@app.command(context_settings={"ignore_unknown_options": True})
@output.plain_errors
def shell(
    node: Annotated[str, typer.Argument(metavar="[NAME/]NODE", help="A node of a network that is up.")],
    command: Annotated[list[str] | None, typer.Argument(metavar="[-- CMD...]", help="Instead of a shell.")] = None,
) -> None:
    """Open a shell, or run a command, in a node of a network that is up."""
    name, _, wanted = node.rpartition("/")
    found = [
        (record, space)
        for record in records()
        for space in record.namespaces
        if space == f"{PREFIX}-{record.name}-{wanted}" and name in ("", record.name)
    ]
    if not found:
        there = [
            f"{record.name}/{space.removeprefix(f'{PREFIX}-{record.name}-')}"
            for record in records()
            for space in record.namespaces
        ]
        output.fail(f"there is no node {node!r}; {'there are ' + ', '.join(there) if there else 'no network is up'}")
    # Those that stand by themselves are meant, not those that a test or a 'lab run' plays with.
    found = [each for each in found if not each[0].maker] if any(not each[0].maker for each in found) else found
    if len(found) > 1:
        output.fail(
            f"{node!r} is in several networks; write one of {', '.join(f'{r.name}/{wanted}' for r, _ in found)}"
        )
    record, space = found[0]
    environment = {**os.environ, "PS1": f"{record.name}/{wanted}$ ", "ISTHMUS_NODE": wanted}
    path = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")))
    own = lab.HOME / record.name / wanted / "run"
    if own.is_dir():
        environment[RUN_VARIABLE] = str(own)
    words = command or ["bash", "--norc", "-i"]
    os.execvpe("nsenter", ["nsenter", f"--net={NETNS / space}", "--", *words], {**environment, "PATH": path})  # noqa: S606


@app.command()
@output.plain_errors
def down(name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this one.")] = None) -> None:
    """Take away every network that nobody keeps, also what a killed lab has left."""
    removed = lab.down(name)
    nothing = "No network was up." if name is None else f"No network {name} was up."
    typer.echo("\n".join(f"{each} is gone" for each in removed) or nothing)


def _scenario(name: str) -> Scenario:
    if name not in SCENARIOS:
        output.fail(f"{name!r} is no scenario; there are {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def _setting(scenario: Scenario, plane: str) -> Setting:
    """Say how it can be played here, or go on inside a user namespace, or give up with the reason."""
    setting = privilege.setting()
    if setting is None:
        if scenario.root:
            output.fail(f"{scenario.name} needs root: it starts servers under several users")
        typer.echo(privilege.NOTICE, err=True)
        raise typer.Exit(privilege.enter(sys.argv[1:]))
    if missing := privilege.missing_tools():
        raise IsthmusError(missing)
    if plane == "auto":
        return setting
    if plane not in ("kernel", "reference"):
        output.fail(f"--plane {plane!r} is none of auto, kernel, reference")
    return Setting(plane=plane, root=setting.root)
