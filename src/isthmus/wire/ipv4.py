# SPDX-License-Identifier: BSD-3-Clause
"""The IPv4 header, as a view that edits in place and as a lossless value (RFC 791 §3.1).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------+-------+---------------+-------------------------------+
    |Version|  IHL  |Type of Service|          Total Length         |
    +-------+-------+---------------+-----+-------------------------+
    |         Identification        |Flags|      Fragment Offset    |
    +---------------+---------------+-----+-------------------------+
    |  Time to Live |    Protocol   |         Header Checksum       |
    +---------------+---------------+-------------------------------+
    |       Source Address, Destination Address, options ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from isthmus.address import Address, Family
from isthmus.checksum import checksum, update
from isthmus.errors import Malformed, Truncated

MINIMUM_OCTETS = 20
_VERSION = 4


def _check(octets: bytes | bytearray | memoryview, *, quoted: bool) -> int:
    """Validate the lengths once; return the header's length in octets (RFC 791 §3.1)."""
    have = len(octets)
    if have < MINIMUM_OCTETS:
        raise Truncated("IPv4 header", at=0, need=MINIMUM_OCTETS, have=have)
    if octets[0] >> 4 != _VERSION:
        raise Malformed("Version", at=0, problem=f"{octets[0] >> 4}, must be {_VERSION}")
    header_octets = (octets[0] & 0xF) * 4
    if header_octets < MINIMUM_OCTETS:
        raise Malformed("IHL", at=0, problem=f"{header_octets} octets, must be at least {MINIMUM_OCTETS}")
    if header_octets > have:
        raise Truncated("IPv4 header", at=0, need=header_octets, have=have)
    total = octets[2] << 8 | octets[3]
    if total < header_octets:
        raise Malformed("Total Length", at=2, problem=f"{total}, the header alone has {header_octets}")
    if total > have and not quoted:
        raise Truncated("IPv4 packet", at=0, need=total, have=have)
    return header_octets


