# SPDX-License-Identifier: BSD-3-Clause
"""A SIP packet's way through a border, step by step as in ``docs/data-plane.md`` (RFC 8507 §3, §6; spec 2.4, 3.2).

It came by a link, out of a datagram, or was IPv4 a moment ago; from here on that makes no difference but for who counts
the hop. Pairs with ``bpf/include/isthmus/sip.h``.
"""

from __future__ import annotations

from dataclasses import replace

from isthmus.address import Address, Family
from isthmus.border.crossing import Translate
from isthmus.border.verdict import Drop, Forward, Hold, Miss, Reason, Verdict
from isthmus.checksum import checksum
from isthmus.errors import WireError
from isthmus.plane.reference import translate_icmp
from isthmus.plane.reference.answer import refuse, reply, send
from isthmus.plane.reference.cross import cross
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.out_of_sip import put_together
from isthmus.plane.reference.parcel import Complaint, Departure, Origin, Parcel, Refusal, exceeded, unreachable
from isthmus.wire.icmp import IcmpType
from isthmus.wire.sip import special
from isthmus.wire.sip.header import HOP_LIMIT, SipHeader, SipView
from isthmus.wire.sip.icmp import Unreachable
from isthmus.wire.sip.option import Chain, OptionLayout
from isthmus.wire.transport import Protocol

Asked = Miss | None
"""What has to be known before a packet that is held can go on."""
_IGMP = 2
_FOR_EVERYBODY = frozenset((*special.ALL_SYSTEMS, *special.ALL_HOSTS, *special.ALL_ROUTERS))


def from_link(known: Memory, realm: int, packet: bytes, link: int | None, now: float) -> tuple[Verdict, Asked]:
    """Take a SIP packet that came by a link (seed IPAE 4.2.1; spec 9.4)."""
    try:
        view = known.dialect.parse(packet)
    except WireError:
        return Drop(Reason.MALFORMED), None
    octets = bytes(view.octets)
    if is_from_elsewhere(known, view.src, link):
        return Drop(Reason.SITE_SOURCE_OUTSIDE), None
    origin = Origin(realm=realm, family=Family.SIP, packet=octets, link=link)
    return arrived(known, Parcel(realm=realm, octets=octets, origin=origin), now=now)


def is_from_elsewhere(known: Memory, source: Address, arrival: int | None) -> bool:
    """Whether a source lies in a site that a realm is the IPv4 of, and the packet came by another (spec 9.4)."""
    homes = {realm.number for realm in known.border.realms if realm.site == source.site}
    return bool(homes) and arrival not in homes


def arrived(known: Memory, parcel: Parcel, *, now: float) -> tuple[Verdict, Asked]:
    """Take a packet on from step 1; its site has been checked."""
    view = known.dialect.parse(parcel.octets)
    if special.unfit(view.src, view.dst) is not None:
        return Drop(Reason.FORBIDDEN_SIP_ADDRESS), None
    try:
        chain = known.dialect.walk(view)
    except WireError:
        return Drop(Reason.MALFORMED), None
    while chain.source_route is not None and not chain.source_route.is_finished and _is_ours(known, parcel, view):
        step = _next_stop(known, parcel, view, chain)
        if isinstance(step, Refusal):
            return refuse(known, parcel, step, now=now), None
        parcel = step
        view = known.dialect.parse(parcel.octets)
        chain = known.dialect.walk(view)
    if _is_ours(known, parcel, view):
        return _for_us(known, parcel, now=now)
    if view.dst.is_multicast:
        ours = view.dst in _FOR_EVERYBODY
        return Drop(Reason.NOT_FOR_US if ours else Reason.FORBIDDEN_SIP_ADDRESS), None
    return onward(known, parcel, now=now)


def _is_ours(known: Memory, parcel: Parcel, view: SipView) -> bool:
    return known.is_node(parcel.realm, view.dst)


def _next_stop(known: Memory, parcel: Parcel, view: SipView, chain: Chain) -> Parcel | Refusal:
    """Make the step of a source route that names us (RFC 8507 §6; seed IPAE 4.2.2; erratum E12)."""
    route, at = chain.source_route, chain.source_route_at
    assert route is not None
    assert at is not None
    if route.is_contradictory:
        number_at = 4 if known.dialect.layout is OptionLayout.SIP92 else 1
        complaint = Complaint(type=IcmpType.PARAMETER_PROBLEM, code=0, value=at + number_at)
        return Refusal(reason=Reason.SOURCE_ROUTE, complaint=complaint)
    # Deviation: RFC 8507 §6 has every node forward by a source route; IPv4's have taught to ask first (spec 2.5).
    if not known.border.rules.forward_source_routes:
        return Refusal(reason=Reason.SOURCE_ROUTE)
    following, after = route.swap(view.dst)
    if special.unfit(view.src, following) is not None or following.is_multicast:
        return Refusal(reason=Reason.FORBIDDEN_SIP_ADDRESS)
    octets = bytearray(parcel.octets)
    known.dialect.parse(octets).dst = following
    octets[at : at + route.octets] = after.emit(known.dialect.layout)
    return replace(parcel, octets=bytes(octets))


