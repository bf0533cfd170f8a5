# SPDX-License-Identifier: BSD-3-Clause
"""Multicast through a gateway (RFC 3102 §5.4; spec 14.9): receiving without a lease, sending with one.

An IGMP proxy (RFC 4605) on the kernel's multicast routing. Hosts join groups on the near link as they
would anywhere; the gateway joins in their stead, from its own public address, and the
kernel forwards what comes. Who wants to send needs a lease: the packet comes out of its tunnel with its leased
source and by the far realm's port, where the kernel finds it::

    arrives by                    goes to
    far interface                 near interface, if somebody there has joined
    port, from a leased address   far interface; near interface as well, if somebody there has joined
    near interface                nowhere: its source is private (the listeners of that link have heard it already)

Routes are made when the kernel asks for them, and made anew when members come and go. All ends
with the socket that made them, so with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.daemon.membership import LAST_MEMBER_SECONDS, RESPONSE_SECONDS, ROBUSTNESS, Members
from isthmus.daemon.messages import Message, log
from isthmus.errors import PlaneError, Unsupported, WireError
from isthmus.wire import igmp

_INIT, _DONE, _ADD_VIF, _ADD_MFC, _DEL_MFC = 200, 201, 202, 204, 205
"MRT_* of linux/mroute.h."
_BY_INDEX = 0x8
_NEAR, _FAR, _PORT = 0, 1, 2
"Numbers of our virtual interfaces."
_MOST_INTERFACES = 32
_NO_CACHE = 1
_UPCALL_OCTETS = 20
_ETH_P_IP, _SO_ATTACH_FILTER = 0x0800, 26
_IGMP_ONLY = ((0x30, 0, 0, 9), (0x15, 0, 1, igmp.PROTOCOL), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))
"Load the protocol; if it is IGMP take the packet, else nothing."
_MOST_ROUTES = 4096
_GROUPS_OF_A_SOCKET = 16
"The kernel lets a socket join 20 groups (net.ipv4.igmp_max_memberships); a socket for each would be too many."
_TICK_SECONDS = 1.0
_AT_ONCE = 64
"Messages that are read before others in the event loop have their turn."


@dataclass(frozen=True, slots=True, kw_only=True)
class Legs:
    """The interfaces between which groups are carried."""

    near: str
    far: str
    port: str | None
    "The machine's end of the far realm's port, by which packets come out of tunnels; None: nobody can send."


class MulticastProxy:
    """Carries groups between the near link and the far realm.

    Args:
        legs: The interfaces.
        own: Our address on the near link, from which we ask who listens.
        leased: What the pool has: sources that come by the port and by nothing else.
        members: Who listens.
        query_seconds: Between two general queries.
        now: The clock, in seconds.

    Raises:
        Unsupported: the kernel has no multicast routing, or somebody else has it.
        PlaneError: an interface is not there.
    """

    def __init__(
        self,
        legs: Legs,
        *,
        own: Address,
        leased: Iterable[Prefix],
        members: Members,
        query_seconds: int,
        now: Callable[[], float],
    ) -> None:
        self._legs = legs
        self._leased = tuple(leased)
        self.members = members
        self._query_seconds = query_seconds
        self._now = now
        self._joined: dict[Address, socket.socket | None] = {}
        "None where the kernel refused; it is tried again when somebody joins or leaves."
        self._routes: dict[tuple[Address, Address], tuple[int, tuple[int, ...]]] = {}
        self._next_query = 0.0
        self._asked: dict[Address, tuple[int, float]] = {}
        self._tick_timer: asyncio.TimerHandle | None = None
        self._router = _open_router(legs, own)
        try:
            self._ears = _open_ears(legs.near)
        except BaseException:
            self._router.close()
            raise

    def start(self) -> None:
        """Begin, from within the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._router, self._serve_router)
        loop.add_reader(self._ears, self._hear)
        log(Message.MULTICAST, near=self._legs.near, far=self._legs.far)
        self._tick()

    def stop(self) -> None:
        """Leave every group, and let the kernel forget the routes."""
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for each in (self._router, self._ears):
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(each)
            each.close()
        for joined in set(self._joined.values()) - {None}:
            assert joined is not None
            joined.close()
        self._joined.clear()

    # Members

    def _hear(self) -> None:
        """Read what hosts say about groups."""
        with contextlib.suppress(BlockingIOError, OSError):
            for _ in range(_AT_ONCE):
                packet, where = self._ears.recvfrom(2048)
                if where[2] == socket.PACKET_OUTGOING or len(packet) < 20:
                    continue
                header, total = (packet[0] & 0xF) * 4, int.from_bytes(packet[2:4], "big")
                try:
                    said = igmp.parse(packet[header:total])
                except WireError:
                    continue
                now = self._now()
                for group in self.members.hear(Address.from_octets(packet[12:16]), said, now=now):
                    self._asked.setdefault(group, (ROBUSTNESS, now))
                self._follow()

    def _tick(self) -> None:
        # First of all: whatever goes wrong below, there is another time.
        self._tick_timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        now = self._now()
        self.members.expire(now=now)
        if now >= self._next_query:
            self._next_query = now + self._query_seconds
            self._ask(None, RESPONSE_SECONDS)
        for group, (left, at) in list(self._asked.items()):
            if at <= now:
                self._ask(group, LAST_MEMBER_SECONDS)
                self._asked[group] = left - 1, now + LAST_MEMBER_SECONDS
                if left <= 1:
                    del self._asked[group]
        self._follow()

    def _ask(self, group: Address | None, seconds: float) -> None:
        query = igmp.emit_query(
            group,
            response_tenths=int(seconds * 10),
            interval_seconds=self._query_seconds,
            robustness=ROBUSTNESS,
        )
        with contextlib.suppress(OSError):
            self._router.sendto(query, (str(group or igmp.ALL_SYSTEMS), 0))

    def _follow(self) -> None:
        """Join and leave on the far side as members do here, and let the routes follow."""
        wanted = {group for group, _ in self.members}
        changed = wanted ^ self._joined.keys()
        for group in [each for each, joined in self._joined.items() if each not in wanted or (changed and not joined)]:
            self._leave(group)
        for group in wanted - self._joined.keys():
            self._joined[group] = self._join(group)
        for source, group in list(self._routes):
            if group in changed:
                self._route(source, group, self._routes[source, group][0])

    def _join(self, group: Address) -> socket.socket | None:
        """Join a group on the far side, by a socket that has room or a new one; None if the kernel refuses."""
        used = Counter(self._joined.values())
        room = next((each for each, groups in used.items() if each and groups < _GROUPS_OF_A_SOCKET), None)
        member = room
        try:
            member = member or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _membership(group, self._legs.far))
        except OSError:
            if member is not None and room is None:
                member.close()
            return None
        return member

    def _leave(self, group: Address) -> None:
        """Leave a group on the far side; the socket goes with its last."""
        member = self._joined.pop(group)
        if member is None:
            return
        if member not in self._joined.values():
            member.close()
            return
        with contextlib.suppress(OSError):
            member.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, _membership(group, self._legs.far))

    # Routes

    def _serve_router(self) -> None:
        """Read the kernel's questions for routes; what else comes here are copies of IGMP."""
        with contextlib.suppress(BlockingIOError, OSError):
            for _ in range(_AT_ONCE):
                octets = self._router.recv(2048)
                if len(octets) >= _UPCALL_OCTETS and octets[9] == 0 and octets[8] == _NO_CACHE:
                    source, group = Address.from_octets(octets[12:16]), Address.from_octets(octets[16:20])
                    self._route(source, group, octets[10])

    def _route(self, source: Address, group: Address, arrives_by: int) -> None:
        if any(source in prefix for prefix in self._leased):
            # A leased address is heard out of tunnels only: who else uses it as a source is not believed.
            arrives_by = _FAR if self._legs.port is None else _PORT
        goes_to: tuple[int, ...] = ()
        if self.members.is_carried(group):
            near = (_NEAR,) if group in self.members else ()
            goes_to = {_NEAR: (), _FAR: near, _PORT: (_FAR, *near)}[arrives_by]
        if self._routes.get((source, group)) == (arrives_by, goes_to):
            return
        if len(self._routes) >= _MOST_ROUTES and (source, group) not in self._routes:
            self._forget(next(iter(self._routes)))
        self._routes[source, group] = arrives_by, goes_to
        with contextlib.suppress(OSError):
            self._router.setsockopt(socket.IPPROTO_IP, _ADD_MFC, _mfc(source, group, arrives_by, goes_to))

    def _forget(self, key: tuple[Address, Address]) -> None:
        arrives_by, _ = self._routes.pop(key)
        with contextlib.suppress(OSError):
            self._router.setsockopt(socket.IPPROTO_IP, _DEL_MFC, _mfc(*key, arrives_by, ()))

    @property
    def routes(self) -> tuple[tuple[Address, Address, tuple[str, ...]], ...]:
        """What is forwarded: source, group, and the interfaces that it leaves by."""
        names = {_NEAR: self._legs.near, _FAR: self._legs.far, _PORT: self._legs.port or ""}
        return tuple(
            (source, group, tuple(names[each] for each in goes_to))
            for (source, group), (_, goes_to) in sorted(self._routes.items())
        )


