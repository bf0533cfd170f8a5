# SPDX-License-Identifier: BSD-3-Clause
"""What somebody wants this host to hold: a ``[[host.lease]]``, or a request on the control socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Method
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Remote, Selector
from isthmus.daemon.config import HostLeaseSection, prefix
from isthmus.daemon.config.host import identity_of
from isthmus.daemon.control import Connection, ControlError
from isthmus.rsip.events import Assigned
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.parameter import IkeIdentity

MACHINE_DEVICE = "rsip0"
"""Where a leased address lives on this machine if nobody says otherwise."""


@dataclass(slots=True, kw_only=True)
class Want:
    """Something that somebody wants to hold, and what is held of it."""

    wish: Wish
    device: str | None
    "The device of this machine that gets the address; None where a program has one of its own."
    plane_end: str | None = None
    "The plane's end of the program's own device."
    routes: tuple[Prefix, ...] = ()
    ephemeral: bool = False
    "Whether the machine's programs draw their ports from it."
    ike: bool = True
    "Whether port 500 is to be tried where it can be."
    stands: bool = False
    "Whether the configuration wants it: it is asked for again whenever it is lost."
    answer: asyncio.Future[Assigned] | None = None
    "Who waits for the first answer."
    holder: Connection | None = None
    held: Assigned | None = None
    key: BindingKey | None = None
    "Of the binding that is held."
    tunnel: Tunnel | None = None
    lives_on: str | None = None
    "The device that has the address now."
    since: float = 0.0
    "Seconds since 1970, when it was first held."
    request: int = 0


def configured(lease: HostLeaseSection, tunnels: tuple[TunnelKind, ...]) -> Want:
    """What a ``[[host.lease]]`` wants."""
    kind, data = identity_of(lease.identity) if lease.identity is not None else (0, b"")
    wish = Wish(
        method=_method(lease.whole, lease.spis is not None or lease.identity is not None),
        listens=lease.listen or lease.identity is not None,
        address=None if lease.address in (None, "any") else Address.parse(str(lease.address)),
        ports=lease.wanted_ports,
        spis=lease.spis,
        identity=IkeIdentity(kind=kind, data=data) if kind else None,
        remote=peer_of(lease.remote),
        remote_port=lease.remote_port,
        lease_seconds=lease.seconds,
        tunnels=tunnels,
    )
    return Want(
        wish=wish,
        device=lease.device,
        routes=tuple(prefix(each) for each in lease.routes),
        ephemeral=lease.is_ephemeral,
        ike=lease.ike,
        stands=True,
    )


def requested(request: dict[str, Any], connection: Connection, tunnels: tuple[TunnelKind, ...]) -> Want:
    """What a client of the control socket wants for as long as its connection lasts.

    Args:
        request: ``whole``, ``ports``, ``spis``, ``listen``, ``address``, ``remote``, ``remote_port``, ``seconds``,
            ``routes``; and ``device``, the plane's end of a device of its own, or ``on``, the name of a device
            of this machine.
        connection: The client.
        tunnels: Tunnel types to ask for.

    Raises:
        ControlError: it cannot be asked for.
    """
    try:
        whole, spis, ports = bool(request.get("whole")), request.get("spis"), request.get("ports")
        wish = Wish(
            method=_method(whole, spis is not None),
            listens=bool(request.get("listen")),
            address=Address.parse(request["address"]) if request.get("address") else None,
            ports=None if whole or ports is None else _count_or_ranges(ports),
            spis=None if spis is None else _count_or_ranges(spis),
            remote=peer_of(request.get("remote")),
            remote_port=request.get("remote_port"),
            lease_seconds=request.get("seconds"),
            tunnels=tunnels,
        )
        routes = tuple(Prefix.parse(each) for each in request.get("routes", ()))
    except (ValueError, TypeError) as error:
        raise ControlError(f"this cannot be asked for: {error}") from error
    plane_end = request.get("device")
    device = None if plane_end is not None else str(request.get("on", MACHINE_DEVICE))
    return Want(
        wish=wish,
        device=device,
        plane_end=None if plane_end is None else str(plane_end),
        routes=routes,
        answer=asyncio.get_running_loop().create_future(),
        holder=connection,
    )


def peer_of(text: str | None) -> Address | str | None:
    """An address, or a name that is none."""
    if text is None:
        return None
    try:
        return Address.parse(text)
    except ValueError:
        return text


def binding_of(want: Want, held: Assigned, *, realm: int, tunnel: Tunnel, key: BindingKey, end: str | None) -> Binding:
    """What a plane needs to know of a lease.

    Args:
        want: Who wanted it.
        held: What was granted.
        realm: Number of the realm of leased addresses.
        tunnel: The way to the gateway.
        key: Names the binding.
        end: The plane's end of the device.
    """
    local = Prefix.of(held.address)
    network = None if held.remote_address is None else Prefix.of(held.remote_address)
    whole = Remote(network=network, port=held.remote_port)
    # The ESP of a peer has no port to be limited to.
    addressed = Remote(network=network)
    selectors = []
    if held.ports is not None:
        selectors.append(Selector(realm=realm, local=local, kind=Kind.PORT, values=held.ports, remote=whole))
    if held.spis is not None:
        selectors.append(Selector(realm=realm, local=local, kind=Kind.SPI, values=held.spis, remote=addressed))
    if held.identity is not None:
        values = Ranges.of(held.identity)
        selectors.append(Selector(realm=realm, local=local, kind=Kind.IDENTITY, values=values, remote=addressed))
    if held.ike and want.ike:
        selectors.append(Selector(realm=realm, local=local, kind=Kind.COOKIE, remote=addressed))
    if held.whole:
        selectors.append(Selector(realm=realm, local=local, remote=whole))
    return Binding(key=key, selectors=tuple(selectors), crossing=tunnel, device=end)


def row_of(want: Want, *, client_id: int, host: Address) -> dict[str, Any]:
    """A lease as the control socket shows it; times in seconds since 1970."""
    held, tunnel = want.held, want.tunnel
    assert held is not None
    assert tunnel is not None
    remote = None if held.remote_address is None else str(held.remote_address)
    return {
        "client_id": client_id,
        "host": str(host),
        "bind_id": held.bind_id,
        "address": str(held.address),
        "ports": _text(held.ports),
        "spis": _text(held.spis),
        "listens": held.listens,
        "ike": held.ike,
        "remote": remote,
        "remote_port": held.remote_port,
        "method": held.method.name,
        "tunnel": held.tunnel_kind.name,
        "endpoint": str(held.tunnel_endpoint),
        "mtu": tunnel.mtu,
        "granted_at": want.since,
        "expires_at": held.expires_at,
        "device": want.lives_on,
    }


def _text(ranges: Ranges | None) -> str | None:
    return None if ranges is None else str(ranges)


def _method(whole: bool, ipsec: bool) -> Method:
    if whole:
        return Method.RSA_IP
    return Method.RSIPSEC if ipsec else Method.RSAP_IP


def _count_or_ranges(value: object) -> int | Ranges:
    return value if isinstance(value, int) else Ranges.parse(str(value))
