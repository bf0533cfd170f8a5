# SPDX-License-Identifier: BSD-3-Clause
"""Plain leases: what nearly every lease is, so that a million of them can be columns instead of objects.

A lease is *plain* if its binding has one selector, of consecutive ports of one IPv4 address without a limit on the
peer and with nothing lent, and crosses by a tunnel to its owner itself, without device and GRE checksum.
Everything that a plane or a store has to know of it fits a row of numbers; what its tunnel has in common with others
stands once for all rows. Of owners whose addresses are IPv6 that is all but the last 32 bits of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Durable, Ending, Extend, Lapse, Prolong, Register, Remember, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind, Remote, Selector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Single = Register | Deregister | Bind | Extend | Prolong | Unbind | Remember
"""What concerns one host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainGroup:
    """What plain leases have in common."""

    realm: int
    "Number of the realm that is leased from."
    near: int
    "Number of the realm of the owners, and of their tunnels."
    end: Address
    "Our end of the tunnels."
    kind: TunnelKind
    mtu: int
    "Of the tunnels, in octets."
    admit: Admit
    upper: int = 0
    "What the owners' addresses have before their last 32 bits; 0: they are IPv4."


PlainRow = tuple[int, int, int, int, int, float]
"""The leased address, its first port, how many, the owner's address, the Bind ID, the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLeases:
    """Plain leases of one group, a column for each number; all columns are as long as one another."""

    group: PlainGroup
    local: NDArray[np.uint32]
    "The leased address."
    first: NDArray[np.uint16]
    "The first port."
    ports: NDArray[np.uint32]
    "How many."
    owner: NDArray[np.uint32]
    "The address of the host that holds them, or the end of it."
    bind_id: NDArray[np.uint32]
    expires_at: NDArray[np.float64]
    "Seconds since 1970."

    @classmethod
    def of_rows(cls, group: PlainGroup, rows: Iterable[PlainRow]) -> PlainLeases:
        """Make columns of rows, of which there must be one."""
        import numpy as np

        local, first, ports, owner, bind_id, expires_at = zip(*rows, strict=True)
        return cls(
            group=group,
            local=np.array(local, np.uint32),
            first=np.array(first, np.uint16),
            ports=np.array(ports, np.uint32),
            owner=np.array(owner, np.uint32),
            bind_id=np.array(bind_id, np.uint32),
            expires_at=np.array(expires_at, np.float64),
        )

    def __len__(self) -> int:
        """How many leases there are."""
        return len(self.local)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> PlainLeases:
        """Some of them, by a mask or by their places."""
        return PlainLeases(
            group=self.group,
            local=self.local[chosen],
            first=self.first[chosen],
            ports=self.ports[chosen],
            owner=self.owner[chosen],
            bind_id=self.bind_id[chosen],
            expires_at=self.expires_at[chosen],
        )

    def bindings(self) -> Iterator[tuple[Binding, float]]:
        """Each as a binding, with its deadline: for who has no use for columns."""
        columns = (self.local, self.first, self.ports, self.owner, self.bind_id, self.expires_at)
        for local, first, ports, owner, bind_id, expires_at in zip(*(c.tolist() for c in columns), strict=True):
            values = Ranges.of((first, first + ports - 1))
            yield plain_binding(self.group, local=local, values=values, owner=owner, bind_id=bind_id), expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Registered hosts of one realm."""

    near: int
    "Its number."
    address: NDArray[np.uint32]
    "Or the end of it."
    upper: int = 0
    "What the addresses have before that; 0: they are IPv4."

    def at(self, chosen: NDArray[np.bool_]) -> Hosts:
        """Some of them, by a mask."""
        return Hosts(near=self.near, address=self.address[chosen], upper=self.upper)

    def owners(self) -> Iterator[Owner]:
        """Each of them."""
        return (Owner(self.near, whole_address(self.upper, number)) for number in self.address.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class LapsingHosts:
    """IPv4 hosts of one realm of which something has run out, a column for each number."""

    near: int
    "Number of their realm."
    address: NDArray[np.uint32]
    client_id: NDArray[np.uint32]
    port: NDArray[np.uint16]
    "Where its last answer went to, over UDP."
    gone: NDArray[np.bool_]
    "Whether its registration has run out; then all of its leases have."

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> LapsingHosts:
        """Some of them, by a mask or by their places."""
        return LapsingHosts(
            near=self.near,
            address=self.address[chosen],
            client_id=self.client_id[chosen],
            port=self.port[chosen],
            gone=self.gone[chosen],
        )


def as_effects(plain: Iterable[PlainLeases], registered: Iterable[Hosts]) -> Iterator[Register | Bind]:
    """What makes columns stand, for a plane that has no use for them; it asks for neither Client ID nor method."""
    for hosts in registered:
        for owner in hosts.owners():
            yield Register(registration=Registration(owner=owner, client_id=0, expires_at=FOREVER))
    for binding, expires_at in chain.from_iterable(each.bindings() for each in plain):
        yield Bind(binding=binding, lease=unnamed(expires_at))


def one_by_one(effects: Iterable[Durable]) -> Iterator[Single]:
    """Effects with what a ``Lapse`` ends one by one, for who has no use for columns."""
    for effect in effects:
        if isinstance(effect, Lapse):
            yield from endings(effect)
        else:
            yield effect


def endings(lapse: Lapse) -> Iterator[Unbind | Deregister]:
    """What a ``Lapse`` ends, one by one."""
    for leases in lapse.leases:
        for binding, _ in leases.bindings():
            yield Unbind(key=binding.key, ending=Ending.EXPIRED, binding=binding)
    for owner in lapse.hosts.owners():
        yield Deregister(owner=owner, ending=Ending.EXPIRED)


def unnamed(expires_at: float) -> Lease:
    """A lease, for a plane: that asks for neither Client ID nor method."""
    return Lease(client_id=0, method=Method.RSAP_IP, granted_at=0.0, expires_at=expires_at)


def whole_address(upper: int, number: int) -> Address:
    """The address of an owner, of what he has in common with others, and of the column's number."""
    return Address(Family.IPV6, upper << 32 | number) if upper else Address(Family.IPV4, number)


def plain_binding(group: PlainGroup, *, local: int, values: Ranges, owner: int, bind_id: int) -> Binding:
    """The binding of a plain lease.

    Args:
        group: What it has in common with others.
        local: The leased address, as a number.
        values: Its ports, consecutive.
        owner: The address of its holder, as the column has it.
        bind_id: Its Bind ID.
    """
    whose = Owner(group.near, whole_address(group.upper, owner))
    selector = Selector(
        realm=group.realm,
        local=Prefix.of(Address(Family.IPV4, local)),
        kind=Kind.PORT,
        values=values,
        remote=Remote(admit=group.admit),
    )
    tunnel = Tunnel(realm=group.near, local=group.end, remote=whose.address, kind=group.kind, mtu=group.mtu)
    return Binding(key=BindingKey(whose, bind_id), selectors=(selector,), crossing=tunnel)


def group_of(binding: Binding) -> PlainGroup | None:
    """The group of a binding that is plain, and whose owner is IPv4; None if it is not."""
    tunnel, owner = binding.crossing, binding.key.owner
    if len(binding.selectors) != 1 or binding.device is not None or not isinstance(tunnel, Tunnel):
        return None
    (selector,) = binding.selectors
    remote = selector.remote
    plain = (
        selector.kind is Kind.PORT
        and len(selector.values.pairs) == 1
        and not selector.lent
        and remote.network is None
        and remote.port is None
        and selector.local.family is Family.IPV4
        and selector.local.length == Family.IPV4.bits
        and tunnel.local.family is Family.IPV4
        and (tunnel.realm, tunnel.remote) == (owner.realm, owner.address)
        and not tunnel.checksum
    )
    if not plain:
        return None
    return PlainGroup(
        realm=selector.realm,
        near=tunnel.realm,
        end=tunnel.local,
        kind=tunnel.kind,
        mtu=tunnel.mtu,
        admit=remote.admit,
    )
