# SPDX-License-Identifier: BSD-3-Clause
"""One plane for all roles of a daemon, where RSIP and IPAE meet in one machine.

A gateway that is also a border router, or a host of both kinds, has one table and one path of a packet. Each role
has a *part*: it programs what is its own, and hears what concerns it. The plane is opened when the first role
starts, with the borders of all of them in one, and holds what stands for all before the first packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from isthmus.border.effect import Bind, Register, Remap
from isthmus.border.plain import Hosts, PlainLeases, as_effects
from isthmus.border.realm import Border, Realm
from isthmus.border.verdict import Miss, Reason, Violation
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config
from isthmus.daemon.planes import MachinePlane, port_name
from isthmus.plane import Planned
from isthmus.plane.reference import ReferencePlane

Standing = Register | Bind | Remap


class RolePlane(Protocol):
    """What a role needs of the plane of this machine."""

    @property
    def kind(self) -> str:
        """``kernel`` or ``reference``."""

    @property
    def reference(self) -> ReferencePlane:
        """The plane that decides what the fast path does not."""

    def port_name(self, realm: int) -> str:
        """What the machine's end of a realm's port is called."""

    def reconcile(
        self, standing: Iterable[Standing], plain: Sequence[PlainLeases] = (), registered: Sequence[Hosts] = ()
    ) -> None:
        """Let the plane hold this and nothing else of the role."""

    def start(self, tell: Callable[[Iterable[Violation]], None], ask: Callable[[Miss], None] | None = None) -> None:
        """Begin to serve."""

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order; see ``plane.Plane``."""

    def process_again(self, miss: Miss) -> None:
        """Decide anew about a packet that has waited."""

    def emit(self, realm: int, packet: bytes) -> None:
        """Send an IPv4 packet of our own into a realm."""

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason."""

    def events(self) -> list[Violation]:
        """The violations seen since the last call."""

    def close(self) -> None:
        """Let go; what is pinned goes on forwarding."""

    def destroy(self) -> None:
        """Take the plane away."""


MakePlane = Callable[[Config, Border, Clock], RolePlane]


def plane_maker(config: Config) -> MakePlane:
    """How the roles of a configuration get their plane: each its own, or parts of one."""
    rsip = config.gateway is not None or config.host is not None
    ipae = config.border is not None or config.node is not None
    return SharedPlane() if rsip and ipae else MachinePlane


class SharedPlane:
    """Makes parts of one plane."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._plane: MachinePlane | None = None
        self._started = False

    def __call__(self, config: Config, border: Border, clock: Clock) -> Part:
        """Make a part for a role; see ``MachinePlane``."""
        part = Part(self, config, border, clock)
        self._parts.append(part)
        return part

    def plane_of(self, part: Part) -> MachinePlane:
        """The plane, opened by whoever needs it first.

        Raises:
            PlaneError: it cannot be had.
        """
        if self._plane is None:
            self._plane = MachinePlane(part.config, union([each.border for each in self._parts]), part.clock)
        return self._plane

    def reconcile(self, part: Part) -> None:
        """When the last part has said what stands, let the plane hold all of it; what comes later is added."""
        plane = self.plane_of(part)
        if all(each.standing is not None for each in self._parts) and not self._started:
            plane.reconcile(
                [effect for each in self._parts for effect in each.standing or ()],
                [leases for each in self._parts for leases in each.plain],
                [hosts for each in self._parts for hosts in each.registered],
            )
            plane.apply([effect for each in self._parts for effect in each.take_early()])
        elif self._started:
            plane.apply((*(part.standing or ()), *as_effects(part.plain, part.registered)))

    def start(self, part: Part) -> None:
        """When the last part is ready, begin."""
        if not self._started and all(each.ready for each in self._parts):
            self._started = True
            plane = self.plane_of(part)
            plane.apply([effect for each in self._parts for effect in each.take_early()])
            plane.start(self._tell, self._ask)

    @property
    def started(self) -> bool:
        """Whether packets flow."""
        return self._started

    def _tell(self, violations: Iterable[Violation]) -> None:
        seen = tuple(violations)
        for each in self._parts:
            each.tell(seen)

    def _ask(self, miss: Miss) -> None:
        for each in self._parts:
            if each.ask is not None:
                each.ask(miss)

    def leave(self, part: Part, *, destroy: bool) -> None:
        """Let the plane go with its last part."""
        if part in self._parts:
            self._parts.remove(part)
        if not self._parts and self._plane is not None:
            plane, self._plane = self._plane, None
            (plane.destroy if destroy else plane.close)()


