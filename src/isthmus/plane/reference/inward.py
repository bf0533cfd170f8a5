# SPDX-License-Identifier: BSD-3-Clause
"""Toward the binding: the gateway's way from outside, step by step as in ``docs/data-plane.md``.

Pairs with ``bpf/include/isthmus/border.h``.
"""

from __future__ import annotations

from isthmus.border.selector import Flow
from isthmus.border.verdict import Drop, Forward, Hold, Pass, Reason, Reply, Verdict
from isthmus.plane.reference import demultiplex, icmp_relay, lookup
from isthmus.plane.reference.classify import Side, ends, flow, is_cut_off
from isthmus.plane.reference.fragment import cut, ipv4_part, whole_ipv4
from isthmus.plane.reference.lookup import Found
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.tunnel import encapsulate
from isthmus.wire.ipv4 import Ipv4View


def toward_binding(known: Memory, realm: int, packet: Ipv4View, now: float) -> Verdict:
    """Take a packet from outside to the holder of its destination (RFC 3102 §3.2, §6.2, §6.3; RFC 3103 §7.3)."""
    if not known.is_meant(realm, packet.dst):
        return Pass()
    if not packet.is_fragment:
        return _whole(known, realm, packet, now, fragmented=False)
    if not packet.checksum_ok:
        return Drop(Reason.MALFORMED)
    whole = known.fragments.add(ipv4_part(packet, realm, (realm, packet.src)), now=now)
    if whole is None:
        return Hold()
    octets = whole if isinstance(whole, Reason) else whole_ipv4(whole)
    if isinstance(whole, Reason) or isinstance(octets, Reason):
        return Drop(octets if isinstance(octets, Reason) else Reason.FRAGMENT)
    verdict = _whole(known, realm, Ipv4View.parse(octets), now, fragmented=True)
    # What the machine's own stack takes it takes as it came: it puts it together by itself.
    return Pass(whole.parts) if isinstance(verdict, Pass) else verdict


def _whole(known: Memory, realm: int, packet: Ipv4View, now: float, *, fragmented: bool) -> Verdict:
    if is_cut_off(packet):
        return Drop(Reason.MALFORMED)
    both = ends(packet)
    if both.is_request:
        return _request(known, realm, packet)
    if icmp_relay.is_forged_inward(packet, both):
        return Drop(Reason.FORGED_QUOTE)
    wanted = flow(both, realm, Side.DESTINATION)
    found = demultiplex.toward_binding(known, both, wanted, now=now)
    if isinstance(found, Reason):
        return Drop(found)
    if found is None:
        return Drop(Reason.NO_BINDING) if known.table.claims(wanted) else Pass()
    if not packet.checksum_ok:
        return Drop(Reason.MALFORMED)
    refused = admission(known, found, wanted, now)
    if refused is not None:
        return Drop(refused)
    return _into_tunnel(known, packet, found, wanted, now, fragmented=fragmented)


def _request(known: Memory, realm: int, packet: Ipv4View) -> Verdict:
    """Answer an echo request in the gateway's own name; leave other requests to its stack (RFC 3102 §6.2)."""
    if icmp_relay.is_damaged(packet) or icmp_relay.is_no_host(packet.src):
        return Drop(Reason.MALFORMED)
    reply = icmp_relay.echo_reply(packet)
    if reply is None:
        return Pass()
    pieces = cut(reply, known.realms[realm].mtu)
    if len(pieces) == 1:
        return Reply(realm, reply, Reason.REPLIED)
    return Forward(realm, pieces, Reason.REPLIED)


def _into_tunnel(
    known: Memory, packet: Ipv4View, found: Found, wanted: Flow, now: float, *, fragmented: bool
) -> Verdict:
    """Check TTL and size, and put a packet into its tunnel (RFC 2003 §3.1; RFC 1812 §5.3.1; RFC 1191 §4)."""
    if packet.ttl <= 1:
        if not icmp_relay.may_answer(packet):
            return Drop(Reason.TTL_EXCEEDED)
        return Reply(wanted.realm, icmp_relay.time_exceeded(packet, packet.dst), Reason.TTL_EXCEEDED)
    tunnel, mtu = found.crossing, known.mtu(found.crossing)
    if packet.total_length > mtu and packet.df and not fragmented:
        if not icmp_relay.may_answer(packet):
            return Drop(Reason.TOO_BIG)
        error = icmp_relay.fragmentation_needed(packet, packet.dst, mtu)
        return Reply(wanted.realm, error, Reason.TOO_BIG)
    note_cookie(known, found, wanted, now, by_peer=True)
    # Deviation: RFC 2473 §7.2 cuts what is too large after it was tunnelled; we cut it before, so that the one whom it
    # is for puts it together, not the end of the tunnel.
    pieces = tuple(encapsulate(piece, tunnel) for piece in cut(hop(packet), mtu))
    return Forward(tunnel.realm, pieces, Reason.FORWARDED_INWARD)


def admission(known: Memory, found: Found, wanted: Flow, now: float) -> Reason | None:
    """Check deadline and peer of a packet toward a binding; None if it may go on (RFC 3103 §6, §7.2)."""
    if lookup.expired(found.entry, now):
        return Reason.LEASE_EXPIRED
    refused = lookup.remote_limit(found, wanted)
    if refused is None and not lookup.contacted(found, wanted, known.contacts, now=now):
        return Reason.NOT_CONTACTED
    return refused


def note_cookie(known: Memory, found: Found, wanted: Flow, now: float, *, by_peer: bool) -> None:
    """Keep the IKE cookie of a packet that goes on, from its owner or to it (RFC 3104 §6.1)."""
    if found.cookie is not None:
        known.cookies.use(found.owner, wanted.realm, wanted.local, found.cookie, now=now, by_peer=by_peer)


def hop(packet: Ipv4View) -> bytearray:
    """Copy a packet without its padding and count one router (RFC 791 §3.2; RFC 1812 §5.3.1)."""
    octets = bytearray(packet.octets)
    Ipv4View.parse(octets).ttl -= 1
    return octets