class Ipv4View:
    """A packet seen through its header; get one with ``parse``.

    Reading cannot fail. Setting needs a buffer that can be written (``bytearray``); it
    changes the field and the checksum and nothing else.
    """

    __slots__ = ("_header_octets", "_octets")

    def __init__(self, octets: memoryview, header_octets: int) -> None:
        self._octets = octets
        self._header_octets = header_octets

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview, *, quoted: bool = False) -> Self:
        """Validate version, IHL and total length.

        Args:
            octets: A packet; octets after its total length are not part of it.
            quoted: Whether it may be cut short, as packets inside of ICMP errors are.

        Raises:
            Truncated: header or packet are cut short.
            Malformed: not version 4, or lengths that contradict each other.
        """
        header_octets = _check(octets, quoted=quoted)
        return cls(memoryview(octets), header_octets)

    @property
    def octets(self) -> memoryview:
        """The whole packet, up to its total length."""
        return self._octets[: self.total_length]

    @property
    def ihl(self) -> int:
        """Length of the header in words of 32 bits."""
        return self._octets[0] & 0xF

    @property
    def header(self) -> memoryview:
        """The header, options included."""
        return self._octets[: self._header_octets]

    @property
    def payload(self) -> memoryview:
        """What follows the header, up to the total length or, if quoted, as far as it goes."""
        return self._octets[self._header_octets : self.total_length]

    @property
    def options(self) -> memoryview:
        """The options, padding included."""
        return self._octets[MINIMUM_OCTETS : self._header_octets]

    @property
    def tos(self) -> int:
        """The second octet: DSCP and ECN (RFC 2474, RFC 3168)."""
        return self._octets[1]

    @tos.setter
    def tos(self, tos: int) -> None:
        before = self._word(0)
        self._octets[1] = tos
        self._amend(before, self._word(0))

    @property
    def dscp(self) -> int:
        """Differentiated services code point, 6 bits (RFC 2474 §3)."""
        return self._octets[1] >> 2

    @property
    def ecn(self) -> int:
        """Explicit congestion notification, 2 bits (RFC 3168 §5)."""
        return self._octets[1] & 3

    @property
    def total_length(self) -> int:
        """Length of header and payload in octets."""
        return self._word(2)

    @property
    def identification(self) -> int:
        """What the fragments of one packet share."""
        return self._word(4)

    @identification.setter
    def identification(self, identification: int) -> None:
        before = self._word(4)
        self._octets[4:6] = identification.to_bytes(2, "big")
        self._amend(before, identification)

    @property
    def flags(self) -> int:
        """The three flags as a number: reserved 4, DF 2, MF 1."""
        return self._octets[6] >> 5

    @property
    def df(self) -> bool:
        """Don't fragment."""
        return bool(self._octets[6] & 0x40)

    @property
    def mf(self) -> bool:
        """More fragments."""
        return bool(self._octets[6] & 0x20)

    @property
    def fragment_offset(self) -> int:
        """Where this fragment's payload begins, in units of 8 octets."""
        return self._word(6) & 0x1FFF

    @property
    def is_fragment(self) -> bool:
        """Whether it is a part of a packet only."""
        return bool(self._word(6) & 0x3FFF)

    @property
    def ttl(self) -> int:
        """Time to live."""
        return self._octets[8]

    @ttl.setter
    def ttl(self, ttl: int) -> None:
        before = self._word(8)
        self._octets[8] = ttl
        self._amend(before, self._word(8))

    @property
    def protocol(self) -> int:
        """What the payload is."""
        return self._octets[9]

    @property
    def header_checksum(self) -> int:
        """The checksum as it stands."""
        return self._word(10)

    @property
    def checksum_ok(self) -> bool:
        """Whether the checksum fits the header."""
        return checksum(self.header) == 0

    @property
    def src(self) -> Address:
        """Source address."""
        return Address(Family.IPV4, int.from_bytes(self._octets[12:16], "big"))

    @property
    def dst(self) -> Address:
        """Destination address."""
        return Address(Family.IPV4, int.from_bytes(self._octets[16:20], "big"))

    def fix_checksum(self) -> None:
        """Compute the checksum anew over the whole header."""
        self._octets[10:12] = b"\0\0"
        self._octets[10:12] = checksum(self.header).to_bytes(2, "big")

    def _word(self, at: int) -> int:
        return self._octets[at] << 8 | self._octets[at + 1]

    def _amend(self, before: int, after: int) -> None:
        """Change the checksum for one word (RFC 1624 §3), so that a wrong one stays wrong."""
        self._octets[10:12] = update(self._word(10), before, after).to_bytes(2, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4Header:
    """A header, every bit of it (RFC 791 §3.1)."""

    tos: int = 0
    total_length: int
    identification: int = 0
    reserved: bool = False
    "The first flag, which must be zero and sometimes is not."
    df: bool = False
    mf: bool = False
    fragment_offset: int = 0
    "In units of 8 octets."
    ttl: int = 64
    protocol: int
    src: Address
    dst: Address
    options: bytes = b""
    header_checksum: int | None = None
    "None for the right one, which ``emit`` computes; a number where a wrong one was found."

    def __post_init__(self) -> None:
        """Refuse what does not fit; forget a checksum that is right."""
        if self.src.family is not Family.IPV4 or self.dst.family is not Family.IPV4:
            raise ValueError(f"{self.src} and {self.dst} must both be IPv4")
        if len(self.options) % 4 or len(self.options) > 40:
            raise ValueError(f"{len(self.options)} octets of options; must be a multiple of 4, 40 at most")
        if not self.octets <= self.total_length <= 0xFFFF:
            raise ValueError(f"total length {self.total_length}; must be {self.octets} to 65535")
        limits = {"tos": 0xFF, "identification": 0xFFFF, "fragment_offset": 0x1FFF, "ttl": 0xFF, "protocol": 0xFF}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} {getattr(self, name)} is beyond {limit}")
        if self.header_checksum is None:
            return
        if not 0 <= self.header_checksum <= 0xFFFF:
            raise ValueError(f"header checksum {self.header_checksum} does not fit in 16 bits")
        if self.header_checksum == checksum(self._emit(0)):
            object.__setattr__(self, "header_checksum", None)

    @property
    def octets(self) -> int:
        """Length of the header in octets."""
        return MINIMUM_OCTETS + len(self.options)

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview, *, quoted: bool = False) -> Self:
        """Read the header of a packet; ``quoted`` and errors as in ``Ipv4View.parse``."""
        view = Ipv4View.parse(octets, quoted=quoted)
        return cls(
            tos=view.tos,
            total_length=view.total_length,
            identification=view.identification,
            reserved=bool(view.flags & 4),
            df=view.df,
            mf=view.mf,
            fragment_offset=view.fragment_offset,
            ttl=view.ttl,
            protocol=view.protocol,
            src=view.src,
            dst=view.dst,
            options=bytes(view.options),
            header_checksum=view.header_checksum,
        )

    def emit(self) -> bytes:
        """Write the header."""
        if self.header_checksum is not None:
            return self._emit(self.header_checksum)
        return self._emit(checksum(self._emit(0)))

    def _emit(self, header_checksum: int) -> bytes:
        flags = self.reserved << 15 | self.df << 14 | self.mf << 13
        words = (
            (_VERSION << 4 | self.octets // 4) << 8 | self.tos,
            self.total_length,
            self.identification,
            flags | self.fragment_offset,
            self.ttl << 8 | self.protocol,
            header_checksum,
        )
        return b"".join(word.to_bytes(2, "big") for word in words) + self.src.octets + self.dst.octets + self.options
