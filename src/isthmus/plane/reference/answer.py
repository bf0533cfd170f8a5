# SPDX-License-Identifier: BSD-3-Clause
"""What we say ourselves about packets of a SIP realm: ICMP errors and echo replies (RFC 8507 §8.1; spec 6.4).

A packet is answered as what it came as. To a SIP system the answer is a SIP packet, which goes by the routes like any
other, so that an IPv4 system behind our own gateway hears ICMPv4; what we have translated ourselves we answer at once
as ICMPv4 or ICMPv6, quoting what its sender sent.
"""

from __future__ import annotations

from isthmus.address import Address, Family
from isthmus.border.verdict import Drop, Forward, Hold, Miss, Reason, Reply, Verdict
from isthmus.errors import WireError
from isthmus.plane.reference import icmp_relay, translate_icmp, translate_ipv6
from isthmus.plane.reference.cross import cross
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.out_of_sip import speaker
from isthmus.plane.reference.parcel import Complaint, Crossed, Departure, Origin, Parcel, Refusal
from isthmus.wire.icmp import QUOTE_OCTETS, IcmpMessage, IcmpType
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.ipv6 import Ipv6Header, Ipv6View
from isthmus.wire.sip.icmp import QUOTE_OCTETS as SIP_QUOTE_OCTETS
from isthmus.wire.sip.icmp import SipIcmpMessage, Unreachable, may_report, pointer_to_ipv4
from isthmus.wire.sip.option import Chain
from isthmus.wire.transport import Protocol

_TTL = 64
_LEAST_MTU = 68
_TOO_BIG = (IcmpType.DESTINATION_UNREACHABLE, Unreachable.PACKET_TOO_BIG)


def refuse(known: Memory, parcel: Parcel, refusal: Refusal, *, now: float) -> Verdict:
    """Drop a packet, and tell its sender if it may be told."""
    complaint, reason = refusal.complaint, refusal.reason
    if complaint is None:
        return Drop(reason)
    match parcel.origin.family:
        case Family.IPV4:
            return answer_ipv4(known, parcel.origin, complaint, reason, now=now)
        case Family.IPV6:
            return answer_ipv6(known, parcel.origin, complaint, reason, now=now)
        case _:
            return _answer_sip(known, parcel, complaint, reason, now=now)


def _answer_sip(known: Memory, parcel: Parcel, complaint: Complaint, reason: Reason, *, now: float) -> Verdict:
    octets = parcel.origin.packet
    packet = error(known, parcel.realm, octets, complaint, parcel.origin)
    if packet is None:
        return Drop(reason)
    if not known.allowance.take(known.dialect.parse(octets).src, now=now):
        return Drop(Reason.RELAY_LIMIT)
    return reply(send(known, parcel.realm, packet, now=now), reason)


def error(known: Memory, realm: int, octets: bytes, complaint: Complaint, origin: Origin) -> bytes | None:
    """Write an error about a SIP packet, perhaps one that is cut short; None if there must be none (spec 6.4).

    Args:
        known: The memory.
        realm: Number of the SIP realm.
        octets: The packet.
        complaint: What is said.
        origin: How it came, which says who we are where we have no SIP address.
    """
    try:
        view = known.dialect.parse(octets, quoted=True)
        chain: Chain | None = known.dialect.walk(view)
    except WireError:
        chain = None
        if len(octets) < 24:
            return None
        view = known.dialect.parse(octets, quoted=True)
    part = chain.fragmentation if chain is not None else None
    allowed = may_report(
        view,
        fragment_offset=part.fragment_offset if part is not None else 0,
        payload_type=chain.payload_type if chain is not None else view.payload_type,
        payload=chain.payload if chain is not None else b"",
    )
    source = _source(known, realm, complaint, origin)
    if source is None or not allowed:
        return None
    message = SipIcmpMessage(
        type=complaint.type,
        code=complaint.code,
        rest=complaint.value.to_bytes(4, "big"),
        body=bytes(octets[:SIP_QUOTE_OCTETS]),
    )
    return known.dialect.message(source, view.src, message)


def _source(known: Memory, realm: int, complaint: Complaint, origin: Origin) -> Address | None:
    """Who says it: a reporter or we, by a SIP address or by what IPv4 is called in SIP (spec 6.4)."""
    own = next((each.address for each in known.border.nodes if each.realm == realm), None)
    place = origin.end.realm if origin.end is not None else origin.link
    site = known.realms[place].site if place is not None else None
    above = site.address if site is not None else None if own is None else own.site.address
    if complaint.reporter is not None and above is not None:
        return Address.of_halves(above.with_c_bit(c_bit=True).upper, complaint.reporter)
    if own is not None or above is None:
        return own
    here = origin.end.address if origin.end is not None else _end_on(known, place)
    return None if here is None else Address.of_halves(above.with_c_bit(c_bit=True).upper, here)


