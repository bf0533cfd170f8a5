# SPDX-License-Identifier: BSD-3-Clause
"""Into SIP: IPv4 packets by a mapping or a binding, and what programs send by IPv6 sockets (seed IPAE 5.1; spec 3.3).

Pairs with ``bpf/include/isthmus/into_sip.h``.
"""

from __future__ import annotations

from dataclasses import replace

from isthmus.address import Address, Family
from isthmus.border.realm import End, Realm, Unmapped
from isthmus.border.rules import Df0
from isthmus.border.verdict import Drop, Hold, Miss, Reason, Verdict
from isthmus.errors import WireError
from isthmus.plane.reference import icmp_relay, lookup, translate, translate_icmp, translate_ipv6
from isthmus.plane.reference.answer import answer_ipv4, answer_ipv6
from isthmus.plane.reference.classify import Octets, is_cut_off
from isthmus.plane.reference.fragment import ipv4_part, ipv6_part, whole_ipv4
from isthmus.plane.reference.images import Target, in_sip, is_ours, stop_in_sip, target
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.parcel import Complaint, Origin, Parcel, exceeded, unreachable
from isthmus.plane.reference.sip import Asked, arrived
from isthmus.wire.icmp import IcmpView
from isthmus.wire.icmp import Unreachable as Ipv4Unreachable
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import FragmentHeader, Ipv6View
from isthmus.wire.sip.icmp import Unreachable
from isthmus.wire.sip.ipae import PROTOCOL
from isthmus.wire.sip.option import SourceRoute
from isthmus.wire.transport import Protocol

_IGMP = 2
_NEVER = frozenset({PROTOCOL, _IGMP})
_DISCOVERY = range(130, 138)
"ICMPv6 of the link: listeners, routers, neighbours (RFC 2710, RFC 4861)."

Way = tuple[Verdict, Asked]


# --- from IPv4 ----------------------------------------------------------------------------


def from_ipv4(known: Memory, realm: Realm, packet: Ipv4View, now: float, *, device: str | None) -> Way | None:
    """Take an IPv4 packet of a realm that SIP begins in; None if it is none of ours (seed IPAE 5.1; spec 6.2)."""
    if icmp_relay.is_no_host(packet.dst) or packet.protocol in _NEVER:
        return None
    found = target(known, realm, packet.dst)
    if found is None:
        return _unmapped(known, realm, packet, now, device)
    origin = Origin(
        realm=realm.number,
        family=Family.IPV4,
        packet=bytes(packet.octets),
        device=device,
        is_own=realm.end is End.HOST,
        may_be_cut=not packet.df,
        identification=packet.identification,
    )
    if not packet.checksum_ok:
        return Drop(Reason.MALFORMED), None
    if found.entry is not None and lookup.expired(found.entry, now):
        return Drop(Reason.LEASE_EXPIRED), None
    if packet.protocol == Protocol.ICMP and packet.is_fragment:
        return _message_in_parts(known, realm, packet, origin, found, now=now)
    return _translated(known, realm, packet, origin, found, now=now)


def _unmapped(known: Memory, realm: Realm, packet: Ipv4View, now: float, device: str | None) -> Way | None:
    """What nobody knows: the machine's, refused, or asked for (spec 6.2, 6.3)."""
    beyond = realm.site is not None and realm.sip is not None and realm.unmapped is not Unmapped.PASS
    mapped = known.table.mapped(realm.number)
    if not beyond or is_ours(known, realm, packet.dst) or known.is_meant(realm.number, packet.dst):
        return None
    if mapped is not None and mapped.mapping.lookup(packet.dst) is not None:
        return None
    if not packet.checksum_ok or (is_cut_off(packet) and not packet.fragment_offset):
        return Drop(Reason.MALFORMED), None
    octets = bytes(packet.octets)
    if realm.unmapped is Unmapped.ASK:
        asked = Miss(realm=realm.number, address=packet.dst, arrived=realm.number, link=None, packet=octets)
        return Hold(), asked
    origin = Origin(realm=realm.number, family=Family.IPV4, packet=octets, device=device)
    complaint = Complaint(type=3, code=Ipv4Unreachable.NETWORK_UNKNOWN)
    return answer_ipv4(known, origin, complaint, Reason.UNMAPPED, now=now), None


def _message_in_parts(
    known: Memory, realm: Realm, packet: Ipv4View, origin: Origin, found: Target, *, now: float
) -> Way:
    """Put an ICMP message together: its checksum in SIP covers the length of the whole (spec 2.6)."""
    whole = known.fragments.add(ipv4_part(packet, ("into", realm.number), (realm.number, packet.src)), now=now)
    if whole is None:
        return Hold(), None
    octets = whole if isinstance(whole, Reason) else whole_ipv4(whole)
    if isinstance(octets, Reason):
        return Drop(octets), None
    # Whoever cuts what DF forbids to cut may see it cut again (RFC 6864 §4.3).
    return _translated(known, realm, Ipv4View.parse(octets), replace(origin, may_be_cut=True), found, now=now)


