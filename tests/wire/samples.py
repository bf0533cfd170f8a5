# SPDX-License-Identifier: BSD-3-Clause
"""One message of every type, made from values, with the vector that it must equal; and one of every type with all trimmings."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from isthmus.address import Address, Prefix
from isthmus.wire.rsip import message as m
from isthmus.wire.rsip.codes import (
    ErrorCode,
    LocalPolicy,
    Method,
    QueryIndicator,
    RemotePolicy,
    TunnelType,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    Error,
    FlowPolicy,
    IkeIdentity,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipMethod,
    RsipTunnelType,
    Spi,
    VendorSpecific,
)

_FILE = Path(__file__).parent.parent / "vectors" / "rsip.json"
VECTORS = {entry["name"].split()[0]: bytes.fromhex(entry["hex"]) for entry in json.loads(_FILE.read_text())["messages"]}

IP_IP = RsipTunnelType(TunnelType.IP_IP)
ANY = RsipAddress.any()


def _ipv4(text: str) -> RsipAddress:
    return RsipAddress.of(Address.parse(text))


_PUBLIC, _PEER = _ipv4("149.112.240.156"), _ipv4("38.196.73.6")

SAMPLES = {
    "E19": m.ErrorResponse(
        error=Error(ErrorCode.REMOTE_ADDR_UNALLOWED), message_counter=MessageCounter(2), client_id=ClientId(3)
    ),
    "E1": m.RegisterRequest(),
    "E4": m.RegisterResponse(
        client_id=ClientId(5),
        lease_time=LeaseTime(600),
        flow_policy=FlowPolicy(local=LocalPolicy.MICRO, remote=RemotePolicy.MICRO),
        message_counter=MessageCounter(1),
        methods=(RsipMethod(Method.RSAP_IP), RsipMethod(Method.RSA_IP), RsipMethod(Method.RSIPSEC)),
        tunnel_types=(IP_IP, RsipTunnelType(TunnelType.GRE)),
    ),
    "E21": m.DeregisterRequest(client_id=ClientId(5), message_counter=MessageCounter(9)),
    "E22": m.DeregisterResponse(client_id=ClientId(5), message_counter=MessageCounter(0)),
    "E9": m.AssignRequestRsaIp(
        client_id=ClientId(3),
        local_address=ANY,
        remote_address=RsipAddress.fqdn("www.bar.com"),
        remote_ports=Ports.any_of(),
        message_counter=MessageCounter(2),
        lease_time=LeaseTime(3600),
        tunnel_type=IP_IP,
    ),
    "E10": m.AssignResponseRsaIp(
        client_id=ClientId(3),
        bind_id=BindId(1),
        local_address=_ipv4("149.112.240.17"),
        remote_address=RsipAddress.fqdn("www.bar.com"),
        remote_ports=Ports.any_of(),
        lease_time=LeaseTime(3600),
        tunnel_type=IP_IP,
        message_counter=MessageCounter(2),
    ),
    "E7": m.AssignRequestRsapIp(
        client_id=ClientId(5),
        local_address=ANY,
        local_ports=Ports.any_of(1),
        remote_address=_PEER,
        remote_ports=Ports.of([21]),
        message_counter=MessageCounter(2),
        lease_time=LeaseTime(600),
        tunnel_type=IP_IP,
    ),
    "E8": m.AssignResponseRsapIp(
        client_id=ClientId(5),
        bind_id=BindId(1),
        local_address=_PUBLIC,
        local_ports=Ports.of([2049]),
        remote_address=_PEER,
        remote_ports=Ports.of([21]),
        lease_time=LeaseTime(600),
        tunnel_type=IP_IP,
        tunnel_endpoint=_ipv4("10.0.0.2"),
        message_counter=MessageCounter(2),
    ),
    "E11": m.ExtendRequest(
        client_id=ClientId(1), bind_id=BindId(2), lease_time=LeaseTime(1800), message_counter=MessageCounter(7)
    ),
    "E12": m.ExtendResponse(
        client_id=ClientId(1), bind_id=BindId(2), lease_time=LeaseTime(1800), message_counter=MessageCounter(7)
    ),
    "E13": m.FreeRequest(client_id=ClientId(1), bind_id=BindId(1), message_counter=MessageCounter(6)),
    "E14": m.FreeResponse(client_id=ClientId(1), bind_id=BindId(2), message_counter=MessageCounter(0)),
    "E15": m.QueryRequest(
        client_id=ClientId(1),
        message_counter=MessageCounter(3),
        tuples=(
            m.QueryTuple.of_address(Address.parse("192.156.136.22")),
            m.QueryTuple.of_network(Prefix.parse("10.20.60.0/24")),
        ),
    ),
    "E16": m.QueryResponse(
        client_id=ClientId(1),
        message_counter=MessageCounter(3),
        tuples=(
            m.QueryTuple.of_network(Prefix.parse("10.20.60.0/24"), QueryIndicator.LOCAL_NETWORK),
            m.QueryTuple.of_address(Address.parse("192.156.136.22"), QueryIndicator.REMOTE_ADDRESS),
        ),
    ),
    "E17": m.ListenRequest(
        client_id=ClientId(5),
        local_address=_PUBLIC,
        local_ports=Ports.of([2050]),
        remote_address=_PEER,
        remote_ports=Ports.of([20]),
        message_counter=MessageCounter(3),
    ),
    "E18": m.ListenResponse(
        client_id=ClientId(5),
        bind_id=BindId(2),
        local_address=_PUBLIC,
        local_ports=Ports.of([2050]),
        remote_address=_PEER,
        remote_ports=Ports.of([20]),
        tunnel_type=IP_IP,
        lease_time=LeaseTime(600),
        message_counter=MessageCounter(3),
    ),
    "E23": m.AssignRequestRsipsec(
        client_id=ClientId(1),
        local_address=ANY,
        local_ports=Ports.not_needed(),
        remote_address=ANY,
        remote_ports=Ports.not_needed(),
        spi=Spi.any_of(2),
        message_counter=MessageCounter(4),
        lease_time=LeaseTime(3600),
    ),
    "E25": m.AssignResponseRsipsec(
        client_id=ClientId(1),
        bind_id=BindId(3),
        local_address=_PUBLIC,
        local_ports=Ports.not_needed(),
        remote_address=ANY,
        remote_ports=Ports.not_needed(),
        spi=Spi.of([0x5F3A9C01, 0x8812D0E4]),
        lease_time=LeaseTime(1800),
        tunnel_type=IP_IP,
        message_counter=MessageCounter(4),
    ),
    "P1": m.ListenRequestRsipIke(
        client_id=ClientId(1),
        local_address=_PUBLIC,
        ike_identity=IkeIdentity(kind=2, data=b"peer.example"),
        remote_address=ANY,
        remote_ports=Ports.any_of(),
        message_counter=MessageCounter(5),
        lease_time=LeaseTime(600),
    ),
    "P2": m.ListenResponseRsipIke(
        client_id=ClientId(1),
        bind_id=BindId(4),
        local_address=_PUBLIC,
        ike_identity=IkeIdentity(kind=2, data=b"peer.example"),
        remote_address=ANY,
        remote_ports=Ports.any_of(),
        tunnel_type=IP_IP,
        lease_time=LeaseTime(600),
        message_counter=MessageCounter(5),
    ),
}

_TRIMMINGS = {
    "error": Error(ErrorCode.IPSEC_UNALLOWED),
    "client_id": ClientId(0xDEADBEEF),
    "bind_id": BindId(0x80000001),
    "lease_time": LeaseTime(0xFFFFFFFF),
    "flow_policy": FlowPolicy(local=LocalPolicy.MACRO, remote=RemotePolicy.NONE),
    "local_address": _ipv4("198.51.100.7"),
    "local_ports": Ports.of([1024, 4000, 65535]),
    "remote_address": RsipAddress.fqdn("peer.example"),
    "remote_ports": Ports.of(range(65281, 65536)),
    "ike_identity": IkeIdentity(kind=11, data=bytes(range(40))),
    "spi": Spi.of([0x1000, 0xFFFFFFFF]),
    "tunnel_type": RsipTunnelType(TunnelType.GRE),
    "tunnel_endpoint": RsipAddress.of(Address.parse("2001:db8::1")),
    "message_counter": MessageCounter(0xFFFFFFFF),
    "methods": (RsipMethod(Method.RSIPSEC), RsipMethod(Method.RSA_IP), RsipMethod(200)),
    "tunnel_types": (RsipTunnelType(TunnelType.L2TP), RsipTunnelType(TunnelType.GRE), RsipTunnelType(255)),
    "tuples": (
        m.QueryTuple.of_network(Prefix.parse("10.0.0.0/8")),
        m.QueryTuple.of_address(Address.parse("2001:db8::2")),
        m.QueryTuple.of_network(Prefix.parse("0.0.0.0/0")),
    ),
    "vendor": (VendorSpecific(vendor_id=241, subtype=1, value=b"isthmus"), VendorSpecific(vendor_id=242, subtype=2)),
}

LAVISH = {
    kind.name: message(**{field.name: _TRIMMINGS[field.name] for field in fields(message) if field.name in _TRIMMINGS})
    for kind, message in m.MESSAGES.items()
}
"Every type with every optional parameter that it can have, and extreme numbers."
