# SPDX-License-Identifier: BSD-3-Clause
"""A port on the plane's end of a veth pair that exists: a packet socket, and a seal.

::

      IP stack, or programs          the plane
      ---------------------          ---------
      NAME  <--------- veth -------> NAMEp <--- packet socket
                                       X  sealed: nothing goes up to the IP stack on this side

The socket sees what arrives on NAMEp; so would the machine's IP stack, and it would route a
second copy of every packet. A filter on NAMEp's ingress, one instruction of classic BPF,
drops whatever the socket has seen. (``act_gact`` and ``nft`` would do as well; this needs neither.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections import deque

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.link import offload
from isthmus.wire.ipv4 import Ipv4View

ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
_LINK_OCTETS = 14
_PUNTED_FROM = b"\x06\x69"
"Begins the source address of a frame that the kernel plane punted for a program; the index of its device follows."
_ETHERTYPES = {4: ETH_P_IP.to_bytes(2, "big"), 6: ETH_P_IPV6.to_bytes(2, "big")}
_SIP_VERSION = 6
_LARGEST = offload.OCTETS + _LINK_OCTETS + 65535
_BUFFER_OCTETS = 4 << 20
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_RTM_NEWTFILTER, _RTM_DELTFILTER = 44, 45
_INGRESS = 0xFFFFFFF2
"TC_H_CLSACT, TC_H_MIN_INGRESS."
_PRIORITY = 0x1574
_SHOT = struct.pack("=HBBI", 6, 0, 0, 2)
"Classic BPF: return TC_ACT_SHOT."


class PacketPort:
    """Reads and writes whole IP packets at one end of a veth pair.

    Both ends have the same MAC address and do no ARP, so that what is written here is taken there.

    Args:
        interface: The plane's end.

    Raises:
        PlaneError: there is no such interface.
        Unsupported: no packet socket, or no filter, can be had.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        try:
            self._index = socket.if_nametoindex(interface)
        except OSError as error:
            raise PlaneError(f"there is no interface {interface}") from error
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as error:
            raise Unsupported(
                f"packet socket on {interface}", remedy=f"needs CAP_NET_RAW ({error.strerror})"
            ) from error
        try:
            self._prepare()
        except OSError as error:
            self._socket.close()
            raise Unsupported(f"packet socket on {interface}", remedy=str(error.strerror)) from error
        mac = self._socket.getsockname()[4]
        self._addresses = mac + mac
        self._segments: deque[bytes] = deque()
        self._origin = 0
        self._native = False

    def _prepare(self) -> None:
        """Seal first, listen then: what comes in between is lost, not doubled."""
        with IPRoute() as links, contextlib.suppress(NetlinkError):
            links.tc("add", "clsact", self._index)
        _filter(_RTM_NEWTFILTER, self._index)
        # Deviation: bigger buffers than net.core.rmem_max allows are a wish, not a condition.
        for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_OCTETS)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        # ETH_P_ALL: sockets for one protocol come after the filter and would see nothing.
        self._socket.bind((self._interface, ETH_P_ALL))

    @property
    def vanished(self) -> bool:
        """Whether the interface is gone, or another one has its name."""
        try:
            return socket.if_nametoindex(self._interface) != self._index
        except OSError:
            return True

    @property
    def name(self) -> str:
        """The interface that the socket is on."""
        return self._interface

    @property
    def origin(self) -> str | None:
        """The device of the program that sent what was received last, where the kernel plane says so."""
        if not self._origin:
            return None
        try:
            return socket.if_indextoname(self._origin)
        except OSError:
            return None

    @property
    def native(self) -> bool:
        """Whether what was received last is SIP: version 6 by the EtherType of IPv4 (seed IPAE 4.2.1; spec 2.7)."""
        return self._native

    def fileno(self) -> int:
        """The packet socket."""
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """Take the next IP packet; None if none waits, or the interface has vanished."""
        while not self._segments:
            try:
                octets = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.EINVAL:  # a packet cut in a way that a virtio_net_hdr has no number for
                    continue
                return None
            left, frame = offload.Unfinished.parse(octets), octets[offload.OCTETS :]
            self._origin = int.from_bytes(frame[8:12], "big") if frame[6:8] == _PUNTED_FROM else 0
            if frame[12:_LINK_OCTETS] in _ETHERTYPES.values() and len(frame) > _LINK_OCTETS:
                is_ipv4 = frame[12:_LINK_OCTETS] == _ETHERTYPES[4]
                self._native = is_ipv4 and frame[_LINK_OCTETS] >> 4 == _SIP_VERSION
                self._segments.extend(offload.finish(frame[_LINK_OCTETS:], left, _LINK_OCTETS))
        return self._segments.popleft()

    def send(self, packet: bytes, *, forwarded: bool = False) -> bool:
        """Let a packet arrive on the other end; False if it was lost."""
        try:
            whole = raise_ttl(packet) if forwarded else packet
            self._socket.send(offload.NOTHING + self._addresses + ethertype(packet) + whole)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket and break the seal."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        with contextlib.suppress(OSError):
            _filter(_RTM_DELTFILTER, self._index)


