# SPDX-License-Identifier: BSD-3-Clause
"""A host's side of the control channel: one UDP socket, or one TCP connection; no rule of RSIP in it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address, Family, Prefix
from isthmus.border.effect import Peer
from isthmus.daemon.offloop import off_loop
from isthmus.errors import ConfigError, WireError
from isthmus.wire.rsip.stream import MessageStream

RECONNECT_SECONDS = 1.0
_TENTATIVE_SECONDS = 5.0
"""How long an IPv6 address may be too new to be used (RFC 4862 §5.4)."""
_UNWANTED = 0x08 | 0x20 | 0x01
"""IFA_F_DADFAILED, IFA_F_DEPRECATED and IFA_F_TEMPORARY: addresses that a registration cannot rest on."""
_UNIVERSE, _SITE = 0, 200
_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


class Link(Protocol):
    """Takes messages to the gateway and brings its messages back."""

    @property
    def local_port(self) -> int | None:
        """Our port, while there is one."""

    async def start(self) -> None:
        """Open."""

    def send(self, data: bytes) -> None:
        """Send one message, or lose it."""

    def stop(self) -> None:
        """Close."""


class DatagramLink:
    """UDP, from a fresh ephemeral port (spec 7) unless one is named.

    Args:
        gateway: Where messages go.
        here: Our address.
        deliver: Gets every datagram and who sent it; whether that is the gateway is for the protocol to judge.
        port: Ours; 0: any.
    """

    def __init__(self, gateway: Peer, here: Address, deliver: Callable[[bytes, Peer], None], *, port: int = 0) -> None:
        self._port = port
        self._gateway = gateway
        self._here = here
        self._deliver = deliver
        self._socket: socket.socket | None = None

    @property
    def local_port(self) -> int | None:
        """Our port."""
        return self._socket.getsockname()[1] if self._socket is not None else None

    async def start(self) -> None:
        """Open the socket; an IPv6 address that is still being probed is waited for."""
        opened = socket.socket(_FAMILIES[self._here.family], socket.SOCK_DGRAM)
        deadline = asyncio.get_running_loop().time() + _TENTATIVE_SECONDS
        while True:
            try:
                opened.bind((str(self._here), self._port))
                break
            except OSError as error:
                late = asyncio.get_running_loop().time() > deadline
                if error.errno != errno.EADDRNOTAVAIL or self._here.family is Family.IPV4 or late:
                    opened.close()
                    raise
            await asyncio.sleep(0.1)
        opened.setblocking(False)
        self._socket = opened
        asyncio.get_running_loop().add_reader(opened, self._read)

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self._socket is not None:
                data, source = self._socket.recvfrom(65535)
                address = Address.parse(source[0].partition("%")[0])
                self._deliver(data, Peer(self._gateway.realm, address, source[1]))

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(data, (str(self._gateway.address), self._gateway.port))

    def stop(self) -> None:
        """Close."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None


class StreamLink:
    """TCP; a lost connection is made again, and the registration goes on (spec 2)."""

    def __init__(
        self, gateway: Peer, here: Address, deliver: Callable[[bytes, Peer], None], lost: Callable[[], None]
    ) -> None:
        self._gateway = gateway
        self._here = str(here)
        self._deliver = deliver
        self._lost = lost
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def local_port(self) -> int | None:
        """Our port."""
        return self._writer.get_extra_info("sockname")[1] if self._writer is not None else None

    async def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, WireError):
                await self._connection()
            if self._writer is not None:
                self._writer = None
                self._lost()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connection(self) -> None:
        to = str(self._gateway.address), self._gateway.port
        reader, writer = await asyncio.open_connection(*to, local_addr=(self._here, 0))
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writer = writer
        for data in self._waiting:
            writer.write(data)
        self._waiting.clear()
        stream = MessageStream()
        try:
            while octets := await reader.read(65536):
                for message in stream.feed(octets):
                    self._deliver(message, self._gateway)
        finally:
            writer.close()

    def send(self, data: bytes) -> None:
        """Send one message; it waits for the connection to be made."""
        if self._writer is not None:
            self._writer.write(data)
        else:
            self._waiting = [*self._waiting[-8:], data]

    def stop(self) -> None:
        """Close."""
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.close()


@off_loop
def interface_address(interface: str, realm: str, toward: Address) -> Address:
    """The address of an interface that the gateway will know this host by.

    Of its addresses of the gateway's family: one whose network the gateway is in, else the one that the route there
    names, else the first. Where programs have SIP by IPv6 sockets, each of the two prefixes has an address of its own.

    Args:
        interface: The interface.
        realm: What the configuration calls the realm that it leads into, for the error.
        toward: The gateway.

    Raises:
        ConfigError: there is no such interface, or it has no address.
    """
    with IPRoute() as links:
        found = links.link_lookup(ifname=interface)
        if not found:
            raise ConfigError("host", key=f"realm {realm}", reason=f"interface {interface!r} does not exist")
        addresses: list[tuple[Address, int]] = []
        for each in links.get_addr(family=_FAMILIES[toward.family], index=found[0]):
            flags = each.get_attr("IFA_FLAGS") or each["flags"]
            if each["scope"] in (_UNIVERSE, _SITE) and (toward.family is Family.IPV4 or not flags & _UNWANTED):
                text = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
                addresses.append((Address.parse(text), each["prefixlen"]))
    for address, length in addresses:
        if toward in _network(address, length):
            return address
    if addresses:
        chosen = _route_source(found[0], toward)
        return chosen if chosen in [address for address, _ in addresses] else addresses[0][0]
    family = "IPv4" if toward.family is Family.IPV4 else "IPv6"
    raise ConfigError("host", key=f"realm {realm}", reason=f"interface {interface!r} has no {family} address")


@off_loop
def _route_source(index: int, toward: Address) -> Address | None:
    """The address that the kernel would speak from by an interface; None: there is no route."""
    with IPRoute() as links, contextlib.suppress(NetlinkError):
        for route in links.route("get", family=_FAMILIES[toward.family], dst=str(toward), oif=index):
            source = route.get_attr("RTA_PREFSRC")
            return None if source is None else Address.parse(source)
    return None


def _network(address: Address, length: int) -> Prefix:
    spare = address.family.bits - length
    return Prefix(Address(address.family, address.number >> spare << spare), length)


@off_loop
def interface_mtu(interface: str) -> int:
    """The MTU of an interface in octets; 1500 if it has gone."""
    with IPRoute() as links:
        found = links.link_lookup(ifname=interface)
        return int(links.get_links(found[0])[0].get_attr("IFLA_MTU")) if found else 1500
