# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane as the border router of a SIP site, by itself, until it is told to end.

    python bench/border_router.py SITE-INTERFACE NET-INTERFACE native|datagram LOCAL NEIGHBOUR

It runs in the gateway's namespace of ``networks.network``. Its site is 1.213.77.5, whose hosts have 10.0.0.0/8; the
site 1.2.2.8 has 198.18.0.0/15 and is reached by the net.
"""

from __future__ import annotations

import signal
import sys
import time

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.effect import Bind, Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Selector
from isthmus.errors import IsthmusError
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane

SITE, NET, SIP = 1, 2, 3
OWN, OTHER = Prefix.parse_sip("1.213.77.5/32"), Prefix.parse_sip("1.2.2.8/32")
HOSTS, PEERS = Prefix.parse("10.0.0.0/8"), Prefix.parse("198.18.0.0/15")
C_BIT = 1 << 63


def known_as(site: Prefix, address: str) -> bytes:
    """The SIP address, C bit set, of an IPv4 host of a site."""
    return (site.address.number | C_BIT).to_bytes(8, "big")[:4] + Address.parse(address).octets


def for_ipv4(site: Prefix) -> Prefix:
    """The site's hosts that take IPv4 only."""
    return Prefix(Address(Family.SIP, site.address.number | C_BIT), 32)


def border(local: Address) -> Border:
    """The site, the net, and SIP; datagrams end at ``local``."""
    return Border(
        realms=(
            Realm(number=SITE, name="site", sip=SIP, site=OWN, mtu=1500),
            Realm(number=NET, name="net", sip=SIP, mtu=1500),
            Realm(number=SIP, name="sip", family=Family.SIP),
        ),
        tunnel_ends=(TunnelEnd(realm=NET, address=local, leads_to=SIP),),
    )


def bind(prefix: Prefix, crossing: Crossing) -> Bind:
    """A binding of the SIP realm."""
    key = BindingKey(Owner(SIP, prefix.address), prefix.length)
    return Bind(
        binding=Binding(key=key, selectors=(Selector(realm=SIP, local=prefix),), crossing=crossing),
        lease=Lease(client_id=0, method=Method.RSA_IP, granted_at=0.0, expires_at=FOREVER),
    )


def effects(local: Address, neighbour: Address, way: str, mapping: Mapping) -> list[Programmable]:
    """What the configuration of such a router comes to.

    Args:
        local: Our address on the net.
        neighbour: The next IPAE system there.
        way: "native" or "datagram".
        mapping: Of the site's IPv4.
    """
    onward: Crossing = Native(realm=NET, neighbour=neighbour)
    if way == "datagram":
        onward = Encapsulation(realm=NET, local=local, remote=neighbour)
    return [
        bind(for_ipv4(OWN), Translate(realm=SITE, image=Prefix.parse("0.0.0.0/0"))),
        bind(Prefix(Address(Family.SIP, 0), 0), onward),
        Remap(realm=SITE, sip=SIP, mapping=mapping),
    ]


def main() -> None:
    """Attach, fill, wait."""
    site, net, way, local, neighbour = sys.argv[1:]
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ours = Address.parse(local)
    plane = KernelPlane(border(ours), pin=None, boot_offset=offset)
    try:
        plane.apply(effects(ours, Address.parse(neighbour), way, Mapping.of([(PEERS, for_ipv4(OTHER))])))
        plane.attach(SITE, site)
        plane.attach(NET, net)
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