def _mfc(source: Address, group: Address, arrives_by: int, goes_to: Iterable[int]) -> bytes:
    """``struct mfcctl``: a packet leaves where its TTL is greater than the threshold; 0: not there."""
    thresholds = bytearray(_MOST_INTERFACES)
    for each in goes_to:
        thresholds[each] = 1
    return struct.pack("=4s4sH32s2xIIIi", source.octets, group.octets, arrives_by, bytes(thresholds), 0, 0, 0, 0)


def _open_router(legs: Legs, own: Address) -> socket.socket:
    if own.family is not Family.IPV4:
        raise Unsupported("multicast", remedy="[gateway.multicast] needs an IPv4 address among gateway.address")
    router = socket.socket(socket.AF_INET, socket.SOCK_RAW, igmp.PROTOCOL)
    try:
        router.setsockopt(socket.IPPROTO_IP, _INIT, 1)
        for number, name in ((_NEAR, legs.near), (_FAR, legs.far), (_PORT, legs.port)):
            if name is not None:
                vif = struct.pack("=HBBIi4s", number, _BY_INDEX, 1, 0, socket.if_nametoindex(name), bytes(4))
                router.setsockopt(socket.IPPROTO_IP, _ADD_VIF, vif)
        router.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        router.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        router.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, igmp.ROUTER_ALERT)
        near = struct.pack("=4s4si", bytes(4), own.octets, socket.if_nametoindex(legs.near))
        router.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, near)
        router.setblocking(False)
    except OSError as error:
        router.close()
        raise Unsupported("multicast routing", remedy=_remedy(error)) from error
    return router


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another multicast router runs here (pimd, smcroute): stop it, or leave out [gateway.multicast]"
    if error.errno == errno.ENOPROTOOPT:
        return "this kernel has no CONFIG_IP_MROUTE: leave out [gateway.multicast]"
    return f"the kernel says: {error.strerror or error}"


def _open_ears(interface: str) -> socket.socket:
    """A socket that hears the IGMP of a link, also for groups that the machine has not joined."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    program = b"".join(struct.pack("HBBI", *each) for each in _IGMP_ONLY)
    buffer = ctypes.create_string_buffer(program, len(program))
    try:
        opened.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_IGMP_ONLY), ctypes.addressof(buffer))
        )
        opened.bind((interface, _ETH_P_IP))
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise PlaneError(f"cannot listen to IGMP on {interface}: {error.strerror}") from error
    return opened


def _membership(group: Address, interface: str) -> bytes:
    """``struct ip_mreqn``: a group on an interface, from that interface's address.

    Raises:
        OSError: there is no such interface.
    """
    return struct.pack("=4s4si", group.octets, bytes(4), socket.if_nametoindex(interface))
