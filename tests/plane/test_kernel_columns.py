# SPDX-License-Identifier: BSD-3-Clause
"""Plain leases as columns: into the maps comes what would come of them one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind, Way
from isthmus.border.effect import Bind, Deregister, Ending, Lapse, Register, Unbind
from isthmus.border.plain import Hosts, PlainGroup, PlainLeases, as_effects, endings, unnamed, whole_address
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Selector
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, image
from isthmus.plane.kernel import lapse as lapsing
from isthmus.plane.kernel.batch import ARRAYS, TABLES
from isthmus.plane.kernel.briefs import WORDS, brief_of
from isthmus.plane.kernel.direct import DIRECT
from isthmus.plane.kernel.pinned import BRIEF_SLICES
from isthmus.plane.reference import ReferencePlane
from plane.fixture import NOW
from plane.kernel_under_test import OBJECT, KernelUnderTest

PRIVATE, PUBLIC = 1, 2
UPPER = Address.parse("2001:db8::1:0:0").number >> 32
GATEWAY, FIRST = 0x0A000001, 0xC6336400
kernel = KernelUnderTest()
pytestmark = [pytest.mark.root, pytest.mark.skipif(not OBJECT.exists(), reason="needs the objects: make -C bpf")]


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _a_few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_LARGE", 0)


def border() -> Border:
    addresses = (Prefix.of(Address(Family.IPV4, FIRST + at)) for at in range(3))
    return Border(
        realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public")),
        tunnel_ends=tuple(
            TunnelEnd(realm=PRIVATE, address=each, leads_to=PUBLIC)
            for each in (Address(Family.IPV4, GATEWAY), whole_address(UPPER, GATEWAY))
        ),
        claims=tuple(
            Selector(realm=PUBLIC, local=each, kind=Kind.PORT, values=Ranges.of((1000, 65535))) for each in addresses
        ),
    )


def group(
    *, admit: Admit = Admit.ANYONE, kind: TunnelKind = TunnelKind.IPIP, mtu: int = 1480, upper: int = 0
) -> PlainGroup:
    end = whole_address(upper, GATEWAY)
    return PlainGroup(realm=PUBLIC, near=PRIVATE, end=end, kind=kind, mtu=mtu, admit=admit, upper=upper)


def columns(seed: int, upper: int = 0) -> tuple[list[PlainLeases], list[Hosts]]:
    """Leases of one slice and of several, of odd ports, of a slice that is claimed in part, of who has not registered."""
    chance = random.Random(seed)
    rows: list[list[tuple[int, int, int, int, int, float]]] = [[], [], []]
    for address in range(3):
        port = 1000
        while port < 12000:
            ports = chance.choice([64, 64, 128, 640, 10, 24, 100])
            port += -port % 64 if ports % 64 == 0 else 0
            owner = chance.choice([0x0A000000, 0xAC100000, 0xC0A80000]) + 2 + chance.randrange(60)
            deadline = chance.choice([FOREVER, NOW + 900, NOW + 0.5, NOW - 5])
            row = (FIRST + address, port, ports, owner, len(rows[0]) + len(rows[1]) * 1000, deadline)
            rows[chance.choice([0, 0, 0, 1, 2])].append(row)
            port += ports + chance.choice([0, 0, 64])
    rows = [[(*row[:4], at + 1000 * nth, row[5]) for at, row in enumerate(each)] for nth, each in enumerate(rows)]
    groups = [
        group(upper=upper),
        group(admit=Admit.CONTACTED, upper=upper),
        group(kind=TunnelKind.GRE, mtu=1476, upper=upper),
    ]
    hosts = sorted({row[3] for each in rows for row in each if row[3] % 7} | {0x0A00F000})
    registered = [Hosts(near=PRIVATE, address=np.array(hosts, np.uint32), upper=upper)]
    return [PlainLeases.of_rows(*each) for each in zip(groups, rows, strict=True)], registered


def shown(plane: KernelPlane) -> dict[str, object]:
    """What the maps hold, endpoints by what they are and not by their numbers; briefs say nothing but what words do."""
    lines = plane._briefs.memory
    for line in range(len(plane._words) // BRIEF_SLICES):
        told = brief_of(plane._words[line * BRIEF_SLICES : (line + 1) * BRIEF_SLICES])
        assert lines[line * WORDS : (line + 1) * WORDS] == memoryview(told)
    found = {
        name: dict(plane._maps[name].used() if name in ARRAYS else plane._maps[name].items())
        for name in TABLES
        if name != "meant"
    }
    ends = {int.from_bytes(key, "little"): value for key, value in found.pop("endpoints").items()}
    for name in ("by_demux", "by_prefix"):
        found[name] = {
            key: ends.get(int.from_bytes(value[:4], "little"), b"") + value[4:] for key, value in found[name].items()
        }
    words = [
        (word >> 32, word & 15, ends[1 + (word >> 4 & 15)], word >> 8 & 0xFFFFFF)
        if word & DIRECT
        else (word >> 32, word & 255, ends.get(word >> 8 & 0xFFFFFF), 0)
        for word in plane._words.tolist()
    ]
    return {**found, "endpoints": set(ends.values()), "slices": words}


def in_plane(work: object) -> None:
    def inside() -> None:
        kernel.bench().links.forget()
        plane = KernelPlane(border(), pin=None, boot_offset=NOW - 1000, links=kernel.bench().links)
        try:
            assert callable(work)
            work(plane)
        finally:
            plane.close()

    kernel.bench().do(inside)


@pytest.mark.parametrize(("seed", "upper"), [(0, 0), (1, 0), (2, UPPER), (3, UPPER), (4, 0)])
def test_columns_and_effects_make_the_same_maps(seed: int, upper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, registered = columns(seed, upper)
    odd = [*as_effects([], [Hosts(near=PRIVATE, address=np.array([0x0A00FF01], np.uint32))]), whole()]

    def work(plane: KernelPlane) -> None:
        with monkeypatch.context() as few:
            few.setattr(image, "_LARGE", 1 << 30)
            plane.reconcile([*as_effects(plain, registered), *odd])
            expected = shown(plane)
            plane.reconcile(())
        plane.reconcile(odd, plain, registered)
        assert shown(plane) == expected
        assert any(word & DIRECT for word in plane._words.tolist())
        plane.reconcile(odd, plain, registered)
        assert shown(plane) == expected

    in_plane(work)


def whole() -> Bind:
    """An address that is held whole, by who has a plain lease, too."""
    owner = Owner(PRIVATE, Address(Family.IPV4, 0x0A000003))
    tunnel = Tunnel(realm=PRIVATE, local=Address(Family.IPV4, GATEWAY), remote=owner.address)
    selector = Selector(realm=PUBLIC, local=Prefix.of(Address(Family.IPV4, FIRST + 77)))
    return Bind(
        binding=Binding(key=BindingKey(owner, 5000), selectors=(selector,), crossing=tunnel), lease=unnamed(FOREVER)
    )


def test_what_came_in_columns_goes_and_changes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, registered = columns(9)
    effects = list(as_effects(plain, registered))
    gone = [each for at, each in enumerate(effects) if isinstance(each, Bind) and at % 3 == 0]
    dismissed = Owner(PRIVATE, Address(Family.IPV4, int(plain[0].owner[0])))
    changes: list[Programmable] = [
        *(Unbind(key=each.binding.key, ending=Ending.FREED) for each in gone),
        Deregister(owner=dismissed, ending=Ending.FREED),
    ]

    def work(plane: KernelPlane) -> None:
        plane.reconcile((), plain, registered)
        plane.apply(changes)
        found = shown(plane)
        monkeypatch.setattr(image, "_LARGE", 1 << 30)
        plane.reconcile([*effects, *changes])
        again = shown(plane)
        for table in ("owners", "holdings", "by_demux"):
            assert found[table] == again[table]
        plane.apply([Unbind(key=each.key, ending=Ending.FREED) for each in list(plane._image.bindings())])
        assert not shown(plane)["endpoints"]
        assert not shown(plane)["holdings"]

    in_plane(work)


@pytest.mark.parametrize("admit", [Admit.ANYONE, Admit.CONTACTED], ids=["one group", "two groups"])
def test_what_two_hold_is_refused_as_it_is_one_by_one(admit: Admit) -> None:
    one, other = 0x0A000002, 0x0A000003
    plain = [
        PlainLeases.of_rows(group(), [(FIRST, 1024, 128, one, 1, FOREVER)]),
        PlainLeases.of_rows(group(admit=admit), [(FIRST, 1088, 64, other, 1, FOREVER)]),
    ]
    if admit is Admit.ANYONE:
        plain = [
            PlainLeases.of_rows(group(), [(FIRST, 1024, 128, one, 1, FOREVER), (FIRST, 1088, 64, other, 1, FOREVER)])
        ]
    hosts = [Hosts(near=PRIVATE, address=np.array([one, other], np.uint32))]

    def work(plane: KernelPlane) -> None:
        with pytest.raises(PlaneError, match="is already held"):
            plane.reconcile(tuple(as_effects(plain, hosts)))
        with pytest.raises(PlaneError, match="is already held"):
            plane.reconcile((), plain, hosts)

    in_plane(work)


def test_a_narrow_way_leads_through_an_endpoint_of_its_own() -> None:
    rows = [(FIRST, 1024 + 64 * at, 64, 0x0A000002 + at, 1, NOW + 900) for at in range(5)]
    hosts = [Hosts(near=PRIVATE, address=np.array([row[3] for row in rows], np.uint32))]
    way = Way(PRIVATE, Address(Family.IPV4, GATEWAY), Address(Family.IPV4, 0x0A000004))

    def direct(plane: KernelPlane) -> list[bool]:
        return [bool(plane._words[16 + at] & DIRECT) for at in range(5)]

    def work(plane: KernelPlane) -> None:
        plane.limit(way, 1300)
        plane.reconcile((), [PlainLeases.of_rows(group(), rows)], hosts)
        assert direct(plane) == [True, True, False, True, True]
        plane.limit(way, None)
        assert direct(plane) == [True] * 5
        plane.limit(way, 1300)
        assert direct(plane) == [True, True, False, True, True]
        plane.limit(way, None)

    in_plane(work)


def test_a_host_that_has_not_registered_has_no_direct_words() -> None:
    owner = Owner(PRIVATE, Address(Family.IPV4, 0x0A000002))
    plain = PlainLeases.of_rows(group(), [(FIRST, 1024, 128, owner.address.number, 1, NOW + 900)])
    register = Register(registration=Registration(owner=owner, client_id=1, expires_at=FOREVER))

    def work(plane: KernelPlane) -> None:
        plane.reconcile((), [plain], [])
        words = plane._words[16:18].tolist()
        assert not any(word & DIRECT for word in words)
        plane.apply([register])
        assert all(word & DIRECT for word in plane._words[16:18].tolist())
        plane.apply([Deregister(owner=owner, ending=Ending.FREED)])
        assert [word & 255 for word in plane._words[16:18].tolist()] == [word & 255 for word in words]
        plane.apply([replace(register)])
        assert [each for each, _ in plain.bindings()] == list(plane._image.bindings())

    in_plane(work)


def lapse(seed: int, plain: list[PlainLeases], registered: list[Hosts]) -> Lapse:
    """Leases of all forms, some twice or nobody's; hosts that keep a lease and that do not, and strangers."""
    chance = np.random.default_rng(seed)
    ended = [each.at(chance.random(len(each)) < 0.6) for each in plain]
    twice = plain[0].at(np.array([0, 0]))
    nobodys = replace(plain[0].at(np.arange(2)), bind_id=np.array([9999, 9998], np.uint32))
    hosts = registered[0].address
    gone = np.concatenate([hosts[chance.random(len(hosts)) < 0.7], np.array([0x0A00FF02], np.uint32)])
    return Lapse(leases=(*ended, twice, nobodys), hosts=replace(registered[0], address=gone))


