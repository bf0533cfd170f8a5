# SPDX-License-Identifier: BSD-3-Clause
"""The device through which programs that know no SIP send and receive it (spec 8.2).

A veth pair as every device (docs/data-plane.md, "Devices"), but for IPv6: ``NAME`` has PF:A and PC(H):A, and a route
to each of the two prefixes from the right one of them, so that the checksum that the kernel makes is
the one that SIP wants. Nobody looks for neighbours there; the pair does no ARP and no neighbour discovery.

A default route of the last resort leads there, too. The plane refuses what comes by it (ICMPv6 1/0), but that there is
one makes browsers ask for IPv6 addresses at all: chromium does so only if a socket can be connected to the Internet's.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address, Prefix
from isthmus.daemon import device as devices
from isthmus.daemon.offloop import off_loop
from isthmus.errors import Unsupported
from isthmus.ipae.neutral import Sockets
from isthmus.plane.link import pair
from isthmus.plane.link.features import Features

_LAST_RESORT = (1 << 32) - 1
"The metric of a route that any other of the machine is better than."
_NO_DAD = 0x02
"IFA_F_NODAD: nobody else is on the pair (RFC 4862 §5.4)."
_SETTINGS = {
    "accept_ra": "0",
    "autoconf": "0",
    "addr_gen_mode": "1",
    "router_solicitations": "0",
    "accept_dad": "0",
    "disable_ipv6": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SipDevice:
    """A device that is to be."""

    name: str
    mtu: int
    "Largest packet in either direction, in octets."
    address: Address
    "Our SIP address."
    sockets: Sockets | None
    "Prefixes of IPv6 sockets; None: they are IPv4 sockets."
    aliases: tuple[Prefix, ...] = ()
    "For IPv4 sockets: where their peers are."

    @property
    def plane_end(self) -> str:
        """The end that the plane reads and writes."""
        return f"{self.name}p"


@off_loop
def create(device: SipDevice) -> None:
    """Make the device in the current network namespace; what has its name already is replaced.

    Raises:
        PlaneError: the kernel refuses; says what is missing.
    """
    pair.create(device.name, mtu=device.mtu)
    features = Features()
    for end in (device.name, device.plane_end):
        # What programs send has to be whole: nobody may finish checksums or cut segments by the rules of IPv6 later.
        features.turn_off(end, sending=True)
        devices.write_sysctl(f"net/ipv4/conf/{end}/rp_filter", "0")
        devices.write_sysctl(f"net/ipv6/conf/{end}/disable_ipv6", "1")
    try:
        with IPRoute() as links:
            index = links.link_lookup(ifname=device.name)[0]
            if device.sockets is None:
                _configure_ipv4(links, index, device)
            else:
                _configure_ipv6(links, index, device, device.sockets)
    except (NetlinkError, OSError) as error:
        pair.remove(device.name)
        raise Unsupported(f"addresses of {device.name}", remedy=f"the kernel says {error}") from error


def _configure_ipv6(links: IPRoute, index: int, device: SipDevice, sockets: Sockets) -> None:
    for key, value in _SETTINGS.items():
        devices.write_sysctl(f"net/ipv6/conf/{device.name}/{key}", value)
    for prefix, compatible in ((sockets.full, False), (sockets.compatible, True)):
        own = sockets.to_ipv6(device.address, compatible=compatible)
        links.addr("replace", index=index, family=socket.AF_INET6, address=str(own), prefixlen=128, flags=_NO_DAD)
        links.route(
            "replace",
            family=socket.AF_INET6,
            dst=str(prefix),
            oif=index,
            prefsrc=str(own),
            metrics={"mtu": device.mtu},
        )
    source = str(sockets.to_ipv6(device.address, compatible=False))
    links.route("replace", family=socket.AF_INET6, dst="default", oif=index, prefsrc=source, priority=_LAST_RESORT)


def _configure_ipv4(links: IPRoute, index: int, device: SipDevice) -> None:
    own = str(device.address.low)
    links.addr("replace", index=index, address=own, prefixlen=32)
    for pool in device.aliases:
        links.route("replace", dst=str(pool), oif=index, prefsrc=own, scope=253, metrics={"mtu": device.mtu})


@off_loop
def remove(device: SipDevice) -> None:
    """Remove the device; one that is gone is no error."""
    pair.remove(device.plane_end)
