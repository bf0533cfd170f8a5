# SPDX-License-Identifier: BSD-3-Clause
"""``[gateway.slp]`` and ``[host.discover]``: how hosts find gateways (RFC 3105, RFC 3102 §3.5)."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import Field

from isthmus.daemon.config.fields import Name, Section
from isthmus.wire.dhcp import SITE_SPECIFIC
from isthmus.wire.slp.codes import DEFAULT_SCOPE

Scope = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^(),\\!<=>~;*+\x00-\x1f\x7f]+$")]
Option = Annotated[int, Field(ge=SITE_SPECIFIC.start, lt=SITE_SPECIFIC.stop)]


class SlpSection(Section):
    """``[gateway.slp]``: be found by SLP on the near realm (RFC 3105)."""

    enabled: bool = True
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = (DEFAULT_SCOPE,)
    "Hosts of other scopes do not find this gateway (RFC 3105 §5)."
    host: Name | None = None
    "The name to give out in the service URL; none: the gateway's address."
    lifetime: Annotated[int, Field(ge=10, le=65535)] = 300
    "Seconds for which an answer may be used."
    refresh: Annotated[int, Field(ge=5, le=65535)] = 60
    "Seconds after which directory agents are told the load again (RFC 3105 §6)."
    directory_agents: tuple[IPv4Address, ...] = ()
    "Told without being looked for; others are heard when they advertise themselves."


class DiscoverSection(Section):
    """``[host.discover]``: find the gateway instead of naming it."""

    ways: Annotated[tuple[Literal["dhcp", "slp"], ...], Field(min_length=1)] = ("dhcp", "slp")
    "What to try, in order."
    option: Option = SITE_SPECIFIC.start
    "The site-specific DHCP option that lists gateways, as IPv4 addresses, the best first."
    scopes: tuple[Scope, ...] = ()
    "SLP scopes; none: what DHCP says (RFC 2610), and if that says nothing, DEFAULT."
    agents: tuple[IPv4Address, ...] = ()
    "SLP directory or service agents to ask by unicast; none: the multicast group."
    seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    "How long each way may take."
    retry: Annotated[float, Field(gt=0, le=15)] = 0.25
    "Seconds before a question is sent again; doubled each time."
    patience: Annotated[float, Field(ge=1, le=3600)] = 15.0
    "Seconds that a gateway may leave us unregistered before another one is taken."
