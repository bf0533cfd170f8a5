# SPDX-License-Identifier: BSD-3-Clause
"""Hypothesis strategies for everything that wire can hold."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import get_args, get_origin, get_type_hints

from hypothesis import settings
from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.wire.icmp import IcmpMessage
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.ipv6 import Ipv6Header
from isthmus.wire.rsip.codes import AddressType
from isthmus.wire.rsip.message import MESSAGES, Message, QueryTuple
from isthmus.wire.rsip.parameter import (
    PARAMETERS,
    BindId,
    ClientId,
    Error,
    FlowPolicy,
    IkeIdentity,
    Indicator,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipMethod,
    RsipTunnelType,
    Spi,
    UnknownParameter,
    VendorSpecific,
)
from isthmus.wire.transport import TcpHeader, UdpHeader

unhurried = settings(deadline=None, max_examples=300)

u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
ipv4_addresses = u32.map(lambda number: Address(Family.IPV4, number))
ipv6_addresses = st.integers(0, (1 << 128) - 1).map(lambda number: Address(Family.IPV6, number))
words = st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
ip_parameters = st.one_of(
    st.just(RsipAddress.any()),
    ipv4_addresses.map(RsipAddress.of),
    ipv6_addresses.map(RsipAddress.of),
    st.just(RsipAddress(addrtype=AddressType.IPV6)),
)
private_address_types = st.builds(RsipAddress, addrtype=st.sampled_from([0, 5, 200, 255]), octets=st.binary(max_size=9))
address_parameters = st.one_of(ip_parameters, names.map(RsipAddress.fqdn), private_address_types)
netmasks = st.integers(0, 32).map(RsipAddress.netmask)


def _range(draw_count: int, highest: int) -> st.SearchStrategy[tuple[int, tuple[int, ...]]]:
    return st.integers(1, highest - draw_count + 1).map(lambda first: (draw_count, (first,)))


needed_ports = st.one_of(
    st.integers(0, 255).map(lambda count: Ports(count=count)),
    st.integers(0, 255).map(lambda count: Ports(count=count, ports=(0,))),
    st.integers(1, 255).flatmap(lambda n: _range(n, 0xFFFF)).map(lambda form: Ports(count=form[0], ports=form[1])),
    st.lists(st.integers(1, 0xFFFF), unique=True, min_size=2, max_size=255).map(
        lambda ports: Ports(count=len(ports), ports=tuple(ports))
    ),
)
spis = st.one_of(
    st.integers(1, 0xFFFF).map(Spi.any_of),
    st.integers(1, 0xFFFF).flatmap(lambda n: _range(n, 0xFFFFFFFF)).map(lambda f: Spi(count=f[0], spis=f[1])),
    st.lists(u32, unique=True, min_size=2, max_size=20).map(lambda found: Spi(count=len(found), spis=tuple(found))),
)

_queried = st.one_of(ipv4_addresses.map(RsipAddress.of), names.filter(bool).map(RsipAddress.fqdn))


def _query_tuples(addresses: list[int], networks: list[int]) -> st.SearchStrategy[QueryTuple]:
    def indicators(values: list[int]) -> st.SearchStrategy[Indicator]:
        return st.builds(Indicator, st.sampled_from(values), width=st.sampled_from([1, 2]))

    return st.one_of(
        st.builds(QueryTuple, indicator=indicators(addresses), address=_queried),
        st.builds(
            QueryTuple,
            indicator=indicators(networks),
            address=ipv4_addresses.map(RsipAddress.of),
            netmask=netmasks,
        ),
    )


VALUES = {
    RsipAddress: address_parameters,
    Ports: needed_ports,
    Spi: spis,
    ClientId: u32.map(ClientId),
    BindId: u32.map(BindId),
    LeaseTime: u32.map(LeaseTime),
    MessageCounter: u32.map(MessageCounter),
    RsipTunnelType: u8.map(RsipTunnelType),
    RsipMethod: u8.map(RsipMethod),
    Error: u16.map(Error),
    FlowPolicy: st.builds(FlowPolicy, local=u8, remote=u8),
    Indicator: st.builds(Indicator, u8, width=st.sampled_from([1, 2])),
    IkeIdentity: st.builds(IkeIdentity, kind=st.integers(1, 255), data=st.binary(min_size=1, max_size=40)),
    VendorSpecific: st.builds(VendorSpecific, vendor_id=u16, subtype=u16, value=st.binary(max_size=30)),
    UnknownParameter: st.builds(
        UnknownParameter,
        type=st.sampled_from([number for number in range(256) if number not in PARAMETERS]),
        value=st.binary(max_size=30),
    ),
    QueryTuple: _query_tuples([1, 3], [2, 4]),
}


def _field(message: type[Message], name: str, hint: object, required: bool) -> st.SearchStrategy[object]:
    if name == "order":
        return st.permutations(list(range(24)) * 2).map(tuple)
    if name == "local_address":
        return st.one_of(ip_parameters, private_address_types)
    if name == "tuples" and "Request" in message.__name__:
        return st.lists(_query_tuples([1], [2]), max_size=5).map(tuple)
    if name.endswith("_ports") and "Rsipsec" in message.__name__:
        return st.one_of(needed_ports, st.just(Ports.not_needed()))
    if required:
        return VALUES[hint]
    inner = VALUES[get_args(hint)[0]]
    if get_origin(hint) is tuple:
        return st.lists(inner, max_size=4).map(tuple)
    return st.one_of(st.none(), inner)


def _messages(message: type[Message]) -> st.SearchStrategy[Message]:
    hints = get_type_hints(message)
    return st.builds(
        message,
        **{
            field.name: _field(message, field.name, hints[field.name], field.default is MISSING)
            for field in fields(message)
            if field.init
        },
    )


messages = st.one_of([_messages(message) for message in MESSAGES.values()])

ipv4_headers = st.builds(
    lambda options, total, **rest: Ipv4Header(options=options, total_length=max(total, 20 + len(options)), **rest),
    options=words,
    total=u16,
    tos=u8,
    identification=u16,
    reserved=st.booleans(),
    df=st.booleans(),
    mf=st.booleans(),
    fragment_offset=st.integers(0, 0x1FFF),
    ttl=u8,
    protocol=u8,
    src=ipv4_addresses,
    dst=ipv4_addresses,
    header_checksum=st.one_of(st.none(), u16),
)
ipv6_headers = st.builds(
    Ipv6Header,
    traffic_class=u8,
    flow_label=st.integers(0, 0xFFFFF),
    payload_length=u16,
    next_header=u8,
    hop_limit=u8,
    src=ipv6_addresses,
    dst=ipv6_addresses,
)
udp_headers = st.builds(UdpHeader, src_port=u16, dst_port=u16, length=st.integers(8, 0xFFFF), checksum=u16)
tcp_headers = st.builds(
    TcpHeader,
    src_port=u16,
    dst_port=u16,
    sequence=u32,
    acknowledgement=u32,
    reserved=st.integers(0, 15),
    flags=u8,
    window=u16,
    checksum=u16,
    urgent_pointer=u16,
    options=words,
)
icmp_messages = st.builds(
    IcmpMessage,
    type=u8,
    code=u8,
    rest=st.binary(min_size=4, max_size=4),
    body=st.binary(max_size=60),
    checksum=st.one_of(st.none(), u16),
)
