# SPDX-License-Identifier: BSD-3-Clause
"""The host role: an agent that holds leases and gives them to devices.

It registers, asks for what the configuration, ``isthmus run`` and ``isthmus expose`` want, and keeps it renewed;
``settlement`` makes it real on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending, Peer
from isthmus.daemon import config as configuration
from isthmus.daemon import device as devices
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, HostSection
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.daemon.hostlink import DatagramLink, Link, StreamLink, interface_address
from isthmus.daemon.messages import Message, log
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.settlement import Settlement
from isthmus.daemon.shared_plane import MakePlane
from isthmus.daemon.want import Want, configured, requested, row_of
from isthmus.errors import IsthmusError
from isthmus.rsip.events import (
    Answered,
    Assigned,
    Deregistered,
    Event,
    Extended,
    Freed,
    Lost,
    Refused,
    Registered,
    Warned,
)
from isthmus.rsip.host import Host
from isthmus.rsip.reliability import Retransmission
from isthmus.rsip.states import HostState
from isthmus.wire.rsip.codes import PORT

AGAIN_SECONDS = 2.0
"""How long to wait before asking again a gateway that does not answer, or refuses."""
ACQUIRE_SECONDS = 15.0
_NAME = re.compile(r"(?=.*[^0-9.])[^\s.]+(\.[^\s.]+)*\.?")
"A DNS name; the last label of one is never a number alone (RFC 3696 §2)."
_TUNNELS = {None: (), "ipip": (TunnelKind.IPIP,), "gre": (TunnelKind.GRE,)}


@dataclass(slots=True)
class _Book:
    """Wants and queries by request number."""

    by_request: dict[int, Want] = field(default_factory=dict)
    queries: dict[int, asyncio.Future[Answered]] = field(default_factory=dict)


def _section(config: Config) -> HostSection:
    if config.host is None:
        raise ControlError("the configuration has no [host]")
    return config.host


class HostRole:
    """A host that runs."""

    def __init__(self, config: Config, clock: Clock, *, planes: MakePlane = MachinePlane) -> None:
        """Find our own address and what will carry packets.

        Raises:
            ConfigError: the interface has no address.
            PlaneError: no plane can be had.
        """
        self._section = _section(config)
        self._clock = clock
        self._near = config.realm_number(self._section.near)
        self._interface = config.realm[self._near - 1].interface
        self._gateway = configuration.address(self._section.gateway)
        self._here = interface_address(self._interface, self._section.near, self._gateway)
        self._settlement = Settlement(config, clock, near=self._near, here=self._here, planes=planes)
        stream = self._section.transport == "tcp"
        self._peer = Peer(self._near, self._gateway, self._section.port, int(stream))
        waits = Retransmission(initial_seconds=self._section.first_timeout)
        self._host = Host(gateway=self._peer, retransmission=waits)
        self._tunnel_kinds: tuple[TunnelKind, ...] = _TUNNELS[self._section.tunnel_type]
        self._link: Link | None = None
        self._doorbell: Link | None = None
        self._wake = asyncio.Event()
        self._book = _Book()
        self._registering = False
        self._unregistered: Refused | None = None
        "Why the gateway does not know us."

    @property
    def is_registered(self) -> bool:
        """Whether the gateway knows us."""
        return bool(self._client_id)

    @property
    def _client_id(self) -> int:
        return self._host.client_id or 0

    async def start(self) -> None:
        """Prepare the machine, register, and ask for what the configuration wants."""
        devices.answer_arp_for_own_only(self._interface)
        self._settlement.start()
        if self._peer.connection:
            self._link = StreamLink(self._peer, self._here, self._receive, self._disconnected)
        else:
            self._link = DatagramLink(self._peer, self._here, self._receive)
        await self._link.start()
        await self._listen()
        self._register()
        for each in self._section.lease:
            self._want(configured(each, self._tunnel_kinds))

    async def _listen(self) -> None:
        """Hear at RSIP's own port what the gateway tells a host that it does not know: it may have forgotten us."""
        doorbell = DatagramLink(self._peer, self._here, self._receive, port=PORT)
        with contextlib.suppress(OSError):
            await doorbell.start()
            self._doorbell = doorbell

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._wait()
            self._wake.clear()
            now = self._clock.now()
            self._host.handle_timer(now=now)
            # What is refused without being sent comes of flushing, and what an event makes us ask for needs it.
            self._flush()
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

    def _receive(self, data: bytes, source: Peer) -> None:
        now = self._clock.now()
        if self._peer.connection:
            self._host.receive_message(data, now=now)
        else:
            self._host.receive_datagram(data, source, now=now)
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
        if not self._registering and self._host.state is HostState.UNREGISTERED:
            self._registering = True
            self._host.register()
            self._wake.set()

    def _register_later(self) -> None:
        self._registering = False
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._register)

    def _want(self, want: Want) -> None:
        """Ask for something; registering first, if that is needed."""
        self._register()
        want.request = self._host.wish(want.wish)
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
                self._registering, self._unregistered = False, None
                self._settlement.admit(self._gateway, client_id=event.client_id, expires_at=event.expires_at)
            case Assigned():
                self._assigned(event)
            case Extended():
                self._settlement.extend(event)
            case Answered():
                query = self._book.queries.pop(event.request, None)
                if query is not None and not query.done():
                    query.set_result(event)
            case Lost():
                self._ended(event.bind_id, Ending.REVOKED, again=True)
            case Freed():
                want = self._ended(event.bind_id, event.ending)
                if want is not None and want.stands:
                    self._later(want)
            case Deregistered():
                self._deregistered(event.ending)
            case Refused():
                self._refused(event)
            case Warned():
                log(Message.REFUSED, code=int(event.code), bind_id=event.bind_id)

    def _assigned(self, event: Assigned) -> None:
        want = self._book.by_request.get(event.request)
        if want is None:
            self._host.free(event.bind_id)
            return
        try:
            self._settlement.settle(want, event, client_id=self._client_id)
        except (IsthmusError, OSError, NetlinkError) as error:
            log(Message.PLANE_FAILED, error=str(error))
            self._settlement.evict(event.bind_id, Ending.FREED)
            self._host.free(event.bind_id)
            if want.stands:
                self._later(want)
            else:
                self._fail(want, str(error))
            return
        log(
            Message.LEASED,
            address=str(event.address),
            ports=str(event.ports or ("all" if event.whole else "none")),
            spis=None if event.spis is None else str(event.spis),
            device=want.lives_on,
        )
        if want.answer is not None and not want.answer.done():
            want.answer.set_result(event)
        elif want.holder is not None:
            want.holder.push({"event": "held", "lease": self._row(want)})

    def _ended(self, bind_id: int, ending: Ending, *, again: bool = False) -> Want | None:
        """A binding is over; with ``again`` the state machine asks for the same, under the same request."""
        want = self._settlement.evict(bind_id, ending)
        if want is None:
            return None
        if ending is not Ending.FREED:
            log(Message.LOST, bind_id=bind_id, ending=ending.value)
            if want.holder is not None:
                want.holder.push({"event": "lost", "bind_id": bind_id, "ending": ending.value, "again": again})
        if not again:
            self._book.by_request.pop(want.request, None)
        return want

    def _deregistered(self, ending: Ending) -> None:
        """Nothing is held any more; what the configuration wants is asked for again."""
        for each in self._settlement.wants:
            assert each.held is not None
            want = self._ended(each.held.bind_id, ending)
            if want is not None and want.stands:
                self._later(want)
        self._settlement.dismiss(ending)
        self._register_later()

    def _refused(self, event: Refused) -> None:
        log(Message.REFUSED if event.code else Message.UNREACHABLE, code=event.code, problem=event.problem)
        want, query = self._book.by_request.get(event.request), self._book.queries.pop(event.request, None)
        if query is not None:
            if not query.done():
                query.set_exception(ControlError(self._complaint(event)))
        elif want is None:
            if self._host.client_id is None:
                self._unregistered = event
                self._register_later()
        elif want.stands:
            self._later(want)
        else:
            self._fail(want, self._complaint(event))

    def _complaint(self, event: Refused) -> str:
        """Why a request came to nothing, for who asked."""
        if not self._client_id and self._unregistered is not None:
            event = self._unregistered
        if not event.code or (not self._client_id and self._unregistered is None):
            where = f"the gateway {self._gateway} port {self._section.port}"
            return f"{where} does not answer. Is it running, and does no firewall stand between?"
        return f"the gateway says no: {event.problem}; see 'isthmus explain {int(event.code)}'"

    def _fail(self, want: Want, problem: str) -> None:
        self._book.by_request.pop(want.request, None)
        if want.answer is not None and not want.answer.done():
            want.answer.set_exception(ControlError(problem))

    # --- the control socket ---------------------------------------------------------------

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers; at a gateway too, ``leases`` and ``counters`` are the gateway's."""
        return {
            "acquire": self._acquire,
            "release": self._release,
            "query": self._query,
            "host": self._report,
            "leases": self._leases,
            "counters": self._counters,
        }

    async def _acquire(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        """Lease something for as long as the connection lasts."""
        want = requested(request, connection, self._tunnel_kinds)
        if want.plane_end is not None and not self._settlement.serves_programs:
            raise ControlError(
                "this host's tunnels are the kernel's own, which cannot serve a namespace; write tunnels = \"plane\""
            )
        connection.closing.append(lambda: self._drop(want))
        self._want(want)
        assert want.answer is not None
        await self._patience(want.answer, lambda: self._drop(want))
        return self._row(want)

    async def _patience(self, answer: asyncio.Future[Any], give_up: Any) -> Any:
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                return await answer
        except TimeoutError:
            give_up()
            raise ControlError(f"the gateway {self._gateway} did not answer in {ACQUIRE_SECONDS:.0f} s") from None

    def _drop(self, want: Want) -> None:
        self._book.by_request.pop(want.request, None)
        if want.held is not None:
            bind_id = want.held.bind_id
            self._ended(bind_id, Ending.FREED)
            if bind_id in self._host.bindings:
                self._host.free(bind_id)
        self._wake.set()

    async def _release(self, request: dict[str, Any], _connection: Connection) -> None:
        want = self._settlement.get(int(request["bind_id"]))
        if want is None:
            raise ControlError(f"bind ID {request['bind_id']} is not held here")
        self._drop(want)

    async def _query(self, request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        """Ask the gateway what is local (RFC 3103 §9.14)."""
        addresses, networks, names = _sorted_out([str(each) for each in request.get("what", ())])
        self._register()
        number = self._host.query(addresses=addresses, networks=networks, names=names)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._book.queries[number] = future
        self._wake.set()
        answered: Answered = await self._patience(future, lambda: self._book.queries.pop(number, None))
        asked: list[Address | Prefix | str] = [*addresses, *networks, *names]
        return {
            "asked": [{"what": str(each), "local": answered.is_local(each)} for each in asked],
            "answered": [{"what": str(each.what), "local": each.is_local} for each in answered.places],
        }

    async def _leases(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return [self._row(want) for want in self._settlement.wants]

    async def _report(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        return {
            "gateway": str(self._gateway),
            "client_id": self._client_id,
            "registered": bool(self._client_id),
            "plane": self._settlement.kind,
            "control_port": self._link.local_port if self._link is not None else None,
            "ignored": dict(self._host.ignored),
            "leases": await self._leases(request, connection),
        }

    async def _counters(self, _request: dict[str, Any], _connection: Connection) -> dict[str, int]:
        ignored = {f"ignored: {why}": count for why, count in self._host.ignored.items()}
        return {**self._settlement.counters(), **ignored}

    def _row(self, want: Want) -> dict[str, Any]:
        return row_of(want, client_id=self._client_id, host=self._here)

    def stop(self) -> None:
        """Deregister as well as a last datagram can, and take everything away."""
        if self._client_id:
            self._host.deregister()
            self._flush()
        if self._link is not None:
            self._link.stop()
        if self._doorbell is not None:
            self._doorbell.stop()
        self._settlement.stop()


def _sorted_out(what: list[str]) -> tuple[list[Address], list[Prefix], list[str]]:
    """Addresses, networks and names."""
    addresses: list[Address] = []
    networks: list[Prefix] = []
    names: list[str] = []
    for each in what:
        try:
            if "/" in each:
                networks.append(Prefix.parse(each))
            else:
                addresses.append(Address.parse(each))
        except ValueError as error:
            if "/" in each:
                raise ControlError(f"{each} is no network: {error}") from error
            if not _NAME.fullmatch(each):
                raise ControlError(f"{each!r} is no address, no network and no name") from error
            names.append(each)
        else:
            if networks and networks[-1].address.family is not Family.IPV4:
                raise ControlError(f"{each}: RSIP can ask about IPv4 networks only (RFC 3103 section 8.1)")
    return addresses, networks, names
