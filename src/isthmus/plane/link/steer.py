# SPDX-License-Identifier: BSD-3-Clause
"""Steering: nftables rules that bring packets from real interfaces into ports.

For the reference plane on its own; behind the kernel plane, whose program does this, there are no rules.
Each interface gets one chain at its ingress, before the IP stack has seen anything, and in it
a ``fwd`` for whatever may be ours:

==================  ===========================================================================
of the realm        is sent to its port
==================  ===========================================================================
a tunnel end        protocols 4 and 47; errors that say that something was too large
a claim beyond it   everything that comes *from* it: it should have come by a tunnel
a claim, whole      everything
a claim of ports    TCP and UDP to these, ICMP, fragments
a claim of SPIs     ESP and AH with these, ICMP (errors about them), fragments
a claim of cookies  UDP to port 500, ICMP, fragments
a binding outside   like a claim
of every claim
==================  ===========================================================================

The rest never leaves the kernel, and neither does the rest of a shared address. What the plane
finds not to be its own it gives back (Pass), so rules may be too wide, never too narrow.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping

from isthmus.address import Family
from isthmus.border.binding import Binding
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm
from isthmus.border.selector import Kind, Selector
from isthmus.errors import PlaneError, Unsupported

_TUNNELS = "{ 4, 47 }"
_TOO_BIG = "icmp type destination-unreachable icmp code frag-needed"
_TOO_BIG_IPV6 = "icmpv6 type packet-too-big"
_IS_FRAGMENT = "ip frag-off & 0x3fff != 0"


class Steering:
    """A table of our own; replaced as a whole, in one transaction, and removed at the end.

    Args:
        name: The table is called ``isthmus_NAME``.
        border: Realms and their interfaces, tunnel ends, claims.
        ports: Name of the port of each realm, by the realm's number.

    Raises:
        Unsupported: no ``nft``, or a kernel that refuses it.
    """

    def __init__(self, name: str, border: Border, ports: Mapping[int, str]) -> None:
        self._table = f"isthmus_{name}"
        self._border = border
        self._ports = dict(ports)
        self._standing: str | None = None
        self.follow(())

    def follow(self, bindings: Iterable[Binding]) -> None:
        """Let the rules cover these bindings as well as the claims; does nothing where they do already."""
        wanted = ruleset(self._table, self._border, self._ports, outside(self._border, bindings))
        if wanted != self._standing:
            _nft(wanted)
            self._standing = wanted

    def close(self) -> None:
        """Remove the rules."""
        if self._standing is not None:
            self._standing = None
            _nft(_absent(self._table))


def is_claimed(border: Border, binding: Binding) -> bool:
    """Whether the rules for the pools bring a binding's packets already."""
    return not outside(border, (binding,))


def outside(border: Border, bindings: Iterable[Binding]) -> list[Selector]:
    """Selectors of bindings that no claim covers."""
    return [
        selector
        for binding in bindings
        for selector in binding.selectors
        if border.realm(selector.realm).end is End.GATEWAY
        and not any(_covers(claim, selector) for claim in border.claims)
    ]


def _covers(claim: Selector, selector: Selector) -> bool:
    if claim.realm != selector.realm or not claim.local.covers(selector.local):
        return False
    return claim.kind is None or (claim.kind is selector.kind and claim.values.covers(selector.values))


def ruleset(table: str, border: Border, ports: Mapping[int, str], more: Iterable[Selector] = ()) -> str:
    """Write the rules in the language of ``nft``: remove the table if it is there, and make it anew."""
    selectors = (*border.claims, *more)
    chains: dict[str, list[str]] = {}
    for realm in border.realms:
        if realm.interface is not None and realm.number in ports and realm.interface != ports[realm.number]:
            lines = [f'{match} fwd to "{ports[realm.number]}"' for match in matches(border, realm, selectors)]
            chains.setdefault(realm.interface, []).extend(lines)
    text = [_absent(table), f"table netdev {table} {{"]
    for at, (interface, lines) in enumerate(chains.items()):
        text += [
            f"  chain from{at} {{",
            f'    type filter hook ingress device "{interface}" priority -300; policy accept;',
        ]
        text += [f"    {line}" for line in dict.fromkeys(lines)]
        text.append("  }")
    return "\n".join([*text, "}", ""])


def matches(border: Border, realm: Realm, selectors: Iterable[Selector]) -> list[str]:
    """What of a realm may be ours, as conditions of ``nft``."""
    ends = [end.address for end in border.tunnel_ends if end.realm == realm.number]
    found = [
        condition
        for end in ends
        for condition in (
            (f"ip daddr {end} ip protocol {_TUNNELS}", f"ip daddr {end} {_TOO_BIG}")
            if end.family is Family.IPV4
            else (f"ip6 daddr {end} meta l4proto {_TUNNELS}", f"ip6 daddr {end} {_TOO_BIG_IPV6}")
        )
    ]
    if realm.end is End.HOST:
        return [*found, "meta protocol ip"]
    beyond = {end.leads_to for end in border.tunnel_ends if end.realm == realm.number}
    for selector in selectors:
        if selector.realm == realm.number:
            found += [f"ip daddr {selector.local} {each}".rstrip() for each in _of(selector)]
        elif selector.realm in beyond and border.realm(selector.realm).end is End.GATEWAY:
            found.append(f"ip saddr {selector.local}")
    return found


def _of(selector: Selector) -> list[str]:
    match selector.kind:
        case None:
            return [""]
        case Kind.PORT:
            return [f"meta l4proto {{ 6, 17 }} th dport {_set(selector.values)}", "ip protocol 1", _IS_FRAGMENT]
        case Kind.SPI:
            values = _set(selector.values)
            sealed = [f"ip protocol 50 esp spi {values}", f"ip protocol 51 ah spi {values}"]
            return [*sealed, "ip protocol 1", _IS_FRAGMENT]
        case Kind.COOKIE | Kind.IDENTITY:
            return ["udp dport 500", "ip protocol 1", _IS_FRAGMENT]


def _set(values: Ranges) -> str:
    return "{ " + ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in values.pairs) + " }"


def _absent(table: str) -> str:
    return f"table netdev {table}\ndelete table netdev {table}\n"


def _nft(text: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise Unsupported("nft", remedy="install nftables") from error
    except subprocess.TimeoutExpired as error:
        raise PlaneError("nft did not come back within 30 seconds") from error
    if done.returncode:
        remedy = "nft says: " + (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise Unsupported("rules that steer packets into ports", remedy=remedy)
