# SPDX-License-Identifier: BSD-3-Clause
"""RSIP messages against the vectors, against themselves, and against everything else."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.errors import Malformed, WireError
from isthmus.wire.rsip import message as m
from isthmus.wire.rsip.codes import ErrorCode, MessageType, ParameterType
from isthmus.wire.rsip.parameter import (
    PARAMETERS,
    BindId,
    ClientId,
    Indicator,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
    UnknownParameter,
    VendorSpecific,
)
from wire.samples import LAVISH, SAMPLES, VECTORS
from wire.strategies import messages, unhurried

COUNTER = "0b 0004 00000007"
CLIENT = "04 0004 00000005"
BIND = "05 0004 00000009"
LEASE = "03 0004 00000258"
TUNNEL = "06 0001 01"
ANY = "01 0001 01"
ADDRESS = "01 0005 01 0a000001"
NETMASK = "01 0005 02 ff000000"
NAME = "01 0004 04 612e62"
PORTS = "02 0001 01"
NO_PORTS = "02 0000"
SPI = "16 0002 0001"


def wrap(kind: int, *parameters: str, version: int = 1) -> bytes:
    body = bytes.fromhex("".join(parameters))
    return bytes((version, kind)) + (4 + len(body)).to_bytes(2, "big") + body


def fault_of(octets: bytes, **options: bool) -> m.MessageError:
    with pytest.raises(m.MessageError) as caught:
        m.parse(octets, **options)
    return caught.value


@pytest.mark.rfc("3103", "9")
@pytest.mark.parametrize("name", VECTORS)
def test_every_vector_is_read_and_written_octet_for_octet(name: str) -> None:
    message = m.parse(VECTORS[name])
    assert m.emit(message) == VECTORS[name]
    canonical = replace(message, order=())
    assert m.emit(canonical) == VECTORS[name], "the vectors are in the order of the fields"
    assert m.emit_envelope(m.parse_envelope(VECTORS[name])) == VECTORS[name]


@pytest.mark.rfc("3103", "9")
@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_made_of_values_has_the_octets_of_its_vector(name: str) -> None:
    assert m.emit(SAMPLES[name]) == VECTORS[name]
    assert m.parse(VECTORS[name]) == SAMPLES[name]


def test_there_is_a_sample_of_every_type() -> None:
    assert {message.type for message in SAMPLES.values()} == set(MessageType)
    assert set(m.MESSAGES) == set(MessageType)
    assert set(PARAMETERS) == set(ParameterType)


@pytest.mark.parametrize("name", LAVISH)
def test_every_optional_parameter_survives(name: str) -> None:
    octets = m.emit(LAVISH[name])
    assert m.parse(octets) == LAVISH[name]
    assert m.emit(m.parse(octets)) == octets


@unhurried
@given(messages)
def test_any_message_survives_emit_and_parse(message: m.Message) -> None:
    octets = m.emit(message)
    again = m.parse(octets, strict=False)
    assert again == message
    assert m.emit(again) == octets


@unhurried
@given(st.binary(max_size=120), st.sampled_from(MessageType), st.booleans())
def test_any_octets_are_a_message_or_a_wire_error(body: bytes, kind: MessageType, whole: bool) -> None:
    octets = wrap(kind, body.hex()) if whole else body
    try:
        message = m.parse(octets, strict=False)
    except m.MessageError as fault:
        error: WireError | None = fault
    else:
        error = None
        assert m.emit(message) == octets
    assert error is None or 106 <= error.code <= 207


@pytest.mark.rfc("3103", "9")
def test_optional_parameters_come_in_any_order_and_keep_it() -> None:
    octets = wrap(8, CLIENT, ANY, PORTS, ANY, PORTS, TUNNEL, LEASE, COUNTER)
    message = m.parse(octets)
    assert m.emit(message) == octets
    same = m.parse(wrap(8, CLIENT, ANY, PORTS, ANY, PORTS, COUNTER, LEASE, TUNNEL))
    assert message == same, "order is not part of the value"
    assert m.emit(replace(message, lease_time=None)) == wrap(8, CLIENT, ANY, PORTS, ANY, PORTS, TUNNEL, COUNTER)
    vendor = (VendorSpecific(vendor_id=241, subtype=1),)
    assert m.parse(m.emit(replace(message, vendor=vendor))) == replace(message, vendor=vendor)


@pytest.mark.rfc("3103", "9")
def test_interleaved_repeated_parameters_keep_their_order() -> None:
    octets = wrap(3, CLIENT, LEASE, "09 0002 0103", "07000101", TUNNEL, "07000102", COUNTER, "06000102")
    message = m.parse(octets)
    assert isinstance(message, m.RegisterResponse)
    assert [int(method) for method in message.methods] == [1, 2]
    assert [int(tunnel) for tunnel in message.tunnel_types] == [1, 2]
    assert m.emit(message) == octets


@pytest.mark.rfc("3103", "9.17.2")
def test_listen_response_has_tunnel_type_before_lease_time() -> None:
    assert [type(parameter) for parameter in m.parameters(SAMPLES["E18"])][6:8] == [RsipTunnelType, LeaseTime]
    assert [type(parameter) for parameter in m.parameters(SAMPLES["E8"])][6:8] == [LeaseTime, RsipTunnelType]
    swapped = wrap(17, CLIENT, BIND, ANY, PORTS, ANY, PORTS, LEASE, TUNNEL)
    assert fault_of(swapped).code == ErrorCode.BAD_MESSAGE


@pytest.mark.rfc("3103", "14")
@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(b"", ErrorCode.BAD_MESSAGE, id="nothing at all"),
        pytest.param(b"\x01\x02\x00", ErrorCode.BAD_MESSAGE, id="header cut short"),
        pytest.param(bytes.fromhex("01020003"), ErrorCode.BAD_MESSAGE, id="length below the header"),
        pytest.param(bytes.fromhex("0102000400"), ErrorCode.BAD_MESSAGE, id="longer than it says"),
        pytest.param(bytes.fromhex("01020005"), ErrorCode.BAD_MESSAGE, id="shorter than it says"),
        pytest.param(wrap(2, version=2), ErrorCode.UNSUPPORTED_RSIP_VERSION, id="version 2"),
        pytest.param(wrap(0), ErrorCode.ILLEGAL_MESSAGE, id="message type 0"),
        pytest.param(wrap(18), ErrorCode.ILLEGAL_MESSAGE, id="unassigned message type"),
        pytest.param(wrap(255), ErrorCode.ILLEGAL_MESSAGE, id="private message type"),
        pytest.param(wrap(2, "0b0005 00000001"), ErrorCode.BAD_MESSAGE, id="parameter runs past the end"),
        pytest.param(wrap(2, "0b00"), ErrorCode.BAD_MESSAGE, id="parameter header cut short"),
        pytest.param(wrap(2, "0d0000"), ErrorCode.ILLEGAL_PARAM, id="unknown parameter"),
        pytest.param(wrap(2, "000000"), ErrorCode.ILLEGAL_PARAM, id="reserved parameter"),
        pytest.param(wrap(2, "0b0003 000001"), ErrorCode.BAD_PARAM, id="counter of three octets"),
        pytest.param(wrap(4, CLIENT, CLIENT), ErrorCode.DUPLICATE_PARAM, id="client ID twice"),
        pytest.param(wrap(4, CLIENT, COUNTER, COUNTER), ErrorCode.DUPLICATE_PARAM, id="optional parameter twice"),
        pytest.param(
            wrap(8, CLIENT, ANY, PORTS, ANY, PORTS, ANY), ErrorCode.DUPLICATE_PARAM, id="third address in a request"
        ),
        pytest.param(wrap(2, CLIENT), ErrorCode.EXTRA_PARAM, id="parameter of another message"),
        pytest.param(wrap(4), ErrorCode.MISSING_PARAM, id="no client ID"),
        pytest.param(wrap(4, COUNTER), ErrorCode.MISSING_PARAM, id="only the optional parameter"),
        pytest.param(wrap(8, CLIENT, ANY, PORTS, ANY, COUNTER), ErrorCode.MISSING_PARAM, id="no remote ports"),
        pytest.param(wrap(12, BIND, CLIENT), ErrorCode.BAD_MESSAGE, id="required parameters swapped"),
        pytest.param(wrap(12, COUNTER, CLIENT, BIND), ErrorCode.BAD_MESSAGE, id="optional before required"),
    ],
)
def test_faults_have_the_code_of_the_rfc(octets: bytes, code: ErrorCode) -> None:
    assert fault_of(octets).code == code


@pytest.mark.rfc("3103", "14")
@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(wrap(99, version=2) + b"x", ErrorCode.BAD_MESSAGE, id="length before version"),
        pytest.param(wrap(99, version=2), ErrorCode.UNSUPPORTED_RSIP_VERSION, id="version before type"),
        pytest.param(wrap(99, "0d"), ErrorCode.ILLEGAL_MESSAGE, id="type before parameters"),
        pytest.param(wrap(2, "0d0000", "0b0009"), ErrorCode.BAD_MESSAGE, id="lengths before types"),
        pytest.param(wrap(2, "0b0001 00", "0d0000"), ErrorCode.ILLEGAL_PARAM, id="types before values"),
        pytest.param(wrap(4, CLIENT, CLIENT, "0b0000"), ErrorCode.BAD_PARAM, id="values before grammar"),
        pytest.param(wrap(4, BIND, CLIENT, CLIENT), ErrorCode.DUPLICATE_PARAM, id="duplicate before extra"),
        pytest.param(wrap(4, BIND), ErrorCode.EXTRA_PARAM, id="extra before missing"),
        pytest.param(wrap(10, BIND), ErrorCode.MISSING_PARAM, id="missing before order"),
    ],
)
def test_of_two_faults_the_first_in_the_fixed_order_is_found(octets: bytes, code: ErrorCode) -> None:
    assert fault_of(octets).code == code


@pytest.mark.rfc("3103", "9.1")
@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(wrap(12, CLIENT, BIND, COUNTER, "0d0000"), id="unknown parameter at the end"),
        pytest.param(wrap(12, "010000", CLIENT, BIND, COUNTER), id="bad parameter in front"),
        pytest.param(wrap(12, CLIENT, BIND, COUNTER, "0d0009"), id="cut parameter at the end"),
        pytest.param(wrap(12, BIND, CLIENT, COUNTER), id="wrong order"),
        pytest.param(wrap(12, CLIENT, BIND, COUNTER, CLIENT), id="duplicate"),
        pytest.param(wrap(12, CLIENT, BIND, COUNTER, LEASE), id="extra"),
        pytest.param(wrap(12, CLIENT, BIND, COUNTER) + b"\0", id="wrong length"),
    ],
)
def test_a_fault_says_whom_to_answer(octets: bytes) -> None:
    fault = fault_of(octets)
    assert (fault.message_type, fault.client_id, fault.bind_id, fault.message_counter) == (12, 5, 9, 7)


def test_nothing_is_guessed_about_other_versions() -> None:
    fault = fault_of(wrap(12, CLIENT, BIND, COUNTER, version=9))
    assert (fault.message_type, fault.client_id, fault.bind_id, fault.message_counter) == (None, None, None, None)


def test_a_fault_names_the_place() -> None:
    assert fault_of(wrap(4, CLIENT, COUNTER, "0d0000")).at == 18
    assert fault_of(wrap(4, CLIENT, COUNTER, COUNTER)).at == 18
    missing = fault_of(wrap(8, CLIENT, ANY, PORTS, ANY))
    assert (missing.field, missing.at) == ("remote_ports", 23)


@pytest.mark.rfc("3103", "9.2")
def test_an_envelope_knows_the_client_before_the_grammar_is_judged() -> None:
    envelope = m.parse_envelope(wrap(12, BIND, COUNTER, CLIENT))
    assert (envelope.client_id, envelope.bind_id, envelope.message_counter) == (5, 9, 7)
    assert m.parse_envelope(wrap(2)).message_counter is None
    with pytest.raises(m.MessageError):
        m.parse_message(envelope)


def test_unknown_parameters_survive_if_they_may() -> None:
    octets = wrap(2, "0d0001 aa", COUNTER, "ff0000", "0d0001 bb")
    message = m.parse(octets, strict=False)
    assert message.unknown == (
        UnknownParameter(type=13, value=b"\xaa"),
        UnknownParameter(type=255),
        UnknownParameter(type=13, value=b"\xbb"),
    )
    assert m.emit(message) == octets
    assert fault_of(octets).code == ErrorCode.ILLEGAL_PARAM


@pytest.mark.rfc("3103", "8.1")
def test_unknown_address_types_are_refused_by_a_gateway_and_kept_otherwise() -> None:
    octets = wrap(8, CLIENT, "010003 c8 0102", PORTS, ANY, PORTS)
    assert fault_of(octets).code == ErrorCode.BAD_PARAM
    message = m.parse(octets, strict=False)
    assert isinstance(message, m.AssignRequestRsapIp)
    assert message.local_address == RsipAddress(addrtype=200, octets=b"\x01\x02")
    assert m.emit(message) == octets


@pytest.mark.rfc("3102", "3.3")
@pytest.mark.rfc("3103", "8.12")
def test_vendor_specific_parameters_may_come_with_any_message() -> None:
    octets = wrap(2, "0c0005 00f1 0001 aa", "0c0004 00f1 0002")
    assert [vendor.subtype for vendor in m.parse(octets).vendor] == [1, 2]


@pytest.mark.rfc("3103", "9.9.3")
def test_an_address_after_the_required_ones_is_the_tunnel_endpoint() -> None:
    message = m.parse(VECTORS["E8"])
    assert isinstance(message, m.AssignResponseRsapIp)
    assert message.tunnel_endpoint is not None
    assert message.tunnel_endpoint.address == Address.parse("10.0.0.2")


@pytest.mark.rfc("3103", "8.1")
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param((CLIENT, NAME, PORTS, ANY, PORTS), id="local address by name"),
        pytest.param((CLIENT, NETMASK, PORTS, ANY, PORTS), id="local netmask"),
        pytest.param((CLIENT, ANY, PORTS, NETMASK, PORTS), id="remote netmask"),
        pytest.param((CLIENT, ANY, NO_PORTS, ANY, PORTS), id="no ports needed, without SPIs"),
    ],
)
def test_values_without_meaning_where_they_stand_are_bad(parameters: tuple[str, ...]) -> None:
    assert fault_of(wrap(8, *parameters)).code == ErrorCode.BAD_PARAM
    assert m.parse(wrap(8, CLIENT, ANY, PORTS, NAME, PORTS)), "a remote address may be a name"


@pytest.mark.rfc("3104", "6.2")
def test_no_ports_needed_is_for_messages_with_spis_only() -> None:
    assert m.parse(wrap(22, CLIENT, ANY, NO_PORTS, ANY, NO_PORTS, SPI))
    with pytest.raises(ValueError, match="don't need"):
        m.AssignRequestRsaIp(
            client_id=ClientId(1),
            local_address=RsipAddress.any(),
            remote_address=RsipAddress.any(),
            remote_ports=Ports.not_needed(),
        )


@pytest.mark.rfc("3103", "9.14")
@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        pytest.param(("0a00020001",), ErrorCode.MISSING_PARAM, id="indicator alone"),
        pytest.param(("0a00020001", COUNTER), ErrorCode.MISSING_PARAM, id="indicator, then no address"),
        pytest.param(("0a00020002", ADDRESS), ErrorCode.MISSING_PARAM, id="network without netmask"),
        pytest.param(("0a00020002", ADDRESS, COUNTER, NETMASK), ErrorCode.MISSING_PARAM, id="netmask too late"),
        pytest.param(("0a00020002", ADDRESS, ADDRESS), ErrorCode.BAD_PARAM, id="address for a netmask"),
        pytest.param(("0a00020002", NAME, NETMASK), ErrorCode.BAD_PARAM, id="network by name"),
        pytest.param(("0a00020001", NETMASK), ErrorCode.BAD_PARAM, id="netmask for an address"),
        pytest.param(("0a00020001", ANY), ErrorCode.BAD_PARAM, id="any address"),
        pytest.param(("0a00020002", ADDRESS, "01000102"), ErrorCode.BAD_PARAM, id="any netmask"),
        pytest.param(("0a00020009", ADDRESS), ErrorCode.BAD_PARAM, id="unknown indicator"),
        pytest.param(("0a00020003", ADDRESS), ErrorCode.BAD_PARAM, id="a question that is an answer"),
        pytest.param(("0a0003000001", ADDRESS), ErrorCode.BAD_PARAM, id="indicator of three octets"),
        pytest.param((ADDRESS,), ErrorCode.EXTRA_PARAM, id="address without indicator"),
        pytest.param(("0a00020001", ADDRESS, ADDRESS), ErrorCode.EXTRA_PARAM, id="two addresses for one indicator"),
    ],
)
def test_query_tuples_that_are_wrong(parameters: tuple[str, ...], code: ErrorCode) -> None:
    assert fault_of(wrap(14, CLIENT, *parameters)).code == code


@pytest.mark.rfc("3103", "8.10")
def test_indicators_of_one_octet_are_understood_and_kept() -> None:
    octets = wrap(14, CLIENT, "0a000101", ADDRESS)
    message = m.parse(octets)
    assert isinstance(message, m.QueryRequest)
    assert message.tuples[0].indicator == Indicator(1, width=1)
    assert m.emit(message) == octets
    assert m.QueryTuple.of_address(Address.parse("10.0.0.1")).indicator.width == 2


@pytest.mark.rfc("3103", "9.15")
def test_a_response_says_where_things_are() -> None:
    message = m.parse(wrap(15, CLIENT, "0a00020002", ADDRESS, "01000502ffffffff", "0a00020003", NAME, "0a00020004", ADDRESS, NETMASK))  # fmt: skip
    assert isinstance(message, m.QueryResponse)
    network, name, strange = message.tuples
    assert (network.is_network, network.is_local, network.prefix) == (True, True, Prefix.parse("10.0.0.1/32"))
    assert (name.is_network, name.is_local, name.prefix) == (False, False, None)
    assert (strange.is_local, strange.prefix) == (False, None), "10.0.0.1/8 has bits beyond its mask"


def test_a_message_longer_than_its_length_field_is_refused() -> None:
    big = tuple(VendorSpecific(vendor_id=241, subtype=1, value=bytes(40_000)) for _ in range(2))
    with pytest.raises(Malformed, match="Overall length"):
        m.emit(m.RegisterRequest(vendor=big))


def test_fields_are_named_once_and_messages_are_values() -> None:
    request = m.ExtendRequest(client_id=ClientId(1), bind_id=BindId(2))
    assert request == m.parse(wrap(10, "04000400000001", "05000400000002"))
    assert hash(request) == hash(replace(request, order=(3, 11)))
    assert request.message_counter is None
    assert replace(request, message_counter=MessageCounter(1)) != request
    assert {each.name for each in fields(m.Message) if each.init} == {"vendor", "unknown", "order", "message_counter"}
