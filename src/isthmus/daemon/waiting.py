# SPDX-License-Identifier: BSD-3-Clause
"""Packets that wait for an address to be known, and how it comes to be known (spec 6.3, 8.3).

======================  ===========================================  ===========================
what is missing         who knows                                    what is programmed
======================  ===========================================  ===========================
an alias                the pool of the realm, at once               ``Bind``
a mapping               a nameserver, in a second or never           ``Remap``
======================  ===========================================  ===========================

Then the packet goes through the plane once more, which treats it like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from isthmus.address import Address
from isthmus.border.binding import FOREVER, Binding, Lease, Method
from isthmus.border.crossing import Translate
from isthmus.border.effect import Bind
from isthmus.border.verdict import Miss
from isthmus.daemon.alias_file import AliasFile, Kept
from isthmus.daemon.clock import Clock
from isthmus.daemon.mapping_dns import MappingDns
from isthmus.daemon.messages import Message, log
from isthmus.errors import PlaneError
from isthmus.ipae.alias import AliasEffect, AliasPool, Overflow
from isthmus.ipae.resolve import Outcome
from isthmus.plane import Programmable
from isthmus.plane.reference.allowance import Allowance
from isthmus.plane.reference.icmp_relay import may_answer
from isthmus.wire.icmp import Unreachable, unreachable
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol as Number

GRACE_SECONDS = 3600.0
"""How long an alias stays after the last answer of DNS, or the last packet that asked for it."""
# Deviation: spec 8.3 prolongs an alias while packets flow. Planes do not say which bindings are in use, so each gets an
# hour; when its peer speaks after that, it has the same one again, and connections go on.
SAVE_SECONDS = 5.0
"""How long what is new about aliases may be lost with the daemon."""


class Plane(Protocol):
    """What of a plane is needed here."""

    def apply(self, effects: Iterable[Programmable]) -> None:
        """Carry out effects."""

    def process_again(self, miss: Miss) -> None:
        """Decide anew about a packet that has waited."""

    def emit(self, realm: int, packet: bytes) -> None:
        """Send an IPv4 packet of the machine's own into a realm."""


