# SPDX-License-Identifier: BSD-3-Clause
"""The one rule: into the tunnel what matches a binding, out of it what its sender may send.

::

    toward the binding:  the packet's (dst, src) matches (local, remote) -> into the tunnel
    from the binding:    the inner packet's (src, dst) matches           -> out; else drop: spoofed

A host is the mirror image. The steps, their order and their reasons are those of
``docs/data-plane.md``, in ``inward``, ``outward`` and ``program``; a packet that is not ours passes. Nothing
here waits, reads a clock or raises for a packet.

Pairs with ``bpf/include/isthmus/border.h``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import assert_never

from isthmus.address import Family
from isthmus.border.crossing import Way
from isthmus.border.realm import Border, End, Realm
from isthmus.border.table import BindingTable
from isthmus.border.verdict import Drop, Forward, Hold, Miss, Pass, Punt, Reason, Reply, Verdict, Violation
from isthmus.errors import Conflict, PlaneError
from isthmus.plane import Planned, one_by_one
from isthmus.plane.reference import lookup, sip
from isthmus.plane.reference.classify import parse
from isthmus.plane.reference.contact import Contacts
from isthmus.plane.reference.datagram import out_of_datagram
from isthmus.plane.reference.into_sip import from_ipv4, from_ipv6
from isthmus.plane.reference.inward import toward_binding
from isthmus.plane.reference.memory import Memory
from isthmus.plane.reference.outward import from_tunnel
from isthmus.plane.reference.path import Paths
from isthmus.plane.reference.path_mtu import too_big
from isthmus.plane.reference.program import from_program
from isthmus.plane.reference.relay import quoted_datagram, relay
from isthmus.plane.reference.ring import Ring
from isthmus.plane.reference.tunnel import Outer
from isthmus.plane.reference.ways import Condition
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.ipae import PROTOCOL

_EVENTS_KEPT = 4096
"Violations that wait to be collected; the oldest go first, since answers to them are rate limited anyhow."
_MISSES_KEPT = 1024
"Packets that wait for an address to be known; likewise, since whoever sent them sends again."


class ReferencePlane:
    """A plane that says what is right, in plain Python; also the slow path of the kernel plane.

    Args:
        border: Realms, tunnel ends and claims.
        contacts: The memory of contacted peers; behind a fast path its own.
        paths: The memory of who sends by which SPI of a peer; likewise.
        ring: The memory of IPAE datagrams that were sent; likewise.
        table: What is bound and registered; likewise.

    Raises:
        PlaneError: a tunnel end joins a realm that is unknown.
    """

    def __init__(
        self,
        border: Border,
        contacts: Contacts | None = None,
        paths: Paths | None = None,
        ring: Ring | None = None,
        table: BindingTable | None = None,
    ) -> None:
        self._known = Memory(border, contacts, paths, ring, table)
        self._counters = dict.fromkeys(Reason, 0)
        self._events: deque[Violation] = deque(maxlen=_EVENTS_KEPT)
        self._misses: deque[Miss] = deque(maxlen=_MISSES_KEPT)

    @property
    def table(self) -> BindingTable:
        """What is bound and registered; to look at, not to change."""
        return self._known.table

    @property
    def memory(self) -> Memory:
        """What earlier packets have taught it; to look at, not to change."""
        return self._known

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order.

        Raises:
            PlaneError: a Bind of what another binding holds.
        """
        for effect in one_by_one(effects):
            try:
                self._known.apply(effect)
            except Conflict as conflict:
                raise PlaneError(str(conflict)) from conflict

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason; every packet is counted once, and a fragment that waited in vain as that, too."""
        return dict(self._counters)

    def events(self) -> list[Violation]:
        """The violations seen since the last call, oldest first."""
        seen = list(self._events)
        self._events.clear()
        return seen

    def misses(self) -> list[Miss]:
        """The packets that have begun to wait for an address since the last call, oldest first (spec 6.3, 8.3)."""
        seen = list(self._misses)
        self._misses.clear()
        return seen

    def ways(self, *, now: float) -> list[tuple[Way, Condition]]:
        """What is known of the ways between IPAE systems (spec 6.4, layer 3)."""
        return self._known.ways.all(now=now)

    def way_changes(self, *, now: float) -> list[tuple[Way, Condition | None]]:
        """Ways of which something else is known than at the last call; None: nothing any more."""
        return self._known.ways.changes(now=now)

    def path_mtus(self, *, now: float) -> list[tuple[Way, int | None]]:
        """Ways whose MTU has changed since the last call, in octets of the outer packet; None: it was forgotten."""
        self._known.path_mtus.expire(now)
        return self._known.path_mtus.changes()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def process(
        self, realm: int, packet: bytes, *, now: float, device: str | None = None, link: int | None = None
    ) -> Verdict:
        """Decide about one packet, and count it.

        Args:
            realm: Number of the realm that it arrived in.
            packet: The packet from its IP header on; what follows its end is padding.
            now: Seconds since 1970.
            device: At a host: the device that a program's packet came from, where that is known.
            link: Of a SIP packet: number of the IPv4 realm whose link it came by.
        """
        self._known.path_mtus.expire(now)
        memories = self._known.fragments, self._known.tunnelled
        for each in memories:
            self._counters[Reason.FRAGMENT_TIMEOUT] += each.expire(now)
        verdict = self._decide(realm, packet, now, device, link)
        for each in memories:
            self._counters[Reason.FRAGMENT_LIMIT] += each.take_pushed_out()
        match verdict:
            case Forward() | Drop():
                self._counters[verdict.reason] += 1
                if isinstance(verdict, Drop) and verdict.violation is not None:
                    self._events.append(verdict.violation)
            case Reply():
                self._counters[Reason.REPLIED] += 1
            case Hold():
                self._counters[Reason.HELD] += 1
            case Pass():
                self._counters[Reason.PASSED] += 1
            case Punt():
                self._counters[Reason.PUNTED] += 1
            case _:
                assert_never(verdict)
        return verdict

    def _decide(self, realm: int, packet: bytes, now: float, device: str | None, link: int | None) -> Verdict:
        """Send a packet its way: SIP's, from a tunnel, toward a binding, or none of ours (RFC 3102 §3.2)."""
        known = self._known.realms.get(realm)
        if known is None:
            return Pass()
        if known.family is Family.SIP:
            return self._asking(sip.from_link(self._known, realm, packet, link, now))
        view = parse(packet)
        verdict = self._of_ipae(known, view, packet, now, device)
        return verdict if verdict is not None else self._of_rsip(known, view, packet, now, device)

    def _asking(self, way: tuple[Verdict, Miss | None]) -> Verdict:
        """Keep what has to be asked before a packet goes on."""
        verdict, miss = way
        if miss is not None:
            self._misses.append(miss)
        return verdict

    def _of_ipae(
        self, realm: Realm, view: Ipv4View | None, packet: bytes, now: float, device: str | None
    ) -> Verdict | None:
        """Take a packet to where SIP begins; None if it is none of SIP's (seed IPAE 6.3; spec 6.2)."""
        known = self._known
        if realm.family is Family.IPV6 and known.translates(realm.number):
            return self._asking(from_ipv6(known, realm, packet, now, device=device))
        if view is None or realm.family is not Family.IPV4:
            return None
        end = lookup.ipae_end(known.border, realm.number, view.dst)
        if end is not None:
            if view.protocol == PROTOCOL:
                return self._asking(out_of_datagram(known, end, view, now))
            error = quoted_datagram(end, view)
            if error is not None:
                return relay(known, end, view, error, now)
        taken = from_ipv4(known, realm, view, now, device=device)
        return None if taken is None else self._asking(taken)

    def _of_rsip(self, known: Realm, view: Ipv4View | None, packet: bytes, now: float, device: str | None) -> Verdict:
        """Take a packet from a tunnel, or toward a binding (RFC 3102 §3.2)."""
        realm = known.number
        outer = Outer.over_ipv4(view) if view is not None else Outer.over_ipv6(packet)
        if outer is not None:
            end = lookup.tunnel_end(self._known.border, realm, outer.dst)
            if end is not None:
                return from_tunnel(self._known, outer, end, now)
        error = too_big(realm, view, packet)
        if error is not None and lookup.tunnel_end(self._known.border, realm, error.way.local) is not None:
            self._known.hear(error, now=now)
        # Deviation: RFC 2003 §4 and RFC 2473 §8 have other errors from within a tunnel told to the sender of what was
        # tunnelled, too; we leave them to the machine: what cannot be reached is a host, whose leases run out.
        if view is None or known.family is not Family.IPV4:
            return Pass()
        if known.end is End.HOST:
            return from_program(self._known, realm, view, now, device=device)
        if self._known.is_leased_beyond(realm, view.src):
            return Drop(Reason.NOT_TUNNELLED)
        return toward_binding(self._known, realm, view, now)
