# SPDX-License-Identifier: BSD-3-Clause
"""ICMP, with scapy as second opinion."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP

from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire import icmp
from isthmus.wire.icmp import IcmpMessage, IcmpType, IcmpView, Unreachable
from wire.strategies import icmp_messages, u16, unhurried

PACKET = bytes(IP(src="10.0.0.1", dst="192.0.2.7", id=7) / UDP(sport=5000, dport=53) / (b"x" * 1400))


@unhurried
@given(icmp_messages)
def test_any_message_survives(message: IcmpMessage) -> None:
    octets = message.emit()
    assert IcmpMessage.parse(octets) == message
    assert IcmpView.parse(octets).checksum_ok == (message.checksum is None) or message.checksum in (0, 0xFFFF)


@unhurried
@given(st.binary(max_size=80))
def test_any_octets_are_a_message_or_a_wire_error(octets: bytes) -> None:
    try:
        view = IcmpView.parse(octets)
    except Truncated:
        assert len(octets) < 8
        return
    assert IcmpMessage.parse(octets).emit() == octets
    with suppress(WireError):
        view.quoted()


@unhurried
@given(u16, u16, st.binary(max_size=40))
def test_scapys_echo_is_read(identifier: int, sequence: int, data: bytes) -> None:
    octets = bytes(ICMP(type=8, id=identifier, seq=sequence) / data)
    view = IcmpView.parse(octets)
    assert (view.type, view.code, view.identifier, view.sequence) == (8, 0, identifier, sequence)
    assert (bytes(view.body), view.checksum_ok) == (data, True)
    rest = identifier.to_bytes(2, "big") + sequence.to_bytes(2, "big")
    assert IcmpMessage(type=IcmpType.ECHO, rest=rest, body=data).emit() == octets


@pytest.mark.rfc("1122", "3.2.2")
def test_errors_and_requests_are_told_apart() -> None:
    kinds = {kind: IcmpView.parse(bytes((kind,)) + bytes(7)) for kind in range(256)}
    assert {kind for kind, view in kinds.items() if view.is_error} == {3, 4, 5, 11, 12}
    assert {kind for kind, view in kinds.items() if view.is_request} == {8, 10, 13, 15, 17}


@pytest.mark.rfc("1191", "4")
def test_fragmentation_needed_is_scapys() -> None:
    ours = icmp.fragmentation_needed(PACKET, 1480)
    assert ours == bytes(ICMP(type=3, code=4, nexthopmtu=1480) / PACKET[:548])
    view = IcmpView.parse(ours)
    assert (view.next_hop_mtu, view.is_error, view.checksum_ok) == (1480, True, True)
    assert IcmpView.parse(icmp.unreachable(PACKET, Unreachable.PORT)).next_hop_mtu is None
    assert IcmpView.parse(icmp.fragmentation_needed(PACKET, 1 << 20)).next_hop_mtu == 0xFFFF


@pytest.mark.rfc("792", "0")
def test_time_exceeded_and_unreachable_are_scapys() -> None:
    assert icmp.time_exceeded(PACKET) == bytes(ICMP(type=11, code=0) / PACKET[:548])
    assert icmp.unreachable(PACKET, Unreachable.PORT) == bytes(ICMP(type=3, code=3) / PACKET[:548])


@pytest.mark.rfc("1812", "4.3.2.3")
def test_an_error_has_576_octets_at_most_with_its_ip_header() -> None:
    assert len(icmp.time_exceeded(PACKET)) + 20 == 576
    assert len(icmp.time_exceeded(PACKET[:28])) == 36


@pytest.mark.rfc("792", "0")
def test_the_quoted_packet_is_seen_as_far_as_it_goes() -> None:
    quoted = IcmpView.parse(icmp.time_exceeded(PACKET)).quoted()
    assert (quoted.total_length, len(quoted.payload)) == (1428, 528)
    assert (str(quoted.src), quoted.identification) == ("10.0.0.1", 7)
    smallest = IcmpView.parse(icmp.time_exceeded(PACKET[:28])).quoted()
    assert bytes(smallest.payload) == PACKET[20:28]
    with pytest.raises(Truncated, match="28 octets"):
        IcmpView.parse(icmp.time_exceeded(PACKET[:27])).quoted()
    with pytest.raises(Malformed):
        IcmpView.parse(icmp.time_exceeded(b"\x65" + PACKET[1:])).quoted()
    with pytest.raises(Truncated):
        IcmpView.parse(icmp.time_exceeded(b"")).quoted()


def test_a_quoted_packet_shorter_than_eight_octets_is_whole() -> None:
    tiny = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=253) / b"abc")
    assert bytes(IcmpView.parse(icmp.time_exceeded(tiny)).quoted().payload) == b"abc"


@pytest.mark.parametrize("changes", [{"type": 256}, {"rest": b"abc"}, {"checksum": 1 << 16}])
def test_a_message_that_exists_is_valid(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        IcmpMessage(**{"type": 0} | changes)
