# SPDX-License-Identifier: BSD-3-Clause
"""From the tunnel: who sent it, may he, and where it goes; step by step as in ``docs/data-plane.md``.

At a gateway the packet is a host's: it goes out, or round to another of our hosts. At a host it is
the gateway's, and goes to a program.

Pairs with ``bpf/include/isthmus/border.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.border.binding import Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.realm import End, TunnelEnd
from isthmus.border.selector import Admit, Flow, Kind
from isthmus.border.verdict import Drop, Forward, Hold, Reason, Reply, Verdict, Violation
from isthmus.plane.reference import demultiplex, icmp_relay, identification, lookup
from isthmus.plane.reference.classify import Ends, Side, ends, flow, is_cut_off
from isthmus.plane.reference.fragment import cut, ipv4_part, whole_ipv4
from isthmus.plane.reference.inward import admission, note_cookie
from isthmus.plane.reference.lookup import Found
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.program import deliver
from isthmus.plane.reference.tunnel import Outer, decapsulate, encapsulate
from isthmus.wire.ipv4 import Ipv4View


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """A whole packet that came out of a tunnel, and how."""

    inner: Ipv4View
    "As it came."
    tos: int
    "As it goes on, with the congestion marks of the way (RFC 6040 §4.2)."
    fragmented: bool
    "Whether its sender had cut it."
    end: TunnelEnd
    sender: Owner
    kind: TunnelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A packet that its sender may send."""

    arrival: _Arrival
    both: Ends
    flow: Flow
    found: Found
    mtu: int
    "Largest packet that the way back carries."

    def answer(self, reply: bytes, reason: Reason) -> Verdict:
        """Answer through the sender's own tunnel."""
        tunnel = self.found.crossing
        pieces = tuple(encapsulate(piece, tunnel) for piece in cut(reply, self.mtu))
        if len(pieces) == 1:
            return Reply(tunnel.realm, pieces[0], reason)
        return Forward(tunnel.realm, pieces, reason)


def from_tunnel(known: Memory, outer: Outer, end: TunnelEnd, now: float) -> Verdict:
    """Take a packet out of its tunnel and check that its sender may send it (RFC 3102 §2; RFC 3103 §7, §10.4)."""
    if not outer.checksum_ok:
        return Drop(Reason.MALFORMED)
    at_gateway = known.realms[end.leads_to].end is End.GATEWAY
    sender = Owner(end.realm, outer.src)
    if not known.table.is_registered(sender):
        if not at_gateway:
            return Drop(Reason.UNKNOWN_TUNNEL_PEER)
        return _violation(Reason.UNREGISTERED, sender, None, outer.kind)
    if outer.is_fragment:
        whole = known.tunnelled.add(outer.part(end.realm, (end.realm, outer.src)), now=now)
        if whole is None:
            return Hold()
        entire = whole if isinstance(whole, Reason) else outer.put_together(whole)
        if isinstance(entire, Reason):
            return Drop(entire)
        outer = entire
    emerged = decapsulate(outer)
    if isinstance(emerged, Reason):
        return Drop(emerged)
    inner, tos = emerged
    if at_gateway and icmp_relay.is_forbidden(inner):
        return Drop(Reason.FORBIDDEN_DESTINATION)
    fragmented = inner.is_fragment
    if fragmented:
        octets = _put_together(known, inner, tos, (end.leads_to, sender), now)
        if not isinstance(octets, bytes):
            return octets
        inner = Ipv4View.parse(octets)
        tos = inner.tos
        if is_cut_off(inner):
            return Drop(Reason.MALFORMED)
    arrival = _Arrival(inner=inner, tos=tos, fragmented=fragmented, end=end, sender=sender, kind=outer.kind)
    return _from_host(known, arrival, now) if at_gateway else _from_gateway(known, arrival, now)


def _put_together(known: Memory, inner: Ipv4View, tos: int, place: tuple[int, Owner], now: float) -> Verdict | bytes:
    """Take an inner fragment, with the congestion marks of its way (RFC 3102 §6.3)."""
    octets = bytearray(inner.octets)
    fragment = Ipv4View.parse(octets)
    fragment.tos = tos
    _, sender = place
    part = ipv4_part(fragment, place, (sender.realm, sender.address))
    whole = known.tunnelled.add(part, now=now)
    if whole is None:
        return Hold()
    entire = whole if isinstance(whole, Reason) else whole_ipv4(whole)
    return Drop(entire) if isinstance(entire, Reason) else entire


