# SPDX-License-Identifier: BSD-3-Clause
"""``BindingTable`` against a list that is searched from end to end."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Prolong, Register, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Flow, Kind, Remote, Selector
from isthmus.border.table import BindingTable, whole
from isthmus.errors import Conflict

OWNERS = [Owner(1, Address.parse(f"10.0.0.{n}")) for n in (4, 5)]


def address(n: int) -> Address:
    return Address(Family.IPV4, 0xC0000200 + n)


def binding(key: BindingKey, *selectors: Selector, kind: TunnelKind = TunnelKind.IPIP) -> Binding:
    tunnel = Tunnel(realm=1, local=Address.parse("10.0.0.1"), remote=key.owner.address, kind=kind)
    return Binding(key=key, selectors=selectors, crossing=tunnel)


def ports(n: int, values: Ranges, *, realm: int = 2, kind: Kind = Kind.PORT) -> Selector:
    return Selector(realm=realm, local=Prefix.of(address(n)), kind=kind, values=values)


def prefix(n: int, length: int, realm: int = 2) -> Selector:
    start = 0xC0000200 + n >> (32 - length) << (32 - length)
    return Selector(realm=realm, local=Prefix(Address(Family.IPV4, start), length))


KEYS = st.builds(BindingKey, st.sampled_from(OWNERS), st.integers(1, 4))
VALUES = st.lists(
    st.tuples(st.integers(0, 14), st.integers(0, 3)).map(lambda pair: (pair[0], sum(pair))), min_size=1, max_size=3
).map(lambda pairs: Ranges.of(*pairs))
SELECTORS = st.one_of(
    st.builds(ports, st.integers(0, 3), VALUES, realm=st.integers(2, 3), kind=st.sampled_from([Kind.PORT, Kind.SPI])),
    st.builds(prefix, st.integers(0, 3), st.sampled_from([24, 30, 31, 32]), st.integers(2, 3)),
)
STEPS = st.lists(st.one_of(st.tuples(KEYS, SELECTORS), st.tuples(KEYS, st.none())), max_size=25)
FLOWS = st.builds(
    Flow,
    realm=st.integers(2, 3),
    local=st.builds(address, st.integers(0, 4)),
    remote=st.just(Address.parse("198.51.100.9")),
    kind=st.sampled_from([None, Kind.PORT, Kind.SPI]),
    value=st.integers(0, 18),
)


def naive_conflict(held: dict, key: BindingKey, wanted: Selector) -> bool:
    for other, selector in held.items():
        if other == key or (selector.realm, selector.kind) != (wanted.realm, wanted.kind):
            continue
        if wanted.kind is None and selector.local == wanted.local:
            return True
        if wanted.kind is not None and selector.local == wanted.local and set(selector.values) & set(wanted.values):
            return True
    return False


def naive_lookup(held: dict, flow: Flow):
    owning = [(key, selector) for key, selector in held.items() if selector.owns(flow)]
    owning.sort(key=lambda pair: (pair[1].kind is not None, pair[1].local.length), reverse=True)
    return owning[0][0] if owning else None


@settings(max_examples=300)
@given(STEPS, st.lists(FLOWS, min_size=1, max_size=12))
def test_binding_unbinding_conflicts_and_lookups_agree_with_a_list(steps, flows):
    table, held = BindingTable(), {}
    for key, selector in steps:
        if selector is None:
            table.unbind(key)
            held.pop(key, None)
        elif naive_conflict(held, key, selector):
            with pytest.raises(Conflict):
                table.bind(binding(key, selector), expires_at=9.0)
        else:
            table.bind(binding(key, selector), expires_at=9.0)
            held[key] = selector
        assert len(table) == len(held)
        assert {entry.binding.key for entry in table} == set(held)
        for flow in flows:
            found = table.lookup(flow)
            assert (found.binding.key if found else None) == naive_lookup(held, flow)
        for owner in OWNERS:
            assert [entry.binding.key for entry in table.held_by(owner)] == sorted(
                key for key in held if key.owner == owner
            )


@given(STEPS)
def test_unbinding_everything_leaves_nothing(steps):
    table, keys = BindingTable(), set()
    for key, selector in steps:
        if selector is not None:
            keys.add(key)
            with contextlib.suppress(Conflict):
                table.bind(binding(key, selector), expires_at=9.0)
    for key in keys:
        table.unbind(key)
    assert len(table) == 0
    assert not table._by_demux
    assert not any(by_length for by_length in table._by_prefix.values())
    assert not table._held


ALICE = BindingKey(OWNERS[0], 1)
BOB = BindingKey(OWNERS[1], 1)


def flow(n: int, value: int | None = None) -> Flow:
    kind = None if value is None else Kind.PORT
    return Flow(realm=2, local=address(n), remote=Address.parse("198.51.100.9"), kind=kind, value=value or 0)


def test_a_binding_does_not_widen_over_another_that_lies_before_its_own_values():
    table, mine, others = BindingTable(), BindingKey(OWNERS[0], 1), BindingKey(OWNERS[0], 2)
    table.bind(binding(mine, ports(1, Ranges.of((9, 9)))), expires_at=10)
    table.bind(binding(others, ports(1, Ranges.of((0, 0)))), expires_at=10)
    with pytest.raises(Conflict):
        table.bind(binding(mine, ports(1, Ranges.of((0, 31)))), expires_at=10)
    assert table.holder(ports(1, Ranges.of((0, 31))), besides=mine) == others
    table.bind(binding(mine, ports(1, Ranges.of((1, 31)))), expires_at=10)


def test_a_conflict_changes_nothing():
    table = BindingTable()
    table.bind(binding(ALICE, ports(1, Ranges.of((10, 19)))), expires_at=9.0)
    table.bind(binding(BOB, ports(1, Ranges.of((30, 39)))), expires_at=9.0)
    with pytest.raises(Conflict, match="held"):
        table.bind(binding(BOB, ports(1, Ranges.of(5, (19, 20)))), expires_at=9.0)
    assert table.lookup(flow(1, 35)).binding.key == BOB
    assert table.lookup(flow(1, 5)) is None


def test_binding_a_key_again_replaces_it():
    table = BindingTable()
    table.bind(binding(ALICE, ports(1, Ranges.of((10, 19)))), expires_at=9.0)
    table.bind(binding(ALICE, ports(1, Ranges.of((15, 25)))), expires_at=10.0)
    assert table.lookup(flow(1, 12)) is None
    assert table.lookup(flow(1, 22)).expires_at == 10.0
    assert len(table) == 1


def test_the_most_specific_entry_wins():
    table = BindingTable()
    site, one, some = (BindingKey(OWNERS[0], n) for n in (1, 2, 3))
    table.bind(binding(site, prefix(1, 24)), expires_at=9.0)
    table.bind(binding(one, whole(2, address(1))), expires_at=9.0)
    table.bind(binding(some, ports(1, Ranges.of((10, 19)))), expires_at=9.0)
    assert table.lookup(flow(1, 15)).binding.key == some
    assert table.lookup(flow(1, 25)).binding.key == one
    assert table.lookup(flow(1)).binding.key == one
    assert table.lookup(flow(2, 15)).binding.key == site


def test_a_binding_with_ports_and_spis_is_found_by_either():
    table = BindingTable()
    both = binding(ALICE, ports(1, Ranges.of(10)), ports(1, Ranges.of(5000), kind=Kind.SPI))
    table.bind(both, expires_at=9.0)
    spi = Flow(realm=2, local=address(1), remote=address(9), kind=Kind.SPI, value=5000)
    assert table.lookup(flow(1, 10)).binding is table.lookup(spi).binding is both
    table.unbind(ALICE)
    assert table.lookup(spi) is None


def test_effects_are_applied():
    table = BindingTable()
    owner = ALICE.owner
    table.apply(Register(registration=Registration(owner=owner, client_id=1, expires_at=9.0)))
    assert table.is_registered(owner)
    lease = Lease(client_id=1, method=Method.RSAP_IP, granted_at=0.0, expires_at=9.0)
    table.apply(Bind(binding=binding(ALICE, ports(1, Ranges.of(10)), kind=TunnelKind.GRE), lease=lease))
    assert table.get(ALICE).expires_at == 9.0
    assert table.tunnel_kinds(owner) == {TunnelKind.GRE}
    table.apply(Extend(key=ALICE, expires_at=19.0))
    table.apply(Extend(key=BOB, expires_at=19.0))
    table.apply(Prolong(owner=owner, expires_at=19.0))
    assert table.get(ALICE).expires_at == 19.0
    assert table.holds_address(owner, 2, address(1))
    assert not table.holds_address(owner, 3, address(1))
    assert not table.holds_address(BOB.owner, 2, address(1))
    table.apply(Unbind(key=ALICE, ending=Ending.FREED))
    table.apply(Unbind(key=ALICE, ending=Ending.FREED))
    assert table.get(ALICE) is None
    table.apply(Deregister(owner=owner, ending=Ending.FREED))
    assert not table.is_registered(owner)


def test_claims_are_what_a_pool_may_lease():
    table = BindingTable([ports(1, Ranges.of((10, 19))), prefix(4, 30)])
    assert table.claims(flow(1, 12))
    assert not table.claims(flow(1, 22))
    assert not table.claims(flow(1))
    assert table.claims(flow(5, 1))
    assert table.claims_address(2, address(1))
    assert not table.claims_address(2, address(2))
    assert not table.claims_address(3, address(1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: binding(ALICE),
        lambda: binding(ALICE, ports(1, Ranges.of(1)), ports(2, Ranges.of(1))),
        lambda: Selector(realm=2, local=Prefix.of(address(1)), values=Ranges.of(1)),
        lambda: prefix(1, 24).__class__(realm=2, local=prefix(1, 24).local, kind=Kind.PORT, values=Ranges.of(1)),
        lambda: ports(1, Ranges.of(1 << 16)),
        lambda: ports(1, Ranges(())),
    ],
)
def test_values_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()


# --- who may send ESP and AH, and learn cookies: asked by holder, since the packet carries its peer's value ---


def limited(n: int, values: Ranges, network: str | None, kind: Kind = Kind.SPI) -> Selector:
    remote = Remote(network=None if network is None else Prefix.parse(network))
    return Selector(realm=2, local=Prefix.of(address(n)), kind=kind, values=values, remote=remote)


def esp(n: int, remote: str = "192.0.2.200") -> Flow:
    return Flow(realm=2, local=address(n), remote=Address.parse(remote), kind=Kind.SPI, value=4711)


@pytest.mark.rfc("3104", "4")
def test_a_holder_of_any_spi_of_an_address_may_send_with_every_spi_of_its_peers() -> None:
    table = BindingTable()
    first, second = BindingKey(OWNERS[0], 1), BindingKey(OWNERS[1], 1)
    table.bind(binding(first, limited(1, Ranges.of((4096, 4111)), None)), expires_at=1.0)
    table.bind(binding(second, limited(1, Ranges.of((8192, 8207)), None)), expires_at=1.0)
    for key in (first, second):
        found = table.lookup_holder(esp(1), Kind.SPI, key.owner)
        assert found is not None
        assert found.binding.key == key
    assert table.lookup_holder(esp(2), Kind.SPI, OWNERS[0]) is None
    assert table.lookup_holder(esp(1), Kind.COOKIE, OWNERS[0]) is None
    table.unbind(first)
    assert table.lookup_holder(esp(1), Kind.SPI, OWNERS[0]) is None


def test_of_several_bindings_the_one_without_a_limit_counts_then_the_one_that_allows_the_peer() -> None:
    table = BindingTable()
    keys = [BindingKey(OWNERS[0], n) for n in range(1, 5)]

    def found(remote: str) -> int:
        entry = table.lookup_holder(esp(1, remote), Kind.SPI, OWNERS[0])
        assert entry is not None
        return entry.binding.key.bind_id

    table.bind(binding(keys[0], limited(1, Ranges.of((4096, 4097)), "192.0.2.0/24")), expires_at=1.0)
    table.bind(binding(keys[1], limited(1, Ranges.of((4098, 4099)), "198.51.100.0/24")), expires_at=1.0)
    assert (found("192.0.2.200"), found("198.51.100.1"), found("203.0.113.1")) == (1, 2, 2)
    table.bind(binding(keys[2], limited(1, Ranges.of((4100, 4101)), None)), expires_at=1.0)
    assert {found("192.0.2.200"), found("203.0.113.1")} == {3}
    table.bind(binding(keys[3], limited(1, Ranges.of((4102, 4103)), None)), expires_at=1.0)
    assert found("192.0.2.200") == 4, "the youngest"


def test_who_holds_an_address_whole_sends_esp_from_it() -> None:
    table = BindingTable()
    key = BindingKey(OWNERS[0], 1)
    table.bind(binding(key, whole(2, address(1))), expires_at=1.0)
    found = table.lookup_holder(esp(1), Kind.SPI, OWNERS[0])
    assert found is not None
    assert found.binding.key == key
    assert table.lookup_holder(esp(1), Kind.SPI, OWNERS[1]) is None


@pytest.mark.rfc("3104", "6.1")
def test_cookies_are_learned_where_somebody_holds_a_selector_for_them_and_nowhere_else() -> None:
    table = BindingTable()
    keys = [BindingKey(owner, 1) for owner in OWNERS]
    assert not table.learns(2, address(1), Kind.COOKIE)
    for key in keys:
        table.bind(binding(key, limited(1, Ranges(()), None, Kind.COOKIE)), expires_at=1.0)
    assert table.learns(2, address(1), Kind.COOKIE)
    assert not table.learns(2, address(2), Kind.COOKIE)
    for key in keys:
        found = table.lookup_holder(esp(1), Kind.COOKIE, key.owner)
        assert found is not None
        assert found.binding.key == key
        table.unbind(key)
    assert not table.learns(2, address(1), Kind.COOKIE)


def test_selectors_of_learned_values_name_none() -> None:
    with pytest.raises(ValueError, match="learned"):
        limited(1, Ranges.of((1, 1)), None, Kind.COOKIE)
    assert str(limited(1, Ranges(()), None, Kind.COOKIE)) == f"{address(1)} cookie"
