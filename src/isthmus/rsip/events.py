# SPDX-License-Identifier: BSD-3-Clause
"""What a ``Host`` tells the program that it works for.

``request`` is the number that the asking method returned; 0 where the host acted by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from isthmus.address import Address
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending
from isthmus.border.ranges import Ranges
from isthmus.wire.rsip.codes import ErrorCode, LocalPolicy, RemotePolicy, TunnelType
from isthmus.wire.rsip.codes import Method as WireMethod
from isthmus.wire.rsip.message import RegisterResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The gateway knows this host (RFC 3103 §9.3)."""

    request: int
    client_id: int
    expires_at: float
    "Seconds since 1970; later with every binding (RFC 3103 §6)."
    local_policy: LocalPolicy | int
    remote_policy: RemotePolicy | int
    methods: tuple[WireMethod | int, ...]
    "Empty: the gateway did not say, which means RSAP-IP (RFC 3103 §9.3.3)."
    tunnel_types: tuple[TunnelType | int, ...]
    "Empty: the gateway did not say, which means IP-IP."

    @classmethod
    def by(cls, message: RegisterResponse, *, request: int, expires_at: float) -> Self:
        """What a REGISTER_RESPONSE says."""
        return cls(
            request=request,
            client_id=message.client_id.value,
            expires_at=expires_at,
            local_policy=message.flow_policy.local,
            remote_policy=message.flow_policy.remote,
            methods=tuple(each.value for each in message.methods),
            tunnel_types=tuple(each.value for each in message.tunnel_types),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The host holds a binding and may use it (RFC 3103 §9.7, §9.9)."""

    request: int
    bind_id: int
    method: Method
    address: Address
    ports: Ranges | None
    "None: the whole address."
    remote_address: Address | None
    "The only peer allowed; None: any."
    remote_port: int | None
    tunnel_endpoint: Address
    "Where tunnelled packets go: the gateway, or who it names."
    tunnel_kind: TunnelKind
    expires_at: float
    "Seconds since 1970, counted from when the request was sent; the host renews by itself before."


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """A binding lasts longer (RFC 3103 §9.11)."""

    request: int
    bind_id: int
    expires_at: float
    "Seconds since 1970."


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A binding is over: stop using it now (RFC 3103 §9.13)."""

    bind_id: int
    ending: Ending
    "FREED as asked, REVOKED by the gateway, EXPIRED by our own timer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The gateway has forgotten a binding: stop using it now. A host told to ``keep`` asks for the same again."""

    request: int
    "The request that it came from; a new Assigned with this number may follow."
    bind_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request came to nothing."""

    request: int
    code: ErrorCode | int | None
    "The RSIP error; None: no answer, or one that was not what had been asked for."
    problem: str
    "In words."


@dataclass(frozen=True, slots=True, kw_only=True)
class Deregistered:
    """The host is not registered any more, and holds nothing (RFC 3103 §9.5)."""

    ending: Ending
    "FREED as asked, REVOKED by the gateway, EXPIRED by our own timer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """The gateway complains about packets of this host, or about itself (RFC 3103 §10.4)."""

    code: ErrorCode | int
    bind_id: int | None


Event = Registered | Assigned | Extended | Freed | Lost | Refused | Deregistered | Warned
