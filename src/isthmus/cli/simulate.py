# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus simulate``: what the documents claim, measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import output

if TYPE_CHECKING:
    from isthmus.sim.population import Population
    from isthmus.sim.routing import Result, Size

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, help="What the documents claim, measured."
)


@app.callback()
def simulate() -> None:
    """Measure what the documents claim, on networks made by chance or taken from the Internet.

    Needs no root, and sends nothing.
    """


@app.command()
@output.plain_errors
def routing(
    *,
    countries: Annotated[int | None, typer.Option(min=1, metavar="K", help="How many there are. Default: 230.")] = None,
    prefixes: Annotated[
        int | None, typer.Option(metavar="F", help="IPv4 prefixes, the flat table. Default: 1,059,904.")
    ] = None,
    sites: Annotated[int | None, typer.Option(metavar="N", help="Sites of all countries. Default: 78,800.")] = None,
    largest: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the sites in the largest country. Default: 0.3.")
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the networks from a route dump: MRT (TABLE_DUMP_V2), or text: prefix origin-as [path].",
        ),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --dump: the 'delegated' file of a registry, which says whose country an AS is of.",
        ),
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(
            metavar="COUNTRY.REGION",
            help="Where the border router is. Default: the largest region of the largest country.",
        ),
    ] = None,
    exceptions: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="Shares of the prefixes that stay visible everywhere, 0 to 1, with commas between. "
            "Default: 0,0.01,0.02,0.05,0.1,0.2,0.5.",
        ),
    ] = None,
    moved: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of sites that moved and kept their address.")
    ] = 0.0,
    multihomed: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of sites that stay reachable at one address through two providers."),
    ] = 0.0,
    lookups: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many lookups are timed, five times.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same one gives the same network.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the result, too.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Only calculate the five known years by the formula, and build nothing.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Compare the routes of an IPAE border router with those of flat IPv4 (seed IPAE 8.1).

    Builds a network of countries, providers and sites, or takes one from a route dump, and gives both
    tables the same destinations. Shows entries, memory and measured lookup time, the share of exceptions at which
    the table is no longer ten times smaller, and what changes where when a site moves. All but the times
    is the same in each run.
    """
    if table:
        _years(as_json=as_json)
        return
    if plot is not None and plot.suffix.lower() != ".svg":
        output.fail(f"--plot {plot}: what is drawn is SVG; name it {plot.with_suffix('.svg').name}")
    if dump is None and registry is not None:
        output.fail("--registry says where the systems of a dump are: give --dump as well")
    made = {"--prefixes": prefixes, "--sites": sites, "--largest": largest}
    if dump is not None and (given := [name for name, value in made.items() if value is not None]):
        output.fail(f"{given[0]} is for networks made by chance: those of --dump are as they are")
    from isthmus.sim.plot import svg
    from isthmus.sim.routing import EXCEPTIONS, Wish, measure

    try:
        wish = Wish(
            at=_place(router) if router is not None else None,
            exceptions=_shares(exceptions) if exceptions is not None else EXCEPTIONS,
            moved=_share("--moved", moved),
            multihomed=_share("--multihomed", multihomed),
            lookups=lookups,
            seed=seed,
        )
        people = (
            _generated(countries=countries, prefixes=prefixes, sites=sites, largest_country=largest, seed=seed)
            if dump is None
            else _dumped(dump, registry, countries=countries, seed=seed)
        )
        result = measure(people, wish)
    except ValueError as error:
        output.fail(str(error))
    if plot is not None:
        plot.write_text(svg(result), encoding="utf-8")
    if as_json:
        calculated = {
            "entries": result.formula.entries(),
            "ratio": result.formula.ratio(),
            "failing_share": result.formula.failing_share(),
        }
        entry = asdict(result)
        output.print_json(entry | {"formula": entry["formula"] | calculated})
    else:
        _show(result)


def _generated(*, seed: int, **wanted: Any) -> Population:
    from isthmus.sim.generator import Shape, generate

    return generate(Shape(**{name: value for name, value in wanted.items() if value is not None}), seed)


def _dumped(path: Path, registry: Path | None, *, countries: int | None, seed: int) -> Population:
    from isthmus.sim.attachment import populate
    from isthmus.sim.dump import read_dump, read_registry
    from isthmus.sim.generator import Shape

    if registry is not None and countries is not None:
        raise ValueError("--countries: the registry says which countries there are")
    known = read_registry(registry) if registry is not None else None
    return populate(read_dump(path), countries=countries or Shape().countries, registry=known, seed=seed)


def _place(text: str) -> tuple[int, int]:
    country, _, region = text.partition(".")
    if not (country.isdecimal() and region.isdecimal()):
        raise ValueError(f"--router {text!r}: write country and region by number: 1.1")
    return int(country), int(region)


def _shares(text: str) -> list[float]:
    return [_share("--exceptions", each) for each in text.split(",")]


def _share(option: str, value: str | float) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{option}: {value!r} is no share: write a number from 0 to 1")
    return share


def _years(*, as_json: bool) -> None:
    from isthmus.sim.claim import YEARS

    rows = [
        {
            "name": year.name,
            "source": year.source,
            "prefixes": year.formula.prefixes,
            "entries": year.formula.entries(),
            "ratio": year.formula.ratio(),
            "entries_without_regions": year.formula.entries(region_level=False),
            "ratio_without_regions": year.formula.ratio(region_level=False),
            "ratio_at_1_percent": year.formula.ratio(0.01),
            "ratio_at_5_percent": year.formula.ratio(0.05),
            "failing_share": year.formula.failing_share(),
        }
        for year in YEARS
    ]
    if as_json:
        output.print_json(rows)
        return
    columns = ("DATA", "FLAT", "IPAE", "RATIO", "NO REGIONS", "RATIO", "1 % EXC.", "5 % EXC.", "FAILS ABOVE")
    output.print_table(columns, (_year_cells(row) for row in rows))


def _year_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['prefixes']:,}",
        f"{row['entries']:,.0f}",
        _times(row["ratio"]),
        f"{row['entries_without_regions']:,.0f}",
        _times(row["ratio_without_regions"]),
        _times(row["ratio_at_1_percent"]),
        _times(row["ratio_at_5_percent"]),
        f"{row['failing_share']:.1%}",
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _show(result: Result) -> None:
    for part in (_population, _tables, _exceptions, _kept, _move):
        part(result)


def _population(result: Result) -> None:
    typer.echo(
        f"{result.prefixes:,} prefixes of {result.sites:,} sites in {result.regions:,} regions of {result.countries} "
        f"countries.\nThe router is in region {result.country}.{result.region}.\n"
    )


def _tables(result: Result) -> None:
    def row(size: Size) -> tuple[str, ...]:
        ratio = result.prefixes / size.entries
        return (
            size.name,
            f"{size.entries:,}",
            _times(ratio),
            f"{size.octets / 1000:,.0f} kB",
            f"{size.nanoseconds:,.0f} ns",
            f"{size.unreached:,}",
        )

    columns = ("TABLE", "ENTRIES", "TIMES SMALLER", "MEMORY", "LOOKUP", "UNREACHED")
    output.print_table(columns, map(row, (result.flat, result.sip, result.sip_without_regions, result.mapping)))
    octets = result.sip.octets + result.mapping.octets
    typer.echo(
        "\nA border router that translates from IPv4 has the mapping table as well, unless it asks the DNS:\n"
        f"{octets / 1000:,.0f} kB for both, and {result.mapping.nanoseconds + result.sip.nanoseconds:,.0f} ns "
        "for both lookups. Other routers look up only once.\n"
    )


def _exceptions(result: Result) -> None:
    columns = ("EXCEPTIONS", "ENTRIES", "TIMES SMALLER", "MEMORY", "LOOKUP", "TENFOLD")
    output.print_table(columns, _steps(result))
    prefixes = f"above {result.failing_prefixes:.1%} of the prefixes" if result.failing_prefixes else "without any"
    sites = (
        "never, even with all sites"
        if result.failing_sites is None
        else f"above {result.failing_sites:.1%} of the sites"
        if result.failing_sites
        else "without any"
    )
    typer.echo(
        f"\nThe tenfold claim fails here {prefixes} as exceptions; where a site is one exception, {sites}.\n"
        f"By averages (spec 7.1): {result.formula.entries():,.0f} entries, {_times(result.formula.ratio())} times "
        f"smaller, fails above {result.formula.failing_share():.1%}."
    )
    for name, spread in (("with", result.with_regions), ("without", result.without_regions)):
        typer.echo(
            f"Routers of all {spread.regions:,} regions, {name} region routes: {spread.least:,} to {spread.most:,} "
            f"entries, median {spread.median:,}; the claim fails at {spread.failing:.1%} of them."
        )
    typer.echo("")


def _steps(result: Result) -> Iterator[tuple[str, ...]]:
    from isthmus.sim.claim import TENFOLD

    for step in result.steps:
        yield (
            f"{step.exceptions:.1%}",
            f"{step.size.entries:,}",
            _times(step.ratio),
            f"{step.size.octets / 1000:,.0f} kB",
            f"{step.size.nanoseconds:,.0f} ns",
            "holds" if step.ratio >= TENFOLD else "fails",
        )


def _kept(result: Result) -> None:
    if not result.kept:
        return
    columns = ("VISIBLE EVERYWHERE", "SITES", "PREFIXES", "TIMES SMALLER BY SITE", "BY PREFIX")
    rows = (
        (each.kind, f"{each.sites:,}", f"{each.networks:,}", _times(each.by_site), _times(each.by_network))
        for each in result.kept
    )
    output.print_table(columns, rows)
    typer.echo("")


def _move(result: Result) -> None:
    if result.move is None:
        return
    move = result.move
    typer.echo(f"A site with {move.networks} networks moves. Changes of routes, at {move.routers:,} border routers:\n")
    rows = (
        ("flat IPv4", f"{move.flat:,}", ""),
        ("IPAE, renumbered", f"{move.renumbered:,}", f"and {move.mapping} of the mapping table"),
        ("IPAE, address kept", f"{move.keeping:,}", "an exception from now on"),
    )
    output.print_table(("ROUTES", "CHANGES", ""), rows)
    typer.echo("")
    columns = ("RENUMBERED, SEEN FROM", "ROUTERS", "CHANGES EACH")
    output.print_table(columns, ((each.where, f"{each.routers:,}", each.changed) for each in move.shares))
