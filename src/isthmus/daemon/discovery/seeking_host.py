# SPDX-License-Identifier: BSD-3-Clause
"""A host that is told no gateway: it finds one, is a host of it, and takes another one when that one is gone.

"If a server goes down, the client can reissue an SLP query and obtain a new server" (after RFC 3105 §4).
A gateway that does not answer, or does not register us, counts as gone after ``patience`` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from isthmus.address import Address
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, HostSection
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.daemon.discovery.finding import Found, find_gateways
from isthmus.daemon.discovery.near import near_interface
from isthmus.daemon.discovery.template import TUNNEL_NAMES, predicate
from isthmus.daemon.messages import Message, log
from isthmus.errors import IsthmusError

WATCH_SECONDS = 1.0
"""How often to look whether the gateway still knows us."""
AGAIN_SECONDS = 5.0
"""How long to wait before looking for gateways again, when there was none."""
_VERBS = ("acquire", "release", "leases", "counters", "query")
"""What is answered with "there is no gateway" while there is none."""


class HostLike(Protocol):
    """What is made of a configuration that names a gateway."""

    async def start(self) -> None:
        """Begin."""

    async def run(self) -> None:
        """Go on until cancelled."""

    def stop(self) -> None:
        """Let go of everything."""

    @property
    def is_registered(self) -> bool:
        """Whether the gateway knows us."""

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers."""


MakeHost = Callable[[Config, Clock], HostLike]


def wanted(section: HostSection) -> str:
    """The predicate for gateways that this host can use (RFC 3105 §7)."""
    tunnels = (section.tunnel_type,) if section.tunnel_type is not None else tuple(TUNNEL_NAMES)
    return predicate(
        tunnel_types=tuple(TUNNEL_NAMES[each] for each in tunnels),
        transport=section.transport.upper(),
        ipsec=any(each.spis is not None for each in section.lease),
    )


def with_gateway(config: Config, found: Found) -> Config:
    """The same configuration, with the gateway that was found: the port is the URL's (RFC 3105 §7)."""
    assert config.host is not None
    host = config.host.model_copy(
        update={"gateway": ip_address(str(found.address)), "port": found.port, "discover": None}
    )
    return config.model_copy(update={"host": host})


class SeekingHost:
    """The host role, where ``[host] gateway`` is not given."""

    def __init__(self, config: Config, clock: Clock, make_host: MakeHost) -> None:
        """Prepare.

        Args:
            config: The configuration.
            clock: For the host.
            make_host: Makes the host of one gateway; ``HostRole``.
        """
        assert config.host is not None
        assert config.host.seeks is not None
        self._config = config
        self._section = config.host
        self._discover = config.host.seeks
        self._clock = clock
        self._make_host = make_host
        self._interface = config.realm[config.realm_number(config.host.near) - 1].interface
        self._host: HostLike | None = None
        self._found: tuple[Found, ...] = ()
        self._current: Found | None = None
        self._failed: dict[tuple[Address, int], int] = {}
        "How often each gateway has failed us: who has failed most comes last."

    async def start(self) -> None:
        """Nothing yet: to look for gateways takes seconds, or for ever."""

    async def run(self) -> None:
        """Be a host, of one gateway after the other."""
        while True:
            host = await self._next_host()
            running = asyncio.ensure_future(host.run())
            watching = asyncio.ensure_future(self._watch(host))
            try:
                done, _ = await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
            finally:
                running.cancel()
                watching.cancel()
                await asyncio.gather(running, watching, return_exceptions=True)
            if running in done:
                await running
                return
            self._give_up()

    def stop(self) -> None:
        """Let go of everything."""
        if self._host is not None:
            self._host.stop()
            self._host = None

    async def _next_host(self) -> HostLike:
        """Look for gateways until there is one, and be its host; who has failed us least comes first."""
        while True:
            await self._find()
            if self._found:
                self._current = min(self._found, key=lambda each: self._failed.get((each.address, each.port), 0))
                try:
                    self._host = self._make_host(with_gateway(self._config, self._current), self._clock)
                    await self._host.start()
                except (IsthmusError, OSError) as error:
                    log(Message.NOT_FOUND, gateway=str(self._current.address), error=str(error))
                    self._fail()
                else:
                    return self._host
            await asyncio.sleep(AGAIN_SECONDS)

    async def _find(self) -> None:
        try:
            near = near_interface(self._interface)
            self._found = await find_gateways(
                near, self._discover, predicate=wanted(self._section), port=self._section.port
            )
        except IsthmusError as error:
            log(Message.NOT_FOUND, error=str(error))
            self._found = ()
            return
        if self._found:
            log(Message.FOUND, gateways=[each.row for each in self._found])
        else:
            log(Message.NOT_FOUND, ways=list(self._discover.ways), interface=self._interface)

    async def _watch(self, host: HostLike) -> None:
        """Return when the gateway has left us unregistered for too long."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while loop.time() - since < self._discover.patience:
            await asyncio.sleep(WATCH_SECONDS)
            if host.is_registered:
                since = loop.time()
                if self._current is not None:
                    self._failed.pop((self._current.address, self._current.port), None)

    def _give_up(self) -> None:
        assert self._current is not None
        log(Message.GATEWAY_GONE, gateway=str(self._current.address), port=self._current.port)
        self._fail()

    def _fail(self) -> None:
        """Count a failure of the present gateway, which is the present one no more."""
        assert self._current is not None
        key = (self._current.address, self._current.port)
        self._failed[key] = self._failed.get(key, 0) + 1
        self.stop()
        self._current = None

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers: the present host's verbs; ``host`` also tells what was found."""
        names = self._host.handlers if self._host is not None else _VERBS
        return {name: self._passed_on(name) for name in names} | {"host": self._report}

    def _passed_on(self, name: str) -> Handler:
        async def handler(request: dict[str, Any], connection: Connection) -> Any:
            if self._host is None:
                raise ControlError("no gateway is found at present; 'isthmus find' shows what answers")
            return await self._host.handlers[name](request, connection)

        return handler

    async def _report(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        report: dict[str, Any] = {"gateway": None, "registered": False, "leases": []}
        if self._host is not None:
            report |= await self._host.handlers["host"](request, connection)
        return report | {"way": self._current and self._current.way, "found": [each.row for each in self._found]}