# --- at a gateway -------------------------------------------------------------------------


def _from_host(known: Memory, arrival: _Arrival, now: float) -> Verdict:
    """Check a host's packet against what it holds (RFC 3102 §2; RFC 3103 §7, §10.4)."""
    inner, sender = arrival.inner, arrival.sender
    both = ends(inner)
    wanted = flow(both, arrival.end.leads_to, Side.SOURCE)
    found = demultiplex.from_host(known, both, wanted, sender, now=now)
    if isinstance(found, Reason):
        return Drop(found)
    if found is None or found.owner != sender or icmp_relay.is_forged_outward(inner, both):
        reason = lookup.refusal(known.table, wanted, sender, inner.src, is_error=both.is_error)
        return _violation(reason, sender, wanted, arrival.kind) if reason.rsip_code else Drop(reason)
    refused = _use(arrival, found, wanted, now)
    if refused is not None:
        reported = refused is not Reason.LEASE_EXPIRED
        return _violation(refused, sender, wanted, arrival.kind) if reported else Drop(refused)
    return _outward(
        known, _Sent(arrival=arrival, both=both, flow=wanted, found=found, mtu=known.mtu(found.crossing)), now
    )


def _outward(known: Memory, sent: _Sent, now: float) -> Verdict:
    """Let a host's packet out into the realm that its source is leased from (RFC 3102 §2; RFC 2003 §3)."""
    inner, end = sent.arrival.inner, sent.arrival.end
    _note(known, sent, now)
    if inner.ttl <= 1:
        if not icmp_relay.may_answer(inner):
            return Drop(Reason.TTL_EXCEEDED)
        source = icmp_relay.speaker(end.address)
        return sent.answer(icmp_relay.time_exceeded(inner, source, limit=sent.mtu), Reason.TTL_EXCEEDED)
    if not icmp_relay.is_group(inner.dst) and known.is_meant(end.leads_to, inner.dst):
        around = _hairpin(known, sent, now)
        if around is not None:
            return around
    mtu = known.realms[end.leads_to].mtu
    too_big = _too_big(sent, mtu)
    if too_big is not None:
        return too_big
    octets = _emerge(sent.arrival, hops=1)
    if not inner.df or len(octets) > mtu:
        _renumber(known, sent, octets)
    return Forward(end.leads_to, cut(octets, mtu), Reason.FORWARDED_OUTWARD)


def _note(known: Memory, sent: _Sent, now: float) -> None:
    """Remember whom a host has written to, and how (RFC 3102 §2; RFC 3104 §4, §6.1)."""
    sender, wanted = sent.arrival.sender, sent.flow
    # ESP and AH carry the peer's SPI: answers come to another binding than the one found.
    by_right = sent.both.is_sealed and not sent.both.quoted
    if by_right or sent.found.selector.remote.admit is Admit.CONTACTED:
        known.contacts.note(sender, wanted.local, wanted.remote, now=now)
    note_cookie(known, sent.found, wanted, now, by_peer=False)
    if by_right:
        place = (wanted.local, wanted.remote, sent.both.protocol, wanted.value)
        before = known.paths.owner(*place, realm=wanted.realm)
        # The first keeps it while he may send at all: nobody takes over another's errors by sending as he does.
        if before is None or lookup.by_holder(known.table, wanted, Kind.SPI, before) is None:
            known.paths.note(sender, *place, realm=wanted.realm)


