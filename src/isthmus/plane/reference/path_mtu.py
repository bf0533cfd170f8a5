# SPDX-License-Identifier: BSD-3-Clause
"""What the ways between tunnel ends carry: errors from within a tunnel (RFC 2003 §4, §5.1; RFC 2473 §7.1, §8).

::

    sender ──▶ our end ══ 1500 ══▶ router ══ 1400 ══▶ other end
                  ◀── too big, 1400 ──┘
    sender ──▶ our end
       ◀── too big, 1380, about the next that is larger

Outer packets are never fragmented, so that a router whose next link carries less than the tunnel was thought to
must drop them. It tells the tunnel's end, and quotes mostly too little for us to tell the sender of that packet. So
the end remembers (the "soft state" of RFC 2003 §5.1), and the sender of the next packet that is too large hears of it.

What makes tunnels narrow must not come from just anybody. An error is believed if it comes in the tunnel's own
realm and quotes a packet that we could have sent: between the ends of a tunnel that there is, no longer than that
carries, with an inner packet of just that length and an address of its holder. And no way is taken to carry less than
all ways must.

No time passes in here: whoever asks says what time it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.border.binding import Binding, Owner
from isthmus.border.crossing import Tunnel, TunnelKind, Way
from isthmus.checksum import checksum, pseudo_header
from isthmus.errors import WireError
from isthmus.plane.reference.classify import Octets
from isthmus.plane.reference.tunnel import KINDS
from isthmus.wire.icmp import IcmpType, IcmpView, Unreachable
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.transport import Protocol

LIFETIME_SECONDS = 600.0
"""How long a way is taken to be narrow (RFC 1191 §6.3)."""
LEAST = {Family.IPV4: 576, Family.IPV6: 1280}
"""What every way is taken to carry (RFC 1122 §3.3.3; RFC 8200 §5)."""
_PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 576)
"Sizes that links have, for routers that do not say theirs (RFC 1191 §7.1)."
_HEADER = {Family.IPV4: 20, Family.IPV6: 40}
_SHIM = {0: b"", 4: b"\0\0\x08\0", 8: b"\x80\0\x08\0"}
"What GRE begins with, by its length (RFC 2784 §2)."
_LENGTH_END = 4
"Octets of an IPv4 header that its total length is among."
_PACKET_TOO_BIG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TooBig:
    """A router could not send an outer packet on."""

    way: Way
    kind: TunnelKind
    octets: int
    "Of the outer packet."
    mtu: int
    "Of the router's next link; 0: it does not say."
    payload: memoryview
    "What followed the outer header, as far as it is quoted."


class PathMtus:
    """How large packets can be on the ways of the tunnels that there are.

    Args:
        elsewhere: The tunnels of a way that nobody takes notice of here.
    """

    def __init__(self, elsewhere: Callable[[Way], Iterable[tuple[Owner, Tunnel]]] = lambda _way: ()) -> None:
        self._elsewhere = elsewhere
        self._tunnels: dict[Way, Counter[tuple[Owner, Tunnel]]] = {}
        # In the order of their ends, since all last equally long.
        self._learned: dict[Way, tuple[int, float]] = {}
        self._changed: set[Way] = set()

    def __len__(self) -> int:
        """How many ways are known to be narrow."""
        return len(self._learned)

    def replace(self, before: Binding | None, after: Binding | None) -> None:
        """Take notice of a binding's tunnel; a way without a tunnel is forgotten."""
        if after is not None and isinstance(after.crossing, Tunnel):
            self._tunnels.setdefault(after.crossing.way, Counter())[after.key.owner, after.crossing] += 1
        if before is None or not isinstance(before.crossing, Tunnel):
            return
        way, tunnel = before.crossing.way, (before.key.owner, before.crossing)
        self._tunnels[way][tunnel] -= 1
        if not self._tunnels[way][tunnel]:
            del self._tunnels[way][tunnel]
        if not self._tunnels[way]:
            del self._tunnels[way]
            self.forget_idle(way)

    def forget_idle(self, *ways: Way) -> None:
        """Forget ways without a tunnel: these or, if none are named, all."""
        for way in ways or tuple(self._learned):
            if way in self._learned and way not in self._tunnels and not any(self._elsewhere(way)):
                self._set(way, None)

    def mtu(self, tunnel: Tunnel) -> int:
        """Largest packet that a tunnel carries now: what it was made for or, if its way carries less, that."""
        known = self._learned.get(tunnel.way)
        return tunnel.mtu if known is None else min(tunnel.mtu, known[0] - tunnel.overhead)

    def tunnels(self, error: TooBig) -> list[tuple[Owner, Tunnel]]:
        """Tunnels that the packet may have been in, and whose they are; none if it is not ours (RFC 2473 §8)."""
        known = (*self._tunnels.get(error.way, ()), *self._elsewhere(error.way))
        return [each for each in known if _fits(error, each[1])]

    def learn(self, error: TooBig, *, now: float) -> None:
        """Believe an error: RFC 1191 §3, §4, §5 over IPv4, RFC 8201 §4 over IPv6."""
        least = LEAST[error.way.local.family]
        mtu = error.mtu
        if error.way.local.family is Family.IPV4:
            # Deviation: RFC 1191 §3 lets a path have 68 octets; who could make a tunnel that narrow has to be refused.
            mtu = max(mtu or plateau_below(error.octets), least)
        known = self._learned.get(error.way)
        if least <= mtu < error.octets and (known is None or mtu < known[0]):
            self._set(error.way, (mtu, now + LIFETIME_SECONDS))

    def expire(self, now: float) -> None:
        """Forget what was learned long ago: the way may be another by now (RFC 1191 §6.3)."""
        while self._learned:
            way, (_, until) = next(iter(self._learned.items()))
            if until > now:
                break
            self._set(way, None)

    @property
    def expires_at(self) -> float | None:
        """When the next is forgotten; None if there is nothing to forget."""
        return next((until for _, until in self._learned.values()), None)

    def changes(self) -> list[tuple[Way, int | None]]:
        """Ways whose MTU has changed since the last call, in octets of the outer packet; None: as tunnels say."""
        changed, self._changed = sorted(self._changed), set()
        return [(way, self._learned[way][0] if way in self._learned else None) for way in changed]

    def _set(self, way: Way, known: tuple[int, float] | None) -> None:
        before = self._learned.pop(way, None)
        if known is not None:
            self._learned[way] = known
        if known != before:
            self._changed.add(way)


