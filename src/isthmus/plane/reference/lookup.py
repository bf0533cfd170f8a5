# SPDX-License-Identifier: BSD-3-Clause
"""The questions that a packet asks of the table, one function each.

Pairs with ``bpf/include/isthmus/lookup.h``; the table itself is ``border.table``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.crossing import Tunnel
from isthmus.border.realm import Border, End, TunnelEnd
from isthmus.border.selector import Admit, Flow, Kind, Selector
from isthmus.border.table import BindingTable, Entry
from isthmus.border.verdict import Reason
from isthmus.plane.reference.contact import Contacts

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Found:
    """The binding that a packet goes by, and by which of its selectors."""

    entry: Entry
    selector: Selector
    "Whose limit on the peer counts (RFC 3103 §7.2)."
    cookie: bytes | None = None
    "The IKE cookie that its owner uses with this packet, if it was found by one (RFC 3104 §6.1)."

    @property
    def owner(self) -> Owner:
        """Who holds it."""
        return self.entry.binding.key.owner

    @property
    def crossing(self) -> Tunnel:
        """The tunnel that it crosses by."""
        return self.entry.binding.tunnel


class Addresses:
    """Which addresses anything is bound at, for packets that have no flow to look up."""

    def __init__(self) -> None:
        self._single: Counter[tuple[int, Address]] = Counter()
        self._wide: Counter[tuple[int, Prefix]] = Counter()
        self._of: dict[BindingKey, tuple[int, tuple[Prefix, ...]]] = {}

    def add(self, key: BindingKey, realm: int, prefixes: Iterable[Prefix]) -> None:
        """Count a binding's prefixes in."""
        self.remove(key)
        self._of[key] = (realm, tuple(prefixes))
        for prefix in self._of[key][1]:
            if prefix.whole:
                self._single[realm, prefix.address] += 1
            else:
                self._wide[realm, prefix] += 1

    def remove(self, key: BindingKey) -> None:
        """Count them out again."""
        realm, prefixes = self._of.pop(key, (0, ()))
        for prefix in prefixes:
            if prefix.whole:
                _subtract(self._single, (realm, prefix.address))
            else:
                _subtract(self._wide, (realm, prefix))

    def covers(self, realm: int, address: Address) -> bool:
        """Whether anything is bound at an address."""
        if (realm, address) in self._single:
            return True
        return any(where == realm and address in prefix for where, prefix in self._wide)

    def owners(self, realm: int, address: Address) -> tuple[Owner, ...]:
        """Who holds anything of an address."""
        return tuple(
            sorted(
                {
                    key.owner
                    for key, (where, prefixes) in self._of.items()
                    if where == realm and any(address in each for each in prefixes)
                }
            )
        )


def _subtract(counted: Counter[_T], each: _T) -> None:
    counted[each] -= 1
    if not counted[each]:
        del counted[each]


def tunnel_end(border: Border, realm: int, address: Address) -> TunnelEnd | None:
    """Find the end of RSIP's tunnels of ours that an address is (RFC 3103 §8.6)."""
    return _end(border, realm, address, sip=False)


def ipae_end(border: Border, realm: int, address: Address) -> TunnelEnd | None:
    """Find the end of ours that an address is and that leads to a SIP realm (seed IPAE 4.2.2)."""
    return _end(border, realm, address, sip=True)


def _end(border: Border, realm: int, address: Address, *, sip: bool) -> TunnelEnd | None:
    for end in border.tunnel_ends:
        leads_to_sip = border.realm(end.leads_to).family is Family.SIP
        if (end.realm, end.address) == (realm, address) and leads_to_sip is sip:
            return end
    return None


def end_of(border: Border, realm: int) -> End:
    """Say what we are to the bindings of a realm: gateway or host."""
    return border.realm(realm).end


def is_meant(table: BindingTable, bound: Addresses, realm: int, address: Address) -> bool:
    """Whether an address is one of the pools' or bindings', so that its packets are ours (RFC 3102 §3.2)."""
    return bound.covers(realm, address) or table.claims_address(realm, address)


def expired(entry: Entry, now: float) -> bool:
    """Whether the deadline of a binding has passed (RFC 3103 §6)."""
    return entry.expires_at <= now


def by_value(table: BindingTable, flow: Flow) -> Found | None:
    """Find the binding that holds the local value of a flow, or its local address (RFC 3102 §3.2; RFC 3103 §7.3)."""
    entry = table.lookup(flow)
    if entry is None:
        return None
    selectors = entry.binding.selectors
    return Found(entry, selectors[0] if len(selectors) == 1 else next(each for each in selectors if each.owns(flow)))


def by_holder(table: BindingTable, flow: Flow, kind: Kind, owner: Owner) -> Found | None:
    """Find the binding by which an owner sends what carries no value of its own (RFC 3104 §4, §6.1)."""
    entry = table.lookup_holder(flow, kind, owner)
    if entry is None:
        return None
    return Found(entry, next(each for each in entry.binding.selectors if each.kind in (kind, None)))


def remote_limit(found: Found, flow: Flow) -> Reason | None:
    """Check the peer against the flow policy; None if it is allowed (RFC 3103 §7.2, §7.3)."""
    limit = found.selector.remote
    if limit.network is not None and flow.remote not in limit.network:
        return Reason.REMOTE_ADDRESS_NOT_ALLOWED
    if limit.port is not None and flow.remote_port != limit.port:
        return Reason.REMOTE_PORT_NOT_ALLOWED
    return None


def contacted(found: Found, flow: Flow, contacts: Contacts, *, now: float) -> bool:
    """Whether the binding admits this peer: anybody, or one that its holder wrote to (RFC 3102 §2)."""
    if found.selector.remote.admit is Admit.ANYONE:
        return True
    return contacts.knows(found.owner, flow.local, flow.remote, now=now)


def refusal(table: BindingTable, flow: Flow, sender: Owner, source: Address, *, is_error: bool) -> Reason:
    """Say why a host may not send what it sent (RFC 3103 §10.4; RFC 3102 §6.2).

    Args:
        table: The bindings.
        flow: The flow, which ``lookup`` did not find among the sender's.
        sender: Who sent it, by the outer source address.
        source: The inner source address.
        is_error: Whether the packet is an ICMP error.
    """
    if not table.holds_address(sender, flow.realm, source):
        return Reason.SOURCE_ADDRESS_NOT_LEASED
    if is_error:
        return Reason.FORGED_QUOTE
    if flow.kind is None:
        return Reason.NO_DISCRIMINATOR
    return Reason.SOURCE_PORT_NOT_LEASED
