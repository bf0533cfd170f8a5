# SPDX-License-Identifier: BSD-3-Clause
"""Rules of RFC 8507 for systems and routers that no journey of the seed passes by."""

from __future__ import annotations

from random import Random

import pytest

from isthmus.address import Address
from isthmus.border.verdict import Forward, Hold, Reason, Reply
from isthmus.plane.reference import ReferencePlane
from isthmus.plane.reference.dialect import Dialect
from isthmus.plane.reference.sip_fragment import cut_sip
from isthmus.wire.sip.header import SipHeader, SipView
from isthmus.wire.sip.icmp import SipIcmpMessage
from isthmus.wire.sip.option import SourceRoute, walk
from isthmus.wire.transport import Protocol
from plane.sip_nodes import D_HOST, D_SITE, LINK, NOW, O_SITE, SIP, System, sip

HOST = sip(f"{D_SITE}/{D_HOST}")
ROUTER = sip(f"{O_SITE}/192.3.4.254")


def router(*anyone: str) -> ReferencePlane:
    """A router of SIP, and of nothing else."""
    system = System(site=O_SITE, nodes=(str(ROUTER), *anyone))
    return system.native([D_SITE], LINK, "10.0.0.9").native([O_SITE], LINK, None).plane()


def echo(destination: Address, octets: int) -> bytes:
    """An echo request of so many octets, SIP header included."""
    dialect = Dialect.of(System().rules)
    message = SipIcmpMessage(type=8, code=0, rest=b"\0\7\0\1", body=Random(octets).randbytes(octets - 32))
    return dialect.message(HOST, destination, message)


def fragments(packet: bytes, mtu: int) -> list[bytes]:
    return list(cut_sip(packet, mtu, Dialect.of(System().rules), 0xBEEF))


@pytest.mark.rfc("8507", "7")
@pytest.mark.parametrize(("octets", "mtu"), [(1024, 576), (65535 - 8, 1500)])
def test_fragments_of_1024_octets_and_of_the_largest_packet_are_put_together(octets: int, mtu: int) -> None:
    whole = echo(ROUTER, octets)
    parts = fragments(whole, mtu)
    Random(octets).shuffle(parts)
    plane = router()
    for part in parts[:-1]:
        assert isinstance(plane.process(SIP, part, now=NOW, link=LINK), Hold)
    answer = plane.process(SIP, parts[-1], now=NOW, link=LINK)
    assert isinstance(answer, Forward | Reply)
    assert answer.reason is Reason.REPLIED
    packets = (answer.packet,) if isinstance(answer, Reply) else answer.packets
    data = b"".join(bytes(walk(SipView.parse(each)).payload) for each in packets)
    assert data[4:] == whole[24 + 4 :]


@pytest.mark.rfc("8507", "7")
def test_a_router_forwards_fragments_as_they_are() -> None:
    plane = router()
    for part in reversed(fragments(echo(sip(f"{D_SITE}/10.0.0.1"), 1500), 576)):
        verdict = plane.process(SIP, part, now=NOW, link=LINK)
        assert isinstance(verdict, Forward)
        (sent,) = verdict.packets
        view = SipView.parse(sent)
        assert (sent[:7], view.hop_limit, sent[8:]) == (part[:7], SipView.parse(part).hop_limit - 1, part[8:])


@pytest.mark.rfc("8507", "4.4")
@pytest.mark.parametrize("anyone", [f"{O_SITE}/0.0.0.0", f"{O_SITE}/192.3.4.0"])
def test_what_is_sent_to_anyone_is_for_the_router_that_it_reaches(anyone: str) -> None:
    plane = router(f"{O_SITE}/0.0.0.0", f"{O_SITE}/192.3.4.0")
    answer = plane.process(SIP, echo(sip(anyone), 64), now=NOW, link=LINK)
    assert isinstance(answer, Reply)
    assert SipView.parse(answer.packet).src == sip(anyone)


@pytest.mark.rfc("8507", "4.4")
def test_a_router_speaks_of_itself_by_its_own_address_and_not_as_anyone() -> None:
    plane = router(f"{O_SITE}/0.0.0.0")
    header = SipHeader(
        payload_length=0, payload_type=Protocol.UDP, hop_limit=1, src=HOST, dst=sip(f"{O_SITE}/10.0.0.1")
    )
    answer = plane.process(SIP, Dialect.of(System().rules).write(header, bytes(8)), now=NOW, link=LINK)
    assert isinstance(answer, Reply)
    assert SipView.parse(answer.packet).src == ROUTER


@pytest.mark.rfc("8507", "6")
def test_a_source_route_with_no_stop_left_is_delivered() -> None:
    dialect = Dialect.of(System().rules)
    message = SipView.parse(echo(ROUTER, 64)).payload
    route = SourceRoute(addresses=(sip(f"{O_SITE}/10.0.0.1"),), next_address=1, payload_type=Protocol.ICMP)
    header = SipHeader(payload_length=0, payload_type=Protocol.ICMP, hop_limit=9, src=HOST, dst=ROUTER)
    answer = router().process(SIP, dialect.write(header, message, route=route), now=NOW, link=LINK)
    assert isinstance(answer, Reply)
    assert bytes(SipView.parse(answer.packet).payload)[4:] == bytes(message)[4:]
