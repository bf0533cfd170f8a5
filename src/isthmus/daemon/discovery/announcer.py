# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway's configuration comes to in SLP: an advertisement, and an agent that answers for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from isthmus.daemon import config as configuration
from isthmus.daemon.config import Config, GatewaySection
from isthmus.daemon.discovery.advertisement import Advertisement
from isthmus.daemon.discovery.near import NearInterface, near_interface
from isthmus.daemon.discovery.service_agent import ServiceAgent
from isthmus.daemon.discovery.template import SERVICE_TYPE, TUNNEL_NAMES, Offer
from isthmus.daemon.messages import Message, log
from isthmus.errors import ConfigError, Unsupported
from isthmus.wire.slp.url import ServiceUrl

FRESH_SECONDS = 1.0
"""How old an advertised load may be."""


def offer(section: GatewaySection, load: int) -> Offer:
    """What a gateway says of itself now (RFC 3105 §7), with its load from 0 to 100."""
    return Offer(
        ipsec=any(each.spis is not None for each in section.pool),
        ike=any(each.ike for each in section.pool),
        tunnel_types=tuple(TUNNEL_NAMES[each] for each in section.tunnels),
        transports=tuple(each.upper() for each in section.transports),
        load=load,
    )


def advertisement(near: NearInterface, section: GatewaySection, load: Callable[[], int]) -> Advertisement:
    """What is advertised for a gateway: its own address and port, or its name (RFC 3105 §4)."""
    slp = section.slp
    assert slp is not None
    return Advertisement(
        here=str(near.address),
        url=ServiceUrl(service_type=SERVICE_TYPE, host=slp.host or str(near.address), port=section.port),
        scopes=slp.scopes,
        lifetime=slp.lifetime,
        offer=_Briefly(lambda: offer(section, load())),
    )


class _Briefly:
    """An offer that is worked out once a second at most: a busy gateway has many leases, and anybody may ask."""

    def __init__(self, work_out: Callable[[], Offer]) -> None:
        self._work_out = work_out
        self._offer: Offer | None = None
        self._until = 0.0

    def __call__(self) -> Offer:
        """The offer, not older than a second."""
        now = time.monotonic()
        if self._offer is None or now >= self._until:
            self._offer, self._until = self._work_out(), now + FRESH_SECONDS
        return self._offer


class Announcer:
    """Lets a gateway be found, if its configuration wants that; what goes wrong here stops nothing else."""

    def __init__(self, config: Config, load: Callable[[], int]) -> None:
        """Open the sockets.

        Args:
            config: The whole configuration, with a ``[gateway]``.
            load: Gives the share of the pool that is leased now, 0 to 100.
        """
        self._agent: ServiceAgent | None = None
        section = config.gateway
        if section is None or section.slp is None or not section.slp.enabled:
            return
        here = [configuration.address(each) for each in section.address if each.version == 4]
        try:
            if not here:
                # Deviation: RFC 3111 carries SLP over IPv6. RFC 3105 does not use it, and this agent speaks IPv4 only.
                raise Unsupported("SLP over IPv6", remedy="name the gateway at its hosts")
            interface = config.realm[config.realm_number(section.near) - 1].interface
            near = NearInterface(name=interface, address=here[0], hardware=near_interface(interface).hardware)
            self._agent = ServiceAgent(
                near,
                advertisement(near, section, load),
                directory_agents=tuple(configuration.address(each) for each in section.slp.directory_agents),
                refresh=section.slp.refresh,
            )
        except (Unsupported, ConfigError) as error:
            log(Message.SLP_UNAVAILABLE, error=str(error))

    async def start(self) -> None:
        """Begin to answer."""
        if self._agent is not None:
            await self._agent.start()

    def stop(self) -> None:
        """Stop answering."""
        if self._agent is not None:
            self._agent.stop()
            self._agent = None
