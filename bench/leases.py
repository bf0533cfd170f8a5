# SPDX-License-Identifier: BSD-3-Clause
"""Up to a million leases, one for each host, as the benchmarks of packets want them.

Lease n has the slice of 16 ports 1024 + 16 * (n % 4032) ff. of the address 149.112.241.0 + n / 4032, and its host is
10.16.0.0 + n, or at the end of the gateway's IPv6 network: consecutive hosts have consecutive leases, as the pool gives
them. Where they are "scattered" neighbours are not.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.lab import figure
from isthmus.plane import Programmable

if TYPE_CHECKING:
    from isthmus.border.plain import Hosts, PlainLeases
    from isthmus.daemon.uniform_routes import UniformRoutes
    from isthmus.plane.kernel import KernelPlane

NEAR, FAR = 1, 2
MOST = 1 << 20
PORTS, FIRST_PORT = 16, 1024
PER_ADDRESS = (65536 - FIRST_PORT) // PORTS
FIRST_ADDRESS, FIRST_HOST = 0x9570F100, 0x0A100000
MTU = 1440
SCATTERED = "scattered"
TUNNELS = {
    "ipip": figure.GATEWAY_NEAR,
    "gre": figure.GATEWAY_NEAR,
    "ipv6": figure.GATEWAY_NEAR6,
    SCATTERED: figure.GATEWAY_NEAR,
}
"""Kinds of tunnels, and our end of each; the last is IP-IP to hosts whose leases are anywhere."""
_APART = 0x9E3779B1
_PREFIX6 = Address.parse(figure.GATEWAY_NEAR6).octets[:12]


def apart(tunnel: str) -> int:
    """How far the hosts of consecutive leases are from each other, modulo ``MOST``; odd."""
    return _APART if tunnel == SCATTERED else 1


def host(lease: int, tunnel: str = "ipip") -> Address:
    """The host's end of its tunnel."""
    private = Address(Family.IPV4, FIRST_HOST + lease * apart(tunnel) % MOST)
    return Address.from_octets(_PREFIX6 + private.octets) if tunnel == "ipv6" else private


