# SPDX-License-Identifier: BSD-3-Clause
"""The role ``[endpoint]``: tunnels end here, and a gateway elsewhere says whose they are (RFC 3103 §6, §9.7.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from isthmus.border.effect import Bind, Register
from isthmus.border.realm import Border
from isthmus.border.verdict import Violation
from isthmus.daemon.arp import Attraction
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.daemon.effect_json import border_from_json, effects_from_json, violations_to_json
from isthmus.daemon.hostlink import interface_mtu
from isthmus.daemon.messages import Message, log
from isthmus.daemon.planes import MachinePlane


class EndpointRole:
    """A plane that follows a gateway.

    It has no plane until the gateway has said what the border is; from then on it keeps forwarding whether
    the gateway is there or not, until the deadlines of the leases.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        """Wait for a gateway."""
        self._config = config
        self._clock = clock
        self._border: Border | None = None
        self._plane: MachinePlane | None = None
        self._attractions: list[Attraction] = []
        self._running = False
        self._standing: list[Register | Bind] = []
        self._listeners: list[Connection] = []

    async def start(self) -> None:
        """Nothing to do before the gateway calls."""

    async def run(self) -> None:
        """Serve until cancelled."""
        await asyncio.Event().wait()

    def stop(self) -> None:
        """Take the plane away."""
        self._repel()
        if self._plane is not None:
            self._plane.destroy()

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers."""
        return {
            "plane-begin": self._begin,
            "plane-standing": self._stand,
            "plane-reconcile": self._reconcile,
            "plane-apply": self._apply,
            "plane-violations": self._subscribe,
            "counters": self._counters,
        }

    async def _begin(self, request: dict[str, Any], _connection: Connection) -> None:
        border = self._ours(border_from_json(request["border"]))
        if border != self._border:
            if self._plane is not None:
                self._plane.destroy()
                self._plane, self._running = None, False
            self._plane = MachinePlane(self._config, border, self._clock)
            self._border = border
            self._attract(border)
        self._standing = []

    def _attract(self, border: Border) -> None:
        """The pools are found here, where packets for them go into tunnels; not at the gateway."""
        self._repel()
        for realm in border.realms:
            pools = {claim.local for claim in border.claims if claim.realm == realm.number}
            wanted = self._config.endpoint is not None and self._config.endpoint.attract == "arp"
            if wanted and pools and realm.interface is not None:
                name = f"{self._config.control_socket} {realm.name}"
                self._attractions.append(Attraction(realm.interface, sorted(pools), name, self._clock))
                self._attractions[-1].start()

    def _repel(self) -> None:
        for each in self._attractions:
            each.stop()
        self._attractions.clear()

    def _ours(self, border: Border) -> Border:
        """The gateway's border with the interfaces of this machine, by the names of the realms."""
        interfaces = {each.name: each.interface for each in self._config.realm}
        missing = [realm.name for realm in border.realms if realm.name not in interfaces]
        if missing:
            raise ControlError(f"the gateway's realm {missing[0]!r} is no [[realm]] of the endpoint's configuration")
        return replace(
            border,
            realms=tuple(
                replace(realm, interface=interfaces[realm.name], mtu=min(65535, interface_mtu(interfaces[realm.name])))
                for realm in border.realms
            ),
        )

    async def _stand(self, request: dict[str, Any], _connection: Connection) -> None:
        self._standing += [each for each in effects_from_json(request["effects"]) if isinstance(each, Register | Bind)]

    async def _reconcile(self, _request: dict[str, Any], _connection: Connection) -> None:
        plane, standing = self._need(), self._standing
        self._standing = []
        plane.reconcile(standing)
        if not self._running:
            plane.start(self._tell)
            self._running = True
        log(Message.ENDPOINT_FOLLOWS, bindings=sum(isinstance(each, Bind) for each in standing))

    async def _apply(self, request: dict[str, Any], _connection: Connection) -> None:
        self._need().apply(effects_from_json(request["effects"]))

    def _need(self) -> MachinePlane:
        if self._plane is None:
            raise ControlError("the gateway has not said yet what the border is")
        return self._plane

    async def _subscribe(self, _request: dict[str, Any], connection: Connection) -> None:
        self._listeners.append(connection)
        connection.closing.append(lambda: self._listeners.remove(connection))

    def _tell(self, violations: Iterable[Violation]) -> None:
        values = violations_to_json(violations)
        for each in self._listeners:
            each.push({"event": "violations", "violations": values})

    async def _counters(self, _request: dict[str, Any], _connection: Connection) -> dict[str, int]:
        if self._plane is None:
            return {}
        return {reason.name: count for reason, count in self._plane.counters().items()}
