# SPDX-License-Identifier: BSD-3-Clause
"""Into tunnels and out of them (RFC 2003; RFC 2784; RFC 6040).

::

    +--------------------------+
    | outer header, protocol 4 |    20 octets: near realm, TTL 64, DF, identification 0
    +--------------------------+
    | inner header             |    untouched but for TTL and, on the way out, ECN
    +--------------------------+
    | transport, data          |    untouched
    +--------------------------+

Nothing is rewritten; that is the point of RSIP. An outer packet never needs fragmenting,
because the inner one is measured before.

Pairs with ``bpf/include/isthmus/tunnel.h``.
"""

from __future__ import annotations

from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.verdict import Reason
from isthmus.errors import WireError
from isthmus.plane.reference.classify import Octets, is_cut_off, parse
from isthmus.wire.gre import ETHERTYPE_IPV4, GreHeader
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol

KINDS: dict[int, TunnelKind] = {Protocol.IPIP: TunnelKind.IPIP, Protocol.GRE: TunnelKind.GRE}
"""Protocols that are tunnels, and RSIP's number for each (RFC 3103 §8.6)."""

_PROTOCOL = {kind: protocol for protocol, kind in KINDS.items()}
_OUTER_TTL = 64
_NOT_ECT, _ECT1, _ECT0, _CE = 0, 1, 2, 3


def tunnel_kind(outer: Ipv4View) -> TunnelKind | None:
    """The tunnel type of a packet; None if it is not tunnelled (RFC 3103 §8.6)."""
    return KINDS.get(outer.protocol)


def decapsulate(outer: Ipv4View) -> Ipv4View | Reason:
    """Take a packet out of its tunnel, checking whatever can be checked without a table.

    RFC 2003 §3 and RFC 2784 §2 for the format, RFC 1122 §3.2.1.2 for the inner checksum.

    Args:
        outer: A whole packet with a right header checksum, protocol 4 or 47.

    Returns:
        The inner packet, seen in place; or why it is dropped.
    """
    payload: Octets = outer.payload
    if outer.protocol == Protocol.GRE:
        try:
            # Deviation: RFC 2784 §2.5 wants a checksum verified. GRE is not offered, so the packet is dropped anyway.
            shim = GreHeader.parse(payload, verify=False)
        except WireError:
            return Reason.MALFORMED
        if shim.protocol_type != ETHERTYPE_IPV4:
            return Reason.MALFORMED
        payload = payload[shim.octets :]
    inner = parse(payload)
    if inner is None or not inner.checksum_ok:
        return Reason.MALFORMED
    if inner.is_fragment:
        return Reason.FRAGMENT
    if is_cut_off(inner) or egress_tos(outer, inner) is None:
        return Reason.MALFORMED
    return inner


def egress_tos(outer: Ipv4View, inner: Ipv4View) -> int | None:
    """TOS of a packet that comes out: the inner one, with congestion marks of the way (RFC 6040 §4.2, figure 4).

    Returns:
        None where the packet must be dropped: congestion experienced by what cannot tell its sender.
    """
    if outer.ecn == _CE:
        return None if inner.ecn == _NOT_ECT else inner.tos | _CE
    if outer.ecn == _ECT1 and inner.ecn == _ECT0:
        return inner.tos & ~_CE | _ECT1
    return inner.tos


def encapsulate(inner: Octets, tunnel: Tunnel) -> bytes:
    """Put a packet into its tunnel.

    RFC 2003 §3.1 for the outer header, RFC 6040 §4.1 (normal mode) for ECN, RFC 2784 §2 for GRE.

    Args:
        inner: The packet, not larger than the tunnel's MTU; its TTL has already been decremented.
        tunnel: Where it goes.
    """
    # Deviation: RFC 2003 §3.1 copies DF; ours is always set, because an outer packet never needs fragmenting, and a
    # packet that is never fragmented may carry any identification (RFC 6864 §4.1).
    header = Ipv4Header(
        tos=inner[1],
        total_length=tunnel.overhead + len(inner),
        df=True,
        ttl=_OUTER_TTL,
        protocol=_PROTOCOL[tunnel.kind],
        src=tunnel.local,
        dst=tunnel.remote,
    )
    shim = GreHeader(protocol_type=ETHERTYPE_IPV4).emit() if tunnel.kind is TunnelKind.GRE else b""
    return header.emit() + shim + bytes(inner)
