# SPDX-License-Identifier: BSD-3-Clause
"""Compact sets for very many hosts: whose state is in the store alone, and which Client IDs are given."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from isthmus.address import Address, Family
from isthmus.border.binding import Owner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK_BITS = 12
_IN_BLOCK = (1 << _BLOCK_BITS) - 1
_ID_BITS = 25


class FoldedHosts:
    """A set of hosts. IPv4 hosts take a bit each in blocks of 4,096 addresses."""

    def __init__(self, realm: int) -> None:
        """Begin with nobody.

        Args:
            realm: Number of the near realm; hosts of another one may be in the set, but take more room.
        """
        self._realm = realm
        self._blocks: dict[int, bytearray] = {}
        self._others: set[Owner] = set()
        self._count = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._count + len(self._others)

    def __contains__(self, owner: Owner) -> bool:
        """Whether a host is in the set."""
        if not self._count and not self._others:
            return False
        address = owner.address
        if address.family is not Family.IPV4 or owner.realm != self._realm:
            return owner in self._others
        block = self._blocks.get(address.number >> _BLOCK_BITS)
        return block is not None and bool(block[(address.number & _IN_BLOCK) >> 3] >> (address.number & 7) & 1)

    def add(self, owner: Owner) -> None:
        """Put a host in."""
        if owner.address.family is not Family.IPV4 or owner.realm != self._realm:
            self._others.add(owner)
        elif owner not in self:
            number = owner.address.number
            block = self._blocks.setdefault(number >> _BLOCK_BITS, bytearray(1 << _BLOCK_BITS - 3))
            block[(number & _IN_BLOCK) >> 3] |= 1 << (number & 7)
            self._count += 1

    def discard(self, owner: Owner) -> None:
        """Take a host out, if it is in the set."""
        if owner.address.family is not Family.IPV4 or owner.realm != self._realm:
            self._others.discard(owner)
        elif owner in self:
            number = owner.address.number
            self._blocks[number >> _BLOCK_BITS][(number & _IN_BLOCK) >> 3] ^= 1 << (number & 7)
            self._count -= 1

    def add_all(self, realm: int, addresses: NDArray[np.uint32]) -> None:
        """Put many IPv4 hosts of a realm in."""
        if realm == self._realm:
            self._change(addresses, present=True)
        else:
            self._others.update(Owner(realm, Address(Family.IPV4, each)) for each in addresses.tolist())

    def discard_all(self, realm: int, addresses: NDArray[np.uint32]) -> None:
        """Take many IPv4 hosts of a realm out, as far as they are in the set."""
        if realm == self._realm:
            self._change(addresses, present=False)
        else:
            self._others.difference_update(Owner(realm, Address(Family.IPV4, each)) for each in addresses.tolist())

    def present(self, realm: int, addresses: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of many IPv4 hosts of a realm are in the set."""
        import numpy as np

        if realm != self._realm:
            owners = (Owner(realm, Address(Family.IPV4, each)) for each in addresses.tolist())
            return np.fromiter((each in self._others for each in owners), np.bool_, len(addresses))

        order = np.argsort(addresses)
        addresses = addresses[order]
        found = np.zeros(len(addresses), np.bool_)
        blocks, starts = np.unique(addresses >> np.uint32(_BLOCK_BITS), return_index=True)
        for number, these in zip(blocks.tolist(), np.split(np.arange(len(addresses)), starts[1:]), strict=False):
            if number in self._blocks:
                found[order[these]] = self._bits(number)[addresses[these] & np.uint32(_IN_BLOCK)]
        return found

    def _change(self, addresses: NDArray[np.uint32], *, present: bool) -> None:
        import numpy as np

        addresses = np.sort(addresses)
        blocks, starts = np.unique(addresses >> np.uint32(_BLOCK_BITS), return_index=True)
        for number, these in zip(blocks.tolist(), np.split(addresses, starts[1:]), strict=False):
            bits = self._bits(number)
            before = int(bits.sum())
            bits[these & np.uint32(_IN_BLOCK)] = present
            self._count += int(bits.sum()) - before
            self._blocks[number] = bytearray(np.packbits(bits, bitorder="little").tobytes())

    def _bits(self, number: int) -> NDArray[np.bool_]:
        import numpy as np

        block = self._blocks.get(number) or bytearray(1 << _BLOCK_BITS - 3)
        return np.unpackbits(np.frombuffer(block, np.uint8), bitorder="little").view(np.bool_)


class ClientIds:
    """Which Client IDs are given: a bit for the low bits of each, since those are as random as the whole.

    So an ID that is not given may look as if it were; who draws one draws again.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._bits = bytearray(1 << _ID_BITS - 3)
        self._more: Counter[int] = Counter()
        "Low bits that several IDs have in common, with how many more than one."

    def __contains__(self, client_id: int) -> bool:
        """Whether an ID may be given already."""
        low = client_id & (1 << _ID_BITS) - 1
        return bool(self._bits[low >> 3] >> (low & 7) & 1)

    def add(self, client_id: int) -> None:
        """Note that an ID is given."""
        low = client_id & (1 << _ID_BITS) - 1
        if client_id in self:
            self._more[low] += 1
        else:
            self._bits[low >> 3] |= 1 << (low & 7)

    def discard(self, client_id: int) -> None:
        """Note that an ID is given no more."""
        low = client_id & (1 << _ID_BITS) - 1
        if self._more[low] > 1:
            self._more[low] -= 1
        elif low in self._more:
            del self._more[low]
        else:
            self._bits[low >> 3] &= ~(1 << (low & 7))

    def add_all(self, client_ids: NDArray[np.uint32]) -> None:
        """Note that many are given."""
        import numpy as np

        low, counts = np.unique(client_ids & np.uint32((1 << _ID_BITS) - 1), return_counts=True)
        for each in np.repeat(low, counts - 1).tolist():
            self._more[each] += 1
        bits = np.frombuffer(self._bits, np.uint8)
        given = bits[low >> 3] >> (low & 7).astype(np.uint8) & 1
        for each in low[given == 1].tolist():
            self._more[each] += 1
        np.bitwise_or.at(bits, low >> 3, np.uint8(1) << (low & 7).astype(np.uint8))

    def discard_all(self, client_ids: NDArray[np.uint32]) -> None:
        """Note that many are given no more."""
        for each in client_ids.tolist():
            self.discard(each)
