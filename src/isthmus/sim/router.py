# SPDX-License-Identifier: BSD-3-Clause
"""The SIP routes of one border router (spec 7.1), and how many there are without listing them.

A router sees far away by countries, in its own country by regions, in its own region by sites and
in its own site by networks. Exceptions are what must be seen from everywhere all the same: a site
that has moved and kept its address, or one that stays reachable at one address through two
providers (spec 7.1). An exceptional site is one route; where its networks go different ways, each
of them is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.sim.claim import TENFOLD
from isthmus.sim.lookup import Indices, Numbers, Routes
from isthmus.sim.population import Marks, Population

NONE: Indices = np.empty(0, np.int64)

SITE_LENGTH = 32
"""Length of a prefix that means a site: C and the whole upper half."""


@dataclass(frozen=True, kw_only=True)
class Router:
    """A border router of one site."""

    population: Population
    site: int
    region_level: bool = True
    "Whether it sees its own country by regions; otherwise all sites of the country are routes."

    def sip(self, networks: Indices = NONE, sites: Indices = NONE) -> Routes:
        """Give its routes.

        Args:
            networks: Networks that are exceptions.
            sites: Sites that are.
        """
        people, plan = self.population, self.population.plan
        parts: list[tuple[Numbers | Indices, int | Indices]] = [
            (self._far_countries() << 63 - plan.country_bits, plan.country_length),
            (people.upper[self._near_sites()] << np.uint64(32), SITE_LENGTH),
        ]
        if self.region_level:
            parts.append((self._far_regions() << 63 - plan.country_bits - plan.region_bits, plan.region_length))
        parts.append((people.upper[self.unseen(sites)] << np.uint64(32), SITE_LENGTH))
        own = np.flatnonzero(people.site == self.site)
        listed = np.concatenate((own, self.beyond(networks)))
        parts.append((self._addresses(listed), people.length[listed].astype(np.int64) + SITE_LENGTH))
        return Routes(
            number=np.concatenate([number.astype(np.uint64) for number, _ in parts]),
            length=np.concatenate([np.broadcast_to(length, number.shape) for number, length in parts]).astype(np.uint8),
            bits=64,
        )

    def unseen(self, sites: Indices) -> Indices:
        """Leave those sites that it does not list anyway."""
        unseen: Indices = sites[~self._near()[sites]]
        return unseen

    def beyond(self, networks: Indices) -> Indices:
        """Leave those networks that are not of its own site."""
        beyond: Indices = networks[self.population.site[networks] != self.site]
        return beyond

    def entries(self) -> int:
        """Count its routes without exceptions: T of spec 7.1 with eps 0."""
        regions = len(self._far_regions()) if self.region_level else 0
        local = int(self.population.networks_of[self.site])
        return len(self._far_countries()) + regions + len(self._near_sites()) + local

    def _near(self) -> Marks:
        """Mark the sites of its region, or of its country, itself among them."""
        people = self.population
        level = people.place if self.region_level else people.country
        near: Marks = level == level[self.site]
        return near

    def _near_sites(self) -> Indices:
        near = self._near()
        near[self.site] = False
        return np.flatnonzero(near)

    def _far_countries(self) -> Indices:
        all_of_them = np.unique(self.population.country)
        far: Indices = all_of_them[all_of_them != self.population.country[self.site]]
        return far

    def _far_regions(self) -> Indices:
        people = self.population
        places = np.unique(people.place[people.country == people.country[self.site]])
        far: Indices = places[places != people.place[self.site]]
        return far

    def _addresses(self, networks: Indices) -> Numbers:
        people = self.population
        whole: Numbers = people.upper[people.site[networks]] << np.uint64(32) | people.number[networks]
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How many routes the routers of all regions have, one router a region, without exceptions."""

    regions: int
    least: int
    median: int
    most: int
    failing: float
    "Share of the regions whose routers have more than a tenth of the flat table."


def spread(population: Population, *, local: int, region_level: bool = True) -> Spread:
    """Count the routes of a router in every region, without exceptions (spec 7.1).

    Args:
        population: The networks.
        local: L, the networks of a router's own site.
        region_level: Whether there are routes to regions.
    """
    people = population
    places, sites = np.unique(people.place, return_counts=True)
    country = places >> people.plan.region_bits
    _, inverse, regions = np.unique(country, return_inverse=True, return_counts=True)
    within = regions[inverse] - 1 + sites - 1 if region_level else np.bincount(people.country)[country] - 1
    entries = len(regions) - 1 + within + local
    return Spread(
        regions=len(places),
        least=int(entries.min()),
        median=int(np.median(entries)),
        most=int(entries.max()),
        failing=float((entries * TENFOLD > people.networks).mean()),
    )