def onward(known: Memory, parcel: Parcel, *, now: float) -> tuple[Verdict, Asked]:
    """Count the hop and cross (spec 3.2: every forwarding node costs exactly one)."""
    # What came as IPv4 has been counted before it was translated, in its own TTL.
    if not parcel.origin.is_own and not parcel.origin.is_translated:
        octets = bytearray(parcel.octets)
        view = known.dialect.parse(octets)
        if view.hop_limit <= 1:
            return refuse(known, parcel, Refusal(reason=Reason.TTL_EXCEEDED, complaint=exceeded()), now=now), None
        view.hop_limit -= 1
        parcel = replace(parcel, octets=bytes(octets))
    return _crossing(known, parcel, now=now)


def _crossing(known: Memory, parcel: Parcel, *, now: float) -> tuple[Verdict, Asked]:
    crossed = cross(known, parcel, now=now)
    match crossed:
        case Departure():
            reason = Reason.TRANSLATED_TO_SIP if parcel.origin.is_translated else Reason.FORWARDED_SIP
            if crossed.is_translated:
                reason = Reason.TRANSLATED_FROM_SIP
            forward = Forward(
                crossed.realm, crossed.packets, reason, device=crossed.device, neighbour=crossed.neighbour
            )
            return forward, None
        case Miss():
            return Hold(), crossed
        case Hold():
            return crossed, None
        case Refusal():
            return refuse(known, parcel, crossed, now=now), None


# --- what is for us -----------------------------------------------------------------------


def _for_us(known: Memory, parcel: Parcel, *, now: float) -> tuple[Verdict, Asked]:
    """Deliver a packet to a program, or answer it (RFC 8507 §8.1)."""
    entry = known.table.route(parcel.realm, known.dialect.parse(parcel.octets).dst)
    if entry is not None and isinstance(entry.binding.crossing, Translate):
        return _crossing(known, parcel, now=now)
    whole = put_together(known, parcel, now=now, only_icmp=False)
    match whole:
        case Hold():
            return whole, None
        case Refusal():
            return Drop(whole.reason), None
    view = known.dialect.parse(whole.octets)
    chain = known.dialect.walk(view)
    if chain.payload_type == Protocol.ICMP:
        return _message(known, whole, view, chain, now=now), None
    if chain.payload_type in (_IGMP, Protocol.TCP):
        return Drop(Reason.NOT_FOR_US), None
    code = Unreachable.PORT if chain.payload_type == Protocol.UDP else Unreachable.PAYLOAD_TYPE
    return refuse(known, parcel, Refusal(reason=Reason.NOT_FOR_US, complaint=unreachable(code)), now=now), None


def _message(known: Memory, parcel: Parcel, view: SipView, chain: Chain, *, now: float) -> Verdict:
    """Answer an echo request; take no notice of other messages (RFC 8507 §8.1)."""
    message, dialect = chain.payload, known.dialect
    start = dialect.icmp_sum(view.src, chain.final_destination, len(message))
    if len(message) < 8 or not translate_icmp.is_sound(message, start):
        return Drop(Reason.MALFORMED)
    if message[0] != IcmpType.ECHO:
        return Drop(Reason.NOT_FOR_US)
    answer = bytearray(message)
    answer[0] = IcmpType.ECHO_REPLY
    answer[2:4] = b"\0\0"
    # Silent: RFC 8507 §4.4 does not say who answers for Anyone. The address that was asked, so that who asked knows.
    src, dst = chain.final_destination, view.src
    answer[2:4] = checksum(answer, dialect.icmp_sum(src, dst, len(answer))).to_bytes(2, "big")
    header = SipHeader(payload_length=0, payload_type=Protocol.ICMP, hop_limit=HOP_LIMIT, src=src, dst=dst)
    octets = dialect.write(header, answer, part=chain.fragmentation)
    return reply(send(known, parcel.realm, octets, now=now), Reason.REPLIED)
