# SPDX-License-Identifier: BSD-3-Clause
"""Changes on their way into the maps: as few system calls as there are maps, and none for words."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from isthmus.errors import PlaneError
from isthmus.plane.kernel import own
from isthmus.plane.kernel.batch import ARRAYS, CLAIMED, TABLES, Batch
from isthmus.plane.kernel.blocks import Blocks
from isthmus.plane.kernel.briefs import Briefs
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.loader import Map
from isthmus.plane.kernel.owners import LOW_32

_LONG = ("owners", "holdings")
"Tables that may have very many entries."
_RUN = 4096
"Slice words that are compared at once."


class Writer:
    """The maps that an image fills.

    Args:
        maps: By name.
        words: The map ``slices``, in words.
        briefs: What goes with it.
        blocks: And what else does.
        rules: The map ``rules``, in octets.
    """

    def __init__(
        self, maps: Mapping[str, Map], words: memoryview, briefs: Briefs, blocks: Blocks, rules: mmap.mmap
    ) -> None:
        self._maps, self._words, self._briefs, self._blocks, self._rules = maps, words, briefs, blocks, rules

    def write(self, batches: Iterable[Batch]) -> None:
        """Write changes. What a map has no room for is left out; everything else is written, or what ends would stand.

        Raises:
            PlaneError: a map is full.
        """
        full: PlaneError | None = None
        for batch in batches:
            for table in TABLES:
                entries = [(key, value) for key, value in batch.entries[table].items() if value is not None]
                full = self._put_what_fits(table, entries) or full
            words = self._words
            for first, count in batch.claims:
                words[first : first + count] = memoryview(CLAIMED * count).cast("Q")
            self._blocks.forget(batch.words)
            self._briefs.forget(batch.words)
            for number, word in batch.words.items():
                words[number] = word
            self._briefs.tell(batch.words)
            self._blocks.tell(batch.words)
            for table in reversed(TABLES):
                if batch.entries[table]:
                    self._remove(table, [key for key, value in batch.entries[table].items() if value is None])
        if full is not None:
            raise full

    def _put_what_fits(self, table: str, entries: list[tuple[bytes, bytes]]) -> PlaneError | None:
        """Enter what there is room for; why not all of it."""
        try:
            self._put(table, entries)
        except PlaneError as full:
            for each in entries:
                with suppress(PlaneError):
                    self._put(table, [each])
            return full
        return None

    def difference(self, image: Image) -> None:
        """Make the maps hold what an image says and nothing else, writing only what differs; new things come first."""
        stale: list[tuple[str, list[bytes]]] = []
        if image.is_large:
            # Neither leads to the other, and the kernel takes them on as many processors as there are.
            with ThreadPoolExecutor(len(_LONG)) as threads:
                stale += zip(_LONG, threads.map(lambda table: self._put_columns(table, image), _LONG), strict=True)
        for table in TABLES:
            if image.is_large and table in _LONG:
                continue
            wanted = image.wanted(table)
            found = dict(self._maps[table].used() if table in ARRAYS else self._maps[table].items())
            self._put(table, [(key, value) for key, value in wanted.items() if found.get(key) != value])
            stale.append((table, [key for key in found if key not in wanted]))
        self._write_words(image)
        for table, keys in reversed(stale):
            self._remove(table, keys)

    def _put_columns(self, table: str, image: Image) -> list[bytes]:
        """Enter what is missing; returns the keys of what should go."""
        from isthmus.plane.kernel import columns

        compare = columns.owners if table == "owners" else columns.holdings
        difference, octets = compare(image, self._maps[table]), self._maps[table].key_octets
        self._maps[table].put_octets(difference.keys, difference.values)
        return [difference.stale[at : at + octets] for at in range(0, len(difference.stale), octets)]

    def _put(self, table: str, entries: list[tuple[bytes, bytes]]) -> None:
        if len(entries) == 1:
            self._maps[table].put(*entries[0])
        elif entries:
            self._maps[table].put_all(entries)
        if entries and table == "by_prefix":
            self._forget_routes()

    def _remove(self, table: str, keys: list[bytes]) -> None:
        if table in ARRAYS:
            nothing = bytes(self._maps[table].value_octets)
            self._maps[table].put_all((key, nothing) for key in keys)
        elif len(keys) == 1:
            self._maps[table].remove(keys[0])
        elif keys:
            self._maps[table].remove_all(keys)
        if keys and table == "by_prefix":
            self._forget_routes()

    def _forget_routes(self) -> None:
        """Let the program ask ``by_prefix`` again: at once, since what an old route led to may go next."""
        changes = int.from_bytes(self._rules[own.CHANGES], sys.byteorder) + 1
        self._rules[own.CHANGES] = (changes & 0xFFFFFFFF).to_bytes(4, sys.byteorder)

    def _write_words(self, image: Image) -> None:
        if image.is_large:
            from isthmus.plane.kernel import columns

            columns.write_words(image.words, self._words, self._briefs.memory, self._blocks.memory)
            return
        wanted = memoryview(image.words)
        for start in range(0, len(wanted), _RUN):
            run = wanted[start : start + _RUN]
            if run != self._words[start : start + len(run)]:
                differ = {at: word for at, word in enumerate(run, start) if self._words[at] != word}
                self._blocks.forget(differ)
                self._briefs.forget(differ)
                for at, word in differ.items():
                    self._words[at] = word
        self._briefs.renew(image)
        self._blocks.renew(image)


def numbered_tags(owners: Map) -> Iterator[tuple[bytes, int]]:
    """Places and tags in ``owners`` of owners that are not IPv4."""
    wide = owners.key_octets
    for keys, values in owners.octets():
        # A tag is the first word of two. Of an IPv4 owner its upper half, the realm, is not zero.
        for at, tag in enumerate(memoryview(values).cast("Q")[::2]):
            if tag <= LOW_32:
                yield keys[at * wide : (at + 1) * wide], tag
