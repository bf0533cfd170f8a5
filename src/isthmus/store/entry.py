# SPDX-License-Identifier: BSD-3-Clause
"""Effects as entries: tuples of numbers, octets and text, for statements, and for the process that writes them.

An entry begins with its ``Sort`` and holds nothing that ``marshal`` does not know. The owner is given as realm and
octets. What a million leases are made of has an entry of its own, ``PLAIN``; see ``schema/0003_plain_leases.sql`` for
places.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, assert_never

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Deregister, Durable, Ending, Extend, Lapse, Prolong, Register, Remember, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, resource_of
from isthmus.border.selector import Kind
from isthmus.store.holding import ranges_of

Entry = tuple[Any, ...]
Span = tuple[int, int, int]
"""Kind, first and last number."""

WHOLE = 0
"""The kind that a whole prefix has in ``holding`` and ``tenure_range``: one range, 0 to 0."""
PLAIN_REALMS = 1 << 15
"""Realms with numbers below this fit into places."""

_IPV4, _PORT = Family.IPV4, Kind.PORT


class Sort(enum.IntEnum):
    """What an entry is, and what follows in it."""

    REGISTER = 0
    "Realm, address, client ID, deadline, local policy, remote policy, last Bind ID."
    DEREGISTER = 1
    "Realm, address, ending."
    PLAIN = 2
    "The fields of ``Plain``."
    BIND = 3
    "The fields of ``Odd``."
    EXTEND = 4
    "Realm, address, Bind ID, deadline."
    PROLONG = 5
    "Realm, address, deadline."
    UNBIND = 6
    "Realm, address, Bind ID, ending."
    REMEMBER = 7
    "Realm, address, port, counter, request, answer."


REGISTER, DEREGISTER, PLAIN, BIND, EXTEND, PROLONG, UNBIND, REMEMBER = (each.value for each in Sort)


class Plain(NamedTuple):
    """The entry of a plain lease."""

    sort: int
    place: int
    last: int
    near: int
    owner: int
    bind_id: int
    client_id: int
    method: int
    way: tuple[bytes, int, int, int]
    "The columns of ``way`` after its number."
    granted_at: float
    expires_at: float
    owner_address: bytes


class Odd(NamedTuple):
    """The entry of a binding that is not plain."""

    sort: int
    owner_realm: int
    owner_address: bytes
    bind_id: int
    client_id: int
    method: int
    granted_at: float
    expires_at: float
    realm: int
    address: bytes
    length: int
    resource: tuple[str | None, str | None, int, str | None]
    "Ports, SPIs, IKE, identities: the columns of ``tenure``."
    spans: tuple[Span, ...]
    "Everything that it holds, nothing twice."
    tunnel: tuple[int, bytes, bytes, int, int, bool, str | None]
    "The columns of ``binding`` after its number."
    selectors: tuple[tuple[Any, ...], ...]
    "For each the columns of ``selector`` after its ordinal."
    wanted: tuple[tuple[str, tuple[Span, ...]], ...]
    "For each selector its text, and what must be free."


def entries(effects: Iterable[Durable]) -> list[Entry]:
    """Turn effects into entries."""
    return [entry for effect in effects for entry in (_lapse(effect) if type(effect) is Lapse else (_entry(effect),))]


def _entry(effect: Durable) -> Entry:
    match effect:
        case Bind():
            return _plain(effect) or tuple(_odd(effect))
        case Remember():
            owner = effect.owner
            return (
                REMEMBER, owner.realm, octets(owner.address), effect.port, effect.counter, effect.request, effect.answer
            )  # fmt: skip
        case Prolong():
            return PROLONG, effect.owner.realm, octets(effect.owner.address), effect.expires_at
        case Register():
            it, owner = effect.registration, effect.registration.owner
            policies = (int(it.local_policy), int(it.remote_policy), it.last_bind_id)
            return REGISTER, owner.realm, octets(owner.address), it.client_id, it.expires_at, *policies
        case Unbind():
            owner = effect.key.owner
            return UNBIND, owner.realm, octets(owner.address), effect.key.bind_id, effect.ending.value
        case Extend():
            owner = effect.key.owner
            return EXTEND, owner.realm, octets(owner.address), effect.key.bind_id, effect.expires_at
        case Deregister():
            return DEREGISTER, effect.owner.realm, octets(effect.owner.address), effect.ending.value
        case Lapse():
            raise TypeError("a Lapse is several entries")
        case _:
            assert_never(effect)


def _lapse(effect: Lapse) -> Iterator[Entry]:
    """What ends at once as entries, one by one."""
    ending = Ending.EXPIRED.value
    for leases in effect.leases:
        near, bind_ids = leases.group.near, leases.bind_id.tolist()
        for owner, bind_id in zip(leases.owner.tolist(), bind_ids, strict=True):
            yield UNBIND, near, owner.to_bytes(4, "big"), bind_id, ending
    for owner in effect.hosts.address.tolist():
        yield DEREGISTER, effect.hosts.near, owner.to_bytes(4, "big"), ending


def octets(address: Address) -> bytes:
    """An address in network order."""
    return address.number.to_bytes(4, "big") if address.family is _IPV4 else address.octets


def _plain(effect: Bind) -> Entry | None:
    """The entry of a plain lease (``border.plain.group_of``); None if it is not one, or its realm has no places."""
    binding, lease = effect.binding, effect.lease
    key, tunnel, selectors = binding.key, binding.crossing, binding.selectors
    selector, owner = selectors[0], key.owner
    remote, pairs, whose = selector.remote, selector.values.pairs, owner.address
    if not (
        selector.kind is _PORT
        and len(selectors) == 1
        and len(pairs) == 1
        and not selector.lent.pairs
        and remote.network is None
        and remote.port is None
        and selector.realm < PLAIN_REALMS
        and selector.local.address.family is _IPV4
        and isinstance(tunnel, Tunnel)
        and tunnel.realm == owner.realm
        and tunnel.remote == whose
        and whose.family is _IPV4
        and not tunnel.checksum
        and binding.device is None
    ):
        return None
    place = selector.realm << 48 | selector.local.address.number << 16
    first, last = pairs[0]
    way = (tunnel.local.number.to_bytes(4, "big"), int(tunnel.kind), tunnel.mtu, int(remote.admit))
    return (
        PLAIN, place | first, place | last, owner.realm, whose.number, key.bind_id,
        lease.client_id, int(lease.method), way, lease.granted_at, lease.expires_at, whose.number.to_bytes(4, "big"),
    )  # fmt: skip


def as_odd(entry: Plain) -> Odd:
    """A plain lease as any other."""
    realm, address = entry.place >> 48, (entry.place >> 16 & 0xFFFFFFFF).to_bytes(4, "big")
    first, last = entry.place & 0xFFFF, entry.last & 0xFFFF
    ports = str(Ranges(((first, last),)))
    spans = ((int(Kind.PORT), first, last),)
    end, kind, mtu, admit = entry.way
    return Odd(
        sort=BIND,
        owner_realm=entry.near,
        owner_address=entry.owner_address,
        bind_id=entry.bind_id,
        client_id=entry.client_id,
        method=entry.method,
        granted_at=entry.granted_at,
        expires_at=entry.expires_at,
        realm=realm,
        address=address,
        length=32,
        resource=(ports, None, 0, None),
        spans=spans,
        tunnel=(entry.near, end, entry.owner_address, kind, mtu, False, None),
        selectors=((int(Kind.PORT), ports, "", None, None, None, admit),),
        wanted=((f"{Address.from_octets(address)} port {ports}", spans),),
    )


def _odd(effect: Bind) -> Odd:
    binding, lease, tunnel = effect.binding, effect.lease, effect.binding.tunnel
    local = binding.selectors[0].local
    return Odd(
        sort=BIND,
        owner_realm=binding.key.owner.realm,
        owner_address=binding.key.owner.address.octets,
        bind_id=binding.key.bind_id,
        client_id=lease.client_id,
        method=int(lease.method),
        granted_at=lease.granted_at,
        expires_at=lease.expires_at,
        realm=binding.realm,
        address=local.address.octets,
        length=local.length,
        resource=_resource(resource_of(binding)),
        spans=tuple(_spans(binding)),
        tunnel=(
            tunnel.realm, tunnel.local.octets, tunnel.remote.octets, int(tunnel.kind), tunnel.mtu, tunnel.checksum,
            binding.device,
        ),
        selectors=tuple(
            (
                None if each.kind is None else int(each.kind),
                str(each.values),
                str(each.lent),
                *((None, None) if each.remote.network is None else _prefix(each.remote.network)),
                each.remote.port,
                int(each.remote.admit),
            )
            for each in binding.selectors
        ),
        wanted=tuple((str(each), tuple(selector_spans(each.kind, each.values))) for each in binding.selectors),
    )  # fmt: skip


def _spans(binding: Binding) -> Iterator[Span]:
    """Everything that a binding holds, nothing twice."""
    for kind, values in ranges_of(binding):
        yield from selector_spans(kind, values)


def selector_spans(kind: Kind | None, values: Ranges) -> Iterator[Span]:
    """The ranges of a selector; a whole prefix is one of kind ``WHOLE``."""
    if kind is None:
        yield WHOLE, 0, 0
        return
    # An identity has 64 bits and a database 63 and a sign.
    less = 1 << 63 if kind.limit > 1 << 63 else 0
    for first, last in values.pairs:
        yield int(kind), first - less, last - less


def place_of(key: BindingKey) -> tuple[int, bytes, int]:
    """Where a binding stands among all of them."""
    return *owner_columns(key.owner), key.bind_id


def owner_columns(owner: Owner) -> tuple[int, bytes]:
    """The columns that name an owner."""
    return owner.realm, octets(owner.address)


def _prefix(prefix: Prefix) -> tuple[bytes, int]:
    return prefix.address.octets, prefix.length


def _resource(resource: Resource) -> tuple[str | None, str | None, int, str | None]:
    return (
        None if resource.ports is None else str(resource.ports),
        None if resource.spis is None else str(resource.spis),
        int(resource.ike),
        None if resource.identities is None else str(resource.identities),
    )
