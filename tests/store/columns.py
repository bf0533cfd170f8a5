# SPDX-License-Identifier: BSD-3-Clause
"""What stands as columns, as lists that can be compared."""

from __future__ import annotations

from isthmus.store import Standing


def as_rows(standing: Standing) -> dict[str, object]:
    return {
        "plain": sorted((each for part in standing.plain for each in part.bindings()), key=lambda each: each[0].key),
        "odd": standing.odd,
        "hosts": {each.near: (each.address.tolist(), each.client_id.tolist()) for each in standing.hosts},
        "other hosts": standing.other_hosts,
        "departed": standing.departed,
        "resting": sorted(
            (at, part.realm, *place)
            for part in standing.resting
            for at, *place in zip(
                *(c.tolist() for c in (part.ended_at, part.local, part.first, part.ports)), strict=True
            )
        ),
        "odd resting": standing.odd_resting,
    }
