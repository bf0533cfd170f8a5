# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing translation: an IPv4 packet goes through the gateways of two sites, and errors about it go back.

One input is one IPv4 packet of a host in the first site to one in the second. What comes out carries what went in: every octet
of the transport, at the same place of the same packet, but for ICMP, whose messages stay right if they were. Then the second
host's router says "time exceeded" about what came out, in the octets of the input's length, and the first host must recognise
its packet in what it hears.
"""

from __future__ import annotations

from fuzz.fuzz_border import mend
from isthmus.border.verdict import Forward, Reason
from isthmus.checksum import checksum
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.icmp import IcmpView, time_exceeded
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from plane.sip_nodes import D_HOST, D_SITE, LINK, NOW, O_HOST, O_SITE, SIP, SITE, System, ip

RUNS = 4_000


def gateway(here: str, there: str, network: str) -> ReferencePlane:
    """The gateway of a site."""
    made = System(
        site=here, ends=((SITE, "10.255.0.1"),), realms={LINK: {"site": None, "mtu": 65535}, SITE: {"mtu": 65535}}
    )
    return made.gateway(here).mapping({network: f"c{there}"}).native([f"c{there}"], LINK, "10.0.0.1").plane()


def repair(octets: bytes) -> bytes:
    """Make lengths and checksums right again, and the packet one of these two hosts."""
    if len(octets) < 20:
        return octets
    return mend(octets[:8] + b"\x40" + octets[9:12] + ip(O_HOST).octets + ip(D_HOST).octets + octets[20:])


def through(planes: tuple[ReferencePlane, ReferencePlane], packet: bytes) -> list[bytes]:
    """What leaves the second gateway."""
    first = planes[0].process(SITE, packet, now=NOW)
    if not isinstance(first, Forward) or first.reason is not Reason.TRANSLATED_TO_SIP:
        return []
    left = [planes[1].process(SIP, each, now=NOW, link=LINK) for each in first.packets]
    return [each for verdict in left if isinstance(verdict, Forward) for each in verdict.packets]


def check(octets: bytes) -> None:
    """Send it there, and an error back."""
    near, far = gateway(O_SITE, D_SITE, "201.5.7.0/24"), gateway(D_SITE, O_SITE, "192.3.4.0/24")
    for packet in through((near, far), octets):
        view, before = Ipv4View.parse(packet), Ipv4View.parse(octets)
        assert view.checksum_ok
        assert (str(view.src), str(view.dst)) == (O_HOST, D_HOST)
        if view.protocol != 1:
            assert bytes(view.payload) == bytes(before.payload)
            assert view.fragment_offset == before.fragment_offset
            assert view.mf == before.mf
        elif not view.is_fragment and checksum(before.payload) == 0:
            assert checksum(view.payload) == 0
        message = time_exceeded(packet[: len(octets)])
        error = Ipv4Header(src=ip("201.5.7.9"), dst=ip(O_HOST), protocol=1, total_length=20 + len(message)).emit()
        for heard in through((far, near), error + message):
            told = Ipv4View.parse(heard)
            assert checksum(told.payload) == 0
            quoted = Ipv4View.parse(IcmpView.parse(told.payload).body, quoted=True)
            assert (quoted.src, quoted.dst, quoted.protocol) == (view.src, view.dst, view.protocol)
            assert bytes(view.octets[20:]).startswith(bytes(quoted.payload[:4])) or view.protocol == 1 or view.ihl > 5
