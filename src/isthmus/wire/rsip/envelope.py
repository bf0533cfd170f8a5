# SPDX-License-Identifier: BSD-3-Clause
"""The outside of a message: header and parameters, before any grammar (RFC 3103 §8, §9).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------+---------------+-------------------------------+
    |    Version    | Message type  |        Overall length         |
    +---------------+---------------+-------------------------------+
    | parameters: type (8), length of the value (16), value ...

A gateway checks requests in a fixed order and must answer the first fault it finds. What
it checks about the client lies between "the octets can be read" and "the parameters are
the right ones"; hence parsing has two steps, this one and ``message.parse_message``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from isthmus.errors import Malformed, Truncated, WireError
from isthmus.value import quick
from isthmus.wire.cursor import Reader
from isthmus.wire.rsip.codes import VERSION, AddressType, ErrorCode, MessageType
from isthmus.wire.rsip.likeness import Likeness, likeness_of, remember
from isthmus.wire.rsip.parameter import (
    PARAMETERS,
    BindId,
    ClientId,
    MessageCounter,
    Parameter,
    RsipAddress,
    UnknownParameter,
    number_of,
)
from isthmus.wire.rsip.value import NumberParameter

HEADER_OCTETS = 4
_MESSAGE_TYPES = {int(member): member for member in MessageType}
_Kind: TypeAlias = type[NumberParameter]
_MOST_OCTETS = 0xFFFF
_HEADER = struct.Struct("!BBH")
_PARAMETER_HEADER = struct.Struct("!BH")
_WIDTHS = {1: "B", 2: "H", 4: "L"}


class MessageError(WireError):
    """A message that is not as it should be, with all that an ERROR_RESPONSE needs (RFC 3103 §9.1, §14).

    Args:
        code: The RSIP error to answer with: 106 or 201 to 207.
        field: The field or parameter at fault.
        at: Its offset in octets from the start of the message.
        problem: What is wrong.
        message_type: Type of the message, as far as it could be read; likewise the others.
        client_id: The first Client ID in it.
        bind_id: The first Bind ID in it.
        message_counter: The first Message Counter in it.
    """

    def __init__(
        self,
        code: ErrorCode,
        field: str,
        *,
        at: int,
        problem: str,
        message_type: int | None = None,
        client_id: int | None = None,
        bind_id: int | None = None,
        message_counter: int | None = None,
    ) -> None:
        super().__init__(field, at=at, problem=problem)
        self.code = code
        self.message_type = message_type
        self.client_id = client_id
        self.bind_id = bind_id
        self.message_counter = message_counter


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message whose parameters are read one by one and not yet judged as a whole (RFC 3103 §9)."""

    version: int = VERSION
    type: MessageType
    parameters: tuple[Parameter, ...] = ()
    "In the order of the wire, unknown ones included."
    like: Likeness | None = field(default=None, compare=False, repr=False)
    "What is known of messages like this one."

    def _first(self, kind: _Kind) -> int | None:
        for parameter in self.parameters:
            if isinstance(parameter, kind):
                return parameter.value
        return None

    @property
    def client_id(self) -> int | None:
        """The first Client ID."""
        if self.like is not None:
            return None if len(self.parameters) == 1 else self.parameters[0].value  # type: ignore[attr-defined]
        return self._first(ClientId)

    @property
    def bind_id(self) -> int | None:
        """The first Bind ID."""
        if self.like is not None:
            return self.like.bind_id
        return self._first(BindId)

    @property
    def message_counter(self) -> int | None:
        """The first Message Counter."""
        if self.like is not None:
            return self.parameters[-1].value  # type: ignore[attr-defined,no-any-return]
        return self._first(MessageCounter)

    def fault(self, code: ErrorCode, field: str, *, index: int, problem: str) -> MessageError:
        """Make the error about the parameter with that index, or about the end if there is none."""
        at = HEADER_OCTETS + sum(3 + len(parameter.emit()) for parameter in self.parameters[:index])
        return MessageError(
            code,
            field,
            at=at,
            problem=problem,
            message_type=self.type,
            client_id=self.client_id,
            bind_id=self.bind_id,
            message_counter=self.message_counter,
        )


