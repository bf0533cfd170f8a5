# SPDX-License-Identifier: BSD-3-Clause
"""Effects: what a protocol wants done, and the one order it is done in.

Neither RSIP nor IPAE touches a table. Each returns these values, and a driver carries
them out::

    Register, Bind, Extend:   persist → program → answer
    Unbind, Deregister:       unprogram → persist → answer

A host never hears "yes" before its lease is durable *and* packets flow; a resource is
never leased again while old packets still flow.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.address import Address
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.value import quick

if TYPE_CHECKING:
    from isthmus.border.mapping import Mapping
    from isthmus.border.plain import Hosts, PlainLeases


class Ending(enum.StrEnum):
    """Why something ended; the history keeps it."""

    FREED = "freed"
    "By its host's FREE_REQUEST or DE-REGISTER_REQUEST."
    EXPIRED = "expired"
    "Its lease ran out."
    REVOKED = "revoked"
    "By the operator or by policy."


@quick
@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """Where a control message came from or goes to."""

    realm: int
    address: Address
    port: int
    connection: int = 0
    "0 for UDP; else the number that the driver gave to a TCP connection."

    owner: Owner = field(init=False, repr=False, compare=False)
    "The host behind it."

    def __post_init__(self) -> None:
        """Make the owner once: everything about a message begins with it."""
        object.__setattr__(self, "owner", Owner(self.realm, self.address))


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Admit a host."""

    registration: Registration


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Deregister:
    """Dismiss a host. Its bindings end by Unbind effects of their own, before this one."""

    owner: Owner
    ending: Ending


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Make a binding work."""

    binding: Binding
    lease: Lease
    renewed: bool = field(default=False, compare=False)
    "Whether it stood before and holds something else from now on."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """Move a binding's deadline."""

    key: BindingKey
    expires_at: float
    "Seconds since 1970."
    binding: Binding | None = field(default=None, compare=False, repr=False)
    "What is extended: who keeps no bindings of its own needs to be told."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Prolong:
    """Move a registration's deadline: R = max(R, Bi) (RFC 3103 §6)."""

    owner: Owner
    expires_at: float
    "Seconds since 1970."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind:
    """End a binding."""

    key: BindingKey
    ending: Ending
    binding: Binding | None = field(default=None, compare=False, repr=False)
    "What ends: who keeps no bindings of its own needs to be told."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Lapse:
    """End very many plain leases whose time is up, and registrations of hosts that hold nothing else."""

    leases: tuple[PlainLeases, ...]
    hosts: Hosts
    "Who is registered no more."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Remap:
    """Replace the whole mapping of an IPv4 realm into a SIP realm (seed IPAE 5.1).

    A mapping stands for as many bindings as it has entries, each with a ``Translate`` of its own; what is
    bound by itself comes before it.
    """

    realm: int
    "Number of the IPv4 realm."
    sip: int
    "Number of the SIP realm."
    mapping: Mapping


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Remember:
    """Keep a UDP request with its answer, in the same transaction as what it did.

    A host that hears nothing sends the same octets again; whether the gateway died
    in between or not, the copy gets this answer and nothing is done twice (RFC 3103 §10.1).
    """

    owner: Owner
    port: int
    "The host's UDP source port."
    counter: int
    "Its Message Counter."
    request: bytes
    answer: bytes


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send one control message."""

    data: bytes
    peer: Peer


Effect = Register | Deregister | Bind | Extend | Prolong | Unbind | Lapse | Remember | Send
Durable = Register | Deregister | Bind | Extend | Prolong | Unbind | Lapse | Remember


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Effects sorted into the steps that a driver takes, in this order."""

    unprogram: tuple[Unbind | Deregister | Lapse, ...]
    "Told to the plane first."
    persist: tuple[Durable, ...]
    "Told to the store, in one transaction, in the order in which they arose."
    program: tuple[Register | Bind | Extend | Prolong, ...]
    "Told to the plane next: what still stands at the end of the batch."
    answer: tuple[Send, ...]
    "Sent last."


_ENDS = (Unbind, Deregister, Lapse)


def in_order(effects: Iterable[Effect]) -> Plan:
    """Sort a batch of effects into the order of architecture 4.4.

    A batch may hold several messages' effects (group commit). What is bound and ended
    within one batch is persisted both ways, for the history, and never programmed.
    """
    unprogram: list[Unbind | Deregister | Lapse] = []
    persist: list[Durable] = []
    program: list[Register | Bind | Extend | Prolong] = []
    answer: list[Send] = []
    ended: dict[BindingKey | Owner, int] = {}
    "How much was to be programmed before it ended."
    for effect in effects:
        if isinstance(effect, Send):
            answer.append(effect)
            continue
        persist.append(effect)
        if isinstance(effect, Remember):
            continue
        if not isinstance(effect, _ENDS):
            program.append(effect)
            continue
        unprogram.append(effect)
        if isinstance(effect, Unbind):
            ended[effect.key] = len(program)
        elif isinstance(effect, Deregister):
            ended[effect.owner] = len(program)
    stands = program if not ended else [e for at, e in enumerate(program) if at >= ended.get(_subject(e), 0)]
    return Plan(unprogram=tuple(unprogram), persist=tuple(persist), program=tuple(stands), answer=tuple(answer))


def _subject(effect: Register | Bind | Extend | Prolong) -> BindingKey | Owner:
    match effect:
        case Register():
            return effect.registration.owner
        case Bind():
            return effect.binding.key
        case Extend():
            return effect.key
        case Prolong():
            return effect.owner
