# SPDX-License-Identifier: BSD-3-Clause
"""A host that listens on ports which it holds already (RFC 3103 §9.16).

The RFC does not forbid it, and "in use" is about others (§14): it is granted as a binding
of its own, with a lease of its own, that shares the ports. A table holds a port once. So
the older binding *lends* the ports to the one that listens, keeps a note of it in its
selector, and has them back when the listening ends. Either may end first, and a restart
finds the note in the store::

    ASSIGN 2050-2053         #1 has 2050-2053
    LISTEN 2050              #1 has 2051-2053, lends 2050     #2 has 2050
    FREE #2                  #1 has 2050-2053
    or FREE #1               (2051-2053 are free)             #2 has 2050

Ports are lent only if that takes nothing from the older binding: the one that listens must
have the same tunnel type, and hear from every peer that the older one may talk to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from isthmus.address import Address
from isthmus.border.binding import Binding
from isthmus.border.ranges import Ranges, merge
from isthmus.border.selector import Kind, Remote, Selector
from isthmus.rsip.client import Client, Held


def lenders(client: Client, address: Address | None, ports: Ranges) -> list[tuple[Held, Ranges]]:
    """Which bindings of a host have some of these ports, of one address.

    Args:
        client: The host.
        address: None: the address of the first binding that has any.
        ports: What it wants to listen on.
    """
    found = []
    for held in client.bindings.values():
        if address in (None, held.binding.address):
            common = _ports(held.binding) & ports
            if common:
                address = held.binding.address
                found.append((held, common))
    return found


def can_lend(binding: Binding, remote: Remote) -> bool:
    """Whether a binding that listens with this limit takes nothing from this one."""
    return all(
        remote.network in (None, each.remote.network) and remote.port in (None, each.remote.port)
        for each in binding.selectors
        if each.kind is Kind.PORT
    )


def lend(binding: Binding, ports: Ranges) -> Binding:
    """The binding without these ports, but with a note of them."""
    return _change(
        binding, lambda each: replace(each, values=each.values - ports, lent=each.lent | each.values & ports)
    )


def take_back(binding: Binding, ports: Ranges) -> Binding:
    """The binding with these ports again, as far as it has lent them."""
    return _change(binding, lambda each: replace(each, values=each.values | each.lent & ports, lent=each.lent - ports))


def lent_by(binding: Binding) -> Ranges:
    """Ports of a binding for which another stands."""
    if len(binding.selectors) == 1:
        return binding.selectors[0].lent
    return merge(each.lent for each in binding.selectors)


def heirs(client: Client, ended: Binding) -> list[tuple[Held, Ranges]]:
    """Which bindings of a host get which ports of one that has ended back: the youngest that lent them."""
    found: list[tuple[Held, Ranges]] = []
    left = _ports(ended) if client.lenders else Ranges(())
    for bind_id in sorted(client.lenders, reverse=True):
        held = client.bindings[bind_id]
        common = lent_by(held.binding) & left if held.binding.address == ended.address else Ranges(())
        if common:
            found.append((held, common))
            left -= common
    return found


def _ports(binding: Binding) -> Ranges:
    return merge(each.values for each in binding.selectors if each.kind is Kind.PORT)


def _change(binding: Binding, how: Callable[[Selector], Selector]) -> Binding:
    return replace(
        binding, selectors=tuple(how(each) if each.kind is Kind.PORT else each for each in binding.selectors)
    )
