# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway does for a request that has passed the checks up to its grammar (RFC 3103 §9.2 to §9.13).

One method per message. Each reads the message (step 10 of the order in ``gateway``), makes
its own last checks, changes the roster, and returns the response. To serve another message
is to add a method, and to enter it in ``handlers``.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.address import Address
from isthmus.border.effect import Ending
from isthmus.border.pool import Pool
from isthmus.errors import RemoteProtocolError
from isthmus.rsip.allocation import Allocator
from isthmus.rsip.client import Client, Held
from isthmus.rsip.policy import GatewayPolicy
from isthmus.rsip.reliability import LAST_COUNTER
from isthmus.rsip.request import Request
from isthmus.rsip.roster import Roster
from isthmus.wire.rsip.codes import ErrorCode, MessageType
from isthmus.wire.rsip.message import (
    AssignRequestRsaIp,
    AssignRequestRsapIp,
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    DeregisterResponse,
    Envelope,
    ExtendRequest,
    ExtendResponse,
    FreeRequest,
    FreeResponse,
    Message,
    RegisterResponse,
    parse_message,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    FlowPolicy,
    LeaseTime,
    Ports,
    RsipAddress,
    RsipMethod,
    RsipTunnelType,
)


class Service:
    """The handlers of one gateway."""

    def __init__(self, *, policy: GatewayPolicy, pool: Pool, roster: Roster, tunnel_end: Address) -> None:
        """Put the parts together; the arguments are those of ``Gateway``."""
        self._policy = policy
        self._roster = roster
        self._tunnel_end = tunnel_end
        self._allocator = Allocator(policy=policy, pool=pool)
        self.handlers: dict[MessageType, Callable[[Client, Request, Envelope], Message]] = {
            MessageType.DE_REGISTER_REQUEST: self._deregister,
            MessageType.ASSIGN_REQUEST_RSA_IP: self._assign,
            MessageType.ASSIGN_REQUEST_RSAP_IP: self._assign,
            MessageType.EXTEND_REQUEST: self._extend,
            MessageType.FREE_REQUEST: self._free,
        }
        "Every message that is served to a registered host."

    def register(self, envelope: Envelope, request: Request) -> Message:
        """Admit a host, or refuse (RFC 3103 §9.2.3, §9.3); step 8 for hosts that are not registered.

        Raises:
            RemoteProtocolError: REGISTRATION_DENIED.
            MessageError: the grammar is wrong.
        """
        owner = request.peer.owner
        rule = self._policy.rule_for(owner.address)
        if rule is None or owner.address.family is not self._tunnel_end.family:
            raise RemoteProtocolError(ErrorCode.REGISTRATION_DENIED, f"{owner} may not register")
        parse_message(envelope)
        seconds = self._policy.registration_lease
        client = self._roster.register(owner, rule, seconds=seconds, now=request.now)
        client.heard(request.peer, counted=request.counter is not None)
        return RegisterResponse(
            client_id=ClientId(client.client_id),
            lease_time=LeaseTime(seconds),
            flow_policy=FlowPolicy(local=client.local_policy, remote=client.remote_policy),
            message_counter=request.echo,
            methods=tuple(RsipMethod(method) for method in self._policy.methods),
            tunnel_types=tuple(RsipTunnelType(kind) for kind in self._policy.tunnel_types),
        )

    def _deregister(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.4.3, §9.5."""
        parse_message(envelope)
        self._roster.dismiss(client, ending=Ending.FREED, now=request.now)
        return DeregisterResponse(client_id=ClientId(client.client_id), message_counter=request.echo)

    def _assign(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.6 to §9.9."""
        message = parse_message(envelope)
        assert isinstance(message, AssignRequestRsaIp | AssignRequestRsapIp)
        if client.last_bind_id >= LAST_COUNTER:
            raise RemoteProtocolError(ErrorCode.UNKNOWN_ERROR, "no Bind ID is left in this registration")
        allocation = self._allocator.allocate(message, client, now=request.now)
        seconds = self._policy.lease_seconds(None if message.lease_time is None else message.lease_time.value)
        held = self._roster.bind(client, allocation, seconds=seconds, now=request.now)
        local, bind_id = RsipAddress.of(allocation.resource.address), BindId(held.binding.key.bind_id)
        limit, tunnel = allocation.limit, RsipTunnelType(int(allocation.tunnel_kind))
        # The endpoint may be left out where it is the gateway (RFC 3103 §9.7.3); to say it is never wrong.
        endpoint = RsipAddress.of(self._tunnel_end)
        if isinstance(message, AssignRequestRsaIp):
            return AssignResponseRsaIp(
                client_id=message.client_id,
                bind_id=bind_id,
                local_address=local,
                remote_address=limit.address,
                remote_ports=limit.ports,
                lease_time=LeaseTime(seconds),
                tunnel_type=tunnel,
                tunnel_endpoint=endpoint,
                message_counter=request.echo,
            )
        return AssignResponseRsapIp(
            client_id=message.client_id,
            bind_id=bind_id,
            local_address=local,
            local_ports=Ports.of(allocation.resource.ports or ()),
            remote_address=limit.address,
            remote_ports=limit.ports,
            lease_time=LeaseTime(seconds),
            tunnel_type=tunnel,
            tunnel_endpoint=endpoint,
            message_counter=request.echo,
        )

    def _extend(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.10, §9.11; always answered, since a UDP host would ask again (spec I18)."""
        message = parse_message(envelope)
        assert isinstance(message, ExtendRequest)
        held = _binding(client, message.bind_id)
        seconds = self._policy.lease_seconds(None if message.lease_time is None else message.lease_time.value)
        self._roster.extend(client, held, seconds=seconds, now=request.now)
        return ExtendResponse(
            client_id=message.client_id,
            bind_id=message.bind_id,
            lease_time=LeaseTime(int(held.expires_at - request.now)),
            message_counter=request.echo,
        )

    def _free(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.12, §9.13."""
        message = parse_message(envelope)
        assert isinstance(message, FreeRequest)
        _binding(client, message.bind_id)
        self._roster.unbind(client, message.bind_id.value, ending=Ending.FREED, now=request.now)
        return FreeResponse(client_id=message.client_id, bind_id=message.bind_id, message_counter=request.echo)


def _binding(client: Client, bind_id: BindId) -> Held:
    """Step 11 (RFC 3103 §9.10.3, §9.12.3)."""
    held = client.bindings.get(bind_id.value)
    if held is None:
        raise RemoteProtocolError(ErrorCode.BAD_BIND_ID, f"bind ID {bind_id.value} is none of this host's")
    return held
