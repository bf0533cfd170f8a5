# SPDX-License-Identifier: BSD-3-Clause
"""The response to each request that makes a binding (RFC 3103 §9.7, §9.9, §9.17; RFC 3104 §6.2)."""

from __future__ import annotations

from typing import Any

from isthmus.address import Address
from isthmus.rsip.allocation import Allocation, Demand
from isthmus.wire.rsip.message import (
    AssignRequestRsaIp,
    AssignRequestRsapIp,
    AssignRequestRsipsec,
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    AssignResponseRsipsec,
    ListenRequest,
    ListenResponse,
    ListenResponseRsipIke,
    Message,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
    Spi,
)


def response_to(
    request: Demand,
    allocation: Allocation,
    *,
    bind_id: BindId,
    lease_time: LeaseTime,
    tunnel_endpoint: Address,
    message_counter: MessageCounter | None,
) -> Message:
    """Say what was granted.

    Args:
        request: What was asked for.
        allocation: What of it was given.
        bind_id: The new binding's.
        lease_time: How long it lasts.
        tunnel_endpoint: Where its tunnel ends at our side.
        message_counter: The request's.
    """
    resource, limit = allocation.resource, allocation.limit
    # "Don't need" is answered in kind (RFC 3104 §6.2).
    ports = Ports.not_needed() if resource.ports is None else Ports.of(resource.ports)
    common: dict[str, Any] = {
        "client_id": request.client_id,
        "bind_id": bind_id,
        "local_address": RsipAddress.of(resource.address),
        "remote_address": limit.address,
        "remote_ports": limit.ports,
        "lease_time": lease_time,
        "tunnel_type": RsipTunnelType(int(allocation.tunnel_kind)),
        "tunnel_endpoint": RsipAddress.of(tunnel_endpoint),
        "message_counter": message_counter,
    }
    match request:
        case AssignRequestRsaIp():
            return AssignResponseRsaIp(**common)
        case AssignRequestRsapIp():
            return AssignResponseRsapIp(local_ports=ports, **common)
        case AssignRequestRsipsec():
            return AssignResponseRsipsec(local_ports=ports, spi=Spi.of(resource.spis or ()), **common)
        case ListenRequest():
            return ListenResponse(local_ports=ports, **common)
        case _:
            return ListenResponseRsipIke(ike_identity=request.ike_identity, **common)
