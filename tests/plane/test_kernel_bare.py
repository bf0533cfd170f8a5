# SPDX-License-Identifier: BSD-3-Clause
"""Packets without a link header, as of WireGuard: a gateway whose near realm is behind a TUN.

Run as a script, this file is that gateway.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.address import Address
from isthmus.border.realm import End
from isthmus.plane.kernel import KernelPlane
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.transport import emit_udp
from plane import test_kernel_real as real
from plane.one_end import GATEWAY, HOST, PLAIN, PRIVATE, PUBLIC, SHARED, border, effects, offset
from plane.test_kernel_real import Lab, echoing

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000

pytestmark = real.pytestmark
lab = real.lab


def bare(pin: Path) -> None:
    """A gateway whose near realm is behind a TUN: packets without a link header, as of WireGuard."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tn0", IFF_TUN | IFF_NO_PI))
    for words in ("link set tn0 up", f"route replace {HOST} dev tn0"):
        subprocess.run(["ip", *words.split()], check=True, timeout=20)
    plane = KernelPlane(border(End.GATEWAY, PLAIN), pin=pin, boot_offset=offset())
    plane.reconcile(effects(End.GATEWAY, PLAIN, time.time() + 60))
    plane.attach(PRIVATE, "tn0", punt="pt0")
    plane.attach(PUBLIC, "gp0", punt="pt0")
    peer = Address.parse("192.0.2.80")
    datagram = emit_udp(src=SHARED, dst=peer, src_port=10005, dst_port=5353, payload=b"bare")
    inner = Ipv4Header(total_length=20 + len(datagram), protocol=17, src=SHARED, dst=peer).emit() + datagram
    outer = Ipv4Header(total_length=20 + len(inner), protocol=4, src=HOST, dst=GATEWAY).emit() + inner
    found = b""
    for _ in range(20):  # the first ones may be lost to a neighbour that is not known yet
        os.write(tun, outer)
        while not found and select.select([tun], [], [], 0.2)[0]:
            packet = os.read(tun, 65535)
            found = packet if packet[9:10] == b"\x04" else b""
        if found:
            break
    dying = Ipv4Header(total_length=20 + len(datagram), ttl=1, protocol=17, src=SHARED, dst=peer).emit() + datagram
    os.write(tun, Ipv4Header(total_length=20 + len(dying), protocol=4, src=HOST, dst=GATEWAY).emit() + dying)
    time.sleep(0.1)
    counters = {reason.name: count for reason, count in plane.counters().items() if count}
    plane.destroy()
    print(json.dumps({"packet": found.hex(), "counters": counters}))


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun")
def test_packets_without_a_link_header(lab: Lab) -> None:
    with echoing(lab, "s", 5353):
        told = json.loads(lab.run("g", sys.executable, __file__, str(lab.pins / "g")))
    packet = bytes.fromhex(told["packet"])
    assert (packet[12:16], packet[16:20]) == (GATEWAY.octets, HOST.octets)
    assert (packet[36:40], packet[-4:]) == (SHARED.octets, b"bare")
    assert told["counters"]["FORWARDED_OUTWARD"] >= 1
    assert told["counters"]["FORWARDED_INWARD"] >= 1
    assert told["counters"]["PUNTED"] == 1


if __name__ == "__main__":
    bare(Path(sys.argv[1]))
