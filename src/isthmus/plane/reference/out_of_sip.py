# SPDX-License-Identifier: BSD-3-Clause
"""Out of SIP: a packet becomes one of IPv4, or of a program's IPv6 socket (seed IPAE 5.2; spec 3.4, 8.2).

Pairs with ``bpf/include/isthmus/out_of_sip.h``.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from isthmus.address import Address, Family
from isthmus.border.crossing import Translate, Way
from isthmus.border.realm import End, Foreign, Realm
from isthmus.border.verdict import Hold, Miss, Reason
from isthmus.errors import WireError
from isthmus.plane.reference import icmp_relay, translate, translate_icmp, translate_ipv6
from isthmus.plane.reference.classify import Octets
from isthmus.plane.reference.dialect import is_plain
from isthmus.plane.reference.fragment import cut
from isthmus.plane.reference.images import in_ipv4
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.parcel import Crossed, Departure, Parcel, Refusal, too_big, unreachable
from isthmus.plane.reference.sip_fragment import cut_sip, sip_part, whole_sip
from isthmus.plane.reference.translate import MOST_STOPS, Route
from isthmus.wire.sip.header import MINIMUM_MTU, SipHeader, SipView
from isthmus.wire.sip.icmp import SipIcmpMessage, Unreachable
from isthmus.wire.sip.ipae import PROTOCOL
from isthmus.wire.sip.option import Chain
from isthmus.wire.transport import Protocol

_LARGEST = 0xFFFF
_UNTRANSLATABLE = Refusal(reason=Reason.NO_IMAGE)


def out_of_sip(known: Memory, parcel: Parcel, crossing: Translate, device: str | None, *, now: float) -> Crossed:
    """Write a packet as one of the realm that it goes to.

    Args:
        known: The memory.
        parcel: The packet. Fragments of an ICMP message are put together: its checksum covers the length of the whole.
        crossing: How its destination is known there.
        device: Where the binding delivers.
        now: Seconds since 1970.
    """
    whole = put_together(known, parcel, now=now, only_icmp=True)
    if not isinstance(whole, Parcel):
        return whole
    view = known.dialect.parse(whole.octets)
    chain = known.dialect.walk(view)
    if chain.payload_type == PROTOCOL:
        return Refusal(reason=Reason.NOT_SIP)
    if chain.payload_type == Protocol.ICMP and not _is_message(known, view, chain):
        return Refusal(reason=Reason.MALFORMED)
    realm = known.realms[crossing.realm]
    if realm.family is Family.IPV6:
        _hear(known, parcel.realm, view, chain, now)
        return _to_ipv6(known, view, chain, crossing, device)
    if not is_plain(chain):
        return Refusal(reason=Reason.SOURCE_ROUTE)
    return _to_ipv4(known, whole, view, chain, crossing, device=device)


def put_together(known: Memory, parcel: Parcel, *, now: float, only_icmp: bool) -> Parcel | Refusal | Hold:
    """The packet, if it is whole or now becomes so (RFC 8507 §7).

    Args:
        known: The memory.
        parcel: A packet or a fragment.
        now: Seconds since 1970.
        only_icmp: Whether fragments of anything but ICMP go on as they are.
    """
    view = known.dialect.parse(parcel.octets)
    try:
        chain = known.dialect.walk(view)
    except WireError:
        return Refusal(reason=Reason.MALFORMED)
    if not chain.is_fragment or (only_icmp and chain.payload_type != Protocol.ICMP):
        return parcel
    if not is_plain(chain):
        return Refusal(reason=Reason.FRAGMENT)
    whole = known.fragments.add(sip_part(view, chain, known.dialect, ("sip", parcel.realm)), now=now)
    if whole is None:
        return Hold()
    if isinstance(whole, Reason):
        return Refusal(reason=whole)
    return replace(parcel, octets=whole_sip(whole))


def _is_message(known: Memory, view: SipView, chain: Chain) -> bool:
    """Whether it is an ICMP message; of an error, which is written anew, whether its checksum is right."""
    if len(chain.payload) < 8:
        return False
    start = known.dialect.icmp_sum(view.src, chain.final_destination, len(chain.payload))
    return chain.payload[0] in translate_icmp.ECHOES or translate_icmp.is_sound(chain.payload, start)


# --- to IPv4 ------------------------------------------------------------------------------


def _to_ipv4(
    known: Memory,
    parcel: Parcel,
    view: SipView,
    chain: Chain,
    crossing: Translate,
    *,
    device: str | None,
) -> Crossed:
    realm = known.realms[crossing.realm]
    dst = crossing.image_of(view.dst)
    src = in_ipv4(known, realm, parcel.realm, view.src)
    if src is None and parcel.origin.is_own and not parcel.origin.is_translated:
        src = speaker(known, realm)
    if src is None:
        return _unknown(parcel, realm, view.src)
    if icmp_relay.is_no_host(src) or icmp_relay.is_no_host(dst):
        return Refusal(reason=Reason.FORBIDDEN_SIP_ADDRESS)
    route = chain.source_route
    if route is not None and len(route.addresses) > MOST_STOPS:
        return Refusal(reason=Reason.SOURCE_ROUTE, complaint=unreachable(Unreachable.SOURCE_ROUTE_FAILED))
    payload = _ipv4_payload(known, parcel, view, chain, realm)
    if payload is None:
        return _UNTRANSLATABLE
    stops = None
    if route is not None and route.addresses:
        known_stops = (in_ipv4(known, realm, parcel.realm, each) or each.low for each in route.addresses)
        stops = Route(stops=tuple(known_stops), next_stop=min(route.next_address, len(route.addresses)))
    if 20 + (0 if stops is None else 4 + 4 * len(stops.stops)) + len(payload) > _LARGEST:
        return Refusal(reason=Reason.TOO_BIG, complaint=too_big(_LARGEST))
    packet = translate.to_ipv4(
        view,
        chain,
        known.dialect,
        src=src,
        dst=dst,
        hop_limit=view.hop_limit,
        identification=known.ring.number() if chain.fragmentation is None else 0,
        route=stops,
        payload=payload,
    )
    delivered = realm.end is End.HOST
    df = chain.fragmentation is None and view.src.c_bit
    if len(packet) > realm.mtu and df and not delivered:
        mtu = max(realm.mtu + translate_icmp.HEADER_DIFFERENCE, MINIMUM_MTU)
        return Refusal(reason=Reason.TOO_BIG, complaint=too_big(mtu))
    return Departure(realm=realm.number, packets=cut(packet, realm.mtu), device=device, is_translated=True)


def _ipv4_payload(known: Memory, parcel: Parcel, view: SipView, chain: Chain, realm: Realm) -> Octets | None:
    """The transport, which is left alone unless it is ICMP (spec 2.6)."""
    if chain.payload_type != Protocol.ICMP:
        return chain.payload

    def quoted_ends(quoted: SipView, inside: Chain) -> tuple[Address, Address]:
        ends = quoted.src, inside.final_destination
        src, dst = (in_ipv4(known, realm, parcel.realm, each) or each.low for each in ends)
        return src, dst

    message = SipIcmpMessage.parse(chain.payload)
    ends = view.src, chain.final_destination
    return translate_icmp.to_ipv4(message, known.dialect, ends, quoted_ends=quoted_ends)


def _unknown(parcel: Parcel, realm: Realm, source: Address) -> Crossed:
    """A source has no address in the realm: ask for one, or refuse (spec 8.3)."""
    if realm.foreign is Foreign.REFUSE:
        return Refusal(reason=Reason.NO_IMAGE, complaint=unreachable(Unreachable.ADMINISTRATIVELY_PROHIBITED))
    origin = parcel.origin
    return Miss(
        realm=realm.number,
        address=source,
        arrived=origin.realm,
        link=origin.link,
        packet=origin.arrived or origin.packet,
    )


def speaker(known: Memory, realm: Realm) -> Address:
    """Who we are to the systems of an IPv4 realm: an end of tunnels there, or nobody in particular (RFC 7600 §4.8)."""
    for each in known.border.nodes:
        if each.address.site == realm.site:
            return each.address.low
    ends = (end.address for end in known.border.tunnel_ends if end.realm == realm.number)
    return next((each for each in ends if each.family is Family.IPV4), icmp_relay.UNNUMBERED)


# --- to IPv6 ------------------------------------------------------------------------------


def _hear(known: Memory, realm: int, view: SipView, chain: Chain, now: float) -> None:
    """Remember where packets of a program have to be smaller than IPv6 will make them (spec 3.5)."""
    if chain.payload_type != Protocol.ICMP:
        return
    message = SipIcmpMessage.parse(chain.payload)
    mtu = message.next_hop_mtu
    if mtu is None or mtu >= translate_ipv6.LEAST_MTU - translate_ipv6.HEADER_DIFFERENCE:
        return
    with contextlib.suppress(WireError):
        quoted = message.quoted(known.dialect.order)
        if quoted.src == view.dst:
            known.ways.narrow(Way(realm, quoted.src, quoted.dst), max(mtu, MINIMUM_MTU), now=now)


def _to_ipv6(known: Memory, view: SipView, chain: Chain, crossing: Translate, device: str | None) -> Crossed:
    sip_ends = view.src, chain.final_destination
    ends = _ipv6_ends(crossing, *sip_ends)
    kind, payload = chain.payload_type, bytes(chain.payload)
    if kind == Protocol.ICMP:
        kind = Protocol.ICMPV6
        message = translate_ipv6.icmp_to_ipv6(
            SipIcmpMessage.parse(chain.payload),
            known.dialect,
            sip_ends,
            ends,
            quoted_ends=lambda quoted: _ipv6_ends(crossing, quoted.src, quoted.dst),
        )
        if message is None:
            return _UNTRANSLATABLE
        payload = message
    realm, dialect = known.realms[crossing.realm], known.dialect
    header = replace(SipHeader.of(view), payload_length=0, payload_type=kind)
    part = chain.fragmentation
    # What had been cut before may be cut again: nobody here forbade it.
    octets = dialect.write(header, payload, part=part)
    most = max(realm.mtu - translate_ipv6.HEADER_DIFFERENCE, MINIMUM_MTU)
    pieces = (octets,) if part is None else cut_sip(octets, most, dialect, part.identification)
    packets = tuple(_ipv6_packet(known, piece, ends) for piece in pieces)
    if max(map(len, packets)) > realm.mtu:
        return Refusal(reason=Reason.TOO_BIG, complaint=too_big(most))
    return Departure(realm=realm.number, packets=packets, device=device, is_translated=True)


def _ipv6_ends(crossing: Translate, src: Address, dst: Address) -> tuple[Address, Address]:
    """Both addresses as a program knows them: one C bit turns both (spec 8.2)."""
    compatible = src.c_bit or dst.c_bit
    return crossing.image_of(src, compatible=compatible), crossing.image_of(dst, compatible=compatible)


def _ipv6_packet(known: Memory, octets: bytes, ends: tuple[Address, Address]) -> bytes:
    view = known.dialect.parse(octets)
    chain = known.dialect.walk(view)
    return translate_ipv6.to_ipv6(view, chain, known.dialect, ends, kind=chain.payload_type, payload=chain.payload)