def plateau_below(octets: int) -> int:
    """The next smaller size that links have, for an error that does not say (RFC 1191 §7.1); 576 at least."""
    return next((each for each in _PLATEAUS if each < octets), LEAST[Family.IPV4])


def too_big(realm: int, packet: Ipv4View | None, octets: Octets) -> TooBig | None:
    """Read an error about a packet that its addressee tunnelled (RFC 1191 §4; RFC 4443 §3.2); None if it is none.

    Args:
        realm: Number of the realm that it arrived in.
        packet: The error, if it is IPv4.
        octets: The error, whichever it is.
    """
    try:
        return _too_big_ipv4(realm, packet) if packet is not None else _too_big_ipv6(realm, octets)
    except WireError:
        return None


def _too_big_ipv4(realm: int, packet: Ipv4View) -> TooBig | None:
    if packet.protocol != Protocol.ICMP or packet.is_fragment:
        return None
    message = IcmpView.parse(packet.payload)
    if (message.type, message.code) != (IcmpType.DESTINATION_UNREACHABLE, Unreachable.FRAGMENTATION_NEEDED):
        return None
    quote = Ipv4View.parse(message.body, quoted=True)
    kind = KINDS.get(quote.protocol)
    if kind is None or quote.src != packet.dst or not packet.checksum_ok or not message.checksum_ok:
        return None
    # All that we put into tunnels over IPv4 has DF set and no options.
    if not quote.df or quote.is_fragment or len(quote.header) != _HEADER[Family.IPV4]:
        return None
    return TooBig(
        way=Way(realm, quote.src, quote.dst),
        kind=kind,
        octets=quote.total_length,
        mtu=int.from_bytes(message.rest[2:4], "big"),
        payload=quote.payload,
    )


def _too_big_ipv6(realm: int, octets: Octets) -> TooBig | None:
    packet = Ipv6View.parse(octets)
    if packet.next_header != Protocol.ICMPV6:
        return None
    message = IcmpView.parse(packet.payload)
    if message.type != _PACKET_TOO_BIG:
        return None
    quote = Ipv6View.parse(message.body, quoted=True)
    kind = KINDS.get(quote.next_header)
    start = pseudo_header(packet.src.octets, packet.dst.octets, Protocol.ICMPV6, packet.payload_length)
    if kind is None or quote.src != packet.dst or checksum(packet.payload, start) != 0:
        return None
    return TooBig(
        way=Way(realm, quote.src, quote.dst),
        kind=kind,
        octets=_HEADER[Family.IPV6] + quote.payload_length,
        mtu=int.from_bytes(message.rest, "big"),
        payload=quote.payload,
    )


def _fits(error: TooBig, tunnel: Tunnel) -> bool:
    """Whether what is quoted looks like what we put into a tunnel."""
    shim = tunnel.overhead - _HEADER[tunnel.local.family]
    if tunnel.kind is not error.kind or error.octets > tunnel.mtu + tunnel.overhead:
        return False
    if bytes(error.payload[:shim][:4]) != _SHIM[shim][: len(error.payload)]:
        return False
    inner = error.payload[shim:]
    if len(inner) < _LENGTH_END:
        return True
    return inner[0] >> 4 == 4 and int.from_bytes(inner[2:_LENGTH_END], "big") + tunnel.overhead == error.octets


def inner_ends(error: TooBig, tunnel: Tunnel) -> tuple[Address, Address] | None:
    """Source and destination of the inner packet; None if less is quoted (RFC 792)."""
    inner = error.payload[tunnel.overhead - _HEADER[tunnel.local.family] :]
    if len(inner) < _HEADER[Family.IPV4]:
        return None
    return Address.from_octets(inner[12:16]), Address.from_octets(inner[16:20])
