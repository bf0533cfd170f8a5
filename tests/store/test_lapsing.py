# SPDX-License-Identifier: BSD-3-Clause
"""What runs out as columns: the same from any store, nothing of hosts that hold other things, and it ends as one by one."""

import numpy as np
import pytest

from isthmus.address import Address, Family
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Ending, Lapse, Register, Remember
from isthmus.border.plain import Hosts, PlainGroup, one_by_one, plain_binding
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Selector
from isthmus.store.memory import MemoryStore
from isthmus.store.sqlite import SqliteStore

NEAR, FAR = 1, 2
LOCAL = 0xC0000201
GROUP = PlainGroup(
    realm=FAR, near=NEAR, end=Address.parse("10.0.0.1"), kind=TunnelKind.IPIP, mtu=1480, admit=Admit.CONTACTED
)


def host(number, *, near=NEAR):
    return Owner(near, Address(Family.IPV4, 0x0A000000 + number))


def admit(owner, *, until, heard=True):
    client_id = owner.address.number & 0xFFFF or 99
    yield Register(registration=Registration(owner=owner, client_id=client_id, expires_at=until))
    if heard:
        yield Remember(owner=owner, port=5000 + client_id, counter=1, request=b"?", answer=b"!")


def lease(owner, first, *, until, bind_id=1, change=lambda binding: binding):
    binding = plain_binding(
        GROUP, local=LOCAL, values=Ranges.of((first, first + 15)), owner=owner.address.number, bind_id=bind_id
    )
    granted = Lease(client_id=owner.address.number & 0xFFFF, method=Method.RSAP_IP, granted_at=1.0, expires_at=until)
    yield Bind(binding=change(binding), lease=granted)


def lending(binding):
    (selector,) = binding.selectors
    lent = Selector(
        realm=selector.realm,
        local=selector.local,
        kind=selector.kind,
        values=selector.values - Ranges.of(selector.values.pairs[0][0]),
        remote=selector.remote,
        lent=Ranges.of(selector.values.pairs[0][0]),
    )
    return type(binding)(key=binding.key, selectors=(lent,), crossing=binding.crossing)


def fill(store):
    effects = [
        *admit(host(1), until=50.0), *lease(host(1), 1024, until=50.0), *lease(host(1), 1040, until=40.0, bind_id=2),
        *admit(host(2), until=90.0), *lease(host(2), 1056, until=50.0), *lease(host(2), 1072, until=90.0, bind_id=2),
        *admit(host(3), until=50.0),
        *admit(host(4), until=50.0, heard=False), *lease(host(4), 1088, until=50.0),
        *admit(host(5), until=50.0), *lease(host(5), 1104, until=50.0),
        *lease(host(5), 1120, until=50.0, bind_id=2, change=lending),
        *admit(host(6), until=90.0), *lease(host(6), 1136, until=90.0),
        *admit(host(7, near=3), until=50.0),
    ]  # fmt: skip
    store.commit(effects, now=1.0)


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "leases.db")
    yield store
    store.close()


def test_what_runs_out_of_hosts_with_nothing_but_plain_leases(store):
    fill(store)
    found = store.lapsing(NEAR, before=60.0, limit=100)
    hosts = found.hosts
    assert sorted(zip(hosts.address, hosts.client_id, hosts.port, hosts.gone, strict=True)) == [
        (0x0A000001, 1, 5001, True),
        (0x0A000002, 2, 5002, False),
        (0x0A000003, 3, 5003, True),
    ]
    bound = {binding.key: binding.selectors[0].values for each in found.leases for binding, _ in each.bindings()}
    assert bound == {
        BindingKey(host(1), 1): Ranges.of((1024, 1039)),
        BindingKey(host(1), 2): Ranges.of((1040, 1055)),
        BindingKey(host(2), 1): Ranges.of((1056, 1071)),
    }
    assert not len(store.lapsing(NEAR, before=30.0, limit=100).hosts.address)


