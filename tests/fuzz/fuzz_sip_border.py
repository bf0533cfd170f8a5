# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing a border with a SIP realm: packets in order, at a site's border router and at a host, by every way in.

The input is that of ``fuzz_border``. No exception, every packet is counted, and whatever goes on is a sound packet
that fits, has a hop left, and does not have a source of the site that it did not come from.
"""

from __future__ import annotations

from fuzz.fuzz_border import join, mend, records
from isthmus.address import Family
from isthmus.border.realm import Foreign, Unmapped
from isthmus.border.verdict import Forward, Reason, Reply, Verdict
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.sip.header import SipView
from plane.sip_nodes import FAR, LINK, NOW, O_SITE, SIP, SITE, SOCKETS, System, upper

RUNS = 3_000
_WAITS = (0.0, 0.1, 9.0, 31.0, 700.0, 0.0)
_MTU = 1500


def border(*, strict: bool) -> System:
    """The border router of a site; strict, from milestone R on."""
    more = {"unmapped": Unmapped.ASK, "foreign": Foreign.ASK} if strict else {}
    made = System(
        site=O_SITE,
        ends=((SITE, "192.3.4.2"), (FAR, "128.1.1.1")),
        nodes=(f"{O_SITE}/192.3.4.2",),
        realms={SITE: more},
    )
    made.gateway(O_SITE).mapping({"201.5.7.0/24": "c1.2.2.8", "203.0.113.0/24": "1.2.2.75"})
    made.encapsulate([O_SITE], SITE, "192.3.4.2", None)
    made.encapsulate(["1.2.2.8", "c1.2.2.8"], FAR, "128.1.1.1", "128.2.1.2")
    return made.native(["1.2.2.75"], FAR, "128.1.1.7")


def host() -> System:
    """A host of the same site."""
    made = System(site=O_SITE, ends=((SITE, "192.3.4.1"),), nodes=(f"{O_SITE}/192.3.4.1",))
    made.sockets(f"{O_SITE}/192.3.4.1").gateway(O_SITE)
    return made.encapsulate([O_SITE], SITE, "192.3.4.1", None).encapsulate(
        ["1.2.2.8", "c1.2.2.8"], SITE, "192.3.4.1", "192.3.4.2"
    )


def repair(octets: bytes) -> bytes:
    """Make the lengths and checksums of all packets right again."""
    return join([(what, mend_sip(packet)) for what, packet in records(octets)])


def mend_sip(packet: bytes) -> bytes:
    """Make one packet's lengths and checksums right; what follows protocol 41 is SIP."""
    if len(packet) < 24 or packet[0] >> 4 not in (4, 6):
        return packet
    if packet[0] >> 4 == 6:
        return packet[:4] + (len(packet) - 24).to_bytes(2, "big") + packet[6:]
    size = max(20, (packet[0] & 15) * 4)
    if packet[9] == 41:
        packet = packet[:size] + mend_sip(packet[size:])
    return mend(packet)


def judge(arrived: int, verdict: Verdict) -> None:
    """Hold a verdict to what must be true of every one."""
    packets = (
        verdict.packets if isinstance(verdict, Forward) else (verdict.packet,) if isinstance(verdict, Reply) else ()
    )
    for packet in packets:
        assert isinstance(verdict, Forward | Reply)
        assert len(packet) <= _MTU
        if verdict.realm == SOCKETS:
            assert len(Ipv6View.parse(packet).octets) == len(packet)
            continue
        inner = packet
        if packet[0] >> 4 == 4:
            outer = Ipv4View.parse(packet)
            assert outer.checksum_ok
            assert len(outer.octets) == len(packet)
            if outer.protocol != 41:
                continue
            inner = bytes(outer.payload)
        view = SipView.parse(inner)
        assert len(view.octets) == len(inner)
        own = verdict.reason not in (Reason.FORWARDED_SIP, Reason.TRANSLATED_TO_SIP) or arrived == SOCKETS
        assert own or view.hop_limit > 0
        assert own or arrived != FAR or view.src.site != upper(O_SITE), "a spoofed source was let in"


def check(octets: bytes) -> None:
    """Let the packets arrive, one after the other."""
    systems = (border(strict=False), border(strict=True), host())
    planes = [each.plane() for each in systems]
    now, seen = NOW, 0
    for what, packet in records(octets):
        system, plane = systems[what % 3], planes[what % 3]
        now += _WAITS[(what >> 5) % len(_WAITS)]
        realm = (SITE, FAR, LINK, SOCKETS)[(what >> 3) % 4]
        arrive(system, plane, realm, packet, now)
        seen += 1
    counted = sum(
        count for plane in planes for reason, count in plane.counters().items() if reason is not Reason.FRAGMENT_TIMEOUT
    )
    assert counted == seen, "every packet counts once"
    for plane in planes:
        plane.misses()
        plane.way_changes(now=now)


def arrive(system: System, plane: ReferencePlane, realm: int, packet: bytes, now: float) -> None:
    """Give a plane a packet, and judge what it says."""
    native = realm != SOCKETS and packet[:1] and packet[0] >> 4 == 6
    family = Family.SIP if native else Family.IPV4
    place = SIP if family is Family.SIP else realm
    verdict = plane.process(place, packet, now=now, link=realm if native else None)
    assert system.site is not None
    judge(realm, verdict)
