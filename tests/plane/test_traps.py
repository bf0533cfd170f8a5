# SPDX-License-Identifier: BSD-3-Clause
"""What users of similar systems tripped over: MTU, GRO, MSS, quotes. Each test has the name of the report.

The reports are those of the systems themselves (katran, Jool, tayga, Snabb); every test runs on both planes. What
needs real programs is shown in the lab: a ClientHello of more than 1,900 octets over a narrow link, TCP by path
MTU discovery both ways, traceroute, ping (``isthmus lab run paths``), large segments kept whole
(``test_kernel_real``: GRO and GSO on veth).
"""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind, overhead
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from plane.fixture import NOW
from plane.planes import PlaneUnderTest, planes

PRIVATE, PUBLIC = 1, 2
LINK_MTU = 1500
SHARED, PEER = "149.112.240.55", "192.156.136.22"
WAYS = [
    (kind, family, checksum)
    for kind in TunnelKind
    for family in (Family.IPV4, Family.IPV6)
    for checksum in ((False, True) if kind is TunnelKind.GRE else (False,))
]
NAMES = [f"{kind.name} over {family.name}{' with checksum' * checksum}" for kind, family, checksum in WAYS]
ENDS = {
    Family.IPV4: (Address.parse("10.0.0.1"), Address.parse("10.0.0.4")),
    Family.IPV6: (Address.parse("2001:db8::1"), Address.parse("2001:db8::4")),
}

each_plane = pytest.mark.parametrize("plane", planes(), ids=lambda plane: plane.name)
each_way = pytest.mark.parametrize(("kind", "family", "checksum"), WAYS, ids=NAMES)


def stage(kind: TunnelKind, family: Family, *, checksum: bool) -> tuple[Border, list[Programmable]]:
    """A gateway whose near link carries 1,500 octets, with one lease by this kind of tunnel."""
    here, there = ENDS[family]
    local = Prefix.parse(f"{SHARED}/32")
    border = Border(
        realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public", mtu=LINK_MTU)),
        tunnel_ends=(TunnelEnd(realm=PRIVATE, address=here, leads_to=PUBLIC),),
        claims=(Selector(realm=PUBLIC, local=local, kind=Kind.PORT, values=Ranges.of((10000, 10063))),),
    )
    owner = Owner(PRIVATE, there)
    mtu = LINK_MTU - overhead(kind, family, checksum=checksum)
    tunnel = Tunnel(realm=PRIVATE, local=here, remote=there, kind=kind, mtu=mtu, checksum=checksum)
    selector = Selector(realm=PUBLIC, local=local, kind=Kind.PORT, values=Ranges.of((10000, 10063)))
    return border, [
        Register(registration=Registration(owner=owner, client_id=1, expires_at=FOREVER)),
        Bind(
            binding=Binding(key=BindingKey(owner, 1), selectors=(selector,), crossing=tunnel),
            lease=Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW, expires_at=FOREVER),
        ),
    ]


def ready(plane: PlaneUnderTest) -> None:
    reason = plane.available()
    if reason is not None:
        pytest.skip(reason)


def inward(size: int, *, df: bool) -> bytes:
    header = IP(src=PEER, dst=SHARED, flags="DF" if df else 0, id=4711)
    return bytes(header / UDP(sport=53, dport=10000) / Raw(bytes(size - 28)))


@each_plane
@each_way
def test_katran_82_a_packet_that_just_fits_goes_into_the_tunnel_whole(
    plane: PlaneUnderTest, kind: TunnelKind, family: Family, checksum: bool
) -> None:
    """A packet as large as the MTU of the far link cannot be encapsulated; one as large as the tunnel's can."""
    ready(plane)
    border, effects = stage(kind, family, checksum=checksum)
    fits = LINK_MTU - overhead(kind, family, checksum=checksum)
    found = plane.run(border, effects, [(PUBLIC, inward(fits, df=True))], NOW)[-1]
    assert found[:2] == ("forward", Reason.FORWARDED_INWARD)
    assert found[3] is not None
    assert len(found[3]) == LINK_MTU, "the link is filled to the last octet"


