# SPDX-License-Identifier: BSD-3-Clause
"""The parameters one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.wire.rsip.codes import AddressType, ErrorCode, MessageType, TunnelType
from isthmus.wire.rsip.parameter import (
    PARAMETERS,
    BindId,
    ClientId,
    Error,
    FlowPolicy,
    IkeIdentity,
    Indicator,
    Parameter,
    Ports,
    RsipAddress,
    RsipMethod,
    RsipTunnelType,
    Spi,
    UnknownParameter,
    VendorSpecific,
    number_of,
)
from wire.strategies import VALUES, unhurried

_parameters = st.one_of([VALUES[kind] for kind in PARAMETERS.values()])


@unhurried
@given(_parameters)
def test_any_parameter_survives(parameter: Parameter) -> None:
    assert type(parameter).parse(parameter.emit()) == parameter
    assert PARAMETERS[number_of(parameter)] is type(parameter)
    assert str(parameter)


@unhurried
@given(st.sampled_from(list(PARAMETERS.values())), st.binary(max_size=40))
def test_any_octets_are_a_value_or_a_value_error(kind: type[Parameter], octets: bytes) -> None:
    try:
        parameter = kind.parse(octets)
    except ValueError:
        return
    assert parameter.emit() == octets


@pytest.mark.rfc("3103", "8.1")
def test_addresses_have_the_layout_of_the_rfc() -> None:
    assert RsipAddress.of(Address.parse("10.0.0.1")).emit().hex() == "010a000001"
    assert RsipAddress.netmask(24).emit().hex() == "02ffffff00"
    assert RsipAddress.of(Address.parse("2001:db8::1")).emit().hex() == "03" + "20010db8" + "00" * 11 + "01"
    assert RsipAddress.fqdn("a.b").emit() == b"\x04a.b"
    assert RsipAddress.any().emit() == b"\x01"


@pytest.mark.rfc("3103", "8.1")
@pytest.mark.parametrize(
    "octets", ["", "010a0000", "010a00000001", "02ffff", "03" + "00" * 15, "0461 20", "04ff", "046100"]
)
def test_addresses_of_wrong_length_or_letters_are_refused(octets: str) -> None:
    with pytest.raises(ValueError):
        RsipAddress.parse(bytes.fromhex(octets))


def test_an_address_that_rsip_has_no_type_for_is_refused() -> None:
    with pytest.raises(ValueError, match="SIP"):
        RsipAddress.of(Address(Family.SIP, 1))


@pytest.mark.rfc("3103", "9.8.3")
def test_zero_means_dont_care_and_stays_zero() -> None:
    zero = RsipAddress.parse(b"\x01\0\0\0\0")
    assert zero.dont_care
    assert zero.address is None
    assert zero.emit() == b"\x01\0\0\0\0"
    assert RsipAddress.any().dont_care
    assert RsipAddress.parse(b"\x03").dont_care
    assert not RsipAddress.netmask(0).dont_care
    port = Ports.parse(b"\x01\0\0")
    assert (port.dont_care, port.port_set, port.size, port.emit()) == (True, None, 1, b"\x01\0\0")


def test_addresses_give_what_they_are() -> None:
    address = RsipAddress.of(Address.parse("10.0.0.1"))
    assert (address.address, address.name, address.prefix_length) == (Address.parse("10.0.0.1"), None, None)
    name = RsipAddress.fqdn("www.bar.com")
    assert (name.address, name.name, str(name)) == (None, "www.bar.com", "www.bar.com")
    assert [RsipAddress.netmask(n).prefix_length for n in (0, 8, 31, 32)] == [0, 8, 31, 32]
    assert RsipAddress(addrtype=AddressType.IPV4_NETMASK, octets=b"\xff\0\xff\0").prefix_length is None


@pytest.mark.rfc("3103", "8.2")
@pytest.mark.parametrize(
    ("octets", "named", "text"),
    [
        ("010050", (80,), "80"),
        ("0404d2", (1234, 1235, 1236, 1237), "1234-1237"),
        ("0303f403f51388", (1012, 1013, 5000), "1012,1013,5000"),
        ("0200500051", (80, 81), "80,81"),
        ("04", None, "any 4"),
        ("00", None, "any 1"),
        ("", None, "not needed"),
    ],
)
def test_every_form_of_ports(octets: str, named: tuple[int, ...] | None, text: str) -> None:
    ports = Ports.parse(bytes.fromhex(octets))
    assert ports.emit().hex() == octets
    assert ports.port_set == named
    assert str(ports) == text
    assert ports.dont_need == (octets == "")
    assert ports.size == (0 if octets == "" else max(int(octets[:2], 16), 1))


@pytest.mark.rfc("3103", "8.2")
@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        ("0100", "length"),
        ("0300500051", "count says 3"),
        ("02ffff", "past"),
        ("000050", "count 0"),
        ("0200000050", "port 0"),
        ("0200500050", "twice"),
    ],
)
def test_ports_that_contradict_themselves_are_refused(octets: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Ports.parse(bytes.fromhex(octets))


def test_ports_choose_the_shortest_form() -> None:
    assert Ports.of([5]).emit().hex() == "010005"
    assert Ports.of(range(1000, 1004)).emit().hex() == "0403e8"
    assert Ports.of([1000, 1002]).emit().hex() == "0203e803ea"
    for wrong in ([], [0], list(range(1, 257)), [70000], [65535, 65536]):
        with pytest.raises(ValueError):
            Ports.of(wrong)
    with pytest.raises(ValueError, match="at least 1"):
        Ports.any_of(0)
    with pytest.raises(ValueError, match="without a count"):
        Ports(count=None, ports=(1,))


@pytest.mark.rfc("3104", "6.2")
def test_every_form_of_spi() -> None:
    assert Spi.parse(bytes.fromhex("000110000001")).spi_set == (0x10000001,)
    assert Spi.parse(bytes.fromhex("000310000001")).spi_set == (0x10000001, 0x10000002, 0x10000003)
    assert Spi.parse(bytes.fromhex("00025f3a9c018812d0e4")).spi_set == (0x5F3A9C01, 0x8812D0E4)
    assert Spi.parse(bytes.fromhex("0002")) == Spi.any_of(2)
    assert Spi.any_of(2).spi_set is None
    assert Spi.of([256, 257]) == Spi(count=2, spis=(256,))


@pytest.mark.rfc("3104", "6.2")
@pytest.mark.parametrize(
    "octets", ["", "00", "0000", "0001000000", "0002ffffffff", "00030000010000000200", "00020000010000000100"]
)
def test_spis_that_contradict_themselves_are_refused(octets: str) -> None:
    with pytest.raises(ValueError):
        Spi.parse(bytes.fromhex(octets))


@pytest.mark.rfc("3103", "8")
def test_a_known_number_is_a_member_and_an_unknown_one_stays() -> None:
    assert RsipTunnelType.parse(b"\x02").value is TunnelType.GRE
    assert RsipTunnelType(2).value is TunnelType.GRE
    assert RsipMethod.parse(b"\xc8").value == 200
    assert str(Error(403)) == "IPSEC_SPI_INUSE"
    assert Error(999).emit() == b"\x03\xe7"
    assert ClientId(5) != BindId(5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClientId(1 << 32),
        lambda: ClientId(-1),
        lambda: RsipMethod(256),
        lambda: FlowPolicy(local=256, remote=1),
        lambda: Indicator(256, width=1),
        lambda: Indicator(1, width=3),
        lambda: VendorSpecific(vendor_id=1 << 16, subtype=0),
        lambda: UnknownParameter(type=1),
        lambda: UnknownParameter(type=256),
        lambda: RsipAddress(addrtype=256),
        lambda: RsipAddress.fqdn("a" * 256),
        lambda: IkeIdentity(kind=0, data=b"x"),
        lambda: IkeIdentity(kind=256, data=b"x"),
        lambda: IkeIdentity(kind=2, data=b""),
        lambda: IkeIdentity(kind=2, data=bytes(1025)),
        lambda: Spi(count=0),
    ],
)
def test_a_value_that_exists_is_valid(make: object) -> None:
    with pytest.raises(ValueError):
        make()


@pytest.mark.rfc("3103", "14")
def test_every_error_has_a_sentence() -> None:
    numbers = [*range(101, 107), *range(201, 209), *range(301, 316), *range(401, 404)]
    assert [int(code) for code in ErrorCode] == numbers
    for code in ErrorCode:
        assert code.meaning.endswith(".")
        assert code.meaning[0].isupper()


@pytest.mark.rfc("3103", "9")
def test_requests_are_told_from_responses() -> None:
    assert {kind.value for kind in MessageType if kind.is_request} == {2, 4, 6, 8, 10, 12, 14, 16, 22, 241}
