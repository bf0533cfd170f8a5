# SPDX-License-Identifier: BSD-3-Clause
"""Hosts with a lease of 64 ports each, next to one another, and the interfaces that lead to them."""

from __future__ import annotations

import subprocess
import time

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.plane import Programmable

PRIVATE, PUBLIC = 1, 2
FIRST_ADDRESS, FIRST_HOST, FIRST_PORT = 0xC0000200, 0x0A000002, 1024
PORTS, PER_ADDRESS = 64, 1000


def address(number: int) -> Address:
    return Address(Family.IPV4, number)


def lease(number: int) -> list[Programmable]:
    owner = Owner(PRIVATE, address(FIRST_HOST + number))
    first = FIRST_PORT + number % PER_ADDRESS * PORTS
    local = Prefix.of(address(FIRST_ADDRESS + number // PER_ADDRESS))
    selector = Selector(realm=PUBLIC, local=local, kind=Kind.PORT, values=Ranges.of((first, first + PORTS - 1)))
    tunnel = Tunnel(realm=PRIVATE, local=address(0x0A000001), remote=owner.address)
    granted = Lease(client_id=1, method=Method.RSAP_IP, granted_at=time.time(), expires_at=FOREVER)
    registration = Registration(owner=owner, client_id=1, expires_at=FOREVER)
    binding = Binding(key=BindingKey(owner, 1), selectors=(selector,), crossing=tunnel)
    return [Register(registration=registration), Bind(binding=binding, lease=granted)]


def border(leases: int) -> Border:
    addresses = (address(FIRST_ADDRESS + number) for number in range((leases - 1) // PER_ADDRESS + 1))
    return Border(
        realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public")),
        tunnel_ends=(TunnelEnd(realm=PRIVATE, address=address(0x0A000001), leads_to=PUBLIC),),
        claims=tuple(
            Selector(realm=PUBLIC, local=Prefix.of(each), kind=Kind.PORT, values=Ranges.of((1024, 65535)))
            for each in addresses
        ),
    )


def no_routes() -> None:
    """The bench's other tests know of no neighbours."""
    for at in (0, 1):
        for what in ("route", "neigh", "addr"):
            subprocess.run(["ip", what, "flush", "dev", f"ist{at}"], check=True, timeout=20, stderr=subprocess.DEVNULL)
