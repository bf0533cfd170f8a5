# SPDX-License-Identifier: BSD-3-Clause
"""What stands, read as text by the thousand: the same as row by row, for every deadline, way, realm and address."""

import random

import pytest

from isthmus.address import Address, Family
from isthmus.border.binding import FOREVER, Lease, Method, Owner, Registration
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.plain import PlainGroup, plain_binding
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit
from isthmus.store import columns
from isthmus.store.memory import MemoryStore
from isthmus.store.sqlite import SqliteStore
from store.columns import as_rows

END = Address.parse("10.0.0.1")
MOST = (1 << 32) - 1
GROUP = PlainGroup(realm=2, near=1, end=END, kind=TunnelKind.IPIP, mtu=1480, admit=Admit.CONTACTED)
OTHERS = (
    PlainGroup(realm=(1 << 15) - 1, near=1, end=END, kind=TunnelKind.GRE, mtu=1476, admit=Admit.ANYONE),
    PlainGroup(realm=2, near=3, end=END, kind=TunnelKind.IPIP, mtu=1480, admit=Admit.CONTACTED),
)


def effects(seed, *, count, groups, deadline):
    chance = random.Random(seed)
    hosts = set()
    for at in range(count):
        group = chance.choice(groups)
        # Addresses of 0, of little and of very much; Bind IDs likewise.
        owner = chance.choice((chance.randrange(4), chance.randrange(MOST + 1), MOST))
        if (group.near, owner) not in hosts:
            hosts.add((group.near, owner))
            whose = Owner(group.near, Address(Family.IPV4, owner))
            client_id = chance.choice((at, MOST - at))
            yield Register(registration=Registration(owner=whose, client_id=client_id, expires_at=deadline(chance)))
        first, ports = at % 1000 * 16, chance.choice((1, 16))
        local = chance.choice((0, 0xC6336401, MOST))
        values = Ranges.of((first, first + ports - 1))
        bind_id = chance.choice((at, MOST - at))
        lease = Lease(client_id=at, method=Method.RSAP_IP, granted_at=1.0, expires_at=deadline(chance))
        yield Bind(binding=plain_binding(group, local=local, values=values, owner=owner, bind_id=bind_id), lease=lease)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize("groups", [(GROUP,), (GROUP, *OTHERS)], ids=["one way", "several"])
@pytest.mark.parametrize(
    "deadline",
    [
        lambda chance: chance.uniform(1.2e9, 2.1e9),
        lambda chance: chance.uniform(0.0, 1e6),
        lambda chance: chance.choice((FOREVER, 1.9e9 + 0.1, 50.0)),
    ],
    ids=["of these years", "small", "without an end"],
)
def test_the_store_says_what_stands_as_if_it_had_objects(tmp_path, monkeypatch, at_once, groups, deadline):
    monkeypatch.setattr(columns, "_AT_ONCE", at_once)
    batch = list(effects(at_once, count=40, groups=groups, deadline=deadline))
    wanted, store = MemoryStore(), SqliteStore(tmp_path / "leases.db")
    for each in (wanted, store):
        each.commit(batch, now=1.0)
    assert as_rows(store.standing(rested_since=0.0)) == as_rows(wanted.standing(rested_since=0.0))
    store.close()


def test_an_empty_store_has_no_columns(tmp_path):
    store = SqliteStore(tmp_path / "leases.db")
    standing = store.standing(rested_since=0.0)
    assert not standing.plain
    assert not standing.hosts
    store.close()