def parse_envelope(octets: bytes, *, strict: bool = True) -> Envelope:
    """Read one whole message as far as its parameters can be read one by one (RFC 3103 §8, §9, §14).

    Faults are found in this order: header and lengths (207), version (106), type of the
    message (206), lengths of parameters (207), types of parameters (204), values (205).

    Args:
        octets: Exactly one message.
        strict: Refuse unknown types of parameters and of addresses, as a gateway must; otherwise they are kept.

    Raises:
        MessageError: the first fault in that order.
    """
    like = likeness_of(octets) if strict else None
    if like is not None:
        return Envelope(type=like.type, parameters=like.parameters_of(octets), like=like)
    reader = Reader(octets)
    try:
        version = reader.u8("Version")
        number = reader.u8("Message type")
        length = reader.u16("Overall length")
    except Truncated as error:
        raise _fault(ErrorCode.BAD_MESSAGE, octets, error.field, at=error.at, problem=error.problem) from error
    if length != len(octets) or length < HEADER_OCTETS:
        problem = f"says {length}, the message has {len(octets)} octets"
        raise _fault(ErrorCode.BAD_MESSAGE, octets, "Overall length", at=2, problem=problem)
    if version != VERSION:
        problem = f"{version}, must be {VERSION}"
        raise _fault(ErrorCode.UNSUPPORTED_RSIP_VERSION, octets, "Version", at=0, problem=problem)
    message_type = _MESSAGE_TYPES.get(number)
    if message_type is None:
        raise _fault(ErrorCode.ILLEGAL_MESSAGE, octets, "Message type", at=1, problem=f"{number} is unknown")
    try:
        items = _walk(reader)
    except Truncated as error:
        raise _fault(ErrorCode.BAD_MESSAGE, octets, error.field, at=error.at, problem=error.problem) from error
    if strict:
        for at, kind, _ in items:
            if kind not in PARAMETERS:
                raise _fault(ErrorCode.ILLEGAL_PARAM, octets, "Parameter type", at=at, problem=f"{kind} is unknown")
    parameters = tuple(_parse_parameter(item, octets, strict=strict) for item in items)
    like = remember(message_type, parameters, octets) if strict and parameters else None
    return Envelope(version=version, type=message_type, parameters=parameters, like=like)


def emit_envelope(envelope: Envelope) -> bytes:
    """Write a message (RFC 3103 §9).

    Raises:
        Malformed: the message or one of its parameters is longer than 65,535 octets.
    """
    return emit_parameters(envelope.type, envelope.parameters, version=envelope.version)


def emit_parameters(kind: MessageType, parameters: Iterable[Parameter], *, version: int = VERSION) -> bytes:
    """Write a message of this type with these parameters (RFC 3103 §9); raises what ``emit_envelope`` does."""
    pieces = [_EMITTERS[type(parameter)](parameter) for parameter in parameters]
    octets = b"".join(pieces)
    length = HEADER_OCTETS + len(octets)
    if length > _MOST_OCTETS:
        raise Malformed("Overall length", at=2, problem=f"{length} does not fit in 16 bits")
    return _HEADER.pack(version, kind, length) + octets


def _emitter(number: int, kind: type[Parameter]) -> Callable[[Any], bytes]:
    """How a parameter of one class is written: type, length, value."""
    if issubclass(kind, NumberParameter):
        width = kind.width
        pack = struct.Struct(f"!BH{_WIDTHS[width]}").pack
        return lambda parameter: pack(number, width, parameter.value)
    return lambda parameter: _emit(number, parameter)


def _emit(number: int, parameter: Parameter) -> bytes:
    value = parameter.emit()
    length = len(value)
    if length > _MOST_OCTETS:
        raise Malformed("Parameter length", at=0, problem=f"{length} does not fit in 16 bits")
    return _PARAMETER_HEADER.pack(number, length) + value


def _walk(reader: Reader) -> list[tuple[int, int, bytes]]:
    """Cut the rest of a message into (offset, type, value) without looking at values (RFC 3103 §8)."""
    items = []
    while reader.left:
        at = reader.position
        kind = reader.u8("Parameter type")
        length = reader.u16("Parameter length")
        items.append((at, kind, reader.take(length, "Parameter value")))
    return items


def _parse_parameter(item: tuple[int, int, bytes], octets: bytes, *, strict: bool) -> Parameter:
    at, kind, value = item
    known = PARAMETERS.get(kind)
    if known is None:
        return UnknownParameter(type=kind, value=value)
    try:
        parameter = known.parse(value)
    except ValueError as error:
        raise _fault(ErrorCode.BAD_PARAM, octets, known.__name__, at=at, problem=str(error)) from error
    if strict and isinstance(parameter, RsipAddress) and not isinstance(parameter.addrtype, AddressType):
        problem = f"address type {parameter.addrtype} is unknown"
        raise _fault(ErrorCode.BAD_PARAM, octets, known.__name__, at=at, problem=problem)
    return parameter


def _fault(code: ErrorCode, octets: bytes, field: str, *, at: int, problem: str) -> MessageError:
    """Make the error, with whatever identifies the message as far as it can be walked."""
    if len(octets) < 2 or octets[0] != VERSION:
        return MessageError(code, field, at=at, problem=problem)
    found: dict[int, int] = {}
    position = HEADER_OCTETS
    while position + 3 <= len(octets):
        kind, length = octets[position], int.from_bytes(octets[position + 1 : position + 3], "big")
        value = octets[position + 3 : position + 3 + length]
        if len(value) == length == 4:
            found.setdefault(kind, int.from_bytes(value, "big"))
        position += 3 + length
    return MessageError(
        code,
        field,
        at=at,
        problem=problem,
        message_type=octets[1],
        client_id=found.get(_CLIENT_ID),
        bind_id=found.get(_BIND_ID),
        message_counter=found.get(_MESSAGE_COUNTER),
    )


_CLIENT_ID, _BIND_ID, _MESSAGE_COUNTER = (number_of(kind(0)) for kind in (ClientId, BindId, MessageCounter))
_EMITTERS: dict[type[Parameter], Callable[[Any], bytes]] = {
    kind: _emitter(int(number), kind) for number, kind in PARAMETERS.items()
}
_EMITTERS[UnknownParameter] = lambda parameter: _emit(parameter.type, parameter)
