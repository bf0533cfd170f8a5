# SPDX-License-Identifier: BSD-3-Clause
"""The questions that a packet asks of the table, one function each.

Pairs with ``bpf/include/isthmus/lookup.h``; the table itself is ``border.table``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.realm import Border, End, TunnelEnd
from isthmus.border.selector import Admit, Flow, Remote
from isthmus.border.table import BindingTable, Entry
from isthmus.border.verdict import Reason
from isthmus.plane.reference.contact import Contacts


class Addresses:
    """Which addresses anything is bound at, for packets that have no flow to look up."""

    def __init__(self) -> None:
        self._prefixes: dict[int, Counter[Prefix]] = {}
        self._of: dict[BindingKey, tuple[int, tuple[Prefix, ...]]] = {}

    def add(self, key: BindingKey, realm: int, prefixes: Iterable[Prefix]) -> None:
        """Count a binding's prefixes in."""
        self.remove(key)
        self._of[key] = (realm, tuple(prefixes))
        self._prefixes.setdefault(realm, Counter()).update(self._of[key][1])

    def remove(self, key: BindingKey) -> None:
        """Count them out again."""
        realm, prefixes = self._of.pop(key, (0, ()))
        for prefix in prefixes:
            counted = self._prefixes[realm]
            counted[prefix] -= 1
            if not counted[prefix]:
                del counted[prefix]

    def covers(self, realm: int, address: Address) -> bool:
        """Whether anything is bound at an address."""
        counted = self._prefixes.get(realm)
        if not counted:
            return False
        return Prefix.of(address) in counted or any(not each.whole and address in each for each in counted)


def tunnel_end(border: Border, realm: int, address: Address) -> TunnelEnd | None:
    """Find the tunnel end of ours that an address is (RFC 3103 §8.6)."""
    for end in border.tunnel_ends:
        if end.realm == realm and end.address == address:
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


def remote_limit(entry: Entry, flow: Flow) -> Reason | None:
    """Check the peer against the flow policy; None if it is allowed (RFC 3103 §7.2, §7.3)."""
    limit = limit_of(entry, flow)
    if limit.network is not None and flow.remote not in limit.network:
        return Reason.REMOTE_ADDRESS_NOT_ALLOWED
    if limit.port is not None and flow.remote_port != limit.port:
        return Reason.REMOTE_PORT_NOT_ALLOWED
    return None


def contacted(entry: Entry, flow: Flow, contacts: Contacts, *, now: float) -> bool:
    """Whether the binding admits this peer: anybody, or one that its holder wrote to (RFC 3102 §2)."""
    if limit_of(entry, flow).admit is Admit.ANYONE:
        return True
    return contacts.knows(entry.binding.key.owner, flow.local, flow.remote, now=now)


def limit_of(entry: Entry, flow: Flow) -> Remote:
    """The limit of the selector that a flow came in by (RFC 3103 §7.2)."""
    for selector in entry.binding.selectors:
        if selector.owns(flow):
            return selector.remote
    raise AssertionError(f"{flow.text} was found under {entry.binding.key} and is none of its flows")


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
