# SPDX-License-Identifier: BSD-3-Clause
"""DHCPINFORM and its answer, and the options that lead to a gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from isthmus.address import Address
from isthmus.errors import Malformed, WireError
from isthmus.wire import dhcp
from isthmus.wire.dhcp import DhcpMessage, MessageType, Option
from wire.strategies import unhurried

HERE = Address.parse("10.0.0.4")
HARDWARE = bytes.fromhex("02aabbccddee")
GATEWAYS = bytes((10, 0, 0, 1, 10, 0, 0, 2))


def ack(*options: object, file: bytes = b"", sname: bytes = b"") -> bytes:
    """An answer as scapy writes it."""
    head = BOOTP(op=2, xid=7, ciaddr="10.0.0.4", chaddr=HARDWARE, file=file, sname=sname)
    return bytes(head / DHCP(options=[("message-type", "ack"), *options, "end"]))


@pytest.mark.rfc("2131", "4.4.3")
def test_an_inform_says_who_asks_and_for_what() -> None:
    octets = DhcpMessage.inform(xid=7, client=HERE, hardware=HARDWARE, options=(224, 79)).emit()
    judged = BOOTP(octets)
    assert (judged.op, judged.hlen, judged.xid, judged.ciaddr) == (1, 6, 7, "10.0.0.4")
    assert judged.chaddr[:6] == HARDWARE
    assert judged[DHCP].options[:3] == [("message-type", 8), ("param_req_list", [224, 79]), "end"]
    assert len(octets) >= 300


@pytest.mark.rfc("2131", "4.4.3")
def test_an_inform_asks_for_no_lease_time() -> None:
    assert 51 not in DhcpMessage.inform(xid=7, client=HERE, hardware=HARDWARE, options=(224,)).options


def test_an_answer_is_read() -> None:
    read = DhcpMessage.parse(ack((224, GATEWAYS), ("server_id", "10.0.0.53")))
    assert read.message_type == MessageType.ACK
    assert (read.op, read.xid, read.client, read.hardware) == (2, 7, HERE, HARDWARE)
    assert dhcp.addresses(read.options[224]) == (Address.parse("10.0.0.1"), Address.parse("10.0.0.2"))
    assert read.options[Option.SERVER_IDENTIFIER] == bytes((10, 0, 0, 53))


@pytest.mark.rfc("3396", "7")
def test_an_option_in_pieces_is_put_together() -> None:
    read = DhcpMessage.parse(ack((224, GATEWAYS[:3]), (12, b"x"), (224, GATEWAYS[3:])))
    assert read.options[224] == GATEWAYS


@pytest.mark.rfc("2132", "9.3")
def test_options_may_stand_in_the_file_and_sname_fields() -> None:
    octets = ack((52, b"\3"), file=bytes((224, 4)) + GATEWAYS[:4] + b"\xff", sname=bytes((0, 79, 2, 1, 65, 255)))
    read = DhcpMessage.parse(octets)
    assert read.options[224] == GATEWAYS[:4]
    assert dhcp.slp_scopes(read.options[79]) == ("A",)
    nested = ack((52, b"\1"), file=bytes((52, 1, 3, 255)))
    with pytest.raises(Malformed, match="overloaded"):
        DhcpMessage.parse(nested)


def test_pads_and_what_follows_the_end_count_for_nothing() -> None:
    octets = ack()
    at = octets.index(dhcp.COOKIE) + 4
    assert DhcpMessage.parse(octets[:at] + bytes((0, 0, 53, 1, 5, 255, 224, 9, 1))).options == {53: b"\5"}


@pytest.mark.parametrize("cut", [0, 3, 27, 43, 235, 239])
def test_a_message_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(WireError):
        DhcpMessage.parse(ack()[:cut])


def test_an_option_beyond_the_end_and_a_wrong_cookie_are_refused() -> None:
    octets = ack()
    at = octets.index(dhcp.COOKIE)
    with pytest.raises(WireError):
        DhcpMessage.parse(octets[: at + 4] + bytes((224, 9, 1)))
    with pytest.raises(Malformed, match="cookie"):
        DhcpMessage.parse(octets[:at] + bytes(4) + octets[at + 4 :])
    with pytest.raises(Malformed, match="chaddr"):
        DhcpMessage.parse(octets[:2] + b"\x11" + octets[3:])
    with pytest.raises(Malformed, match="overload"):
        DhcpMessage.parse(ack((52, b"\4")))


@unhurried
@given(
    st.integers(0, 2**32 - 1),
    st.binary(max_size=16),
    st.dictionaries(st.integers(1, 254).filter(lambda number: number != 52), st.binary(max_size=255), max_size=5),
)
def test_every_message_survives_a_round_trip(xid: int, hardware: bytes, options: dict[int, bytes]) -> None:
    message = DhcpMessage(op=1, xid=xid, hardware=hardware, client=HERE, options=options)
    assert DhcpMessage.parse(message.emit()) == message


@pytest.mark.parametrize("value", [b"", b"\1\2\3", bytes(5)])
def test_what_is_no_list_of_addresses_is_refused(value: bytes) -> None:
    with pytest.raises(Malformed):
        dhcp.addresses(value)


@pytest.mark.rfc("2610", "4")
def test_slp_scopes_and_directory_agents_by_dhcp() -> None:
    assert dhcp.slp_scopes(b"\1north,South") == ("north", "South")
    assert dhcp.slp_scopes(b"\0") == ()
    assert dhcp.slp_directory_agents(b"\1" + GATEWAYS[:4]) == (Address.parse("10.0.0.1"),)
    for read in (dhcp.slp_scopes, dhcp.slp_directory_agents):
        with pytest.raises(Malformed):
            read(b"")
    with pytest.raises(Malformed):
        dhcp.slp_scopes(b"\1\xff\xfe")


def test_the_site_specific_options() -> None:
    assert (dhcp.SITE_SPECIFIC.start, dhcp.SITE_SPECIFIC.stop - 1) == (224, 254)
