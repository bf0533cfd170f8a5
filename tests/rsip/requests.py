# SPDX-License-Identifier: BSD-3-Clause
"""Requests in few words, for tests that speak to a gateway directly."""

from __future__ import annotations

from isthmus.address import Address, Prefix
from isthmus.wire.rsip.codes import QueryIndicator
from isthmus.wire.rsip.message import (
    AssignRequestRsaIp,
    AssignRequestRsapIp,
    AssignRequestRsipsec,
    DeregisterRequest,
    ErrorResponse,
    ExtendRequest,
    FreeRequest,
    ListenRequest,
    ListenRequestRsipIke,
    Message,
    QueryRequest,
    QueryTuple,
    RegisterRequest,
    RegisterResponse,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    IkeIdentity,
    Indicator,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
    Spi,
)
from rsip.conversation import Raw


def _counter(counter: int | None) -> MessageCounter | None:
    return None if counter is None else MessageCounter(counter)


def _address(address: Address | str | None) -> RsipAddress:
    if address is None:
        return RsipAddress.any()
    return RsipAddress.fqdn(address) if isinstance(address, str) else RsipAddress.of(address)


def _ports(ports: int | tuple[int, ...] | None) -> Ports:
    if ports is None:
        return Ports.not_needed()
    return Ports.any_of(ports) if isinstance(ports, int) else Ports.of(ports)


def register(counter: int | None = 1) -> RegisterRequest:
    return RegisterRequest(message_counter=_counter(counter))


def deregister(client_id: int, counter: int | None = 9) -> DeregisterRequest:
    return DeregisterRequest(client_id=ClientId(client_id), message_counter=_counter(counter))


def extend(client_id: int, bind_id: int, counter: int | None = 5, *, lease: int | None = None) -> ExtendRequest:
    return ExtendRequest(
        client_id=ClientId(client_id),
        bind_id=BindId(bind_id),
        lease_time=None if lease is None else LeaseTime(lease),
        message_counter=_counter(counter),
    )


def free(client_id: int, bind_id: int, counter: int | None = 6) -> FreeRequest:
    return FreeRequest(client_id=ClientId(client_id), bind_id=BindId(bind_id), message_counter=_counter(counter))


def assign_ports(
    client_id: int,
    counter: int | None = 2,
    *,
    address: Address | str | None = None,
    ports: int | tuple[int, ...] = 4,
    remote: Address | str | None = None,
    remote_ports: int | tuple[int, ...] = 1,
    lease: int | None = None,
    tunnel: int | None = None,
) -> AssignRequestRsapIp:
    return AssignRequestRsapIp(
        client_id=ClientId(client_id),
        local_address=_address(address),
        local_ports=_ports(ports),
        remote_address=_address(remote),
        remote_ports=_ports(remote_ports),
        message_counter=_counter(counter),
        lease_time=None if lease is None else LeaseTime(lease),
        tunnel_type=None if tunnel is None else RsipTunnelType(tunnel),
    )


def assign_address(
    client_id: int,
    counter: int | None = 2,
    *,
    address: Address | str | None = None,
    remote: Address | str | None = None,
    remote_ports: int | tuple[int, ...] = 1,
    lease: int | None = None,
    tunnel: int | None = None,
) -> AssignRequestRsaIp:
    return AssignRequestRsaIp(
        client_id=ClientId(client_id),
        local_address=_address(address),
        remote_address=_address(remote),
        remote_ports=_ports(remote_ports),
        message_counter=_counter(counter),
        lease_time=None if lease is None else LeaseTime(lease),
        tunnel_type=None if tunnel is None else RsipTunnelType(tunnel),
    )


def listen(
    client_id: int,
    counter: int | None = 2,
    *,
    address: Address | None = None,
    ports: int | tuple[int, ...] = 1,
    remote: Address | str | None = None,
    remote_ports: int | tuple[int, ...] = 1,
    lease: int | None = None,
    tunnels: tuple[int, ...] = (),
) -> ListenRequest:
    return ListenRequest(
        client_id=ClientId(client_id),
        local_address=_address(address),
        local_ports=_ports(ports),
        remote_address=_address(remote),
        remote_ports=_ports(remote_ports),
        message_counter=_counter(counter),
        lease_time=None if lease is None else LeaseTime(lease),
        tunnel_types=tuple(map(RsipTunnelType, tunnels)),
    )


def listen_ike(
    client_id: int,
    counter: int | None = 2,
    *,
    name: bytes = b"peer.example",
    address: Address | None = None,
    remote: Address | None = None,
    remote_ports: int | tuple[int, ...] = 1,
    tunnels: tuple[int, ...] = (),
) -> ListenRequestRsipIke:
    return ListenRequestRsipIke(
        client_id=ClientId(client_id),
        local_address=_address(address),
        ike_identity=IkeIdentity(kind=2, data=name),
        remote_address=_address(remote),
        remote_ports=_ports(remote_ports),
        message_counter=_counter(counter),
        tunnel_types=tuple(map(RsipTunnelType, tunnels)),
    )


def assign_spis(
    client_id: int,
    counter: int | None = 2,
    *,
    spis: int | tuple[int, ...] = 2,
    ports: int | tuple[int, ...] | None = None,
    address: Address | None = None,
    remote: Address | str | None = None,
    remote_ports: int | tuple[int, ...] | None = None,
    lease: int | None = None,
) -> AssignRequestRsipsec:
    return AssignRequestRsipsec(
        client_id=ClientId(client_id),
        local_address=_address(address),
        local_ports=_ports(ports),
        remote_address=_address(remote),
        remote_ports=_ports(remote_ports),
        spi=Spi.any_of(spis) if isinstance(spis, int) else Spi.of(spis),
        message_counter=_counter(counter),
        lease_time=None if lease is None else LeaseTime(lease),
    )


def query(client_id: int, *items: Address | Prefix | str, counter: int | None = 2) -> QueryRequest:
    def about(item: Address | Prefix | str) -> QueryTuple:
        if isinstance(item, Prefix):
            return QueryTuple.of_network(item)
        if isinstance(item, Address):
            return QueryTuple.of_address(item)
        return QueryTuple(indicator=Indicator(QueryIndicator.ADDRESS), address=RsipAddress.fqdn(item))

    return QueryRequest(
        client_id=ClientId(client_id), message_counter=_counter(counter), tuples=tuple(map(about, items))
    )


def client_of(raw: Raw, counter: int | None = 1) -> int:
    """Register, return the Client ID."""
    answer = raw.ask(register(counter))
    assert isinstance(answer, RegisterResponse)
    return answer.client_id.value


def code_of(answer: Message | None) -> int:
    """The error of an answer that must be one."""
    assert isinstance(answer, ErrorResponse), answer
    return answer.error.value
