# SPDX-License-Identifier: BSD-3-Clause
"""The host role: an agent that holds leases and gives them to devices.

It registers, asks for what the configuration and ``isthmus run`` want, keeps it renewed,
and keeps the host plane and the devices in step: a binding is programmed before its device
gets the address, and the device loses the address before the binding is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.crossing import Tunnel, overhead
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Peer, Register, Unbind
from isthmus.border.ranges import Ranges, merge
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Kind, Remote, Selector
from isthmus.daemon import config as configuration
from isthmus.daemon import device as devices
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, HostLeaseSection, HostSection
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.daemon.ephemeral import MachinePorts
from isthmus.daemon.hostlink import DatagramLink, Link, StreamLink, interface_address, interface_mtu
from isthmus.daemon.messages import Message, log
from isthmus.daemon.planes import MachinePlane
from isthmus.errors import ConfigError, IsthmusError
from isthmus.plane import Programmable
from isthmus.rsip.events import Assigned, Deregistered, Event, Extended, Freed, Lost, Refused, Registered, Warned
from isthmus.rsip.host import Host
from isthmus.rsip.reliability import Retransmission
from isthmus.wire.rsip.codes import PORT

LEASED_REALM = 1 << 16
"""Number of the realm that leased addresses belong to; those of the file count from 1."""
AGAIN_SECONDS = 2.0
"""How long to wait before asking again a gateway that does not answer, or refuses."""
ACQUIRE_SECONDS = 15.0


@dataclass(slots=True, kw_only=True)
class Want:
    """Something that somebody wants to hold, and what is held of it."""

    ports: int | Ranges | None
    "None: a whole address."
    address: Address | None
    device: str
    "The plane's end."
    seconds: int | None = None
    routes: tuple[Prefix, ...] = ()
    ephemeral: bool = False
    "Whether the machine's programs draw their ports from it."
    own_device: devices.Device | None = None
    "The device, where the configuration asked for one; ``isthmus run`` brings its own."
    answer: asyncio.Future[Assigned] | None = None
    "Who waits for the first answer."
    holder: Connection | None = None
    held: Assigned | None = None
    since: float = 0.0
    "Seconds since 1970, when it was first held."
    request: int = 0


@dataclass(slots=True)
class _Book:
    """Wants by request number and by bind ID."""

    by_request: dict[int, Want] = field(default_factory=dict)
    by_bind: dict[int, Want] = field(default_factory=dict)


def border(config: Config, here: Address) -> Border:
    """What a host's plane must know."""
    section = _section(config)
    near = config.realm_number(section.near)
    realms = [
        Realm(number=config.realm_number(each.name), name=each.name, interface=each.interface) for each in config.realm
    ]
    realms.append(Realm(number=LEASED_REALM, name="leased", end=End.HOST))
    return Border(realms=tuple(realms), tunnel_ends=(TunnelEnd(realm=near, address=here, leads_to=LEASED_REALM),))


def _section(config: Config) -> HostSection:
    if config.host is None:
        raise ControlError("the configuration has no [host]")
    return config.host


