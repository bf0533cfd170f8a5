# SPDX-License-Identifier: BSD-3-Clause
"""Which gateways are there? By DHCP, by SLP, in the order wanted (RFC 3102 §3.5, RFC 3105)."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from isthmus.address import Address
from isthmus.daemon.config.discovery import DiscoverSection
from isthmus.daemon.discovery import dhcp_client
from isthmus.daemon.discovery.near import NearInterface
from isthmus.daemon.discovery.template import Offer
from isthmus.daemon.discovery.user_agent import Question, find_services
from isthmus.errors import Unsupported, WireError
from isthmus.wire import dhcp
from isthmus.wire.rsip.codes import PORT
from isthmus.wire.slp.codes import DEFAULT_SCOPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A gateway, and how it was found."""

    address: Address
    port: int
    "Of the control protocol: what the URL says, as RFC 3105 §7 has one with another port than 4555."
    way: str
    "``dhcp`` or ``slp``."
    interface: str
    url: str | None = None
    "Its service URL."
    offer: Offer | None = None
    "What it says of itself, where SLP asked it."
    lifetime: int | None = None
    "Seconds for which the answer holds."

    @property
    def row(self) -> dict[str, Any]:
        """For people and for JSON."""
        offer = self.offer
        return {
            "address": str(self.address),
            "port": self.port,
            "way": self.way,
            "interface": self.interface,
            "url": self.url,
            "load": offer.load if offer is not None else None,
            "tunnels": list(offer.tunnel_types) if offer is not None else None,
            "transports": list(offer.transports) if offer is not None else None,
            "ipsec": offer.ipsec if offer is not None else None,
            "ike": offer.ike if offer is not None else None,
            "lifetime": self.lifetime,
        }


@dataclass(slots=True)
class _Dhcp:
    """What DHCP said besides; SLP's scopes and directory agents may come by DHCP (RFC 2610, RFC 3105 §5)."""

    scopes: tuple[str, ...] = ()
    agents: tuple[Address, ...] = ()


async def find_gateways(
    near: NearInterface, discover: DiscoverSection, *, predicate: str = "", port: int = PORT
) -> tuple[Found, ...]:
    """Find every gateway, by every way that is wanted.

    Args:
        near: The interface to ask on.
        discover: How.
        predicate: What the gateway must be able to do; SLP asks for it.
        port: Of the control protocol, where nothing else is said: DHCP never says.

    Returns:
        Gateways without repetition: in the order of the ways, and in each of these the best first.

    Raises:
        Unsupported: a way cannot be tried on this machine, and no other found anything.
    """
    found: dict[tuple[Address, int], Found] = {}
    problem: Unsupported | None = None
    known = _Dhcp()
    for way in discover.ways:
        try:
            if way == "dhcp":
                gateways = await _by_dhcp(near, discover, known, port)
            else:
                gateways = await _by_slp(near, discover, known, predicate, port)
        except Unsupported as error:
            problem = error
            continue
        for each in gateways:
            # By DHCP a gateway has no attributes; what SLP says of the same one later is worth more.
            before = found.get((each.address, each.port))
            if before is None or before.offer is None:
                found[each.address, each.port] = each
    if problem is not None and not found:
        raise problem
    return tuple(found.values())


async def _by_dhcp(near: NearInterface, discover: DiscoverSection, known: _Dhcp, port: int) -> list[Found]:
    options = (discover.option, dhcp.Option.SLP_SERVICE_SCOPE, dhcp.Option.SLP_DIRECTORY_AGENT)
    answer = await dhcp_client.ask(
        near, options, wanted=discover.option, seconds=discover.seconds, retry=discover.retry
    )
    if answer is None:
        return []
    try:
        gateways = dhcp.addresses(answer.options[discover.option])
        if scopes := answer.options.get(dhcp.Option.SLP_SERVICE_SCOPE):
            known.scopes = dhcp.slp_scopes(scopes)
        if agents := answer.options.get(dhcp.Option.SLP_DIRECTORY_AGENT):
            known.agents = dhcp.slp_directory_agents(agents)
    except WireError:
        return []
    return [Found(address=each, port=port, way="dhcp", interface=near.name) for each in gateways]


async def _by_slp(
    near: NearInterface, discover: DiscoverSection, known: _Dhcp, predicate: str, port: int
) -> list[Found]:
    question = Question(
        scopes=discover.scopes or known.scopes or (DEFAULT_SCOPE,),
        predicate=predicate,
        agents=tuple(Address.from_octets(each.packed) for each in discover.agents) or known.agents,
        seconds=discover.seconds,
        retry=discover.retry,
    )
    found = []
    for service in await find_services(near, question):
        address = await _resolve(service.url.host)
        if address is not None:
            found.append(
                Found(
                    address=address,
                    port=service.url.port or port,
                    way="slp",
                    interface=near.name,
                    url=str(service.url),
                    offer=service.offer,
                    lifetime=service.lifetime,
                )
            )
    return found


async def _resolve(host: str) -> Address | None:
    """Look a gateway's name up; None if it has no IPv4 address."""
    try:
        return Address.parse(host)
    except ValueError:
        pass
    try:
        async with asyncio.timeout(5):
            answers = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
    except (OSError, TimeoutError, UnicodeError):
        return None
    return Address.parse(str(answers[0][4][0])) if answers else None
