# SPDX-License-Identifier: BSD-3-Clause
"""The networks of an internet, the sites that they are of, and where those sites are attached.

One population is seen in two ways: as flat IPv4 routes, one for each network, and as SIP
routes, by country, region and site (seed IPAE 4.1). Sites and networks are columns of arrays:
a million networks take some 20 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from isthmus.sim.lookup import Indices, Lengths, Numbers, Routes
from isthmus.sim.plan import Plan

Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Population:
    """Networks and sites. Countries, regions and the codes of sites count from 1 (0 is reserved)."""

    plan: Plan
    number: Numbers
    "Of each network: its IPv4 number ..."
    length: Lengths
    "... and length."
    site: Indices
    "The site that it is of, from 0."
    country: Indices
    "Of each site: where it is attached."
    region: Indices
    code: Indices
    "The site's number in its region."
    several: Marks
    "Networks that are seen through more than one provider, or from more than one origin."

    def __post_init__(self) -> None:
        """Refuse what the plan cannot number."""
        for what, values, most in (
            ("countries", self.country, self.plan.countries),
            ("regions in a country", self.region, self.plan.regions),
            ("sites in a region", self.code, self.plan.sites),
        ):
            if len(values) and int(values.max()) > most:
                raise ValueError(f"{values.max():,} {what}: an address can tell {most:,} apart")

    @property
    def networks(self) -> int:
        """F: how many IPv4 prefixes."""
        return len(self.number)

    @property
    def sites(self) -> int:
        """How many sites."""
        return len(self.country)

    @cached_property
    def place(self) -> Indices:
        """Country and region of each site as one number, by which sites of the same region are equal."""
        return self.country << self.plan.region_bits | self.region

    @cached_property
    def upper(self) -> Numbers:
        """The 31 bits above the IPv4 part of each site, C bit 0."""
        return (self.place << self.plan.site_bits | self.code).astype(np.uint64)

    @cached_property
    def networks_of(self) -> Indices:
        """How many networks each site has."""
        return np.bincount(self.site, minlength=self.sites)

    def flat(self) -> Routes:
        """Give the IPv4 routes of any router in the default-free zone: one for each network."""
        return Routes(number=self.number, length=self.length, bits=32)

    def addresses(self, count: int, seed: int) -> tuple[Numbers, Numbers]:
        """Choose destinations: a network by chance, all equally likely, and a host in it by chance.

        Returns:
            Their IPv4 and their SIP addresses; the same destinations in the same order.
        """
        chance = np.random.default_rng(seed)
        chosen = chance.integers(self.networks, size=count)
        host = chance.integers(1 << 32, size=count, dtype=np.uint64) >> self.length[chosen].astype(np.uint64)
        ipv4 = self.number[chosen] | host
        return ipv4, self.upper[self.site[chosen]] << np.uint64(32) | ipv4

    def without_needless(self) -> Marks:
        """Mark the networks that a mapping table needs: not those inside a network of the same site.

        That is aggregation without renumbering: what is inside another network of its site
        has the same upper half, so the mapping of the outer one says it already.
        """
        end = self.number + np.left_shift(np.uint64(1), np.uint64(32) - self.length.astype(np.uint64))
        needed = np.ones(self.networks, bool)
        around: list[tuple[int, int]] = []
        order = np.lexsort((self.length, self.number))
        rows = zip(
            order.tolist(), self.number[order].tolist(), end[order].tolist(), self.site[order].tolist(), strict=True
        )
        for index, number, after, site in rows:
            while around and around[-1][0] <= number:
                around.pop()
            if around and around[-1][1] == site:
                needed[index] = False
            around.append((after, site))
        return needed

    def moved(self, site: int, country: int, region: int) -> Population:
        """Attach a site elsewhere, with a new code there: it is renumbered above its IPv4 part.

        Raises:
            ValueError: the region has no code left.
        """
        there = (self.country == country) & (self.region == region)
        code = int(self.code[there].max(initial=0)) + 1
        columns = {"country": country, "region": region, "code": code}
        changed = {}
        for name, value in columns.items():
            changed[name] = getattr(self, name).copy()
            changed[name][site] = value
        return replace(self, **changed)
