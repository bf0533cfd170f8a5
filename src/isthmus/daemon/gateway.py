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
from isthmus.daemon.driver import GatewayDriver
from isthmus.daemon.endpoint import DatagramEndpoint, StreamEndpoint
from isthmus.daemon.membership import Members
from isthmus.daemon.messages import Message, log
from isthmus.daemon.multicast import Legs, MulticastProxy
from isthmus.daemon.occupancy import occupy_store
from isthmus.daemon.parent import Parent
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.remote_plane import RemotePlane
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
from isthmus.errors import PlaneError
from isthmus.rsip.gateway import Gateway
from isthmus.store import LeaseStore, open_store

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
            self._store: LeaseStore = open_store(config.isthmus.state)
            self._occupied = contextlib.ExitStack()
            undo.callback(self._close_store)
            self._occupied.enter_context(occupy_store(self._store))
            self._plane = self._make_plane(planes)
            undo.callback(self._plane.destroy)
            self._driver = GatewayDriver(
                make_gateway=self._make_gateway, store=self._store, plane=self._plane, clock=clock, send=self._send
            )
            undo.callback(self._driver.stop)
            self._datagrams: dict[Family, DatagramEndpoint] = {}
            self._streams: dict[Family, StreamEndpoint] = {}
            for here in control_addresses(config):
                self._open_sockets(here)
            self._announcer = Announcer(config, self._store.leases)
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
        self._datagrams[here.family] = DatagramEndpoint(self._near, here, port, self._driver.datagram)
        self._streams[here.family] = StreamEndpoint(
            self._near, here, port, deliver=self._driver.message, broken=self._driver.broken, lost=self._driver.lost
        )

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
            pool=pool(config),
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

    async def start(self) -> None:
        """Take up what the store holds, then serve: nobody is answered before the plane is right."""
        if self._parent is not None:
            await self._parent.start()
        self._plane.reconcile(self._driver.restore())
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
        for key in self._driver.gateway.holders(address):
            self._driver.gateway.revoke(key, now=self._clock.now())
        self._driver.nudge()

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
            "bindings": len(self._store.leases()),
            "batches": self._driver.batches,
            "granted": self._driver.granted,
            "now": self._clock.now(),
        }

    async def _leases(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
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
        gateway, now = self._driver.gateway, self._clock.now()
        address, port, bind_id = Address.parse(request["host"]), request.get("port"), request.get("bind_id")
        owner = Owner(self._near, address)
        if bind_id is not None:
            keys: tuple[BindingKey, ...] = (BindingKey(owner, int(bind_id)),)
        else:
            keys = gateway.holders(address, port=port)
        if port is None and bind_id is None:
            held = [str(each.binding.key) for each in self._store.leases() if each.binding.key.owner == owner]
            if gateway.dismiss(owner, now=now):
                self._driver.nudge()
                return {"bindings": held, "registration": str(owner)}
            if len({each.owner for each in keys}) > 1:
                raise ControlError(f"several hosts hold ports of {address}: name one, {address}:PORT")
        ended = [str(key) for key in keys if gateway.revoke(key, now=now)]
        if not ended:
            what = f"binding {owner}#{bind_id}" if bind_id is not None else f"{address}{f':{port}' if port else ''}"
            raise ControlError(
                f"nobody holds {what}"
                + (", and no host registered from there" if port is None and bind_id is None else "")
            )
        self._driver.nudge()
        return {"bindings": ended, "registration": None}