@pytest.mark.parametrize(("seed", "upper"), [(0, 0), (1, 0), (2, 0), (3, UPPER), (4, UPPER), (5, UPPER)])
def test_what_lapses_at_once_leaves_what_is_left_one_by_one(seed: int, upper: int) -> None:
    plain, registered = columns(seed, upper)
    ended = lapse(seed, plain, registered)
    before = list(endings(ended))[::7]
    after = [each for each in as_effects(plain, registered) if isinstance(each, Register)][:5]

    def work(plane: KernelPlane) -> None:
        def state() -> dict[int, int]:
            return dict(zip(*plane._image.owners.columns(), strict=True))

        plane.reconcile([whole()], plain, registered)
        plane.apply([*before, *endings(ended), *after])
        expected, states, held = shown(plane), state(), plane._image.owners.held
        plane.reconcile([whole()], plain, registered)
        plane.apply([*before, ended, *after])
        assert shown(plane) == expected
        assert (state(), plane._image.owners.held) == (states, held)
        plane.apply([Unbind(key=each.key, ending=Ending.FREED) for each in list(plane._image.bindings())])
        assert not shown(plane)["endpoints"]
        assert not shown(plane)["holdings"]

    in_plane(work)


def test_most_of_what_lapses_needs_no_object() -> None:
    rows = [(FIRST, 1024 + 64 * at, 64, 0x0A000002 + at, 1, NOW + 900) for at in range(50)]
    plain = PlainLeases.of_rows(group(), rows)
    hosts = Hosts(near=PRIVATE, address=plain.owner)

    def work(plane: KernelPlane) -> None:
        plane.reconcile([whole()], [plain], [hosts])
        left = lapsing.end(plane._image, Lapse(leases=(plain,), hosts=hosts))
        assert [each.key.owner for each in endings(left) if isinstance(each, Unbind)] == [whole().binding.key.owner]

    in_plane(work)


