# SPDX-License-Identifier: BSD-3-Clause
"""Events of the program as the records that the reference plane makes."""

from __future__ import annotations

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.selector import Flow, Kind
from isthmus.border.verdict import Reason, Violation
from isthmus.plane.kernel.btf import Types

_REASONS = {int(reason): reason for reason in Reason}


class Reader:
    """Reads ``struct event``."""

    def __init__(self, types: Types) -> None:
        self._event = types.record("event")
        self._flags = types.enum("event_flag")

    def violation(self, record: bytes) -> Violation:
        """One event as a violation (RFC 3103 §10.4)."""
        event = self._event.unpack(record)
        number = {name: value for name, value in event.items() if isinstance(value, int)}
        octets = {name: value for name, value in event.items() if isinstance(value, bytes)}
        address = {name: Address.from_octets(value[:4]) for name, value in octets.items()}
        if number["flags"] & self._flags["EVENT_IPV6"]:
            address["owner"] = Address.from_octets(octets["owner"])
        flow = None
        if number["flags"] & self._flags["EVENT_FLOW"]:
            flow = Flow(
                realm=number["flow_realm"],
                local=address["local"],
                remote=address["remote"],
                kind=Kind(number["kind"]) if number["kind"] else None,
                value=number["value"],
                remote_port=number["remote_port"] if number["flags"] & self._flags["EVENT_REMOTE_PORT"] else None,
            )
        return Violation(
            reason=_REASONS[number["reason"]],
            owner=Owner(number["realm"], address["owner"]),
            flow=flow,
            tunnel_kind=TunnelKind(number["tunnel_kind"]),
        )
