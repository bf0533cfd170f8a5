# SPDX-License-Identifier: BSD-3-Clause
"""By which binding a packet goes (RFC 3102 §3.2; RFC 3103 §7.3; RFC 3104 §4, §6.1).

Most packets say so themselves: the local side has a port, an identifier, or the SPI by which
its holder receives. Three kinds do not:

==============================  =================================================================
packet                          goes by
==============================  =================================================================
ESP and AH that a host sends    its sender, who holds some SPI of the address: the SPI is the peer's
an error about those            who sent by that SPI to that peer before (``path``)
UDP with local port 500         the initiator cookie, where cookies are learned (``ike``)
==============================  =================================================================

Each function answers with what was found, with None, or with the reason of a drop.
"""

from __future__ import annotations

from dataclasses import replace

from isthmus.border.binding import Owner
from isthmus.border.selector import Flow, Kind
from isthmus.border.verdict import Reason
from isthmus.plane.reference import ike, lookup
from isthmus.plane.reference.classify import Ends, Side
from isthmus.plane.reference.lookup import Found
from isthmus.plane.reference.memory import Memory

Finding = Found | Reason | None


def toward_binding(known: Memory, both: Ends, flow: Flow, *, now: float) -> Finding:
    """Find the binding that a gateway takes a packet from outside to, or one from another host (RFC 3102 §3.2)."""
    if both.is_sealed and both.quoted:
        return _by_path(known, both, flow)
    found = lookup.by_value(known.table, flow)
    if found is None and _is_learned(known, both, flow, Side.DESTINATION):
        return _quoted_cookie(known, both, flow, now) if both.quoted else _calling_cookie(known, both, flow, now)
    return found


def from_host(known: Memory, both: Ends, flow: Flow, sender: Owner, *, now: float) -> Finding:
    """Find the binding by which a host sends through its gateway (RFC 3102 §2; RFC 3104 §4)."""
    if both.is_sealed and not both.quoted:
        return lookup.by_holder(known.table, flow, Kind.SPI, sender)
    found = lookup.by_value(known.table, flow)
    if found is None and _is_learned(known, both, flow, Side.SOURCE):
        return _quoted_cookie(known, both, flow, now) if both.quoted else _sent_cookie(known, both, flow, sender, now)
    return found


def from_program(known: Memory, both: Ends, flow: Flow) -> Finding:
    """Find the binding by which a host's program sends: that of whichever gateway it was leased from."""
    learned = _is_learned(known, both, flow, Side.SOURCE)
    sealed = both.is_sealed and not both.quoted
    found = None if sealed else lookup.by_value(known.table, flow)
    if found is not None or not (sealed or learned):
        return found
    for gateway in known.bound.owners(flow.realm, flow.local):
        found = lookup.by_holder(known.table, flow, Kind.SPI if sealed else Kind.COOKIE, gateway)
        if found is not None:
            break
    return _whole_cookie(found, both) if learned else found


def toward_program(known: Memory, both: Ends, flow: Flow, gateway: Owner) -> Finding:
    """Find the binding by which a gateway's packet is a host's (RFC 3102 §3.1)."""
    if both.is_sealed and both.quoted:
        return lookup.by_holder(known.table, flow, Kind.SPI, gateway)
    found = lookup.by_value(known.table, flow)
    if found is None and _is_learned(known, both, flow, Side.DESTINATION):
        return _whole_cookie(lookup.by_holder(known.table, flow, Kind.COOKIE, gateway), both)
    return found


def _by_path(known: Memory, both: Ends, flow: Flow) -> Found | None:
    """An error about ESP or AH goes to who has sent it (RFC 3102 §6.2)."""
    # Silent: RFC 3104 says nothing of errors about ESP and AH, which quote the peer's SPI and not the leased one.
    sender = known.paths.owner(flow.local, flow.remote, both.protocol, flow.value, realm=flow.realm)
    if sender is None:
        # An address that is held whole has one holder only, whoever sent what.
        return lookup.by_value(known.table, replace(flow, kind=None, value=0))
    return lookup.by_holder(known.table, flow, Kind.SPI, sender)


def _is_learned(known: Memory, both: Ends, flow: Flow, local: Side) -> bool:
    return ike.concerns(both, local) and known.table.learns(flow.realm, flow.local, Kind.COOKIE)


def _whole_cookie(found: Found | None, both: Ends) -> Finding:
    if found is not None and not both.quoted and ike.cookie_of(both) is None:
        return Reason.MALFORMED
    return found


def _sent_cookie(known: Memory, both: Ends, flow: Flow, sender: Owner, now: float) -> Finding:
    """A host uses a cookie: its own, or a new one (RFC 3104 §6.1)."""
    found = lookup.by_holder(known.table, flow, Kind.COOKIE, sender)
    if found is None:
        return None
    cookie = ike.cookie_of(both)
    if cookie is None:
        return Reason.MALFORMED
    if known.cookies.owner(flow.realm, flow.local, cookie, now=now) not in (None, sender):
        return Reason.COOKIE_IN_USE
    return replace(found, cookie=cookie)


def _calling_cookie(known: Memory, both: Ends, flow: Flow, now: float) -> Finding:
    """A peer answers a cookie, or calls a host by name (RFC 3104 §6.1; seed RSIP 4.1)."""
    cookie = ike.cookie_of(both)
    if cookie is None:
        return Reason.MALFORMED
    # Silent: RFC 3104 §6.1 does not say how long a cookie is the host's; here a day after its last use.
    owner = known.cookies.owner(flow.realm, flow.local, cookie, now=now)
    if owner is not None:
        found = lookup.by_holder(known.table, flow, Kind.COOKIE, owner)
    else:
        identity = ike.opening_identity(both.transport)
        named = None if identity is None else replace(flow, kind=Kind.IDENTITY, value=identity)
        found = None if named is None else lookup.by_value(known.table, named)
    return Reason.UNKNOWN_COOKIE if found is None else replace(found, cookie=cookie)


def _quoted_cookie(known: Memory, both: Ends, flow: Flow, now: float) -> Finding:
    """An error about an IKE packet goes by the cookie in it; None if its quote is too short (RFC 3104 §6.1)."""
    cookie = ike.cookie_of(both)
    if cookie is None:
        return None
    owner = known.cookies.owner(flow.realm, flow.local, cookie, now=now)
    return None if owner is None else lookup.by_holder(known.table, flow, Kind.COOKIE, owner)
