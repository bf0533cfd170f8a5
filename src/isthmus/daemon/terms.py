# SPDX-License-Identifier: BSD-3-Clause
"""What the ``[gateway]`` of a configuration comes to: a border for the plane, a pool and a policy for the protocol."""

from __future__ import annotations

import secrets

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import TunnelKind, overhead
from isthmus.border.pool import Pool, Quota
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit
from isthmus.daemon import config as configuration
from isthmus.daemon.config import Config, GatewaySection
from isthmus.daemon.control import ControlError
from isthmus.daemon.hostlink import interface_mtu
from isthmus.rsip.locality import Locality
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.wire.rsip.codes import LocalPolicy, Method, RemotePolicy, TunnelType

ANYWHERE = (Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0"))
_TUNNEL_TYPES = {"ipip": TunnelType.IP_IP, "gre": TunnelType.GRE}


def section(config: Config) -> GatewaySection:
    """The ``[gateway]`` of a configuration.

    Raises:
        ControlError: it has none.
    """
    if config.gateway is None:
        raise ControlError("the configuration has no [gateway]")
    return config.gateway


def seed(config: Config) -> int:
    """Where random choices begin."""
    return secrets.randbits(64) if config.isthmus.seed is None else config.isthmus.seed


def control_addresses(config: Config) -> tuple[Address, ...]:
    """Where the control protocol is listened for."""
    return tuple(configuration.address(each) for each in section(config).address)


def tunnel_ends(config: Config) -> dict[Family, Address]:
    """Where the tunnels of hosts end, by the family of the hosts."""
    gateway = section(config)
    given = [configuration.address(each) for each in (*gateway.address, *(gateway.tunnel_address or ()))]
    return {each.family: each for each in given}


def link_mtu(config: Config) -> int:
    """Largest packet of the near realm that carries a tunnel, in octets."""
    gateway = section(config)
    if gateway.tunnel_mtu is not None:
        return gateway.tunnel_mtu + overhead(TunnelKind.IPIP, Family.IPV4)
    return min(65535, interface_mtu(interface_of(config, gateway.near)))


def interface_of(config: Config, realm: str) -> str:
    """The interface that leads into a realm."""
    return next(each.interface for each in config.realm if each.name == realm)


def border(config: Config) -> Border:
    """What a gateway's plane must know."""
    gateway = section(config)
    near, far = config.realm_number(gateway.near), config.realm_number(gateway.realm)
    return Border(
        realms=tuple(
            Realm(
                number=config.realm_number(each.name),
                name=each.name,
                interface=each.interface,
                end=End.GATEWAY,
                mtu=min(65535, interface_mtu(each.interface)),
            )
            for each in config.realm
        ),
        tunnel_ends=tuple(TunnelEnd(realm=near, address=each, leads_to=far) for each in tunnel_ends(config).values()),
        claims=pool(config).claims,
        slice_size=gateway.slice_size,
    )


def pool(config: Config, place_key: bytes | None = None) -> Pool:
    """The resources that a gateway leases.

    Args:
        config: The configuration.
        place_key: Of its store (``LeaseStore.place_key``); None: for who leases nothing.
    """
    gateway = section(config)
    return Pool(
        config.realm_number(gateway.realm),
        shared=[
            (configuration.address(each.address), each.ports or Ranges(())) for each in gateway.pool if each.address
        ],
        whole=[configuration.prefix(each.prefix) for each in gateway.pool if each.prefix],
        spis={configuration.address(each.address): each.spis for each in gateway.pool if each.address and each.spis},
        ike=[configuration.address(each.address) for each in gateway.pool if each.address and each.ike],
        slice_size=gateway.slice_size,
        rest_seconds=gateway.rest,
        quota=Quota(**gateway.quota.model_dump()),
        computed=gateway.choice == "computed",
        place_key=place_key,
        seed=seed(config),
    )


def pooled(config: Config) -> tuple[Prefix, ...]:
    """Every address that may be leased, by port or whole."""
    found = []
    for each in section(config).pool:
        if each.prefix is not None:
            found.append(configuration.prefix(each.prefix))
        elif each.address is not None:
            found.append(Prefix.of(configuration.address(each.address)))
    return tuple(found)


def policy(config: Config) -> GatewayPolicy:
    """What a gateway's hosts may do."""
    gateway = section(config)
    clients = tuple(
        ClientRule(
            prefix=configuration.prefix(each.network),
            local_policy=LocalPolicy[each.local_policy.upper()],
            remote_policy=RemotePolicy[each.remote_policy.upper()],
            ipsec=each.ipsec,
        )
        for each in gateway.client
    )
    return GatewayPolicy(
        clients=clients or tuple(ClientRule(prefix=each) for each in ANYWHERE),
        udp="udp" in gateway.transports,
        methods=_methods(gateway),
        tunnel_types=tuple(_TUNNEL_TYPES[each] for each in dict.fromkeys(gateway.tunnels)),
        lease_default=gateway.lease.default,
        lease_minimum=gateway.lease.minimum,
        lease_maximum=gateway.lease.maximum,
        registration_lease=gateway.lease.registration,
        admit=Admit[gateway.admit.upper()],
        listen=gateway.listen,
        listen_micro=gateway.listen_micro,
        query=Locality(
            local=tuple(map(configuration.prefix, gateway.query.local)),
            remote=tuple(map(configuration.prefix, gateway.query.remote)),
            local_names=gateway.query.local_names,
            remote_names=gateway.query.remote_names,
        ),
        requests_per_second=gateway.requests_per_second or None,
        requests_burst=gateway.requests_burst,
    )


def _methods(gateway: GatewaySection) -> tuple[Method, ...]:
    offered = {
        Method.RSAP_IP: any(each.address is not None for each in gateway.pool),
        Method.RSA_IP: any(each.prefix is not None for each in gateway.pool),
        Method.RSIPSEC: any(each.spis is not None for each in gateway.pool),
    }
    return tuple(method for method, has in offered.items() if has)
