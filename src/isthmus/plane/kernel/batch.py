# SPDX-License-Identifier: BSD-3-Clause
"""What is to be written into the maps, in an order in which no packet sees half of it.

Of several changes of one thing only the last counts, so what one effect takes away and the next puts back is never
missing. Records (endpoint, owner, holding) come before the index that leads to them, and go after it::

    enter   meant ... endpoints, owners, holdings, addresses, by_demux ... by_prefix
    words   of slices
    remove  the other way round
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Change = tuple[str, bytes, bytes | None]
"Map, key, value (None: remove)."

TABLES = (
    *("meant", "tunnel_ends", "sip_ends", "nodes", "sites", "sip_realms", "endpoints", "owners", "holdings"),
    *("wide_holdings", "addresses", "by_demux", "by_spi", "by_image", "by_prefix"),
)
"""Maps that an image fills, records first; beside them the words of ``slices``."""

ARRAYS = ("meant", "sip_realms", "endpoints")
"""Those of them whose entries are zero rather than not there."""


CLAIMED = (1).to_bytes(8, sys.byteorder)
"The word of a slice that is claimed whole, and nobody's."


class Batch:
    """Changes that are written together."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[bytes, bytes | None]] = {name: {} for name in TABLES}
        self.claims: list[tuple[int, int]] = []
        "Runs of words of slices that are claimed whole: the first, and how many."
        self.words: dict[int, int] = {}
        self._gone: dict[bytes, bytes | None] = {}
        "Endpoints that this batch removes, as they were."

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.words or self.claims) or any(self.entries.values())

    def is_other(self, key: bytes, value: bytes) -> bool:
        """Whether an endpoint would get a number that another one has until this batch is written."""
        return key in self._gone and self._gone[key] != value

    def change(self, table: str, key: bytes, before: bytes | None, value: bytes | None) -> None:
        """Set or (None) remove an entry."""
        if table == "endpoints" and value is None:
            self._gone.setdefault(key, before)
        self.entries[table][key] = value

    def remove_all(self, table: str, keys: NDArray[np.void]) -> None:
        """Remove entries that no other record leads to."""
        octets, wide = keys.tobytes(), keys.dtype.itemsize
        self.entries[table].update((octets[at : at + wide], None) for at in range(0, len(octets), wide))

    def changes(self) -> Iterator[Change]:
        """Everything, in the order to write it."""
        for table in TABLES:
            yield from ((table, key, value) for key, value in self.entries[table].items() if value is not None)
        for first, count in self.claims:
            yield from (("slices", at.to_bytes(4, sys.byteorder), CLAIMED) for at in range(first, first + count))
        for number, word in self.words.items():
            yield "slices", number.to_bytes(4, sys.byteorder), word.to_bytes(8, sys.byteorder)
        for table in reversed(TABLES):
            yield from ((table, key, None) for key, value in self.entries[table].items() if value is None)
