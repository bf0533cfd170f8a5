# SPDX-License-Identifier: BSD-3-Clause
"""Every fixture at XDP: the same decision there, octet for octet, or the packet as it came and TC's decision."""

from __future__ import annotations

import ctypes
import socket
import struct
import subprocess
from contextlib import closing

import pytest

from isthmus.border.realm import Border, End, Realm
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, attach
from isthmus.plane.kernel.attach import MachineLinks
from isthmus.plane.kernel.libbpf import libbpf
from isthmus.plane.kernel.loader import Program
from plane.fixture import NOW, Fixture, Outcome, build, load, scene, stage
from plane.kernel_under_test import ETHERNET, LINK, PINS
from plane.planes import KernelWithReference
from plane.xdp_under_test import MOST_OCTETS, XDP_PASS, XDP_REDIRECT, XdpUnderTest, on_link

FIXTURES = load()
xdp = XdpUnderTest()
planes = KernelWithReference(xdp)
pytestmark = pytest.mark.root
OUTWARD = {"ipv4": "149.112.240.55 -> 192.156.136.22", "tcp": "10000 -> 80", "outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"}}
SIP = 6
"The version."
NATIVE_MODE, PROG_TYPE_XDP = 1 << 2, 6
"XDP_FLAGS_DRV_MODE, BPF_PROG_TYPE_XDP."


@pytest.mark.parametrize("fixture", FIXTURES, ids=str)
def test_fixture(fixture: Fixture) -> None:
    reason = planes.available()
    if reason is not None:
        pytest.skip(reason)
    outcomes = planes.run(fixture.border, fixture.effects, fixture.packets, NOW, waits=fixture.waits)
    assert fixture.comparable(outcomes[-1]) == fixture.comparable(fixture.expected)
    assert planes.extra() == fixture.counts
    violations = planes.violations()
    if violations is not None and len(fixture.packets) == 1:
        assert [each.reason for each in violations] == [fixture.expected[1]] * fixture.violation
    assert xdp.passed[-1] == _is_left_to_tc(fixture, punted=len(fixture.packets) - 1 in planes.punted)


def _is_left_to_tc(fixture: Fixture, *, punted: bool) -> bool:
    """Whether XDP has to leave a packet to TC: what the reference plane or the machine does, and all that is a host's."""
    realm, packet = fixture.packets[-1]
    kind, _reason, into, _octets = fixture.expected
    by_host = fixture.border.realm(realm).end is End.HOST
    to_program = kind == "forward" and into is not None and fixture.border.realm(into).end is End.HOST
    on_a_link = kind == "forward" and is_native(fixture)
    return punted or kind == "pass" or by_host or to_program or on_a_link or len(packet) > MOST_OCTETS - LINK


def is_native(fixture: Fixture) -> bool:
    """Whether a packet leaves as SIP on a link: only what TC has asked about in the same tick is sent there from XDP."""
    _kind, reason, _into, octets = fixture.expected
    return reason in {Reason.FORWARDED_SIP, Reason.TRANSLATED_TO_SIP} and octets is not None and octets[0] >> 4 == SIP


NATIVE = [each for each in FIXTURES if is_native(each) and each.neighbour is not None and len(each.packets) == 1]


@pytest.mark.parametrize("fixture", NATIVE[:3], ids=str)
def test_sip_on_a_link_where_tc_has_just_sent_some(fixture: Fixture) -> None:
    if (reason := xdp.available()) is not None:
        pytest.skip(reason)

    def work() -> Outcome | None:
        plane = xdp.open(fixture.border, NOW)
        try:
            plane.reconcile(fixture.effects)
            with on_link(str(fixture.neighbour)):
                for _ in range(100):
                    super(XdpUnderTest, xdp).one(plane, fixture.border, *fixture.packets[0])
                    if found := xdp.at_xdp(plane, fixture.border, *fixture.packets[0]):
                        return found
        finally:
            plane.close()
        return None

    found = xdp.bench().do(work)
    assert found is not None, "left to TC, though that has just asked the kernel"
    right = fixture.comparable(fixture.expected)
    assert (found[:2], found[3]) == (right[:2], right[3])


def test_what_cannot_have_it_is_told_and_the_program_of_another_stays() -> None:
    if (reason := xdp.available()) is not None:
        pytest.skip(reason)

    def work() -> list[str]:
        plane = xdp.open(Border(realms=(Realm(number=1, name="here"),)), NOW)
        links, fd = MachineLinks(), plane._loaded.xdp("border").fd
        index = xdp.bench().links.free[0]
        said = [links.attach_xdp(socket.if_nametoindex("lo"), fd), links.attach_xdp(index, fd)]
        with closing(foreign()) as other:
            libbpf().bpf_xdp_attach(index, other.fd, NATIVE_MODE, None)
        said.append(links.attach_xdp(index, fd))
        links.detach_xdp(index)
        said.append(links.attach_xdp(index, fd))
        libbpf().bpf_xdp_detach(index, NATIVE_MODE, None)
        plane.close()
        return said

    lo, first, occupied, still = xdp.bench().do(work)
    assert (lo, first) == ("its driver has no XDP", "")
    assert occupied == still == "another XDP program, foreign, is there"


