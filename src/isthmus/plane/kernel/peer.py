# SPDX-License-Identifier: BSD-3-Clause
"""Where the other end of a veth pair is, by rtnetlink(7): the kernel says what it is only to who asks for the link."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

AWAY = -1
"""In another network namespace."""
_NEWLINK, _GETLINK, _ERROR, _REQUEST = 16, 18, 2, 1
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
"struct ifinfomsg: family, type, index, flags, change."
_ATTRIBUTE = struct.Struct("=HH")
_IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 5, 18, 37
_IFLA_INFO_KIND = 1
_TYPE = 0x3FFF
"NLA_TYPE_MASK: the rest of an attribute's type are flags."
_OCTETS = 1 << 16


def peer_of(index: int) -> int:
    """Find the other end of a veth pair.

    Args:
        index: The interface index of one, in this network namespace.

    Returns:
        The index of the other, if that is in this network namespace, too; ``AWAY``; 0: there is no such pair.

    Raises:
        OSError: the kernel does not answer.
    """
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.sendto(_HEADER.pack(_HEADER.size + len(body), _GETLINK, _REQUEST, 1, 0) + body, (0, 0))
        answer = asking.recv(_OCTETS)
    length, kind, _flags, _sequence, _port = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -number in {errno.ENODEV, errno.ENXIO}:
            return 0
        raise OSError(-number, errno.errorcode.get(-number, str(-number)))
    return _in(memoryview(answer)[_HEADER.size + _LINK.size : length]) if kind == _NEWLINK else 0


def _in(attributes: memoryview) -> int:
    said = dict(_read(attributes))
    about = dict(_read(said.get(_IFLA_LINKINFO, memoryview(b""))))
    if bytes(about.get(_IFLA_INFO_KIND, b"")).rstrip(b"\0") != b"veth" or _IFLA_LINK not in said:
        return 0
    if _IFLA_LINK_NETNSID in said:
        return AWAY
    (index,) = struct.unpack("=I", said[_IFLA_LINK])
    return int(index)


def _read(attributes: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE, attributes[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
