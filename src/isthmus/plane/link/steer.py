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
a link of SIP       EtherType 0x0800 with version 6
an end of IPAE      protocol 41; ICMP errors
a mapping           what it maps; a large one, or where the unmapped is not routed: all IPv4 but groups
==================  ===========================================================================

The rest never leaves the kernel, and neither does the rest of a shared address. What the plane
finds not to be its own it gives back (Pass), so rules may be too wide, never too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, collapse_addresses

from isthmus.address import Family
from isthmus.border.binding import Binding
from isthmus.border.effect import Remap
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, Unmapped
from isthmus.border.selector import Kind, Selector
from isthmus.plane.link.nft import nft

_TUNNELS = "{ 4, 47 }"
_TOO_BIG = "icmp type destination-unreachable icmp code frag-needed"
_TOO_BIG_IPV6 = "icmpv6 type packet-too-big"
_IS_FRAGMENT = "ip frag-off & 0x3fff != 0"
_IS_SIP = "ether type ip @nh,0,4 6"
_IPAE = "ip protocol 41"
_ICMP_ERRORS = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
_ALL_IPV4 = "ether type ip @nh,0,4 4 ip daddr != { 224.0.0.0/4, 255.255.255.255 }"
_FEW_PREFIXES = 1000
"A mapping with more is not written out as rules."


class Steering:
    """A table of our own; replaced as a whole, in one transaction, and removed at the end.

    Args:
        name: The table is called ``isthmus_NAME``.
        border: Realms and their interfaces, tunnel ends, claims.
        ports: Name of the port of each realm, by the realm's number.
        taken: What is steered besides, whether or not anything is bound there.

    Raises:
        Unsupported: no ``nft``, or a kernel that refuses it.
    """

    def __init__(self, name: str, border: Border, ports: Mapping[int, str], taken: Iterable[Selector] = ()) -> None:
        self._table = f"isthmus_{name}"
        self._taken = tuple(taken)
        self._border = border
        self._ports = dict(ports)
        self._standing: str | None = None
        self.follow(())

    def covers(self, binding: Binding) -> bool:
        """Whether the rules bring a binding's packets already, whatever is bound."""
        return all(any(_covers(each, found) for each in self._taken) for found in outside(self._border, (binding,)))

    def follow(self, bindings: Iterable[Binding], mappings: Iterable[Remap] = ()) -> None:
        """Let the rules cover these bindings and mappings as well as the claims; does nothing where they do already."""
        mapped = {each.realm: _mapped(each) for each in mappings}
        more = (*self._taken, *outside(self._border, bindings))
        wanted = ruleset(self._table, self._border, self._ports, more, mapped)
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


def ruleset(
    table: str,
    border: Border,
    ports: Mapping[int, str],
    more: Iterable[Selector] = (),
    mapped: Mapping[int, str] | None = None,
) -> str:
    """Write the rules in the language of ``nft``: remove the table if it is there, and make it anew.

    Args:
        table: Its name.
        border: Realms, tunnel ends, claims.
        ports: Name of the port of each realm.
        more: What is bound besides the claims.
        mapped: By realm, the condition that a mapping stands for.
    """
    selectors = (*border.claims, *more)
    chains: dict[str, list[str]] = {}
    for realm in border.realms:
        if realm.interface is not None and realm.number in ports and realm.interface != ports[realm.number]:
            found = [*matches(border, realm, selectors), *_mappings(realm, mapped or {})]
            lines = [f'{match} fwd to "{ports[realm.number]}"' for match in found]
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


def _mapped(remap: Remap) -> str:
    """A mapping as a condition; more is steered than is mapped, where writing it out would be long."""
    if not len(remap.mapping):
        return ""
    if len(remap.mapping) > _FEW_PREFIXES:
        return _ALL_IPV4
    networks = (IPv4Network((each.prefix.address.number, each.prefix.length)) for each in remap.mapping)
    return f"ip daddr {{ {', '.join(map(str, collapse_addresses(networks)))} }}"


def _mappings(realm: Realm, mapped: Mapping[int, str]) -> list[str]:
    """What is steered because of a realm's mapping, or because it has none for some of its packets."""
    if realm.sip is not None and realm.site is not None and realm.unmapped is not Unmapped.PASS:
        return [_ALL_IPV4]
    return [found] if (found := mapped.get(realm.number, "")) else []


def matches(border: Border, realm: Realm, selectors: Iterable[Selector]) -> list[str]:
    """What of a realm may be ours, as conditions of ``nft``."""
    sip = {each.number for each in border.realms if each.family is Family.SIP}
    ours = [end for end in border.tunnel_ends if end.realm == realm.number]
    ends = [end.address for end in ours if end.leads_to not in sip]
    found = [_IS_SIP] if realm.sip is not None else []
    for end in ours:
        if end.leads_to in sip:
            found += [f"ip daddr {end.address} {_IPAE}", f"ip daddr {end.address} {_ICMP_ERRORS}"]
    found += [
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
        elif selector.realm in beyond - sip and border.realm(selector.realm).end is End.GATEWAY:
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
    nft("-f", "-", text=text, what="rules that steer packets into ports")