def test_what_another_process_has_left_at_xdp_goes_whichever_maps_it_had() -> None:
    """It would decide by leases of long ago, before the program at TC is asked."""
    if (reason := xdp.available()) is not None:
        pytest.skip(reason)
    border = Border(realms=(Realm(number=1, name="here"),))

    def work() -> tuple[str | None, str | None]:
        index = xdp.bench().links.free[0]
        left = []
        try:
            for wanted in (True, False):
                plane = KernelPlane(border, pin=None, boot_offset=NOW, links=MachineLinks())
                plane.attach(1, "ist0", xdp=wanted)
                plane.close()
                left.append(attach._xdp_program(index))
        finally:
            MachineLinks().detach(index)
        return left[0], left[1]

    assert xdp.bench().do(work) == ("border", None)


def test_an_interface_that_a_realm_no_longer_has_is_left_alone() -> None:
    if (reason := xdp.available()) is not None:
        pytest.skip(reason)
    border = Border(realms=(Realm(number=1, name="here"),))

    def left(name: str) -> list[str | None]:
        shown = subprocess.check_output(["tc", "filter", "show", "dev", name, "ingress"], text=True, timeout=20)
        return [attach._xdp_program(socket.if_nametoindex(name)), "tc" if "isthmus" in shown else None]

    def work() -> list[list[str | None]]:
        try:
            for name in ("ist0", "ist1"):
                plane = KernelPlane(border, pin=PINS, boot_offset=NOW, links=MachineLinks())
                plane.reconcile(())
                plane.attach(1, name, xdp=True)
                plane.detach_others()
                plane.close()
            found = [left("ist0"), left("ist1")]
            plane = KernelPlane(border, pin=PINS, boot_offset=NOW, links=MachineLinks())
            plane.destroy()
            return [*found, left("ist1")]
        finally:
            for index in xdp.bench().links.free[:2]:
                MachineLinks().detach(index)

    assert xdp.bench().do(work) == [[None, None], ["border", "tc"], [None, None]]


FOR_OTHERS = {
    "another machine": lambda frame: b"\x02\0\0\0\0\x77" + frame[6:],
    "everybody": lambda frame: b"\xff" * 6 + frame[6:],
    "a group": lambda frame: b"\x01\0\x5e\0\0\x01" + frame[6:],
    "a VLAN": lambda frame: frame[:12] + b"\x81\0\0\x07" + frame[12:],
    "priority": lambda frame: frame[:12] + b"\x81\0\xe0\0" + frame[12:],
    "two VLANs": lambda frame: frame[:12] + b"\x88\xa8\0\x07\x81\0\0\x08" + frame[12:],
    "another protocol": lambda frame: frame[:12] + b"\x88\xb5" + frame[14:],
}


@pytest.mark.parametrize("whose", FOR_OTHERS)
def test_a_frame_that_is_not_for_us_is_left_to_tc(whose: str) -> None:
    """At XDP nobody has looked at the link header before; what is in there would be forwarded."""
    border, effects = stage(scene("gateway"))
    frame = FOR_OTHERS[whose](ETHERNET[:12] + b"\x08\0" + build(OUTWARD))
    assert at_xdp(border, effects, ETHERNET[:12] + b"\x08\0" + build(OUTWARD))[0] == XDP_REDIRECT
    assert at_xdp(border, effects, frame) == (XDP_PASS, frame)


@pytest.mark.parametrize("padding", [1, 18, 200])
def test_what_follows_a_packet_is_not_forwarded(padding: int) -> None:
    border, effects = stage(scene("gateway"))
    action, frame = at_xdp(border, effects, ETHERNET[:12] + b"\x08\0" + build(OUTWARD) + b"\x99" * padding)
    assert action == XDP_REDIRECT
    assert len(frame) == LINK + len(build(OUTWARD)) - 20


def at_xdp(border: Border, effects: tuple[Programmable, ...], frame: bytes) -> tuple[int, bytes]:
    """What becomes of a frame from the private realm; what is passed has not been counted."""
    if (reason := xdp.available()) is not None:
        pytest.skip(reason)

    def work() -> tuple[int, bytes]:
        plane = xdp.open(border, NOW)
        try:
            plane.reconcile(effects)
            private = next(each.number for each in border.realms if each.name == "private")
            link = xdp.bench().links.find(f"realm {private}")
            assert link is not None
            before = plane.counters()
            ran = plane._loaded.xdp("border").test_run(frame, struct.pack("=6I", 0, len(frame), 0, link.index, 0, 0))
            assert (plane.counters() == before) == (ran.action == XDP_PASS)
            return ran.action, ran.packet
        finally:
            plane.close()

    return xdp.bench().do(work)


def foreign() -> Program:
    """Somebody's program at XDP: it passes everything."""
    instructions = bytes.fromhex("b7000000020000009500000000000000")
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    fd = library.bpf_prog_load(PROG_TYPE_XDP, b"foreign", b"GPL", instructions, ctypes.c_size_t(2), None)
    assert fd >= 0
    return Program(fd)