class HostRole:
    """A host that runs."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Find our own address and open the plane.

        Raises:
            ConfigError: the interface has no address.
            PlaneError: no plane can be had.
        """
        self._section = _section(config)
        self._clock = clock
        self._near = config.realm_number(self._section.near)
        self._interface = config.realm[self._near - 1].interface
        self._gateway = configuration.address(self._section.gateway)
        self._here = interface_address(self._interface, self._section.near)
        self._plane = MachinePlane(config, border(config, self._here), clock)
        stream = self._section.transport == "tcp"
        self._peer = Peer(self._near, self._gateway, self._section.port, int(stream))
        waits = Retransmission(initial_seconds=self._section.first_timeout)
        self._host = Host(gateway=self._peer, retransmission=waits)
        self._ports = MachinePorts(config.isthmus.run / f"{config.isthmus.name}.ports")
        self._link: Link | None = None
        self._doorbell: Link | None = None
        self._wake = asyncio.Event()
        self._book = _Book()
        self._client_id = 0
        self._registering = False

    @property
    def _owner(self) -> Owner:
        return Owner(self._near, self._gateway)

    async def start(self) -> None:
        """Prepare the machine, register, and ask for what the configuration wants."""
        devices.answer_arp_for_own_only(self._interface)
        self._plane.reconcile(())
        self._plane.start(lambda _violations: None)
        if self._peer.connection:
            self._link = StreamLink(self._peer, self._here, self._receive, self._disconnected)
        else:
            self._link = DatagramLink(self._peer, self._here, self._receive)
        await self._link.start()
        await self._listen()
        self._register()
        for each in self._section.lease:
            self._want(self._configured(each))

    async def _listen(self) -> None:
        """Hear at RSIP's own port what the gateway tells a host that it does not know: it may have forgotten us."""
        doorbell = DatagramLink(self._peer, self._here, self._receive, port=PORT)
        with contextlib.suppress(OSError):
            await doorbell.start()
            self._doorbell = doorbell

    def _configured(self, lease: HostLeaseSection) -> Want:
        device = devices.create(lease.device, mtu=self._tunnel_mtu())
        address = None if lease.address in (None, "any") else Address.parse(str(lease.address))
        return Want(
            ports=None if lease.whole else lease.ports,
            address=address,
            device=device.plane_end,
            seconds=lease.seconds,
            ephemeral=lease.ephemeral,
            routes=tuple(configuration.prefix(each) for each in lease.routes),
            own_device=device,
        )

    def _tunnel_mtu(self) -> int:
        return interface_mtu(self._interface) - 20

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._wait()
            self._wake.clear()
            now = self._clock.now()
            self._host.handle_timer(now=now)
            while (event := self._host.next_event()) is not None:
                self._handle(event)
            self._flush()

    async def _wait(self) -> None:
        timer = self._host.get_timer()
        seconds = None if timer is None else max(0.0, timer - self._clock.now())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _receive(self, data: bytes) -> None:
        now = self._clock.now()
        if self._peer.connection:
            self._host.receive_message(data, now=now)
        else:
            self._host.receive_datagram(data, self._peer, now=now)
        self._wake.set()

    def _disconnected(self) -> None:
        self._host.connection_lost(now=self._clock.now())
        self._wake.set()

    def _flush(self) -> None:
        for data in self._host.datagrams_to_send(now=self._clock.now()):
            if self._link is not None:
                self._link.send(data)

    # --- asking ---------------------------------------------------------------------------

    def _register(self) -> None:
        if not self._registering and not self._client_id:
            self._registering = True
            self._host.register()
            self._wake.set()

    def _want(self, want: Want) -> None:
        """Ask for something; registering first, if that is needed."""
        self._register()
        if want.ports is None:
            want.request = self._host.assign_address(want.address, lease_seconds=want.seconds)
        else:
            want.request = self._host.assign_ports(want.ports, address=want.address, lease_seconds=want.seconds)
        self._book.by_request[want.request] = want
        self._wake.set()

    def _later(self, want: Want) -> None:
        """Ask again for what the configuration wants."""
        self._book.by_request.pop(want.request, None)
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._want, want)

    # --- what the gateway said ------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case Registered():
                self._registering, self._client_id = False, event.client_id
                registration = Registration(owner=self._owner, client_id=event.client_id, expires_at=event.expires_at)
                self._program(Register(registration=registration))
            case Assigned():
                self._assigned(event)
            case Extended():
                self._extended(event)
            case Lost():
                self._ended(event.bind_id, Ending.REVOKED)
            case Freed():
                want = self._ended(event.bind_id, event.ending)
                if want is not None and want.own_device is not None:
                    self._later(want)
            case Deregistered():
                self._deregistered()
            case Refused():
                self._refused(event)
            case Warned():
                log(Message.REFUSED, code=int(event.code), bind_id=event.bind_id)

    def _assigned(self, event: Assigned) -> None:
        want = self._book.by_request.get(event.request)
        if want is None:
            self._host.free(event.bind_id)
            return
        want.held, want.since = event, self._clock.now()
        self._book.by_bind[event.bind_id] = want
        binding = self._binding(event, want)
        lease = Lease(
            client_id=self._client_id, method=event.method, granted_at=self._clock.now(), expires_at=event.expires_at
        )
        try:
            self._program(Bind(binding=binding, lease=lease))
            if want.own_device is not None:
                devices.configure(want.own_device, event.address, want.routes, mtu=binding.crossing.mtu)
                self._draw_ports()
        except (IsthmusError, OSError) as error:
            log(Message.PLANE_FAILED, error=str(error))
            self._fail(want, str(error))
            self._host.free(event.bind_id)
            return
        log(Message.LEASED, address=str(event.address), ports=str(event.ports or "all"), device=want.device)
        if want.answer is not None and not want.answer.done():
            want.answer.set_result(event)

    def _draw_ports(self) -> None:
        """Let this machine's programs draw from what it holds for them."""
        held = [want.held.ports for want in self._book.by_bind.values() if want.ephemeral and want.held is not None]
        self._ports.draw_from(merge(each for each in held if each is not None))

    def _binding(self, event: Assigned, want: Want) -> Binding:
        local = Prefix.of(event.address)
        remote = Remote(
            network=None if event.remote_address is None else Prefix.of(event.remote_address), port=event.remote_port
        )
        if event.ports is None:
            selector = Selector(realm=LEASED_REALM, local=local, remote=remote)
        else:
            selector = Selector(realm=LEASED_REALM, local=local, kind=Kind.PORT, values=event.ports, remote=remote)
        mtu = interface_mtu(self._interface) - overhead(event.tunnel_kind, self._here.family)
        tunnel = Tunnel(
            realm=self._near, local=self._here, remote=event.tunnel_endpoint, kind=event.tunnel_kind, mtu=mtu
        )
        return Binding(
            key=BindingKey(self._owner, event.bind_id), selectors=(selector,), crossing=tunnel, device=want.device
        )

    def _extended(self, event: Extended) -> None:
        self._program(Extend(key=BindingKey(self._owner, event.bind_id), expires_at=event.expires_at))

    def _ended(self, bind_id: int, ending: Ending) -> Want | None:
        """A binding is over. What the gateway forgot the state machine asks for again, under the same request."""
        want = self._book.by_bind.pop(bind_id, None)
        self._program(Unbind(key=BindingKey(self._owner, bind_id), ending=ending))
        if want is None:
            return None
        want.held = None
        if want.ephemeral:
            self._draw_ports()
        if ending is not Ending.FREED:
            log(Message.LOST, bind_id=bind_id, ending=ending.value)
            if want.holder is not None:
                want.holder.push({"event": "lost", "bind_id": bind_id, "ending": ending.value})
        return want

    def _deregistered(self) -> None:
        self._client_id, self._registering = 0, False
        self._program(Deregister(owner=self._owner, ending=Ending.EXPIRED))
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._register)

    def _refused(self, event: Refused) -> None:
        want = self._book.by_request.get(event.request)
        log(Message.REFUSED if event.code else Message.UNREACHABLE, code=event.code, problem=event.problem)
        if self._registering and want is None:
            self._registering = False
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._register)
        elif want is not None and want.own_device is not None:
            self._later(want)
        elif want is not None:
            self._fail(want, self._complaint(event))

    def _complaint(self, event: Refused) -> str:
        """Why a request came to nothing, for who asked."""
        if not self._client_id or not event.code:
            where = f"the gateway {self._gateway} port {self._section.port}"
            return f"{where} does not answer: {event.problem}. Is it running, and does no firewall stand between?"
        return f"the gateway says no: {event.problem}; see 'isthmus explain {int(event.code)}'"

    def _fail(self, want: Want, problem: str) -> None:
        self._book.by_request.pop(want.request, None)
        if want.answer is not None and not want.answer.done():
            want.answer.set_exception(ControlError(problem))

    def _program(self, effect: Programmable) -> None:
        self._plane.apply((effect,))

    # --- the control socket ---------------------------------------------------------------

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers; at a gateway too, ``leases`` and ``counters`` are the gateway's."""
        return {
            "acquire": self._acquire,
            "release": self._release,
            "host": self._report,
            "leases": self._leases,
            "counters": self._counters,
        }

    async def _acquire(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        """Lease something for as long as the connection lasts."""
        want = Want(
            ports=None if request.get("whole") else _count_or_ports(request["ports"]),
            address=Address.parse(request["address"]) if request.get("address") else None,
            device=str(request["device"]),
            seconds=request.get("seconds"),
            answer=asyncio.get_running_loop().create_future(),
            holder=connection,
        )
        connection.closing.append(lambda: self._drop(want))
        self._want(want)
        assert want.answer is not None
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                held = await want.answer
        except TimeoutError:
            self._drop(want)
            raise ControlError(f"the gateway {self._gateway} did not answer in {ACQUIRE_SECONDS:.0f} s") from None
        return self._row(held, want)

    def _drop(self, want: Want) -> None:
        self._book.by_request.pop(want.request, None)
        if want.held is not None:
            bind_id = want.held.bind_id
            self._ended(bind_id, Ending.FREED)
            if bind_id in self._host.bindings:
                self._host.free(bind_id)
        self._wake.set()

    async def _release(self, request: dict[str, Any], _connection: Connection) -> None:
        want = self._book.by_bind.get(int(request["bind_id"]))
        if want is None:
            raise ControlError(f"bind ID {request['bind_id']} is not held here")
        self._drop(want)

    async def _leases(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return [self._row(want.held, want) for want in self._book.by_bind.values() if want.held is not None]

    async def _report(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        return {
            "gateway": str(self._gateway),
            "client_id": self._client_id,
            "registered": bool(self._client_id),
            "plane": self._plane.kind,
            "control_port": self._link.local_port if self._link is not None else None,
            "leases": await self._leases(request, connection),
        }

    async def _counters(self, _request: dict[str, Any], _connection: Connection) -> dict[str, int]:
        return {reason.name: count for reason, count in self._plane.counters().items()}

    def _row(self, held: Assigned, want: Want) -> dict[str, Any]:
        return {
            "client_id": self._client_id,
            "host": str(self._here),
            "bind_id": held.bind_id,
            "address": str(held.address),
            "ports": str(held.ports) if held.ports is not None else None,
            "spis": None,
            "method": held.method.name,
            "tunnel": held.tunnel_kind.name,
            "mtu": interface_mtu(self._interface) - overhead(held.tunnel_kind, self._here.family),
            "granted_at": want.since,
            "expires_at": held.expires_at,
            "device": want.device,
        }

    def stop(self) -> None:
        """Deregister as well as a last datagram can, and take everything away."""
        if self._client_id:
            self._host.deregister()
            self._flush()
        if self._link is not None:
            self._link.stop()
        if self._doorbell is not None:
            self._doorbell.stop()
        self._plane.destroy()
        self._ports.restore()
        wants = {id(want): want for want in (*self._book.by_request.values(), *self._book.by_bind.values())}
        for want in wants.values():
            if want.own_device is not None:
                devices.remove(want.own_device)


def _count_or_ports(value: object) -> int | Ranges:
    try:
        return value if isinstance(value, int) else Ranges.parse(str(value))
    except ValueError:
        raise ConfigError("request", key="ports", reason=f"{value!r} is neither a number nor a list of ports") from None
