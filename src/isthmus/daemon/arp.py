# SPDX-License-Identifier: BSD-3-Clause
"""Attracting the pool: neighbours on the far link find its addresses at this machine.

An address of the pool that lies in a network of the far interface is asked for by ARP. The kernel
answers for every address that its table ``local`` has, so we enter a *route* of type ``local`` there, and no address:
nothing of the machine chooses it as a source, probes are answered as well (RFC 5227 §2.1.1),
and it goes on while we are dead, as packets do. Addresses that no network of the interface covers
are routed to us by somebody, or not at all; those that the interface has itself are answered for already.

When we take the addresses, the neighbours are told (RFC 5227 §2.3: an ARP Announcement), so that they forget who had
them before; whoever else uses one is answered once in ten seconds (§2.4 (b)) and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import zlib
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address, Prefix
from isthmus.daemon.clock import Clock
from isthmus.daemon.messages import Message, log
from isthmus.daemon.offloop import off_loop
from isthmus.errors import PlaneError

PROTOCOL = 73
"""Marks our routes among those of others (``ip route show table local proto 73``)."""
ANNOUNCE_SECONDS = 2.0
"""Between the two announcements (RFC 5227 §1.1, ANNOUNCE_INTERVAL)."""
DEFEND_SECONDS = 10.0
"""Between two answers to who uses an address of ours (RFC 5227 §1.1, DEFEND_INTERVAL)."""
MOST_ANNOUNCED = 1024
"""Of a larger pool the first addresses are announced; neighbours ask for the others."""

_AT_ONCE = 64
"Frames that are read before others in the event loop have their turn."
_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_HEADER = bytes.fromhex("0001080006040001")
"Ethernet, IPv4, 6 and 4 octets, request (RFC 826)."
_SENDER_MAC, _SENDER_IP = slice(22, 28), slice(28, 32)
_ETHERNET = 1
_FRAME_OCTETS = 42
_LOCAL_TABLE, _LOOPBACK = 255, "lo"


def announcement(mac: bytes, address: Address) -> bytes:
    """The frame that tells everybody on a link who has an address (RFC 5227 §3)."""
    return _BROADCAST + mac + b"\x08\x06" + _HEADER + mac + address.octets + bytes(6) + address.octets


def on_link(pools: Iterable[Prefix], networks: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """The parts of the pools that lie in networks of an interface."""
    found: list[Prefix] = []
    for pool in pools:
        for network in networks:
            if network.covers(pool):
                found.append(pool)
            elif pool.covers(network):
                found.append(network)
    return tuple(dict.fromkeys(found))


class Attraction:
    """Brings the packets for a pool here, over one interface.

    Args:
        interface: The far realm's.
        pools: The addresses that are leased, whole or by port.
        name: Tells our routes from those of another gateway on this machine.
        clock: For the distance between two defences.
        anywhere: Whether what no network of the interface covers is answered for, too: by a host that speaks SIP only.
    """

    def __init__(
        self, interface: str, pools: Iterable[Prefix], name: str, clock: Clock, *, anywhere: bool = False
    ) -> None:
        self._interface = interface
        self._pools = tuple(pools)
        self._mark = 1 + zlib.crc32(name.encode()) % 0xFFFF
        self._clock = clock
        self._anywhere = anywhere
        self._socket: socket.socket | None = None
        self._mac = b""
        self._announced: tuple[Address, ...] = ()
        self._known: frozenset[Address] = frozenset()
        self._defended: dict[Address, float] = {}
        self._later: asyncio.TimerHandle | None = None
        self.attracted: tuple[Prefix, ...] = ()
        "What is answered for because of us."

    def start(self) -> None:
        """Answer, and announce, from within the running event loop.

        Raises:
            PlaneError: the kernel refuses.
        """
        self.attracted, own = self._enter_routes()
        addresses = [address for prefix in (*self.attracted, *own) for address in prefix]
        self._known = frozenset(addresses)
        self._announced = tuple(dict.fromkeys(addresses))[:MOST_ANNOUNCED]
        if not addresses or not self._open():
            return
        if self.attracted:
            log(Message.ATTRACTED, interface=self._interface, prefixes=[str(each) for each in self.attracted])
            if silent := self._silenced():
                log(Message.ARP_SILENT, interface=self._interface, setting=silent)
        self._announce()
        loop = asyncio.get_running_loop()
        self._later = loop.call_later(ANNOUNCE_SECONDS, self._announce)
        assert self._socket is not None
        loop.add_reader(self._socket, self._read)

    @off_loop
    def _enter_routes(self) -> tuple[tuple[Prefix, ...], tuple[Prefix, ...]]:
        """Make the routes what they should be; returns them, and the pools' addresses that the interface has itself."""
        with IPRoute() as links:
            indices = links.link_lookup(ifname=self._interface)
            if not indices:
                raise PlaneError(f"interface {self._interface} does not exist")
            networks, own = [], set()
            for each in links.get_addr(family=socket.AF_INET, index=indices[0]):
                address = Address.parse(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
                own.add(address)
                length = each["prefixlen"]
                if length < address.family.bits:
                    mask = (1 << (address.family.bits - length)) - 1
                    networks.append(Prefix(Address(address.family, address.number & ~mask), length))
            near = self._pools if self._anywhere else on_link(self._pools, networks)
            wanted = tuple(each for each in near if not (each.whole and each.address in own))
            try:
                self._replace(links, wanted)
            except NetlinkError as error:
                raise PlaneError(
                    f"routes that attract {', '.join(map(str, wanted))}: the kernel says {error}"
                ) from error
        held = tuple(Prefix.of(each) for each in sorted(own) if any(each in pool for pool in self._pools))
        return wanted, held

    def _replace(self, links: IPRoute, wanted: tuple[Prefix, ...]) -> None:
        loopback = links.link_lookup(ifname=_LOOPBACK)[0]
        standing = {
            f"{route.get_attr('RTA_DST')}/{route['dst_len']}"
            for route in links.get_routes(family=socket.AF_INET, table=_LOCAL_TABLE, proto=PROTOCOL)
            if route.get_attr("RTA_PRIORITY") == self._mark
        }
        for prefix in {str(each) for each in wanted} - standing:
            links.route("add", **self._route(prefix, loopback))
        for prefix in standing - {str(each) for each in wanted}:
            with contextlib.suppress(NetlinkError):
                links.route("del", **self._route(prefix, loopback))

    def _route(self, prefix: str, loopback: int) -> dict[str, object]:
        return {
            "dst": prefix,
            "oif": loopback,
            "type": "local",
            "table": _LOCAL_TABLE,
            "proto": PROTOCOL,
            "scope": 254,
            "priority": self._mark,
        }

    def _silenced(self) -> str:
        """The setting that keeps the kernel from answering for routes, if there is one."""
        for name in ("all", self._interface):
            setting = Path("/proc/sys/net/ipv4/conf", name, "arp_ignore")
            with contextlib.suppress(OSError):
                value = setting.read_text(encoding="ascii").strip()
                if value != "0":
                    return f"net.ipv4.conf.{name}.arp_ignore = {value}"
        return ""

    def _open(self) -> bool:
        """Open the socket; False on a link that has no ARP."""
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP))
        opened.bind((self._interface, _ETH_P_ARP))
        _name, _protocol, _direction, hardware, mac = opened.getsockname()
        if hardware != _ETHERNET:
            opened.close()
            return False
        opened.setblocking(False)
        self._socket, self._mac = opened, mac
        return True

    def _announce(self) -> None:
        for address in self._announced:
            self._tell(address)

    def _tell(self, address: Address) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(announcement(self._mac, address))

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError, OSError):
            for _ in range(_AT_ONCE):
                frame, where = self._socket.recvfrom(2048)
                if where[2] != socket.PACKET_OUTGOING and len(frame) >= _FRAME_OCTETS:
                    self._judge(frame)

    def _judge(self, frame: bytes) -> None:
        address = Address.from_octets(frame[_SENDER_IP])
        if address not in self._known or frame[_SENDER_MAC] == self._mac:
            return
        now = self._clock.now()
        if now - self._defended.get(address, 0.0) < DEFEND_SECONDS:
            return
        self._defended[address] = now
        log(Message.ADDRESS_CONFLICT, address=str(address), used_by=frame[_SENDER_MAC].hex(":"))
        self._tell(address)

    def stop(self) -> None:
        """Stop answering."""
        if self._later is not None:
            self._later.cancel()
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        self._leave_routes()

    @off_loop
    def _leave_routes(self) -> None:
        with contextlib.suppress(NetlinkError), IPRoute() as links:
            self._replace(links, ())
