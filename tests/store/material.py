# SPDX-License-Identifier: BSD-3-Clause
"""Bindings, leases and batches to store: by hand, and by Hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Durable, Ending, Extend, Prolong, Register, Remember, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind, Remote, Selector

PRIVATE, PUBLIC = 1, 2
GATEWAY = Address.parse("10.0.0.1")
GATEWAY6 = Address.parse("2001:db8::1")
SHARED = Address.parse("149.112.240.55")
OTHER = Address.parse("149.112.240.56")
ANNA = Owner(PRIVATE, Address.parse("10.0.0.4"))
BERT = Owner(PRIVATE, Address.parse("10.0.0.5"))
CLIENTS = {ANNA: 41, BERT: 51}


def key(owner: Owner, bind_id: int = 1) -> BindingKey:
    return BindingKey(owner, bind_id)


def ports(text: str, address: Address = SHARED, realm: int = PUBLIC) -> Selector:
    return Selector(realm=realm, local=Prefix.of(address), kind=Kind.PORT, values=Ranges.parse(text))


def spis(text: str, address: Address = SHARED) -> Selector:
    return Selector(realm=PUBLIC, local=Prefix.of(address), kind=Kind.SPI, values=Ranges.parse(text))


def whole(prefix: str, realm: int = PUBLIC) -> Selector:
    return Selector(realm=realm, local=Prefix.parse(prefix))


def bind(
    owner: Owner,
    *selectors: Selector,
    bind_id: int = 1,
    granted_at: float = 100.0,
    expires_at: float = 1000.0,
    client_id: int | None = None,
) -> Bind:
    return Bind(
        binding=Binding(
            key=key(owner, bind_id),
            selectors=selectors,
            crossing=Tunnel(
                realm=PRIVATE, local=GATEWAY if owner.address.family is Family.IPV4 else GATEWAY6, remote=owner.address
            ),
        ),
        lease=Lease(
            client_id=CLIENTS.get(owner, 1) if client_id is None else client_id,
            method=Method.RSAP_IP,
            granted_at=granted_at,
            expires_at=expires_at,
        ),
    )


def unbind(owner: Owner, bind_id: int = 1, ending: Ending = Ending.FREED) -> Unbind:
    return Unbind(key=key(owner, bind_id), ending=ending)


def register(owner: Owner, client_id: int | None = None, expires_at: float = 1000.0) -> Register:
    chosen = CLIENTS[owner] if client_id is None else client_id
    return Register(registration=Registration(owner=owner, client_id=chosen, expires_at=expires_at))


def remember(owner: Owner, counter: int = 1, octets: bytes = b"") -> Remember:
    return Remember(
        owner=owner, port=4555, counter=counter, request=b"\0request" + octets, answer=b"\xffanswer" + octets
    )


# Everything that a binding can be. At most one selector holds a prefix whole.

families = st.sampled_from(list(Family))
times = st.floats(0, 1e10, allow_nan=False)
numbers32 = st.integers(1, (1 << 32) - 1)


@st.composite
def addresses(draw: st.DrawFn, family: Family | None = None) -> Address:
    chosen = draw(families) if family is None else family
    return Address(chosen, draw(st.integers(0, (1 << chosen.bits) - 1)))


@st.composite
def prefixes(draw: st.DrawFn, family: Family | None = None, *, full: bool = False) -> Prefix:
    address = draw(addresses(family))
    length = address.family.bits if full else draw(st.integers(0, address.family.bits))
    shift = address.family.bits - length
    return Prefix(Address(address.family, address.number >> shift << shift), length)


@st.composite
def ranges(draw: st.DrawFn, kind: Kind) -> Ranges:
    number = st.integers(0, kind.limit - 1)
    pair = st.tuples(number, number).map(lambda two: (min(two), max(two)))
    return Ranges.of(*draw(st.lists(st.one_of(number, pair), min_size=1, max_size=6)))


remotes = st.builds(
    Remote,
    network=st.none() | prefixes(),
    port=st.none() | st.integers(1, (1 << 16) - 1),
    admit=st.sampled_from(Admit),
)


@st.composite
def _selectors_of(draw: st.DrawFn, realm: int, local: Prefix, kind: Kind) -> Selector:
    values = Ranges(()) if kind.is_learned else draw(ranges(kind))
    lent = draw(ranges(kind)) - values if kind is Kind.PORT and draw(st.booleans()) else Ranges(())
    if lent and draw(st.booleans()):
        values = Ranges(())
    return Selector(realm=realm, local=local, kind=kind, values=values, remote=draw(remotes), lent=lent)


@st.composite
def selectors(draw: st.DrawFn) -> tuple[Selector, ...]:
    realm = draw(numbers32)
    if draw(st.booleans()):
        return (Selector(realm=realm, local=draw(prefixes()), remote=draw(remotes)),)
    local = draw(prefixes(full=True))
    kinds = draw(st.lists(st.sampled_from(Kind), min_size=1, max_size=4))
    by_kind = [draw(_selectors_of(realm, local, kind)) for kind in kinds]
    return (*by_kind, *([Selector(realm=realm, local=local)] if draw(st.booleans()) else []))


@st.composite
def tunnels(draw: st.DrawFn) -> Tunnel:
    family = draw(families.filter(lambda each: each is not Family.SIP))
    kind = draw(st.sampled_from(TunnelKind))
    return Tunnel(
        realm=draw(numbers32),
        local=draw(addresses(family)),
        remote=draw(addresses(family)),
        kind=kind,
        mtu=draw(st.integers(68, 65000)),
        checksum=kind is TunnelKind.GRE and draw(st.booleans()),
    )


owners = st.builds(Owner, realm=numbers32, address=addresses())
binds = st.builds(
    Bind,
    binding=st.builds(
        Binding,
        key=st.builds(BindingKey, owner=owners, bind_id=st.integers(0, (1 << 32) - 1)),
        selectors=selectors(),
        crossing=tunnels(),
        device=st.none() | st.text(min_size=1, max_size=15),
    ),
    lease=st.builds(
        Lease,
        client_id=st.integers(0, (1 << 32) - 1),
        method=st.sampled_from(Method),
        granted_at=times,
        expires_at=times | st.just(FOREVER),
    ),
)

# A small world, where effects meet one another.

_owner = st.sampled_from([ANNA, BERT, Owner(3, ANNA.address)])
_key = st.builds(BindingKey, owner=_owner, bind_id=st.integers(1, 3))
_ending = st.sampled_from(Ending)
_when = st.integers(0, 300).map(float)
_selector = st.one_of(
    st.lists(st.integers(1, 12), min_size=1, max_size=4).map(lambda some: ports(",".join(map(str, sorted(set(some)))))),
    st.tuples(st.integers(0, 9), st.integers(0, 5)).map(lambda p: ports(f"{p[0]}-{p[0] + p[1]}", OTHER)),
    st.integers(1, 12).map(lambda first: spis(f"{first}-{first + 3}")),
    st.just(Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.COOKIE)),
    st.integers(1, 3).map(
        lambda value: Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.IDENTITY, values=Ranges.of(value))
    ),
    st.just(replace(ports("2-5"), lent=Ranges.of((6, 9)))),
    st.just(replace(ports("2"), values=Ranges(()), lent=Ranges.of(7))),
    st.sampled_from([whole("149.112.240.55"), whole("149.112.240.0/24"), whole("149.112.0.0/16", realm=7)]),
    st.just(ports("1-10", realm=7)),
)


@st.composite
def _small_binding(draw: st.DrawFn) -> Binding:
    first = draw(_selector)
    chosen = (first, spis("100-103", first.address)) if first.kind and draw(st.booleans()) else (first,)
    owned = draw(_key)
    if any((each.realm, each.local) != (first.realm, first.local) for each in chosen):
        chosen = (first,)
    tunnel = Tunnel(realm=PRIVATE, local=GATEWAY, remote=owned.owner.address)
    return Binding(key=owned, selectors=chosen, crossing=tunnel)


_effect: st.SearchStrategy[Durable] = st.one_of(
    st.builds(
        Register,
        registration=st.builds(Registration, owner=_owner, client_id=st.integers(1, 4), expires_at=_when),
    ),
    st.builds(Deregister, owner=_owner, ending=_ending),
    st.builds(
        Bind,
        binding=_small_binding(),
        lease=st.builds(
            Lease,
            client_id=st.integers(1, 2),
            method=st.sampled_from(Method),
            granted_at=st.sampled_from([50.0, 100.0]),
            expires_at=_when | st.just(FOREVER),
        ),
    ),
    st.builds(Extend, key=_key, expires_at=_when),
    st.builds(Prolong, owner=_owner, expires_at=_when),
    st.builds(Unbind, key=_key, ending=_ending),
    st.builds(
        Remember,
        owner=_owner,
        port=st.just(4555),
        counter=st.integers(0, (1 << 32) - 1),
        request=st.binary(max_size=4),
        answer=st.binary(max_size=4),
    ),
)
batches = st.lists(st.tuples(st.lists(_effect, max_size=5), st.integers(0, 90).map(float)), max_size=12)
"""Effects of one commit, and how many seconds after the one before."""
