# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane with its program at XDP before the one at TC, without a wire.

What XDP passes must be as it came and uncounted; then TC is asked, as the kernel does. Every interface has a default
route by a neighbour of its own, whose link address says which interface a packet was sent out by.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Iterator, Mapping

from isthmus.border.realm import Border
from isthmus.border.verdict import Reason
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.kernel.image import is_ipae
from plane.fixture import Outcome
from plane.kernel_under_test import ETHERNET, INTERFACES, LINK, MAC, Bench, KernelUnderTest

XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4
MOST_OCTETS = 3400
"What fits the one page that a frame has at XDP, with room for headers."
_NEIGHBOR = bytes.fromhex("0200000001")
_MD = struct.Struct("=6I")


class RoutedBench(Bench):
    """The same thread and interfaces, with a way out of each."""

    @staticmethod
    def _prepare() -> dict[str, int]:
        indexes = Bench._prepare()
        commands = ["addr add 169.254.1.1/32 dev lo", *(f"link set isx{at} up" for at in range(INTERFACES))]
        for at in range(INTERFACES):
            lladdr = (_NEIGHBOR + bytes([at])).hex(":")
            for gateway, family in ((f"169.254.0.{at + 1}", ""), (f"fe80::{at + 1:x}", "-6 ")):
                commands.append(f"{family}neigh add {gateway} lladdr {lladdr} dev ist{at} nud permanent")
                commands.append(f"{family}route add default via {gateway} dev ist{at} metric {at + 1} onlink")
        script = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        for at in range(INTERFACES):
            script += f" net.ipv6.conf.ist{at}.forwarding=1"
        subprocess.run(["sh", "-c", f"mount -t sysfs sysfs /sys; {script}"], check=True, timeout=20)
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, timeout=20)
        return indexes


@contextlib.contextmanager
def on_link(neighbor: str) -> Iterator[None]:
    """Let an address be a known neighbour on every interface; in the bench's thread."""
    commands = [
        f"neigh replace {neighbor} lladdr {_NEIGHBOR.hex(':')}:{at:02x} dev ist{at}" for at in range(INTERFACES)
    ]
    commands += [f"route replace {neighbor}/32 dev ist{at} metric {at + 1}" for at in range(INTERFACES)]
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "flush", "exact", f"{neighbor}/32"], check=True, timeout=20)


class XdpUnderTest(KernelUnderTest):
    """Runs packets through the program at XDP, and what that passes through the one at TC."""

    name = "xdp"
    _routed: Bench | None = None

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[bool] = []
        "Of each packet of the last run: whether it was left to TC."
        self._before: Mapping[Reason, int] = {}

    def bench(self) -> Bench:
        if XdpUnderTest._routed is None:
            XdpUnderTest._routed = RoutedBench()
        return XdpUnderTest._routed

    def open(self, border: Border, now: float) -> KernelPlane:
        plane = super().open(border, now)
        for realm in border.realms:
            name = f"realm {realm.number}"
            plane.attach(realm.number, name, punt=name, xdp=True)
        self.passed = []
        return plane

    def one(self, plane: KernelPlane, border: Border, realm: int, packet: bytes) -> Outcome:
        found = self.at_xdp(plane, border, realm, packet)
        self.passed.append(found is None)
        return super().one(plane, border, realm, packet) if found is None else found

    def at_xdp(self, plane: KernelPlane, border: Border, realm: int, packet: bytes) -> Outcome | None:
        """What the program at XDP decides; None: it leaves the packet to TC."""
        link = self.bench().links.find(f"realm {realm}")
        assert link is not None
        sip = border.realm(realm).sip is not None
        frame = ETHERNET[:12] + (b"\x86\xdd" if packet[:1] >= b"\x60" and not sip else b"\x08\x00") + packet
        if len(frame) > MOST_OCTETS or realm not in plane._xdp.realms:
            return None
        before = plane.counters()
        ran = plane._loaded.xdp("ipae" if is_ipae(border) else "border").test_run(
            frame, _MD.pack(0, len(frame), 0, link.index, 0, 0)
        )
        after = plane.counters()
        counted = [each for each in Reason if after[each] != before[each]]
        if ran.action == XDP_PASS:
            assert ran.packet == frame, "passed, yet something was changed"
            assert not counted, "passed, yet counted"
            return None
        (reason,) = counted
        assert after[reason] - before[reason] == 1
        if ran.action == XDP_DROP:
            assert reason.is_drop
            return "drop", reason, None, None
        assert ran.action == XDP_REDIRECT
        assert not reason.is_drop
        out, version = ran.packet[:LINK], ran.packet[LINK] >> 4
        assert (out[:5], out[6:12]) == (_NEIGHBOR, MAC)
        assert out[12:] == (b"\x86\xdd" if version == 6 and not is_ipae(border) else b"\x08\x00")
        into = next(name for name, index in self.bench().links.named().items() if index == self._index_of(out[5]))
        return "forward", reason, int(into.removeprefix("realm ")), ran.packet[LINK:]

    def _index_of(self, interface: int) -> int:
        return self.bench().links.free[interface]
