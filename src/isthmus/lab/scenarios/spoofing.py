# SPDX-License-Identifier: BSD-3-Clause
"""Spoofing stops: what a host may not send is dropped, counted, and answered (RFC 3103 §10.4)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.border.verdict import Reason
from isthmus.errors import WireError
from isthmus.lab import figure
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, Node, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.rsip.message import ErrorResponse, parse
from isthmus.wire.transport import Protocol, UdpHeader, emit_udp

NAME = "spoofing"
STRANGER = "stranger"
_UNLEASED = "149.112.240.99"
_FLOOD = 200
_GRE_IPV4 = b"\x00\x00\x08\x00"
_PEER_PORT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Misuse:
    """One way to do it wrong."""

    what: str
    sender: str
    source: str
    port: int
    reason: Reason
    protocol: Protocol = Protocol.IPIP

    def inner(self, payload: bytes = b"spoofed") -> bytes:
        """The packet that goes into the tunnel."""
        src, dst = Address.parse(self.source), Address.parse(figure.SERVER)
        datagram = emit_udp(src=src, dst=dst, src_port=self.port, dst_port=_PEER_PORT, payload=payload)
        header = Ipv4Header(total_length=20 + len(datagram), protocol=Protocol.UDP, src=src, dst=dst)
        return header.emit() + datagram


def start(lab: Lab, setting: Setting) -> None:
    """Start Figure 1; the stranger has no daemon."""
    two_hosts.start(lab, setting)


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Do it right once, then wrong in every way, then wrong very often."""
    ports = {host: two_hosts.leased_ports(lab)[address] for host, address in figure.HOSTS.items()}
    own, others = ports["host-a"].pairs[0][0], ports["host-b"].pairs[0][0]
    with (
        capturing(lab["lan"], "host-a") as near,
        capturing(lab["lan"], STRANGER) as aside,
        capturing(lab["server"], "eth0") as far,
    ):
        right = Misuse(what="", sender="host-a", source=figure.SHARED, port=own, reason=Reason.FORWARDED_OUTWARD)
        send(lab["host-a"], right, right.inner(b"mine"))
        arrived = wait_until(lambda: any(packet.octets.endswith(b"mine") for packet in far.packets), 3)
        yield Check("a packet with the host's own port arrives", arrived, f"{figure.SHARED} port {own}")
        for misuse in misuses(own=own, others=others):
            yield from _try(lab, misuse, aside if misuse.sender == STRANGER else near)
        yield from _untunnelled(lab, own)
        yield from _flood(lab, misuses(own=own, others=others)[0], near)
        leaked = [packet for packet in far.packets if packet.octets.endswith(b"spoofed")]
    yield Check("nothing spoofed reaches the server", not leaked, f"{len(leaked)} spoofed packets seen there")


def misuses(*, own: int, others: int) -> tuple[Misuse, ...]:
    """Every way that a gateway tells apart."""
    shared = figure.SHARED
    return (
        Misuse(
            what="another host's port",
            sender="host-a",
            source=shared,
            port=others,
            reason=Reason.SOURCE_PORT_NOT_LEASED,
        ),
        Misuse(
            what="an address that is not leased",
            sender="host-a",
            source=_UNLEASED,
            port=own,
            reason=Reason.SOURCE_ADDRESS_NOT_LEASED,
        ),
        Misuse(
            what="the wrong type of tunnel",
            sender="host-a",
            source=shared,
            port=own,
            reason=Reason.WRONG_TUNNEL_TYPE,
            protocol=Protocol.GRE,
        ),
        Misuse(
            what="a host that has not registered",
            sender=STRANGER,
            source=shared,
            port=own,
            reason=Reason.UNREGISTERED,
        ),
    )


def send(node: Node, misuse: Misuse, *packets: bytes) -> None:
    """Tunnel packets to the gateway, past the host's own plane."""
    shim = _GRE_IPV4 if misuse.protocol == Protocol.GRE else b""
    node.send_raw(misuse.protocol, figure.GATEWAY_NEAR, *(shim + packet for packet in packets))