@each_plane
@each_way
@pytest.mark.parametrize("beyond", [1, 4, 20])
def test_jool_92_and_442_the_mtu_that_is_told_is_the_one_that_fits(
    plane: PlaneUnderTest, kind: TunnelKind, family: Family, checksum: bool, beyond: int
) -> None:
    """A sender that obeys the error must get through: neither four octets off nor the MTU of another link."""
    ready(plane)
    border, effects = stage(kind, family, checksum=checksum)
    fits = LINK_MTU - overhead(kind, family, checksum=checksum)
    found = plane.run(border, effects, [(PUBLIC, inward(fits + beyond, df=True))], NOW)[-1]
    assert found[0] == "reply"
    assert found[3] is not None
    error = IP(found[3])
    assert (error[ICMP].type, error[ICMP].code) == (3, 4)
    assert error[ICMP].nexthopmtu == fits
    obeyed = plane.run(border, effects, [(PUBLIC, inward(error[ICMP].nexthopmtu, df=True))], NOW)[-1]
    assert obeyed[0] == "forward"


@each_plane
@each_way
def test_jool_170_what_may_be_cut_is_cut_and_no_error_is_sent(
    plane: PlaneUnderTest, kind: TunnelKind, family: Family, checksum: bool
) -> None:
    """An error about a packet without DF would be ignored, and nothing would ever arrive."""
    ready(plane)
    border, effects = stage(kind, family, checksum=checksum)
    found = plane.run(border, effects, [(PUBLIC, inward(1500, df=False))], NOW)[-1]
    assert found[:2] == ("forward", Reason.FORWARDED_INWARD)


@each_plane
def test_katran_159_eight_octets_of_a_transport_header_are_enough(plane: PlaneUnderTest) -> None:
    ready(plane)
    border, effects = stage(TunnelKind.IPIP, Family.IPV4, checksum=False)
    sent = bytes(IP(src=SHARED, dst=PEER, ttl=1) / TCP(sport=10000, dport=80, seq=1))
    error = bytes(IP(src="198.51.100.1", dst=SHARED) / ICMP(type=11) / Raw(sent[:28]))
    found = plane.run(border, effects, [(PUBLIC, error)], NOW)[-1]
    assert found[:2] == ("forward", Reason.FORWARDED_INWARD)


@each_plane
def test_jool_396_extensions_of_an_error_do_not_break_traceroute(plane: PlaneUnderTest) -> None:
    """RFC 4884: a router adds MPLS labels after a quote of 128 octets, and says so in a field that was zero."""
    ready(plane)
    border, effects = stage(TunnelKind.IPIP, Family.IPV4, checksum=False)
    sent = bytes(IP(src=SHARED, dst=PEER, ttl=1, len=200) / UDP(sport=10000, dport=33434, len=180))
    extension = bytes.fromhex("2000000000080101") + struct.pack("!I", 0x000F1101)
    header = ICMP(type=11, length=32)
    error = bytes(IP(src="198.51.100.1", dst=SHARED) / header / Raw(sent.ljust(128, b"\0") + extension))
    found = plane.run(border, effects, [(PUBLIC, error)], NOW)[-1]
    assert found[:2] == ("forward", Reason.FORWARDED_INWARD)
    assert found[3] is not None
    assert found[3].endswith(extension), "as it came"


@each_plane
def test_tayga_123_no_segment_of_a_large_hello_is_lost_without_a_word(plane: PlaneUnderTest) -> None:
    """A ClientHello with a post-quantum key is two segments; where the first is too large it must be said, not dropped."""
    ready(plane)
    border, effects = stage(TunnelKind.IPIP, Family.IPV6, checksum=False)
    hello = IP(src=PEER, dst=SHARED, flags="DF") / TCP(sport=443, dport=10000, flags="A") / Raw(bytes(1460))
    rest = IP(src=PEER, dst=SHARED, flags="DF") / TCP(sport=443, dport=10000, flags="PA") / Raw(bytes(440))
    first, second = plane.run(border, effects, [(PUBLIC, bytes(hello)), (PUBLIC, bytes(rest))], NOW)
    assert first[0] == "reply"
    assert second[0] == "forward"


@each_plane
def test_snabb_1441_the_encapsulation_limit_of_a_stock_tunnel_is_no_reason_to_drop(plane: PlaneUnderTest) -> None:
    """Linux's own ip6tnl puts a destination option before the inner packet (RFC 2473 §4.1.1)."""
    ready(plane)
    border, effects = stage(TunnelKind.IPIP, Family.IPV6, checksum=False)
    here, there = ENDS[Family.IPV6]
    inner = bytes(IP(src=SHARED, dst=PEER) / UDP(sport=10000, dport=53))
    option = bytes.fromhex("0400040104010100")
    outer = struct.pack("!IHBB", 6 << 28, len(option + inner), 60, 64) + there.octets + here.octets
    found = plane.run(border, effects, [(PRIVATE, outer + option + inner)], NOW)[-1]
    assert found[:2] == ("forward", Reason.FORWARDED_OUTWARD)
