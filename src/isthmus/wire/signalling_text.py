# SPDX-License-Identifier: BSD-3-Clause
"""What IKE, SLP and IGMP say, as layers of ``text``; a layer's ``text`` is its short form.

Every function may raise WireError; ``text`` makes a layer with an ``error`` of it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from isthmus.address import Address
from isthmus.errors import Malformed
from isthmus.wire import igmp, ike
from isthmus.wire.slp import message as slp

_IKE_EXCHANGES = {
    2: "MAIN_MODE", 4: "AGGRESSIVE", 5: "INFORMATIONAL", 32: "QUICK_MODE",
    34: "IKE_SA_INIT", 35: "IKE_AUTH", 36: "CREATE_CHILD_SA", 37: "INFORMATIONAL",
}  # fmt: skip
"""RFC 2408 §3.1, RFC 2409 appendix A, RFC 7296 §3.1."""


def describe_ike(octets: bytes) -> dict[str, Any]:
    """Describe an IKE message by its header, and by the identity that opens an aggressive mode (RFC 2408 §3.1)."""
    header = ike.IkeHeader.parse(octets)
    layer: dict[str, Any] = {
        "layer": "ike",
        "version": header.major_version,
        "exchange": _IKE_EXCHANGES.get(header.exchange_type, header.exchange_type),
        "initiator_cookie": header.initiator_cookie.hex(),
        "responder_cookie": header.responder_cookie.hex(),
        "message_id": header.message_id,
        "length": header.length,
    }
    identity = ike.opening_identity(octets)
    if identity is not None:
        layer["identity"] = f"type {identity[0]} {identity[1].decode('latin-1')}"
    cookies = f"{layer['initiator_cookie']}:{layer['responder_cookie']}"
    who = f" identity {layer['identity']}" if identity is not None else ""
    return layer | {"text": f"IKE v{layer['version']} {layer['exchange']} cookies {cookies}{who}"}


def describe_slp(octets: bytes) -> dict[str, Any]:
    """Describe an SLPv2 message (RFC 2608 §8)."""
    found = slp.parse(octets)
    layer: dict[str, Any] = {"layer": "slp", "function": found.body.function.name, "xid": found.xid}
    words = [f"SLP {layer['function']} xid {found.xid}"]
    for each in fields(found.body):
        value = _plain(getattr(found.body, each.name))
        layer[each.name] = value
        if value not in ("", None, 0) and value != []:
            words.append(f"{each.name} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return layer | {"text": " ".join(words)}


def describe_igmp(octets: bytes) -> dict[str, Any]:
    """Describe an IGMP message (RFC 3376 §4); a query has no groups that somebody joins or leaves."""
    if not octets:
        raise Malformed("type", at=0, problem="is not there")
    members = [f"{'join' if each.wanted else 'leave'} {each.group}" for each in igmp.parse(octets)]
    layer = {"layer": "igmp", "type": octets[0], "length": len(octets), "members": members}
    return layer | {"text": " ".join([f"IGMP type {octets[0]:#04x}", ", ".join(members)]).rstrip()}


def _plain(value: object) -> Any:
    """A field of an SLP message in what JSON has."""
    if isinstance(value, tuple) and not isinstance(value, Address):
        return [_plain(each) for each in value]
    if isinstance(value, slp.UrlEntry):
        return f"{value.url} ({value.lifetime} s)"
    return value if isinstance(value, str | int | None) else str(value)
