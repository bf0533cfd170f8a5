# SPDX-License-Identifier: BSD-3-Clause
"""ICMP errors from IP-only routers, about IPAE datagrams that we sent (seed IPAE 4.3; spec 6.4).

=====  ==========================================================================================
layer  whom an error concerns
=====  ==========================================================================================
1      whom the quote says, if it has a whole SIP header: routers quote 528 octets (RFC 1812 §4.3.2.3)
2      whom the ring says: eight octets are quoted, and the identification (``ring``)
3      the sender of the next packet that goes by this way (``ways``)
=====  ==========================================================================================

What is learned of a way concerns everybody who uses it, and may not come from just anybody: a single forged error would
close a tunnel for half a minute. So as long as the ring has all that was sent, an error teaches nothing unless it
quotes what the ring has. A long quote that does not is told to whom it concerns, who knows what he has sent.
"""

from __future__ import annotations

from isthmus.address import Address, Family
from isthmus.border.crossing import IPAE_OVERHEAD, Way
from isthmus.border.realm import TunnelEnd
from isthmus.border.verdict import Drop, Forward, Hold, Miss, Pass, Reason, Verdict
from isthmus.errors import WireError
from isthmus.plane.reference import answer
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.parcel import Complaint, Departure, Origin, Refusal, exceeded, too_big, unreachable
from isthmus.plane.reference.path_mtu import plateau_below
from isthmus.plane.reference.ring import Sent
from isthmus.wire.icmp import IcmpType, IcmpView
from isthmus.wire.icmp import Unreachable as Ipv4Unreachable
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.header import HEADER_OCTETS, MINIMUM_MTU
from isthmus.wire.sip.icmp import Unreachable
from isthmus.wire.sip.ipae import PROTOCOL, Version6, demultiplex
from isthmus.wire.transport import Protocol

_RELAYED = frozenset({IcmpType.DESTINATION_UNREACHABLE, IcmpType.TIME_EXCEEDED, IcmpType.PARAMETER_PROBLEM})
_COMPARED_FROM, _COMPARED_TO = 4, 8
"Octets of a SIP header that every quote has and that change from packet to packet."
_LEAST_MTU = 68
_PROHIBITED = frozenset(
    {
        Ipv4Unreachable.NETWORK_PROHIBITED,
        Ipv4Unreachable.HOST_PROHIBITED,
        Ipv4Unreachable.ADMINISTRATIVELY_PROHIBITED,
    }
)


def quoted_datagram(end: TunnelEnd, packet: Ipv4View) -> tuple[IcmpView, Ipv4View] | None:
    """Read an error about an IPAE datagram from an end of ours; None if it is anything else (spec 6.4)."""
    if packet.protocol != Protocol.ICMP or packet.is_fragment:
        return None
    try:
        message = IcmpView.parse(packet.payload)
        quote = Ipv4View.parse(message.body, quoted=True) if message.type in _RELAYED else None
    except WireError:
        return None
    if quote is None or quote.protocol != PROTOCOL or quote.src != end.address:
        return None
    length = quote.total_length - len(quote.header)
    if demultiplex(quote.payload, length) is Version6.IPV6:
        return None
    return message, quote


