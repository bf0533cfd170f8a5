# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway does for a request that has passed the checks up to its grammar (RFC 3103 §9.2 to §9.17).

One method per message. Each reads the message (step 10 of the order in ``gateway``), makes
its own last checks, changes the roster, and returns the response. To serve another message
is to add a method, and to enter it in ``handlers``.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.border.effect import Ending
from isthmus.border.pool import Pool
from isthmus.errors import RemoteProtocolError
from isthmus.rsip.allocation import Allocator, Ceiling, Demand, Judgement
from isthmus.rsip.client import Client, Held
from isthmus.rsip.ends import TunnelEnds
from isthmus.rsip.grant import response_to
from isthmus.rsip.policy import GatewayPolicy
from isthmus.rsip.reliability import LAST_COUNTER
from isthmus.rsip.request import Request
from isthmus.rsip.roster import Roster
from isthmus.rsip.states import ClientEvent
from isthmus.rsip.usual import Admission, Grant
from isthmus.wire.rsip.codes import ErrorCode, LocalPolicy, MessageType, Method, RemotePolicy
from isthmus.wire.rsip.likeness import Likeness
from isthmus.wire.rsip.message import (
    AssignResponseRsapIp,
    DeregisterResponse,
    Envelope,
    ExtendRequest,
    ExtendResponse,
    FreeRequest,
    FreeResponse,
    Message,
    QueryRequest,
    QueryResponse,
    QueryTuple,
    RegisterResponse,
    emit,
    parse_message,
)
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    FlowPolicy,
    LeaseTime,
    RsipMethod,
    RsipTunnelType,
)
from isthmus.wire.rsip.template import Template

_DATAGRAM_OCTETS = 1200
"""A response over UDP stays below, so that it is not fragmented on any usual path (spec 2)."""
_MESSAGE_OCTETS = 0xFFFF
_METHODS: dict[MessageType, Method] = {
    MessageType.ASSIGN_REQUEST_RSA_IP: Method.RSA_IP,
    MessageType.ASSIGN_REQUEST_RSAP_IP: Method.RSAP_IP,
    MessageType.LISTEN_REQUEST: Method.RSAP_IP,
    MessageType.ASSIGN_REQUEST_RSIPSEC: Method.RSIPSEC,
    MessageType.LISTEN_REQUEST_RSIP_IKE: Method.RSIPSEC,
}
_MOST_TEMPLATES = 1024
"""Grants whose answers are remembered, for as many judgements as there are."""
_LISTENING = (MessageType.LISTEN_REQUEST, MessageType.LISTEN_REQUEST_RSIP_IKE)


