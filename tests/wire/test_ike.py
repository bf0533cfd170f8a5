# SPDX-License-Identifier: BSD-3-Clause
"""The header of IKE and the identity in it (RFC 2408 §3; RFC 2407 §4.6.2; RFC 7296 §3.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.isakmp import ISAKMP, ISAKMP_payload, ISAKMP_payload_ID

from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire import ike
from isthmus.wire.ike import IkeHeader

COOKIE = bytes.fromhex("0102030405060708")

headers = st.builds(
    IkeHeader,
    initiator_cookie=st.binary(min_size=8, max_size=8),
    responder_cookie=st.binary(min_size=8, max_size=8),
    next_payload=st.integers(0, 255),
    version=st.integers(0, 255),
    exchange_type=st.integers(0, 255),
    flags=st.integers(0, 255),
    message_id=st.integers(0, (1 << 32) - 1),
    length=st.integers(28, 28),
)


def opening(**fields: object) -> bytes:
    """The first message of an aggressive exchange, by scapy."""
    message = ISAKMP(init_cookie=COOKIE, exch_type=4, next_payload=1, **fields)
    message /= ISAKMP_payload(next_payload=4, load=bytes(20))
    message /= ISAKMP_payload(next_payload=5, load=bytes(96))
    return bytes(message / ISAKMP_payload_ID(IDtype=2, IdentData=b"alice.example"))


@pytest.mark.rfc("2408", "3.1")
@given(header=headers)
def test_header_round_trip(header: IkeHeader) -> None:
    assert IkeHeader.parse(header.emit()) == header


@pytest.mark.rfc("2407", "4.6.2")
def test_the_identity_of_an_aggressive_initiator() -> None:
    message = opening()
    assert ike.initiator_cookie(message) == COOKIE
    assert ike.opening_identity(message) == (2, b"alice.example")


@pytest.mark.rfc("2409", "5")
@pytest.mark.parametrize(
    ("at", "octets"),
    [(8, b"\x01"), (17, b"\x20"), (18, b"\x02"), (19, b"\x01"), (28, b"\x00"), (16, b"\x00")],
    ids=["answered", "version 2", "main mode", "encrypted", "chain ends", "no payloads"],
)
def test_others_show_none(at: int, octets: bytes) -> None:
    message = opening()
    assert ike.opening_identity(message[:at] + octets + message[at + 1 :]) is None


@pytest.mark.rfc("2408", "2.5.3")
def test_cookies_cut_short_or_zero_are_none() -> None:
    assert ike.initiator_cookie(b"") is None
    assert ike.initiator_cookie(COOKIE[:7]) is None
    assert ike.initiator_cookie(bytes(28)) is None
    assert ike.initiator_cookie(bytes(7) + b"\x01") == bytes(7) + b"\x01"


@pytest.mark.rfc("2408", "3.2")
def test_payloads_stay_within_the_message() -> None:
    message = bytearray(opening())
    with pytest.raises(Truncated, match="IKE message"):
        ike.opening_identity(message[:-1])
    message[30:32] = (4000).to_bytes(2, "big")
    with pytest.raises(Truncated, match="payload"):
        ike.opening_identity(message)
    message[30:32] = (3).to_bytes(2, "big")
    with pytest.raises(Malformed, match="Payload Length"):
        ike.opening_identity(message)
    with pytest.raises(Malformed, match="Length"):
        IkeHeader.parse(bytes(28))
    with pytest.raises(Truncated, match="header"):
        IkeHeader.parse(bytes(27))


@pytest.mark.rfc("2408", "3.2")
def test_payloads_come_to_an_end() -> None:
    chain = b"\x0d\0\0\x04" * 1000
    header = IkeHeader(initiator_cookie=COOKIE, next_payload=13, exchange_type=4, length=28 + len(chain))
    with pytest.raises(Malformed, match="more than 32"):
        ike.opening_identity(header.emit() + chain)


@pytest.mark.rfc("2407", "4.6.2")
def test_an_identity_without_its_header_is_cut_short() -> None:
    body = b"\0\0\0\x07\x02\0\0"
    header = IkeHeader(initiator_cookie=COOKIE, next_payload=5, exchange_type=4, length=28 + len(body))
    with pytest.raises(Truncated, match="identification"):
        ike.opening_identity(header.emit() + body)


@given(octets=st.binary(max_size=200))
def test_any_octets_give_an_identity_or_a_wire_error(octets: bytes) -> None:
    for each in (octets, opening()[:28] + octets):
        try:
            found = ike.opening_identity(each)
        except WireError:
            continue
        assert found is None or 0 <= found[0] <= 255


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="eight octets"):
        IkeHeader(initiator_cookie=b"", next_payload=1, exchange_type=2, length=28)
    with pytest.raises(ValueError, match="length"):
        IkeHeader(initiator_cookie=COOKIE, next_payload=1, exchange_type=2, length=1 << 32)
