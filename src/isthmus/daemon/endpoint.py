# SPDX-License-Identifier: BSD-3-Clause
"""Sockets of the control protocol, UDP and TCP on port 4555; no rule of RSIP in it.

Datagrams are read until the socket is empty and handed over together, so that one
transaction can make many leases durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Sequence

from isthmus.address import Address, Family
from isthmus.border.effect import Peer
from isthmus.daemon.datagrams import AT_ONCE, Datagrams
from isthmus.errors import ConfigError, WireError
from isthmus.rsip.ended import Farewells
from isthmus.wire.rsip.stream import MessageStream

IDLE_SECONDS = 3600.0
"""A TCP client that says nothing for so long is let go; its registration has a lease of its own."""
MESSAGE_SECONDS = 30.0
"""How long a TCP client may take over one message once it has begun it."""
CONNECTIONS_PER_HOST = 8
READS_AT_ONCE = 8
"""How often the UDP socket is read in one turn of the event loop, if it is not empty before."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
"""From asm-generic/socket.h."""
_BUFFER_OCTETS = 1 << 20
"""Some 2,700 requests. More would not be served before their hosts have sent them again, and then all are late."""
TENTATIVE_SECONDS = 3.0
"""Longer than duplicate address detection takes by default."""


def _bind(kind: socket.SocketKind, address: Address, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET if address.family is Family.IPV4 else socket.AF_INET6, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address.family is Family.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind is socket.SOCK_DGRAM:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF, _SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_OCTETS)
    try:
        _bind_when_ready(sock, address, port)
    except OSError as error:
        sock.close()
        absent = error.errno == errno.EADDRNOTAVAIL
        hint = "is it an address of this machine?" if absent else "is another isthmus running?"
        raise ConfigError(
            "gateway", key="address", reason=f"cannot listen on {address} port {port}: {error.strerror}; {hint}"
        ) from error
    sock.setblocking(False)
    return sock


def _bind_when_ready(sock: socket.socket, address: Address, port: int) -> None:
    """An IPv6 address that was given just now is tentative, and nobody's yet (RFC 4862 §5.4)."""
    until = time.monotonic() + (TENTATIVE_SECONDS if address.family is Family.IPV6 else 0.0)
    while True:
        try:
            sock.bind((str(address), port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() >= until:
                raise
            time.sleep(0.1)
        else:
            return


class DatagramEndpoint:
    """The UDP socket."""

    def __init__(
        self, realm: int, address: Address, port: int, deliver: Callable[[Sequence[tuple[bytes, Peer]]], None]
    ) -> None:
        """Listen.

        Args:
            realm: Number of the near realm.
            address: Ours, in that realm.
            port: 4555.
            deliver: Takes the datagrams that were there at a time.
        """
        self._deliver = deliver
        self._socket = _bind(socket.SOCK_DGRAM, address, port)
        self._datagrams = Datagrams(self._socket, realm)
        self._waiting: list[tuple[bytes, Peer]] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Begin to read."""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        received: list[tuple[bytes, Peer]] = []
        for _ in range(READS_AT_ONCE):
            try:
                more = self._datagrams.receive()
            except OSError:
                break  # nothing there, or an ICMP error about an earlier answer: what is behind it is read next
            received += more
            if len(more) < AT_ONCE:
                break
        if received:
            self._deliver(received)

    def send(self, data: bytes, peer: Peer) -> None:
        """Send one datagram, together with others of this turn of the loop; call it from within the loop."""
        self._waiting.append((data, peer))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def say(self, farewells: Farewells) -> None:
        """Send very many datagrams, behind what waits."""
        self._flush()
        if self._socket.fileno() >= 0:
            self._datagrams.say(farewells)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self._socket.fileno() >= 0:
            self._datagrams.send(waiting)

    def stop(self) -> None:
        """Close, when everything is sent."""
        self._flush()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class StreamEndpoint:
    """The TCP socket and its connections."""

    def __init__(
        self,
        realm: int,
        address: Address,
        port: int,
        *,
        deliver: Callable[[bytes, Peer], None],
        broken: Callable[[WireError, Peer], None],
        lost: Callable[[Peer], None],
    ) -> None:
        """Listen.

        Args:
            realm: Number of the near realm.
            address: Ours.
            port: 4555.
            deliver: Takes each message.
            broken: Told when a stream cannot be cut into messages any more; it is closed after the answer.
            lost: Told when a connection has ended.
        """
        self._realm = realm
        self._deliver = deliver
        self._broken = broken
        self._lost = lost
        self._socket = _bind(socket.SOCK_STREAM, address, port)
        self._server: asyncio.Server | None = None
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._per_host: dict[Address, int] = {}
        self._next = 1

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_server(self._serve, sock=self._socket)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port, *_rest = writer.get_extra_info("peername")
        if "%" in host:
            writer.close()
            return
        peer = Peer(self._realm, Address.parse(host), port, self._next)
        if self._per_host.get(peer.address, 0) >= CONNECTIONS_PER_HOST:
            writer.close()
            return
        self._next += 1
        self._per_host[peer.address] = self._per_host.get(peer.address, 0) + 1
        self._writers[peer.connection] = writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._read(reader, peer)
        except (OSError, TimeoutError):
            pass
        finally:
            del self._writers[peer.connection]
            self._per_host[peer.address] -= 1
            if not self._per_host[peer.address]:
                del self._per_host[peer.address]
            self._lost(peer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, peer: Peer) -> None:
        stream = MessageStream()
        while octets := await asyncio.wait_for(reader.read(65536), MESSAGE_SECONDS if stream.pending else IDLE_SECONDS):
            try:
                for message in stream.feed(octets):
                    self._deliver(message, peer)
                if stream.broken:
                    stream.feed(b"")
            except WireError as error:
                self._broken(error, peer)
                await asyncio.sleep(1.0)  # time for the one answer before the stream is closed
                return

    def send(self, data: bytes, peer: Peer) -> None:
        """Send one message; a client that does not read is let go rather than waited for."""
        writer = self._writers.get(peer.connection)
        if writer is None or writer.is_closing():
            return
        writer.write(data)
        if writer.transport.get_write_buffer_size() > 1 << 20:
            writer.transport.abort()

    def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers.values():
            writer.transport.abort()
