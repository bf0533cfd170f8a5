# SPDX-License-Identifier: BSD-3-Clause
"""Leased addresses on devices of this machine, and the routes from there.

Several leases may share a device and even an address; the address goes with the last of them. A
packet from a leased address must leave by its device, wherever it goes (RFC 3102 §3.1): a service that strangers
call answers peers that no configured route leads to. So each device has a routing table with a default
route, and a rule for each of its addresses says ``from ADDRESS lookup TABLE``::

    program ── src 149.112.240.55 ──▶ rule: from 149.112.240.55 ──▶ table 455500 + n: default dev rsip0
    program ── no source yet ───────▶ main table: 192.156.136.0/24 dev rsip0 src 149.112.240.55
    program ── dst 149.112.240.55 ──▶ rule: to 149.112.240.55 iif lo ──▶ the same table (``shared_address``)
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address, Prefix
from isthmus.border.crossing import Tunnel
from isthmus.daemon import shared_address
from isthmus.daemon.carrier import Carrier
from isthmus.daemon.device import write_sysctl
from isthmus.daemon.offloop import off_loop
from isthmus.daemon.shared_address import TABLES

_PRIORITY = 4555
"""Of the rules: after the machine's own addresses, before its main table."""
_LINK_SCOPE = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenancy:
    """One lease on a device."""

    device: str
    address: Address
    routes: tuple[Prefix, ...]
    mtu: int
    shared: bool
    "Whether others have ports of the address, too."


class LeasedAddresses:
    """What is on the devices of this machine.

    Args:
        carrier: Makes and removes the devices.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._tenancies: dict[int, Tenancy] = {}
        self._led: dict[Address, int] = {}

    def settle(
        self,
        bind_id: int,
        device: str,
        address: Address,
        routes: Iterable[Prefix],
        tunnel: Tunnel,
        *,
        shared: bool = True,
    ) -> None:
        """Give a device, which exists, the address of a lease and the routes that lead through it.

        Args:
            bind_id: The lease.
            device: Its device.
            address: The leased address.
            routes: Destinations that programs reach from there without choosing a source.
            tunnel: For the MTU: routes announce it, so that TCP's MSS fits.
            shared: Whether others have ports of the address, too, and are to be reached there.

        Raises:
            OSError, NetlinkError: the device has gone.
        """
        tenancy = Tenancy(device=device, address=address, routes=tuple(routes), mtu=tunnel.mtu, shared=shared)
        self._tenancies[bind_id] = tenancy
        _settle(tenancy, min(each.mtu for each in self._on(device)))
        self._lead_out()

    def _lead_out(self) -> None:
        """Let what programs send to the leased addresses go by the tunnel, too."""
        shared = tuple((each.address, each.device) for each in self._tenancies.values() if each.shared)
        self._led = _lead_out(shared, self._led)

    def leave(self, bind_id: int) -> None:
        """A lease is over: its routes go, and with the last lease the address and the device."""
        tenancy = self._tenancies.pop(bind_id, None)
        if tenancy is None:
            return
        others = self._on(tenancy.device)
        self._lead_out()
        if not others:
            _unsettle(tenancy, set(tenancy.routes), address=True)
            self._carrier.shut(tenancy.device)
            return
        kept = {route for each in others for route in each.routes}
        shared = any(each.address == tenancy.address for each in others)
        _unsettle(tenancy, set(tenancy.routes) - kept, address=not shared)

    def device_of(self, bind_id: int) -> str | None:
        """The device of a lease."""
        tenancy = self._tenancies.get(bind_id)
        return None if tenancy is None else tenancy.device

    def _on(self, device: str) -> list[Tenancy]:
        return [each for each in self._tenancies.values() if each.device == device]

    def clear(self) -> None:
        """Every lease is over."""
        for bind_id in tuple(self._tenancies):
            self.leave(bind_id)


@off_loop
def _settle(tenancy: Tenancy, mtu: int) -> None:
    with IPRoute() as links:
        index = links.link_lookup(ifname=tenancy.device)[0]
        links.link("set", index=index, state="up", mtu=mtu)
        links.addr("replace", index=index, address=str(tenancy.address), prefixlen=32)
        metrics = {"mtu": tenancy.mtu, "advmss": tenancy.mtu - 40}
        source = str(tenancy.address)
        for route in tenancy.routes:
            links.route("replace", dst=str(route), oif=index, prefsrc=source, scope=_LINK_SCOPE, metrics=metrics)
        table = TABLES + index
        links.route("replace", dst="0.0.0.0/0", oif=index, scope=_LINK_SCOPE, table=table, metrics=metrics)
        _drop_stale_rules(links)
        with contextlib.suppress(NetlinkError):
            links.rule("add", **_rule(tenancy, table))
    # A peer that calls comes by the tunnel, whatever the main table thinks of the way to it.
    strict = Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text(encoding="ascii").strip() != "0"
    write_sysctl(f"net/ipv4/conf/{tenancy.device}/rp_filter", "2" if strict else "0")


@off_loop
def _unsettle(tenancy: Tenancy, routes: set[Prefix], *, address: bool) -> None:
    """Undo; what has gone by itself, with its device, is no error."""
    with IPRoute() as links:
        found = links.link_lookup(ifname=tenancy.device)
        if not found:
            _drop_stale_rules(links)
            return
        index = found[0]
        for route in routes:
            with contextlib.suppress(NetlinkError):
                links.route("del", dst=str(route), oif=index)
        if address:
            with contextlib.suppress(NetlinkError):
                links.addr("del", index=index, address=str(tenancy.address), prefixlen=32)
            with contextlib.suppress(NetlinkError):
                links.rule("del", **_rule(tenancy, TABLES + index))


@off_loop
def _lead_out(held: tuple[tuple[Address, str], ...], former: dict[Address, int]) -> dict[Address, int]:
    with IPRoute() as links:
        tables = {}
        for address, device in held:
            for index in links.link_lookup(ifname=device):
                tables[address] = TABLES + index
        shared_address.lead_out(links, tables, former)
    return tables


def _rule(tenancy: Tenancy, table: int) -> dict[str, object]:
    return {
        "family": socket.AF_INET,
        "src": str(tenancy.address),
        "src_len": 32,
        "table": table,
        "priority": _PRIORITY,
    }


def _drop_stale_rules(links: IPRoute) -> None:
    """Remove the rules of devices that are no more: a daemon that was killed leaves them."""
    there = {each["index"] for each in links.get_links()}
    for rule in links.get_rules(family=socket.AF_INET):
        table = rule.get_attr("FRA_TABLE") or 0
        if rule.get_attr("FRA_PRIORITY") == _PRIORITY and table > TABLES and table - TABLES not in there:
            with contextlib.suppress(NetlinkError):
                links.rule(
                    "del",
                    family=socket.AF_INET,
                    src=rule.get_attr("FRA_SRC"),
                    src_len=32,
                    table=table,
                    priority=_PRIORITY,
                )
