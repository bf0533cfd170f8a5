# SPDX-License-Identifier: BSD-3-Clause
"""The one rule: into the tunnel what matches a binding, out of it what its sender may send.

::

    toward the binding:  the packet's (dst, src) matches (local, remote) -> into the tunnel
    from the binding:    the inner packet's (src, dst) matches           -> out; else drop: spoofed

A host is the mirror image. The steps, their order and their reasons are those of
``docs/data-plane.md``, one function for each way; a packet that is not ours passes. Nothing
here waits, reads a clock or raises for a packet.

Pairs with ``bpf/include/isthmus/border.h``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from isthmus.address import Family
from isthmus.border.binding import Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind, Unbind
from isthmus.border.realm import Border, End, TunnelEnd
from isthmus.border.selector import Flow
from isthmus.border.table import BindingTable, Entry
from isthmus.border.verdict import Drop, Forward, Pass, Punt, Reason, Reply, Verdict, Violation
from isthmus.errors import Conflict, PlaneError, Unsupported
from isthmus.plane import Programmable
from isthmus.plane.reference import icmp_relay, lookup
from isthmus.plane.reference.classify import Ends, Side, ends, flow, is_cut_off, parse
from isthmus.plane.reference.contact import ContactedPeers, Contacts
from isthmus.plane.reference.tunnel import decapsulate, egress_tos, encapsulate, tunnel_kind
from isthmus.wire.ipv4 import Ipv4View

_EVENTS_KEPT = 4096
"Violations that wait to be collected; the oldest go first, since answers to them are rate limited anyhow."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """A packet that came out of a tunnel, and how."""

    outer: Ipv4View
    inner: Ipv4View
    end: TunnelEnd
    sender: Owner
    kind: TunnelKind
    both: Ends
    flow: Flow
    entry: Entry


class ReferencePlane:
    """A plane that says what is right, in plain Python; also the slow path of the kernel plane.

    Args:
        border: Realms, tunnel ends and claims.
        contacts: The memory of contacted peers; ``AdmitAll`` behind a fast path that has one of its own.
    """

    def __init__(self, border: Border, contacts: Contacts | None = None) -> None:
        self._border = border
        self._realms = {realm.number: realm for realm in border.realms}
        for each in border.tunnel_ends:
            if each.realm not in self._realms or each.leads_to not in self._realms:
                raise PlaneError(
                    f"tunnel end {each.address} joins realms {each.realm} and {each.leads_to}: one is unknown"
                )
        self._table = BindingTable(border.claims)
        self._bound = lookup.Addresses()
        self._contacts: Contacts = contacts if contacts is not None else ContactedPeers()
        self._counters = dict.fromkeys(Reason, 0)
        self._events: deque[Violation] = deque(maxlen=_EVENTS_KEPT)

    @property
    def table(self) -> BindingTable:
        """What is bound and registered; to look at, not to change."""
        return self._table

    def apply(self, effects: Iterable[Programmable]) -> None:
        """Carry out effects in order.

        Raises:
            PlaneError: a Bind of what another binding holds, or of a tunnel over IPv6.
        """
        for effect in effects:
            if isinstance(effect, Bind) and effect.binding.crossing.local.family is not Family.IPV4:
                raise Unsupported(f"binding {effect.binding.key} over IPv6", remedy="give the tunnel IPv4 ends")
            try:
                self._table.apply(effect)
            except Conflict as conflict:
                raise PlaneError(str(conflict)) from conflict
            if isinstance(effect, Bind):
                binding = effect.binding
                self._bound.add(binding.key, binding.realm, (each.local for each in binding.selectors))
            elif isinstance(effect, Unbind):
                self._bound.remove(effect.key)

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason; every packet is counted once."""
        return dict(self._counters)

    def events(self) -> list[Violation]:
        """The violations seen since the last call, oldest first."""
        seen = list(self._events)
        self._events.clear()
        return seen

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def process(self, realm: int, packet: bytes, *, now: float) -> Verdict:
        """Decide about one packet, and count it.

        Args:
            realm: Number of the realm that it arrived in.
            packet: The packet from its IP header on; what follows its total length is padding.
            now: Seconds since 1970.
        """
        verdict = self._decide(realm, packet, now)
        match verdict:
            case Forward() | Drop():
                self._counters[verdict.reason] += 1
                if isinstance(verdict, Drop) and verdict.violation is not None:
                    self._events.append(verdict.violation)
            case Reply():
                self._counters[Reason.REPLIED] += 1
            case Pass():
                self._counters[Reason.PASSED] += 1
            case Punt():
                self._counters[Reason.PUNTED] += 1
            case _:
                assert_never(verdict)
        return verdict

    def _decide(self, realm: int, packet: bytes, now: float) -> Verdict:
        """Send a packet its way: from a tunnel, toward a binding, or none of ours (RFC 3102 §3.2)."""
        known = self._realms.get(realm)
        view = parse(packet)
        if view is None or known is None or known.family is not Family.IPV4:
            return Pass()
        kind = tunnel_kind(view)
        end = lookup.tunnel_end(self._border, realm, view.dst) if kind is not None else None
        if end is not None and kind is not None:
            return self._from_tunnel(view, end, kind, now)
        if known.end is End.HOST:
            return self._from_program(realm, view, now)
        return self._toward_binding(realm, view, now)

    # --- toward the binding ---------------------------------------------------------------

    def _toward_binding(self, realm: int, packet: Ipv4View, now: float) -> Verdict:
        """Take a packet from outside to the holder of its destination (RFC 3102 §3.2, §6.2; RFC 3103 §7.3)."""
        whole = not packet.is_fragment and not is_cut_off(packet)
        both = ends(packet) if whole else None
        if both is not None and both.is_request:
            return Pass()
        if not lookup.is_meant(self._table, self._bound, realm, packet.dst):
            return Pass()
        # Deviation: RFC 3102 §3.1 and §6.3 want fragments reassembled.
        if packet.is_fragment:
            return Drop(Reason.FRAGMENT)
        if both is None:
            return Drop(Reason.MALFORMED)
        if icmp_relay.is_forged_inward(packet, both):
            return Drop(Reason.FORGED_QUOTE)
        wanted = flow(both, realm, Side.DESTINATION)
        entry = self._table.lookup(wanted)
        if entry is None:
            return Drop(Reason.NO_BINDING) if self._table.claims(wanted) else Pass()
        if not packet.checksum_ok:
            return Drop(Reason.MALFORMED)
        return self._inward(packet, entry, wanted, now)

    def _inward(self, packet: Ipv4View, entry: Entry, wanted: Flow, now: float) -> Verdict:
        """Check deadline, peer, TTL and size, and put a packet into its tunnel (RFC 3103 §6, §7.2; RFC 2003 §3.1)."""
        refused = self._admission(entry, wanted, now)
        if refused is not None:
            return Drop(refused)
        if packet.ttl <= 1:
            if not icmp_relay.may_answer(packet):
                return Drop(Reason.TTL_EXCEEDED)
            error = icmp_relay.time_exceeded(packet, packet.dst)
            return Reply(wanted.realm, error, Reason.TTL_EXCEEDED)
        tunnel = entry.binding.crossing
        if packet.total_length > tunnel.mtu:
            if not packet.df or not icmp_relay.may_answer(packet):
                return Drop(Reason.TOO_BIG)
            error = icmp_relay.fragmentation_needed(packet, packet.dst, tunnel.mtu)
            return Reply(wanted.realm, error, Reason.TOO_BIG)
        outer = encapsulate(_hop(packet), tunnel)
        return Forward(tunnel.realm, (outer,), Reason.FORWARDED_INWARD)

    def _admission(self, entry: Entry, wanted: Flow, now: float) -> Reason | None:
        """Check deadline and peer of a packet toward a binding; None if it may go on (RFC 3103 §6, §7.2)."""
        if lookup.expired(entry, now):
            return Reason.LEASE_EXPIRED
        refused = lookup.remote_limit(entry, wanted)
        if refused is None and not lookup.contacted(entry, wanted, self._contacts, now=now):
            return Reason.NOT_CONTACTED
        return refused

    def _from_program(self, realm: int, packet: Ipv4View, now: float) -> Verdict:
        """Take a packet of one of our own programs to the gateway: the host's mirror (RFC 3102 §2; RFC 3103 §7)."""
        if packet.is_fragment:
            return Drop(Reason.FRAGMENT)
        if is_cut_off(packet):
            return Drop(Reason.MALFORMED)
        both = ends(packet)
        wanted = flow(both, realm, Side.SOURCE)
        entry = self._table.lookup(wanted)
        if entry is None:
            held = self._bound.covers(realm, wanted.local)
            return Drop(Reason.SOURCE_PORT_NOT_LEASED if held else Reason.SOURCE_ADDRESS_NOT_LEASED)
        if lookup.expired(entry, now):
            return Drop(Reason.LEASE_EXPIRED)
        refused = lookup.remote_limit(entry, wanted)
        if refused is not None:
            return Drop(refused)
        tunnel = entry.binding.crossing
        if packet.total_length > tunnel.mtu:
            return Drop(Reason.TOO_BIG)
        outer = encapsulate(packet.octets, tunnel)
        return Forward(tunnel.realm, (outer,), Reason.FORWARDED_OUTWARD)

    # --- from the tunnel ------------------------------------------------------------------

    def _from_tunnel(self, outer: Ipv4View, end: TunnelEnd, kind: TunnelKind, now: float) -> Verdict:
        """Take a packet out of its tunnel and check that its sender may send it (RFC 3102 §2; RFC 3103 §7, §10.4)."""
        if not outer.checksum_ok:
            return Drop(Reason.MALFORMED)
        if outer.is_fragment:
            return Drop(Reason.FRAGMENT)
        at_gateway = lookup.end_of(self._border, end.leads_to) is End.GATEWAY
        sender = Owner(end.realm, outer.src)
        if not self._table.is_registered(sender):
            return (
                _violation(Reason.UNREGISTERED, sender, None, kind) if at_gateway else Drop(Reason.UNKNOWN_TUNNEL_PEER)
            )
        inner = decapsulate(outer)
        if isinstance(inner, Reason):
            return Drop(inner)
        if at_gateway and icmp_relay.is_no_host(inner.dst):
            return Drop(Reason.FORBIDDEN_DESTINATION)
        both = ends(inner)
        wanted = flow(both, end.leads_to, Side.SOURCE if at_gateway else Side.DESTINATION)
        forged = icmp_relay.is_forged_outward if at_gateway else icmp_relay.is_forged_inward
        entry = self._table.lookup(wanted)
        if entry is None or entry.binding.key.owner != sender or forged(inner, both):
            return self._not_found(inner, wanted, sender, kind, at_gateway=at_gateway, is_error=both.is_error)
        refused = _use(entry, wanted, kind, now)
        if refused is not None:
            reported = at_gateway and refused is not Reason.LEASE_EXPIRED
            return _violation(refused, sender, wanted, kind) if reported else Drop(refused)
        arrival = _Arrival(
            outer=outer, inner=inner, end=end, sender=sender, kind=kind, both=both, flow=wanted, entry=entry
        )
        return self._outward(arrival, now) if at_gateway else _deliver(arrival)

    def _not_found(
        self, inner: Ipv4View, wanted: Flow, sender: Owner, kind: TunnelKind, *, at_gateway: bool, is_error: bool
    ) -> Drop:
        """Drop what its sender does not hold, and tell where it is misuse (RFC 3103 §10.4)."""
        if not at_gateway:
            return Drop(Reason.NOT_OUR_LEASE)
        reason = lookup.refusal(self._table, wanted, sender, inner.src, is_error=is_error)
        return _violation(reason, sender, wanted, kind) if reason.rsip_code else Drop(reason)

    def _outward(self, arrival: _Arrival, now: float) -> Verdict:
        """Let a host's packet out into the realm that its source is leased from (RFC 3102 §2; RFC 2003 §3)."""
        inner = arrival.inner
        self._contacts.note(arrival.sender, arrival.flow.local, arrival.flow.remote, now=now)
        if inner.ttl <= 1:
            if not icmp_relay.may_answer(inner):
                return Drop(Reason.TTL_EXCEEDED)
            tunnel = arrival.entry.binding.crossing
            error = icmp_relay.time_exceeded(inner, arrival.end.address, limit=tunnel.mtu)
            return Reply(tunnel.realm, encapsulate(error, tunnel), Reason.TTL_EXCEEDED)
        if lookup.is_meant(self._table, self._bound, arrival.end.leads_to, inner.dst):
            around = self._hairpin(arrival, now)
            if around is not None:
                return around
        return Forward(arrival.end.leads_to, (_emerge(arrival, hop=True),), Reason.FORWARDED_OUTWARD)

    def _hairpin(self, arrival: _Arrival, now: float) -> Verdict | None:
        """Turn a packet round to another of our hosts (RFC 3102 §6.7); None if its destination is not one's."""
        inner, both = arrival.inner, arrival.both
        if both.is_request:
            return Drop(Reason.NO_BINDING)
        # An error with a forged quote does not come this far; what is left is the quote of another realm's packet.
        if icmp_relay.is_forged_inward(inner, both):
            return Drop(Reason.FORGED_QUOTE)
        wanted = flow(both, arrival.end.leads_to, Side.DESTINATION)
        entry = self._table.lookup(wanted)
        if entry is None:
            return Drop(Reason.NO_BINDING) if self._table.claims(wanted) else None
        refused = self._admission(entry, wanted, now)
        if refused is not None:
            return Drop(refused)
        tunnel, back = entry.binding.crossing, arrival.entry.binding.crossing
        if inner.total_length > tunnel.mtu:
            if not inner.df or not icmp_relay.may_answer(inner):
                return Drop(Reason.TOO_BIG)
            error = icmp_relay.fragmentation_needed(inner, arrival.end.address, tunnel.mtu, limit=back.mtu)
            return Reply(back.realm, encapsulate(error, back), Reason.TOO_BIG)
        outer = encapsulate(_emerge(arrival, hop=True), tunnel)
        return Forward(tunnel.realm, (outer,), Reason.FORWARDED_INWARD)


