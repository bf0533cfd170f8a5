# SPDX-License-Identifier: BSD-3-Clause
"""Messages of rtnetlink (RFC 3549 §2.3.2, §3): what the kernel has of routes and rules, and what changes."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

NEWLINK, DELLINK, NEWADDR, DELADDR = 16, 17, 20, 21
NEWROUTE, DELROUTE, GETROUTE, NEWRULE, DELRULE, GETRULE = 24, 25, 26, 32, 33, 34
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV4_ROUTE, GROUP_IPV4_RULE = 0x1, 0x10, 0x40, 0x80
GROUP_IPV6_ROUTE, GROUP_IPV6_RULE = 0x400, 0x40000
"RTMGRP_*: what one can be told of."
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_SO_RCVBUFFORCE = 33
_BUFFER_OCTETS = 4 << 20
DATAGRAM_OCTETS = 1 << 18
HEADER = struct.Struct("=IHHII")
_BEGINNING = struct.Struct("=IHH")
ROUTE = struct.Struct("=8BI")
"struct rtmsg: family, destination length, source length, TOS, table, protocol, scope, type, flags."
LINK = struct.Struct("=BxHiII")
NEXT = struct.Struct("=HBBi")
"struct rtnexthop: length, flags, weight, interface."
ATTRIBUTE = struct.Struct("=HH")
NUMBER = struct.Struct("=I")
_KERNEL = 0
_CARRIES = 0x1 | 0x10000
"IFF_UP and IFF_LOWER_UP."
DEAD, LINK_DOWN, UNRESOLVED, CLONED = 0x1, 0x10, 0x20, 0x200
"Flags of routes."
Message = tuple[int, memoryview]
"""Its type, and what follows the header."""


def listen(groups: int) -> socket.socket:
    """A socket that hears of changes; it does not block.

    Args:
        groups: ``GROUP_*``.

    Raises:
        OSError: the kernel refuses it.
    """
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        news.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
    except PermissionError:
        news.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
    news.bind((0, groups))
    return news


def heard(news: socket.socket, most: int) -> Iterator[Message | None]:
    """What a socket of ``listen`` has to tell.

    Args:
        news: The socket.
        most: How many datagrams are read at once.

    Yields:
        Messages; None where some were lost, because they came quicker than they were read.

    Raises:
        OSError: the socket does not work any more.
    """
    for _ in range(most):
        try:
            octets, (sender, _) = news.recvfrom(DATAGRAM_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None
            continue
        for kind, _, payload in read_messages(octets if sender == _KERNEL else b""):
            yield kind, payload


def ask(kind: int, body: bytes) -> socket.socket:
    """Ask for all that there is of something; ``answers`` reads it.

    Args:
        kind: ``GET*``.
        body: The message; with attributes, to narrow what is asked for.

    Raises:
        OSError: the kernel refuses the socket.
    """
    asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    # With strict checking the kernel gives what was asked for only, and an error where there is none.
    asking.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
    asking.bind((0, 0))
    asking.sendto(HEADER.pack(HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body, (0, 0))
    return asking


def answers(asking: socket.socket) -> Iterator[bytes]:
    """Read what was asked for; the socket is closed.

    Args:
        asking: What ``ask`` returned.

    Yields:
        The messages, with their headers.

    Raises:
        InterruptedError: something changed meanwhile; all has been yielded.
        OSError: the kernel does not give it.
    """
    whole = True
    with asking:
        while True:
            octets = asking.recv(DATAGRAM_OCTETS)
            at = 0
            while at < len(octets):
                length, kind, flags = _BEGINNING.unpack_from(octets, at)
                whole = whole and not flags & _INTERRUPTED
                if kind <= _DONE:
                    number = struct.unpack_from("=i", octets, at + HEADER.size)[0] if length >= HEADER.size + 4 else 0
                    if number not in {0, -errno.ENOENT}:
                        raise OSError(-number, errno.errorcode.get(-number, str(-number)))
                    if not whole:
                        raise InterruptedError
                    return
                yield octets[at : at + length]
                at += length + 3 & ~3


def link_state(kind: int, payload: memoryview) -> tuple[int, int] | None:
    """Which interface a message is about, and its state: whether it is up, and carries; -1: it is gone. None: none."""
    family, _type, index, flags, _change = LINK.unpack_from(payload)
    if family != socket.AF_UNSPEC:
        return None
    return index, -1 if kind == DELLINK else flags & _CARRIES


def read_messages(octets: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """The netlink messages of a datagram: type, flags, and what follows the header."""
    view = memoryview(octets)
    while len(view) >= HEADER.size:
        length, kind, flags, _, _ = HEADER.unpack_from(view)
        if not HEADER.size <= length <= len(view):
            return
        yield kind, flags, view[HEADER.size : length]
        view = view[length + 3 & ~3 :]


def read_attributes(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Types and values of netlink attributes."""
    while len(view) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(view)
        if not ATTRIBUTE.size <= length <= len(view):
            return
        yield kind & 0x3FFF, view[ATTRIBUTE.size : length]
        view = view[length + 3 & ~3 :]
