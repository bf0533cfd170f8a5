# SPDX-License-Identifier: BSD-3-Clause
"""Fragments: put together on the way in, cut on the way out (RFC 791 §3.2; RFC 8200 §4.5; RFC 3102 §3.1, §6.3).

A fragment has no ports, so nobody can say whose it is. The parts of a packet wait here until all
have come; only then does the packet go its way. Whoever fills the memory harms others, so
everything has a limit: one source does not get beyond its share, and where all together fill the
memory the oldest go, because who floods it must not keep everybody else out. What contradicts
itself is thrown away whole: two fragments that say different
things about the same octets are how a packet gets past whoever looks at one of them only
(RFC 1858; RFC 5722).

No time passes in here: whoever asks says what time it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from isthmus.border.verdict import Reason
from isthmus.plane.reference.classify import Octets, needed
from isthmus.wire.ipv4 import MINIMUM_OCTETS, Ipv4View
from isthmus.wire.ipv6 import FragmentHeader, Ipv6Header, Ipv6View

LIFETIME_SECONDS = 30.0
MOST_PACKETS = 1024
MOST_OCTETS = 4 << 20
MOST_PACKETS_OF_ONE = 64
MOST_OCTETS_OF_ONE = 256 << 10
MOST_FRAGMENTS = 64
_LARGEST = 0xFFFF
_CE = 3
_COPIED = 0x80
_END_OF_OPTIONS, _NO_OPERATION = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One fragment, of either family."""

    key: Hashable
    "What the fragments of one packet have in common."
    source: Hashable
    "Whose share of the memory it takes."
    offset: int
    "Where its data begin, in octets."
    more: bool
    header: bytes
    "What the whole packet begins with, if this is the first."
    data: bytes
    octets: bytes
    "The packet that it came in, as it came."
    needed: int = 0
    "Octets that a first fragment must have, so that the transport's ports are among them."
    most: int = _LARGEST
    "Octets of data that the whole packet can have at most."

    @property
    def end(self) -> int:
        """Where its data end, in octets."""
        return self.offset + len(self.data)

    @property
    def is_impossible(self) -> bool:
        """Whether no packet could have been cut into this (RFC 791 §3.2; RFC 1858 §3)."""
        if not self.data or self.end > self.most:
            return True
        return self.more and (len(self.data) % 8 > 0 or (self.offset == 0 and len(self.data) < self.needed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A packet that was put together."""

    header: bytes
    "That of the first fragment."
    data: bytes
    parts: tuple[bytes, ...]
    "The fragments as they came."


@dataclass(slots=True, kw_only=True)
class _Waiting:
    begun: float
    source: Hashable
    parts: list[Part] = field(default_factory=list)
    end: int | None = None
    spoilt: Reason | None = None
    "Why it was thrown away: what is still to come is, too."

    @property
    def octets(self) -> int:
        return sum(len(part.octets) for part in self.parts)

    @property
    def is_whole(self) -> bool:
        return self.end is not None and sum(len(part.data) for part in self.parts) == self.end

    def objection(self, part: Part) -> Reason | None:
        """Why a fragment cannot belong to these."""
        # Deviation: RFC 791 §3.2 lets the last octets to come win; no two programs agree on that, so neither does.
        if any(part.offset < other.end and other.offset < part.end for other in self.parts):
            return Reason.FRAGMENT_OVERLAP
        if self.end is not None and (not part.more or part.end > self.end):
            return Reason.FRAGMENT
        if not part.more and any(other.end > part.end for other in self.parts):
            return Reason.FRAGMENT
        return Reason.FRAGMENT_LIMIT if len(self.parts) >= MOST_FRAGMENTS else None

    def put_together(self) -> Whole:
        ordered = sorted(self.parts, key=lambda part: part.offset)
        return Whole(
            header=ordered[0].header,
            data=b"".join(part.data for part in ordered),
            parts=tuple(part.octets for part in self.parts),
        )


class Fragments:
    """The fragments that wait for the rest of their packets."""

    def __init__(self) -> None:
        # In the order of their beginning, so that those whose time is over come first.
        self._waiting: dict[Hashable, _Waiting] = {}
        self._packets: Counter[Hashable] = Counter()
        self._octets: Counter[Hashable] = Counter()
        self._pushed_out = 0

    def __len__(self) -> int:
        """How many packets are waited for, spoilt ones included."""
        return len(self._waiting)

    @property
    def octets(self) -> int:
        """How many octets wait."""
        return self._octets.total()

    def expire(self, now: float) -> int:
        """Throw away what has waited in vain; say how many fragments that were (RFC 791 §3.2)."""
        # Deviation: RFC 1122 §3.3.2 has a host say "time exceeded"; a border would have to say it in its hosts' names.
        count = 0
        while self._waiting:
            key, first = next(iter(self._waiting.items()))
            if first.begun + LIFETIME_SECONDS > now:
                break
            count += len(first.parts)
            self._remove(key)
        return count

    def take_pushed_out(self) -> int:
        """Say how many fragments had to make room for others since the last call."""
        count, self._pushed_out = self._pushed_out, 0
        return count

    def add(self, part: Part, *, now: float) -> Whole | Reason | None:
        """Take one more fragment.

        Returns:
            The packet, if this was what it lacked; None if more must come; or why the fragment is dropped.
        """
        waiting = self._waiting.get(part.key)
        if waiting is not None and waiting.spoilt is not None:
            return waiting.spoilt
        if self._has_its_share(part, known=waiting is not None):
            return Reason.FRAGMENT_LIMIT
        self._make_room(part)
        waiting = self._waiting.get(part.key)
        if waiting is None:
            waiting = self._waiting[part.key] = _Waiting(begun=now, source=part.source)
            self._packets[part.source] += 1
        reason = Reason.FRAGMENT if part.is_impossible else waiting.objection(part)
        if reason is not None:
            self._spoil(waiting, reason)
            return reason
        waiting.parts.append(part)
        self._octets[waiting.source] += len(part.octets)
        if not part.more:
            waiting.end = part.end
        if not waiting.is_whole:
            return None
        self._remove(part.key)
        return waiting.put_together()

    def _has_its_share(self, part: Part, *, known: bool) -> bool:
        """Whether a source has as much here as one may have."""
        if self._octets[part.source] + len(part.octets) > MOST_OCTETS_OF_ONE:
            return True
        return not known and self._packets[part.source] >= MOST_PACKETS_OF_ONE

    def _make_room(self, part: Part) -> None:
        """Push out the oldest, as many as it takes."""
        while self.octets + len(part.octets) > MOST_OCTETS or (
            part.key not in self._waiting and len(self._waiting) >= MOST_PACKETS
        ):
            oldest = next(iter(self._waiting))
            self._pushed_out += len(self._waiting[oldest].parts)
            self._remove(oldest)

    def _spoil(self, waiting: _Waiting, reason: Reason) -> None:
        self._octets[waiting.source] -= waiting.octets
        waiting.parts.clear()
        waiting.spoilt = reason

    def _remove(self, key: Hashable) -> None:
        waiting = self._waiting.pop(key)
        for counted, amount in ((self._octets, waiting.octets), (self._packets, 1)):
            counted[waiting.source] -= amount
            if not counted[waiting.source]:
                del counted[waiting.source]


def ipv4_part(packet: Ipv4View, place: Hashable, source: Hashable) -> Part:
    """See an IPv4 fragment as a part of a packet (RFC 791 §3.2).

    Args:
        packet: The fragment; its header checksum is right.
        place: Where it was met; the same packet met elsewhere is another.
        source: Whose share of the memory it takes.
    """
    return Part(
        key=(place, packet.src, packet.dst, packet.protocol, packet.identification),
        source=source,
        offset=packet.fragment_offset * 8,
        more=packet.mf,
        header=bytes(packet.header),
        data=bytes(packet.payload),
        octets=bytes(packet.octets),
        needed=needed(packet.protocol),
        most=_LARGEST - len(packet.header),
    )


def ipv6_part(packet: Ipv6View, fragment: FragmentHeader, data: Octets, place: Hashable, source: Hashable) -> Part:
    """See an IPv6 fragment as a part of a packet (RFC 8200 §4.5); the arguments as for ``ipv4_part``.

    Options before the fragment header are left out: nothing more is asked of them.
    """
    header = Ipv6Header(
        traffic_class=packet.traffic_class,
        flow_label=packet.flow_label,
        payload_length=0,
        next_header=fragment.next_header,
        hop_limit=packet.hop_limit,
        src=packet.src,
        dst=packet.dst,
    )
    return Part(
        key=(place, packet.src, packet.dst, fragment.identification),
        source=source,
        offset=fragment.fragment_offset * 8,
        more=fragment.more,
        header=header.emit(),
        data=bytes(data),
        octets=bytes(packet.octets),
    )


def whole_ipv4(whole: Whole) -> bytes | Reason:
    """Write an IPv4 packet that was put together: the first header without MF and offset (RFC 791 §3.2)."""
    total = len(whole.header) + len(whole.data)
    if total > _LARGEST:
        return Reason.FRAGMENT
    octets = bytearray(whole.header + whole.data)
    octets[2:4] = total.to_bytes(2, "big")
    octets[6] &= 0xC0
    octets[7] = 0
    marks = [each[1] & _CE for each in whole.parts]
    # A mark on any fragment is one on the packet, if its sender understands it (RFC 3168 §5.3).
    if octets[1] & _CE and _CE in marks:
        octets[1] |= _CE
    Ipv4View.parse(octets).fix_checksum()
    return bytes(octets)


def whole_ipv6(whole: Whole) -> bytes:
    """Write an IPv6 packet that was put together, without its fragment header (RFC 8200 §4.5)."""
    octets = bytearray(whole.header + whole.data)
    octets[4:6] = len(whole.data).to_bytes(2, "big")
    view = Ipv6View.parse(octets)
    if view.ecn and any(Ipv6View.parse(each).ecn == _CE for each in whole.parts):
        view.traffic_class |= _CE
    return bytes(octets)


def cut(packet: Octets, mtu: int) -> tuple[bytes, ...]:
    """Cut a packet into fragments, whatever its DF says (RFC 791 §3.2).

    Args:
        packet: A whole packet; its identification, DF and TTL stay.
        mtu: Largest fragment, at least 68 octets.

    Returns:
        The fragments in order; the packet itself, if it is not larger.
    """
    if len(packet) <= mtu:
        return (bytes(packet),)
    view = Ipv4View.parse(packet)
    first, later = bytes(view.header), _later_header(view)
    data = bytes(view.payload)
    fragments, at = [], 0
    while at < len(data):
        header = first if at == 0 else later
        left = len(data) - at
        size = left if len(header) + left <= mtu else (mtu - len(header)) // 8 * 8
        fragments.append(_fragment(header, data[at : at + size], at, more=size < left))
        at += size
    return tuple(fragments)


def _fragment(header: bytes, data: bytes, at: int, *, more: bool) -> bytes:
    octets = bytearray(header + data)
    octets[2:4] = len(octets).to_bytes(2, "big")
    place = (octets[6] & 0xC0) << 8 | more << 13 | at // 8
    octets[6:8] = place.to_bytes(2, "big")
    Ipv4View.parse(octets).fix_checksum()
    return bytes(octets)


def _later_header(packet: Ipv4View) -> bytes:
    """The header of fragments after the first: with those options only that are copied (RFC 791 §3.1)."""
    kept, options, at = bytearray(), bytes(packet.options), 0
    while at < len(options) and options[at] != _END_OF_OPTIONS:
        if options[at] == _NO_OPERATION:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            break
        if options[at] & _COPIED:
            kept += options[at : at + length]
        at += length
    kept += bytes(-len(kept) % 4)
    header = bytearray(packet.header[:MINIMUM_OCTETS]) + kept
    header[0] = 4 << 4 | len(header) // 4
    return bytes(header)
