# SPDX-License-Identifier: BSD-3-Clause
"""The SIP header, and IPAE datagrams, hop by hop through the vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.errors import Malformed, Truncated
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.sip.header import HeaderOrder, SipHeader, SipView
from isthmus.wire.sip.ipae import Ipae, Version6, demultiplex, encapsulate
from wire.sip_samples import HOPS, VECTORS, headers, sip, sip_addresses

orders = st.sampled_from(HeaderOrder)


def _same_ipv4(header: Ipv4Header, wanted: dict[str, object]) -> None:
    assert (str(header.src), str(header.dst)) == (wanted["src"], wanted["dst"])
    assert (header.ttl, header.protocol, header.total_length) == (
        wanted["ttl"],
        wanted["protocol"],
        wanted["total_length"],
    )
    assert (header.identification, header.df, header.mf) == (wanted["id"], wanted["df"], wanted["mf"])


def _same_sip(header: SipHeader, wanted: dict[str, object]) -> None:
    assert (str(header.src), str(header.dst)) == (wanted["src"], wanted["dst"])
    assert (header.src.hex, header.dst.hex) == (wanted["src_hex"], wanted["dst_hex"])
    assert (header.src.c_bit, header.dst.c_bit) == (wanted["src_c"], wanted["dst_c"])
    assert header.hop_limit == wanted["hop_limit"]
    assert header.payload_type == wanted["payload_type"]
    assert header.payload_length == wanted["payload_length"]


@pytest.mark.rfc("ipae", "3.4.1")
@pytest.mark.rfc("ipae", "3.4.5")
@pytest.mark.rfc("ipae", "7")
@pytest.mark.parametrize("name", HOPS)
def test_every_hop_of_every_scenario_parses_and_is_written_again(name: str) -> None:
    hop = HOPS[name]
    octets, stack = bytes.fromhex(hop["hex"]), hop["stack"]
    written = b""
    if stack[0]["header"] == "IPv4":
        outer = Ipv4Header.parse(octets)
        _same_ipv4(outer, stack[0])
        written = outer.emit()
    if any(layer["header"] == "SIP" for layer in stack):
        wanted = next(layer for layer in stack if layer["header"] == "SIP")
        header = SipHeader.parse(octets[len(written) :])
        _same_sip(header, wanted)
        written += header.emit()
        assert header.emit().hex() == hop["sip_header_deering_order"]
        assert header.emit(HeaderOrder.SEED).hex() == hop["sip_header_seed_order"]
        assert SipHeader.parse(header.emit(HeaderOrder.SEED) + octets[len(written) :], order=HeaderOrder.SEED) == header
    assert octets.startswith(written)


@pytest.mark.rfc("ipae", "4.2.2")
@pytest.mark.parametrize("name", [name for name, hop in HOPS.items() if hop["stack"][0].get("protocol") == 41])
def test_every_encapsulated_hop_is_what_encapsulation_writes(name: str) -> None:
    octets = bytes.fromhex(HOPS[name]["hex"])
    found = Ipae.parse(Ipv4View.parse(octets))
    again = bytearray(
        encapsulate(found.inner, src=found.outer.src, dst=found.outer.dst, identification=found.outer.identification)
    )
    # Routers that speak IPv4 only have counted the outer TTL down, and left the hop limit alone.
    Ipv4View.parse(again).ttl = found.outer.ttl
    assert bytes(again) == octets
    assert found.outer.ttl <= found.inner.hop_limit


@pytest.mark.rfc("8507", "3")
@given(header=headers, order=orders, payload=st.binary(max_size=40))
def test_a_header_is_lossless_in_both_orders(header: SipHeader, order: HeaderOrder, payload: bytes) -> None:
    octets = header.emit(order) + payload
    assert len(header.emit(order)) == 24
    assert SipHeader.parse(octets, order=order, quoted=True) == header
    view = SipView.parse(octets, order=order, quoted=True)
    assert (view.payload_type, view.hop_limit, view.src, view.dst) == (
        header.payload_type,
        header.hop_limit,
        header.src,
        header.dst,
    )
    assert bytes(view.payload) == payload[: header.payload_length]


@given(header=headers, order=orders, hop_limit=st.integers(0, 255), src=sip_addresses, dst=sip_addresses)
def test_a_view_changes_the_field_and_nothing_else(
    header: SipHeader, order: HeaderOrder, hop_limit: int, src: Address, dst: Address
) -> None:
    buffer = bytearray(header.emit(order) + bytes(8))
    view = SipView.parse(buffer, order=order, quoted=True)
    view.hop_limit, view.src, view.dst = hop_limit, src, dst
    changed = SipHeader.parse(buffer, order=order, quoted=True)
    assert changed == SipHeader(
        reserved=header.reserved,
        payload_length=header.payload_length,
        payload_type=header.payload_type,
        hop_limit=hop_limit,
        src=src,
        dst=dst,
    )
    view.reserved = 0
    assert SipView.parse(buffer, order=order, quoted=True).reserved == 0
    assert bytes(buffer[4:6]) == header.emit()[4:6]


@pytest.mark.rfc("8507", "3")
def test_what_is_no_sip_packet_is_refused() -> None:
    whole = bytes.fromhex(HOPS["3.4.4 IPAE host to SIP host TCP 4"]["hex"])
    with pytest.raises(Malformed, match="Version"):
        SipView.parse(b"\x40" + whole[1:])
    with pytest.raises(Truncated):
        SipView.parse(whole[:-1])
    with pytest.raises(Truncated):
        SipView.parse(whole[:23], quoted=True)
    padded = SipView.parse(whole + bytes(9))
    assert bytes(padded.octets) == whole, "the link's padding is cut off"


def test_values_that_do_not_fit_are_refused() -> None:
    good = {"payload_length": 0, "payload_type": 6, "src": sip("1.2.2.8/1.2.3.4"), "dst": sip("1.2.2.8/1.2.3.5")}
    for wrong in (
        {"hop_limit": 256},
        {"payload_length": 65536},
        {"reserved": 1 << 28},
        {"src": Address.parse("1.2.3.4")},
    ):
        with pytest.raises(ValueError):
            SipHeader(**(good | wrong))


@pytest.mark.parametrize("vector", VECTORS["demux"], ids=lambda each: each["verdict"])
def test_protocol_41_is_sip_or_ipv6_by_its_length(vector: dict[str, str]) -> None:
    octets = bytes.fromhex(vector["payload"])
    assert demultiplex(octets) is Version6(vector["verdict"])
    assert demultiplex(octets[:8], len(octets)) is Version6(vector["verdict"]), "a quote of eight octets tells, too"
    assert demultiplex(octets + b"\0") is None
    assert demultiplex(b"\x40" + octets[1:]) is None
    assert demultiplex(octets[:5]) is None


def _outer(payload: bytes, **fields: object) -> Ipv4View:
    header = Ipv4Header(
        **(
            {
                "total_length": 20 + len(payload),
                "protocol": 41,
                "src": Address.parse("192.3.4.1"),
                "dst": Address.parse("128.1.1.2"),
            }
            | fields
        )
    )
    return Ipv4View.parse(header.emit() + payload)


@pytest.mark.rfc("ipae", "5.3")
def test_only_whole_datagrams_of_protocol_41_with_sip_are_ipae() -> None:
    by_verdict = {each["verdict"]: bytes.fromhex(each["payload"]) for each in VECTORS["demux"]}
    found = Ipae.parse(_outer(by_verdict["sip"], tos=0xB8, identification=7))
    assert bytes(found.inner.octets) == by_verdict["sip"]
    with pytest.raises(Malformed, match="Payload Length"):
        Ipae.parse(_outer(by_verdict["ipv6"]))
    with pytest.raises(Malformed, match="Protocol"):
        Ipae.parse(_outer(by_verdict["sip"], protocol=4))
    with pytest.raises(Malformed, match="Fragment"):
        Ipae.parse(_outer(by_verdict["sip"], mf=True))
    with pytest.raises(Malformed):
        Ipae.parse(_outer(by_verdict["sip"] + bytes(3)))
    with pytest.raises(Truncated):
        Ipae.parse(_outer(by_verdict["sip"][:20]))


def test_encapsulation_goes_from_ipv4_to_ipv4() -> None:
    packet = SipView.parse(bytes.fromhex(VECTORS["demux"][0]["payload"]))
    with pytest.raises(ValueError):
        encapsulate(packet, src=sip("1.2.2.8/1.2.3.4"), dst=Address.parse("1.2.3.4"), identification=0)
