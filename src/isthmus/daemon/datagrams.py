# SPDX-License-Identifier: BSD-3-Clause
"""Many datagrams with one system call: recvmmsg and sendmmsg of Linux, which Python does not have, through ctypes.

A call for each of them costs a gateway that leases ten thousand times a second a tenth of its time, and to write
addresses as text only to read them again another tenth.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Sequence

from isthmus.address import Address, Family
from isthmus.border.effect import Peer

AT_ONCE = 256
"""Datagrams that one system call takes at most."""
_ROOM = 1 << 16
"""Octets for one datagram: more than the longest has. Memory that no datagram reaches is never touched."""
_NAME_OCTETS = 28
"""Room for a socket address of either family (sockaddr_in6)."""
_HEADER = struct.Struct("@PIxxxxPNPNixxxxIxxxx")
"""struct mmsghdr: name and its length; vectors and how many; control data, flags; length of what came."""
_LENGTH_AT = 56
_VECTOR = struct.Struct("@PN")
"""struct iovec."""
_IPV4 = struct.Struct("!2xHL")
_IPV6 = struct.Struct("!2xH4x16s")
_SCOPE_AT = 24
_FAMILY = struct.Struct("=H")
_libc = ctypes.CDLL(None, use_errno=True)


class _Batch:
    """The headers of so many messages, each with one vector and room for one address."""

    def __init__(self) -> None:
        self.names = ctypes.create_string_buffer(AT_ONCE * _NAME_OCTETS)
        self.vectors = ctypes.create_string_buffer(AT_ONCE * _VECTOR.size)
        self.headers = ctypes.create_string_buffer(AT_ONCE * _HEADER.size)
        names, vectors = ctypes.addressof(self.names), ctypes.addressof(self.vectors)
        for at in range(AT_ONCE):
            name, vector = names + at * _NAME_OCTETS, vectors + at * _VECTOR.size
            _HEADER.pack_into(self.headers, at * _HEADER.size, name, _NAME_OCTETS, vector, 1, 0, 0, 0, 0)


class Datagrams:
    """Reads and writes a UDP socket that does not block."""

    def __init__(self, opened: socket.socket, realm: int) -> None:
        """Make the rooms.

        Args:
            opened: The socket; the caller closes it.
            realm: Number of the realm that it is in.
        """
        self._socket = opened
        self._realm = realm
        self._ipv4 = opened.family == socket.AF_INET
        self._incoming, self._outgoing = _Batch(), _Batch()
        self._octets = ctypes.create_string_buffer(AT_ONCE * _ROOM)
        first = ctypes.addressof(self._octets)
        for at in range(AT_ONCE):
            _VECTOR.pack_into(self._incoming.vectors, at * _VECTOR.size, first + at * _ROOM, _ROOM)
        self._view = memoryview(self._octets)
        self._lengths = memoryview(self._incoming.headers).cast("B").cast("I")
        self._family = socket.AF_INET if self._ipv4 else socket.AF_INET6

    def receive(self) -> list[tuple[bytes, Peer]]:
        """Take what there is, ``AT_ONCE`` at most.

        Raises:
            BlockingIOError: there is nothing.
            OSError: an ICMP error about an earlier datagram; there may be more behind it.
        """
        headers = self._incoming.headers
        count = _libc.recvmmsg(self._socket.fileno(), headers, AT_ONCE, socket.MSG_DONTWAIT, None)
        if count < 0:
            raise _error()
        lengths, view, step = self._lengths, self._view, _HEADER.size // 4
        sizes = lengths[_LENGTH_AT // 4 : count * step : step].tolist()
        return [
            (bytes(view[at : at + size]), peer)
            for at, size, peer in zip(range(0, count * _ROOM, _ROOM), sizes, self._peers(count), strict=True)
            if peer is not None
        ]

    def _peers(self, count: int) -> Iterator[Peer | None]:
        """From where each came; None: from a link-local address, which names no host of a realm."""
        names, realm = self._incoming.names, self._realm
        for at in range(0, count * _NAME_OCTETS, _NAME_OCTETS):
            if self._ipv4:
                port, number = _IPV4.unpack_from(names, at)
                yield Peer(realm, Address(Family.IPV4, number), port)
                continue
            port, octets = _IPV6.unpack_from(names, at)
            scoped = any(names[at + _SCOPE_AT : at + _NAME_OCTETS])
            yield None if scoped else Peer(realm, Address(Family.IPV6, int.from_bytes(octets, "big")), port)

    def send(self, messages: Sequence[tuple[bytes, Peer]]) -> None:
        """Send datagrams; one that the kernel will not take is lost like any other."""
        for start in range(0, len(messages), AT_ONCE):
            self._send(messages[start : start + AT_ONCE])

    def _send(self, messages: Sequence[tuple[bytes, Peer]]) -> None:
        batch, octets = self._outgoing, b"".join([data for data, _ in messages])
        base = ctypes.cast(ctypes.c_char_p(octets), ctypes.c_void_p).value or 0
        names, vectors, at, vector = batch.names, batch.vectors, 0, 0
        for data, peer in messages:
            _VECTOR.pack_into(vectors, vector, base, len(data))
            if self._ipv4:
                _IPV4.pack_into(names, at, peer.port, peer.address.number)
            else:
                _IPV6.pack_into(names, at, peer.port, peer.address.octets)
            _FAMILY.pack_into(names, at, self._family)
            base += len(data)
            at += _NAME_OCTETS
            vector += _VECTOR.size
        sent, headers = 0, ctypes.addressof(batch.headers)
        while sent < len(messages):
            done = _libc.sendmmsg(
                self._socket.fileno(),
                ctypes.c_void_p(headers + sent * _HEADER.size),
                len(messages) - sent,
                socket.MSG_DONTWAIT,
            )
            sent += done if done > 0 else 1  # the first of them is the one that was not taken


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, errno.errorcode.get(number, "recvmmsg"))
