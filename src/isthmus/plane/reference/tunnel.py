# SPDX-License-Identifier: BSD-3-Clause
"""Into tunnels and out of them (RFC 2003; RFC 2473; RFC 2784; RFC 6040).

::

    +--------------------------+
    | outer header, protocol 4 |    IPv4: 20 octets, TTL 64, DF, identification 0; or IPv6: 40 octets, hop limit 64
    +--------------------------+
    | GRE, if agreed on        |    4 octets, 8 with a checksum
    +--------------------------+
    | inner header, IPv4       |    untouched but for TTL and, on the way out, ECN
    +--------------------------+
    | transport, data          |    untouched
    +--------------------------+

Nothing is rewritten; that is the point of RSIP. An outer packet never needs fragmenting,
because the inner one is measured before.

Pairs with ``bpf/include/isthmus/tunnel.h``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.verdict import Reason
from isthmus.errors import WireError
from isthmus.plane.reference.classify import Octets, is_cut_off, parse
from isthmus.plane.reference.fragment import Part, Whole, ipv4_part, ipv6_part, whole_ipv4, whole_ipv6
from isthmus.wire import gre
from isthmus.wire.gre import ETHERTYPE_IPV4, GreHeader
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.ipv6 import Carried, Ipv6Header, Ipv6View, carried
from isthmus.wire.transport import Protocol

KINDS: dict[int, TunnelKind] = {Protocol.IPIP: TunnelKind.IPIP, Protocol.GRE: TunnelKind.GRE}
"""Protocols that are tunnels, and RSIP's number for each (RFC 3103 §8.6)."""

_PROTOCOL = {kind: protocol for protocol, kind in KINDS.items()}
_OUTER_TTL = 64
_NOT_ECT, _ECT1, _ECT0, _CE = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Outer:
    """A tunnelled packet, or a fragment of one, of either family."""

    packet: Ipv4View | Ipv6View
    carried: Carried
    kind: TunnelKind

    @classmethod
    def over_ipv4(cls, packet: Ipv4View) -> Outer | None:
        """See a packet as tunnelled; None if it is not (RFC 2003 §3; RFC 3103 §8.6)."""
        kind = KINDS.get(packet.protocol)
        return None if kind is None else cls(packet, Carried(next_header=packet.protocol, payload=packet.payload), kind)

    @classmethod
    def over_ipv6(cls, octets: Octets) -> Outer | None:
        """See octets as a tunnelled IPv6 packet; None if they are none (RFC 2473 §3.1; RFC 3103 §8.6)."""
        try:
            packet = Ipv6View.parse(octets)
            inside = carried(packet)
        except WireError:
            return None
        kind = KINDS.get(inside.next_header)
        return None if kind is None else cls(packet, inside, kind)

    @property
    def family(self) -> Family:
        """Of the outer addresses."""
        return self.packet.src.family

    @property
    def src(self) -> Address:
        """Outer source address."""
        return self.packet.src

    @property
    def dst(self) -> Address:
        """Outer destination address."""
        return self.packet.dst

    @property
    def payload(self) -> memoryview:
        """GRE header or inner packet."""
        return self.carried.payload

    @property
    def ecn(self) -> int:
        """Congestion marks of the way (RFC 3168 §5)."""
        return self.packet.ecn

    @property
    def checksum_ok(self) -> bool:
        """Whether the header checksum is right; IPv6 has none."""
        return not isinstance(self.packet, Ipv4View) or self.packet.checksum_ok

    @property
    def is_fragment(self) -> bool:
        """Whether it is a part of a packet only."""
        return self.packet.is_fragment if isinstance(self.packet, Ipv4View) else self.carried.fragment is not None

    def part(self, place: Hashable, source: Hashable) -> Part:
        """See a fragment as a part of a packet; arguments as for ``fragment.ipv4_part``."""
        if isinstance(self.packet, Ipv4View):
            return ipv4_part(self.packet, place, source)
        assert self.carried.fragment is not None
        return ipv6_part(self.packet, self.carried.fragment, self.payload, place, source)

    def put_together(self, whole: Whole) -> Outer | Reason:
        """The whole packet that this was the last fragment of."""
        if isinstance(self.packet, Ipv6View):
            return Outer.over_ipv6(whole_ipv6(whole)) or Reason.MALFORMED
        octets = whole_ipv4(whole)
        return octets if isinstance(octets, Reason) else Outer.over_ipv4(Ipv4View.parse(octets)) or Reason.MALFORMED


def decapsulate(outer: Outer) -> tuple[Ipv4View, int] | Reason:
    """Take a packet out of its tunnel, checking whatever can be checked without a table.

    RFC 2003 §3, RFC 2473 §3.3 and RFC 2784 §2 for the format, RFC 1122 §3.2.1.2 for the inner checksum.

    Args:
        outer: A whole packet with a right header checksum.

    Returns:
        The inner packet or fragment, seen in place, and its TOS as it goes on; or why it is dropped.
    """
    payload: Octets = outer.payload
    if outer.kind is TunnelKind.GRE:
        try:
            shim = GreHeader.parse(payload)
        except WireError:
            return Reason.MALFORMED
        if shim.protocol_type != ETHERTYPE_IPV4:
            return Reason.MALFORMED
        payload = payload[shim.octets :]
    inner = parse(payload)
    if inner is None or not inner.checksum_ok:
        return Reason.MALFORMED
    tos = egress_tos(outer, inner)
    if tos is None or (not inner.is_fragment and is_cut_off(inner)):
        return Reason.MALFORMED
    return inner, tos


def egress_tos(outer: Outer, inner: Ipv4View) -> int | None:
    """TOS of a packet that comes out: the inner one, with congestion marks of the way (RFC 6040 §4.2, figure 4).

    Returns:
        None where the packet must be dropped: congestion experienced by what cannot tell its sender.
    """
    marks = outer.ecn
    if marks == _CE:
        return None if inner.ecn == _NOT_ECT else inner.tos | _CE
    if marks == _ECT1 and inner.ecn == _ECT0:
        return inner.tos & ~_CE | _ECT1
    return inner.tos


def encapsulate(inner: Octets, tunnel: Tunnel) -> bytes:
    """Put a packet into its tunnel.

    RFC 2003 §3.1 and RFC 2473 §6 for the outer header, RFC 6040 §4.1 (normal mode) for ECN, RFC 2784 §2 for GRE.

    Args:
        inner: The packet, not larger than the tunnel's MTU; its TTL has already been decremented.
        tunnel: Where it goes.
    """
    content = bytes(inner)
    if tunnel.kind is TunnelKind.GRE:
        content = gre.emit(ETHERTYPE_IPV4, content, with_checksum=tunnel.checksum)
    protocol = _PROTOCOL[tunnel.kind]
    if tunnel.local.family is Family.IPV6:
        # Deviation: RFC 2473 §4.1.1 lets a tunnel limit how often a packet is encapsulated; ours do not nest.
        return (
            Ipv6Header(
                traffic_class=inner[1],
                payload_length=len(content),
                next_header=protocol,
                hop_limit=_OUTER_TTL,
                src=tunnel.local,
                dst=tunnel.remote,
            ).emit()
            + content
        )
    # Deviation: RFC 2003 §3.1 copies DF; ours is always set, because an outer packet never needs fragmenting, and a
    # packet that is never fragmented may carry any identification (RFC 6864 §4.1).
    header = Ipv4Header(
        tos=inner[1],
        total_length=20 + len(content),
        df=True,
        ttl=_OUTER_TTL,
        protocol=protocol,
        src=tunnel.local,
        dst=tunnel.remote,
    )
    return header.emit() + content
