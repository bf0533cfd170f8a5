# SPDX-License-Identifier: BSD-3-Clause
"""The host's ends of the one rule: from its programs, and to them (RFC 3102 §2, §3.1, §6.2; RFC 3103 §7).

Pairs with ``bpf/include/isthmus/border.h``.
"""

from __future__ import annotations

from isthmus.border.selector import Flow, Kind
from isthmus.border.verdict import Drop, Forward, Hold, Reason, Reply, Verdict
from isthmus.plane.reference import demultiplex, icmp_relay, lookup
from isthmus.plane.reference.classify import Ends, Side, ends, flow, is_cut_off
from isthmus.plane.reference.fragment import cut, ipv4_part, whole_ipv4
from isthmus.plane.reference.identifier import Program, with_identifier, with_quoted_identifier
from isthmus.plane.reference.lookup import Found
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.tunnel import encapsulate
from isthmus.wire.icmp import IcmpView
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.transport import Protocol


def from_program(known: Memory, realm: int, packet: Ipv4View, now: float, *, device: str | None) -> Verdict:
    """Take a packet of one of our own programs to the gateway (RFC 3102 §2; RFC 3103 §7)."""
    if not packet.is_fragment:
        return _whole(known, realm, packet, now, device=device, fragmented=False)
    if not packet.checksum_ok:
        return Drop(Reason.MALFORMED)
    whole = known.fragments.add(ipv4_part(packet, (realm, device), (realm, packet.src)), now=now)
    if whole is None:
        return Hold()
    octets = whole if isinstance(whole, Reason) else whole_ipv4(whole)
    if isinstance(octets, Reason):
        return Drop(octets)
    return _whole(known, realm, Ipv4View.parse(octets), now, device=device, fragmented=True)


def _whole(known: Memory, realm: int, packet: Ipv4View, now: float, *, device: str | None, fragmented: bool) -> Verdict:
    if is_cut_off(packet):
        return Drop(Reason.MALFORMED)
    sent = _translated(known, realm, packet, now, device)
    if sent is None:
        return Drop(Reason.NO_IDENTIFIER)
    both = ends(sent)
    wanted = flow(both, realm, Side.SOURCE)
    found = demultiplex.from_program(known, both, wanted)
    if isinstance(found, Reason):
        return Drop(found)
    if found is None:
        held = known.bound.covers(realm, wanted.local)
        return Drop(Reason.SOURCE_PORT_NOT_LEASED if held else Reason.SOURCE_ADDRESS_NOT_LEASED)
    if lookup.expired(found.entry, now):
        return Drop(Reason.LEASE_EXPIRED)
    refused = lookup.remote_limit(found, wanted)
    if refused is not None:
        return Drop(refused)
    tunnel, mtu = found.crossing, known.mtu(found.crossing)
    if packet.total_length > mtu and packet.df and not fragmented:
        if not icmp_relay.may_answer(packet):
            return Drop(Reason.TOO_BIG)
        # Nobody may say it in the name of the leased address: that would be the program telling itself.
        error = icmp_relay.fragmentation_needed(packet, icmp_relay.UNNUMBERED, mtu)
        return Reply(realm, error, Reason.TOO_BIG, device=device or found.entry.binding.device)
    pieces = tuple(encapsulate(piece, tunnel) for piece in cut(sent.octets, mtu))
    return Forward(tunnel.realm, pieces, Reason.FORWARDED_OUTWARD)


def _translated(known: Memory, realm: int, packet: Ipv4View, now: float, device: str | None) -> Ipv4View | None:
    """Give an ICMP request a leased identifier, if its own is not; None if there is none (RFC 3102 §6.2)."""
    # Silent: RFC 3102 §6.2 has a host use leased identifiers, and does not say what becomes of programs that do not.
    both = ends(packet)
    if not both.is_request:
        return packet
    wanted = flow(both, realm, Side.SOURCE)
    entries = [
        found
        for owner in known.bound.owners(realm, wanted.local)
        for entry in known.table.held_by(owner)
        for selector in entry.binding.selectors
        if (selector.realm, selector.kind) == (realm, Kind.PORT) and wanted.local in selector.local
        for found in (Found(entry, selector),)
    ]
    if not entries:
        return packet
    given = known.identifiers.is_given(realm, wanted.local, wanted.remote, wanted.value, now=now)
    if any(wanted.value in each.selector.values for each in entries) and not given:
        known.identifiers.use(realm, wanted.local, wanted.value, now=now)
        return packet
    program = Program(realm=realm, local=wanted.local, identifier=wanted.value, device=device, remote=wanted.remote)
    held = _offered(entries, wanted, device, now)
    value = known.identifiers.give(program, held, now=now)
    return None if value is None else Ipv4View.parse(with_identifier(packet, value))


def _offered(held: list[Found], wanted: Flow, device: str | None, now: float) -> list[int]:
    """Values that a program may be given: those of its own device that allow the peer, if there are any."""
    near = [each for each in held if device is None or each.entry.binding.device == device] or held
    allowed = [each for each in near if not lookup.expired(each.entry, now) and not lookup.remote_limit(each, wanted)]
    return [value for each in allowed or near for value in each.selector.values]


def deliver(known: Memory, octets: bytes, found: Found, both: Ends, wanted: Flow, *, now: float) -> Forward:
    """Give a packet out of a tunnel to the programs that use its binding (RFC 3102 §3.1, §6.2).

    Args:
        known: The memory.
        octets: The packet as it left the tunnel: TTL untouched, congestion marks taken over.
        found: Its binding.
        both: Its ends.
        wanted: Its flow.
        now: Seconds since 1970.
    """
    packet, binding, device = Ipv4View.parse(octets), found.entry.binding, found.entry.binding.device
    program = None
    if _is_answer(both):
        program = known.identifiers.program(wanted.realm, wanted.local, wanted.remote, wanted.value, now=now)
    if program is not None:
        translate = with_quoted_identifier if both.quoted else with_identifier
        octets = translate(packet, program.identifier)
        device = program.device or device
    pieces = cut(octets, binding.tunnel.mtu)
    return Forward(wanted.realm, pieces, Reason.FORWARDED_INWARD, device=device)


def _is_answer(both: Ends) -> bool:
    """Whether it is a reply to a request, or an error about one (RFC 792)."""
    if both.protocol != Protocol.ICMP or both.kind is not Kind.PORT:
        return False
    return IcmpView.parse(both.transport).is_request if both.quoted else not both.is_request
