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

from isthmus.border.realm import Border
from isthmus.border.verdict import Drop, Forward, Pass, Punt, Reason, Verdict
from isthmus.cli.replay import Standing
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.kernel.attach import Link

_CLONE_NEWNET = 0x40000000
_MAC = "02:00:00:00:00:01"
_ADDRESSES = bytes.fromhex("020000000001020000000002")
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_LINK_OCTETS = 14
_SHORTEST = {_IPV4: 20, _IPV6: 40}
"Linux runs no program over a frame shorter than the header of what its EtherType says."
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

    def __init__(self, border: Border, effects: Sequence[Standing], now: float) -> None:
        self._thread = ThreadPoolExecutor(1, "kernel-replay")
        self._links = _Interfaces()
        self._border = border
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

    def _open(self, border: Border, effects: Sequence[Standing], now: float) -> KernelPlane:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise Unsupported(f"a network namespace: {reason}", remedy="run as root, or use --plane reference")
        plane = KernelPlane(border, pin=None, boot_offset=now - _whole_second(), links=self._links)
        try:
            plane.reconcile(effects)
            for realm in border.realms:
                plane.attach(realm.number, f"realm{realm.number}", punt=f"realm{realm.number}")
        except BaseException:
            plane.close()
            raise
        return plane

    def _ethertype(self, realm: int, packet: bytes) -> bytes:
        """Version 6 is SIP where the link has IPv4 and SIP, and IPv6 elsewhere."""
        of_sip = self._border.realm(realm).sip is not None
        return _IPV6 if not of_sip and packet[:1] and packet[0] >> 4 == 6 else _IPV4

    def _run(self, realm: int, packet: bytes) -> Verdict:
        kind = self._ethertype(realm, packet)
        if len(packet) < _SHORTEST[kind]:
            return Pass()
        link = self._links.find(f"realm{realm}")
        context = bytearray(_SKB_OCTETS)
        struct.pack_into("=I", context, _IFINDEX_AT, link.index)
        ran = self._plane.program.test_run(_ADDRESSES + kind + packet, bytes(context))
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
        return Forward(into, (ran.packet[_LINK_OCTETS:],), reason)


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

    def peer(self, index: int) -> int:  # noqa: ARG002 - the name is the protocol's
        """Nobody asks where packets go from there."""
        return 0

    def attach(self, index: int, program_fd: int) -> None:
        """Do nothing: packets come by test run."""

    def attach_xdp(self, index: int, program_fd: int) -> str:
        """Do nothing: nobody asks for XDP here."""
        raise NotImplementedError

    def detach_xdp(self, index: int) -> None:
        """Do nothing."""

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
