# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane without a wire: its program is run over octets (BPF_PROG_TEST_RUN).

A thread has a network namespace of its own (interfaces of known index, nothing of the machine's)
and a mount namespace of its own (a BPF file system for the pins), so that nothing has to be
cleaned up. One run adopts the maps that the run before pinned: every run is also a restart.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from isthmus.address import Family
from isthmus.border.realm import Border, End
from isthmus.border.verdict import Reason, Violation
from isthmus.errors import IsthmusError
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, Sizes
from isthmus.plane.kernel.attach import Link
from isthmus.plane.kernel.image import is_ipae
from isthmus.plane.kernel.loader import TestRun
from isthmus.plane.kernel.ring import SLOT_OCTETS
from isthmus.plane.reference.ring import SLOTS
from plane.fixture import Outcome

OBJECT = Path(__file__).parents[2] / "src/isthmus/plane/kernel/objects/border_tc.bpf.o"
INTERFACES = 8
TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT = 0, 2, 7
MAC = bytes.fromhex("020000000001")
ETHERNET = MAC + bytes.fromhex("020000000002") + b"\x08\x00"
LINK = len(ETHERNET)
_ON_IPV4 = frozenset({Reason.FORWARDED_SIP, Reason.TRANSLATED_TO_SIP})
"Links of IPv4, whichever of the two it is."
PUNTED_FROM = bytes.fromhex("0669")
IPV4_HEADER, IPV6_HEADER = 20, 40
PINS = Path(f"/run/isthmus-kernel-under-test-{os.getpid()}")
SIZES = Sizes(slices=1 << 17, endpoints=256)
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_SKB_OCTETS, _IFINDEX_AT, _CB_AT = 192, 40, 48
_T = TypeVar("_T")


class Bench:
    """The thread, and the interfaces that it has."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "kernel-under-test")
        self.links = FakeLinks(self.do(self._prepare))

    def do(self, work: Callable[[], _T]) -> _T:
        """Do something in the thread."""
        return self._thread.submit(work).result(timeout=120)

    @staticmethod
    def _prepare() -> dict[str, int]:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True, timeout=20)
        commands = [f"link add ist{at} address {MAC.hex(':')} type veth peer name isx{at}" for at in range(INTERFACES)]
        commands += [f"link set ist{at} up" for at in range(INTERFACES)]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, timeout=20)
        shown = json.loads(subprocess.check_output(["ip", "-j", "link"], timeout=20))
        return {each["ifname"]: each["ifindex"] for each in shown}


class FakeLinks:
    """Interfaces by the names that a test gives them; nothing is attached."""

    def __init__(self, indexes: dict[str, int]) -> None:
        self.free = [indexes[f"ist{at}"] for at in range(INTERFACES)]
        self._named: dict[str, int] = {}

    def find(self, name: str) -> Link | None:
        if name not in self._named and len(self._named) < len(self.free):
            self._named[name] = self.free[len(self._named)]
        return Link(self._named[name], bare=False, mtu=65535, address=MAC) if name in self._named else None

    def indexes(self) -> set[int]:
        return set(self.free)

    def peer(self, index: int) -> int:
        return 0

    def named(self) -> dict[str, int]:
        return dict(self._named)

    def forget(self) -> None:
        self._named.clear()

    def attach(self, index: int, program_fd: int) -> None:
        pass

    def detach(self, index: int) -> None:
        pass

    def attach_xdp(self, index: int, program_fd: int) -> str:
        return ""

    def detach_xdp(self, index: int) -> None:
        pass


class KernelUnderTest:
    """Runs packets through the program, as ``tests/plane/planes.py`` wants it."""

    name = "kernel"
    _bench: Bench | None = None

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._plane: KernelPlane | None = None

    def available(self) -> str | None:
        if os.geteuid() != 0:
            return "needs root"
        if shutil.which("ip") is None or not OBJECT.exists():
            return "needs iproute2 and the objects: make -C bpf"
        try:
            self.bench()
        except (OSError, IsthmusError, subprocess.SubprocessError) as error:
            return f"no namespaces: {error}"
        return None

    def bench(self) -> Bench:
        if KernelUnderTest._bench is None:
            KernelUnderTest._bench = Bench()
        return KernelUnderTest._bench

    def run(
        self,
        border: Border,
        effects: Iterable[Programmable],
        packets: Sequence[tuple[int, bytes]],
        now: float,
        *,
        at_once: bool = True,
    ) -> list[Outcome]:
        given = tuple(effects)
        return self.bench().do(lambda: self._run(border, given, packets, now, at_once=at_once))

    def violations(self) -> list[Violation] | None:
        return self._violations

    def _run(
        self,
        border: Border,
        effects: tuple[Programmable, ...],
        packets: Sequence[tuple[int, bytes]],
        now: float,
        *,
        at_once: bool,
    ) -> list[Outcome]:
        plane = self.open(border, now)
        try:
            plane.reconcile(effects if at_once else ())
            plane.apply(() if at_once else effects)
            before = plane.counters()
            outcomes = [self.one(plane, border, realm, packet) for realm, packet in packets]
            after = plane.counters()
            expected = dict.fromkeys(Reason, 0)
            for _kind, reason, _realm, _packet in outcomes:
                expected[reason] += 1
            assert {each: after[each] - before[each] for each in Reason} == expected, "every packet counts once"
            self._violations = plane.events()
        finally:
            plane.close()
        return outcomes

    def open(self, border: Border, now: float) -> KernelPlane:
        """A plane over the maps of the run before, with a memory of nobody; call it in the thread."""
        links = self.bench().links
        links.forget()
        plane = KernelPlane(border, pin=PINS, boot_offset=now - whole_second(), links=links, sizes=SIZES)
        for realm in border.realms:
            plane.attach(realm.number, f"realm {realm.number}", punt=f"realm {realm.number}")
        with plane._maps["contacted"].mapped() as memory:
            memory[:] = bytes(len(memory))
        for name in ("paths", "ways"):
            for key, _ in list(plane._maps[name].items()):
                plane._maps[name].remove(key)
        sent = SLOT_OCTETS * min(int.from_bytes(plane._rules[4:8], "little"), SLOTS)
        plane._sent[:sent], plane._rules[4:8] = bytes(sent), bytes(4)
        plane.events()
        return plane

    def one(self, plane: KernelPlane, border: Border, realm: int, packet: bytes) -> Outcome:
        """Run one packet; what is of version 6 on an IPv4 link is SIP."""
        found = self.bench().links.find(f"realm {realm}")
        assert found is not None
        sip = border.realm(realm).sip is not None
        if len(packet) < (IPV6_HEADER if not sip and packet[:1] and packet[0] >> 4 == 6 else IPV4_HEADER):
            if border.realm(realm).family is Family.IPV6 and is_ipae(border):
                pytest.skip("Linux runs no program over an IPv6 frame that is shorter than its header")
            # Nor over one of IPv4; as some other frame it must pass all the same.
            frame = ETHERNET[:12] + b"\x88\xb5" + (packet or b"\0")
        else:
            frame = ETHERNET + packet if sip else _framed(packet)
        ran = plane.program.test_run(frame, context(found.index))
        outcome = _outcome(ran)
        if outcome[0] == "punt" and border.realm(realm).end is End.HOST:
            # The source address says which device the packet came from (verdict.h, note_device).
            frame = frame[:6] + PUNTED_FROM + found.index.to_bytes(4, "big") + frame[12:]
        if outcome[0] in {"pass", "punt"}:
            assert ran.packet == frame, f"{outcome[0]}, yet something was changed"
        return outcome


def _framed(packet: bytes) -> bytes:
    return ETHERNET[:12] + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def context(ifindex: int) -> bytes:
    """A ``struct __sk_buff`` of an interface."""
    octets = bytearray(_SKB_OCTETS)
    struct.pack_into("=I", octets, _IFINDEX_AT, ifindex)
    return bytes(octets)


def whole_second() -> int:
    """CLOCK_BOOTTIME in whole seconds, early in one of them: what expires now has expired, a second later it has not."""
    while (now := time.clock_gettime(time.CLOCK_BOOTTIME)) % 1 > 0.85:
        time.sleep(0.02)
    return math.floor(now)


def _outcome(ran: TestRun) -> Outcome:
    """What the program left in ``cb``: realm, and reason plus one."""
    realm, number = (
        struct.unpack_from("!I", ran.context, _CB_AT)[0],
        struct.unpack_from("=I", ran.context, _CB_AT + 4)[0],
    )
    reason = next(each for each in Reason if each == number - 1)
    if reason is Reason.PUNTED:
        assert ran.action == TC_ACT_REDIRECT
        return "punt", reason, None, None
    if reason is Reason.PASSED:
        assert ran.action == TC_ACT_OK
        return "pass", reason, None, None
    if reason.is_drop:
        assert ran.action == TC_ACT_SHOT
        return "drop", reason, None, None
    assert ran.action in {TC_ACT_OK, TC_ACT_REDIRECT}
    header = ETHERNET if reason in _ON_IPV4 else _framed(ran.packet[LINK:])
    assert ran.packet[2 * len(MAC) : LINK] == header[2 * len(MAC) : LINK], "the link header says another version of IP"
    return "forward", reason, realm, ran.packet[LINK:]
