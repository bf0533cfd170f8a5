# SPDX-License-Identifier: BSD-3-Clause
"""How a SIP packet crosses: on a link, as an IPAE datagram, or as a packet of another realm (seed IPAE 6.3 a, c, d).

Here nothing is answered: what cannot cross comes back as a ``Refusal``. The steps are those of ``docs/data-plane.md``.

Pairs with ``bpf/include/isthmus/cross.h``.
"""

from __future__ import annotations

from isthmus.address import Address, Family
from isthmus.border.crossing import IPAE_OVERHEAD, Encapsulation, Native, Translate, Way
from isthmus.border.rules import Df0
from isthmus.border.verdict import Reason
from isthmus.plane.reference import icmp_relay, lookup
from isthmus.plane.reference.fragment import cut
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.out_of_sip import out_of_sip
from isthmus.plane.reference.parcel import Crossed, Departure, Parcel, Refusal, exceeded, too_big, unreachable
from isthmus.plane.reference.sip_fragment import cut_sip
from isthmus.plane.reference.ways import Condition
from isthmus.wire.sip.header import MINIMUM_MTU
from isthmus.wire.sip.ipae import encapsulate


def cross(known: Memory, parcel: Parcel, *, now: float) -> Crossed:
    """Take a packet on toward its destination, whatever its hop limit says (RFC 8507 §4.2; spec 2.4)."""
    destination = known.dialect.parse(parcel.octets).dst
    entry = known.table.route(parcel.realm, destination)
    if entry is None:
        return Refusal(reason=Reason.NO_ROUTE, complaint=unreachable())
    if lookup.expired(entry, now):
        return Refusal(reason=Reason.LEASE_EXPIRED)
    match entry.binding.crossing:
        case Native() as crossing:
            return _onto_link(known, parcel, crossing, destination, now)
        case Encapsulation() as crossing:
            return _into_datagram(known, parcel, crossing, destination, now)
        case Translate() as crossing:
            return out_of_sip(known, parcel, crossing, entry.binding.device, now=now)
    return Refusal(reason=Reason.NO_ROUTE, complaint=unreachable())


def _onto_link(known: Memory, parcel: Parcel, crossing: Native, destination: Address, now: float) -> Crossed:
    """Put a packet onto a link as it is (seed IPAE 4.2.1; RFC 8507 §8.4)."""
    neighbour = crossing.next_hop(destination)
    if icmp_relay.is_no_host(neighbour):
        return Refusal(reason=Reason.FORBIDDEN_SIP_ADDRESS)
    mtu = known.realms[crossing.realm].mtu
    pieces = _fitting(known, parcel, mtu, now)
    if pieces is None:
        return Refusal(reason=Reason.TOO_BIG, complaint=too_big(max(mtu, MINIMUM_MTU)))
    return Departure(realm=crossing.realm, packets=pieces, neighbour=neighbour)


def _fitting(known: Memory, parcel: Parcel, mtu: int, now: float) -> tuple[bytes, ...] | None:
    """The packet in pieces that a way carries; None if it is too large and not ours to cut (spec 3.5)."""
    origin = parcel.origin
    if origin.family is Family.IPV4 and origin.may_be_cut and known.border.rules.df0 is Df0.FRAG576:
        mtu = min(mtu, MINIMUM_MTU)
    if origin.family is Family.IPV6 and origin.may_be_cut:
        # What a program sends to everybody, 1280 octets of IPv6, may be too large for somebody (spec 3.5).
        view = known.dialect.parse(parcel.octets)
        mtu = min(mtu, known.ways.condition(Way(parcel.realm, view.src, view.dst), now=now).mtu or mtu)
    if len(parcel.octets) <= mtu:
        return (parcel.octets,)
    if not origin.may_be_cut:
        return None
    identification = known.ring.number() if origin.identification is None else origin.identification
    return cut_sip(parcel.octets, max(mtu, MINIMUM_MTU), known.dialect, identification)


def _into_datagram(known: Memory, parcel: Parcel, crossing: Encapsulation, destination: Address, now: float) -> Crossed:
    """Send a packet through IPv4 to the next IPAE system (seed IPAE 4.2.2, 5.2; spec 3.1, 3.5)."""
    way = Way(crossing.realm, crossing.local, crossing.end(destination))
    if icmp_relay.is_no_host(way.remote):
        return Refusal(reason=Reason.FORBIDDEN_SIP_ADDRESS)
    if way in (parcel.origin.way, Way(way.realm, way.local, way.local)) or _came_from(parcel, way):
        return Refusal(reason=Reason.LOOP)
    condition = known.ways.condition(way, now=now)
    # Deviation: T93 4.5 answers and sends all the same; we do either, and who probes hears of the way from its routers.
    probing = known.border.rules.probe_on_error
    refused = None if probing else _doomed(known, parcel, way, condition, now)
    if refused is not None:
        return refused
    realm_mtu = known.realms[crossing.realm].mtu
    narrow = None if probing else condition.mtu
    mtu = min(crossing.mtu, realm_mtu - IPAE_OVERHEAD, (narrow or realm_mtu) - IPAE_OVERHEAD)
    limit = max(mtu, MINIMUM_MTU)
    pieces = _fitting(known, parcel, limit, now)
    if pieces is None:
        return Refusal(reason=Reason.TOO_BIG, complaint=too_big(limit))
    datagrams = [_datagram(known, piece, way, df=mtu >= MINIMUM_MTU, now=now) for piece in pieces]
    return Departure(realm=crossing.realm, packets=tuple(part for each in datagrams for part in cut(each, realm_mtu)))


def _came_from(parcel: Parcel, way: Way) -> bool:
    """Whether a packet would go back to the IPAE system that it came from, whichever end of ours it came to."""
    came = parcel.origin.way
    return came is not None and (came.realm, came.remote) == (way.realm, way.remote)


def _doomed(known: Memory, parcel: Parcel, way: Way, condition: Condition, now: float) -> Refusal | None:
    """What the last packets by this way have met this one would meet, too (spec 6.4, layer 3)."""
    if condition.down is not None and not known.ways.tries(way, now=now):
        return Refusal(reason=Reason.TUNNEL_DOWN, complaint=unreachable(reporter=condition.down))
    hops = known.dialect.parse(parcel.octets).hop_limit
    if hops < condition.hops:
        return Refusal(reason=Reason.TTL_EXCEEDED, complaint=exceeded(reporter=condition.routers.get(hops)))
    return None


def _datagram(known: Memory, packet: bytes, way: Way, *, df: bool, now: float) -> bytes:
    """Write an IPAE datagram; its identification is the slot of the ring that keeps the packet (spec 3.1, 6.4)."""
    view = known.dialect.parse(packet)
    return encapsulate(
        view,
        src=way.local,
        dst=way.remote,
        identification=known.ring.put(way.remote, packet, now=now),
        df=df,
        tos=view.reserved & 0xFF if known.dialect.keep_tos else 0,
    )
