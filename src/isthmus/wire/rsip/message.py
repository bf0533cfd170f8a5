# SPDX-License-Identifier: BSD-3-Clause
"""The 19 messages of RSIP (RFC 3103 §9; RFC 3104 §6.2), and two of ours (seed RSIP 4.1).

The order of a class's fields is the grammar of the message (see ``grammar``); it is also
the order in which a message is emitted. Optional parameters may come in any order: a
message that was parsed remembers the order it came in and is emitted that way again.

``parse`` is ``parse_envelope`` and ``parse_message`` in one; a gateway calls the two by
themselves, since what it checks about its client lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

from isthmus.wire.rsip.codes import AddressType, ErrorCode, MessageType
from isthmus.wire.rsip.envelope import Envelope, MessageError, emit_envelope, emit_parameters, parse_envelope
from isthmus.wire.rsip.grammar import Grammar, GrammarError, QueryTuple
from isthmus.wire.rsip.likeness import Likeness
from isthmus.wire.rsip.parameter import (
    BindId,
    ClientId,
    Error,
    FlowPolicy,
    IkeIdentity,
    LeaseTime,
    MessageCounter,
    Parameter,
    Ports,
    RsipAddress,
    RsipMethod,
    RsipTunnelType,
    Spi,
    UnknownParameter,
    VendorSpecific,
)

__all__ = [
    "MESSAGES",
    "AssignRequestRsaIp",
    "AssignRequestRsapIp",
    "AssignRequestRsipsec",
    "AssignResponseRsaIp",
    "AssignResponseRsapIp",
    "AssignResponseRsipsec",
    "DeregisterRequest",
    "DeregisterResponse",
    "Envelope",
    "ErrorResponse",
    "ExtendRequest",
    "ExtendResponse",
    "FreeRequest",
    "FreeResponse",
    "ListenRequest",
    "ListenRequestRsipIke",
    "ListenResponse",
    "ListenResponseRsipIke",
    "Message",
    "MessageError",
    "QueryRequest",
    "QueryResponse",
    "QueryTuple",
    "RegisterRequest",
    "RegisterResponse",
    "emit",
    "emit_envelope",
    "parameters",
    "parse",
    "parse_envelope",
    "parse_message",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Any message, and what any message may have after its own parameters."""

    type: ClassVar[MessageType]

    vendor: tuple[VendorSpecific, ...] = ()
    # Silent: no grammar of RFC 3103 names Vendor Specific; it is taken as optional and repeatable everywhere.
    unknown: tuple[UnknownParameter, ...] = ()
    order: tuple[int, ...] = field(default=(), compare=False, repr=False)
    "Types of the optional parameters as they came, 0 for an unknown one; any others follow in order of fields."
    like: Likeness | None = field(default=None, init=False, compare=False, repr=False)
    "What it was read with has in common with others, for who would judge all of them at once."
    message_counter: MessageCounter | None = None
    "Required over UDP (RFC 3103 §10.1)."

    def __post_init__(self) -> None:
        """Refuse addresses and ports of a form that has no meaning where it stands (RFC 3103 §8.1; RFC 3104 §6.2)."""
        for name in ("local_address", "remote_address", "tunnel_endpoint"):
            address: RsipAddress | None = getattr(self, name, None)
            if address is None:
                continue
            if address.addrtype == AddressType.IPV4_NETMASK:
                raise ValueError(f"{name} is a netmask")
            if address.addrtype == AddressType.FQDN and name == "local_address":
                raise ValueError("local_address is a name")
        for name in ("local_ports", "remote_ports"):
            ports: Ports | None = getattr(self, name, None)
            if ports is not None and ports.dont_need and not hasattr(self, "spi"):
                raise ValueError(f'{name} is "don\'t need" in a message without SPIs')


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse(Message):
    """ERROR_RESPONSE: a request is refused, or something went wrong by itself (RFC 3103 §9.1)."""

    type: ClassVar[MessageType] = MessageType.ERROR_RESPONSE

    error: Error
    message_counter: MessageCounter | None = None
    client_id: ClientId | None = None
    bind_id: BindId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest(Message):
    """REGISTER_REQUEST: a host asks to be a client (RFC 3103 §9.2)."""

    type: ClassVar[MessageType] = MessageType.REGISTER_REQUEST

    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterResponse(Message):
    """REGISTER_RESPONSE: the host is a client from now on (RFC 3103 §9.3)."""

    type: ClassVar[MessageType] = MessageType.REGISTER_RESPONSE

    client_id: ClientId
    lease_time: LeaseTime
    flow_policy: FlowPolicy
    message_counter: MessageCounter | None = None
    methods: tuple[RsipMethod, ...] = ()
    tunnel_types: tuple[RsipTunnelType, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeregisterRequest(Message):
    """DE-REGISTER_REQUEST: a host gives up everything (RFC 3103 §9.4)."""

    type: ClassVar[MessageType] = MessageType.DE_REGISTER_REQUEST

    client_id: ClientId
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeregisterResponse(Message):
    """DE-REGISTER_RESPONSE: the host is no client any more; may come unasked (RFC 3103 §9.5)."""

    type: ClassVar[MessageType] = MessageType.DE_REGISTER_RESPONSE

    client_id: ClientId
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRequestRsaIp(Message):
    """ASSIGN_REQUEST_RSA-IP: a host asks for an address of its own (RFC 3103 §9.6)."""

    type: ClassVar[MessageType] = MessageType.ASSIGN_REQUEST_RSA_IP

    client_id: ClientId
    local_address: RsipAddress
    remote_address: RsipAddress
    remote_ports: Ports
    message_counter: MessageCounter | None = None
    lease_time: LeaseTime | None = None
    tunnel_type: RsipTunnelType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignResponseRsaIp(Message):
    """ASSIGN_RESPONSE_RSA-IP: an address is leased (RFC 3103 §9.7)."""

    type: ClassVar[MessageType] = MessageType.ASSIGN_RESPONSE_RSA_IP

    client_id: ClientId
    bind_id: BindId
    local_address: RsipAddress
    remote_address: RsipAddress
    remote_ports: Ports
    lease_time: LeaseTime
    tunnel_type: RsipTunnelType
    tunnel_endpoint: RsipAddress | None = None
    "The other end of the tunnel, where it is not the gateway itself."
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRequestRsapIp(Message):
    """ASSIGN_REQUEST_RSAP-IP: a host asks for ports of an address (RFC 3103 §9.8)."""

    type: ClassVar[MessageType] = MessageType.ASSIGN_REQUEST_RSAP_IP

    client_id: ClientId
    local_address: RsipAddress
    local_ports: Ports
    remote_address: RsipAddress
    remote_ports: Ports
    message_counter: MessageCounter | None = None
    lease_time: LeaseTime | None = None
    tunnel_type: RsipTunnelType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignResponseRsapIp(Message):
    """ASSIGN_RESPONSE_RSAP-IP: ports of an address are leased (RFC 3103 §9.9)."""

    type: ClassVar[MessageType] = MessageType.ASSIGN_RESPONSE_RSAP_IP

    client_id: ClientId
    bind_id: BindId
    local_address: RsipAddress
    local_ports: Ports
    remote_address: RsipAddress
    remote_ports: Ports
    lease_time: LeaseTime
    tunnel_type: RsipTunnelType
    tunnel_endpoint: RsipAddress | None = None
    "The other end of the tunnel, where it is not the gateway itself."
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendRequest(Message):
    """EXTEND_REQUEST: a host asks for more time (RFC 3103 §9.10)."""

    type: ClassVar[MessageType] = MessageType.EXTEND_REQUEST

    client_id: ClientId
    bind_id: BindId
    lease_time: LeaseTime | None = None
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendResponse(Message):
    """EXTEND_RESPONSE: a lease lasts longer (RFC 3103 §9.11)."""

    type: ClassVar[MessageType] = MessageType.EXTEND_RESPONSE

    client_id: ClientId
    bind_id: BindId
    lease_time: LeaseTime
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeRequest(Message):
    """FREE_REQUEST: a host gives a binding back (RFC 3103 §9.12)."""

    type: ClassVar[MessageType] = MessageType.FREE_REQUEST

    client_id: ClientId
    bind_id: BindId
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeResponse(Message):
    """FREE_RESPONSE: a binding is gone; may come unasked (RFC 3103 §9.13)."""

    type: ClassVar[MessageType] = MessageType.FREE_RESPONSE

    client_id: ClientId
    bind_id: BindId
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest(Message):
    """QUERY_REQUEST: a host asks what is local (RFC 3103 §9.14)."""

    type: ClassVar[MessageType] = MessageType.QUERY_REQUEST

    client_id: ClientId
    message_counter: MessageCounter | None = None
    tuples: tuple[QueryTuple, ...] = ()
    "Nothing means: everything that the gateway is willing to tell."

    def __post_init__(self) -> None:
        """Refuse tuples that say where something is: that is the question."""
        if not all(query.is_local for query in self.tuples):
            raise ValueError("a query says what is remote")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResponse(Message):
    """QUERY_RESPONSE: what is local and what is remote (RFC 3103 §9.15)."""

    type: ClassVar[MessageType] = MessageType.QUERY_RESPONSE

    client_id: ClientId
    message_counter: MessageCounter | None = None
    tuples: tuple[QueryTuple, ...] = ()
    "What is not in here counts as remote."


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenRequest(Message):
    """LISTEN_REQUEST: a host asks to serve on an address and ports (RFC 3103 §9.16)."""

    type: ClassVar[MessageType] = MessageType.LISTEN_REQUEST

    client_id: ClientId
    local_address: RsipAddress
    local_ports: Ports
    remote_address: RsipAddress
    remote_ports: Ports
    message_counter: MessageCounter | None = None
    lease_time: LeaseTime | None = None
    tunnel_types: tuple[RsipTunnelType, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenResponse(Message):
    """LISTEN_RESPONSE: all packets to an address and ports go to the host (RFC 3103 §9.17)."""

    type: ClassVar[MessageType] = MessageType.LISTEN_RESPONSE

    client_id: ClientId
    bind_id: BindId
    local_address: RsipAddress
    local_ports: Ports
    remote_address: RsipAddress
    remote_ports: Ports
    # Tunnel Type stands before Lease Time here, and after it in all other responses.
    tunnel_type: RsipTunnelType
    lease_time: LeaseTime
    tunnel_endpoint: RsipAddress | None = None
    "The other end of the tunnel, where it is not the gateway itself."
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRequestRsipsec(Message):
    """ASSIGN_REQUEST_RSIPSEC: a host asks for SPIs of an address (RFC 3104 §6.2)."""

    type: ClassVar[MessageType] = MessageType.ASSIGN_REQUEST_RSIPSEC

    client_id: ClientId
    local_address: RsipAddress
    local_ports: Ports
    remote_address: RsipAddress
    remote_ports: Ports
    spi: Spi
    message_counter: MessageCounter | None = None
    lease_time: LeaseTime | None = None
    tunnel_type: RsipTunnelType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignResponseRsipsec(Message):
    """ASSIGN_RESPONSE_RSIPSEC: SPIs of an address are leased (RFC 3104 §6.2)."""

    type: ClassVar[MessageType] = MessageType.ASSIGN_RESPONSE_RSIPSEC

    client_id: ClientId
    bind_id: BindId
    local_address: RsipAddress
    local_ports: Ports
    remote_address: RsipAddress
    remote_ports: Ports
    spi: Spi
    lease_time: LeaseTime
    tunnel_type: RsipTunnelType
    tunnel_endpoint: RsipAddress | None = None
    "The other end of the tunnel, where it is not the gateway itself."
    message_counter: MessageCounter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenRequestRsipIke(Message):
    """LISTEN_REQUEST_RSIP_IKE, ours: a host asks for the IKE of one initiator who calls port 500 (seed RSIP 4.1).

    The grammar of LISTEN_REQUEST, with the initiator's identity in place of the local ports.
    """

    type: ClassVar[MessageType] = MessageType.LISTEN_REQUEST_RSIP_IKE

    client_id: ClientId
    local_address: RsipAddress
    ike_identity: IkeIdentity
    remote_address: RsipAddress
    remote_ports: Ports
    message_counter: MessageCounter | None = None
    lease_time: LeaseTime | None = None
    tunnel_types: tuple[RsipTunnelType, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenResponseRsipIke(Message):
    """LISTEN_RESPONSE_RSIP_IKE, ours: the IKE of that initiator to port 500 of an address goes to the host."""

    type: ClassVar[MessageType] = MessageType.LISTEN_RESPONSE_RSIP_IKE

    client_id: ClientId
    bind_id: BindId
    local_address: RsipAddress
    ike_identity: IkeIdentity
    remote_address: RsipAddress
    remote_ports: Ports
    tunnel_type: RsipTunnelType
    lease_time: LeaseTime
    tunnel_endpoint: RsipAddress | None = None
    "The other end of the tunnel, where it is not the gateway itself."
    message_counter: MessageCounter | None = None


MESSAGES: dict[MessageType, type[Message]] = {
    message.type: message
    for message in (
        ErrorResponse,
        RegisterRequest,
        RegisterResponse,
        DeregisterRequest,
        DeregisterResponse,
        AssignRequestRsaIp,
        AssignResponseRsaIp,
        AssignRequestRsapIp,
        AssignResponseRsapIp,
        ExtendRequest,
        ExtendResponse,
        FreeRequest,
        FreeResponse,
        QueryRequest,
        QueryResponse,
        ListenRequest,
        ListenResponse,
        AssignRequestRsipsec,
        AssignResponseRsipsec,
        ListenRequestRsipIke,
        ListenResponseRsipIke,
    )
}
"""Which type is which class; there is no other list (RFC 3103 §9; RFC 3104 §6.2; 241 and 242 are ours)."""

_GRAMMARS = {
    kind: Grammar(message, last=("vendor", "unknown"), skip=("order", "like")) for kind, message in MESSAGES.items()
}


def parse_message(envelope: Envelope) -> Message:
    """Judge the parameters of a message as a whole (RFC 3103 §9, §14).

    Faults are found in this order: duplicate (202), extra (203), missing (201), wrong order
    of required parameters (207), values that have no meaning where they stand (205).

    Raises:
        MessageError: the first fault in that order.
    """
    like = envelope.like
    if like is not None and (known := like.message_of(envelope.parameters)) is not None:
        return cast("Message", known)
    try:
        values, order = _GRAMMARS[envelope.type].read(envelope.parameters)
    except GrammarError as error:
        raise envelope.fault(error.code, error.field, index=error.index, problem=error.problem) from error
    try:
        message = MESSAGES[envelope.type](**values, order=order)
    except ValueError as error:
        raise envelope.fault(ErrorCode.BAD_PARAM, "parameters", index=0, problem=str(error)) from error
    if like is not None:
        object.__setattr__(message, "like", like)
        like.learn(message)
    return message


def parse(octets: bytes, *, strict: bool = True) -> Message:
    """Read one whole message.

    Args:
        octets: Exactly one message.
        strict: Refuse unknown types of parameters and of addresses, as a gateway must; otherwise they are kept.

    Raises:
        MessageError: it is not one.
    """
    return parse_message(parse_envelope(octets, strict=strict))


def parameters(message: Message) -> tuple[Parameter, ...]:
    """Give the parameters of a message in the order of the wire."""
    return _GRAMMARS[message.type].write(message, message.order)


def emit(message: Message) -> bytes:
    """Write a message; a message that was parsed gives the octets it came from.

    Raises:
        Malformed: the message is longer than 65,535 octets.
    """
    return emit_parameters(message.type, parameters(message))
