# SPDX-License-Identifier: BSD-3-Clause
"""What a ``Host`` tells the program that it works for.

``request`` is the number that the asking method returned; 0 where the host acted by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from isthmus.address import Address, Prefix
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending
from isthmus.border.ranges import Ranges
from isthmus.wire.rsip.codes import ErrorCode, LocalPolicy, RemotePolicy, TunnelType
from isthmus.wire.rsip.codes import Method as WireMethod
from isthmus.wire.rsip.message import QueryResponse, RegisterResponse


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
    "None: the whole address, and none where SPIs or an identity are held."
    remote_address: Address | None
    "The only peer allowed; None: any."
    remote_port: int | None
    tunnel_endpoint: Address
    "Where tunnelled packets go: the gateway, or who it names."
    tunnel_kind: TunnelKind
    expires_at: float
    "Seconds since 1970, counted from when the request was sent; the host renews by itself before."
    spis: Ranges | None = None
    "What security associations toward this host may be called (RFC 3104 §6.2)."
    ike: bool = False
    "Whether port 500 may be tried, told apart by initiator cookies (RFC 3104 §6.1)."
    listens: bool = False
    "Whether peers that were never written to are heard (RFC 3103 §9.16.3)."
    identity: int | None = None
    "``identity_value`` of the initiator whose IKE comes here (seed RSIP 4.1)."

    @property
    def whole(self) -> bool:
        """Whether the address is held whole."""
        return self.method is Method.RSA_IP


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """A binding lasts longer (RFC 3103 §9.11)."""

    request: int
    bind_id: int
    expires_at: float
    "Seconds since 1970."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is, as a gateway says it (RFC 3103 §9.15)."""

    what: Address | Prefix | str
    "An address, an IPv4 network or a name."
    is_local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A query was answered (RFC 3103 §9.15)."""

    request: int
    places: tuple[Place, ...]
    "In the order of the response, which means nothing; a gateway may say more than it was asked."

    @classmethod
    def by(cls, message: QueryResponse, *, request: int) -> Self:
        """What a QUERY_RESPONSE says; a tuple that cannot be understood is left out."""
        places = []
        for each in message.tuples:
            what = each.address.name or (each.prefix if each.is_network else each.address.address)
            if what is not None:
                places.append(Place(what=what, is_local=each.is_local))
        return cls(request=request, places=tuple(places))

    def is_local(self, what: Address | Prefix | str) -> bool:
        """Whether something is local: its own tuple decides, else the longest network around it.

        Silence means remote (RFC 3103 §9.15.3). Names have no networks around them.
        """
        own = [each.is_local for each in self.places if _same(each.what, what)]
        if own or isinstance(what, str):
            return bool(own) and own[0]
        prefix = what if isinstance(what, Prefix) else Prefix.of(what)
        around = [each for each in self.places if isinstance(each.what, Prefix) and each.what.covers(prefix)]
        return bool(around) and max(around, key=_length).is_local


def _same(one: Address | Prefix | str, other: Address | Prefix | str) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.rstrip(".").lower() == other.rstrip(".").lower()
    return one == other


def _length(place: Place) -> int:
    return place.what.length if isinstance(place.what, Prefix) else -1


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


Event = Registered | Assigned | Extended | Answered | Freed | Lost | Refused | Deregistered | Warned
