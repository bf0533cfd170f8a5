# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane by itself, holding as many leases as a benchmark wants, until it is told to end.

    python bench/plane.py LEASES [ipip|gre|ipv6]

It runs in the gateway's namespace of ``networks.network``. Every host holds one lease, of the shared
addresses that ``packets.lease_of`` counts out, and its peers are those it has contacted.
"""

from __future__ import annotations

import math
import signal
import sys
import time

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import IsthmusError
from isthmus.lab import figure
from isthmus.plane.kernel import KernelPlane
from packets import PORTS_OF_A_LEASE, host_of, lease_of

NEAR, FAR = 1, 2
GATEWAYS = {"ipip": figure.GATEWAY_NEAR, "gre": figure.GATEWAY_NEAR, "ipv6": figure.GATEWAY_NEAR6}


def host_end(at: int, tunnel: str) -> Address:
    """The n-th host's end of its tunnel: its private address, or that at the end of the gateway's IPv6 network."""
    private = Address.parse(host_of(at))
    if tunnel != "ipv6":
        return private
    return Address.from_octets(Address.parse(figure.GATEWAY_NEAR6).octets[:12] + private.octets)


def border(leases: int, tunnel: str) -> Border:
    """Two realms, and the shared addresses that so many leases need."""
    addresses = sorted({lease_of(at)[0] for at in range(leases)})
    claims = (
        Selector(realm=FAR, local=Prefix.parse(each), kind=Kind.PORT, values=Ranges.of((1024, 65535)))
        for each in addresses
    )
    return Border(
        realms=(
            Realm(number=NEAR, name="private", interface="lan0", end=End.GATEWAY),
            Realm(number=FAR, name="public", interface="wan0", end=End.GATEWAY),
        ),
        tunnel_ends=(TunnelEnd(realm=NEAR, address=Address.parse(GATEWAYS[tunnel]), leads_to=FAR),),
        claims=tuple(claims),
        slice_size=PORTS_OF_A_LEASE,
    )


def effects(at: int, tunnel: str, until: float) -> tuple[Register, Bind]:
    """What a gateway would have done for the n-th host."""
    owner = Owner(NEAR, host_end(at, tunnel))
    address, first = lease_of(at)
    binding = Binding(
        key=BindingKey(owner, 1),
        selectors=(
            Selector(
                realm=FAR,
                local=Prefix.parse(address),
                kind=Kind.PORT,
                values=Ranges.of((first, first + PORTS_OF_A_LEASE - 1)),
                remote=Remote(admit=Admit.CONTACTED),
            ),
        ),
        crossing=Tunnel(
            realm=NEAR,
            local=Address.parse(GATEWAYS[tunnel]),
            remote=owner.address,
            kind=TunnelKind.GRE if tunnel == "gre" else TunnelKind.IPIP,
            mtu=1440,
        ),
    )
    lease = Lease(client_id=at + 1, method=Method.RSAP_IP, granted_at=until - 3600, expires_at=until)
    return Register(registration=Registration(owner=owner, client_id=at + 1, expires_at=until)), Bind(
        binding=binding, lease=lease
    )


def main() -> None:
    """Attach, fill, wait."""
    leases, tunnel = int(sys.argv[1]), (*sys.argv[2:], "ipip")[0]
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    plane = KernelPlane(border(leases, tunnel), pin=None, boot_offset=offset)
    try:
        until = math.floor(time.time()) + 3600
        plane.apply(each for at in range(leases) for each in effects(at, tunnel, until))
        plane.attach(NEAR, "lan0")
        plane.attach(FAR, "wan0")
        print("ready", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        print({reason.name: count for reason, count in plane.counters().items() if count}, flush=True)
    finally:
        plane.destroy()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        main()
    except IsthmusError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
