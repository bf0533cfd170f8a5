# SPDX-License-Identifier: BSD-3-Clause
"""The claim of seed IPAE 8.1, measured on one population: sizes, times, exceptions, a move.

The two tables that are compared hold the same population and answer for the same destinations,
with the same structure (``lookup``). The router is by default the worst off: one in the largest
region of the largest country.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.sim.claim import TENFOLD, Formula
from isthmus.sim.lookup import NO_ROUTE, Indices, Routes, Table
from isthmus.sim.move import Move, move
from isthmus.sim.population import Population
from isthmus.sim.router import NONE, Router, Spread, spread

EXCEPTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of the prefixes that are tried as exceptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A table that was built and asked."""

    name: str
    entries: int
    octets: int
    "Memory of the built table."
    nanoseconds: float
    "Time of one lookup, measured: it changes from run to run, all else does not."
    unreached: int
    "Destinations, of those that were asked for, which have no route."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The router's table with so many prefixes as exceptions."""

    exceptions: float
    ratio: float
    size: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Sites of a kind that stay visible everywhere, in one of two ways."""

    kind: str
    sites: int
    networks: int
    by_site: float
    "How many times smaller than the flat table if each site is one exception ..."
    by_network: float
    "... and if each of their networks is one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything that was found."""

    countries: int
    regions: int
    sites: int
    prefixes: int
    aggregated: int
    "Prefixes that are left where those inside another one of their site go: aggregation without renumbering."
    country: int
    region: int
    "Where the router is."
    formula: Formula
    "What spec 7.1 calculates with: averages."
    with_regions: Spread
    without_regions: Spread
    flat: Size
    sip: Size
    sip_without_regions: Size
    mapping: Size
    "The mapping table whole, after aggregation: an entry for each prefix that it needs."
    steps: tuple[Step, ...]
    failing_prefixes: float
    "Share of prefixes as exceptions above which this router's table is not ten times smaller; 0 if never."
    failing_sites: float | None
    "Share of sites, each one exception; None if even all of them would not make it fail."
    kept: tuple[Kept, ...]
    move: Move | None
    "None with fewer than two regions."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for, beside the population."""

    at: tuple[int, int] | None = None
    "Country and region of the router; by default the largest region of the largest country."
    exceptions: Sequence[float] = EXCEPTIONS
    moved: float = 0.0
    "Share of sites that have moved and kept their address."
    multihomed: float = 0.0
    "Share of sites that stay reachable at one address through two providers."
    lookups: int = 1_000_000
    rounds: int = 5
    seed: int = 0


def measure(people: Population, wish: Wish) -> Result:
    """Build the tables of one border router and of a flat one, and measure both (spec 7.1).

    Raises:
        ValueError: there is no such region.
    """
    site = _router(people, wish.at)
    router = Router(population=people, site=site)
    coarse = Router(population=people, site=site, region_level=False)
    order = np.random.default_rng(wish.seed + 1).permutation(people.networks)
    flat, needed = people.flat(), people.without_needless()
    mapping = Routes(number=flat.number[needed], length=flat.length[needed], bits=32)
    local = int(np.ceil(people.networks / people.sites))
    own = int(people.country[site])
    asked = [
        ("flat IPv4", flat),
        ("IPAE", router.sip()),
        ("IPAE without regions", coarse.sip()),
        ("mapping table", mapping),
        *(
            (f"IPAE, {share:.1%} exceptions", router.sip(order[: round(share * people.networks)]))
            for share in wish.exceptions
        ),
    ]
    sizes = _sizes(people, asked, wish)
    return Result(
        countries=len(np.unique(people.country)),
        regions=len(np.unique(people.place)),
        sites=people.sites,
        prefixes=people.networks,
        aggregated=len(mapping),
        country=own,
        region=int(people.region[site]),
        formula=Formula(
            prefixes=people.networks,
            countries=len(np.unique(people.country)),
            regions=len(np.unique(people.region[people.country == own])),
            sites=int((people.country == own).sum()),
            local=local,
        ),
        with_regions=spread(people, local=local),
        without_regions=spread(people, local=local, region_level=False),
        flat=sizes[0],
        sip=sizes[1],
        sip_without_regions=sizes[2],
        mapping=sizes[3],
        steps=tuple(
            Step(exceptions=share, ratio=people.networks / size.entries, size=size)
            for share, size in zip(wish.exceptions, sizes[4:], strict=True)
        ),
        failing_prefixes=_failing_prefixes(router, order),
        failing_sites=_failing_sites(router),
        kept=tuple(_kept(router, wish)),
        move=_move(people),
    )


def _sizes(people: Population, asked: Sequence[tuple[str, Routes]], wish: Wish) -> list[Size]:
    """Build tables and time them in turn, round by round, so that a busy machine disturbs all alike."""
    ipv4, sip = people.addresses(wish.lookups, wish.seed)
    built = [(Table.of(routes), ipv4 if routes.bits == 32 else sip) for _, routes in asked]
    times = [[table.lookup_seconds(addresses) for table, addresses in built] for _ in range(wish.rounds)]
    return [
        Size(
            name=name,
            entries=len(routes),
            octets=table.octets,
            nanoseconds=min(each[at] for each in times) * 1e9,
            unreached=int((table.lookup(addresses) == NO_ROUTE).sum()),
        )
        for at, ((name, routes), (table, addresses)) in enumerate(zip(asked, built, strict=True))
    ]


def _router(people: Population, at: tuple[int, int] | None) -> int:
    """Choose the site of the region that has as many networks as most: the median."""
    if at is None:
        country = int(np.bincount(people.country).argmax())
        region = int(np.bincount(people.region[people.country == country]).argmax())
    else:
        country, region = at
    there = np.flatnonzero((people.country == country) & (people.region == region))
    if not len(there):
        raise ValueError(f"there is no region {country}.{region}")
    return int(there[np.argsort(people.networks_of[there], kind="stable")[len(there) // 2]])


def _failing_prefixes(router: Router, order: Indices) -> float:
    """Count through the prefixes in the order in which they become exceptions."""
    people = router.population
    entries = router.entries() + np.cumsum(people.site[order] != router.site)
    if router.entries() * TENFOLD > people.networks:
        return 0.0
    return int(np.searchsorted(entries * TENFOLD, people.networks, side="right")) / people.networks


def _failing_sites(router: Router) -> float | None:
    people = router.population
    room = people.networks // TENFOLD - router.entries()
    if room >= len(router.unseen(np.arange(people.sites))):
        return None
    return max(0, room) / people.sites


def _kept(router: Router, wish: Wish) -> list[Kept]:
    """Build the tables in which the exceptional sites of each kind, and of all, are visible."""
    people = router.population
    order = np.random.default_rng(wish.seed + 2).permutation(people.sites)
    moved = order[: round(wish.moved * people.sites)]
    multihomed = order[len(moved) :][: round(wish.multihomed * people.sites)]
    seen = np.flatnonzero(people.several)
    kinds = {
        "moved": (moved, _networks(people, moved)),
        "multi-homed": (multihomed, _networks(people, multihomed)),
        "multi-homed, in the dump": (np.unique(people.site[seen]), seen),
    }
    there = {kind: parts for kind, parts in kinds.items() if len(parts[0])}
    if len(there) > 1:
        sites, networks = zip(*there.values(), strict=True)
        there["all of these"] = (np.unique(np.concatenate(sites)), np.unique(np.concatenate(networks)))
    return [
        Kept(
            kind=kind,
            sites=len(sites),
            networks=len(networks),
            by_site=people.networks / len(router.sip(NONE, sites)),
            by_network=people.networks / len(router.sip(networks)),
        )
        for kind, (sites, networks) in there.items()
    ]


def _networks(people: Population, sites: Indices) -> Indices:
    return np.flatnonzero(np.isin(people.site, sites))


def _move(people: Population) -> Move | None:
    """Move a site of the largest country, with as many networks as the average, to the largest other one.

    Where there is one country only, it goes to another region of it.
    """
    countries = np.bincount(people.country)
    home = int(countries.argmax())
    candidates = np.flatnonzero(people.country == home)
    mean = people.networks / people.sites
    site = int(candidates[np.abs(people.networks_of[candidates] - mean).argmin()])
    countries[home] = 0
    elsewhere = people.country == countries.argmax() if countries.any() else people.place != people.place[site]
    if not elsewhere.any():
        return None
    places, sites = np.unique(people.place[elsewhere], return_counts=True)
    # The one with the most sites that still has a code to give.
    room = np.where(sites < people.plan.sites, sites, 0)
    place = int(places[room.argmax()])
    return move(people, site, place >> people.plan.region_bits, place & people.plan.regions)
