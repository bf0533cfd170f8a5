# SPDX-License-Identifier: BSD-3-Clause
"""ICMP identifiers of a host's programs: given, given back, and every checksum right (RFC 3102 §6.2; RFC 1624)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.verdict import Drop, Forward, Reason
from isthmus.plane.reference import ReferencePlane
from isthmus.plane.reference.identifier import MOST, Identifiers, Program, with_identifier, with_quoted_identifier
from isthmus.wire.icmp import IcmpView
from isthmus.wire.ipv4 import Ipv4View
from plane.fixture import NOW, build, scene, stage

PRIVATE, PUBLIC = 1, 2
LOCAL, PEER = Address.parse("149.112.240.58"), Address.parse("192.156.136.22")


def host() -> ReferencePlane:
    """A host with two devices at one address, two identifiers each."""
    tunnel = {"owner": "private 10.0.0.1", "local": str(LOCAL), "tunnel": "10.0.0.4 -> 10.0.0.1"}
    more = [
        {**tunnel, "id": 20, "ports": "12000-12001", "device": "rsip0"},
        {**tunnel, "id": 21, "ports": "12002-12003", "device": "rsip1"},
    ]
    border, effects = stage(scene("host"), more)
    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


def identifier(verdict: object) -> int:
    assert isinstance(verdict, Forward)
    (packet,) = verdict.packets
    inner = packet[20:] if packet[9] == 4 else packet
    view = Ipv4View.parse(inner)
    assert IcmpView.parse(view.payload).checksum_ok
    return IcmpView.parse(view.payload).identifier


def ask(plane: ReferencePlane, own: int, device: str | None, now: float = NOW) -> object:
    return plane.process(PUBLIC, build({"ipv4": f"{LOCAL} -> {PEER}", "echo": own}), now=now, device=device)


def reply(plane: ReferencePlane, value: int) -> Forward:
    inner = {"outer": {"ipv4": "10.0.0.1 -> 10.0.0.4"}, "ipv4": f"{PEER} -> {LOCAL}", "echo_reply": value}
    verdict = plane.process(PRIVATE, build(inner), now=NOW)
    assert isinstance(verdict, Forward)
    return verdict


@pytest.mark.rfc("3102", "6.2")
def test_two_programs_with_one_identifier_and_one_address_hear_their_own_replies() -> None:
    plane = host()
    first, second = identifier(ask(plane, 777, "rsip0")), identifier(ask(plane, 777, "rsip1"))
    assert (first, second) == (12001, 12003), "each has a value that its own device holds"
    for value, device in ((first, "rsip0"), (second, "rsip1")):
        verdict = reply(plane, value)
        assert (verdict.device, identifier(verdict)) == (device, 777)


@pytest.mark.rfc("3102", "6.2")
def test_a_device_does_not_take_anothers_values() -> None:
    plane = host()
    assert [identifier(ask(plane, own, "rsip0")) for own in (1, 2)] == [12001, 12000]
    assert ask(plane, 3, "rsip0") == Drop(Reason.NO_IDENTIFIER)
    assert identifier(ask(plane, 3, "rsip1")) == 12003


def test_where_the_device_is_not_known_all_values_serve() -> None:
    plane = host()
    assert [identifier(ask(plane, own, None)) for own in (1, 2, 3, 4)] == [12003, 12002, 12001, 12000]


@pytest.mark.rfc("3102", "6.2")
def test_a_reply_keeps_a_value_in_use() -> None:
    plane = host()
    value = identifier(ask(plane, 777, "rsip0"))
    for at in range(4):
        inner = {"outer": {"ipv4": "10.0.0.1 -> 10.0.0.4"}, "ipv4": f"{PEER} -> {LOCAL}", "echo_reply": value}
        verdict = plane.process(PRIVATE, build(inner), now=NOW + 40 * at)
        assert identifier(verdict) == 777


def test_the_longest_unused_go_when_there_are_too_many() -> None:
    identifiers = Identifiers()
    for at in range(MOST + 1):
        program = Program(realm=PUBLIC, local=LOCAL, identifier=1, device=None, remote=Address(PEER.family, at))
        assert identifiers.give(program, [5], now=NOW) == 5
    assert len(identifiers) == MOST
    assert identifiers.program(PUBLIC, LOCAL, Address(PEER.family, 0), 5, now=NOW) is None
    assert identifiers.program(PUBLIC, LOCAL, Address(PEER.family, 1), 5, now=NOW) is not None


@pytest.mark.rfc("1624", "3")
@given(own=st.integers(0, 0xFFFF), value=st.integers(0, 0xFFFF), body=st.binary(max_size=41))
def test_a_right_checksum_stays_right_and_a_wrong_one_wrong(own: int, value: int, body: bytes) -> None:
    spec = {"ipv4": f"{LOCAL} -> {PEER}", "echo": own, "payload": body.hex()}
    packet = build(spec)
    changed = with_identifier(Ipv4View.parse(packet), value)
    assert changed[:22] == packet[:22]
    message = IcmpView.parse(Ipv4View.parse(changed).payload)
    assert (message.identifier, message.checksum_ok) == (value, True)
    damaged = bytearray(packet)
    damaged[-1] ^= 0x55
    assert not IcmpView.parse(Ipv4View.parse(with_identifier(Ipv4View.parse(damaged), value)).payload).checksum_ok


@pytest.mark.rfc("1624", "3")
@given(
    own=st.integers(0, 0xFFFF),
    value=st.integers(0, 0xFFFF),
    octets=st.integers(8, 40),
    options=st.sampled_from([None, "nop", "record route"]),
    outer=st.sampled_from([None, "nop"]),
)
def test_a_quote_changes_with_both_checksums(
    own: int, value: int, octets: int, options: str | None, outer: str | None
) -> None:
    def spec(identifier: int) -> bytes:
        quote: dict[str, object] = {"ipv4": f"{LOCAL} -> {PEER}", "echo": identifier, "size": 100, "octets": octets}
        packet: dict[str, object] = {"ipv4": f"198.51.100.1 -> {LOCAL}", "exceeded": 0}
        if options is not None:
            quote["options"] = options
        if outer is not None:
            packet["options"] = outer
        return build({**packet, "quote": quote})

    packet = spec(own)
    changed = Ipv4View.parse(with_quoted_identifier(Ipv4View.parse(packet), value))
    message = IcmpView.parse(changed.payload)
    assert message.checksum_ok
    quoted = message.quoted()
    assert IcmpView.parse(quoted.payload).identifier == value
    wanted = IcmpView.parse(Ipv4View.parse(spec(value)).payload).quoted()
    # Zero has two forms in one's complement.
    found, right = IcmpView.parse(quoted.payload).checksum, IcmpView.parse(wanted.payload).checksum
    assert found % 0xFFFF == right % 0xFFFF
    if found == right:
        assert bytes(message.body) == bytes(IcmpView.parse(Ipv4View.parse(spec(value)).payload).body)