class Part:
    """The plane as one of several roles sees it.

    Args:
        whole: What it is a part of.
        config: The file.
        border: What the role wants the plane to know.
        clock: Seconds since 1970.
    """

    def __init__(self, whole: SharedPlane, config: Config, border: Border, clock: Clock) -> None:
        self._whole = whole
        self.config = config
        self.border = border
        self.clock = clock
        self.standing: tuple[Standing, ...] | None = None
        "What stood when the role started."
        self.plain: tuple[PlainLeases, ...] = ()
        self.registered: tuple[Hosts, ...] = ()
        self.ready = False
        self.tell: Callable[[Iterable[Violation]], None] = lambda _violations: None
        self.ask: Callable[[Miss], None] | None = None
        self._early: list[Planned] = []

    @property
    def _plane(self) -> MachinePlane:
        return self._whole.plane_of(self)

    @property
    def kind(self) -> str:
        """``kernel`` or ``reference``."""
        return self._plane.kind

    @property
    def reference(self) -> ReferencePlane:
        """The plane that decides what the fast path does not."""
        return self._plane.reference

    def port_name(self, realm: int) -> str:
        """What the machine's end of a realm's port is called."""
        return port_name(self.config, realm)

    def reconcile(
        self, standing: Iterable[Standing], plain: Sequence[PlainLeases] = (), registered: Sequence[Hosts] = ()
    ) -> None:
        """Say what stands; the plane has it when every role has spoken."""
        self.standing, self.plain, self.registered = tuple(standing), tuple(plain), tuple(registered)
        self._whole.reconcile(self)

    def start(self, tell: Callable[[Iterable[Violation]], None], ask: Callable[[Miss], None] | None = None) -> None:
        """Be ready; packets flow when every role is."""
        self.tell, self.ask, self.ready = tell, ask, True
        self._whole.start(self)

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order; before packets flow they are kept."""
        if self._whole.started:
            self._plane.apply(effects)
        else:
            self._early += effects

    def take_early(self) -> list[Planned]:
        """What was to be applied before the plane held what stands."""
        early, self._early = self._early, []
        return early

    def process_again(self, miss: Miss) -> None:
        """Decide anew about a packet that has waited."""
        self._plane.process_again(miss)

    def emit(self, realm: int, packet: bytes) -> None:
        """Send an IPv4 packet of our own into a realm."""
        self._plane.emit(realm, packet)

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason, of all roles."""
        return self._plane.counters()

    def events(self) -> list[Violation]:
        """The violations seen since the last call."""
        return self._plane.events()

    def close(self) -> None:
        """Let go."""
        self._whole.leave(self, destroy=False)

    def destroy(self) -> None:
        """Take the plane away, if no other role has it."""
        self._whole.leave(self, destroy=True)


def union(borders: list[Border]) -> Border:
    """What several roles want a plane to know, in one."""
    realms: dict[int, Realm] = {}
    for border in borders:
        for realm in border.realms:
            # What IPAE knows of a realm is more than what RSIP does.
            if realm.number not in realms or realm.sip is not None:
                realms[realm.number] = realm
    sip = [each for each in borders if each.nodes or any(realm.sip is not None for realm in each.realms)]
    return Border(
        realms=tuple(realms[number] for number in sorted(realms)),
        tunnel_ends=tuple(dict.fromkeys(end for border in borders for end in border.tunnel_ends)),
        claims=tuple(claim for border in borders for claim in border.claims),
        slice_size=borders[0].slice_size,
        nodes=tuple(node for border in borders for node in border.nodes),
        rules=sip[0].rules if sip else borders[0].rules,
    )
