# SPDX-License-Identifier: BSD-3-Clause
"""SIP as it is on a link: neighbours by ARP, frames with EtherType 0x0800 (RFC 8507 §8.4; spec 2.7).

ARP is the kernel's: it answers for the IPv4 addresses that the machine has, and asks for others when told to use
them (rtnetlink, ``NTF_USE``). What waits for an answer is a few packets for each neighbour, as in any IP stack.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque

from isthmus.address import Address, Family
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.link.packet import ETH_P_IP

WAITING = 3
"""Packets that wait for one neighbour; the oldest go first (RFC 1122 §2.3.2.2 wants one at least)."""
_NEIGHBOURS_WAITED_FOR = 256

_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_REQUEST, _CREATE, _REPLACE = 0x1, 0x400, 0x100
_NTF_USE = 0x01
_NUD_NONE = 0x00
_NUD_FAILED = 0x20
_NUD_VALID = 0xC0 | 0x02 | 0x04 | 0x08 | 0x10
"NUD_PERMANENT, NOARP, REACHABLE, STALE, DELAY, PROBE: there is a link address."
_NUD_STALE = 0x04
_NDA_DST, _NDA_LLADDR = 1, 2
_RTMGRP_NEIGH = 0x4
_HEADER = struct.Struct("=IHHII")
_BODY = struct.Struct("=BxHiHBB")
"struct ndmsg: family, padding, interface, state, flags, type."
_MAC_OCTETS = 6


class NativeSender:
    """Sends SIP packets on the link of one interface.

    Something to wait on, too: when it becomes readable, ``flush`` sends what waited for neighbours that are found.

    Args:
        interface: Which.

    Raises:
        PlaneError: there is no such interface.
        Unsupported: no packet socket can be had.
    """

    def __init__(self, interface: str) -> None:
        try:
            self._index = socket.if_nametoindex(interface)
            self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError as error:
            raise Unsupported(f"packet socket on {interface}", remedy="needs CAP_NET_RAW") from error
        except OSError as error:
            raise PlaneError(f"there is no interface {interface}") from error
        self._interface = interface
        self._frames.bind((interface, 0))
        self._mac = self._frames.getsockname()[4]
        self._asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._asking.bind((0, 0))
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._news.bind((0, _RTMGRP_NEIGH))
        self._waiting: dict[Address, deque[bytes]] = {}

    @property
    def name(self) -> str:
        """The interface."""
        return self._interface

    @property
    def vanished(self) -> bool:
        """Whether the interface is gone, or another one has its name."""
        try:
            return socket.if_nametoindex(self._interface) != self._index
        except OSError:
            return True

    @property
    def waiting(self) -> int:
        """How many packets wait."""
        return sum(map(len, self._waiting.values()))

    def fileno(self) -> int:
        """What becomes readable when the kernel knows more of neighbours."""
        return self._news.fileno()

    def send(self, packet: bytes, neighbour: Address) -> bool:
        """Send a packet to a neighbour, or keep it until the neighbour is found; False if it was lost.

        Args:
            packet: The SIP packet.
            neighbour: By which IPv4 address ARP finds who takes it.
        """
        mac, state = self._lookup(neighbour)
        if mac is None or state & _NUD_STALE:
            self._use(neighbour)
        if mac is not None:
            return self._send(packet, mac)
        queue = self._waiting.get(neighbour)
        if queue is None:
            if len(self._waiting) >= _NEIGHBOURS_WAITED_FOR:
                del self._waiting[next(iter(self._waiting))]
            queue = self._waiting.setdefault(neighbour, deque(maxlen=WAITING))
        queue.append(packet)
        # Where the answer was quicker than we were there will be no more news of it.
        self._flush_one(neighbour)
        return True

    def _send(self, packet: bytes, mac: bytes) -> bool:
        try:
            self._frames.send(mac + self._mac + ETH_P_IP.to_bytes(2, "big") + packet)
        except OSError:
            return False
        return True

    def flush(self) -> None:
        """Send what waited for neighbours that are known by now, and give up on those that cannot be found."""
        with contextlib.suppress(BlockingIOError, OSError):
            while self._news.recv(65535):
                pass
        for neighbour in list(self._waiting):
            self._flush_one(neighbour)

    def _flush_one(self, neighbour: Address) -> None:
        mac, state = self._lookup(neighbour)
        if mac is not None:
            for packet in self._waiting.pop(neighbour, ()):
                self._send(packet, mac)
        elif state & _NUD_FAILED:
            self._waiting.pop(neighbour, None)

    def _lookup(self, neighbour: Address) -> tuple[bytes | None, int]:
        """Link address and state in the kernel's neighbour table."""
        answer = self._talk(_RTM_GETNEIGH, _REQUEST, 0, neighbour)
        length, kind = _HEADER.unpack_from(answer)[:2]
        if kind != _RTM_NEWNEIGH:
            return None, 0
        state = _BODY.unpack_from(answer, _HEADER.size)[3]
        at = _HEADER.size + _BODY.size
        while at + 4 <= length:
            size, attribute = struct.unpack_from("=HH", answer, at)
            if attribute == _NDA_LLADDR and size == 4 + _MAC_OCTETS and state & _NUD_VALID:
                return answer[at + 4 : at + size], state
            at += max(size + 3 & ~3, 4)
        return None, state

    def _use(self, neighbour: Address) -> None:
        """Let the kernel look for a neighbour, or make sure that it is still there."""
        self._talk(_RTM_NEWNEIGH, _REQUEST | 0x4 | _CREATE | _REPLACE, _NTF_USE, neighbour)

    def _talk(self, kind: int, flags: int, use: int, neighbour: Address) -> bytes:
        family = socket.AF_INET if neighbour.family is Family.IPV4 else socket.AF_INET6
        octets = neighbour.octets
        body = _BODY.pack(family, 0, self._index, _NUD_NONE, use, 0)
        body += struct.pack("=HH", 4 + len(octets), _NDA_DST) + octets
        try:
            self._asking.sendto(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body, (0, 0))
            return self._asking.recv(65535)
        except OSError:
            return _HEADER.pack(_HEADER.size, 0, 0, 0, 0)

    def close(self) -> None:
        """Let go; what still waits is lost."""
        for each in (self._frames, self._asking, self._news):
            each.close()
        self._waiting.clear()
