# SPDX-License-Identifier: BSD-3-Clause
"""Veth pairs ``NAME``/``NAMEp``: what a port and a host's device are made of (docs/data-plane.md, "Devices").

Both ends have one MAC address and do no ARP, so that a frame written at one end without a
neighbour entry is taken at the other.
"""

from __future__ import annotations

import contextlib
import secrets

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.errors import PlaneError, Unsupported

LONGEST_NAME = 14
"""Octets of a pair's name: one less than an interface's, for the letter that the plane's end has more."""


def create(name: str, *, mtu: int) -> None:
    """Make a pair in the current network namespace; what has its name already is replaced.

    Args:
        name: What the machine's, or the program's, end is called.
        mtu: Of both ends, in octets.

    Raises:
        PlaneError: a name that is too long.
        Unsupported: the kernel refuses; says what is missing.
    """
    if not 0 < len(name) <= LONGEST_NAME:
        raise PlaneError(f"device name {name!r} has {len(name)} characters; 1 to {LONGEST_NAME} are possible")
    mac = "02:" + ":".join(f"{octet:02x}" for octet in secrets.token_bytes(5))
    try:
        with IPRoute() as links:
            for index in links.link_lookup(ifname=name):
                links.link("del", index=index)
            peer = {"ifname": f"{name}p", "address": mac, "mtu": mtu}
            links.link("add", ifname=name, kind="veth", address=mac, mtu=mtu, peer=peer)
            for end in (name, f"{name}p"):
                links.link("set", index=links.link_lookup(ifname=end)[0], state="up", arp=False)
    except NetlinkError as error:
        remedy = "needs CAP_NET_ADMIN: run as root" if error.code == 1 else f"the kernel says {error}"
        raise Unsupported(f"device {name}", remedy=remedy) from error


def remove(end: str) -> None:
    """Remove a pair by the name of either end; one that is gone is no error."""
    with contextlib.suppress(NetlinkError), IPRoute() as links:
        for index in links.link_lookup(ifname=end):
            links.link("del", index=index)