class Aliases:
    """The pools of aliases, one for each realm whose hosts know 32 bits only.

    Args:
        pools: By the number of the realm.
        plane: Gets the bindings.
        clock: Seconds since 1970.
        file: Keeps what is leased for the next start.
    """

    def __init__(self, pools: Mapping[int, AliasPool], plane: Plane, clock: Clock, file: AliasFile) -> None:
        self.pools = dict(pools)
        self._file = file
        self._saving: asyncio.TimerHandle | None = None
        self._plane = plane
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._complained = False

    def fix(self, fixed: Iterable[tuple[Address, Address]]) -> list[Binding]:
        """Let aliases stand for SIP addresses forever, in every realm.

        Args:
            fixed: Alias and SIP address.

        Returns:
            What is to be bound.
        """
        return [pool.fix(alias, peer) for pool in self.pools.values() for alias, peer in fixed]

    def restore(self) -> list[Bind]:
        """Take back the aliases that stood when the daemon ended, after those that are fixed.

        Returns:
            What is to be bound.
        """
        found: list[Bind] = []
        now = self._clock.now()
        for each in self._file.read():
            if each.realm in self.pools and now < each.until < FOREVER:
                with contextlib.suppress(ValueError):  # the configuration has changed
                    binding = self.pools[each.realm].restore(each.alias, each.peer, until=each.until)
                    lease = Lease(client_id=0, method=Method.RSA_IP, granted_at=now, expires_at=each.until)
                    found.append(Bind(binding=binding, lease=lease))
        if found:
            self._schedule()
        return found

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_SECONDS, self._save)

    def _save(self) -> None:
        self._saving = None
        try:
            self._file.write(
                Kept(realm=realm, alias=alias, peer=peer, until=until)
                for realm, pool in self.pools.items()
                for alias, peer, until in pool.held()
            )
        except OSError as error:
            log(Message.PLANE_FAILED, error=str(error))

    def miss(self, miss: Miss) -> None:
        """Give the source of a packet an alias, and let the packet go on."""
        pool = self.pools.get(miss.realm)
        if pool is None:
            return
        granted = pool.lease(miss.address, now=self._clock.now())
        if isinstance(granted, Overflow):
            if not self._complained:
                free_in = round(granted.free_at - self._clock.now())
                log(Message.ALIASES_EXHAUSTED, name=str(miss.address), free_in_seconds=free_in)
            self._complained = True
            return
        try:
            self.carry_out(granted.effects)
        except PlaneError as error:
            # The next packet asks again; this one, sent through the plane without its alias, would do so at once.
            pool.withdraw(granted.effects, now=self._clock.now())
            if not self._complained:
                log(Message.ALIAS_NOT_BOUND, problem=str(error))
            self._complained = True
            return
        self._plane.process_again(miss)

    def carry_out(self, effects: tuple[AliasEffect, ...]) -> None:
        """Program what a pool wants.

        Raises:
            PlaneError: the plane cannot.
        """
        self._plane.apply(effects)
        if effects:
            self._save_soon()
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadlines = [pool.deadline for pool in self.pools.values() if pool.deadline is not None]
        if deadlines:
            delay = max(min(deadlines) - self._clock.now(), 0.1)
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer, self._complained = None, False
        for pool in self.pools.values():
            try:
                self._plane.apply(pool.expire(now=self._clock.now()))
            except PlaneError as error:
                log(Message.PLANE_FAILED, error=str(error))
        self._schedule()

    def is_alias(self, binding: Binding) -> bool:
        """Whether a binding is one of ours."""
        pool = self.pools.get(binding.realm)
        return pool is not None and isinstance(binding.crossing, Translate) and pool.owns(binding.address)

    def stop(self) -> None:
        """End the timers, and keep what is leased."""
        if self._timer is not None:
            self._timer.cancel()
        if self._saving is not None:
            self._saving.cancel()
            self._save()


class Lookups:
    """Mappings that are asked for when a packet needs them.

    Args:
        plane: Sends packets on.
        ours: Our address in each realm, by its number: who answers for what is not to be found.
        clock: Seconds since 1970.
    """

    def __init__(self, plane: Plane, ours: Mapping[int, Address], clock: Clock) -> None:
        self.zones: dict[int, MappingDns] = {}
        "Who asks, by the number of the realm."
        self._plane = plane
        self._ours = dict(ours)
        self._clock = clock
        self._allowance = Allowance()

    def miss(self, miss: Miss) -> None:
        """Ask for the mapping of a packet's destination."""
        zone = self.zones.get(miss.realm)
        source = Address.from_octets(miss.packet[12:16])
        outcome = Outcome.UNREACHABLE if zone is None else zone.miss(miss.address, source, miss.packet)
        match outcome:
            case Outcome.FORWARD:
                self._plane.process_again(miss)
            case Outcome.UNREACHABLE:
                self.refuse(miss.realm, miss.packet)
            case _:
                pass

    def forward(self, realm: int, packet: bytes) -> None:
        """Send on what has waited for its mapping."""
        destination = Address.from_octets(packet[16:20])
        self._plane.process_again(Miss(realm=realm, address=destination, arrived=realm, link=None, packet=packet))

    def refuse(self, realm: int, packet: bytes) -> None:
        """Tell a source that its destination is not to be found (spec 6.3: ICMP 3/1), as often as planes would."""
        view = Ipv4View.parse(packet)
        if view.fragment_offset or not may_answer(view) or not self._allowance.take(view.src, now=self._clock.now()):
            return
        told = unreachable(packet, Unreachable.HOST)
        ours = self._ours.get(realm) or view.dst
        header = Ipv4Header(total_length=20 + len(told), protocol=Number.ICMP, src=ours, dst=view.src)
        self._plane.emit(realm, header.emit() + told)
