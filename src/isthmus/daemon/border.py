# SPDX-License-Identifier: BSD-3-Clause
"""The border role: an IPAE border router, or a router of SIP (seed IPAE 6.3).

Routes, gateways, rules and the mapping file are in the plane from the start. Three things come later: another
mapping table, when its file or zone changes; aliases, when a packet or a DNS answer needs one; and what errors teach
of the ways to other systems, which the plane keeps itself.
"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.effect import Remap
from isthmus.border.mapping import Mapping
from isthmus.border.verdict import Miss
from isthmus.daemon import config as configuration
from isthmus.daemon.alias_file import AliasFile
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, DnsSection
from isthmus.daemon.control import Connection, Handler
from isthmus.daemon.mapping_dns import DnsRules, MappingDns, read_key
from isthmus.daemon.mapping_table import MappingTable, mappings_handler, remap_handler
from isthmus.daemon.messages import Message, log
from isthmus.daemon.own_way import OwnWays
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.shared_plane import MakePlane
from isthmus.daemon.sip_routes import SipRoutes
from isthmus.daemon.sip_rows import alias_rows, mapping_counts, route_rows, way_rows
from isthmus.daemon.sip_terms import Surroundings, alias_pools, border_router, own_networks
from isthmus.daemon.synthesis_server import ServerLimits, SynthesisServer, Upstream
from isthmus.daemon.waiting import Aliases, Lookups
from isthmus.errors import IsthmusError
from isthmus.ipae.border_router import standing
from isthmus.ipae.neutral import Sockets
from isthmus.ipae.synthesis import Synthesiser, SynthesisPolicy

LOOK_SECONDS = 1.0
"""How often to look whether the mapping file is another."""


class BorderRole:
    """A border router that runs."""

    def __init__(self, config: Config, clock: Clock, *, planes: MakePlane = MachinePlane) -> None:
        """Open the plane.

        Raises:
            PlaneError, ConfigError: it cannot be had, or the machine lacks what the file names.
        """
        assert config.border is not None
        self._config = config
        self._section = config.border
        self._clock = clock
        self._around = Surroundings.of(config)
        self._terms = border_router(config, self._around)
        self._sites = [
            (number, each.name, each.site) for number, each in enumerate(config.realm, 1) if each.site is not None
        ]
        self._learner = self._learn()
        self._plane = planes(config, self._terms.border, clock)
        self._aliases = Aliases(alias_pools(config), self._plane, clock, AliasFile(config.alias_file))
        self._lookups = Lookups(self._plane, self._addresses(), clock)
        self._own_ways = OwnWays()
        self._tables: dict[str, MappingTable] = {}
        self._zones: list[MappingDns] = []
        self._servers: list[SynthesisServer] = []
        self._synthesiser: Synthesiser | None = None
        self._standing: dict[int, Remap] | None = {}
        "What mapping files say, until the plane has it with all that stands."
        self._loaded = asyncio.Event()
        self._path: Path | None = None
        self._seen: tuple[int, int, int] | None = None
        "What the mapping file was when it was first read."

    def _learn(self) -> SipRoutes | None:
        wanted = self._section.learn
        if wanted is None:
            return None
        return SipRoutes(wanted, self._config, self._around, self._terms.routes, self._clock)

    def _addresses(self) -> dict[int, Address]:
        has = self._around.addresses
        return {number: has[name][0].address for number, name, _ in self._sites if has[name]}

    # --- the run of the daemon -----------------------------------------------------------

    async def start(self) -> None:
        """Program routes and mappings, then serve.

        Raises:
            IsthmusError: the plane, the mapping or the DNS server cannot be had.
        """
        now = self._clock.now()
        fixed = () if self._section.alias is None else self._aliases.fix(self._section.alias.pairs)
        learned = () if self._learner is None else self._learner.read()
        await self._start_mapping()
        bound = [standing(each, now=now) for each in (*self._terms.bindings, *fixed)]
        remaps, self._standing = self._standing or {}, None
        self._plane.reconcile((*bound, *self._aliases.restore(), *learned, *remaps.values()))
        self._loaded.set()
        self._plane.start(lambda _violations: None, self._missed)
        if self._learner is not None:
            self._learner.start(self._plane)
        self._lead()
        if self._section.dns is not None:
            await self._start_dns(self._section.dns)

    def _lead(self) -> None:
        """Let this machine's own programs reach what is in a site by translation only."""
        pools = () if self._section.alias is None else tuple(map(configuration.prefix, self._section.alias.pools))
        for number, _, site in self._sites:
            first = next(other for other, _, same in self._sites if same == site)
            hosts = tuple(Prefix.of(each.low) for each in self._section.hosts if each.site == site and number == first)
            if pools or hosts:
                self._own_ways.lead(self._plane.port_name(number), hosts=hosts, pools=pools)
                pools = ()

    def _missed(self, miss: Miss) -> None:
        if miss.address.family.bits == 32:
            self._lookups.miss(miss)
        else:
            self._aliases.miss(miss)

    async def _start_mapping(self) -> None:
        wanted = self._section.mapping
        if wanted is None:
            return
        own = own_networks(self._config, self._around)
        # Before it is read: what is written meanwhile is another file.
        self._path, self._seen = wanted.file, _mark(wanted.file)
        for number, name, _ in self._sites:
            if wanted.realm not in (None, name):
                continue
            table = MappingTable(name, self._programmer(number), own=own, path=wanted.file)
            self._tables[name] = table
            await table.start()
            if wanted.dns is not None:
                zone = MappingDns(
                    DnsRules(
                        zone=wanted.dns.name,
                        servers=((configuration.address(wanted.dns.server), wanted.dns.port),),
                        lookups=wanted.dns.on_miss,
                        key=None if wanted.dns.key is None else read_key(wanted.dns.key),
                    ),
                    table,
                    forward=functools.partial(self._lookups.forward, number),
                    unreachable=functools.partial(self._lookups.refuse, number),
                )
                self._lookups.zones[number] = zone
                self._zones.append(zone)

    def _programmer(self, number: int) -> Any:
        async def program(mapping: Mapping) -> None:
            remap = Remap(realm=number, sip=self._config.sip_number, mapping=mapping)
            if self._standing is not None:
                self._standing[number] = remap
            else:
                self._plane.apply((remap,))
            if self._synthesiser is not None and number == self._asking[0]:
                self._synthesiser.mapping = mapping

        return program

    @property
    def _asking(self) -> tuple[int, str, Prefix]:
        """The site that the DNS server is for: that of the network in which it listens, or the first."""
        assert self._section.dns is not None
        listen = configuration.address(self._section.dns.listen)
        nearby = (
            each for each in self._sites if any(listen in link.network for link in self._around.addresses[each[1]])
        )
        return next(nearby, self._sites[0])

    async def _start_dns(self, wanted: DnsSection) -> None:
        number, name, site = self._asking
        networks = tuple(each.network for each in self._around.addresses[name])
        policy = SynthesisPolicy(site=site, sockets=Sockets(), networks=networks)
        table = self._tables.get(name)
        self._synthesiser = Synthesiser(
            policy, aliases=self._aliases.pools.get(number), mapping=None if table is None else table.mapping
        )
        assert not isinstance(wanted.upstream, Address)
        server = SynthesisServer(
            self._synthesiser,
            upstreams=[Upstream(address=configuration.address(wanted.upstream), port=wanted.upstream_port)],
            now=self._clock.now,
            carry_out=self._carry_out,
            limits=ServerLimits(clients=tuple(map(configuration.prefix, wanted.clients))),
        )
        await server.start(configuration.address(wanted.listen), port=wanted.port)
        self._servers.append(server)
        log(Message.SYNTHESISING, address=str(wanted.listen), port=wanted.port)

    async def _carry_out(self, effects: Any) -> None:
        self._aliases.carry_out(effects)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await asyncio.gather(self._follow_file(), *(each.run() for each in self._zones))
        finally:
            for server in self._servers:
                await server.stop()

    async def _follow_file(self) -> None:
        """Read the mapping file again when it is another."""
        path, seen = self._path, self._seen
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (now := _mark(path)) == seen:
                continue
            seen = now
            for table in self._tables.values():
                try:
                    await table.reload()
                except IsthmusError as error:
                    log(Message.MAPPING_REFUSED, source=str(path), problem=str(error))
                else:
                    log(Message.MAPPING_CHANGED, source=str(path), serial=None, entries=len(table.mapping))

    def stop(self) -> None:
        """Take everything away."""
        if self._learner is not None:
            self._learner.stop()
        self._aliases.stop()
        self._own_ways.clear()
        self._plane.destroy()

    # --- the control socket --------------------------------------------------------------

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers."""
        return {
            "status": self._status,
            "counters": self._counters,
            "routes": self._routes,
            "refused": self._refused,
            "aliases": self._alias_rows,
            "tunnels": self._tunnels,
            "remap": self._when_loaded(remap_handler(self._tables)),
            "mappings": self._when_loaded(mappings_handler(self._tables)),
        }

    def _when_loaded(self, handler: Handler) -> Handler:
        """A handler that waits for the tables of the start: without them it would say that there is nothing."""

        async def waiting(request: dict[str, Any], connection: Connection) -> Any:
            await self._loaded.wait()
            return await handler(request, connection)

        return waiting

    def _name(self, number: int) -> str:
        return next((each.name for each in self._terms.border.realms if each.number == number), str(number))

    async def _status(self, _request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        table = self._plane.reference.table
        return {
            "role": "border",
            "plane": self._plane.kind,
            "bindings": len(table),
            "mappings": mapping_counts(table, self._name),
            "learned": self._learner and self._learner.describe(),
            "now": self._clock.now(),
        }

    async def _counters(self, _request: dict[str, Any], _connection: Connection) -> dict[str, int]:
        return {reason.name: count for reason, count in self._plane.counters().items()}

    async def _routes(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return route_rows(self._plane.reference.table, self._name, self._aliases, self._learner)

    async def _refused(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return [] if self._learner is None else self._learner.refused_rows()

    async def _alias_rows(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return alias_rows(self._plane.reference.table, self._name, self._aliases)

    async def _tunnels(self, _request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        return way_rows(self._plane.reference, self._name, now=self._clock.now())


def _mark(path: Path | None) -> tuple[int, int, int] | None:
    """What tells a file from the one that it was."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
