# SPDX-License-Identifier: BSD-3-Clause
"""A gateway in a network namespace of its own; run by ``test_machine``, as root or as root of a user namespace only.

``near0x`` and ``pub0x`` are the wires: what a host and a peer put in, and what comes out for them. Prints
``ok``, or fails.
"""

from __future__ import annotations

import select
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from isthmus.border.verdict import Reason
from isthmus.plane.link.userspace import UserspacePlane
from plane.fixture import NOW, build, scene, stage

OUTWARD = {"outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"}, "ipv4": "149.112.240.55 -> 192.156.136.22", "tcp": "10000 -> 80"}
INWARD = {"ipv4": "192.156.136.22 -> 149.112.240.55", "udp": "53 -> 10000", "tos": 186}

MAC = "02:00:00:00:00:01"


def run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=20)


class Wire:
    """The far end of an interface."""

    def __init__(self, near: str, address: str) -> None:
        far = f"{near}x"
        run("ip", "link", "add", near, "address", MAC, "type", "veth", "peer", "name", far)
        run("ip", "addr", "add", address, "dev", near)
        for end in (near, far):
            Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
            run("ip", "link", "set", end, "up")
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self.socket.bind((far, 0x0003))
        self.header = bytes.fromhex(MAC.replace(":", "")) + bytes.fromhex("020000000009") + b"\x08\x00"

    def put(self, packet: bytes) -> None:
        self.socket.send(self.header + packet)

    def take(self) -> list[bytes]:
        """Whatever IPv4 packets came out, within a moment."""
        found = []
        while select.select([self.socket], [], [], 0.15)[0]:
            frame, (_name, _protocol, kind, *_rest) = self.socket.recvfrom(65535)
            if kind != 4 and frame[12:14] == b"\x08\x00":
                found.append(frame[14:])
        return found


def serve(plane: UserspacePlane, seconds: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        for port in select.select(plane.ports(), [], [], rest)[0]:
            plane.service(port, now=NOW)


def main() -> None:
    near, public = Wire("near0", "10.0.0.1/24"), Wire("pub0", "149.112.240.55/24")
    for address, device in (("10.0.0.4", "near0"), ("149.112.240.1", "pub0")):
        run("ip", "neigh", "add", address, "lladdr", "02:00:00:00:00:09", "dev", device)
    run("ip", "route", "add", "default", "via", "149.112.240.1")
    border, effects = stage(scene("gateway"))
    border = replace(
        border,
        realms=tuple(
            replace(each, interface=name) for each, name in zip(border.realms, ("near0", "pub0"), strict=True)
        ),
    )
    plane = UserspacePlane.alone(border, "istp")
    plane.apply(effects)

    near.put(build(OUTWARD))
    public.put(build(INWARD))
    serve(plane)
    # Exactly these octets and exactly once: nothing else of the machine has routed a second copy.
    out = {key: value for key, value in OUTWARD.items() if key != "outer"}
    assert public.take() == [build({**out, "ttl": 63, "id": 10000})], "outward"
    inward = build({**INWARD, "ttl": 63})
    outer = build(
        {"ipv4": "10.0.0.1 -> 10.0.0.4", "protocol": 4, "payload": "", "tos": 186, "df": True, "id": 0, "cut": 0}
    )
    (arrived,) = near.take()
    assert arrived[20:] == inward, "inward"
    assert arrived[:2] + arrived[4:10] + arrived[12:20] == outer[:2] + outer[4:10] + outer[12:20]

    public.put(build({**INWARD, "ttl": 1}))
    near.put(build({**OUTWARD, "ttl": 1}))
    serve(plane)
    (exceeded,) = public.take()
    assert (exceeded[8], exceeded[12:16], exceeded[20]) == (64, bytes((149, 112, 240, 55)), 11)
    (exceeded,) = near.take()
    assert (exceeded[8], exceeded[28], exceeded[40]) == (64, 64, 11)

    # An echo request for the shared address is the plane's to answer, and it does, once.
    public.put(build({"ipv4": "192.156.136.22 -> 149.112.240.55", "echo": 10000}))
    serve(plane)
    (answer,) = public.take()
    assert (answer[8], answer[12:16], answer[20]) == (64, bytes((149, 112, 240, 55)), 0)

    # Passed: a timestamp request is the machine's own to answer.
    public.put(build({"ipv4": "192.156.136.22 -> 149.112.240.55", "icmp": [13, 0, 10000], "payload": "\0" * 12}))
    serve(plane)
    (answer,) = public.take()
    assert (answer[12:16], answer[20]) == (bytes((149, 112, 240, 55)), 14)

    # Fragments for a leased port go into the tunnel as a packet; those for the machine's own reach it, which refuses them.
    for port in (10000, 9):
        for part in ([504, -1], [0, 504]):
            public.put(build({**INWARD, "udp": f"53 -> {port}", "size": 1020, "part": part}))
    serve(plane)
    (arrived,) = near.take()
    assert arrived[20:] == build({**INWARD, "udp": "53 -> 10000", "size": 1020, "ttl": 63})
    assert [each[20:22] for each in public.take()] == [b"\x03\x03"]

    # What is not steered never comes by: the machine refuses its own closed port.
    public.put(build({**INWARD, "udp": "53 -> 9"}))
    serve(plane)
    assert [each[20:22] for each in public.take()] == [b"\x03\x03"]
    counted = {reason: count for reason, count in plane.counters().items() if count}
    assert counted == {
        Reason.FORWARDED_INWARD: 2,
        Reason.FORWARDED_OUTWARD: 1,
        Reason.PASSED: 2,
        Reason.REPLIED: 3,
        Reason.HELD: 2,
    }, counted
    assert plane.lost == 0

    plane.close()
    left = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert "isthmus" not in left
    assert [name for _index, name in socket.if_nameindex() if name.startswith("istp")] == []
    print("ok")


if __name__ == "__main__":
    main()
