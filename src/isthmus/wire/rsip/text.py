# SPDX-License-Identifier: BSD-3-Clause
"""RSIP messages for people and for JSON (RFC 3103 §9; RFC 3104 §6.2). Nothing here raises."""

from __future__ import annotations

from typing import Any

from isthmus.errors import WireError
from isthmus.wire.rsip import message as rsip
from isthmus.wire.rsip.codes import ErrorCode, LocalPolicy, MessageType, RemotePolicy, known
from isthmus.wire.rsip.parameter import (
    Error,
    FlowPolicy,
    IkeIdentity,
    Indicator,
    Parameter,
    UnknownParameter,
    VendorSpecific,
)

_NAMES = {
    "RsipAddress": "address",
    "Ports": "ports",
    "LeaseTime": "lease_time",
    "ClientId": "client_id",
    "BindId": "bind_id",
    "RsipTunnelType": "tunnel_type",
    "RsipMethod": "rsip_method",
    "Error": "error",
    "FlowPolicy": "flow_policy",
    "Indicator": "indicator",
    "MessageCounter": "message_counter",
    "VendorSpecific": "vendor_specific",
    "Spi": "spi",
    "IkeIdentity": "ike_identity",
    "UnknownParameter": "unknown",
}


def describe(octets: bytes) -> dict[str, Any]:
    """Describe one message; what cannot be read is described as an error.

    The dictionary holds numbers, texts, lists and dictionaries only. Parameters are in the order of the
    wire; an ``error`` beside them says that they do not make a message.
    """
    layer: dict[str, Any] = {"layer": "rsip", "length": len(octets)}
    try:
        envelope = rsip.parse_envelope(octets, strict=False)
    except WireError as error:
        if isinstance(error, rsip.MessageError) and error.message_type is not None:
            layer["type"] = _name(known(MessageType, error.message_type))
        return layer | {"error": _problem(error), "octets": octets.hex()}
    layer["version"] = envelope.version
    layer["type"] = envelope.type.name
    layer["parameters"] = [_parameter(parameter) for parameter in envelope.parameters]
    try:
        rsip.parse_message(envelope)
    except WireError as error:
        layer["error"] = _problem(error)
    return layer


def summary(layer: dict[str, Any]) -> str:
    """Put what ``describe`` gave on one line."""
    words = [f"RSIP {layer.get('type', 'message')}"]
    for parameter in layer.get("parameters", ()):
        name = str(parameter["parameter"]).replace("_", " ")
        words.append(f"{name} {parameter['text']}")
    if "error" in layer:
        words.append(f"[{layer['error']}]")
    return words[0] + (" " + ", ".join(words[1:]) if len(words) > 1 else "")


def _problem(error: WireError) -> str:
    return f"{error.code.name}: {error}" if isinstance(error, rsip.MessageError) else str(error)


def _name(code: int) -> str:
    return str(getattr(code, "name", int(code)))


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {"parameter": _NAMES[type(parameter).__name__], "text": _text(parameter), "value": parameter.emit().hex()}


def _text(parameter: Parameter) -> str:
    match parameter:
        case FlowPolicy(local=local, remote=remote):
            return f"local {_name(known(LocalPolicy, local))} remote {_name(known(RemotePolicy, remote))}"
        case Indicator(value=value):
            return _name(value)
        case Error(value=value):
            return f"{int(value)} {value.name}" if isinstance(value, ErrorCode) else str(value)
        case VendorSpecific(vendor_id=vendor_id, subtype=subtype, value=octets):
            return f"vendor {vendor_id} subtype {subtype} {octets.hex()}".rstrip()
        case IkeIdentity(kind=kind, data=octets):
            readable = octets.isascii() and octets.decode("ascii").isprintable()
            return f"type {kind} {octets.decode('ascii') if readable else octets.hex()}"
        case UnknownParameter(type=kind, value=octets):
            return f"type {kind} {octets.hex()}".rstrip()
        case _:
            return str(parameter)