def test_a_lapse_ends_what_its_parts_would_end(store):
    fill(store)
    found = store.lapsing(NEAR, before=60.0, limit=100)
    lapse = Lapse(leases=found.leases, hosts=Hosts(near=NEAR, address=found.hosts.address[found.hosts.gone]))
    other = MemoryStore()
    fill(other)
    store.commit([lapse], now=60.0)
    other.commit(tuple(one_by_one([lapse])), now=60.0)
    assert store.load(rested_since=0.0) == other.load(rested_since=0.0)
    assert {each.binding.key.owner for each in store.leases()} == {host(2), host(4), host(5), host(6)}
    (tenure,) = store.who_had(Address(Family.IPV4, LOCAL), port=1024, at=None)
    assert (tenure.ended_at, tenure.ending) == (50.0, Ending.EXPIRED)
    assert not len(store.lapsing(NEAR, before=60.0, limit=100).hosts.address)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_what_runs_out_comes_by_parts_each_once_whether_or_not_the_last_one_has_ended(store, limit, ends):
    fill(store)
    for number in range(20, 26):
        until = 50.0 if number % 2 else 90.0
        store.commit([*admit(host(number), until=until), *lease(host(number), 4096 + 16 * number, until=50.0)], now=1.0)
    gone, bound, after = [], [], None
    while True:
        found = store.lapsing(NEAR, before=60.0, limit=limit, after=after)
        leaving = found.hosts.address[found.hosts.gone]
        gone += leaving.tolist()
        bound += [binding.key for each in found.leases for binding, _ in each.bindings()]
        if ends:
            store.commit([Lapse(leases=found.leases, hosts=Hosts(near=NEAR, address=leaving))], now=60.0)
        after = found.after
        if after is None:
            break
    assert sorted(gone) == [0x0A000000 + number for number in (1, 3, 21, 23, 25)]
    expected = [BindingKey(host(1), 2), *(BindingKey(host(each), 1) for each in (1, 2, *range(20, 26)))]
    assert sorted(bound) == sorted(expected)
    assert ends == (not len(store.lapsing(NEAR, before=60.0, limit=100).hosts.address))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_leases_come_by_pages(store, limit):
    fill(store)
    for number, address in enumerate(("a00::1007", "2001:db8::1008", "2001:db8::1009")):
        owner = Owner(NEAR, Address.parse(address))
        store.commit([*admit(owner, until=90.0), *beyond(owner, 2048 + 16 * number)], now=1.0)
    store.commit([*admit(host(200 << 16), until=90.0), *lease(host(200 << 16), 4096, until=90.0)], now=1.0)
    found, page = [], ()
    while page or not found:
        page = store.page(after=page[-1].binding.key if page else None, limit=limit)
        assert len(page) <= limit
        found += page
    assert len(found) == len(store.leases()) > 10
    assert sorted(found, key=lambda each: each.binding.key) == list(store.leases())


def beyond(owner, first):
    """A lease of a host that has an IPv6 address."""
    (bind,) = lease(host(9), first, until=90.0)
    crossing = Tunnel(realm=NEAR, local=Address.parse("2001:db8::1"), remote=owner.address, mtu=1440)
    binding = Binding(key=BindingKey(owner, 1), selectors=bind.binding.selectors, crossing=crossing)
    yield Bind(binding=binding, lease=bind.lease)


def test_of_very_much_the_soonest_is_told_first(tmp_path):
    with_many = SqliteStore(tmp_path / "leases.db")
    for number in range(1, 30):
        effects = [*admit(host(number), until=100.0 - number), *lease(host(number), 16 * number, until=100.0 - number)]
        with_many.commit(effects, now=1.0)
    found = with_many.lapsing(NEAR, before=200.0, limit=10)
    assert np.sort(found.hosts.address).tolist() == [0x0A000000 + number for number in range(20, 30)]
    assert sum(map(len, found.leases)) == 10
    with_many.close()
