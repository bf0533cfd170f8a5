# SPDX-License-Identifier: BSD-3-Clause
"""The formula of the claim and the years it was applied to.

Seed IPAE 8.1: "reduce the amount of routing traffic and the size of routing tables by an
order of magnitude or more". Spec 7.1 says how many routes a border router has::

    T = (K - 1) + (P - 1) + (S - 1) + L + eps F

    K    countries                            S    sites of its own region
    P    regions of its own country           L    networks of its own site
    eps  share of all prefixes that stay visible everywhere, as exceptions
    F    IPv4 prefixes: the flat table
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TENFOLD = 10
"""An order of magnitude (seed IPAE 8.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A network of countries, regions and sites as averages (spec 7.1)."""

    prefixes: int
    "F: IPv4 prefixes, the size of the flat table."
    countries: int
    "K."
    regions: int
    "P: regions of the own country."
    sites: int
    "Sites of the own country, in all its regions."
    local: int
    "L: networks of the own site."

    def entries(self, exceptions: float = 0.0, *, region_level: bool = True) -> float:
        """Give T, the routes of a border router (spec 7.1).

        Args:
            exceptions: eps, a share of the prefixes, 0 to 1.
            region_level: Whether sites are gathered into regions; otherwise every site of the own
                country is a route.
        """
        within = self.regions - 1 + math.ceil(self.sites / self.regions) - 1 if region_level else self.sites - 1
        return self.countries - 1 + within + self.local + exceptions * self.prefixes

    def ratio(self, exceptions: float = 0.0, *, region_level: bool = True) -> float:
        """Give F/T: how many times smaller the table is."""
        return self.prefixes / self.entries(exceptions, region_level=region_level)

    def failing_share(self, *, region_level: bool = True) -> float:
        """Give the share of exceptions above which the table is no longer ten times smaller (spec 7.1, iii).

        0 if it is not even without exceptions.
        """
        return max(0.0, 1 / TENFOLD - self.entries(region_level=region_level) / self.prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """A row of the table of spec 7.1."""

    name: str
    source: str
    formula: Formula


def _of_systems(prefixes: int, own: int, *, local: int) -> Formula:
    """Take an autonomous system as a site, 230 countries, and the most regions that 8 bits have."""
    return Formula(prefixes=prefixes, countries=230, regions=255, sites=own, local=local)


YEARS = (
    Year(
        name="January 1994",
        source="RFC 1710 section 2.1: 23,494 networks; 60 countries, 12,000 own networks, 30 providers assumed",
        formula=Formula(prefixes=23_494, countries=60, regions=30, sites=12_000, local=5),
    ),
    Year(
        name="November 2014",
        source="RIPE routing working group: 523,431 prefixes, 48,493 systems; 30 % of them in the own country assumed",
        formula=_of_systems(523_431, 14_548, local=11),
    ),
    Year(
        name="2019, Russia",
        source="Qrator.Radar: 774,859 prefixes; 6,183 systems with 33,933 prefixes",
        formula=_of_systems(774_859, 6_183, local=6),
    ),
    Year(
        name="2019, USA",
        source="Qrator.Radar: 774,859 prefixes; 26,670 of 88,664 systems",
        formula=_of_systems(774_859, 26_670, local=9),
    ),
    Year(
        name="2026",
        source="thyme: 1,059,904 prefixes, 78,800 systems; 30 % of them in the own country assumed",
        formula=_of_systems(1_059_904, 23_640, local=14),
    ),
)
"""The five rows of spec 7.1. L is the prefixes of a system, rounded up; that of 1994 is assumed."""

NETWORKS_REQUIRED = 10**9
"""Seed IPAE 2.1."""
