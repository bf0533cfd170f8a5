# SPDX-License-Identifier: BSD-3-Clause
"""Out of the IPAE datagram: is it one, may its source be in it, and on as a SIP packet (seed IPAE 5.3; spec 5.1, 9.4).

Pairs with ``bpf/include/isthmus/datagram.h``.
"""

from __future__ import annotations

from isthmus.address import Address, Family
from isthmus.border.crossing import Encapsulation, Way
from isthmus.border.realm import TunnelEnd
from isthmus.border.verdict import Drop, Hold, Pass, Reason, Verdict
from isthmus.errors import WireError
from isthmus.plane.reference.fragment import ipv4_part, whole_ipv4
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.parcel import Origin, Parcel
from isthmus.plane.reference.sip import Asked, arrived, is_from_elsewhere
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.ipae import PROTOCOL, Version6, demultiplex


def out_of_datagram(known: Memory, end: TunnelEnd, packet: Ipv4View, now: float) -> tuple[Verdict, Asked]:
    """Take a protocol 41 packet that came to an end of ours (seed IPAE 5.3; errata E14, E15)."""
    if not packet.checksum_ok:
        return Drop(Reason.MALFORMED), None
    parts: tuple[bytes, ...] = ()
    if packet.is_fragment:
        whole = known.tunnelled.add(ipv4_part(packet, end.realm, (end.realm, packet.src)), now=now)
        if whole is None:
            return Hold(), None
        octets = whole if isinstance(whole, Reason) else whole_ipv4(whole)
        if isinstance(whole, Reason) or isinstance(octets, Reason):
            return Drop(octets if isinstance(octets, Reason) else Reason.FRAGMENT), None
        packet, parts = Ipv4View.parse(octets), whole.parts
    match demultiplex(packet.payload):
        case Version6.IPV6:
            return Pass(parts), None
        case Version6.SIP:
            return _emerged(known, end, packet, now)
    return Drop(Reason.NOT_SIP), None


def _emerged(known: Memory, end: TunnelEnd, packet: Ipv4View, now: float) -> tuple[Verdict, Asked]:
    view = known.dialect.parse(packet.payload)
    try:
        inside = known.dialect.walk(view).payload_type
    except WireError:
        return Drop(Reason.MALFORMED), None
    if inside == PROTOCOL:
        return Drop(Reason.NOT_SIP), None
    way = Way(end.realm, end.address, packet.src)
    if is_from_elsewhere(known, view.src, end.realm):
        return Drop(Reason.SITE_SOURCE_OUTSIDE), None
    if not _leads_back(known, end, way, view.src):
        return Drop(Reason.WRONG_WAY), None
    octets = bytearray(view.octets)
    inner = known.dialect.parse(octets)
    # Deviation: seed IPAE 5.3 says nothing; the outer TTL can only be lower in honest traffic (spec 3.2).
    inner.hop_limit = min(packet.ttl, inner.hop_limit)
    origin = Origin(
        realm=end.realm,
        family=Family.SIP,
        packet=bytes(view.octets),
        end=end,
        way=way,
        arrived=bytes(packet.octets),
    )
    return arrived(known, Parcel(realm=end.leads_to, octets=bytes(octets), origin=origin), now=now)


def _leads_back(known: Memory, end: TunnelEnd, way: Way, source: Address) -> bool:
    """Whether an IPAE system may send in the name of a SIP source: it is that system, or leads there (spec 9.4)."""
    if known.realms[end.realm].site == source.site:
        return True
    if way.remote == source.low and not known.border.rules.site_tunnels:
        return True
    if any(way.remote in each for each in known.border.rules.accept_from):
        return True
    entry = known.table.route(end.leads_to, source)
    crossing = None if entry is None else entry.binding.crossing
    return isinstance(crossing, Encapsulation) and Way(crossing.realm, end.address, crossing.end(source)) == way
