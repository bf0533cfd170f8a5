# SPDX-License-Identifier: BSD-3-Clause
"""A gateway as SLP tells of it."""

from __future__ import annotations

from isthmus.daemon.discovery.advertisement import Advertisement
from isthmus.daemon.discovery.template import Offer
from isthmus.wire.slp.message import (
    SrvRqst,
)
from isthmus.wire.slp.url import ServiceUrl

HERE = "10.0.0.1"
URL = f"service:rsip://{HERE}:4455"
AGENT = Advertisement(
    here=HERE,
    url=ServiceUrl.parse(URL),
    scopes=("DEFAULT", "North"),
    lifetime=300,
    offer=lambda: Offer(ipsec=True, tunnel_types=("IP-IP", "GRE"), transports=("UDP", "TCP"), load=17),
)
REQUEST = SrvRqst(service_type="service:rsip", scopes=("DEFAULT",))
