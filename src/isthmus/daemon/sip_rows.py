# SPDX-License-Identifier: BSD-3-Clause
"""Routes, aliases and the soft state of ways, as the control socket and the command line show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isthmus.border.binding import FOREVER, Binding
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.table import BindingTable
from isthmus.daemon.sip_routes import SipRoutes
from isthmus.daemon.waiting import Aliases
from isthmus.plane.reference import ReferencePlane

Name = Callable[[int], str]
"""The name of a realm by its number."""


def crossing_text(crossing: Crossing, name: Name) -> str:
    """How a binding crosses, for people."""
    match crossing:
        case Encapsulation():
            return f"ipae {crossing.remote or 'implicit'} by {name(crossing.realm)} from {crossing.local}"
        case Native():
            return f"native {name(crossing.realm)}" + (f" neighbour {crossing.neighbour}" if crossing.neighbour else "")
        case Translate():
            return f"translate {name(crossing.realm)} {crossing.image}"
        case _:
            return f"tunnel {crossing.remote}"


def route_rows(
    table: BindingTable, name: Name, aliases: Aliases | None = None, learner: SipRoutes | None = None
) -> list[dict[str, Any]]:
    """Every binding but aliases and leases, in the order of realm and prefix; ``learned``: from a routing daemon."""
    found = [
        entry.binding
        for entry in table
        if isinstance(entry.binding.crossing, Encapsulation | Native | Translate)
        and not (aliases is not None and aliases.is_alias(entry.binding))
    ]
    rows = sorted(found, key=_order)
    return [_row(each, name) | {"learned": learner is not None and learner.owns(each)} for each in rows]


def _order(binding: Binding) -> tuple[int, int, int]:
    prefix = binding.selectors[0].local
    return binding.realm, prefix.address.number, prefix.length


def _row(binding: Binding, name: Name) -> dict[str, Any]:
    return {
        "realm": name(binding.realm),
        "to": str(binding.selectors[0].local),
        "via": crossing_text(binding.crossing, name),
        "device": binding.device,
    }


def alias_rows(table: BindingTable, name: Name, aliases: Aliases) -> list[dict[str, Any]]:
    """Every alias that is leased or fixed; times in seconds since 1970, None: forever."""
    return [
        {
            "realm": name(entry.binding.realm),
            "alias": str(entry.binding.address),
            "address": str(entry.binding.crossing.image.address),
            "until": None if entry.expires_at == FOREVER else entry.expires_at,
        }
        for entry in table
        if isinstance(entry.binding.crossing, Translate) and aliases.is_alias(entry.binding)
    ]


def way_rows(plane: ReferencePlane, name: Name, *, now: float) -> list[dict[str, Any]]:
    """What is known of the ways to other IPAE systems (spec 6.4, layer 3)."""
    return [
        {
            "realm": name(way.realm),
            "local": str(way.local),
            "remote": str(way.remote),
            "mtu": each.mtu,
            "down": None if each.down is None else str(each.down),
            "hops": each.hops or None,
            "routers": {hops: str(router) for hops, router in sorted(each.routers.items())},
            "until": each.until,
        }
        for way, each in plane.ways(now=now)
    ]


def mapping_counts(table: BindingTable, name: Name) -> dict[str, int]:
    """Entries of each realm's mapping."""
    return {name(each.realm): len(each.mapping) for each in table.mappings}
