# SPDX-License-Identifier: BSD-3-Clause
"""Selectors and flows: which packets a binding speaks of.

``local`` and ``remote`` are RFC 3103's words: the borrowed parameters, and the peer's
(RFC 3103 §9.8.1). They are relative to the binding, not to the reader.

The one rule, at the gateway::

    toward the binding:  (dst, src) matches (local, remote)  → into the tunnel
    from the binding:    (src, dst) matches (local, remote)  → out; else drop, spoofed

A host is the mirror image: the same selector, the two lines swapped.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.value import quick


class Kind(enum.IntEnum):
    """What a discriminator is. The value is what the kernel plane's keys hold."""

    PORT = 1
    "A TCP or UDP port, or an ICMP identifier: a leased number is all three (RFC 3103 §8.2; RFC 3102 §6.2)."
    SPI = 2
    "An ESP or AH security parameter index (RFC 3104 §4)."
    COOKIE = 3
    """An IKE initiator cookie with UDP port 500 (RFC 3104 §6.1). Cookies are not handed out but learned: a selector
    of this kind names none, and means those that its holder is the first to use."""
    IDENTITY = 4
    "The identity of an IKE initiator that calls port 500, as a hash of 64 bits (seed RSIP 4.1; an extension)."

    @property
    def limit(self) -> int:
        """One more than the greatest value."""
        return _LIMITS[self]

    @property
    def is_learned(self) -> bool:
        """Whether a selector names no values, because the plane learns them from packets."""
        return self is Kind.COOKIE


_LIMITS = {Kind.PORT: 1 << 16, Kind.SPI: 1 << 32, Kind.COOKIE: 1 << 64, Kind.IDENTITY: 1 << 64}
_PORTS = _LIMITS[Kind.PORT]
_WORDS = {kind: kind.name.lower() for kind in Kind}


class Admit(enum.IntEnum):
    """Whom a binding hears from."""

    ANYONE = 0
    "Every peer that the remote limit allows: LISTEN (RFC 3103 §9.16.3), whole addresses."
    CONTACTED = 1
    "Only peers that its holder has written to (our reading of RFC 3102 §2)."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The limit on the peer; checked after the lookup, never part of the key (RFC 3103 §7.2)."""

    network: Prefix | None = None
    "The only addresses allowed; None: any."
    port: int | None = None
    "The only port allowed (micro-flow policy); None: any."
    admit: Admit = Admit.ANYONE
    "Whether an unknown peer may open the conversation."

    def __post_init__(self) -> None:
        """Refuse ports out of range."""
        if self.port is not None and not 0 < self.port < 1 << 16:
            raise ValueError(f"remote port {self.port} is not within 1..65535")


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What a packet says about itself, seen from the binding that it would match."""

    realm: int
    "Number of the realm that ``local`` belongs to."
    local: Address
    remote: Address
    kind: Kind | None = None
    "None where the packet has no discriminator that RSIP knows."
    value: int = 0
    "The discriminator on the local side."
    remote_port: int | None = None
    "The peer's port, where there is one."

    @property
    def text(self) -> str:
        """``149.112.240.55:10000 <> 192.156.136.22:80`` and the like."""
        local = f"{self.local}:{self.value}" if self.kind is not None else str(self.local)
        return f"{local} <> {self.remote}" + (f":{self.remote_port}" if self.remote_port is not None else "")


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """The demultiplexing fields of one binding (RFC 3103 §7.3; architecture 4.3).

    ``kind`` is None for a prefix held whole (RSA-IP is the full-length case, an IPAE site
    any other); otherwise ``values`` of one address are held and ``local`` is of full length.
    """

    realm: int
    local: Prefix
    kind: Kind | None = None
    values: Ranges = Ranges(())
    remote: Remote = Remote()
    lent: Ranges = Ranges(())
    """Ports of this lease for which another binding of the same holder stands at present: one that listens on them.
    They are in nobody's index under this selector, which may have no others."""

    def __post_init__(self) -> None:
        """Refuse selectors that no table could hold."""
        values = self.values.pairs
        if self.kind is Kind.PORT and values and values[-1][1] < _PORTS and not self.lent.pairs and self.local.whole:
            return  # what nearly all are
        if self.lent and (self.kind is not Kind.PORT or self.lent.overlaps(self.values)):
            raise ValueError(f"{self.lent} cannot be lent by a selector of {self.values or 'no values'}")
        if self.kind is None:
            if self.values:
                raise ValueError(f"{self.local} is held whole, yet values {self.values} are named")
            return
        if not self.local.whole:
            raise ValueError(f"{self.kind.name} values need one address, not {self.local}")
        if self.kind.is_learned:
            if self.values:
                raise ValueError(f"{self.kind.name} values are learned, yet {self.values} are named")
            return
        if not self.values and self.lent:
            return
        if not self.values or self.values.pairs[-1][1] >= self.kind.limit:
            raise ValueError(
                f"{self.kind.name} values {self.values or '(none)'} are not within 0..{self.kind.limit - 1}"
            )

    @property
    def address(self) -> Address:
        """The local address, or the first of the prefix."""
        return self.local.address

    def owns(self, flow: Flow) -> bool:
        """Whether the local side of a flow is this selector's; says nothing about the peer."""
        if flow.realm != self.realm or flow.local not in self.local:
            return False
        return self.kind is None or (flow.kind is self.kind and flow.value in self.values)

    def __str__(self) -> str:
        """``149.112.240.55 port 10000-10063`` or a prefix."""
        if self.kind is None:
            return str(self.local)
        return f"{self.address} {_WORDS[self.kind]} {self.values}".rstrip()
