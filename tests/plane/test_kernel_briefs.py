# SPDX-License-Identifier: BSD-3-Clause
"""The map ``briefs`` says what ``slices`` says, whatever comes and goes, and a lease never longer than it lasts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Register, Unbind
from isthmus.border.plain import unnamed
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, columns, image
from isthmus.plane.kernel.briefs import WORDS, brief_of
from isthmus.plane.kernel.pinned import BRIEF_SLICES
from plane.fixture import NOW, build
from plane.kernel_under_test import OBJECT, KernelUnderTest, whole_second

PRIVATE, PUBLIC = 1, 2
GATEWAY, LEASED, HOSTS = (Address.parse(each) for each in ("10.0.0.1", "198.51.100.1", "10.0.1.0"))
SIZE, MOST = 16, 100
kernel = KernelUnderTest()
pytestmark = [pytest.mark.root, pytest.mark.skipif(not OBJECT.exists(), reason="needs the objects: make -C bpf")]


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


BORDER = Border(
    realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public")),
    tunnel_ends=(TunnelEnd(realm=PRIVATE, address=GATEWAY, leads_to=PUBLIC),),
    claims=(
        Selector(realm=PUBLIC, local=Prefix.of(LEASED), kind=Kind.PORT, values=Ranges.of((0, MOST * SIZE * 3 - 1))),
    ),
    slice_size=SIZE,
)


@pytest.fixture
def plane() -> Iterator[KernelPlane]:
    bench = kernel.bench()

    def make() -> KernelPlane:
        bench.links.forget()
        made = KernelPlane(BORDER, pin=None, boot_offset=NOW - whole_second(), links=bench.links)
        for realm in BORDER.realms:
            made.attach(realm.number, f"realm {realm.number}", punt=f"realm {realm.number}")
        return made

    made = bench.do(make)
    try:
        yield made
    finally:
        bench.do(made.close)


def owner(number: int) -> Owner:
    return Owner(PRIVATE, Address(Family.IPV4, HOSTS.number + number))


def register(number: int) -> Register:
    return Register(registration=Registration(owner=owner(number), client_id=number + 1, expires_at=NOW + 9000))


def bind(number: int, *, slices: int = 1, lasts: float = 100, admit: Admit = Admit.ANYONE) -> Bind:
    first = number * 3 * SIZE
    selector = Selector(
        realm=PUBLIC,
        local=Prefix.of(LEASED),
        kind=Kind.PORT,
        values=Ranges.of((first, first + slices * SIZE - 1)),
        remote=Remote(admit=admit),
    )
    crossing = Tunnel(realm=PRIVATE, local=GATEWAY, remote=owner(number).address, mtu=1480)
    key = BindingKey(owner(number), 1)
    return Bind(binding=Binding(key=key, selectors=(selector,), crossing=crossing), lease=unnamed(NOW + lasts))


def assert_briefs_say_what_words_say(plane: KernelPlane) -> None:
    words, lines = plane._words, plane._briefs.memory
    for line in range(len(words) // BRIEF_SLICES):
        wanted = brief_of(words[line * BRIEF_SLICES : (line + 1) * BRIEF_SLICES])
        assert lines[line * WORDS : (line + 1) * WORDS].tolist() == wanted.tolist()


def told(plane: KernelPlane) -> int:
    """How many words there are in the lines."""
    return sum(1 for at, word in enumerate(plane._briefs.memory) if at % WORDS and word)


def changes(seed: int) -> Iterator[list[Programmable]]:
    chance = random.Random(seed)
    bound: dict[int, Bind] = {}
    for _ in range(40):
        some: list[Programmable] = []
        for _ in range(chance.randrange(1, 9)):
            number = chance.randrange(MOST)
            match chance.randrange(5):
                case 0 if number in bound:
                    some.append(Unbind(key=bound.pop(number).binding.key, ending=Ending.FREED))
                case 1 if number in bound:
                    until = NOW + chance.randrange(50, 2000)
                    some.append(Extend(key=bound[number].binding.key, expires_at=until))
                case 2:
                    some.append(Deregister(owner=owner(number), ending=Ending.FREED))
                case _:
                    admit = chance.choice((Admit.ANYONE, Admit.CONTACTED))
                    slices, lasts = chance.randrange(1, 4), chance.randrange(50, 2000)
                    bound[number] = bind(number, slices=slices, lasts=lasts, admit=admit)
                    some += [register(number), bound[number]]
        yield some


@pytest.mark.parametrize("seed", range(3))
def test_whatever_changes_briefs_say_what_words_say(plane: KernelPlane, seed: int) -> None:
    for some in changes(seed):
        plane.apply(some)
        assert_briefs_say_what_words_say(plane)
    assert told(plane)


@pytest.mark.parametrize("large", [False, True])
def test_a_new_process_sets_right_what_it_finds(
    plane: KernelPlane, monkeypatch: pytest.MonkeyPatch, *, large: bool
) -> None:
    monkeypatch.setattr(image, "_LARGE", 0 if large else 1000)
    effects = [each for number in range(MOST) for each in (register(number), bind(number, lasts=100 + number))]
    plane.apply(effects)
    lines = plane._briefs.memory
    # An earlier one ended between two steps, with a line forgotten and another that is of nobody any more.
    lines[0:WORDS] = memoryview(bytes(4 * WORDS)).cast("I")
    lines[20 * WORDS : 21 * WORDS] = lines[WORDS : 2 * WORDS]
    plane.reconcile(effects[: MOST * 2 - 20])
    assert_briefs_say_what_words_say(plane)
    assert told(plane) == MOST - 10


def test_briefs_of_columns_are_those_of_words_one_by_one() -> None:
    chance = random.Random(7)
    words = [chance.choice((0, 1, 1 | 8 << 40, 8 | 1 | chance.randrange(1 << 56) << 8)) for _ in range(1000)]
    lines = columns.briefs_of(np.array(words, np.uint64))
    for line, found in enumerate(lines.tolist()):
        some = np.array(words[line * BRIEF_SLICES : (line + 1) * BRIEF_SLICES], np.uint64)
        assert found == brief_of(memoryview(some)).tolist()


def test_a_lease_ends_on_time_among_others_that_last(plane: KernelPlane) -> None:
    """Fifteen slices share what their briefs are true until: the first deadline of them. The others go on."""
    plane.apply([each for number in range(5) for each in (register(number), bind(number, lasts=100))])
    plane.apply([Extend(key=bind(2).binding.key, expires_at=NOW)])
    assert reasons(plane) == [Reason.FORWARDED_INWARD] * 2 + [Reason.LEASE_EXPIRED] + [Reason.FORWARDED_INWARD] * 2
    plane.apply([Unbind(key=bind(2).binding.key, ending=Ending.EXPIRED)])
    assert plane._briefs.memory[0] > whole_second()
    assert reasons(plane) == [Reason.FORWARDED_INWARD] * 2 + [Reason.NO_BINDING] + [Reason.FORWARDED_INWARD] * 2


def reasons(plane: KernelPlane) -> list[Reason]:
    """What becomes of a packet to each of five hosts."""

    def each(number: int) -> Reason:
        spec = {"ipv4": f"192.0.2.1 -> {LEASED}", "udp": f"53 -> {number * 3 * SIZE}"}
        return kernel.one(plane, BORDER, PUBLIC, build(dict(spec)))[1]

    return kernel.bench().do(lambda: [each(number) for number in range(5)])
