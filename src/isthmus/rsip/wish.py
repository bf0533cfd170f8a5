# SPDX-License-Identifier: BSD-3-Clause
"""What a host asks for, as a message, and whether a response is what was asked for (RFC 3103 §9.6 to §9.9)."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Address
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.ranges import Ranges
from isthmus.rsip.events import Assigned
from isthmus.wire.rsip.codes import RemotePolicy
from isthmus.wire.rsip.message import (
    AssignRequestRsaIp,
    AssignRequestRsapIp,
    AssignResponseRsaIp,
    AssignResponseRsapIp,
)
from isthmus.wire.rsip.parameter import ClientId, LeaseTime, MessageCounter, Ports, RsipAddress, RsipTunnelType

AssignRequest = AssignRequestRsaIp | AssignRequestRsapIp
AssignResponse = AssignResponseRsaIp | AssignResponseRsapIp

_MOST_PORTS = 255
"A Ports parameter counts in eight bits (RFC 3103 §8.2)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One ASSIGN."""

    method: Method
    address: Address | None = None
    "None: any."
    ports: Ranges | int | None = None
    "The very ports, or how many of any; None for a whole address."
    remote: Address | str | None = None
    "The peer, or its name; None: any."
    remote_port: int | None = None
    lease_seconds: int | None = None
    "None: as the gateway thinks fit."
    tunnel: TunnelKind | None = None
    "None: as the gateway thinks fit."

    def __post_init__(self) -> None:
        """Refuse what no message can say."""
        if (self.method is Method.RSAP_IP) != (self.ports is not None):
            raise ValueError(f"{self.method.name} with ports {self.ports}")
        if self.ports is not None and not 1 <= self.port_count <= _MOST_PORTS:
            raise ValueError(f"{self.port_count} ports: a request holds 1 to {_MOST_PORTS}")

    @property
    def port_count(self) -> int:
        """How many ports are asked for."""
        return self.ports if isinstance(self.ports, int) else len(self.ports or ())

    def message(self, client_id: int, counter: int) -> AssignRequest:
        """The request."""
        lease, tunnel = self.lease_seconds, self.tunnel
        local = RsipAddress.any() if self.address is None else RsipAddress.of(self.address)
        remote_ports = Ports.any_of(1) if self.remote_port is None else Ports.of((self.remote_port,))
        lease_time = None if lease is None else LeaseTime(lease)
        tunnel_type = None if tunnel is None else RsipTunnelType(int(tunnel))
        if self.ports is None:
            return AssignRequestRsaIp(
                client_id=ClientId(client_id),
                local_address=local,
                remote_address=_remote(self.remote),
                remote_ports=remote_ports,
                message_counter=MessageCounter(counter),
                lease_time=lease_time,
                tunnel_type=tunnel_type,
            )
        return AssignRequestRsapIp(
            client_id=ClientId(client_id),
            local_address=local,
            local_ports=Ports.any_of(self.ports) if isinstance(self.ports, int) else Ports.of(self.ports),
            remote_address=_remote(self.remote),
            remote_ports=remote_ports,
            message_counter=MessageCounter(counter),
            lease_time=lease_time,
            tunnel_type=tunnel_type,
        )

    def mismatch(self, response: AssignResponse, *, remote_policy: int) -> str | None:
        """What a response has wrong; None if it can be used. A host checks what it got (spec 10, I4)."""
        if (self.ports is None) != isinstance(response, AssignResponseRsaIp):
            return "another method than asked for"
        granted = response.local_address.address
        if granted is None or (self.address is not None and granted != self.address):
            return f"local address {response.local_address}"
        if isinstance(response, AssignResponseRsapIp):
            ports = response.local_ports.port_set
            if ports is None or len(ports) != self.port_count:
                return f"{response.local_ports} instead of {self.port_count} ports"
            if isinstance(self.ports, Ranges) and Ranges.of(*ports) != self.ports:
                return f"ports {response.local_ports} instead of {self.ports}"
        kind = response.tunnel_type.value
        if kind not in set(TunnelKind) or self.tunnel not in (None, kind):
            return f"tunnel type {response.tunnel_type}"
        endpoint = response.tunnel_endpoint
        if endpoint is not None and endpoint.address is None:
            return f"tunnel endpoint {endpoint}"
        if not response.lease_time.value:
            return "a lease of no time"
        return self._remote_mismatch(response, remote_policy)

    def granted(self, response: AssignResponse, *, request: int, gateway: Address, sent_at: float) -> Assigned:
        """What the host holds by a response without mismatch.

        Args:
            response: The response.
            request: The number of the request, for the event.
            gateway: The tunnel's other end where the response names none (RFC 3103 §9.7.3, §9.9.3).
            sent_at: When the request was sent first; the lease counts from here.
        """
        address, endpoint = response.local_address.address, response.tunnel_endpoint
        assert address is not None
        ports = response.local_ports.port_set if isinstance(response, AssignResponseRsapIp) else None
        return Assigned(
            request=request,
            bind_id=response.bind_id.value,
            method=self.method,
            address=address,
            ports=None if ports is None else Ranges.of(*ports),
            remote_address=response.remote_address.address,
            remote_port=None if response.remote_ports.dont_care else self.remote_port,
            tunnel_endpoint=(None if endpoint is None else endpoint.address) or gateway,
            tunnel_kind=TunnelKind(response.tunnel_type.value),
            expires_at=sent_at + response.lease_time.value,
        )

    def _remote_mismatch(self, response: AssignResponse, remote_policy: int) -> str | None:
        """The remote fields repeat what the flow policy is about, and nothing else (the table of spec 5.3)."""
        address, ports = response.remote_address, response.remote_ports
        if address != _remote(self.remote) and not (address.dont_care and remote_policy == RemotePolicy.NONE):
            return f"remote address {address}"
        micro = remote_policy == RemotePolicy.MICRO
        if not ports.dont_care and ports.port_set != (self.remote_port,):
            return f"remote ports {ports}"
        return f"remote ports {ports}" if micro and ports.dont_care else None


def _remote(remote: Address | str | None) -> RsipAddress:
    if remote is None:
        return RsipAddress.any()
    return RsipAddress.fqdn(remote) if isinstance(remote, str) else RsipAddress.of(remote)