def _end_on(known: Memory, realm: int | None) -> Address | None:
    """An IPv4 address of ours in a realm."""
    ends = (end.address for end in known.border.tunnel_ends if end.realm == realm)
    return next((each for each in ends if each.family is Family.IPV4), None)


def send(known: Memory, realm: int, packet: bytes, *, now: float) -> Crossed:
    """Send a SIP packet of our own by the routes, cut if it is too large (RFC 8507 §4.2, §7)."""
    origin = Origin(realm=realm, family=Family.SIP, packet=packet, is_own=True, may_be_cut=True)
    return cross(known, Parcel(realm=realm, octets=packet, origin=origin), now=now)


def reply(crossed: Crossed, reason: Reason) -> Verdict:
    """The verdict on a packet that is answered; what cannot be sent is not, and the packet is dropped all the same."""
    match crossed:
        case Departure(packets=(packet,)):
            return Reply(crossed.realm, packet, reason, device=crossed.device, neighbour=crossed.neighbour)
        case Departure():
            return Forward(crossed.realm, crossed.packets, reason, device=crossed.device, neighbour=crossed.neighbour)
        case Refusal() if reason is Reason.REPLIED:
            return Drop(crossed.reason)
        case Refusal() | Miss() | Hold():
            return Drop(Reason.NO_IMAGE if reason is Reason.REPLIED else reason)


def answer_ipv4(known: Memory, origin: Origin, complaint: Complaint, reason: Reason, *, now: float) -> Verdict:
    """Tell the sender of an IPv4 packet (RFC 1812 §4.3; spec 2.6)."""
    packet = Ipv4View.parse(origin.packet)
    if packet.fragment_offset or not icmp_relay.may_answer(packet):
        return Drop(reason)
    if not known.allowance.take(packet.src, now=now):
        return Drop(Reason.RELAY_LIMIT)
    value = complaint.value
    if (complaint.type, complaint.code) == _TOO_BIG:
        value = max(value - translate_icmp.HEADER_DIFFERENCE, _LEAST_MTU)
    elif complaint.type == IcmpType.PARAMETER_PROBLEM:
        value = (pointer_to_ipv4(value, known.dialect.order) or 0) << 24
    message = IcmpMessage(
        type=complaint.type,
        code=complaint.code,
        rest=value.to_bytes(4, "big"),
        body=bytes(packet.octets[:QUOTE_OCTETS]),
    ).emit()
    header = Ipv4Header(
        total_length=20 + len(message),
        ttl=_TTL,
        protocol=Protocol.ICMP,
        src=complaint.reporter or speaker(known, known.realms[origin.realm]),
        dst=packet.src,
    )
    return Reply(origin.realm, header.emit() + message, reason, device=origin.device)


def answer_ipv6(known: Memory, origin: Origin, complaint: Complaint, reason: Reason, *, now: float) -> Verdict:
    """Tell a program that sent by an IPv6 socket (RFC 4443 §2.4; spec 8.2)."""
    packet = Ipv6View.parse(origin.packet)
    found = translate_ipv6.kind_of_error(complaint.type, complaint.code, complaint.value)
    if found is None or _is_unanswerable(packet):
        return Drop(reason)
    if not known.allowance.take(packet.src, now=now):
        return Drop(Reason.RELAY_LIMIT)
    # Silent: spec 8.2 does not say who speaks. The program's own system does, and it has no other address there.
    ends = packet.src, packet.src
    message = translate_ipv6.error_message(*found, bytes(packet.octets[: translate_ipv6.MOST_QUOTED]), ends)
    header = Ipv6Header(
        payload_length=len(message), next_header=Protocol.ICMPV6, hop_limit=_TTL, src=ends[0], dst=ends[1]
    )
    return Reply(origin.realm, header.emit() + message, reason, device=origin.device)


def _is_unanswerable(packet: Ipv6View) -> bool:
    """Whether it is an ICMPv6 error, or a fragment that is not the first (RFC 4443 §2.4)."""
    try:
        kind, part, payload = translate_ipv6.read_ipv6(packet)
    except WireError:
        return True
    if part is not None and part.fragment_offset:
        return True
    return kind == Protocol.ICMPV6 and (not payload or payload[0] < 128)
