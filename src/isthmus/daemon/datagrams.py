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
from itertools import accumulate

from isthmus.address import Address, Family
from isthmus.border.effect import Peer
from isthmus.rsip.ended import Farewells

AT_ONCE = 256
"""Datagrams that one system call receives at most."""
SENT_AT_ONCE = 1024
"""Datagrams that one system call sends at most: UIO_MAXIOV."""
_ROOM = 1 << 16
"""Octets for one datagram: more than the longest has. Memory that no datagram reaches is never touched."""
_NAME_OCTETS = 28
"""Room for a socket address of either family (sockaddr_in6)."""
_HEADER = struct.Struct("@PIxxxxPNPNixxxxIxxxx")
"""struct mmsghdr: name and its length; vectors and how many; control data, flags; length of what came."""
_LENGTH_AT = 56
_VECTOR = struct.Struct("@PN")
"""struct iovec."""
_IPV4 = struct.Struct("!HHL")
_IPV6 = struct.Struct("!HH4x16s")
_NAME = [("family", ">u2"), ("port", ">u2"), ("address", ">u4"), ("rest", "V20")]
"""The same as columns."""
_SCOPE_AT = 24
_EACH_IPV4 = struct.Struct("!2xHL20x")
"""One after another, each in its ``_NAME_OCTETS``."""
_new_tuple = tuple.__new__
_libc = ctypes.CDLL(None, use_errno=True)


class _Batch:
    """The headers of so many messages, each with one vector and room for one address."""

    def __init__(self, room: int) -> None:
        self.names = ctypes.create_string_buffer(room * _NAME_OCTETS)
        self.vectors = ctypes.create_string_buffer(room * _VECTOR.size)
        self.headers = ctypes.create_string_buffer(room * _HEADER.size)
        self.octets = b""
        "Where the vectors of what is sent point to."
        self.count = 0
        names, vectors = ctypes.addressof(self.names), ctypes.addressof(self.vectors)
        for at in range(room):
            name, vector = names + at * _NAME_OCTETS, vectors + at * _VECTOR.size
            _HEADER.pack_into(self.headers, at * _HEADER.size, name, _NAME_OCTETS, vector, 1, 0, 0, 0, 0)

    @property
    def base(self) -> int:
        """Where the octets are."""
        return ctypes.cast(ctypes.c_char_p(self.octets), ctypes.c_void_p).value or 0


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
        self._incoming, self._outgoing = _Batch(AT_ONCE), _Batch(SENT_AT_ONCE)
        self._octets = ctypes.create_string_buffer(AT_ONCE * _ROOM)
        first = ctypes.addressof(self._octets)
        for at in range(AT_ONCE):
            _VECTOR.pack_into(self._incoming.vectors, at * _VECTOR.size, first + at * _ROOM, _ROOM)
        self._view = memoryview(self._octets)
        self._lengths = memoryview(self._incoming.headers).cast("B").cast("I")
        self._names = memoryview(self._incoming.names)
        self._family = socket.htons(socket.AF_INET if self._ipv4 else socket.AF_INET6)
        "As it has to stand there, read in network order."

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
        if self._ipv4:
            family = Family.IPV4
            for port, number in _EACH_IPV4.iter_unpack(self._names[: count * _NAME_OCTETS]):
                # Every number of 32 bits is an address: it need not be looked at.
                yield Peer(realm, _new_tuple(Address, (family, number)), port)
            return
        for at in range(0, count * _NAME_OCTETS, _NAME_OCTETS):
            _, port, octets = _IPV6.unpack_from(names, at)
            scoped = any(names[at + _SCOPE_AT : at + _NAME_OCTETS])
            yield None if scoped else Peer(realm, Address(Family.IPV6, int.from_bytes(octets, "big")), port)

    def send(self, messages: Sequence[tuple[bytes, Peer]]) -> None:
        """Send datagrams; one that the kernel will not take is lost like any other."""
        for start in range(0, len(messages), SENT_AT_ONCE):
            self._transmit(self._prepare(messages[start : start + SENT_AT_ONCE]))

    def say(self, farewells: Farewells) -> None:
        """Send messages that are columns; the socket is one of IPv4."""
        for start in range(0, len(farewells.octets), SENT_AT_ONCE):
            self._transmit(self._prepare_columns(farewells, slice(start, start + SENT_AT_ONCE)))

    def _prepare(self, messages: Sequence[tuple[bytes, Peer]]) -> _Batch:
        batch = self._outgoing
        batch.octets, batch.count = b"".join([data for data, _ in messages]), len(messages)
        lengths = [len(data) for data, _ in messages]
        for at, start, length in zip(
            range(0, len(messages) * _VECTOR.size, _VECTOR.size),
            accumulate(lengths, initial=batch.base),
            lengths,
            strict=False,  # one start more than there are lengths: the end
        ):
            _VECTOR.pack_into(batch.vectors, at, start, length)
        names, family, at = batch.names, self._family, 0
        for _, peer in messages:
            if self._ipv4:
                _IPV4.pack_into(names, at, family, peer.port, peer.address.number)
            else:
                _IPV6.pack_into(names, at, family, peer.port, peer.address.octets)
            at += _NAME_OCTETS
        return batch

    def _prepare_columns(self, farewells: Farewells, some: slice) -> _Batch:
        import numpy as np

        batch, rows = self._outgoing, farewells.octets[some]
        batch.octets, (batch.count, width) = rows.tobytes(), rows.shape
        names = np.frombuffer(memoryview(batch.names), np.dtype(_NAME), batch.count)
        names["family"] = self._family
        names["port"], names["address"] = farewells.port[some], farewells.address[some]
        vectors = np.frombuffer(memoryview(batch.vectors), np.uint64, 2 * batch.count)
        vectors[::2] = np.arange(batch.count, dtype=np.uint64) * np.uint64(width) + np.uint64(batch.base)
        vectors[1::2] = width
        return batch

    def _transmit(self, batch: _Batch) -> None:
        sent, headers = 0, ctypes.addressof(batch.headers)
        while sent < batch.count:
            done = _libc.sendmmsg(
                self._socket.fileno(),
                ctypes.c_void_p(headers + sent * _HEADER.size),
                batch.count - sent,
                socket.MSG_DONTWAIT,
            )
            sent += done if done > 0 else 1  # the first of them is the one that was not taken


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, errno.errorcode.get(number, "recvmmsg"))