def test_the_slow_path_ends_what_it_keeps_itself_of_what_lapses() -> None:
    rows = [(FIRST, 1024, 64, 0x0A000002, 1, NOW + 900), (FIRST, 1100, 10, 0x0A000003, 1, NOW + 900)]
    plain = PlainLeases.of_rows(group(), rows)
    hosts = Hosts(near=PRIVATE, address=plain.owner)
    ended = Lapse(leases=(plain,), hosts=hosts)

    def work(plane: KernelPlane) -> None:
        table, beginning = plane.table(), list(as_effects([plain], [hosts]))
        plane.apply(beginning)
        for each in table.left(beginning):
            table.apply(each)
        assert (len(table.own()), len(table), len(table.registered)) == (1, 2, 2)
        plane.apply([ended])
        left = list(table.left([ended]))
        assert [each.key.owner.address.number for each in left if isinstance(each, Unbind)] == [0x0A000003]
        for each in left:
            table.apply(each)
        assert (len(table), len(table.registered)) == (0, 0)
        assert not list(table.left([ended]))

    in_plane(work)


def test_the_reference_plane_ends_what_lapses_one_by_one() -> None:
    plain, registered = columns(3)
    whole_of_it = ReferencePlane(border())
    whole_of_it.apply(as_effects(plain, registered))
    assert len(whole_of_it.table) == sum(map(len, plain))
    whole_of_it.apply([Lapse(leases=tuple(plain), hosts=registered[0])])
    assert not list(whole_of_it.table)
    assert not whole_of_it.table.registered
