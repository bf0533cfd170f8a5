# SPDX-License-Identifier: BSD-3-Clause
"""ICMP and IGMP over SIP, and the addresses with a meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.errors import Malformed, Truncated
from isthmus.wire.icmp import IcmpMessage, IcmpType
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip import special
from isthmus.wire.sip.header import HeaderOrder, SipHeader, SipView
from isthmus.wire.sip.icmp import (
    Router,
    RouterAdvertisement,
    SipIcmpMessage,
    Unreachable,
    kind_to_ipv4,
    kind_to_sip,
    may_report,
    packet_too_big,
    parameter_problem,
    pointer_to_ipv4,
    pointer_to_sip,
    redirect,
    time_exceeded,
    unreachable,
)
from isthmus.wire.sip.igmp import SipIgmpMessage, SipIgmpType
from isthmus.wire.sip.ipae import Version6, demultiplex
from isthmus.wire.sip.pseudo import IcmpProfile, fits, icmp_rule, pseudo_sum
from wire.sip_samples import HOPS, VECTORS, messages, sip, sip_addresses

RELAY = VECTORS["icmp_relay"]
SRC, DST = sip("1.213.77.5/192.3.4.1"), sip("1.2.2.8/201.5.7.250")
PACKET = bytes.fromhex(HOPS["3.4.4 IPAE host to SIP host TCP 4"]["hex"])


def pseudo(src: Address, dst: Address, length: int, payload_type: int = 1) -> int:
    rule = icmp_rule(src, dst, IcmpProfile.IPAE)
    return pseudo_sum(rule, src=src, dst=dst, payload_type=payload_type, length=length)


@pytest.mark.rfc("ipae", "4.3")
@pytest.mark.parametrize("name", ["rfc792_quote_8", "rfc1812_quote"])
def test_what_the_quote_of_an_ip_only_router_tells(name: str) -> None:
    vector = RELAY[name]
    octets = bytes.fromhex(vector["icmp_datagram"].rstrip("."))
    error = IcmpMessage.parse(Ipv4View.parse(octets, quoted=True).payload)
    outer = Ipv4View.parse(error.body, quoted=True)
    assert f"{outer.identification:#06x}" == vector["outer_id"]
    assert str(outer.dst) == vector["tunnel_end"]
    inner = outer.payload
    assert demultiplex(inner, outer.total_length - 20) is Version6.SIP
    if vector["sip_source_in_quote"] is None:
        assert len(inner) == vector["quoted_octets_of_sip_packet"] == 8
        with pytest.raises(Truncated):
            SipView.parse(inner, quoted=True)
        assert (inner[0] >> 4, inner[4] << 8 | inner[5]) == (vector["sip_version"], vector["sip_payload_length"])
        assert (inner[6], inner[7]) == (vector["sip_payload_type"], vector["sip_hop_limit_at_encapsulation"])
        return
    view = SipView.parse(inner, quoted=True)
    assert (str(view.src), str(view.dst)) == (vector["sip_source_in_quote"], vector["sip_destination_in_quote"])
    assert view.payload_length == vector["sip_payload_length"]
    assert view.hop_limit == vector["sip_hop_limit_at_encapsulation"]
    assert [view.payload[0] << 8 | view.payload[1], view.payload[2] << 8 | view.payload[3]] == vector["ports_in_quote"]


@pytest.mark.rfc("ipae", "4.3")
@pytest.mark.rfc("8507", "8.1")
def test_the_relayed_error_is_the_vectors_octet_for_octet() -> None:
    vector = RELAY["relayed_sip_icmp"]
    octets = bytes.fromhex(vector["hex"])
    src, dst = sip(vector["src"]), sip(vector["dst"])
    quoted = octets[32:]
    assert len(quoted) == 256
    message = packet_too_big(quoted + bytes(99), vector["reported_mtu"])
    header = SipHeader(payload_length=message.length, payload_type=1, src=src, dst=dst)
    assert header.emit() + message.emit(pseudo(src, dst, message.length)) == octets
    view = SipView.parse(octets)
    found = SipIcmpMessage.parse(view.payload)
    assert found.next_hop_mtu == vector["reported_mtu"] == 986
    assert found.quoted().dst == DST
    rule = icmp_rule(src, dst, IcmpProfile.IPAE)
    assert fits(rule, src=src, dst=dst, payload_type=1, octets=view.payload)


@given(message=messages)
def test_messages_are_lossless(message: SipIcmpMessage) -> None:
    octets = message.emit(0)
    assert SipIcmpMessage.parse(octets) == message
    assert SipIcmpMessage.parse(octets).emit(0) == octets
    with pytest.raises(Truncated):
        SipIcmpMessage.parse(octets[:7])


@pytest.mark.rfc("8507", "8.1")
def test_errors_quote_256_octets() -> None:
    long = PACKET + bytes(600)
    router = sip("1.2.2.8/10.0.0.3")
    for message in (
        unreachable(long, Unreachable.ADDRESS),
        packet_too_big(long, 576),
        time_exceeded(long),
        parameter_problem(long, 28),
        redirect(long, router),
    ):
        assert message.is_error
        assert message.quote == long[:256]
        assert message.quoted().src == SRC
    short = unreachable(PACKET, Unreachable.PORT)
    assert short.quote == PACKET


@pytest.mark.rfc("8507", "8.1")
def test_the_pointer_has_16_bits() -> None:
    message = parameter_problem(PACKET, 0x1234)
    assert message.rest == bytes.fromhex("00001234")
    assert SipIcmpMessage.parse(message.emit(0)).pointer == 0x1234
    assert time_exceeded(PACKET).pointer is None


@pytest.mark.rfc("8507", "8.1")
def test_a_redirect_has_the_router_in_a_head_of_16_octets() -> None:
    router = sip("1.2.2.8/10.0.0.3")
    octets = redirect(PACKET, router).emit(0)
    assert octets[8:16] == router.octets
    assert octets[16:] == PACKET
    found = SipIcmpMessage.parse(octets)
    assert (found.code, found.preferred_router) == (1, router)
    assert SipIcmpMessage.parse(octets[:12]).preferred_router is None
    with pytest.raises(ValueError):
        redirect(PACKET, Address.parse("10.0.0.3"))


@pytest.mark.rfc("8507", "5")
def test_packet_too_big_never_says_less_than_576() -> None:
    assert packet_too_big(PACKET, 100).next_hop_mtu == 576
    assert packet_too_big(PACKET, 70_000).next_hop_mtu == 65535
    assert unreachable(PACKET, Unreachable.PORT).next_hop_mtu is None


@pytest.mark.rfc("8507", "8.1")
@given(
    st.lists(st.builds(Router, sip_addresses, st.integers(-(1 << 31), (1 << 31) - 1)), max_size=5),
    st.integers(0, 65535),
)
def test_router_advertisements(routers: list[Router], lifetime: int) -> None:
    advertisement = RouterAdvertisement(lifetime=lifetime, routers=tuple(routers))
    message = SipIcmpMessage.parse(advertisement.message().emit(0))
    assert message.rest[:2] == bytes((len(routers), 4))
    assert RouterAdvertisement.of(message) == advertisement
    if routers:
        with pytest.raises(Truncated):
            RouterAdvertisement.of(SipIcmpMessage.parse(advertisement.message().emit(0)[:-1]))


def test_longer_entries_of_a_later_advertisement_are_read() -> None:
    router = Router(SRC, -1)
    entry = SRC.octets + b"\xff\xff\xff\xff" + bytes(4)
    message = SipIcmpMessage(type=9, rest=bytes((2, 5, 0, 9)), body=(entry + b"more") * 2)
    assert RouterAdvertisement.of(message) == RouterAdvertisement(lifetime=9, routers=(router, router))
    with pytest.raises(Malformed, match="Entry Size"):
        RouterAdvertisement.of(SipIcmpMessage(type=9, rest=bytes((0, 2, 0, 9))))
    with pytest.raises(Malformed, match="Type"):
        RouterAdvertisement.of(SipIcmpMessage(type=8))


KINDS = {
    (3, 0): (3, 1),
    (3, 1): (3, 1),
    (3, 2): (3, 2),
    (3, 3): (3, 3),
    (3, 4): (3, 4),
    (3, 5): (3, 5),
    (3, 6): (3, 7),
    (3, 7): (3, 7),
    (3, 8): (3, 8),
    (3, 9): (3, 13),
    (3, 10): (3, 13),
    (3, 11): (3, 1),
    (3, 12): (3, 1),
    (3, 13): (3, 13),
    (3, 99): None,
    (8, 0): (8, 0),
    (0, 0): (0, 0),
    (11, 0): (11, 0),
    (11, 1): (11, 1),
    (12, 0): (12, 0),
    (5, 1): None,
    (9, 0): None,
    (10, 0): None,
    (4, 0): None,
    **{(each, 0): None for each in range(13, 19)},
}


@pytest.mark.rfc("8507", "8.1")
@pytest.mark.parametrize("kind", KINDS)
def test_types_and_codes_both_ways(kind: tuple[int, int]) -> None:
    wanted = KINDS[kind]
    assert kind_to_sip(*kind) == wanted
    if wanted is not None:
        assert kind_to_ipv4(*wanted) == wanted, "whatever SIP has, IPv4 has, too"
    if kind[0] != 3:
        assert kind_to_ipv4(*kind) == wanted
    elif wanted != kind:
        assert kind_to_ipv4(*kind) is None, "SIP has no such code"


@pytest.mark.parametrize(
    ("pointer", "wanted"),
    [(0, 0), (1, None), (2, 4), (3, 4), (4, None), (8, 7), (9, 6), (10, None), (12, 8), (15, 8), (16, 16), (20, None)],
)
def test_pointers_name_the_same_field_on_the_other_side(pointer: int, wanted: int | None) -> None:
    assert pointer_to_sip(pointer) == wanted
    seed = pointer_to_sip(pointer, HeaderOrder.SEED)
    assert seed == {7: 6, 6: 7}.get(wanted, wanted)
    if wanted is not None:
        assert pointer_to_ipv4(wanted) == min(each for each in range(pointer + 1) if pointer_to_sip(each) == wanted)
        assert pointer_to_ipv4(seed, HeaderOrder.SEED) == pointer_to_ipv4(wanted)


def test_pointers_beyond_the_header_have_no_counterpart() -> None:
    assert [pointer_to_ipv4(each) for each in (0, 3, 4, 5, 6, 7, 8, 15, 16, 23, 24)] == [
        0, 0, 2, 2, 9, 8, 12, 12, 16, 16, None,
    ]  # fmt: skip


def test_no_error_about_errors_groups_and_later_fragments() -> None:
    view = SipView.parse(PACKET)

    def allowed(packet: SipView = view, offset: int = 0, payload_type: int = 6, payload: bytes = b"\x03") -> bool:
        return may_report(packet, fragment_offset=offset, payload_type=payload_type, payload=payload)

    assert allowed()
    assert allowed(payload_type=1, payload=b"\x08")
    assert allowed(payload_type=1, payload=b"")
    assert not allowed(payload_type=1, payload=b"\x03")
    assert not allowed(offset=1)
    for where, address in ((8, special.UNSPECIFIED), (8, special.ALL_HOSTS[1]), (16, special.ALL_SYSTEMS[1])):
        assert not allowed(SipView.parse(PACKET[:where] + address.octets + PACKET[where + 8 :]))


@pytest.mark.rfc("8507", "8.2")
def test_igmp_queries_and_reports() -> None:
    group = special.multicast(special.Scope.SITE, 0xBEEF)
    for message, length, first in ((SipIgmpMessage(), 8, 0x11), (SipIgmpMessage(group=group), 16, 0x12)):
        dst = group if message.group else special.ALL_SYSTEMS[1]
        octets = message.emit(pseudo(SRC, dst, message.length, payload_type=2))
        assert (len(octets), octets[0]) == (length, first)
        rule = icmp_rule(SRC, dst, IcmpProfile.IPAE)
        assert fits(rule, src=SRC, dst=dst, payload_type=2, octets=octets)
        found = SipIgmpMessage.parse(octets + b"rest")
        assert (found.type, found.group, found.rest) == (message.type, message.group, b"rest")
        assert found.emit(0) == octets + b"rest"
        with pytest.raises(Truncated):
            SipIgmpMessage.parse(octets[:-1])
    assert SipIgmpMessage().type is SipIgmpType.QUERY


def test_what_is_no_igmp_is_refused() -> None:
    for octets, words in (("21000000", "Version"), ("13000000", "Type"), ("12000000", "Address")):
        with pytest.raises(Malformed, match=words):
            SipIgmpMessage.parse(bytes.fromhex(octets) + bytes(12))
    with pytest.raises(ValueError):
        SipIgmpMessage(group=SRC)


@pytest.mark.rfc("8507", "4.3")
@pytest.mark.rfc("8507", "4.4")
def test_groups_have_country_127_flags_and_scope() -> None:
    assert [each.hex for each in special.ALL_SYSTEMS] == ["7F01:0000:0000:0001", "7F02:0000:0000:0001"]
    assert [each.hex for each in special.ALL_HOSTS] == ["7F01:0000:0000:0002", "7F02:0000:0000:0002"]
    assert [each.hex for each in special.ALL_ROUTERS] == ["7F01:0000:0000:0003", "7F02:0000:0000:0003"]
    transient = special.multicast(special.Scope.GLOBAL, 1 << 47, transient=True)
    assert transient.hex == "7F1E:8000:0000:0000"
    assert special.scope_of(transient) == special.Scope.GLOBAL
    assert transient.is_multicast
    for scope, group in ((16, 1), (2, 0), (2, 1 << 48)):
        with pytest.raises(ValueError):
            special.multicast(scope, group)


def test_ipv4_groups_have_a_sip_address_with_c() -> None:
    assert special.compatible_multicast(Address.parse("224.0.0.5"), special.Scope.SITE).hex == "FF02:0000:E000:0005"
    group = special.compatible_multicast(Address.parse("239.1.2.3"))
    assert group.hex == "FF0E:0000:EF01:0203"
    assert group.is_multicast
    assert special.ethernet_group(group).hex() == "01005e010203"
    assert special.ethernet_group(special.multicast(5, 0xFFFFFF)).hex() == "01005e7fffff"
    with pytest.raises(ValueError):
        special.compatible_multicast(Address.parse("10.0.0.1"))


@pytest.mark.rfc("8507", "4.4")
def test_anyone_is_the_prefix_and_zeros() -> None:
    assert special.anyone(Prefix.parse_sip("1.2.2.8/192.3.4.0/56")) == sip("1.2.2.8/192.3.4.0")


@pytest.mark.rfc("8507", "4.4")
@pytest.mark.parametrize(
    ("src", "dst", "why"),
    [
        (SRC, DST, None),
        (SRC, special.ALL_SYSTEMS[1], None),
        (SRC, special.compatible_multicast(Address.parse("239.1.2.3")), None),
        (SRC, sip("c1.2.2.8/10.0.0.1"), None),
        (sip("1.2.2.8/127.0.0.1"), DST, None),
        (special.UNSPECIFIED, DST, special.Unfit.UNSPECIFIED_SOURCE),
        (special.ALL_HOSTS[1], DST, special.Unfit.MULTICAST_SOURCE),
        (special.LOOPBACK, DST, special.Unfit.LOOPBACK),
        (SRC, special.LOOPBACK, special.Unfit.LOOPBACK),
        (sip("c1.2.2.8/127.0.0.1"), DST, special.Unfit.SPECIAL_IPV4),
        (SRC, sip("c1.2.2.8/0.1.2.3"), special.Unfit.SPECIAL_IPV4),
        (SRC, sip("c1.2.2.8/224.0.0.1"), special.Unfit.SPECIAL_IPV4),
        (SRC, sip("c1.2.2.8/255.255.255.255"), special.Unfit.SPECIAL_IPV4),
        (sip("c1.2.2.8/240.0.0.1"), DST, special.Unfit.SPECIAL_IPV4),
    ],
)
def test_addresses_that_no_packet_from_a_link_has(src: Address, dst: Address, why: special.Unfit | None) -> None:
    assert special.unfit(src, dst) is why


def test_icmp_types_of_sip_are_those_of_ipv4() -> None:
    assert SipIcmpMessage(type=IcmpType.ECHO).emit(0)[0] == 8
    with pytest.raises(ValueError):
        SipIcmpMessage(type=256)