def errors_seen(capture: Capture) -> list[tuple[float, ErrorResponse]]:
    """The ERROR_RESPONSEs that came from the gateway over UDP, with the time of each."""
    found = []
    for packet in capture.packets:
        octets = packet.octets
        if octets[9] != Protocol.UDP or str(Address.from_octets(octets[12:16])) != figure.GATEWAY_NEAR:
            continue
        start_of_data = (octets[0] & 0xF) * 4 + 8
        try:
            udp = UdpHeader.parse(octets[start_of_data - 8 :])
            message = parse(octets[start_of_data : start_of_data - 8 + udp.length], strict=False)
        except WireError:
            continue
        if udp.src_port == figure.CONTROL_PORT and isinstance(message, ErrorResponse):
            found.append((packet.at, message))
    return found


def _try(lab: Lab, misuse: Misuse, near: Capture) -> Iterator[Check]:
    """Do it once and see that it is counted and answered; a stranger is told at RSIP's own port."""
    name = misuse.reason.name
    before = _count(lab, misuse.reason)
    answers = len(errors_seen(near))
    send(lab[misuse.sender], misuse, misuse.inner())
    wait_until(lambda: _count(lab, misuse.reason) > before, 3, every=0.2)
    counted = _count(lab, misuse.reason) - before
    yield Check(f"{misuse.what}: dropped and counted", counted == 1, f"{name} counted {counted}")
    wait_until(lambda: len(errors_seen(near)) > answers, 3)
    new = [message for _, message in errors_seen(near)[answers:]]
    ok = len(new) == 1 and new[0].error.value == misuse.reason.rsip_code and _is_asynchronous(new[0])
    shown = ", ".join(str(int(message.error.value)) for message in new) or "nothing"
    yield Check(
        f"{misuse.what}: answered with error {misuse.reason.rsip_code}", ok, f"ERROR_RESPONSE {shown}, unasked for"
    )


_SEND_PLAIN = """\
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0x0800))
    header = bytes.fromhex(sys.argv[1].replace(":", "")) + raw.getsockname()[4] + bytes.fromhex("0800")
    raw.send(header + bytes.fromhex(sys.argv[2]))
"""


def _untunnelled(lab: Lab, port: int) -> Iterator[Check]:
    """With its own port even, but past its tunnel: straight to the gateway's hardware address."""
    reason = Reason.NOT_TUNNELLED
    before = _count(lab, reason)
    link = json.loads(lab["gateway"].run("ip", "-json", "link", "show", "lan0").stdout)[0]
    plain = Misuse(what="", sender="host-a", source=figure.SHARED, port=port, reason=reason)
    lab["host-a"].run(ISTHMUS[0], "-c", _SEND_PLAIN, link["address"], plain.inner().hex())
    wait_until(lambda: _count(lab, reason) > before, 3, every=0.2)
    counted = _count(lab, reason) - before
    yield Check(
        "a leased address outside of its tunnel: dropped and counted", counted == 1, f"{reason.name} counted {counted}"
    )


def _is_asynchronous(message: ErrorResponse) -> bool:
    """Counter 0 is the gateway's own for what nobody asked for (RFC 3103 §8.11)."""
    return message.message_counter is not None and message.message_counter.value == 0


def _flood(lab: Lab, misuse: Misuse, near: Capture) -> Iterator[Check]:
    """Do it very often: every packet is counted, and the answers stay few."""
    time.sleep(1.1)
    before, answers, began = _count(lab, misuse.reason), len(errors_seen(near)), time.monotonic()
    send(lab[misuse.sender], misuse, *[misuse.inner()] * _FLOOD)
    wait_until(lambda: _count(lab, misuse.reason) >= before + _FLOOD, 5, every=0.2)
    time.sleep(1.0)
    counted, seconds = _count(lab, misuse.reason) - before, time.monotonic() - began
    new = len(errors_seen(near)) - answers
    yield Check(
        "a flood is counted whole and answered at a limited rate",
        counted == _FLOOD and 1 <= new <= seconds + 2,
        f"{counted} of {_FLOOD} packets counted, {new} answers within {seconds:.1f} seconds",
    )


def _count(lab: Lab, reason: Reason) -> int:
    return int(lab["gateway"].isthmus("counters").get(reason.name, 0))


SCENARIO = Scenario(
    name=NAME,
    title="A packet that its sender may not send is dropped, counted under its reason, and answered",
    shows=("RFC 3103 10.4", "RFC 3103 7", "RFC 3103 9.1", "RFC 3103 14", "seed RSIP 3.2"),
    network=figure.network(NAME, ("host-a", "host-b", STRANGER)),
    start=start,
    play=play,
)