def relay(known: Memory, end: TunnelEnd, packet: Ipv4View, error: tuple[IcmpView, Ipv4View], now: float) -> Verdict:
    """Tell the SIP system that an error concerns, and remember what it says (spec 6.4)."""
    message, quote = error
    if not packet.checksum_ok or not message.checksum_ok:
        return Drop(Reason.MALFORMED)
    if quote.fragment_offset or not known.ring.has_sent_to(quote.dst, now=now):
        return Drop(Reason.FORGED_ERROR)
    mtu = message.next_hop_mtu
    if mtu is not None:
        mtu = max(mtu or plateau_below(quote.total_length), _LEAST_MTU)
        if mtu >= quote.total_length:
            return Drop(Reason.FORGED_ERROR)
    sent = _remembered(known, quote, now)
    concerned = _concerned(known, quote, sent)
    layers = known.border.rules.relay_layers
    way = Way(end.realm, end.address, quote.dst)
    believed = 3 in layers and (sent is not None or 2 not in layers or known.ring.is_overrun(now=now))
    if believed:
        _learn(known, way, message, quote, packet.src, mtu=mtu, now=now)
    if concerned is None:
        # The machine's own stack is told as well, since nobody else can be.
        return Pass() if believed else Drop(Reason.FORGED_ERROR)
    complaint = _complaint(message, packet.src, mtu)
    origin = Origin(realm=end.realm, family=Family.SIP, packet=concerned, end=end)
    told = answer.error(known, end.leads_to, concerned, complaint, origin)
    if told is None:
        return Pass()
    if not known.allowance.take(known.dialect.parse(concerned, quoted=True).src, now=now):
        return Drop(Reason.RELAY_LIMIT)
    return _sent(answer.send(known, end.leads_to, told, now=now))


def _sent(crossed: object) -> Verdict:
    match crossed:
        case Departure():
            return Forward(
                crossed.realm,
                crossed.packets,
                Reason.RELAYED,
                device=crossed.device,
                neighbour=crossed.neighbour,
            )
        case Refusal():
            return Drop(crossed.reason)
        case Miss() | Hold() | _:
            return Drop(Reason.NO_IMAGE)


def _remembered(known: Memory, quote: Ipv4View, now: float) -> Sent | None:
    """What the ring has of the datagram that is quoted, if it is that."""
    sent = known.ring.find(quote.identification, now=now) if 2 in known.border.rules.relay_layers else None
    if sent is None or sent.destination != quote.dst or len(quote.payload) < _COMPARED_TO:
        return None
    quoted = bytes(quote.payload[_COMPARED_FROM:_COMPARED_TO])
    return sent if sent.octets[_COMPARED_FROM:_COMPARED_TO] == quoted else None


def _concerned(known: Memory, quote: Ipv4View, sent: Sent | None) -> bytes | None:
    """The SIP packet that an error is about, as far as it is known: from the quote, else from the ring."""
    quoted = bytes(quote.payload)
    if 1 in known.border.rules.relay_layers and len(quoted) >= HEADER_OCTETS and quoted[0] >> 4 == 6:
        return quoted
    return None if sent is None else sent.octets


def _learn(
    known: Memory, way: Way, message: IcmpView, quote: Ipv4View, reporter: Address, *, mtu: int | None, now: float
) -> None:
    """Keep what is true of the next packet, too (layer 3)."""
    if mtu is not None:
        known.ways.narrow(way, mtu, now=now)
    elif message.type == IcmpType.DESTINATION_UNREACHABLE:
        known.ways.lose(way, reporter, now=now)
    elif message.type == IcmpType.TIME_EXCEEDED and message.code == 0 and len(quote.payload) >= _COMPARED_TO:
        # The hop limit was the outer TTL when the packet left: as many hops as it had, and they were not enough.
        known.ways.lengthen(way, quote.payload[known.dialect.order.hop_limit_at], reporter, now=now)


def _complaint(message: IcmpView, reporter: Address, mtu: int | None) -> Complaint:
    """What a SIP system is told: nothing about IPv4 that it could not have meant (spec 6.4)."""
    if mtu is not None:
        return too_big(max(mtu - IPAE_OVERHEAD, MINIMUM_MTU))
    if message.type == IcmpType.TIME_EXCEEDED:
        return exceeded(reporter=reporter)
    # A parameter problem is one of the outer header, which the sender did not write; to him the way is closed.
    prohibited = message.type == IcmpType.DESTINATION_UNREACHABLE and message.code in _PROHIBITED
    return unreachable(Unreachable.ADMINISTRATIVELY_PROHIBITED if prohibited else Unreachable.ADDRESS)
