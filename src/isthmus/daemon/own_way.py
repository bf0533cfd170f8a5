# SPDX-License-Identifier: BSD-3-Clause
"""How the programs of a border router reach what is in a site by translation only.

What comes to the router is taken before its IP stack sees it; what its own programs send is not, and goes to the
port of the realm by routes. Two kinds of them::

    a SIP-only host of the site   10.0.0.7 dev PORT                            nobody else has that address
    a pool of aliases             from the machine itself: dev PORT            by a rule, in a table of its own
                                  passing through, and nobody's at present:    unreachable

The second keeps a packet to an alias that has ended from going round between machine and plane.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Prefix
from isthmus.daemon.arp import PROTOCOL
from isthmus.daemon.offloop import off_loop

TABLE = 1573
"""Of the routes to aliases, and the preference of the rules that lead there."""
_LINK_SCOPE = 253
_LOOPBACK = "lo"


class OwnWays:
    """The routes of one border router."""

    def __init__(self) -> None:
        self._pools: list[Prefix] = []

    @off_loop
    def lead(self, port: str, *, hosts: Iterable[Prefix] = (), pools: Iterable[Prefix] = ()) -> None:
        """Lead to a port; its routes go with it.

        Args:
            port: The machine's end.
            hosts: Addresses that are there.
            pools: Of aliases.
        """
        with IPRoute() as links:
            index = links.link_lookup(ifname=port)[0]
            for prefix in hosts:
                links.route("replace", dst=str(prefix), oif=index, scope=_LINK_SCOPE, proto=PROTOCOL)
            for pool in pools:
                links.route("replace", dst=str(pool), oif=index, scope=_LINK_SCOPE, proto=PROTOCOL, table=TABLE)
                links.route("replace", dst=str(pool), type="unreachable", proto=PROTOCOL)
                self._rule(links, "del", pool)
                self._rule(links, "add", pool)
                self._pools.append(pool)

    @off_loop
    def clear(self) -> None:
        """Remove what does not go with a port."""
        if not self._pools:
            return
        with IPRoute() as links:
            while self._pools:
                pool = self._pools.pop()
                self._rule(links, "del", pool)
                with contextlib.suppress(NetlinkError):
                    links.route("del", dst=str(pool), type="unreachable", proto=PROTOCOL)

    @staticmethod
    def _rule(links: IPRoute, verb: str, pool: Prefix) -> None:
        with contextlib.suppress(NetlinkError):
            links.rule(
                verb,
                family=socket.AF_INET,
                table=TABLE,
                priority=TABLE,
                iifname=_LOOPBACK,
                dst=str(pool.address),
                dst_len=pool.length,
            )
