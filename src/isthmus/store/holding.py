# SPDX-License-Identifier: BSD-3-Clause
"""What bindings hold, range by range for the search, and what of it rests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from isthmus.address import Address
from isthmus.border.binding import Binding
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, values_of
from isthmus.border.selector import Kind


def ranges_of(binding: Binding) -> Iterator[tuple[Kind | None, Ranges]]:
    """Each kind that a binding holds, with its numbers; None for the whole prefix."""
    kinds = dict.fromkeys(selector.kind for selector in binding.selectors)
    return ((kind, values_of(binding, kind)) for kind in kinds)


def covers(resource: Resource, port: int | None) -> bool:
    """Whether a port of its address is part of a resource; None: anything of it that has a number, or all."""
    if resource.whole:
        return True
    if port is None:
        return bool(resource.ports or resource.spis or resource.identities)
    return resource.ports is not None and port in resource.ports


def not_held(ended: Iterable[tuple[float, Resource]], held: Iterable[Resource]) -> tuple[tuple[float, Resource], ...]:
    """Take what is held again out of what was given back: it does not rest."""
    given_back = tuple(ended)
    if not given_back:
        return ()
    by_address: dict[tuple[int, Address], list[Resource]] = {}
    for each in held:
        by_address.setdefault((each.realm, each.address), []).append(each)
    resting = []
    for at, given in given_back:
        left = _without(given, by_address.get((given.realm, given.address), ()))
        if left is not None:
            resting.append((at, left))
    return tuple(resting)


def _without(given: Resource, held: Iterable[Resource]) -> Resource | None:
    if given.whole:
        return None if any(each.whole for each in held) else given
    ports, spis = given.ports, given.spis
    for each in held:
        ports = ports - each.ports if ports and each.ports else ports
        spis = spis - each.spis if spis and each.spis else spis
    return replace(given, ports=ports, spis=spis) if ports or spis else None