def address(lease: int) -> Address:
    """The address that is leased from."""
    return Address(Family.IPV4, FIRST_ADDRESS + lease // PER_ADDRESS)


def first_port(lease: int) -> int:
    """The first port of the slice."""
    return FIRST_PORT + lease % PER_ADDRESS * PORTS


def border(leases: int, tunnel: str = "ipip") -> Border:
    """Two realms, and the shared addresses that so many leases need."""
    addresses = (Address(Family.IPV4, FIRST_ADDRESS + at) for at in range((leases - 1) // PER_ADDRESS + 1))
    every = Ranges.of((FIRST_PORT, 65535))
    return Border(
        realms=(
            Realm(number=NEAR, name="private", interface="lan0", end=End.GATEWAY),
            Realm(number=FAR, name="public", interface="wan0", end=End.GATEWAY),
        ),
        tunnel_ends=(TunnelEnd(realm=NEAR, address=Address.parse(TUNNELS[tunnel]), leads_to=FAR),),
        claims=tuple(Selector(realm=FAR, local=Prefix.of(each), kind=Kind.PORT, values=every) for each in addresses),
        slice_size=PORTS,
    )


def taking(at: int, owner: Owner, admit: Admit, until: float, tunnel: str = "ipip") -> tuple[Register, Bind]:
    """What a gateway does to give the n-th lease to somebody."""
    selector = Selector(
        realm=FAR,
        local=Prefix.of(address(at)),
        kind=Kind.PORT,
        values=Ranges.of((first_port(at), first_port(at) + PORTS - 1)),
        remote=Remote(admit=admit),
    )
    crossing = Tunnel(
        realm=NEAR,
        local=Address.parse(TUNNELS[tunnel]),
        remote=owner.address,
        kind=TunnelKind.GRE if tunnel == "gre" else TunnelKind.IPIP,
        mtu=MTU,
    )
    lease = Lease(client_id=at + 1, method=Method.RSAP_IP, granted_at=until - 3600, expires_at=until)
    binding = Binding(key=BindingKey(owner, 1), selectors=(selector,), crossing=crossing)
    registration = Registration(owner=owner, client_id=at + 1, expires_at=until)
    return Register(registration=registration), Bind(binding=binding, lease=lease)


def effects(leases: int, admit: Admit, tunnel: str = "ipip") -> Iterator[Programmable]:
    """What a gateway would have done for these hosts."""
    until = math.floor(time.time()) + 3600
    for at in range(leases):
        yield from taking(at, Owner(NEAR, host(at, tunnel)), admit, until, tunnel)


def columns(leases: int, admit: Admit, tunnel: str) -> tuple[PlainLeases, Hosts]:
    """The same as columns."""
    import numpy as np

    from isthmus.border.plain import Hosts, PlainGroup, PlainLeases

    at = np.arange(leases, dtype=np.uint32)
    group = PlainGroup(
        realm=FAR,
        near=NEAR,
        end=Address.parse(TUNNELS[tunnel]),
        kind=TunnelKind.GRE if tunnel == "gre" else TunnelKind.IPIP,
        mtu=MTU,
        admit=admit,
        **({"upper": int.from_bytes(_PREFIX6, "big")} if tunnel == "ipv6" else {}),
    )
    plain = PlainLeases(
        group=group,
        local=np.uint32(FIRST_ADDRESS) + at // np.uint32(PER_ADDRESS),
        first=(FIRST_PORT + at % PER_ADDRESS * PORTS).astype(np.uint16),
        ports=np.full(leases, PORTS, np.uint32),
        owner=np.uint32(FIRST_HOST) + at * np.uint32(apart(tunnel)) % np.uint32(MOST),
        bind_id=np.ones(leases, np.uint32),
        expires_at=np.full(leases, math.floor(time.time()) + 3600.0),
    )
    return plain, Hosts(near=NEAR, address=plain.owner, **({"upper": group.upper} if tunnel == "ipv6" else {}))


def fill(plane: KernelPlane, leases: int, admit: Admit, tunnel: str = "ipip") -> None:
    """Let a plane have these leases and no others."""
    if "plain" in inspect.signature(plane.reconcile).parameters and (tunnel != "ipv6" or hasattr(plane, "groups6")):
        plain, hosts = columns(leases, admit, tunnel)
        plane.reconcile((), [plain], [hosts])
    else:
        plane.apply(effects(leases, admit, tunnel))


def offset() -> float:
    """Seconds since 1970 at which CLOCK_BOOTTIME was 0."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def know_routes(plane: KernelPlane) -> None:
    """Tell a plane once which destinations go the same way, for an hour; nobody may change the routes meanwhile."""
    from isthmus.daemon.uniform_routes import ask_routes, read_routes

    for groups in (plane.groups, plane.groups6):
        found = read_routes(groups, *ask_routes(groups.family))
        if found is None:
            raise SystemExit("not only destinations decide where packets go")
        groups.change(*found)
        groups.trust(int(time.clock_gettime(time.CLOCK_BOOTTIME)) + 3600)


def stay(plane: KernelPlane) -> None:
    """Follow the kernel's routes for a plane, as a daemon does, until the signal to end."""
    try:
        from isthmus.daemon.uniform_routes import UniformRoutes
    except ImportError:  # an earlier commit's
        print("ready", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    else:
        groups = [plane.groups, *([plane.groups6] if hasattr(plane, "groups6") else [])]
        asyncio.run(_follow([UniformRoutes(each) for each in groups]))


async def _follow(routes: list[UniformRoutes]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    for each in routes:
        each.start()
    async with asyncio.timeout(5):
        while not all(each.is_true for each in routes):  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)
    print("ready", flush=True)
    await ended.wait()
    for each in routes:
        each.close()