def _translated(known: Memory, realm: Realm, packet: Ipv4View, origin: Origin, found: Target, *, now: float) -> Way:
    if is_cut_off(packet) and not packet.fragment_offset:
        return Drop(Reason.MALFORMED), None
    # Whoever is its own gateway is no further hop, neither as the source nor as the destination (erratum E15).
    hops = 0 if origin.is_own or known.is_node(found.realm, found.address) else 1
    if hops and packet.ttl <= 1:
        return answer_ipv4(known, origin, exceeded(), Reason.TTL_EXCEEDED, now=now), None
    try:
        options = translate.read_options(packet.options)
    except WireError:
        return Drop(Reason.MALFORMED), None
    src = in_sip(known, found.realm, realm, packet.src)
    if src is None:
        return Drop(Reason.NO_IMAGE), None
    if options.is_strict:
        complaint = unreachable(Unreachable.SOURCE_ROUTE_FAILED)
        return answer_ipv4(known, origin, complaint, Reason.SOURCE_ROUTE, now=now), None
    route = None
    if options.route is not None and options.route.stops:
        stops = tuple(stop_in_sip(known, found.realm, realm, each) for each in options.route.stops)
        if None in stops:
            return Drop(Reason.NO_IMAGE), None
        addresses = tuple(each for each in stops if each is not None)
        route = SourceRoute(addresses=addresses, next_address=options.route.next_stop, payload_type=packet.protocol)
    final = route.addresses[-1] if route is not None and not route.is_finished else found.address
    payload = _ipv4_payload(known, realm, packet, (src, final), found.realm)
    if isinstance(payload, Reason):
        return Drop(payload), None
    octets = translate.to_sip(
        packet,
        known.dialect,
        src=src,
        dst=found.address,
        hop_limit=packet.ttl - hops,
        route=route,
        marked=not packet.df and known.border.rules.df0 is not Df0.FIT,
        payload=payload,
    )
    return arrived(known, Parcel(realm=found.realm, octets=octets, origin=origin), now=now)


def _ipv4_payload(
    known: Memory, realm: Realm, packet: Ipv4View, ends: tuple[Address, Address], sip: int
) -> Octets | Reason:
    """The transport, which is left alone unless it is ICMP (spec 2.6)."""
    if packet.protocol != Protocol.ICMP:
        return packet.payload

    def quoted_ends(quoted: Ipv4View) -> tuple[Address, Address] | None:
        # Who sent what is quoted is who is told now.
        sender = target(known, realm, quoted.src)
        receiver = in_sip(known, sip, realm, quoted.dst)
        return None if sender is None or receiver is None else (sender.address, receiver)

    message = IcmpView.parse(packet.payload)
    if message.is_error and not message.checksum_ok:
        return Reason.MALFORMED
    return translate_icmp.to_sip(message, known.dialect, ends, quoted_ends=quoted_ends) or Reason.NO_IMAGE


# --- from IPv6 sockets --------------------------------------------------------------------


def from_ipv6(known: Memory, realm: Realm, octets: Octets, now: float, *, device: str | None) -> Way:
    """Take what a program sent by an IPv6 socket (spec 8.2)."""
    try:
        packet = Ipv6View.parse(octets)
        kind, part, payload = translate_ipv6.read_ipv6(packet)
    except WireError:
        return Drop(Reason.MALFORMED), None
    discovery = kind == Protocol.ICMPV6 and part is None and len(payload) > 0 and payload[0] in _DISCOVERY
    if packet.dst.is_multicast or discovery:
        return Drop(Reason.FORBIDDEN_SIP_ADDRESS), None
    origin = Origin(
        realm=realm.number,
        family=Family.IPV6,
        packet=bytes(packet.octets),
        device=device,
        is_own=True,
        # What a program has cut, or may not make smaller: an IPv6 link carries 1280 octets (RFC 8200 §5).
        may_be_cut=part is not None or len(packet.octets) <= translate_ipv6.LEAST_MTU,
        identification=None if part is None else part.identification,
    )
    found = target(known, realm, packet.dst)
    if found is None:
        return answer_ipv6(known, origin, unreachable(), Reason.NO_ROUTE, now=now), None
    src = in_sip(known, found.realm, realm, packet.src)
    if src is None:
        return Drop(Reason.NO_IMAGE), None
    if kind == Protocol.ICMPV6:
        return _icmpv6(known, packet, (part, payload), origin, (src, found), now=now)
    sip = translate_ipv6.to_sip(packet, known.dialect, (src, found.address), kind=kind, part=part, payload=payload)
    return arrived(known, Parcel(realm=found.realm, octets=sip, origin=origin), now=now)


def _icmpv6(
    known: Memory,
    packet: Ipv6View,
    carried: tuple[FragmentHeader | None, Octets],
    origin: Origin,
    ends: tuple[Address, Target],
    *,
    now: float,
) -> Way:
    (part, payload), (src, found) = carried, ends
    if part is not None and part.is_fragment:
        whole = known.fragments.add(
            ipv6_part(packet, part, payload, ("into", origin.realm), (origin.realm, packet.src)), now=now
        )
        if whole is None:
            return Hold(), None
        if isinstance(whole, Reason):
            return Drop(whole), None
        payload = whole.data
    if len(payload) < 8:
        return Drop(Reason.MALFORMED), None

    def quoted_ends(quoted: Ipv6View) -> tuple[Address, Address]:
        return translate_ipv6.sip_of(quoted.src), translate_ipv6.sip_of(quoted.dst)

    sip_ends = src, found.address
    message = translate_ipv6.icmp_to_sip(
        IcmpView.parse(payload), known.dialect, (packet.src, packet.dst), sip_ends, quoted_ends=quoted_ends
    )
    if message is None:
        return Drop(Reason.NO_IMAGE), None
    octets = translate_ipv6.to_sip(
        packet, known.dialect, sip_ends, kind=Protocol.ICMP, part=_unbroken(part), payload=message
    )
    return arrived(known, Parcel(realm=found.realm, octets=octets, origin=origin), now=now)


def _unbroken(part: FragmentHeader | None) -> FragmentHeader | None:
    """The fragment header of the packet put together, which says that it may be cut again."""
    if part is None:
        return None
    return FragmentHeader(next_header=part.next_header, identification=part.identification)