def _use(entry: Entry, wanted: Flow, kind: TunnelKind, now: float) -> Reason | None:
    """Check deadline, tunnel type and peer of a tunnelled packet; None if all is well (RFC 3103 §6, §7.2, §10.4)."""
    if lookup.expired(entry, now):
        return Reason.LEASE_EXPIRED
    if kind is not entry.binding.crossing.kind:
        return Reason.WRONG_TUNNEL_TYPE
    return lookup.remote_limit(entry, wanted)


def _deliver(arrival: _Arrival) -> Forward:
    """Give a packet to the programs that use its binding: the host's mirror (RFC 3102 §3.1)."""
    binding = arrival.entry.binding
    inner = _emerge(arrival, hop=False)
    return Forward(arrival.end.leads_to, (inner,), Reason.FORWARDED_INWARD, device=binding.device)


def _hop(packet: Ipv4View) -> bytearray:
    """Copy a packet without its padding and count one router (RFC 791 §3.2; RFC 1812 §5.3.1)."""
    octets = bytearray(packet.octets)
    Ipv4View.parse(octets).ttl -= 1
    return octets


def _emerge(arrival: _Arrival, *, hop: bool) -> bytes:
    """Copy a packet as it leaves its tunnel: TTL, ECN, nothing else (RFC 2003 §3.1; RFC 6040 §4.2)."""
    octets = _hop(arrival.inner) if hop else bytearray(arrival.inner.octets)
    tos = egress_tos(arrival.outer, arrival.inner)
    if tos is not None and tos != arrival.inner.tos:
        Ipv4View.parse(octets).tos = tos
    return bytes(octets)


def _violation(reason: Reason, sender: Owner, wanted: Flow | None, kind: TunnelKind) -> Drop:
    """Drop a packet and tell the protocol (RFC 3103 §10.4)."""
    return Drop(reason, Violation(reason=reason, owner=sender, flow=wanted, tunnel_kind=kind))
