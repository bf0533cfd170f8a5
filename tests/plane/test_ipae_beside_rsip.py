# SPDX-License-Identifier: BSD-3-Clause
"""RSIP and IPAE at one border: neither sees what is the other's (architecture 4; issue 4's bridge)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address import Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Translate
from isthmus.border.effect import Bind, Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Node, Realm, TunnelEnd
from isthmus.border.selector import Selector
from isthmus.border.verdict import Forward, Reason
from isthmus.plane.link.memory import MemoryPort
from isthmus.plane.link.userspace import UserspacePlane
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.sip.header import SipHeader, SipView
from isthmus.wire.transport import emit_udp
from plane.fixture import NOW, Fixture, load, scene, stage
from plane.planes import outcome
from plane.sip_nodes import ip, sip, upper

SIP = 9
RSIP = [each for each in load() if each.file in {"figure1", "spoof", "hairpin", "icmp", "fragment", "mtu", "tunnel"}]


def route(number: int, realm: int, to: Prefix, crossing: Crossing) -> Bind:
    """What leads somewhere for good."""
    binding = Binding(
        key=BindingKey(Owner(SIP, ip("0.0.0.1")), number),
        selectors=(Selector(realm=realm, local=to),),
        crossing=crossing,
    )
    return Bind(binding=binding, lease=Lease(client_id=0, method=Method.RSA_IP, granted_at=NOW, expires_at=FOREVER))


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
    remote = Encapsulation(realm=near, local=border.tunnel_ends[0].address, remote=ip("10.0.0.250"))
    crossings = [
        (upper("c1.213.77.5"), Translate(realm=near, image=Prefix.parse("0.0.0.0/0"))),
        (upper("c1.2.2.8"), remote),
    ]
    bound: list[Bind | Remap] = [route(at, SIP, prefix, crossing) for at, (prefix, crossing) in enumerate(crossings)]
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


@pytest.mark.rfc("3102", "6.7")
def test_two_hosts_meet_by_their_leases_though_each_has_its_tunnel_in_sip() -> None:
    border, more = beside(stage(scene("gateway"))[0])
    near = border.tunnel_ends[-1].realm
    gateway = ip("10.0.0.1")
    hosts = [
        route(10 + at, near, Prefix.of(ip(low)), Translate(realm=SIP, image=Prefix.of(sip(f"1.213.77.5/{low}"))))
        for at, low in enumerate(("10.0.0.4", "10.0.0.5"))
    ]
    site = route(20, SIP, upper("1.213.77.5"), Encapsulation(realm=near, local=gateway, remote=None))
    port = MemoryPort()
    plane = UserspacePlane(border, {near: port})
    plane.apply([*stage(scene("gateway"))[1], *more, *hosts, site])

    leased = ip("149.112.240.55")
    said = emit_udp(src=leased, dst=leased, src_port=10000, dst_port=10016, payload=b"hello")
    inner = Ipv4Header(src=leased, dst=leased, protocol=17, ttl=64, total_length=20 + len(said)).emit() + said
    sent = SipHeader(
        src=sip("1.213.77.5/10.0.0.4"), dst=sip("c1.213.77.5/10.0.0.1"), payload_type=4, payload_length=len(inner)
    )
    octets = sent.emit() + inner
    outer = Ipv4Header(src=ip("10.0.0.4"), dst=gateway, protocol=41, df=True, total_length=20 + len(octets))
    port.waiting.append(outer.emit() + octets)
    assert plane.service(port, now=NOW) == 1

    ((left, _),) = port.sent
    datagram = Ipv4View.parse(left)
    assert (datagram.src, datagram.dst, datagram.protocol) == (gateway, ip("10.0.0.5"), 41)
    carried = SipView.parse(datagram.payload)
    assert (carried.src, carried.dst) == (sip("c1.213.77.5/10.0.0.1"), sip("1.213.77.5/10.0.0.5"))
    assert carried.payload_type == 4
    delivered = Ipv4View.parse(carried.payload)
    assert (delivered.src, delivered.dst, delivered.ttl) == (leased, leased, 63), "one router, and it counts once"
    assert delivered.payload == said
