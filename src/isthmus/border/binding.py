# SPDX-License-Identifier: BSD-3-Clause
"""Bindings and leases: what is held, by whom, and for how long."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import NamedTuple

from isthmus.address import Address
from isthmus.border.crossing import Crossing, Tunnel
from isthmus.border.selector import Selector
from isthmus.value import quick

FOREVER = math.inf
"""The deadline of a binding that configuration made, not a lease."""


class Method(enum.IntEnum):
    """How a lease was asked for, by RSIP's method numbers (RFC 3103 §8.7, RFC 3104 §6)."""

    RSA_IP = 1
    RSAP_IP = 2
    RSIPSEC = 3


class Owner(NamedTuple):
    """The far end of tunnels: who may hold bindings here.

    RSIP knows a host by its private address alone (RFC 3103 §11); at a host it is the gateway.
    """

    realm: int
    "Number of the near realm."
    address: Address

    def __str__(self) -> str:
        """The address."""
        return str(self.address)


class BindingKey(NamedTuple):
    """Names one binding: a bind ID is unique per host, not per gateway (RFC 3103 §8.5)."""

    owner: Owner
    bind_id: int

    def __str__(self) -> str:
        """``10.0.0.4#1``."""
        return f"{self.owner}#{self.bind_id}"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Packets matching one of these selectors cross by this tunnel, or another way."""

    key: BindingKey
    selectors: tuple[Selector, ...]
    "One, except where a lease holds ports *and* SPIs of its address (RFC 3104 §6.2)."
    crossing: Crossing
    device: str | None = None
    "At a host: the interface that delivers to the programs using this binding."

    def __post_init__(self) -> None:
        """Refuse bindings that select nothing, or in several places."""
        if not self.selectors:
            raise ValueError(f"binding {self.key} selects nothing")
        if len(self.selectors) == 1:
            return
        if len({(each.realm, each.local) for each in self.selectors}) > 1:
            raise ValueError(f"binding {self.key} selects from several addresses")
        if sum(each.kind is None for each in self.selectors) > 1:
            raise ValueError(f"binding {self.key} selects {self.selectors[0].local} twice")

    @property
    def tunnel(self) -> Tunnel:
        """The tunnel that a leased binding crosses by.

        Raises:
            TypeError: it crosses otherwise, which no lease does.
        """
        if not isinstance(self.crossing, Tunnel):
            raise TypeError(f"binding {self.key} is not leased: it crosses by {type(self.crossing).__name__}")
        return self.crossing

    @property
    def realm(self) -> int:
        """Number of the realm that the selectors belong to."""
        return self.selectors[0].realm

    @property
    def address(self) -> Address:
        """The local address, or the first of the prefix."""
        return self.selectors[0].address


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """For whom and how long a binding is held (RFC 3103 §6)."""

    client_id: int
    method: Method
    granted_at: float
    "Seconds since 1970, when it was first granted."
    expires_at: float
    "Seconds since 1970; FOREVER for what is not leased."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One host that may hold bindings (RFC 3103 §6, §9.3)."""

    owner: Owner
    client_id: int
    expires_at: float
    "R: never before the last of its bindings ends (RFC 3103 §6)."
    local_policy: int = 1
    "RFC 3103 §8.9: 1 macro, 2 micro."
    remote_policy: int = 3
    "RFC 3103 §8.9: 1 macro, 2 micro, 3 none."
    last_bind_id: int = 0
    "The highest Bind ID given in this registration; a store raises it with every Bind."
