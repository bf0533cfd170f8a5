# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus check``: replay a capture through a plane, and compare with what should come of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isthmus.cli import output

if TYPE_CHECKING:
    from isthmus.border.realm import Border
    from isthmus.cli.replay import Arrival, Outcome, RealmOf, Standing
    from isthmus.daemon.config import Config
    from isthmus.wire.pcapng import Frame

_SHOWN_DIFFERENCES = 10


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of a replay."""

    border: Border
    rows: list[tuple[Arrival, Outcome]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[int, str]:
        """The realms' names by number."""
        return {each.number: each.name for each in self.border.realms}

    @property
    def sent(self) -> list[tuple[float, int, bytes]]:
        """What the plane sent, in order: time, realm, packet."""
        return [
            (arrival.time, outcome.realm, packet)
            for arrival, outcome in self.rows
            if outcome.realm is not None
            for packet in outcome.packets
        ]


@output.plain_errors
def check(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration, as for 'isthmus up'.")],
    capture: Annotated[Path, typer.Argument(metavar="CAPTURE", help="pcap or pcapng: what arrived.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT", help="A capture of what must be sent, in order.")
    ] = None,
    counters: Annotated[
        Path | None, typer.Option("--counters", metavar="FILE", help="TOML: REASON = packets, for all that are not 0.")
    ] = None,
    plane: Annotated[
        Literal["reference", "kernel", "both"], typer.Option(help="Which plane; both are compared octet for octet.")
    ] = "reference",
    leases: Annotated[
        Path | None, typer.Option("--leases", metavar="FILE", help="TOML: registered, [[bindings]]; see above.")
    ] = None,
    state: output.State = None,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", metavar="FILE", help="A mapping file, instead of the configured one.")
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address", metavar="REALM=ADDRESS/LENGTH", help="What an interface has where the capture was taken."
        ),
    ] = None,
    realm: Annotated[
        str | None, typer.Option("--realm", metavar="NAME", help="The realm that every packet arrived in.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Judge every packet at this time, not at its own.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write what comes of it to --out and --counters instead of comparing.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Replay a capture through a plane: a verdict with its reason for every packet, and the counters.

    The plane is made from the configuration. What is leased comes from --leases, from --state, or from the
    store that the configuration names, if it is there. Leases in a file have the form of tests/fixtures/scenes:
    owner = "private 10.0.0.4", id = 1, local = "149.112.240.55", ports = "10000-10063".

    An IPAE border router or node has its routes, its mapping file and its fixed aliases; not what a zone, a routing
    daemon or a DNS question would add. The interfaces have the addresses that they have on this machine; for a
    capture of another one, --address says them, once for each.

    A packet arrived in the realm that --realm says; else, in a capture of several interfaces, in the realm at the
    same place of the file as its interface; else in the near realm if it is for a tunnel end, and in the leased
    realm if not; with IPAE, where its tunnel ends, its source is, or its destination is not.

    With --out and --counters the result is compared. The exit status is 0 if everything is as it should be, 1 if
    not. --plane both compares the planes with each other; the kernel plane needs root.
    """
    from isthmus.cli import replay
    from isthmus.daemon.config import load

    loaded = load(config)
    if write and out is None and counters is None:
        output.fail("--write needs --out or --counters, or both: where to?")
    frames = replay.frames(capture)
    begin = _begin(frames, at)
    border, effects, realm_of = _standing(
        loaded, config, now=begin, leases=leases, state=state, mapping=mapping, addresses=address or []
    )
    names = [each.name for each in border.realms]
    if realm is not None and realm not in names:
        output.fail(f"--realm {realm!r} is none of {', '.join(names)}")
    arriving = list(replay.arrivals(frames, border, realm=realm, realm_of=realm_of))
    # The kernel reads its own clock, so that with it every packet is judged at the time of the first.
    report = _replay(border, effects, arriving, plane, begin, fixed=at is not None or plane != "reference")
    if write:
        _write(report, out, counters)
    else:
        _compare(report, out, counters)
    if as_json:
        output.print_json(_entry(report))
    else:
        _print(report)
    if report.differences:
        raise typer.Exit(1)


def _standing(
    config: Config,
    file: Path,
    *,
    now: float,
    leases: Path | None,
    state: Path | None,
    mapping: Path | None,
    addresses: list[str],
) -> tuple[Border, tuple[Standing, ...], RealmOf | None]:
    """What the plane knows before the first packet, of RSIP and of IPAE, and where packets come from."""
    from isthmus.cli import replay

    if config.border is None and config.node is None:
        effects = _effects(config, leases, state, now=now)
        return replay.border_of(config, effects), effects, None
    from isthmus.cli import replay_sip
    from isthmus.daemon.shared_plane import union

    found = replay_sip.situation(config, file, addresses=addresses, mapping=mapping, now=now)
    leased = _effects(config, leases, state, now=now) if config.gateway or config.host else ()
    if config.gateway is None and not leased:
        return found.border, found.effects, found.realm_of
    return union([replay.border_of(config, leased), found.border]), (*leased, *found.effects), found.realm_of


def _replay(
    border: Border, effects: tuple[Standing, ...], arriving: list[Arrival], plane: str, begin: float, *, fixed: bool
) -> Report:
    from isthmus.cli import replay

    makers = {"reference": (replay.reference,), "kernel": (replay.kernel,), "both": (replay.reference, replay.kernel)}
    report = Report(border=border)
    for make in makers[plane]:
        made = make(border, effects, begin)
        try:
            outcomes = [
                (each, replay.outcome(made.process(each.realm, each.packet, now=_now(each, begin, fixed=fixed))))
                for each in arriving
            ]
            counted = Counter({reason.name: count for reason, count in made.counters().items() if count})
        finally:
            made.close()
        if report.rows:
            report.differences += _planes_differ(report, outcomes, counted)
        else:
            report.rows, report.counters = outcomes, counted
    return report


def _effects(config: Config, leases: Path | None, state: Path | None, *, now: float) -> Any:
    from isthmus.cli import bindings_file, replay

    if leases is not None and state is not None:
        output.fail("give --leases or --state, not both")
    if leases is not None:
        return bindings_file.read(leases, replay.place_of(config), now=now)
    if state is not None:
        return replay.standing(state)
    named = config.isthmus.state.removeprefix("sqlite://")
    return replay.standing(Path(named)) if Path(named).is_file() else ()


def _begin(frames: list[Frame], at: str | None) -> float:
    """When the first packet came, or what was said, or now."""
    from isthmus.cli import replay

    if at is None:
        return replay.first_time(frames) or output.read_time("now")
    try:
        return output.read_time(at)
    except ValueError as error:
        output.fail(f"--at: {error}")


def _now(arrival: Arrival, begin: float, *, fixed: bool) -> float:
    return begin if fixed or not arrival.time else arrival.time


def _planes_differ(report: Report, others: list[tuple[Arrival, Outcome]], counted: Counter[str]) -> list[str]:
    from isthmus.cli import replay

    found = []
    # IPAE's slow path does much that is no answer: fragments, options, what waits for a name.
    of_sip = any(each.sip is not None for each in report.border.realms)
    for (arrival, ours), (_, theirs) in zip(report.rows, others, strict=True):
        if theirs.verdict == "punt" and (of_sip or ours.verdict in ("reply", "drop")):
            continue
        if replay.without_numbers(ours) == replay.without_numbers(theirs):
            continue
        found.append(f"packet {arrival.number}: reference {_words(ours)}, kernel {_words(theirs)}")
    if not found and not counted["PUNTED"] and counted != report.counters:
        found.append(f"counters: reference {dict(report.counters)}, kernel {dict(counted)}")
    return found


def _compare(report: Report, out: Path | None, counters: Path | None) -> None:
    from isthmus.cli import replay

    if out is not None:
        wanted, sent = replay.packets(out), [packet for _, _, packet in report.sent]
        for at, (want, got) in enumerate(zip(wanted, sent, strict=False), start=1):
            if want != got:
                report.differences.append(f"{out}: packet {at}: sent {got.hex()}, must be {want.hex()}")
        if len(wanted) != len(sent):
            report.differences.append(f"{out}: {len(sent)} packets were sent, {len(wanted)} must be")
    if counters is not None:
        should = _read_counters(counters)
        for name in sorted({*should, *report.counters}):
            if should.get(name, 0) != report.counters[name]:
                line = f"{counters}: {name} is {report.counters[name]}, must be {should.get(name, 0)}"
                report.differences.append(line)


def _read_counters(path: Path) -> dict[str, int]:
    import tomllib

    from isthmus.border.verdict import Reason

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        output.fail(f"{path} is not TOML: {error}")
    for name, count in table.items():
        if name not in Reason.__members__ or not isinstance(count, int):
            output.fail(f"{path}: {name} = {count!r}: write REASON = packets; 'isthmus explain' lists the reasons")
    return table


def _write(report: Report, out: Path | None, counters: Path | None) -> None:
    from isthmus.cli import replay

    if out is not None:
        replay.write(out, report.sent, report.border)
    if counters is not None:
        lines = [f"{name} = {count}\n" for name, count in sorted(report.counters.items())]
        counters.write_text("".join(lines), encoding="utf-8")


def _entry(report: Report) -> dict[str, Any]:
    names = report.names
    return {
        "ok": not report.differences,
        "packets": [
            {
                "number": arrival.number,
                "time": output.time_text(arrival.time or None) or None,
                "realm": names[arrival.realm],
                "verdict": outcome.verdict,
                "reason": outcome.reason.name,
                "to": None if outcome.realm is None else names[outcome.realm],
                "in": arrival.packet.hex(),
                "out": [each.hex() for each in outcome.packets],
            }
            for arrival, outcome in report.rows
        ],
        "counters": dict(report.counters),
        "differences": report.differences,
    }


def _print(report: Report) -> None:
    from isthmus.wire import text

    names = report.names
    rows = [
        (
            arrival.number,
            names[arrival.realm],
            outcome.verdict,
            outcome.reason.name,
            text.line(arrival.packet, ethertype=arrival.kind),
        )
        for arrival, outcome in report.rows
    ]
    output.print_table(("PACKET", "REALM", "VERDICT", "REASON", "WHAT"), rows)
    typer.echo("")
    output.print_table(("PACKETS", "REASON"), ((count, name) for name, count in report.counters.most_common()))
    for each in report.differences[:_SHOWN_DIFFERENCES]:
        typer.echo(f"differs: {each}")
    if len(report.differences) > _SHOWN_DIFFERENCES:
        typer.echo(f"... and {len(report.differences) - _SHOWN_DIFFERENCES} differences more; --json has all")


def _words(outcome: Outcome) -> str:
    sent = " ".join(each.hex() for each in outcome.packets)
    return f"{outcome.verdict} {outcome.reason.name} {sent}".rstrip()
