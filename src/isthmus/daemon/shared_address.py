# SPDX-License-Identifier: BSD-3-Clause
"""A leased address that others share: what a program sends to it is not for this machine alone.

Two hosts that talk with each other, both by the public address that they share, send packets whose source and
destination are the same address. A stack takes that address for its own, and they would never leave it (RFC 3102
§6.7 leaves it open; spec 14.7). So a rule that comes before the table ``local`` sends by the tunnel what programs
send to the address; the gateway knows whose port it is, and what is ours comes back. What *arrives* for the
address is ours, as ever::

    0:  to 149.112.240.55 iif lo lookup 455500 + n       what programs send: by the tunnel
    1:  lookup local                                     everything else; it stood at 0
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address

TABLES = 455_500
"""The routing tables of devices are numbered from here by the index of the device."""
_LOCAL = 255
"""The table of the machine's own addresses."""
_FIRST, _SECOND = 0, 1


def lead_out(links: IPRoute, tables: Mapping[Address, int], former: Mapping[Address, int] | None = None) -> None:
    """Send by these tables what programs of this namespace send to these addresses.

    The table ``local`` is looked at by a rule at every moment. Rules of other agents stay; those whose device
    is gone go.

    Args:
        links: An open socket of the namespace.
        tables: The routing table of each address.
        former: What the same caller said before; what is not among ``tables`` any more goes.
    """
    wanted = {(str(address), table) for address, table in tables.items()}
    over = {(str(address), table) for address, table in (former or {}).items()} - wanted
    there = _rules(links)
    indexes = {each["index"] for each in links.get_links()}
    over |= {each for each in there if each[1] > TABLES and each[1] - TABLES not in indexes}
    if wanted:
        _add(links, table=_LOCAL, priority=_SECOND)
    for destination, table in wanted - there:
        _add(links, dst=destination, dst_len=32, iifname="lo", table=table, priority=_FIRST)
    if wanted:
        _remove(links, table=_LOCAL, priority=_FIRST)
    for destination, table in over & there:
        _remove(links, dst=destination, dst_len=32, iifname="lo", table=table, priority=_FIRST)
    if not _rules(links):
        _add(links, table=_LOCAL, priority=_FIRST)
        _remove(links, table=_LOCAL, priority=_SECOND)


def _rules(links: IPRoute) -> set[tuple[str, int]]:
    """Destinations and tables of the rules of this kind that there are."""
    return {
        (rule.get_attr("FRA_DST"), rule.get_attr("FRA_TABLE"))
        for rule in links.get_rules(family=socket.AF_INET)
        if not rule.get_attr("FRA_PRIORITY") and rule.get_attr("FRA_IIFNAME") == "lo" and rule.get_attr("FRA_DST")
    }


def _add(links: IPRoute, **rule: object) -> None:
    """Add a rule; one that is there already is no error."""
    with contextlib.suppress(NetlinkError):
        links.rule("add", family=socket.AF_INET, **rule)


def _remove(links: IPRoute, **rule: object) -> None:
    """Remove a rule; one that is gone is no error."""
    with contextlib.suppress(NetlinkError):
        links.rule("del", family=socket.AF_INET, **rule)
