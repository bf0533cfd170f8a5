# SPDX-License-Identifier: BSD-3-Clause
"""Mapping tables: which SIP site an IPv4 prefix belongs to (seed IPAE 5.1, 8.1; spec 6.3).

A ``Mapping`` is a whole table as one value. Its entries say what stands above an IPv4
address to make a SIP address of it: the *upper half*, 32 bits with the C bit first. The
longest prefix decides. A table of a million networks is three arrays, nine octets an entry.

A ``DirectTable`` is the same table as a plane reads it, in two steps and never more::

    top     2^24 words, by the first three octets of the address
              0            not mapped
              7F nn nn nn  chunk number nn nn nn decides by the last octet
              else         the upper half
    chunks  256 words each, with 0 or the upper half

127 is the country of multicast (RFC 8507 §4.3) and 0 is reserved (RFC 8507 §4.4), so no entry
has an upper half that could be taken for one of the other two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from isthmus.address import Address, Family, Prefix
from isthmus.errors import PlaneError

Words = NDArray[np.uint32]
"""Addresses or upper halves."""

C_BIT = 1 << 31
"""The C bit in an upper half: the node takes IPv4 only (seed IPAE 4.1)."""


class Entry(NamedTuple):
    """One line of a mapping table."""

    prefix: Prefix
    "IPv4 addresses."
    image: Prefix
    "A SIP /32, C bit included: what stands above them."


class Spans(NamedTuple):
    """The IPv4 addresses cut where the longest match changes."""

    starts: Words
    "First address of each span, ascending; the first is 0."
    entries: NDArray[np.int64]
    "Index of the entry that decides in the span, or -1."


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """A whole mapping table. Made by ``of`` or ``from_arrays``, which check and sort."""

    numbers: Words
    "First addresses of the prefixes, ascending; the shorter of two that begin alike comes first."
    lengths: NDArray[np.uint8]
    "Prefix lengths, 0 to 32."
    uppers: Words
    "Upper halves, C bit included."
    _spans: list[Spans] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, entries: Iterable[tuple[Prefix, Prefix]] = ()) -> Self:
        """Make a table of IPv4 prefixes and their images, SIP prefixes of 32 bits.

        Raises:
            ValueError: wrong families or lengths, and whatever ``from_arrays`` refuses.
        """
        rows = list(entries)
        for prefix, image in rows:
            if prefix.family is not Family.IPV4 or image.family is not Family.SIP or image.length != 32:
                raise ValueError(f"{prefix} to {image}: a mapping leads from an IPv4 prefix to a SIP /32")
        return cls.from_arrays(
            np.fromiter((prefix.address.number for prefix, _ in rows), np.uint32, len(rows)),
            np.fromiter((prefix.length for prefix, _ in rows), np.uint8, len(rows)),
            np.fromiter((image.address.number >> 32 for _, image in rows), np.uint32, len(rows)),
        )

    @classmethod
    def from_arrays(cls, numbers: Words, lengths: NDArray[np.uint8], uppers: Words) -> Self:
        """Make a table of arrays of one length, in any order. The same entry twice counts once.

        Args:
            numbers: First addresses.
            lengths: Prefix lengths.
            uppers: Upper halves, C bit included.

        Raises:
            ValueError: a length above 32, bits beyond the length, country 0 or 127, or one prefix with two values.
        """
        for wrong, problem in (
            (lengths > 32, "no IPv4 prefix is longer than 32 bits"),
            (beyond(numbers, lengths) != 0, "bits are set beyond the prefix length"),
            (reserved(uppers), "countries 0 and 127 are no site's"),
        ):
            if wrong.any():
                at = int(wrong.argmax())
                raise ValueError(
                    f"{_dotted(int(numbers[at]))}/{lengths[at]} to upper half {int(uppers[at]):08x}: {problem}"
                )
        keys = _keys(numbers, lengths)
        order = np.argsort(keys, kind="stable")
        keys, numbers, lengths, uppers = keys[order], numbers[order], lengths[order], uppers[order]
        again = np.zeros(len(keys), np.bool_)
        again[1:] = keys[1:] == keys[:-1]
        differs = again[1:] & (uppers[1:] != uppers[:-1])
        if differs.any():
            at = int(differs.argmax())
            raise ValueError(
                f"{_dotted(int(numbers[at]))}/{lengths[at]} has two values: "
                f"upper halves {int(uppers[at]):08x} and {int(uppers[at + 1]):08x}"
            )
        arrays = numbers[~again], lengths[~again], uppers[~again]
        for each in arrays:
            each.flags.writeable = False
        return cls(*arrays)

    def __len__(self) -> int:
        """How many entries."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, in order."""
        return map(self._entry, range(len(self)))

    def _entry(self, at: int) -> Entry:
        prefix = Prefix(Address(Family.IPV4, int(self.numbers[at])), int(self.lengths[at]))
        return Entry(prefix, image_of(int(self.uppers[at])))

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same entries."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return (
            np.array_equal(self.numbers, other.numbers)
            and np.array_equal(self.lengths, other.lengths)
            and np.array_equal(self.uppers, other.uppers)
        )

    def __hash__(self) -> int:
        """Equal tables have equal hashes."""
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 of the entries, 64 hex digits: the same for the same table, wherever it came from."""
        whole = hashlib.sha256()
        for each in (self.numbers.astype(">u4"), self.lengths, self.uppers.astype(">u4")):
            whole.update(each.tobytes())
        return whole.hexdigest()

    @property
    def octets(self) -> int:
        """Memory of the arrays, in octets; of the spans as well once something was looked up."""
        arrays = [self.numbers, self.lengths, self.uppers, *(each for spans in self._spans for each in spans)]
        return sum(each.nbytes for each in arrays)

    @property
    def spans(self) -> Spans:
        """The table flattened; worked out when first asked for."""
        if not self._spans:
            self._spans.append(_flatten(self))
        return self._spans[0]

    def lookup(self, address: Address) -> Prefix | None:
        """Find the image of the longest prefix that holds an IPv4 address; None: it is not mapped."""
        found = self.lookup_entry(address)
        return found and found.image

    def lookup_entry(self, address: Address) -> Entry | None:
        """Find the entry that decides about an IPv4 address."""
        if address.family is not Family.IPV4 or not len(self):
            return None
        spans = self.spans
        # A plain int would make NumPy convert the whole array first.
        at = int(spans.entries[spans.starts.searchsorted(np.uint32(address.number), "right") - 1])
        return None if at < 0 else self._entry(at)

    def within(self, prefix: Prefix) -> Mapping:
        """Take out the entries whose addresses all lie in an IPv4 prefix."""
        last = prefix.address.number | ((1 << (32 - prefix.length)) - 1)
        first, end = (
            int(self.numbers.searchsorted(np.uint32(prefix.address.number), "left")),
            int(self.numbers.searchsorted(np.uint32(last), "right")),
        )
        chosen = np.arange(first, end)[self.lengths[first:end] >= prefix.length]
        return self._choose(chosen)

    def covering(self, prefix: Prefix) -> Mapping:
        """Take out the entries that hold every address of an IPv4 prefix."""
        shifts = np.uint32(32) - self.lengths.astype(np.uint32)
        same = (self.numbers.astype(np.uint64) >> shifts) == (np.uint64(prefix.address.number) >> shifts)
        return self._choose(np.flatnonzero(same & (self.lengths <= prefix.length)))

    def diff(self, new: Mapping) -> Difference:
        """Compare with the table that is to come in this one's place."""
        ours, theirs = _keys(self.numbers, self.lengths), _keys(new.numbers, new.lengths)
        _, old_at, new_at = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
        gone, come = np.ones(len(ours), np.bool_), np.ones(len(theirs), np.bool_)
        gone[old_at] = False
        come[new_at] = False
        other = self.uppers[old_at] != new.uppers[new_at]
        return Difference(
            added=new._choose(np.flatnonzero(come)),
            removed=self._choose(np.flatnonzero(gone)),
            before=self._choose(old_at[other]),
            after=new._choose(new_at[other]),
        )

    def _choose(self, indexes: NDArray[np.int64]) -> Mapping:
        """Some of the entries, by ascending index."""
        return Mapping(self.numbers[indexes], self.lengths[indexes], self.uppers[indexes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What turns one table into another."""

    added: Mapping
    "Prefixes that only the new one has."
    removed: Mapping
    "Prefixes that only the old one has."
    before: Mapping
    "Prefixes that both have with different images: with the old ones."
    after: Mapping
    "The same prefixes, in the same order, with the new images."

    def __bool__(self) -> bool:
        """Whether there is any."""
        return len(self) > 0

    def __len__(self) -> int:
        """How many prefixes are concerned."""
        return len(self.added) + len(self.removed) + len(self.after)


class DirectTable:
    """A mapping table for a plane, in buffers that somebody else may be reading.

    Each word is written whole, and a chunk is filled before a word points to it. So a reader at
    any moment finds for any address the old image or the new one, and nothing else. A chunk that
    is given up is not filled again before ``reclaim``.

    Args:
        top: 2^24 words.
        chunks: 256 words for each /24 that can be cut up, at most 2^24 of them. Together with ``top`` either all
            zero or left by an earlier DirectTable; in that case ``load`` makes of it what it should be.
    """

    def __init__(self, top: Words, chunks: Words) -> None:
        if len(top) != 1 << 24 or len(chunks) % 256 or len(chunks) > 1 << 32:
            raise ValueError(f"a direct table has 2^24 words and then 256 each, not {len(top)} and {len(chunks)}")
        self._top = top
        self._chunks = chunks.reshape(-1, 256)
        used = np.zeros(len(self._chunks), np.bool_)
        used[top[(top >> 24) == _POINTER] & np.uint32(_NUMBER)] = True
        self._free: NDArray[np.int64] = np.flatnonzero(~used)
        self._given_up: list[NDArray[np.int64]] = []

    @classmethod
    def allocate(cls, mapping: Mapping) -> DirectTable:
        """Make a table in memory of its own, with room for twice the chunks that a mapping needs, and load it."""
        room = 2 * chunks_needed(mapping) + 64
        table = cls(np.zeros(1 << 24, np.uint32), np.zeros(room * 256, np.uint32))
        table.load(mapping)
        return table

    def load(self, mapping: Mapping) -> int:
        """Make the table say what a mapping says, whatever it said before.

        Returns:
            How many words were written.

        Raises:
            PlaneError: too few chunks; nothing was written.
        """
        return self._write(mapping, [(0, 1 << 24)])

    def change(self, old: Mapping, new: Mapping) -> int:
        """Turn a table that says what ``old`` says into one that says what ``new`` says.

        Only words that differ are written, and only the addresses of prefixes that differ are looked at.

        Returns:
            How many words were written.

        Raises:
            PlaneError: too few chunks; nothing was written.
        """
        return self._write(new, _blocks_of(old.diff(new)))

    def reclaim(self) -> None:
        """Let the chunks given up so far be filled again: nobody who saw a word that points there still reads."""
        self._free = np.concatenate([self._free, *self._given_up])
        self._given_up = []

    def lookup(self, address: Address) -> Prefix | None:
        """Find the image of an IPv4 address; None: it is not mapped."""
        word = int(self._top[address.number >> 8])
        if word >> 24 == _POINTER:
            word = int(self._chunks[word & _NUMBER, address.number & 0xFF])
        return image_of(word) if word else None

    def lookup_many(self, addresses: Words) -> Words:
        """Find the upper halves of many IPv4 addresses; 0: not mapped."""
        words: Words = self._top[addresses >> 8]
        cut = (words >> 24) == _POINTER
        words[cut] = self._chunks[words[cut] & np.uint32(_NUMBER), addresses[cut] & np.uint32(0xFF)]
        return words

    def _write(self, mapping: Mapping, ranges: list[tuple[int, int]]) -> int:
        """Bring ranges of /24 blocks, first and end, up to date."""
        starts, words = _merged(mapping)
        cut = _cut_blocks(starts)
        pieces = [_Piece.of(first, self._top[first:end], starts, words, cut) for first, end in ranges]
        lacking = sum(len(each.fresh) for each in pieces) - len(self._free)
        if lacking > 0:
            raise PlaneError(
                f"the mapping cuts {len(cut)} blocks of 256 addresses; the table has {len(self._chunks)} chunks "
                f"and lacks {lacking} at the moment"
            )
        return sum(self._write_piece(each, starts, words) for each in pieces)

    def _write_piece(self, piece: _Piece, starts: Words, words: Words) -> int:
        top = self._top[piece.first : piece.first + len(piece.plain)]
        written = 0
        for at in _batches(piece.kept):
            numbers = (top[at] & np.uint32(_NUMBER)).astype(np.int64)
            wanted, now = _expand(at + piece.first, starts, words), self._chunks[numbers]
            rows, columns = np.nonzero(now != wanted)
            self._chunks[numbers[rows], columns] = wanted[rows, columns]
            written += len(rows)
        for at in _batches(piece.fresh):
            numbers, self._free = self._free[: len(at)], self._free[len(at) :]
            self._chunks[numbers] = _expand(at + piece.first, starts, words)
            top[at] = numbers.astype(np.uint32) | np.uint32(_POINTER << 24)
            written += 257 * len(at)
        left = (top[piece.whole] >> 24) == _POINTER
        given_up = (top[piece.whole[left]] & np.uint32(_NUMBER)).astype(np.int64)
        top[piece.whole] = piece.plain[piece.whole]
        if len(given_up):
            self._given_up.append(given_up)
        return written + len(piece.whole)


_POINTER = 0x7F
"""The first octet of a word of ``top`` that names a chunk."""
_NUMBER = 0xFFFFFF
"""The rest of it: which."""
_BATCH = 4096
"""How many chunks are worked out at a time: 4 MB of words."""
_MANY = 4096
"""From so many ranges on it is cheaper to compare all that lies between them."""


class _Piece(NamedTuple):
    """What has to be done to one range of ``top``; indexes count from its first block."""

    first: int
    plain: Words
    "What the words should be, where no chunk is wanted."
    whole: NDArray[np.int64]
    "Words that are to be ``plain`` and are not."
    fresh: NDArray[np.int64]
    "Words that shall point to a chunk and do not."
    kept: NDArray[np.int64]
    "Words that point to a chunk and go on to."

    @classmethod
    def of(cls, first: int, top: Words, starts: Words, words: Words, cut: NDArray[np.int64]) -> _Piece:
        """Compare what stands with what should."""
        end = first + len(top)
        near = slice(
            int(starts.searchsorted(np.uint32(first << 8), "right")) - 1,
            int(starts.searchsorted(np.uint32((end << 8) - 1), "right")),
        )
        begin = np.clip((starts[near].astype(np.int64) + 255) >> 8, first, end)
        plain = np.repeat(words[near], np.diff(begin, append=end))
        chunked = cut[cut.searchsorted(first) : cut.searchsorted(end)] - first
        differs = top != plain
        differs[chunked] = False
        pointing = (top[chunked] >> 24) == _POINTER
        return cls(first, plain, np.flatnonzero(differs), chunked[~pointing], chunked[pointing])


def chunks_needed(mapping: Mapping) -> int:
    """Count the /24 blocks that a mapping cuts up: the chunks that a DirectTable needs for it, at least."""
    return len(_cut_blocks(_merged(mapping)[0]))


def image_of(upper: int) -> Prefix:
    """The SIP /32 of an upper half, C bit included."""
    return Prefix(Address(Family.SIP, upper << 32), 32)


def reserved(uppers: Words) -> NDArray[np.bool_]:
    """Which upper halves are no site's: country 0 (RFC 8507 §4.4) and 127, multicast (RFC 8507 §4.3)."""
    country = (uppers >> 24) & np.uint32(0x7F)
    wrong: NDArray[np.bool_] = (country == 0) | (country == _POINTER)
    return wrong


def beyond(numbers: Words, lengths: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The bits of addresses that lie beyond their prefix lengths."""
    hosts = (np.uint64(1) << (np.uint64(32) - np.minimum(lengths, 32).astype(np.uint64))) - np.uint64(1)
    return numbers.astype(np.uint64) & hosts


def _keys(numbers: Words, lengths: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One number per prefix, that sorts by address and then by length."""
    return numbers.astype(np.uint64) << np.uint64(6) | lengths.astype(np.uint64)


def _dotted(number: int) -> str:
    return str(Address(Family.IPV4, number))


def _flatten(mapping: Mapping) -> Spans:
    """Cut the addresses at the ends of all prefixes, then paint shorter prefixes before longer ones."""
    first = mapping.numbers.astype(np.int64)
    end = first + (np.int64(1) << (32 - mapping.lengths.astype(np.int64)))
    starts = _ascending(np.concatenate([np.zeros(1, np.int64), first, end[end < 1 << 32]]))
    entries = np.full(len(starts), -1, np.int64)
    left, right = starts.searchsorted(first), starts.searchsorted(end)
    for length in np.flatnonzero(np.bincount(mapping.lengths)):
        which = np.flatnonzero(mapping.lengths == length)
        counts = right[which] - left[which]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        entries[np.repeat(left[which], counts) + offsets] = np.repeat(which, counts)
    begins = np.ones(len(starts), np.bool_)
    begins[1:] = entries[1:] != entries[:-1]
    return Spans(starts[begins].astype(np.uint32), entries[begins])


def _ascending(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers in order, each once. ``np.unique`` hashes, which takes far longer than to sort."""
    ordered = np.sort(numbers)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _merged(mapping: Mapping) -> tuple[Words, Words]:
    """Spans by upper half (0: not mapped) instead of by entry: fewer, and cut only where the image changes."""
    spans = mapping.spans
    words = np.zeros(len(spans.starts), np.uint32)
    mapped = spans.entries >= 0
    words[mapped] = mapping.uppers[spans.entries[mapped]]
    begins = np.ones(len(words), np.bool_)
    begins[1:] = words[1:] != words[:-1]
    return spans.starts[begins], words[begins]


def _cut_blocks(starts: Words) -> NDArray[np.int64]:
    """Numbers of the /24 blocks within which the image changes, ascending."""
    return _ascending((starts[(starts & np.uint32(0xFF)) != 0] >> 8).astype(np.int64))


def _expand(blocks: NDArray[np.int64], starts: Words, words: Words) -> Words:
    """The 256 words of each of some /24 blocks."""
    addresses = ((blocks << 8)[:, None] | np.arange(256)).astype(np.uint32)
    expanded: Words = words[starts.searchsorted(addresses, "right") - 1]
    return expanded


def _batches(indexes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(indexes), _BATCH):
        yield indexes[at : at + _BATCH]


def _blocks_of(difference: Difference) -> list[tuple[int, int]]:
    """The /24 blocks, first and end, that prefixes of a difference lie in: disjoint and ascending."""
    concerned = [difference.added, difference.removed, difference.after]
    first = np.concatenate([each.numbers for each in concerned]).astype(np.int64)
    lengths = np.concatenate([each.lengths for each in concerned]).astype(np.int64)
    end = (first + (np.int64(1) << (32 - lengths)) + 255) >> 8
    first >>= 8
    if not len(first):
        return []
    order = np.argsort(first, kind="stable")
    first, end = first[order], np.maximum.accumulate(end[order])
    new = np.ones(len(first), np.bool_)
    new[1:] = first[1:] > end[:-1]
    begins, ends = first[new], end[np.append(np.flatnonzero(new)[1:] - 1, len(end) - 1)]
    if len(begins) > _MANY:
        return [(int(begins[0]), int(ends[-1]))]
    return list(zip(begins.tolist(), ends.tolist(), strict=True))