class Service:
    """The handlers of one gateway."""

    def __init__(
        self, *, policy: GatewayPolicy, pool: Pool, roster: Roster, ends: TunnelEnds, ceiling: Ceiling | None
    ) -> None:
        """Put the parts together; the arguments are those of ``Gateway``."""
        self._policy = policy
        self._pool = pool
        self._roster = roster
        self._ends = ends
        self._allocator = Allocator(policy=policy, pool=pool, ceiling=ceiling)
        self._methods = tuple(
            method for method in policy.methods if method is not Method.RSIPSEC or pool.offers_spis or pool.offers_ike
        )
        self._admissions: dict[tuple[LocalPolicy, RemotePolicy, bool], Template] = {}
        self._grants: dict[tuple[Judgement | None, int, Address, Family], Template] = {}
        self.handlers: dict[MessageType, Callable[[Client, Request, Envelope], Message | bytes]] = {
            MessageType.DE_REGISTER_REQUEST: self._deregister,
            MessageType.ASSIGN_REQUEST_RSA_IP: self._grant,
            MessageType.ASSIGN_REQUEST_RSAP_IP: self._grant,
            MessageType.ASSIGN_REQUEST_RSIPSEC: self._grant,
            MessageType.LISTEN_REQUEST: self._grant,
            MessageType.LISTEN_REQUEST_RSIP_IKE: self._grant,
            MessageType.EXTEND_REQUEST: self._extend,
            MessageType.FREE_REQUEST: self._free,
            MessageType.QUERY_REQUEST: self._query,
        }
        "Every message that is served to a registered host."
        self.usual: dict[Likeness, Admission | Grant] = {}
        "How messages were granted over UDP that others may be like."
        self._for_ever = ceiling is None
        self._one_family = len({address.family for address in pool.shared_addresses}) == 1
        self._served = frozenset(kind for kind in MessageType if self._serves(kind))

    def serves(self, kind: MessageType) -> bool:
        """Whether a request is offered at all (208 if not)."""
        return kind in self._served

    def _serves(self, kind: MessageType) -> bool:
        method = _METHODS.get(kind)
        if method is not None and method not in self._methods:
            return False
        if kind in _LISTENING and not self._policy.listen:
            return False
        if kind is MessageType.LISTEN_REQUEST_RSIP_IKE:
            return self._pool.offers_ike
        if kind is MessageType.ASSIGN_REQUEST_RSIPSEC:
            return self._pool.offers_spis
        return kind is MessageType.REGISTER_REQUEST or kind in self.handlers

    def register(self, envelope: Envelope, request: Request) -> Message | bytes:
        """Admit a host, or refuse (RFC 3103 §9.2.3, §9.3); step 8 for hosts that are not registered.

        Raises:
            RemoteProtocolError: REGISTRATION_DENIED.
            MessageError: the grammar is wrong.
        """
        owner = request.peer.owner
        rule = self._policy.rule_for(owner.address)
        if rule is None or not self._ends.serves(owner.address):
            raise RemoteProtocolError(ErrorCode.REGISTRATION_DENIED, f"{owner} may not register")
        parse_message(envelope)
        seconds = self._policy.registration_lease
        client = self._roster.register(owner, rule, seconds=seconds, now=request.now)
        client.heard(request.peer, counted=request.counter is not None)
        key = rule.local_policy, rule.remote_policy, rule.ipsec
        template = None if envelope.like is None else self._admissions.get(key)
        if template is not None and request.counter is not None:
            self._learn(
                envelope, request, Admission(rule=rule, family=owner.address.family, seconds=seconds, answer=template)
            )
            return template.fill(client.client_id, request.counter)
        response = RegisterResponse(
            client_id=ClientId(client.client_id),
            lease_time=LeaseTime(seconds),
            flow_policy=FlowPolicy(local=client.local_policy, remote=client.remote_policy),
            message_counter=request.echo,
            methods=tuple(RsipMethod(method) for method in self._methods_for(owner)),
            tunnel_types=tuple(RsipTunnelType(kind) for kind in self._policy.tunnel_types),
        )
        if response.message_counter is not None and request.counter is not None:
            self._admissions[key] = Template(response, response.client_id, response.message_counter)
        return response

    def _methods_for(self, owner: Owner) -> tuple[Method, ...]:
        """What a host may have: RSIPSEC only where policy allows it IPsec (RFC 3104 §6)."""
        rule = self._policy.rule_for(owner.address)
        ipsec = rule is not None and rule.ipsec
        return tuple(method for method in self._methods if ipsec or method is not Method.RSIPSEC)

    def _deregister(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.4.3, §9.5."""
        parse_message(envelope)
        self._roster.dismiss(client, ending=Ending.FREED, now=request.now)
        return DeregisterResponse(client_id=ClientId(client.client_id), message_counter=request.echo)

    def _grant(self, client: Client, request: Request, envelope: Envelope) -> Message | bytes:
        """RFC 3103 §9.6 to §9.9, §9.16, §9.17; RFC 3104 §6.2."""
        message = parse_message(envelope)
        assert isinstance(message, Demand)
        if client.last_bind_id >= LAST_COUNTER:
            raise RemoteProtocolError(ErrorCode.UNKNOWN_ERROR, "no Bind ID is left in this registration")
        allocation = self._allocator.allocate(message, client, now=request.now)
        seconds = self._policy.lease_seconds(None if message.lease_time is None else message.lease_time.value)
        if allocation.until is not None:
            seconds = min(seconds, int(allocation.until - request.now))
        held = self._roster.bind(client, allocation, seconds=seconds, now=request.now)
        # The endpoint may be left out where it is the gateway (RFC 3103 §9.7.3); to say it is never wrong.
        endpoint = self._ends.for_host(client.owner.address)
        bind_id = held.binding.key.bind_id
        address, ports = allocation.resource.address, allocation.resource.ports
        key = allocation.alike, seconds, endpoint, address.family
        template = None if key[0] is None else self._grants.get(key)
        if template is not None and ports is not None and request.counter is not None:
            if allocation.alike is not None and self._for_ever and self._one_family:
                how = Grant(
                    judged=allocation.alike,
                    policies=(client.local_policy, client.remote_policy),
                    family=client.owner.address.family,
                    seconds=seconds,
                    answer=template,
                )
                self._learn(envelope, request, how)
            return template.fill(client.client_id, bind_id, address.octets, ports.pairs[0][0], request.counter)
        response = response_to(
            message,
            allocation,
            bind_id=BindId(bind_id),
            lease_time=LeaseTime(seconds),
            tunnel_endpoint=endpoint,
            message_counter=request.echo,
        )
        if key[0] is not None and isinstance(response, AssignResponseRsapIp) and response.message_counter is not None:
            parts = response.client_id, response.bind_id, response.local_address, response.local_ports
            if len(self._grants) >= _MOST_TEMPLATES:
                self._grants.clear()
            self._grants[key] = Template(response, *parts, response.message_counter)
        return response

    def _learn(self, envelope: Envelope, request: Request, how: Admission | Grant) -> None:
        """Take note of how a message was granted, if others may be like it."""
        if envelope.like is not None and request.udp:
            if len(self.usual) >= _MOST_TEMPLATES:
                self.usual.clear()
            self.usual[envelope.like] = how

    def _extend(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.10, §9.11; always answered, since a UDP host would ask again (spec I18)."""
        message = parse_message(envelope)
        assert isinstance(message, ExtendRequest)
        held, now = _binding(client, message.bind_id), request.now
        until = self._allocator.until(held.binding.address, now)
        if not self._may_keep(client, held) or (until is not None and until - now < 1):
            # RFC 3103 §9.10.3 lets a gateway refuse by silence or by FREE_RESPONSE; silence is no answer.
            self._roster.unbind(client, message.bind_id.value, ending=Ending.REVOKED, now=now)
            return FreeResponse(client_id=message.client_id, bind_id=message.bind_id, message_counter=request.echo)
        seconds = self._policy.lease_seconds(None if message.lease_time is None else message.lease_time.value)
        self._roster.extend(client, held, seconds=seconds, until=until, now=now)
        return ExtendResponse(
            client_id=message.client_id,
            bind_id=message.bind_id,
            lease_time=LeaseTime(int(held.expires_at - now)),
            message_counter=request.echo,
        )

    def _may_keep(self, client: Client, held: Held) -> bool:
        """Whether policy, which may have changed since, would still grant a binding to its host."""
        admitted = self._policy.rule_for(client.owner.address) is not None
        return admitted and Method(int(held.lease.method)) in self._methods_for(client.owner)

    def _free(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.12, §9.13."""
        message = parse_message(envelope)
        assert isinstance(message, FreeRequest)
        _binding(client, message.bind_id)
        self._roster.unbind(client, message.bind_id.value, ending=Ending.FREED, now=request.now)
        return FreeResponse(client_id=message.client_id, bind_id=message.bind_id, message_counter=request.echo)

    def _query(self, client: Client, request: Request, envelope: Envelope) -> Message:
        """RFC 3103 §9.14, §9.15: what is known of each item, or everything; as much as goes into the message."""
        message = parse_message(envelope)
        assert isinstance(message, QueryRequest)
        for each in message.tuples:
            if each.is_network and each.prefix is None:
                # Silent: RFC 3103 §9.14.3 names no error for a netmask with gaps, or a network with bits beyond it.
                raise RemoteProtocolError(ErrorCode.BAD_PARAM, f"{each.address} with netmask {each.netmask}")
        query = self._policy.query
        asked = (each for item in dict.fromkeys(message.tuples) for each in query.answer(item))
        response = QueryResponse(client_id=message.client_id, message_counter=request.echo)
        # Silent: RFC 3103 §9.15 does not say what a list that does not fit is cut to. The first are the most specific,
        # and what is left out counts as remote.
        room = (_DATAGRAM_OCTETS if request.udp else _MESSAGE_OCTETS) - len(emit(response))
        chosen: dict[tuple[int, str, str], QueryTuple] = {}
        for each in asked if message.tuples else query.everything():
            key = (int(each.indicator), str(each.address).lower(), str(each.netmask))
            if key in chosen:
                continue
            room -= sum(_PARAMETER_OCTETS + len(parameter.emit()) for parameter in each.parameters)
            if room < 0:
                break
            chosen[key] = each
        self._roster.note(client, ClientEvent.QUERY, now=request.now)
        return QueryResponse(client_id=message.client_id, message_counter=request.echo, tuples=tuple(chosen.values()))


_PARAMETER_OCTETS = 3
"""Type and length of a parameter (RFC 3103 §8)."""


def _binding(client: Client, bind_id: BindId) -> Held:
    """Step 11 (RFC 3103 §9.10.3, §9.12.3)."""
    held = client.bindings.get(bind_id.value)
    if held is None:
        raise RemoteProtocolError(ErrorCode.BAD_BIND_ID, f"bind ID {bind_id.value} is none of this host's")
    return held
