# SPDX-License-Identifier: BSD-3-Clause
"""A population from a route dump: an AS is a site, its provider a region, and a country is known or guessed.

A dump says nothing of countries. A registry's file does; without one each provider, with
all its customers, is put into a country by chance, larger countries more often.
"""

from __future__ import annotations

import numpy as np

from isthmus.sim.dump import UNKNOWN, Dump
from isthmus.sim.generator import Shape, exponent_for, ordinals, regions_of, zipf
from isthmus.sim.lookup import Indices
from isthmus.sim.plan import Plan
from isthmus.sim.population import Marks, Population


def populate(dump: Dump, *, countries: int, registry: dict[range, str] | None = None, seed: int = 0) -> Population:
    """Make a population of a dump.

    Args:
        dump: Prefixes, their origins and providers.
        countries: Into how many to put the providers, where no registry says.
        registry: AS numbers to countries; those that it does not have are one country more.
        seed: For what chance decides.

    Raises:
        ValueError: more countries or sites than an address can tell apart.
    """
    chance = np.random.default_rng(seed)
    keys = np.array([*dump.ways], np.int64).reshape(-1, 2)
    ways = list(dump.ways.values())
    # Several origins: the one that was seen first has the site.
    systems, site = np.unique(np.array([each[0][0] for each in ways], np.int64), return_inverse=True)
    provider = _providers(dump, systems)
    if registry is not None:
        country = _registered(systems, registry)
    elif (provider == UNKNOWN).all():
        countries = min(countries, len(systems))
        shares = zipf(len(systems), countries, exponent_for(Shape().largest_country, countries))
        country = chance.permutation(np.repeat(np.arange(1, countries + 1), shares))
    else:
        country = _guessed(provider, countries, chance)
    plan = Plan.holding(int(country.max()))
    region = _regions(country, provider, plan)
    place = country << plan.region_bits | region
    order = np.argsort(place, kind="stable")
    code = np.empty(len(place), np.int64)
    code[order] = ordinals(place[order])
    return Population(
        plan=plan,
        number=keys[:, 0].astype(np.uint64),
        length=keys[:, 1].astype(np.uint8),
        site=site.astype(np.int64),
        country=country,
        region=region,
        code=code,
        several=_several(dump),
    )


def _several(dump: Dump) -> Marks:
    """Mark the prefixes with more than one origin, or more than one provider before it."""
    return np.array(
        [
            len({origin for origin, _ in ways}) > 1 or len({provider for _, provider in ways} - {UNKNOWN}) > 1
            for ways in dump.ways.values()
        ],
        bool,
    )


def _providers(dump: Dump, systems: Indices) -> Indices:
    """Give the provider through which most prefixes of each system are seen, the lowest number of several."""
    pairs = np.array([pair for ways in dump.ways.values() for pair in ways if pair[1] != UNKNOWN], np.int64)
    found = np.full(len(systems), UNKNOWN)
    if len(pairs):
        each, counts = np.unique(pairs, axis=0, return_counts=True)
        # Last written stays: the most frequent, of those the lowest.
        order = np.lexsort((-each[:, 1], counts))
        known = order[np.isin(each[order, 0], systems)]
        found[np.searchsorted(systems, each[known, 0])] = each[known, 1]
    return found


def _registered(systems: Indices, registry: dict[range, str]) -> Indices:
    """Number the countries by how many systems each has."""
    starts = sorted(registry, key=lambda each: each.start)
    first = np.array([each.start for each in starts])
    places = np.searchsorted(first, systems, side="right") - 1
    names = np.array(
        [
            registry[starts[at]] if at >= 0 and system in starts[at] else "ZZ"
            for system, at in zip(systems.tolist(), places.tolist(), strict=True)
        ]
    )
    return _ranks(np.unique(names, return_inverse=True)[1])


def _guessed(provider: Indices, countries: int, chance: np.random.Generator) -> Indices:
    groups, inverse = np.unique(provider, return_inverse=True)
    weights = 1 / np.arange(1, countries + 1, dtype=float) ** exponent_for(Shape().largest_country, countries)
    drawn = chance.choice(countries, len(groups), p=weights / weights.sum())
    return _ranks(drawn[inverse])


def _ranks(groups: Indices) -> Indices:
    """Number groups from 1, the most frequent first."""
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    return rank[inverse]


# Silent: nobody says what a country does that has more providers than an address can tell apart; the small
# ones share the regions of larger ones here, as at the metropolitan exchanges of seed IPAE 4.1.
def _regions(country: Indices, provider: Indices, plan: Plan) -> Indices:
    region = np.empty(len(country), np.int64)
    for each in np.unique(country):
        there = np.flatnonzero(country == each)
        if (provider == UNKNOWN).all():
            region[there] = regions_of(len(there), plan, Shape())
        else:
            region[there] = (_ranks(provider[there]) - 1) % plan.regions + 1
    return region