class TransmitPort:
    """Writes whole IP packets at one end of a veth pair that somebody else reads.

    Args:
        interface: The plane's end.

    Raises:
        PlaneError: there is no such interface.
        Unsupported: no packet socket can be had.
    """

    def __init__(self, interface: str) -> None:
        try:
            self._index = socket.if_nametoindex(interface)
            self._interface = interface
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError as error:
            raise Unsupported(f"packet socket on {interface}", remedy="needs CAP_NET_RAW") from error
        except OSError as error:
            raise PlaneError(f"there is no interface {interface}") from error
        # Protocol 0: nothing is received.
        self._socket.bind((interface, 0))
        mac = self._socket.getsockname()[4]
        self._addresses = mac + mac

    @property
    def vanished(self) -> bool:
        """Whether the interface is gone, or another one has its name."""
        try:
            return socket.if_nametoindex(self._interface) != self._index
        except OSError:
            return True

    def send(self, packet: bytes, *, forwarded: bool = False) -> bool:
        """Let a packet arrive on the other end; False if it was lost."""
        try:
            self._socket.send(self._addresses + ethertype(packet) + (raise_ttl(packet) if forwarded else packet))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Ipv6Sender:
    """Sends whole IPv6 packets by the machine's own routes, for outer headers that the plane wrote.

    A raw socket, since a packet that arrives on a port is only routed on where IPv6 forwarding is on
    for the whole machine, and that a host should not need.

    Raises:
        Unsupported: no raw socket can be had.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
        except OSError as error:
            raise Unsupported("raw IPv6 socket", remedy=f"needs CAP_NET_RAW ({error.strerror})") from error

    def send(self, packet: bytes) -> bool:
        """Send a packet to the destination in its header; False if it was lost."""
        try:
            self._socket.sendto(packet, (str(Address.from_octets(packet[24:40])), 0))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def ethertype(packet: bytes) -> bytes:
    """The two octets of a link header that say which version an IP packet is of."""
    return _ETHERTYPES.get(packet[0] >> 4, _ETHERTYPES[4])


def raise_ttl(packet: bytes) -> bytes:
    """Add the one that the kernel takes when it forwards: the TTL decided on is the one that leaves (RFC 1624 §3)."""
    octets = bytearray(packet)
    if octets[0] >> 4 != 4:
        return packet
    view = Ipv4View.parse(octets)
    # Silent: 255 comes from no decision of the plane, since what is forwarded has gone down by one.
    if view.ttl < 255:
        view.ttl += 1
    return bytes(octets)


def _filter(command: int, index: int) -> None:
    """Add or remove the filter that drops everything (rtnetlink; cls_bpf with classic BPF, direct action)."""
    options = _attribute(4, struct.pack("=H", 1)) + _attribute(5, _SHOT) + _attribute(8, struct.pack("=I", 1))
    body = struct.pack("=BxHiIII", socket.AF_UNSPEC, 0, index, 1, _INGRESS, _PRIORITY << 16 | socket.htons(ETH_P_ALL))
    body += _attribute(1, b"bpf\0") + _attribute(2, options)
    create = 0x400 if command == _RTM_NEWTFILTER else 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(struct.pack("=IHHII", 16 + len(body), command, 0x1 | 0x4 | create, 1, 0) + body, (0, 0))
        answer = netlink.recv(65535)
    code = -struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(code, f"filter on interface {index}: {os.strerror(code)}")


def _attribute(kind: int, value: bytes) -> bytes:
    octets = struct.pack("=HH", 4 + len(value), kind) + value
    return octets + bytes(-len(octets) % 4)
