# SPDX-License-Identifier: BSD-3-Clause
"""The program's memory of contacted peers, seen from user space.

The words are those of ``bpf/include/isthmus/abi.h``; where one stands and what it says is
worked out as in ``contact.h``. One word is written at a time, and a word that two write at
once is a peer that has to write again.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.plane.kernel.maps import Codec

BUCKETS, WORDS = 1 << 17, 8
EPOCH_SECONDS, EPOCH_MASK, EPOCHS_KEPT = 64, 0xFFF, 120
"As in abi.h; tests/test_abi.py compares them."
_64_BITS = 0xFFFFFFFFFFFFFFFF
_RUN = 1024
"Words that are looked at together by ``forget_old``."


class KernelContacts:
    """Peers that owners have written to; a ``plane.reference.contact.Contacts``.

    Args:
        words: The map ``contacted``, in words.
        codec: Knows the program's clock.
        tag: The tag of an owner, 0 if it has none.
    """

    def __init__(self, words: memoryview, codec: Codec, tag: Callable[[Owner], int]) -> None:
        self._words, self._codec, self._tag = words, codec, tag

    def note(self, owner: Owner, local: Address, remote: Address, *, now: float) -> None:
        """The owner has written to a peer from one of its addresses."""
        tag = self._tag(owner)
        if not tag or not _known(local, remote):
            return
        first, fingerprint = _place(tag, local, remote)
        epoch = self._epoch(now)
        for at in range(first, first + WORDS):
            if self._words[at] & ~EPOCH_MASK == fingerprint:
                self._words[at] = fingerprint | epoch
                return
        self._words[max(range(first, first + WORDS), key=lambda at: self._age(at, epoch))] = fingerprint | epoch

    def knows(self, owner: Owner, local: Address, remote: Address, *, now: float) -> bool:
        """Whether it has, in this epoch or the 120 before."""
        tag = self._tag(owner)
        if not tag or not _known(local, remote):
            return False
        first, fingerprint = _place(tag, local, remote)
        epoch = self._epoch(now)
        for at in range(first, first + WORDS):
            if self._words[at] & ~EPOCH_MASK == fingerprint:
                return self._age(at, epoch) <= EPOCHS_KEPT
        return False

    def _epoch(self, now: float) -> int:
        return self._codec.second(now) // EPOCH_SECONDS & EPOCH_MASK

    def _age(self, at: int, epoch: int) -> int:
        """Epochs since a word was written; an empty one is older than any."""
        word = self._words[at]
        return (epoch - word) & EPOCH_MASK if word else EPOCH_MASK + 1


def forget_old(words: memoryview, second: int) -> None:
    """Empty the words of peers not written to for long.

    Args:
        words: The map ``contacted``, in words.
        second: CLOCK_BOOTTIME.
    """
    epoch = second // EPOCH_SECONDS
    nothing = memoryview(bytes(4 * _RUN)).cast("I")
    for start in range(0, len(words), _RUN):
        if words[start : start + _RUN] == nothing:
            continue
        for at in range(start, start + _RUN):
            if words[at] and (epoch - words[at]) & EPOCH_MASK > EPOCHS_KEPT:
                words[at] = 0


def _known(local: Address, remote: Address) -> bool:
    return local.family is remote.family is Family.IPV4


def _place(tag: int, local: Address, remote: Address) -> tuple[int, int]:
    """The first word of a peer's bucket, and its fingerprint (contact.h, bucket)."""
    digest = _mix(_mix(tag * 0x9E3779B97F4A7C15 & _64_BITS ^ (_word(local) << 32 | _word(remote))))
    fingerprint = digest >> 32 & ~EPOCH_MASK
    return (digest & (BUCKETS - 1)) * WORDS, fingerprint or EPOCH_MASK + 1


def _word(address: Address) -> int:
    """An address as the program loads it."""
    return memoryview(address.octets).cast("I")[0]


def _mix(digest: int) -> int:
    digest ^= digest >> 32
    digest = digest * 0xD6E8FEB86659FD93 & _64_BITS
    return digest ^ digest >> 32
