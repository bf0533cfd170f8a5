# SPDX-License-Identifier: BSD-3-Clause
"""An internet made by chance: countries, providers and sites by Zipf's law (spec 7.1).

The sizes of countries, of the regions in each and of the sites are exact; chance says which site
has which size, where its networks lie among the IPv4 addresses, and which of them are exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.sim.lookup import Indices, Lengths, Numbers
from isthmus.sim.plan import Plan
from isthmus.sim.population import Population

MORE_SPECIFIC = 0.57
"""Share of networks that lie inside another one of their site (bgp.potaroo.net, April 2025: 57.4 %, of IPv6)."""

LENGTHS = {16: 0.02, 18: 0.02, 19: 0.04, 20: 0.08, 21: 0.09, 22: 0.20, 23: 0.15, 24: 0.40}
"""Lengths of the networks that lie in no other one, with shares like those of today's table."""

FIRST, AFTER = 1 << 24, 224 << 24
"""The IPv4 addresses that networks are taken from: 1.0.0.0 to 223.255.255.255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is built. The defaults are those of spec 7.1 for 2026."""

    countries: int = 230
    prefixes: int = 1_059_904
    sites: int = 78_800
    largest_country: float = 0.30
    "Share of all sites in the largest country; it determines the exponent. Never less than an equal share."
    region_sites: int = 16
    "A country has as many regions as give each this many sites, up to the 255 that there can be."
    region_exponent: float = 1.0
    "Zipf's exponent for the sizes of a country's regions."
    network_exponent: float = 0.7
    "Zipf's exponent for the networks of a site: the largest has about one in a hundred, as in the Internet."

    def __post_init__(self) -> None:
        """Refuse what cannot be shared out."""
        if not 1 <= self.countries <= self.sites <= self.prefixes:
            raise ValueError(
                f"{self.countries:,} countries, {self.sites:,} sites, {self.prefixes:,} prefixes: "
                "each country needs a site, and each site a prefix"
            )
        if not 0 < self.largest_country < 1:
            raise ValueError(f"the largest country cannot have {self.largest_country:.1%} of all sites")


def zipf(total: int, ranks: int, exponent: float) -> Indices:
    """Share a total among ranks in proportion to 1/rank**exponent, at least one each, largest first."""
    weights = 1 / np.arange(1, ranks + 1, dtype=float) ** exponent
    exact = weights / weights.sum() * (total - ranks)
    shares = np.floor(exact).astype(np.int64) + 1
    shares[np.argsort(shares - 1 - exact, kind="stable")[: total - int(shares.sum())]] += 1
    return np.sort(shares)[::-1]


def exponent_for(largest: float, ranks: int) -> float:
    """Find the exponent at which the first rank has this share of all, or 0 if that is less than an equal one."""
    low, high = 0.0, 20.0 if ranks > 1 else 0.0
    for _ in range(60):
        middle = (low + high) / 2
        share = 1 / (1 / np.arange(1, ranks + 1, dtype=float) ** middle).sum()
        low, high = (middle, high) if share < largest else (low, middle)
    return low


def generate(shape: Shape, seed: int = 0) -> Population:
    """Build the networks of a shape; the same seed gives the same ones.

    Raises:
        ValueError: the shape does not fit into IPv4, or into the bits of an address.
    """
    chance = np.random.default_rng(seed)
    plan = Plan.holding(shape.countries)
    exponent = exponent_for(shape.largest_country, shape.countries)
    of_countries = zipf(shape.sites, shape.countries, exponent)
    country = np.repeat(np.arange(1, shape.countries + 1), of_countries)
    region = np.concatenate([regions_of(int(sites), plan, shape) for sites in of_countries])
    code = ordinals(country << plan.region_bits | region)
    of_sites = chance.permutation(zipf(shape.prefixes, shape.sites, shape.network_exponent))
    number, length, site = _networks(of_sites, chance)
    return Population(
        plan=plan,
        number=number,
        length=length,
        site=site,
        country=country,
        region=region,
        code=code,
        several=np.zeros(len(number), bool),
    )


def regions_of(sites: int, plan: Plan, shape: Shape) -> Indices:
    """Number the region of each site of a country, by Zipf's law."""
    regions = min(plan.regions, max(1, sites // shape.region_sites))
    return np.repeat(np.arange(1, regions + 1), zipf(sites, regions, shape.region_exponent))


def ordinals(groups: Indices) -> Indices:
    """Count from 1 within each group; equal groups stand together."""
    begins = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    sizes = np.diff(np.append(begins, len(groups)))
    return np.arange(len(groups)) - np.repeat(begins, sizes) + 1


def _networks(of_sites: Indices, chance: np.random.Generator) -> tuple[Numbers, Lengths, Indices]:
    """Give each site its networks: some that lie in no other, and /24s inside the first of them.

    The first one is the shortest prefix that has room for twice as many /24s as it holds, so that
    those do not touch; the others have LENGTHS.
    """
    inside = np.floor(MORE_SPECIFIC * of_sites).astype(np.int64)
    outside = of_sites - inside
    if inside.max(initial=0) > 1 << 15:
        raise ValueError(f"a site with {of_sites.max():,} networks: what holds them would be larger than a /8")
    site = np.repeat(np.arange(len(of_sites)), outside)
    length = chance.choice(np.array([*LENGTHS]), len(site), p=np.array([*LENGTHS.values()]))
    firsts = np.cumsum(outside) - outside
    holding = inside > 0
    length[firsts[holding]] = 24 - np.ceil(np.log2(2 * inside[holding])).astype(np.int64)
    number = _laid(length, chance)
    slots = np.left_shift(1, 24 - length[firsts])
    step = np.where(holding, slots // np.maximum(inside, 1), 0)
    places = np.repeat(step, inside) * (ordinals(np.repeat(np.arange(len(inside)), inside)) - 1)
    within = np.repeat(number[firsts], inside) + (places << 8)
    return (
        np.concatenate((number, within)).astype(np.uint64),
        np.concatenate((length, np.full(len(within), 24))).astype(np.uint8),
        np.concatenate((site, np.repeat(np.arange(len(of_sites)), inside))),
    )


def _laid(length: Indices, chance: np.random.Generator) -> Indices:
    """Lay networks side by side among the IPv4 addresses, the largest first, those of a size in any order."""
    order = chance.permutation(len(length))
    order = order[np.argsort(length[order], kind="stable")]
    sizes = np.left_shift(1, 32 - length[order])
    begins = FIRST + np.cumsum(sizes) - sizes
    if len(begins) and int(begins[-1] + sizes[-1]) > AFTER:
        raise ValueError(f"{len(length):,} networks that lie in no other do not fit into the IPv4 addresses")
    number = np.empty(len(length), np.int64)
    number[order] = begins
    return number
