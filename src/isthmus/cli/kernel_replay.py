# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane without a wire, for 'isthmus check': its program is run over octets (BPF_PROG_TEST_RUN).

A thread of ours gets a network namespace of its own, with one interface for each realm, since
the program knows realms by interface. Nothing of the machine is touched, and everything ends with the thread.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.border.effect import Bind, Register
from isthmus.border.realm import Border
from isthmus.border.verdict import Drop, Forward, Pass, Punt, Reason, Verdict
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.kernel.attach import Link

_CLONE_NEWNET = 0x40000000
_MAC = "02:00:00:00:00:01"
_ETHERNET = bytes.fromhex("0200000000010200000000020800")
_SHORTEST = 20
"Linux runs no program over an IPv4 frame shorter than its header."
_SKB_OCTETS, _IFINDEX_AT, _CB_AT = 192, 40, 48
"``struct __sk_buff`` of linux/bpf.h. The program leaves realm and reason plus one in ``cb``."
_T = TypeVar("_T")


class KernelReplay:
    """A kernel plane that decides about single packets.

    Args:
        border: Realms, tunnel ends and claims.
        effects: What stands.
        now: The time that the plane's clock is to say.

    Raises:
        PlaneError: it cannot be loaded here.
    """

    def __init__(self, border: Border, effects: Sequence[Register | Bind], now: float) -> None:
        self._thread = ThreadPoolExecutor(1, "kernel-replay")
        self._links = _Interfaces()
        try:
            self._plane = self._do(lambda: self._open(border, effects, now))
        except BaseException:
            self._thread.shutdown()
            raise

    def process(self, realm: int, packet: bytes, *, now: float) -> Verdict:  # noqa: ARG002
        """Decide about one packet, and count it. The kernel has a clock of its own."""
        return self._do(lambda: self._run(realm, packet))

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason."""
        return self._do(self._plane.counters)

    def close(self) -> None:
        """Let go of the plane and the namespace."""
        self._do(self._plane.close)
        self._thread.shutdown()

    def _do(self, work: Callable[[], _T]) -> _T:
        return self._thread.submit(work).result()

    def _open(self, border: Border, effects: Sequence[Register | Bind], now: float) -> KernelPlane:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise Unsupported(f"a network namespace: {reason}", remedy="run as root, or use --plane reference")
        plane = KernelPlane(border, pin=None, boot_offset=now - _whole_second(), links=self._links)
        try:
            for realm in border.realms:
                plane.attach(realm.number, f"realm{realm.number}", punt=f"realm{realm.number}")
            plane.apply(effects)
        except BaseException:
            plane.close()
            raise
        return plane

    def _run(self, realm: int, packet: bytes) -> Verdict:
        if len(packet) < _SHORTEST:
            return Pass()
        link = self._links.find(f"realm{realm}")
        context = bytearray(_SKB_OCTETS)
        struct.pack_into("=I", context, _IFINDEX_AT, link.index)
        program = self._plane._loaded.program  # noqa: SLF001 - a test run is of the program, not of the plane
        ran = program.test_run(_ETHERNET + packet, bytes(context))
        into = int.from_bytes(ran.context[_CB_AT : _CB_AT + 4], "big")
        number = struct.unpack_from("=I", ran.context, _CB_AT + 4)[0]
        if not number:
            raise PlaneError(f"the program left no reason in cb (action {ran.action})")
        reason = next(each for each in Reason if each == number - 1)
        if reason is Reason.PASSED:
            return Pass()
        if reason is Reason.PUNTED:
            return Punt()
        if reason.is_drop:
            return Drop(reason)
        return Forward(into, (ran.packet[len(_ETHERNET) :],), reason)


class _Interfaces:
    """Interfaces of the thread's namespace, made when they are asked for; nothing is attached."""

    def __init__(self) -> None:
        self._made: dict[str, Link] = {}

    def find(self, name: str) -> Link:
        if name not in self._made:
            self._made[name] = Link(_make(f"ist{len(self._made)}"), bare=False, mtu=65535)
        return self._made[name]

    def indexes(self) -> set[int]:
        return {link.index for link in self._made.values()}

    def attach(self, index: int, program_fd: int) -> None:
        """Do nothing: packets come by test run."""

    def detach(self, index: int) -> None:
        """Do nothing."""


def _make(name: str) -> int:
    try:
        with IPRoute() as links:
            links.link("add", ifname=name, kind="veth", address=_MAC, peer={"ifname": f"{name}p"})
            index: int = links.link_lookup(ifname=name)[0]
            links.link("set", index=index, state="up")
    except NetlinkError as error:
        raise Unsupported(f"a veth pair: {error}", remedy="run as root, or use --plane reference") from error
    return index


def _whole_second() -> int:
    """CLOCK_BOOTTIME in whole seconds, early in one of them, because deadlines are kept in seconds."""
    while (now := time.clock_gettime(time.CLOCK_BOOTTIME)) % 1 > 0.5:
        time.sleep(0.02)
    return math.floor(now)
