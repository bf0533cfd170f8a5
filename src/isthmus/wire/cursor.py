# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing octets in network order, with errors that name the field.

A ``Reader`` never runs past its end: a field that does not fit raises ``Truncated``
with the field's name and offset. ``restrict_to`` narrows the end for a while, for
a length field inside the data, and insists that the inside is used up exactly.
A ``Writer`` appends, and patches a length once it is known (RFC 3103 §9 and every
other header with a length in front).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from isthmus.errors import Malformed, Truncated

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reader:
    """Octets, a position in them and an end.

    Args:
        octets: The whole buffer; offsets in errors count from its start.
    """

    __slots__ = ("_end", "_octets", "_position")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0
        self._end = len(octets)

    @property
    def position(self) -> int:
        """Offset of the next octet to be read."""
        return self._position

    @property
    def end(self) -> int:
        """Offset that reading may not pass."""
        return self._end

    @property
    def left(self) -> int:
        """How many octets there are before the end."""
        return self._end - self._position

    def take(self, n: int, field: str) -> bytes:
        """Read ``n`` octets.

        Raises:
            Truncated: fewer than ``n`` are left.
        """
        start = self._position
        stop = start + n
        if stop > self._end:
            raise Truncated(field, at=start, need=n, have=self._end - start)
        self._position = stop
        return self._octets[start:stop]

    def u8(self, field: str) -> int:
        """Read one octet as a number."""
        return self.take(1, field)[0]

    def u16(self, field: str) -> int:
        """Read two octets as a number."""
        return int.from_bytes(self.take(2, field), "big")

    def u32(self, field: str) -> int:
        """Read four octets as a number."""
        return int.from_bytes(self.take(4, field), "big")

    def rest(self) -> bytes:
        """Read everything up to the end."""
        return self.take(self.left, "rest")

    @contextmanager
    def restrict_to(self, n: int, field: str) -> Iterator[None]:
        """Move the end to ``n`` octets from here; at exit they must all have been read.

        Raises:
            Truncated: fewer than ``n`` octets are left at entry.
            Malformed: some of the ``n`` are unread at exit.
        """
        if n > self.left:
            raise Truncated(field, at=self._position, need=n, have=self.left)
        outer_end = self._end
        self._end = self._position + n
        try:
            yield
            if self._position != self._end:
                raise Malformed(field, at=self._position, problem=f"{self.left} octets of {n} left over")
        finally:
            self._end = outer_end


class Writer:
    """Octets being put together; ``bytes(writer)`` gives them."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = bytearray()

    @property
    def position(self) -> int:
        """Offset of the next octet to be written, that is the length so far."""
        return len(self._octets)

    def u8(self, number: int, field: str) -> None:
        """Append a number as one octet."""
        self._octets += self._number(number, 1, field, self.position)

    def u16(self, number: int, field: str) -> None:
        """Append a number as two octets."""
        self._octets += self._number(number, 2, field, self.position)

    def u32(self, number: int, field: str) -> None:
        """Append a number as four octets."""
        self._octets += self._number(number, 4, field, self.position)

    def octets(self, octets: bytes | bytearray | memoryview) -> None:
        """Append octets as they are."""
        self._octets += octets

    def patch_u16(self, at: int, number: int, field: str) -> None:
        """Overwrite two octets that were written before, usually a length.

        Raises:
            Malformed: the number needs more than 16 bits.
        """
        self._octets[at : at + 2] = self._number(number, 2, field, at)

    def __bytes__(self) -> bytes:
        return bytes(self._octets)

    @staticmethod
    def _number(number: int, width: int, field: str, at: int) -> bytes:
        if not 0 <= number < 1 << 8 * width:
            raise Malformed(field, at=at, problem=f"{number} does not fit in {8 * width} bits")
        return number.to_bytes(width, "big")
