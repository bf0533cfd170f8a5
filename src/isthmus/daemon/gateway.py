# SPDX-License-Identifier: BSD-3-Clause
"""The gateway role: a configuration becomes a pool, a policy, a store, a plane and sockets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from isthmus.address import Address, Family
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Peer
from isthmus.daemon import nat
from isthmus.daemon.arp import Attraction
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, prefix
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.daemon.discovery.announcer import Announcer
from isthmus.daemon.discovery.load import leased_share
from isthmus.daemon.driver import GatewayDriver
from isthmus.daemon.endpoint import DatagramEndpoint, StreamEndpoint
from isthmus.daemon.membership import Members
from isthmus.daemon.messages import Message, log
from isthmus.daemon.multicast import Legs, MulticastProxy
from isthmus.daemon.occupancy import occupy_store
from isthmus.daemon.parent import Parent
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.recall import HOSTS_AT_HAND
from isthmus.daemon.remote_plane import RemotePlane
from isthmus.daemon.restored import ReadAhead, give_back_memory
from isthmus.daemon.rows import lease_row, tenure_row
from isthmus.daemon.shared_plane import MakePlane, RolePlane
from isthmus.daemon.terms import (
    border,
    control_addresses,
    interface_of,
    link_mtu,
    policy,
    pool,
    pooled,
    section,
    seed,
    tunnel_ends,
)
from isthmus.errors import PlaneError, StoreError
from isthmus.rsip.ended import Farewells
from isthmus.rsip.gateway import Gateway
from isthmus.store import DEPARTED_SECONDS, LeaseStore, open_store

LEASES_AT_ONCE = 1000
"""How many leases one answer of the control socket has at the most, since the hosts wait meanwhile."""

__all__ = ["GatewayRole", "border", "policy", "pool"]


class GatewayRole:
    """A gateway that runs."""

    def __init__(self, config: Config, clock: Clock, *, planes: MakePlane = MachinePlane) -> None:
        """Open the store, the plane and the sockets.

        Raises:
            StoreError, PlaneError, ConfigError: one of them cannot be had; the others are let go again.
        """
        self._config = config
        self._section = section(config)
        self._clock = clock
        self._near = config.realm_number(self._section.near)
        wanted = self._section.parent
        self._parent = None if wanted is None else Parent(wanted.socket, pool(config).claims, clock)
        with contextlib.ExitStack() as undo:
            self._store: LeaseStore = open_store(config.isthmus.state, apart=True)
            self._occupied = contextlib.ExitStack()
            undo.callback(self._close_store)
            self._occupied.enter_context(occupy_store(self._store))
            self._place_key = self._store.place_key()
            since = clock.now() - max(self._section.rest, DEPARTED_SECONDS)
            ahead = ReadAhead(self._store, since=since, keep=HOSTS_AT_HAND)
            self._plane = self._make_plane(planes)
            undo.callback(self._plane.destroy)
            self._driver = GatewayDriver(
                make_gateway=self._make_gateway,
                store=self._store,
                plane=self._plane,
                clock=clock,
                send=self._send,
                say=self._say,
                ahead=ahead,
            )
            undo.callback(self._driver.stop)
            self._datagrams: dict[Family, DatagramEndpoint] = {}
            self._streams: dict[Family, StreamEndpoint] = {}
            for here in control_addresses(config):
                self._open_sockets(here)
            self._announcer = Announcer(config, self._load)
            self._attraction = self._make_attraction()
            self._multicast = self._make_multicast()
            undo.pop_all()

    def _make_plane(self, planes: MakePlane) -> RolePlane | RemotePlane:
        if self._section.endpoint is not None:
            return RemotePlane(self._section.endpoint, border(self._config))
        return planes(self._config, border(self._config), self._clock)

    def _open_sockets(self, here: Address) -> None:
        port = self._section.port
        # UDP is listened on even where it is not offered, to be answered with 102 USE_TCP (RFC 3103 §14).
        self._datagrams[here.family] = DatagramEndpoint(self._near, here, port, self._driver.datagrams)
        self._streams[here.family] = StreamEndpoint(
            self._near, here, port, deliver=self._driver.message, broken=self._driver.broken, lost=self._driver.lost
        )

    def _load(self) -> int:
        """The leased share of the pool; of very many leases what the pool cannot give at present."""
        if self._store.held_count() <= LEASES_AT_ONCE:
            return leased_share(self._section, self._store.leases())
        return self._driver.gateway.leased_share()

    def _make_attraction(self) -> Attraction | None:
        if self._section.attract == "none" or self._section.endpoint is not None:
            return None
        socket = str(self._config.control_socket)
        return Attraction(interface_of(self._config, self._section.realm), pooled(self._config), socket, self._clock)

    def _make_multicast(self) -> MulticastProxy | None:
        wanted = self._section.multicast
        if wanted is None:
            return None
        far = self._section.realm
        number = self._config.realm_number(far)
        port = None if isinstance(self._plane, RemotePlane) else self._plane.port_name(number)
        return MulticastProxy(
            Legs(near=interface_of(self._config, self._section.near), far=interface_of(self._config, far), port=port),
            own=min(control_addresses(self._config), key=lambda each: each.family.bits),
            leased=pooled(self._config),
            members=Members(map(prefix, wanted.groups), query_seconds=wanted.query_seconds),
            query_seconds=wanted.query_seconds,
            now=self._clock.now,
        )

    def _make_gateway(self) -> Gateway:
        config = self._config
        return Gateway(
            realm_near=self._near,
            realm=config.realm_number(self._section.realm),
            tunnel_ends=tunnel_ends(config),
            pool=pool(config, self._place_key),
            policy=policy(config),
            link_mtu=link_mtu(config),
            gre_checksum=self._section.gre_checksum,
            seed=seed(config),
            lease_ceiling=None if self._parent is None else self._parent.until,
        )

    def _send(self, data: bytes, peer: Peer) -> None:
        if peer.connection:
            self._streams[peer.address.family].send(data, peer)
        elif peer.address.family in self._datagrams:
            self._datagrams[peer.address.family].send(data, peer)

    def _say(self, farewells: Farewells) -> None:
        if Family.IPV4 in self._datagrams:
            self._datagrams[Family.IPV4].say(farewells)

    async def start(self) -> None:
        """Take up what the store holds, then serve: nobody is answered before the plane is right."""
        if self._parent is not None:
            await self._parent.start()
        self._driver.restore().reconcile(self._plane)
        give_back_memory()
        self._plane.start(self._driver.violations)
        self._start_surroundings()
        for each in self._datagrams.values():
            each.start()
        for stream in self._streams.values():
            await stream.start()
        await self._announcer.start()

    def _start_surroundings(self) -> None:
        """What is beside the plane: hosts without RSIP, the neighbours on the far link, groups."""
        if self._section.nat is not None and self._section.endpoint is None:
            nat.apply(self._config)
            log(Message.NAT_APPLIED, table=nat.table_name(self._config))
        if self._attraction is not None:
            self._attraction.start()
        if self._multicast is not None:
            self._multicast.start()

    async def run(self) -> None:
        """Serve until cancelled."""
        parent = () if self._parent is None else (self._parent.run(self._taken_back),)
        await asyncio.gather(self._driver.run(), self._look_around(), *parent)

    async def _look_around(self) -> None:
        """Say once who else may use what is leased; nobody waits for it."""
        if self._section.endpoint is None:
            for fault in await asyncio.to_thread(nat.faults_found, self._config):
                log(Message.NAT_WRONG, what=fault.what, remedy=fault.remedy)

    def _taken_back(self, address: Address) -> None:
        """The parent has ended its lease of an address: nobody behind us has any of it."""
        try:
            self._driver.revoke(self._driver.holders(address))
        except StoreError as error:
            log(Message.STORE_FAILED, error=str(error))

    def stop(self) -> None:
        """Stop serving and take the plane away."""
        self._announcer.stop()
        for each in self._datagrams.values():
            each.stop()
        for stream in self._streams.values():
            stream.stop()
        self._driver.stop()
        if self._multicast is not None:
            self._multicast.stop()
        if self._attraction is not None:
            self._attraction.stop()
        if self._section.nat is not None and self._section.endpoint is None:
            with contextlib.suppress(PlaneError):
                nat.remove(self._config)
        self._plane.destroy()
        self._close_store()

    def _close_store(self) -> None:
        self._store.close()
        self._occupied.close()

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers."""
        return {
            "status": self._status,
            "leases": self._leases,
            "who-had": self._who_had,
            "counters": self._counters,
            "revoke": self._revoke,
            "multicast": self._groups,
        }

    async def _status(self, _request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        return {
            "role": "gateway",
            "plane": self._plane.kind,
            "bindings": self._store.held_count(),
            "batches": self._driver.batches,
            "granted": self._driver.granted,
            "now": self._clock.now(),
        }

    async def _leases(self, request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        """A page, by "after" (host and Bind ID) and "limit", or everything if that is not very much."""
        limit = request.get("limit")
        if limit is not None:
            after = request.get("after")
            key = None if after is None else BindingKey(Owner(self._near, Address.parse(after[0])), int(after[1]))
            return [lease_row(each) for each in self._store.page(after=key, limit=min(int(limit), LEASES_AT_ONCE))]
        if self._store.held_count() > LEASES_AT_ONCE:
            raise ControlError(f'more than {LEASES_AT_ONCE} leases: ask for pages, with "limit" and "after"')
        return [lease_row(each) for each in self._store.leases()]

    async def _who_had(self, request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        address = Address.parse(request["address"])
        now = self._clock.now()
        tenures = self._store.who_had(address, port=request.get("port"), at=request.get("at"), now=now)
        return [tenure_row(each) for each in tenures]

    async def _counters(self, _request: dict[str, Any], _connection: Connection) -> dict[str, int]:
        packets = {reason.name: count for reason, count in self._plane.counters().items()}
        refused = sorted((why if isinstance(why, str) else why.name, n) for why, n in self._driver.refusals.items())
        return packets | {f"refused: {why}": count for why, count in refused}

    async def _groups(self, _request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        if self._multicast is None:
            raise ControlError("the configuration has no [gateway.multicast]")
        members = {str(group): list(map(str, hosts)) for group, hosts in self._multicast.members}
        routes = [
            {"source": str(source), "group": str(group), "to": list(goes_to)}
            for source, group, goes_to in self._multicast.routes
        ]
        return {"members": members, "routes": routes}

    async def _revoke(self, request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        """End one binding, or what holds an address and port, or all that a host has and its registration."""
        driver = self._driver
        address, port, bind_id = Address.parse(request["host"]), request.get("port"), request.get("bind_id")
        owner = Owner(self._near, address)
        keys = (BindingKey(owner, int(bind_id)),) if bind_id is not None else driver.holders(address, port)
        if port is None and bind_id is None:
            held = [str(key) for key in driver.held_by(owner)]
            if driver.dismiss(owner):
                return {"bindings": held, "registration": str(owner)}
            if len({each.owner for each in keys}) > 1:
                raise ControlError(f"several hosts hold ports of {address}: name one, {address}:PORT")
        ended = [str(key) for key in driver.revoke(keys)]
        if not ended:
            what = f"binding {owner}#{bind_id}" if bind_id is not None else f"{address}{f':{port}' if port else ''}"
            raise ControlError(
                f"nobody holds {what}"
                + (", and no host registered from there" if port is None and bind_id is None else "")
            )
        return {"bindings": ended, "registration": None}
