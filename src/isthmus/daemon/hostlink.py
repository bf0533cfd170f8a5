# SPDX-License-Identifier: BSD-3-Clause
"""A host's side of the control channel: one UDP socket, or one TCP connection; no rule of RSIP in it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

from pyroute2 import IPRoute

from isthmus.address import Address
from isthmus.border.effect import Peer
from isthmus.daemon.offloop import off_loop
from isthmus.errors import ConfigError, WireError
from isthmus.wire.rsip.stream import MessageStream

RECONNECT_SECONDS = 1.0


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
    """UDP, from a fresh ephemeral port (spec 7) unless one is named."""

    def __init__(self, gateway: Peer, here: Address, deliver: Callable[[bytes], None], *, port: int = 0) -> None:
        self._port = port
        self._to = (str(gateway.address), gateway.port)
        self._here = str(here)
        self._deliver = deliver
        self._socket: socket.socket | None = None

    @property
    def local_port(self) -> int | None:
        """Our port."""
        return self._socket.getsockname()[1] if self._socket is not None else None

    async def start(self) -> None:
        """Open the socket; connected, so that only the gateway is heard (spec 19)."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self._here, self._port))
        self._socket.connect(self._to)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                self._deliver(self._socket.recv(65535))

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(data)

    def stop(self) -> None:
        """Close."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None


class StreamLink:
    """TCP; a lost connection is made again, and the registration goes on (spec 2)."""

    def __init__(
        self, gateway: Peer, here: Address, deliver: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        self._to = (str(gateway.address), gateway.port)
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
        reader, writer = await asyncio.open_connection(*self._to, local_addr=(self._here, 0))
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writer = writer
        for data in self._waiting:
            writer.write(data)
        self._waiting.clear()
        stream = MessageStream()
        try:
            while octets := await reader.read(65536):
                for message in stream.feed(octets):
                    self._deliver(message)
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
def interface_address(interface: str, realm: str) -> Address:
    """The first IPv4 address of an interface: what the gateway knows this host by.

    Raises:
        ConfigError: there is no such interface, or it has no address.
    """
    with IPRoute() as links:
        found = links.link_lookup(ifname=interface)
        if not found:
            raise ConfigError("host", key=f"realm {realm}", reason=f"interface {interface!r} does not exist")
        for each in links.get_addr(family=socket.AF_INET, index=found[0]):
            return Address.parse(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
    raise ConfigError("host", key=f"realm {realm}", reason=f"interface {interface!r} has no IPv4 address")


@off_loop
def interface_mtu(interface: str) -> int:
    """The MTU of an interface in octets; 1500 if it has gone."""
    with IPRoute() as links:
        found = links.link_lookup(ifname=interface)
        return int(links.get_links(found[0])[0].get_attr("IFLA_MTU")) if found else 1500
