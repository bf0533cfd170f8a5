# SPDX-License-Identifier: BSD-3-Clause
"""The plane of this machine: the kernel's where it can be had, with the reference plane behind it; else that alone."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.address import Address, Family
from isthmus.border.crossing import Tunnel, Way
from isthmus.border.effect import Bind, Deregister, Ending, Lapse, Register, Remap, Unbind
from isthmus.border.plain import Hosts, PlainLeases, as_effects
from isthmus.border.realm import Border, End
from isthmus.border.verdict import Miss, Reason, Violation
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config
from isthmus.daemon.messages import Message, log
from isthmus.daemon.offloop import off_loop
from isthmus.daemon.rtnetlink import GROUP_LINK, heard, listen
from isthmus.errors import PlaneError
from isthmus.plane import Planned, Programmable, one_by_one
from isthmus.plane.link import Port
from isthmus.plane.link.features import Features
from isthmus.plane.link.neighbour import NativeSender
from isthmus.plane.link.port import PuntPort
from isthmus.plane.link.userspace import UserspacePlane
from isthmus.plane.reference import ReferencePlane
from isthmus.plane.reference.ways import Condition

if TYPE_CHECKING:
    from isthmus.daemon.uniform_routes import UniformRoutes
    from isthmus.plane.kernel import KernelPlane
    from isthmus.plane.kernel.table import SharedTable

DAY_SECONDS = 86400.0
_NUMBERED = 1000
_AT_ONCE = 64
LOOK_SECONDS = 1.0
"""How often to look whether an interface was made anew: it is another one then, and knows nothing of us."""


def port_name(config: Config, realm: int) -> str:
    """What the machine's end of a realm's port is called, by any daemon of this configuration."""
    return _port_name(_name(config), realm)


def _port_name(name: str, realm: int) -> str:
    return f"{name}{realm if realm < _NUMBERED else 'h'}"


def _name(config: Config) -> str:
    return f"ist{hashlib.sha256(str(config.control_socket).encode()).hexdigest()[:8]}"


class MachinePlane:
    """Either plane, or both as fast path and slow path, in the event loop of the daemon.

    Args:
        config: Says which plane is wanted.
        border: What the planes must know.
        clock: Seconds since 1970.

    Raises:
        PlaneError: the plane that the configuration insists on cannot be had, or neither can.
    """

    def __init__(self, config: Config, border: Border, clock: Clock) -> None:
        self._border = border
        self._clock = clock
        self._name = _name(config)
        self._taken = config.alias_pools
        self._xdp = frozenset(each.interface for each in config.realm if each.xdp)
        self._pin = config.isthmus.run / "bpf" / config.isthmus.name
        self._fast: KernelPlane | None = None
        self._table: SharedTable | None = None
        "Where the slow path looks up what the fast path keeps."
        self._routes: list[UniformRoutes[Any, Any]] = []
        self._watched: dict[int, Port | NativeSender] = {}
        self._features = Features()
        self._daily: asyncio.TimerHandle | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._links: socket.socket | None = None
        self._indexes: dict[str, int] = {}
        self._down: dict[Way, Address] = {}
        "Which ways are down, and who said so: what the log has."
        self._tell: Callable[[Iterable[Violation]], None] = lambda _violations: None
        self._ask: Callable[[Miss], None] = lambda _miss: None
        self._open(config.isthmus.plane)

    @off_loop
    def _open(self, wanted: str) -> None:
        reason = f'plane = "{wanted}"'
        if wanted != "reference":
            try:
                self._open_kernel()
                reason = self._taken_over() or reason
            except PlaneError as error:
                if wanted == "kernel":
                    raise
                reason = str(error)
        if self._fast is None:
            self._slow = UserspacePlane.alone(self._border, self._name, taken=self._taken)
        log(Message.PLANE_CHOSEN, plane=self.kind, because=reason)

    def _taken_over(self) -> str:
        if self._fast is None:
            return ""
        return self._fast.replaced or ("the pinned maps are taken over" if self._fast.adopted else "")

    def _open_kernel(self) -> None:
        from isthmus.plane.kernel import KernelPlane

        ports = {realm.number: PuntPort(self.port_name(realm.number)) for realm in self._border.realms}
        try:
            self._fast = KernelPlane(self._border, pin=self._pin, boot_offset=self._clock.boot_offset or 0.0)
        except BaseException:
            for port in ports.values():
                port.close()
            raise
        self._table = self._fast.table()
        self._slow = UserspacePlane(
            self._border,
            ports,
            table=self._table,
            contacts=self._fast.contacts,
            paths=self._fast.paths,
            ring=self._fast.ring,
            take_devices=False,
        )

    @property
    def kind(self) -> str:
        """``kernel`` or ``reference``."""
        return "reference" if self._fast is None else "kernel"

    def port_name(self, realm: int) -> str:
        """What the machine's end of a realm's port is called; that of a host's leased realm has a letter."""
        return _port_name(self._name, realm)

    @off_loop
    def reconcile(
        self,
        standing: Iterable[Register | Bind | Remap],
        plain: Sequence[PlainLeases] = (),
        registered: Sequence[Hosts] = (),
    ) -> None:
        """Let the plane hold this and nothing else; what it holds already is not disturbed."""
        standing = tuple(standing)
        if self._fast is not None:
            self._fast.reconcile(standing, plain, registered)
            self._attach(self._fast)
        else:
            standing = (*standing, *as_effects(plain, registered))
        self._slow.apply((*self._stale(standing), *self._left(standing)))
        self._hand_on()

    def _left(self, effects: Iterable[Planned]) -> tuple[Programmable, ...]:
        """What of effects the slow path has to carry out: what the fast path keeps it only looks up."""
        return tuple(one_by_one(effects) if self._table is None else self._table.left(effects))

    def _attach(self, fast: KernelPlane) -> None:
        indexes = self._interfaces()
        for realm in self._border.realms:
            port = self.port_name(realm.number)
            if realm.interface is not None:
                refused = fast.attach(realm.number, realm.interface, punt=port, xdp=realm.interface in self._xdp)
                if refused:
                    log(Message.NO_XDP, interface=realm.interface, because=refused)
            else:
                fast.punt(realm.number, port)
        fast.detach_others()
        self._indexes = indexes

    def _interfaces(self) -> dict[str, int]:
        """The interfaces of the realms that there are, with their indexes."""
        wanted = {realm.interface for realm in self._border.realms}
        return {name: index for index, name in socket.if_nameindex() if name in wanted}

    def _follow_interfaces(self) -> None:
        """Attach to an interface that was made anew, as a device is whose lease was lost and had again."""
        self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._follow_interfaces)
        now = self._interfaces()
        anew = sorted(name for name, index in now.items() if self._indexes.get(name) != index)
        wanted = {realm.interface for realm in self._border.realms if realm.interface is not None}
        if self._fast is None or not anew or wanted - now.keys():
            return
        try:
            off_loop(self._attach)(self._fast)
        except PlaneError as error:
            log(Message.PLANE_FAILED, error=str(error))
        else:
            log(Message.INTERFACE_ANEW, interfaces=anew)

    def _follow_devices(self) -> None:
        """Hear of interfaces that move: a device's other end may, to where its program is."""
        if not any(realm.end is End.HOST for realm in self._border.realms):
            return
        try:
            self._links = listen(GROUP_LINK)
        except OSError as error:
            log(Message.PLANE_FAILED, error=f"changes of interfaces: {error.strerror}")
        else:
            asyncio.get_running_loop().add_reader(self._links.fileno(), self._renew_devices, self._links)

    def _renew_devices(self, news: socket.socket) -> None:
        for _ in heard(news, _AT_ONCE):
            pass
        if self._fast is not None:
            self._fast.renew_devices()

    def _follow_routes(self, fast: KernelPlane) -> None:
        """Let the fast path know which destinations go the same way; without that it asks about each."""
        from isthmus.daemon.uniform_routes import UniformRoutes

        over_ipv6 = any(end.address.family is Family.IPV6 for end in self._border.tunnel_ends)
        try:
            self._routes.append(UniformRoutes(fast.groups))
            if over_ipv6:
                self._routes.append(UniformRoutes(fast.groups6))
        except PlaneError as error:
            log(Message.PLANE_FAILED, error=str(error))
        for each in self._routes:
            each.start()

    def _stale(self, standing: Iterable[Register | Bind | Remap]) -> list[Unbind | Deregister]:
        """What the slow path holds and should not."""
        bound = {each.binding.key for each in standing if isinstance(each, Bind)}
        if self._table is not None:
            return [Unbind(key=key, ending=Ending.REVOKED) for key in self._table.own() if key not in bound]
        table = self._slow.reference.table
        known = {each.registration.owner for each in standing if isinstance(each, Register)}
        return [
            *(Unbind(key=key, ending=Ending.REVOKED) for key in [e.binding.key for e in table] if key not in bound),
            *(Deregister(owner=owner, ending=Ending.REVOKED) for owner in sorted(table.registered - known)),
        ]

    def start(self, tell: Callable[[Iterable[Violation]], None], ask: Callable[[Miss], None] | None = None) -> None:
        """Begin to serve ports from within the running event loop.

        Args:
            tell: Hears of violations.
            ask: Hears of packets that wait for an address to be known; see ``process_again``.
        """
        self._tell = tell
        self._ask = ask or self._ask
        self._without_offloads()
        if self._fast is not None:
            asyncio.get_running_loop().add_reader(self._fast.fileno(), self._report)
            self._forget_daily()
            self._follow_interfaces()
            self._follow_devices()
            self._follow_routes(self._fast)
        self._watch()

    @off_loop
    def _without_offloads(self) -> None:
        """Let whole packets come where they are translated: cards must not merge or leave checksums open (spec 2.7)."""
        for realm in self._border.realms:
            if realm.sip is not None and realm.interface is not None:
                self._features.turn_off(realm.interface)

    def process_again(self, miss: Miss) -> None:
        """Decide anew about a packet that has waited; what it waited for has been applied."""
        self._slow.process_again(miss, now=self._clock.now())
        self._after()

    def emit(self, realm: int, packet: bytes) -> None:
        """Send an IPv4 packet of our own into a realm, by the machine's routes."""
        self._slow.emit(realm, packet)

    def _forget_daily(self) -> None:
        """Let the fast path drop peers that were contacted long ago: its epochs come round after three days."""
        if self._fast is not None:
            self._fast.forget_old_contacts()
            self._daily = asyncio.get_running_loop().call_later(DAY_SECONDS, self._forget_daily)

    def _watch(self) -> None:
        """Wait on the ports that there are now."""
        loop = asyncio.get_running_loop()
        ports = {port.fileno(): port for port in self._slow.ports()}
        for descriptor in [each for each in self._watched if self._watched[each] is not ports.get(each)]:
            loop.remove_reader(descriptor)
            del self._watched[descriptor]
        for descriptor, port in ports.items():
            if descriptor not in self._watched:
                self._watched[descriptor] = port
                loop.add_reader(descriptor, self._serve, port)

    def _serve(self, port: Port | NativeSender) -> None:
        self._slow.service(port, now=self._clock.now())
        self._after()

    def _after(self) -> None:
        """What may follow from packets: others to wait on, smaller ways, questions, violations."""
        if len(self._slow.ports()) != len(self._watched):
            self._watch()
        self._narrow()
        for miss in self._slow.misses():
            self._ask(miss)
        self._report()

    def _narrow(self) -> None:
        """Let the fast path know what errors from within tunnels have taught the slow one, as long as that knows it."""
        self._hand_on()
        if self._forgetting is not None:
            return
        expires_at = self._forgets_at()
        if expires_at is not None:
            delay = max(expires_at - self._clock.now(), 0.0)
            self._forgetting = asyncio.get_running_loop().call_later(delay, self._forget)

    def _forgets_at(self) -> float | None:
        """When the next thing that is known of a way is forgotten."""
        now = self._clock.now()
        known = [self._slow.reference.memory.path_mtus.expires_at]
        for _way, each in self._slow.reference.ways(now=now):
            known += [at for at in (each.mtu_until, each.down_until, each.hops_until) if at > now]
        return min((at for at in known if at is not None), default=None)

    def _forget(self) -> None:
        self._forgetting = None
        self._narrow()

    def _hand_on(self) -> None:
        for way, octets in self._slow.reference.path_mtus(now=self._clock.now()):
            try:
                if self._fast is not None:
                    self._fast.limit(way, octets)
            except PlaneError as error:
                log(Message.PLANE_FAILED, error=str(error))
            if octets is not None:
                log(Message.WAY_NARROW, local=str(way.local), remote=str(way.remote), octets=octets)
        for way, each in self._slow.reference.way_changes(now=self._clock.now()):
            found = each or Condition()
            if self._fast is not None:
                self._fast.condition(way, each)
            if found.down is None:
                self._down.pop(way, None)
            elif self._down.get(way) != found.down:
                self._down[way] = found.down
                log(Message.WAY_DOWN, local=str(way.local), remote=str(way.remote), reporter=str(found.down))

    def _report(self) -> None:
        seen = self.events()
        if seen:
            self._tell(seen)

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order; see ``plane.Plane``."""
        effects = tuple(effects)
        if effects:
            self._apply(effects)
            if self._fast is None:
                self._watch()

    @off_loop
    def _apply(self, effects: tuple[Planned, ...]) -> None:
        if self._fast is not None:
            self._fast.apply(effects)
        self._slow.apply(self._left(effects))
        self._forget_idle(effects)
        self._hand_on()

    def _forget_idle(self, effects: tuple[Planned, ...]) -> None:
        """Let the slow path forget ways whose last tunnel may just have ended; there may be very many others."""
        path_mtus = self._slow.reference.memory.path_mtus
        ended = [each for each in effects if isinstance(each, Unbind | Lapse)]
        if not ended or not len(path_mtus):
            return
        bindings = [None if isinstance(each, Lapse) else each.binding for each in ended]
        if None in bindings:
            path_mtus.forget_idle()
        else:
            crossings = (each.crossing for each in bindings if each is not None)
            path_mtus.forget_idle(*(each.way for each in crossings if isinstance(each, Tunnel)))

    @property
    def reference(self) -> ReferencePlane:
        """The plane that decides what the fast path does not."""
        return self._slow.reference

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason; what the fast path punted is counted by what became of it, too."""
        total = dict(self._slow.counters())
        if self._fast is not None:
            for reason, count in self._fast.counters().items():
                total[reason] = total.get(reason, 0) + count
        return total

    def events(self) -> list[Violation]:
        """The violations seen since the last call, oldest first."""
        return [*(self._fast.events() if self._fast is not None else ()), *self._slow.events()]

    def close(self) -> None:
        """Let go; what is pinned goes on forwarding."""
        self._unwatch()
        self._close(everything=False)

    def destroy(self) -> None:
        """Take the plane away: detach, unpin, remove ports and rules."""
        self._unwatch()
        self._close(everything=True)

    @off_loop
    def _close(self, *, everything: bool) -> None:
        if self._fast is not None and everything:
            self._fast.destroy()
        elif self._fast is not None:
            self._fast.close()
        self._slow.close()
        self._features.restore()

    def _unwatch(self) -> None:
        for each in self._routes:
            each.close()
        self._routes.clear()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        for descriptor in self._watched:
            loop.remove_reader(descriptor)
        self._watched.clear()
        if self._links is not None:
            loop.remove_reader(self._links.fileno())
            self._links.close()
            self._links = None
        for timer in (self._daily, self._look, self._forgetting):
            if timer is not None:
                timer.cancel()
        if self._fast is not None:
            loop.remove_reader(self._fast.fileno())