def _hairpin(known: Memory, sent: _Sent, now: float) -> Verdict | None:
    """Turn a packet round to another of our hosts (RFC 3102 §6.7); None if its destination is not one's."""
    inner, both = sent.arrival.inner, sent.both
    if both.is_request:
        if icmp_relay.is_damaged(inner):
            return Drop(Reason.MALFORMED)
        reply = icmp_relay.echo_reply(inner)
        return Drop(Reason.NO_BINDING) if reply is None else sent.answer(reply, Reason.REPLIED)
    wanted = flow(both, sent.arrival.end.leads_to, Side.DESTINATION)
    found = demultiplex.toward_binding(known, both, wanted, now=now)
    if isinstance(found, Reason):
        return Drop(found)
    if found is None:
        return Drop(Reason.NO_BINDING) if known.table.claims(wanted) else None
    refused = admission(known, found, wanted, now)
    if refused is not None:
        return Drop(refused)
    tunnel, mtu = found.crossing, known.mtu(found.crossing)
    too_big = _too_big(sent, mtu)
    if too_big is not None:
        return too_big
    octets = _emerge(sent.arrival, hops=1)
    if len(octets) > mtu:
        _renumber(known, sent, octets)
    note_cookie(known, found, wanted, now, by_peer=True)
    pieces = tuple(encapsulate(piece, tunnel) for piece in cut(octets, mtu))
    return Forward(tunnel.realm, pieces, Reason.FORWARDED_INWARD)


def _too_big(sent: _Sent, mtu: int) -> Verdict | None:
    """Tell a sender who forbids fragments that there would have to be some (RFC 1191 §4); None if all is well."""
    inner = sent.arrival.inner
    if inner.total_length <= mtu or not inner.df or sent.arrival.fragmented:
        return None
    if not icmp_relay.may_answer(inner):
        return Drop(Reason.TOO_BIG)
    source = icmp_relay.speaker(sent.arrival.end.address)
    return sent.answer(icmp_relay.fragmentation_needed(inner, source, mtu, limit=sent.mtu), Reason.TOO_BIG)


def _renumber(known: Memory, sent: _Sent, octets: bytearray) -> None:
    """Give a packet an identification that only its sender uses (RFC 3102 §6.3)."""
    if identification.is_shared(sent.found, sent.both):
        view = Ipv4View.parse(octets)
        view.identification = identification.of_sender(
            sent.found, sent.flow, view.identification, known.border.slice_size
        )


# --- at a host ----------------------------------------------------------------------------


def _from_gateway(known: Memory, arrival: _Arrival, now: float) -> Verdict:
    """Take a gateway's packet to the programs that it is for: the host's mirror (RFC 3102 §3.1)."""
    inner = arrival.inner
    both = ends(inner)
    wanted = flow(both, arrival.end.leads_to, Side.DESTINATION)
    found = demultiplex.toward_program(known, both, wanted, arrival.sender)
    if isinstance(found, Reason):
        return Drop(found)
    if found is None or found.owner != arrival.sender or icmp_relay.is_forged_inward(inner, both):
        return Drop(Reason.NOT_OUR_LEASE)
    refused = _use(arrival, found, wanted, now)
    if refused is not None:
        return Drop(refused)
    return deliver(known, bytes(_emerge(arrival, hops=0)), found, both, wanted, now=now)


def _use(arrival: _Arrival, found: Found, wanted: Flow, now: float) -> Reason | None:
    """Check deadline, tunnel type and peer of a tunnelled packet; None if all is well (RFC 3103 §6, §7.2, §10.4)."""
    if lookup.expired(found.entry, now):
        return Reason.LEASE_EXPIRED
    crossing = found.crossing
    if arrival.kind is not crossing.kind or arrival.sender.address.family is not crossing.local.family:
        return Reason.WRONG_TUNNEL_TYPE
    return lookup.remote_limit(found, wanted)


def _emerge(arrival: _Arrival, *, hops: int) -> bytearray:
    """Copy a packet as it leaves its tunnel: TTL, ECN, nothing else (RFC 2003 §3.1; RFC 6040 §4.2)."""
    octets = bytearray(arrival.inner.octets)
    view = Ipv4View.parse(octets)
    if hops:
        view.ttl -= hops
    if view.tos != arrival.tos:
        view.tos = arrival.tos
    return octets


def _violation(reason: Reason, sender: Owner, wanted: Flow | None, kind: TunnelKind) -> Drop:
    """Drop a packet and tell the protocol (RFC 3103 §10.4)."""
    return Drop(reason, Violation(reason=reason, owner=sender, flow=wanted, tunnel_kind=kind))
