# SPDX-License-Identifier: BSD-3-Clause
"""The attributes of an RSIP server: the service template of RFC 3105 §7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from isthmus.wire.slp.attribute import Attribute, Attributes, get
from isthmus.wire.slp.text import fold

SERVICE_TYPE = "service:rsip"
TUNNEL_TYPE, TRANSPORT, LOAD = "tunnel-type", "transport", "load"
IPSEC, IKE = "ipsec-support", "ike-support"
TUNNEL_NAMES = {"ipip": "IP-IP", "gre": "GRE"}
"""What the template calls the tunnels of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an RSIP server says of itself."""

    ipsec: bool = False
    "It leases SPIs (RFC 3104)."
    ike: bool = False
    "It tells hosts apart by IKE's initiator cookie (RFC 3104)."
    tunnel_types: tuple[str, ...] = ("IP-IP",)
    "Of IP-IP, GRE, L2TP and NONE."
    transports: tuple[str, ...] = ("TCP",)
    "Of TCP and UDP."
    load: int | None = None
    "0 (idle) to 100; None: it does not say."

    @property
    def attributes(self) -> Attributes:
        """As an attribute list; every attribute is written, also those that have a default."""
        return (
            Attribute(IPSEC, (self.ipsec,)),
            Attribute(IKE, (self.ike,)),
            Attribute(TUNNEL_TYPE, self.tunnel_types),
            Attribute(TRANSPORT, self.transports),
            *(() if self.load is None else (Attribute(LOAD, (self.load,)),)),
        )

    @classmethod
    def of(cls, attributes: Attributes) -> Self:
        """Read an attribute list; what is missing has the template's default, what makes no sense is not said."""
        load = get(attributes, LOAD)
        first = load[0] if load else None
        return cls(
            ipsec=get(attributes, IPSEC) == (True,),
            ike=get(attributes, IKE) == (True,),
            tunnel_types=_texts(attributes, TUNNEL_TYPE, "IP-IP"),
            transports=_texts(attributes, TRANSPORT, "TCP"),
            load=first if type(first) is int and 0 <= first <= 100 else None,
        )


def _texts(attributes: Attributes, tag: str, default: str) -> tuple[str, ...]:
    values = get(attributes, tag) or ()
    return tuple(each.upper() for each in values if isinstance(each, str)) or (default,)


def predicate(
    *, tunnel_types: Sequence[str] = (), transport: str | None = None, ipsec: bool = False, ike: bool = False
) -> str:
    """Write the question for a server that one can use (RFC 3105 §7: tunnel-type belongs in a query).

    Args:
        tunnel_types: Any of these is good; none: whatever.
        transport: ``TCP`` or ``UDP``; None: whatever.
        ipsec: It must lease SPIs.
        ike: It must tell hosts apart by cookie.
    """
    terms = [_any_of(TUNNEL_TYPE, tunnel_types)]
    terms += [f"({TRANSPORT}={transport})"] if transport else []
    terms += [f"({IPSEC}=true)"] if ipsec else []
    terms += [f"({IKE}=true)"] if ike else []
    terms = [each for each in terms if each]
    return f"(&{''.join(terms)})" if len(terms) > 1 else "".join(terms)


def _any_of(tag: str, values: Sequence[str]) -> str:
    terms = "".join(f"({tag}={each})" for each in values)
    return f"(|{terms})" if len(values) > 1 else terms


def share_scope(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two lists of scopes have one in common (RFC 2608 §6.4.1)."""
    return not {fold(each) for each in ours}.isdisjoint(fold(each) for each in theirs)
