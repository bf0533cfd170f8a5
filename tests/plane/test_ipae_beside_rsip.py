# SPDX-License-Identifier: BSD-3-Clause
"""RSIP and IPAE at one border: neither sees what is the other's (architecture 4; issue 4's bridge)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address import Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Encapsulation, Translate
from isthmus.border.effect import Bind, Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Node, Realm, TunnelEnd
from isthmus.border.selector import Selector
from isthmus.border.verdict import Forward, Reason
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.transport import emit_udp
from plane.fixture import NOW, Fixture, load, scene, stage
from plane.planes import outcome
from plane.sip_nodes import ip, sip, upper

SIP = 9
RSIP = [each for each in load() if each.file in {"figure1", "spoof", "hairpin", "icmp", "fragment", "mtu", "tunnel"}]


def beside(border: Border) -> tuple[Border, list[Bind | Remap]]:
    """A border that is one of SIP as well: at its own ends, with a mapping for the near realm."""
    near = border.tunnel_ends[0].realm
    realms = tuple(
        replace(each, sip=SIP, site=upper("1.213.77.5")) if each.number == near else replace(each, sip=SIP)
        for each in border.realms
    )
    ends = tuple(
        TunnelEnd(realm=each.realm, address=each.address, leads_to=SIP)
        for each in border.tunnel_ends
        if each.address.family is Family.IPV4
    )
    made = replace(
        border,
        realms=(*realms, Realm(number=SIP, name="sip", family=Family.SIP)),
        tunnel_ends=(*ends, *border.tunnel_ends),
        nodes=(Node(realm=SIP, address=sip("1.213.77.5/10.0.0.1")),),
    )
    lease = Lease(client_id=0, method=Method.RSA_IP, granted_at=NOW, expires_at=FOREVER)
    remote = Encapsulation(realm=near, local=border.tunnel_ends[0].address, remote=ip("10.0.0.250"))
    crossings = [
        (upper("c1.213.77.5"), Translate(realm=near, image=Prefix.parse("0.0.0.0/0"))),
        (upper("c1.2.2.8"), remote),
    ]
    bound: list[Bind | Remap] = [
        Bind(
            binding=Binding(
                key=BindingKey(Owner(SIP, ip("0.0.0.1")), at),
                selectors=(Selector(realm=SIP, local=prefix),),
                crossing=crossing,
            ),
            lease=lease,
        )
        for at, (prefix, crossing) in enumerate(crossings)
    ]
    table = Mapping.of([(Prefix.parse("203.0.113.0/24"), upper("c1.2.2.8"))])
    return made, [*bound, Remap(realm=near, sip=SIP, mapping=table)]


@pytest.mark.parametrize("fixture", RSIP, ids=str)
def test_what_is_rsips_is_untouched(fixture: Fixture) -> None:
    border, more = beside(fixture.border)
    plane = ReferencePlane(border)
    plane.apply([*fixture.effects, *more])
    now, found = NOW, None
    waits = fixture.waits or (0.0,) * len(fixture.packets)
    for wait, (realm, packet) in zip(waits, fixture.packets, strict=True):
        now += wait
        found = outcome(plane.process(realm, packet, now=now))
    assert found == fixture.expected


@pytest.mark.rfc("ipae", "6.3")
def test_the_same_end_takes_both() -> None:
    border, more = beside(stage(scene("gateway"))[0])
    plane = ReferencePlane(border)
    plane.apply([*stage(scene("gateway"))[1], *more])
    datagram = emit_udp(src=ip("10.0.0.4"), dst=ip("203.0.113.9"), src_port=1, dst_port=2, payload=b"hello")
    header = Ipv4Header(
        src=ip("10.0.0.4"), dst=ip("203.0.113.9"), protocol=17, df=True, total_length=20 + len(datagram)
    )
    near = border.tunnel_ends[-1].realm
    verdict = plane.process(near, header.emit() + datagram, now=NOW)
    assert isinstance(verdict, Forward)
    assert verdict.reason is Reason.TRANSLATED_TO_SIP
    inner = verdict.packets[0][20:]
    swapped = bytearray(inner)
    swapped[8:16], swapped[16:24] = inner[16:24], inner[8:16]
    outer = Ipv4Header(src=ip("10.0.0.250"), dst=ip("10.0.0.1"), protocol=41, total_length=20 + len(swapped))
    back = plane.process(near, outer.emit() + bytes(swapped), now=NOW)
    assert isinstance(back, Forward)
    assert (back.reason, back.realm) == (Reason.TRANSLATED_FROM_SIP, near)
