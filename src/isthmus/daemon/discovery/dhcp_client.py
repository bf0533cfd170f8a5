# SPDX-License-Identifier: BSD-3-Clause
"""Asking DHCP servers for options, without asking for an address (RFC 2131 §4.4.3).

The machine's own DHCP client may sit on port 68. So answers are read from a packet socket, with
a filter that lets nothing but them through, and the port is only sent from.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Sequence

from isthmus.daemon.discovery.near import NearInterface, datagrams
from isthmus.errors import Unsupported, WireError
from isthmus.wire.dhcp import CLIENT_PORT, SERVER_PORT, DhcpMessage, MessageType, Op
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.transport import Protocol, UdpHeader

_BROADCAST = "255.255.255.255"
_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_LARGEST = 65536
_UDP_OCTETS = 8
_DOWN_SECONDS = 0.1
_ONLY_ANSWERS = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 6, Protocol.UDP),
    (0x28, 0, 0, 6),  # flags and fragment offset: no later fragment
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 0),  # the header's length
    (0x48, 0, 0, 2),  # the destination port
    (0x15, 0, 1, CLIENT_PORT),
    (0x06, 0, 0, _LARGEST),
    (0x06, 0, 0, 0),
)
"""Classic BPF: take UDP datagrams to port 68, drop the rest."""


async def ask(
    near: NearInterface, options: Sequence[int], *, wanted: int, seconds: float, retry: float
) -> DhcpMessage | None:
    """Send a DHCPINFORM and wait for an answer that has what is wanted.

    Args:
        near: The interface whose servers are asked.
        options: The numbers to ask for.
        wanted: The one without which an answer is no use.
        seconds: How long to wait.
        retry: Seconds before the question is repeated; doubled each time.

    Returns:
        The first answer that has it; None if there was none in time.

    Raises:
        Unsupported: the sockets cannot be had: they need root.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    question = DhcpMessage.inform(
        xid=secrets.randbits(32), client=near.address, hardware=near.hardware, options=tuple(options)
    )
    with datagrams(near, CLIENT_PORT) as sender, _listen(near) as heard:
        while (now := loop.time()) < deadline:
            with contextlib.suppress(OSError):
                await loop.sock_sendto(sender, question.emit(), (_BROADCAST, SERVER_PORT))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, now + retry)):
                    while True:
                        answer = _read(await _receive(heard), question)
                        if answer is not None and wanted in answer.options:
                            return answer
            retry *= 2
    return None


async def _receive(heard: socket.socket) -> bytes:
    """Wait for a packet; that the interface has gone down is no answer, and it may come up again."""
    while True:
        try:
            return await asyncio.get_running_loop().sock_recv(heard, _LARGEST)
        except OSError:
            await asyncio.sleep(_DOWN_SECONDS)


def _listen(near: NearInterface) -> socket.socket:
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except OSError as error:
        raise Unsupported("asking by DHCP", remedy=f"{error.strerror}; it needs root") from error
    program = array.array("B", b"".join(struct.pack("=HBBI", *each) for each in _ONLY_ANSWERS))
    try:
        opened.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_ONLY_ANSWERS), program.buffer_info()[0])
        )
        opened.bind((near.name, _ETH_P_IP))
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise Unsupported(f"asking by DHCP on {near.name}", remedy=str(error.strerror)) from error
    return opened


def _read(octets: bytes, question: DhcpMessage) -> DhcpMessage | None:
    """Read a packet; None if it is no answer to the question."""
    try:
        payload = bytes(Ipv4View.parse(octets).payload)
        header = UdpHeader.parse(payload)
        # The checksum is not looked at: on a virtual link it may not be filled in, and the xid is what we trust.
        answer = DhcpMessage.parse(payload[_UDP_OCTETS : header.length])
    except WireError:
        return None
    ours = answer.xid == question.xid and answer.hardware == question.hardware and answer.op == Op.BOOTREPLY
    return answer if ours and answer.message_type == MessageType.ACK and header.src_port == SERVER_PORT else None
