# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway knows of which addresses are local and which remote (RFC 3103 §9.14, §9.15).

A host asks for an address, a network or a name; the most specific thing that is known
around it decides. What nothing is known of is left out, and the host takes it for remote.

Addresses alone do not do where two sites both use 10.0.0.0/8. There a name says which of
the two is meant: a host asks for the name *instead* of an address, and for a name of the
other site hears *remote*, whatever its address looks like (seed RSIP 4.2).

Nothing here resolves a name. Who has resolved some may say what came of it (``addresses``);
a name in no known domain is then where its address is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from isthmus.address import Address, Family, Prefix
from isthmus.wire.rsip.codes import QueryIndicator
from isthmus.wire.rsip.message import QueryTuple
from isthmus.wire.rsip.parameter import Indicator, RsipAddress

_INDICATORS = {
    (True, True): QueryIndicator.LOCAL_NETWORK,
    (True, False): QueryIndicator.LOCAL_ADDRESS,
    (False, True): QueryIndicator.REMOTE_NETWORK,
    (False, False): QueryIndicator.REMOTE_ADDRESS,
}
"""By whether it is local, and whether it is a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Which networks, hosts and names are local, and which are remote."""

    local: tuple[Prefix, ...] = ()
    "Networks; a host is a prefix of full length."
    remote: tuple[Prefix, ...] = ()
    local_names: tuple[str, ...] = ()
    "Each stands for itself and for everything below it."
    remote_names: tuple[str, ...] = ()
    addresses: Mapping[str, Address] = field(default_factory=dict)
    "What is known of the addresses of names."

    _prefixes: dict[Prefix, bool] = field(init=False, repr=False, compare=False)
    _sorted: tuple[Prefix, ...] = field(init=False, repr=False, compare=False)
    _lengths: dict[Family, tuple[int, ...]] = field(init=False, repr=False, compare=False)
    _names: dict[str, bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index everything, and refuse what is said to be both."""
        prefixes = dict.fromkeys(self.local, True) | dict.fromkeys(self.remote, False)
        names = dict.fromkeys(map(_plain, self.local_names), True)
        names |= dict.fromkeys(map(_plain, self.remote_names), False)
        both: list[Prefix | str] = [each for each in self.local if not prefixes[each]]
        both += [each for each in self.local_names if not names[_plain(each)]]
        if both:
            raise ValueError(f"{both[0]} is said to be both local and remote")
        lengths = {
            family: tuple(sorted({each.length for each in prefixes if each.family is family}, reverse=True))
            for family in Family
        }
        object.__setattr__(self, "_prefixes", prefixes)
        object.__setattr__(self, "_sorted", tuple(sorted(prefixes)))
        object.__setattr__(self, "_lengths", lengths)
        object.__setattr__(self, "_names", names)

    def of_prefix(self, prefix: Prefix) -> bool | None:
        """Whether an address or network is local; None: nothing is known of all of it."""
        family = prefix.family
        for length in self._lengths[family]:
            shift = family.bits - length
            if length <= prefix.length:
                around = Prefix(Address(family, prefix.address.number >> shift << shift), length)
                if around in self._prefixes:
                    return self._prefixes[around]
        return None

    def of_name(self, name: str) -> bool | None:
        """Whether what has a name is local; None: nothing is known of it."""
        rest = plain = _plain(name)
        while rest:
            if rest in self._names:
                return self._names[rest]
            rest = rest.partition(".")[2]
        address = self.addresses.get(plain)
        return None if address is None else self.of_prefix(Prefix.of(address))

    def within(self, prefix: Prefix) -> Iterator[Prefix]:
        """What inside a network is not where the nearest known network around it is."""
        around: list[tuple[Prefix, bool | None]] = [(prefix, self.of_prefix(prefix))]
        for at in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            each = self._sorted[at]
            if not prefix.covers(each):
                return
            while not around[-1][0].covers(each):
                around.pop()
            if self._prefixes[each] is not around[-1][1]:
                yield each
            around.append((each, self._prefixes[each]))

    def answer(self, query: QueryTuple) -> Iterator[QueryTuple]:
        """What is known of what a host asks for, the nearest first; maybe nothing (RFC 3103 §9.15.3).

        Args:
            query: Of a request; its network has a netmask without gaps.
        """
        name, prefix = query.address.name, query.prefix
        if name is not None:
            is_local = self.of_name(name)
            if is_local is not None:
                yield _of_name(query.address, is_local=is_local)
            return
        assert prefix is not None
        is_local = self.of_prefix(prefix)
        if is_local is not None:
            yield _of_prefix(prefix, is_local=is_local, network=query.is_network)
        if query.is_network:
            # What is different, or only known, inside a network is part of the answer about it.
            for each in self.within(prefix):
                yield _of_prefix(each, is_local=self._prefixes[each], network=not each.whole)

    def everything(self) -> Iterator[QueryTuple]:
        """All that is known, the most specific first: hosts, names, then networks from the smallest."""
        by_length = sorted(self._prefixes, key=lambda each: -each.length)
        for each in by_length:
            if each.whole:
                yield _of_prefix(each, is_local=self._prefixes[each], network=False)
        for name, is_local in self._names.items():
            yield _of_name(RsipAddress.fqdn(name), is_local=is_local)
        for each in by_length:
            # Silent: an IPv6 network cannot be written down (RFC 3103 §8.1 has no such netmask), and is left out.
            if not each.whole and each.family is Family.IPV4:
                yield _of_prefix(each, is_local=self._prefixes[each], network=True)


def _plain(name: str) -> str:
    return name.strip(".").lower()


def _of_name(name: RsipAddress, *, is_local: bool) -> QueryTuple:
    return QueryTuple(indicator=Indicator(_INDICATORS[is_local, False]), address=name)


def _of_prefix(prefix: Prefix, *, is_local: bool, network: bool) -> QueryTuple:
    indicator = _INDICATORS[is_local, network]
    if network:
        return QueryTuple.of_network(prefix, indicator)
    return QueryTuple.of_address(prefix.address, indicator)
