# SPDX-License-Identifier: BSD-3-Clause
"""The gateway role: a configuration becomes a pool, a policy, a store, a plane and sockets."""

from __future__ import annotations

import secrets
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Peer
from isthmus.border.pool import Pool, Quota
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit
from isthmus.daemon import config as configuration
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, GatewaySection
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.daemon.driver import GatewayDriver
from isthmus.daemon.endpoint import DatagramEndpoint, StreamEndpoint
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.rows import lease_row, tenure_row
from isthmus.rsip.gateway import Gateway
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.store import LeaseStore, open_store
from isthmus.wire.rsip.codes import LocalPolicy, Method, RemotePolicy, TunnelType

ANYWHERE = Prefix.parse("0.0.0.0/0")


def border(config: Config) -> Border:
    """What a gateway's plane must know, from its configuration."""
    section = _section(config)
    near, far = config.realm_number(section.near), config.realm_number(section.realm)
    return Border(
        realms=tuple(
            Realm(number=config.realm_number(each.name), name=each.name, interface=each.interface, end=End.GATEWAY)
            for each in config.realm
        ),
        tunnel_ends=(TunnelEnd(realm=near, address=configuration.address(section.address), leads_to=far),),
        claims=pool(config).claims,
        slice_size=section.slice_size,
    )


def pool(config: Config) -> Pool:
    """The resources that a gateway leases, from its configuration."""
    section = _section(config)
    return Pool(
        config.realm_number(section.realm),
        shared=[
            (configuration.address(each.address), each.ports) for each in section.pool if each.address and each.ports
        ],
        whole=[configuration.prefix(each.prefix) for each in section.pool if each.prefix],
        slice_size=section.slice_size,
        rest_seconds=section.rest,
        quota=Quota(**section.quota.model_dump()),
        seed=_seed(config),
    )


def policy(config: Config) -> GatewayPolicy:
    """What a gateway's hosts may do, from its configuration."""
    section = _section(config)
    clients = tuple(
        ClientRule(
            prefix=configuration.prefix(each.network),
            local_policy=LocalPolicy[each.local_policy.upper()],
            remote_policy=RemotePolicy[each.remote_policy.upper()],
        )
        for each in section.client
    )
    whole = any(each.prefix is not None for each in section.pool)
    return GatewayPolicy(
        clients=clients or (ClientRule(prefix=ANYWHERE),),
        udp="udp" in section.transports,
        methods=(Method.RSAP_IP, Method.RSA_IP) if whole else (Method.RSAP_IP,),
        tunnel_types=(TunnelType.IP_IP,),
        lease_default=section.lease.default,
        lease_minimum=section.lease.minimum,
        lease_maximum=section.lease.maximum,
        registration_lease=section.lease.registration,
        admit=Admit[section.admit.upper()],
        requests_per_second=section.requests_per_second or None,
        requests_burst=section.requests_burst,
    )


def _section(config: Config) -> GatewaySection:
    if config.gateway is None:
        raise ControlError("the configuration has no [gateway]")
    return config.gateway


def _seed(config: Config) -> int:
    return secrets.randbits(64) if config.isthmus.seed is None else config.isthmus.seed


class GatewayRole:
    """A gateway that runs."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Open the store, the plane and the sockets.

        Raises:
            StoreError, PlaneError, ConfigError: one of them cannot be had; the others are let go again.
        """
        self._config = config
        self._section = _section(config)
        self._clock = clock
        self._store: LeaseStore = open_store(config.isthmus.state)
        self._plane = MachinePlane(config, border(config), clock)
        self._driver = GatewayDriver(
            make_gateway=self._make_gateway, store=self._store, plane=self._plane, clock=clock, send=self._send
        )
        near, here = config.realm_number(self._section.near), configuration.address(self._section.address)
        port = self._section.port
        # UDP is listened on even where it is not offered, to be answered with 102 USE_TCP (RFC 3103 §14).
        self._datagrams = DatagramEndpoint(near, here, port, self._driver.datagram)
        self._streams = StreamEndpoint(
            near, here, port, deliver=self._driver.message, broken=self._driver.broken, lost=self._driver.lost
        )

    def _make_gateway(self) -> Gateway:
        section = self._section
        return Gateway(
            realm_near=self._config.realm_number(section.near),
            realm=self._config.realm_number(section.realm),
            tunnel_end=configuration.address(section.address),
            pool=pool(self._config),
            policy=policy(self._config),
            tunnel_mtu=section.tunnel_mtu,
            seed=_seed(self._config),
        )

    def _send(self, data: bytes, peer: Peer) -> None:
        if peer.connection:
            self._streams.send(data, peer)
        else:
            self._datagrams.send(data, peer)

    async def start(self) -> None:
        """Take up what the store holds, then serve: nobody is answered before the plane is right."""
        self._plane.reconcile(self._driver.restore())
        self._plane.start(self._driver.violations)
        self._datagrams.start()
        await self._streams.start()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._driver.run()

    def stop(self) -> None:
        """Stop serving and take the plane away."""
        self._datagrams.stop()
        self._streams.stop()
        self._driver.stop()
        self._plane.destroy()
        self._store.close()

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers."""
        return {
            "status": self._status,
            "leases": self._leases,
            "who-had": self._who_had,
            "counters": self._counters,
            "revoke": self._revoke,
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
        return {reason.name: count for reason, count in self._plane.counters().items()}

    async def _revoke(self, request: dict[str, Any], _connection: Connection) -> None:
        near = self._config.realm_number(self._section.near)
        key = BindingKey(Owner(near, Address.parse(request["host"])), int(request["bind_id"]))
        if not self._driver.gateway.revoke(key, now=self._clock.now()):
            raise ControlError(f"there is no binding {key}")
        self._driver.nudge()
