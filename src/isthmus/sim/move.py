# SPDX-License-Identifier: BSD-3-Clause
"""What it costs everybody else when a site moves to another provider.

With flat IPv4 every router in the default-free zone changes its route to each of the site's
networks. With SIP the routers of the two regions change one route each, and one mapping table
changes, which is fetched and needs no convergence (spec 7.1). A site that keeps its address
instead becomes an exception: one route at every router.

One border router is counted for each site. Tables before and after are compared route by route,
at one router of each kind; all routers of a kind see the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.sim.lookup import Routes
from isthmus.sim.population import Population
from isthmus.sim.router import NONE, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Routers that see a move alike."""

    where: str
    routers: int
    changed: int
    "Routes that come, go or lead elsewhere, at each of them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A site that moves, and the changes at all other routers together."""

    networks: int
    "How many it has."
    routers: int
    flat: int
    "Changes of flat IPv4 routes."
    renumbered: int
    "Changes of SIP routes if the site takes an address of its new region ..."
    mapping: int
    "... and of entries in the mapping table, at each border router that holds it whole."
    keeping: int
    "Changes of SIP routes if it keeps its address and becomes an exception."
    shares: tuple[Share, ...]
    "Where the renumbered ones are."


def move(population: Population, site: int, country: int, region: int) -> Move:
    """Move a site to another region and count what changes (spec 7.1).

    Raises:
        ValueError: it is there already, or the region is full.
    """
    before, after = population, population.moved(site, country, region)
    if after.place[site] == before.place[site]:
        raise ValueError(f"site {site} is in region {country}.{region} already")
    others = np.arange(before.sites) != site
    old, new = before.place == before.place[site], before.place == after.place[site]
    kin = (before.country == before.country[site]) | (before.country == country)
    kinds = {
        "the region it leaves": others & old,
        "the region it comes to": others & new,
        "other regions of these countries": others & kin & ~old & ~new,
        "other countries": others & ~kin,
    }
    shares = []
    for where, members in kinds.items():
        if members.any():
            router = int(np.flatnonzero(members)[0])
            changed = _changed(before, after, router)
            shares.append(Share(where=where, routers=int(members.sum()), changed=changed))
    networks, routers = int(before.networks_of[site]), before.sites - 1
    moved = np.array([site])
    keeping = sum(
        _keeping(before, moved, int(np.flatnonzero(each)[0])) * int(each.sum()) for each in kinds.values() if each.any()
    )
    return Move(
        networks=networks,
        routers=routers,
        flat=networks * routers,
        renumbered=sum(share.routers * share.changed for share in shares),
        mapping=int((before.without_needless() & (before.site == site)).sum()),
        keeping=keeping,
        shares=tuple(shares),
    )


def _changed(before: Population, after: Population, router: int) -> int:
    return _different(Router(population=before, site=router).sip(), Router(population=after, site=router).sip())


def _keeping(population: Population, moved: np.ndarray[tuple[int], np.dtype[np.int64]], router: int) -> int:
    """Count 1 where the site's route is new, or is the old one that leads elsewhere now."""
    seen = Router(population=population, site=router)
    new = _different(seen.sip(NONE), seen.sip(NONE, moved))
    return new or 1


def _different(one: Routes, other: Routes) -> int:
    return len(one.keys() ^ other.keys())
