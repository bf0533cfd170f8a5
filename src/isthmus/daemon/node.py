# SPDX-License-Identifier: BSD-3-Clause
"""The node role: a host that speaks SIP, for programs that do not know of it (seed IPAE 6.1, 6.2; spec 8)."""

from __future__ import annotations

import asyncio
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.verdict import Miss, Reason
from isthmus.daemon import config as configuration
from isthmus.daemon import sip_device
from isthmus.daemon.alias_file import AliasFile
from isthmus.daemon.arp import Attraction
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, DnsSection
from isthmus.daemon.control import Connection, Handler
from isthmus.daemon.ipv4_refusal import Ipv4Refusal
from isthmus.daemon.messages import Message, log
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.shared_plane import MakePlane, RolePlane
from isthmus.daemon.sip_device import SipDevice
from isthmus.daemon.sip_rows import alias_rows, route_rows, way_rows
from isthmus.daemon.sip_terms import Surroundings, alias_pools, device_mtu, node
from isthmus.daemon.synthesis_server import ServerLimits, SynthesisServer, Upstream
from isthmus.daemon.waiting import Aliases
from isthmus.ipae.border_router import standing
from isthmus.ipae.synthesis import Synthesiser, SynthesisPolicy


class NodeRole:
    """A host that runs."""

    def __init__(self, config: Config, clock: Clock, *, planes: MakePlane = MachinePlane) -> None:
        """Make the device and open the plane.

        Raises:
            PlaneError, ConfigError: one cannot be had, or the machine lacks what the file names.
        """
        assert config.node is not None
        self._config = config
        self._section = config.node
        self._clock = clock
        around = Surroundings.of(config)
        self._addresses = [each.address for each in around.addresses[self._section.near]]
        self._networks = tuple(each.network for each in around.addresses[self._section.near])
        pools = () if self._section.alias is None else tuple(map(configuration.prefix, self._section.alias.pools))
        self._device = SipDevice(
            name=self._section.device,
            mtu=device_mtu(config, around),
            address=self._section.address,
            sockets=self._section.programs if self._section.sockets == "ipv6" else None,
            aliases=(*pools, *(Prefix.of(each.low) for each in self._section.peers)),
        )
        self._terms = node(config, around, self._device.plane_end)
        # A role that comes after this one may be for programs behind the device, as RSIP for a SIP-only host is.
        sip_device.create(self._device)
        self._plane = self._open_plane(planes)
        self._aliases = Aliases(alias_pools(config), self._plane, clock, AliasFile(config.alias_file))
        self._attraction = self._responder()
        self._refusal = self._refuser()
        self._server: SynthesisServer | None = None

    def _open_plane(self, planes: MakePlane) -> RolePlane:
        try:
            return planes(self._config, self._terms.border, self._clock)
        except BaseException:
            sip_device.remove(self._device)
            raise

    def _responder(self) -> Attraction | None:
        """What answers ARP for our low 32 bits where the interface does not have them (RFC 8507 §8.4)."""
        low = self._section.address.low
        if low in self._addresses or self._section.profile != "sip-only":
            return None
        return Attraction(
            self._interface, [Prefix.of(low)], str(self._config.control_socket), self._clock, anywhere=True
        )

    @property
    def _interface(self) -> str:
        return self._config.realm[self._config.realm_number(self._section.near) - 1].interface

    def _refuser(self) -> Ipv4Refusal | None:
        if self._section.profile != "sip-only":
            return None
        return Ipv4Refusal(self._config.isthmus.name, self._interface)

    # --- the run of the daemon -----------------------------------------------------------

    async def start(self) -> None:
        """Let packets flow.

        Raises:
            IsthmusError: the plane or the DNS server cannot be had.
        """
        now = self._clock.now()
        fixed = () if self._section.alias is None else self._aliases.fix(self._section.alias.pairs)
        bound = [standing(each, now=now) for each in (*self._terms.bindings, *fixed)]
        self._plane.reconcile((*bound, *self._aliases.restore()))
        self._plane.start(lambda _violations: None, self._missed)
        if self._refusal is not None:
            self._refusal.start()
        if self._attraction is not None:
            self._attraction.start()
        if self._section.dns is not None:
            await self._start_dns(self._section.dns)

    def _missed(self, miss: Miss) -> None:
        self._aliases.miss(miss)

    async def _start_dns(self, wanted: DnsSection) -> None:
        policy = SynthesisPolicy(site=self._section.address.site, sockets=self._device.sockets, networks=self._networks)
        aliases = self._aliases.pools.get(self._config.sockets_number)
        self._server = SynthesisServer(
            Synthesiser(policy, aliases=aliases),
            upstreams=[Upstream(address=self._upstream(wanted), port=wanted.upstream_port)],
            now=self._clock.now,
            carry_out=self._carry_out,
            limits=ServerLimits(clients=tuple(map(configuration.prefix, wanted.clients))),
        )
        await self._server.start(configuration.address(wanted.listen), port=wanted.port)
        log(Message.SYNTHESISING, address=str(wanted.listen), port=wanted.port)

    def _upstream(self, wanted: DnsSection) -> Address:
        """Who is asked, by the address that our sockets have for it."""
        if isinstance(wanted.upstream, Address):
            return self._section.programs.name_of(wanted.upstream)
        return configuration.address(wanted.upstream)

    async def _carry_out(self, effects: Any) -> None:
        self._aliases.carry_out(effects)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if self._server is not None:
                await self._server.stop()

    def stop(self) -> None:
        """Take everything away."""
        self._aliases.stop()
        if self._attraction is not None:
            self._attraction.stop()
        if self._refusal is not None:
            self._refusal.stop()
        self._plane.destroy()
        sip_device.remove(self._device)

    # --- the control socket --------------------------------------------------------------

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers."""
        return {
            "status": self._status,
            "counters": self._counters,
            "routes": self._routes,
            "aliases": self._alias_rows,
            "tunnels": self._tunnels,
        }

    def _name(self, number: int) -> str:
        return next((each.name for each in self._terms.border.realms if each.number == number), str(number))

    def _known_as(self) -> list[Address]:
        """Our addresses on the programs' device."""
        sockets, address = self._device.sockets, self._section.address
        return [address.low] if sockets is None else [sockets.to_ipv6(address, compatible=c) for c in (False, True)]

    async def _status(self, _request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        return {
            "role": "node",
            "plane": self._plane.kind,
            "address": str(self._section.address),
            "device": self._device.name,
            "known_as": [str(each) for each in self._known_as()],
            "mtu": self._device.mtu,
            "bindings": len(self._plane.reference.table),
            "now": self._clock.now(),
        }

    async def _counters(self, _request: dict[str, Any], _connection: Connection) -> dict[str, int]:
        counts = {reason.name: count for reason, count in self._plane.counters().items()}
        refused = 0 if self._refusal is None else self._refusal.count()
        return counts | {Reason.NOT_ALLOWED_HERE.name: refused + counts.get(Reason.NOT_ALLOWED_HERE.name, 0)}

    async def _routes(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return route_rows(self._plane.reference.table, self._name, self._aliases)

    async def _alias_rows(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return alias_rows(self._plane.reference.table, self._name, self._aliases)

    async def _tunnels(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return way_rows(self._plane.reference, self._name, now=self._clock.now())
