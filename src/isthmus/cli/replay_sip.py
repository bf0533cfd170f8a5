# SPDX-License-Identifier: BSD-3-Clause
"""What 'isthmus check' makes of a configuration with [border] or [node]: the plane's border, and what stands in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding
from isthmus.border.effect import Bind, Remap
from isthmus.border.realm import Border
from isthmus.daemon.config import Config
from isthmus.daemon.link_address import LinkAddress
from isthmus.daemon.mapping_table import read_table
from isthmus.daemon.sip_terms import Surroundings, alias_pools, border_router, node, own_networks
from isthmus.errors import ConfigError, IsthmusError, WireError
from isthmus.ipae.border_router import standing
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.sip.header import HeaderOrder, SipView
from isthmus.wire.sip.ipae import Version6, demultiplex

_GIVEN = re.compile(r"([^=]+)=([0-9.]+)/([0-9]{1,2})")
_ETHERTYPE_IPV6 = 0x86DD


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What an IPAE system's plane knows before the first packet."""

    border: Border
    effects: tuple[Bind | Remap, ...]
    around: Surroundings

    def realm_of(self, kind: int | None, packet: bytes) -> int:
        """The realm that a packet most likely arrived in.

        IPv6 to where a program's device leads comes from programs. Anything else comes from where its tunnel ends, or
        where its source is, or else not from where its destination is; out of the site where none of that says
        anything.

        Args:
            kind: Its EtherType; None: unknown.
            packet: From its IP header on.
        """
        links = [each for each in self.border.realms if each.interface is not None]
        if kind == _ETHERTYPE_IPV6 or (kind is None and _is_ipv6(packet)):
            return self._from_programs(packet) or links[0].number
        ends = _ends(packet, seed_order=self.border.rules.seed_order)
        if ends is None:
            return links[0].number
        src, dst = ends
        named = {each.name: each.number for each in links}
        at_end = next((each.realm for each in self.border.tunnel_ends if each.address == dst), None)
        if at_end is not None:
            return at_end
        near = self.around.realm_towards(src)
        if near is not None:
            return named[near]
        beyond = self.around.realm_towards(dst)
        others = [each for each in links if each.name != beyond] or links
        if beyond is not None:
            return others[0].number
        return next((each.number for each in others if each.site is not None), others[0].number)

    def _from_programs(self, packet: bytes) -> int | None:
        sockets = next((each.number for each in self.border.realms if each.family is Family.IPV6), None)
        bound = [each.binding.selectors[0] for each in self.effects if isinstance(each, Bind)]
        try:
            dst = Ipv6View.parse(packet).dst
        except WireError:
            return None
        return sockets if any(each.realm == sockets and dst in each.local for each in bound) else None


def situation(
    config: Config, file: Path, *, addresses: Sequence[str] = (), mapping: Path | None = None, now: float
) -> Situation:
    """Read what stands off a configuration.

    Args:
        config: It has [border] or [node].
        file: Where it came from.
        addresses: What the interfaces have, as ``REALM=ADDRESS/LENGTH``, in place of what this machine says.
        mapping: A mapping file, in place of that of the configuration.
        now: In seconds since 1970.

    Raises:
        IsthmusError: an address or the mapping file is wrong, or an address is lacking.
    """
    around = _surroundings(config, addresses)
    try:
        terms = (
            border_router(config, around, str(file))
            if config.border is not None
            else node(config, around, _device(config), str(file))
        )
    except ConfigError as error:
        raise IsthmusError(
            f"{error}; for the addresses of another machine's interfaces: --address REALM=ADDRESS/LENGTH"
        ) from error
    bound = [standing(each, now=now) for each in (*terms.bindings, *_fixed(config))]
    return Situation(border=terms.border, effects=(*bound, *_remaps(config, around, mapping)), around=around)


def _surroundings(config: Config, addresses: Sequence[str]) -> Surroundings:
    around = Surroundings.of(config)
    given: dict[str, list[LinkAddress]] = {}
    for each in addresses:
        found = _GIVEN.fullmatch(each)
        if found is None or found[1] not in around.addresses:
            names = ", ".join(around.addresses)
            raise IsthmusError(f"--address {each!r}: write REALM=ADDRESS/LENGTH, with a realm of {names}")
        given.setdefault(found[1], []).append(_link_address(found[2], int(found[3])))
    named = {name: tuple(has) for name, has in given.items()}
    return Surroundings(addresses=around.addresses | named, mtus=around.mtus, absent=around.absent)


def _link_address(text: str, length: int) -> LinkAddress:
    try:
        address = Address.parse(text)
        spare = max(0, address.family.bits - length)
        network = Prefix(Address(address.family, address.number >> spare << spare), length)
    except ValueError as error:
        raise IsthmusError(f"--address: {error}") from error
    return LinkAddress(address=address, network=network)


def _device(config: Config) -> str:
    assert config.node is not None
    return f"{config.node.device}p"


def _fixed(config: Config) -> list[Binding]:
    section = config.border or config.node
    pairs = [] if section is None or section.alias is None else section.alias.pairs
    return [pool.fix(alias, peer) for pool in alias_pools(config).values() for alias, peer in pairs]


def _remaps(config: Config, around: Surroundings, mapping: Path | None) -> list[Remap]:
    wanted = None if config.border is None else config.border.mapping
    path = mapping or (None if wanted is None else wanted.file)
    if path is None:
        return []
    table = read_table(path, own_networks(config, around))
    return [
        Remap(realm=number, sip=config.sip_number, mapping=table.mapping)
        for number, each in enumerate(config.realm, 1)
        if each.site is not None and (wanted is None or wanted.realm in (None, each.name))
    ]


def _is_ipv6(packet: bytes) -> bool:
    return packet[:1] != b"" and packet[0] >> 4 == 6 and demultiplex(packet) is Version6.IPV6


def _ends(packet: bytes, *, seed_order: bool) -> tuple[Address, Address] | None:
    """IPv4 addresses of source and destination, the lower halves of those of SIP; None: they cannot be read."""
    order = HeaderOrder.SEED if seed_order else HeaderOrder.DEERING
    try:
        if packet[:1] and packet[0] >> 4 == 6:
            header = SipView.parse(packet, order=order)
            return header.src.low, header.dst.low
        outer = Ipv4View.parse(packet)
    except WireError:
        return None
    return outer.src, outer.dst
