# SPDX-License-Identifier: BSD-3-Clause
"""The map ``blocks`` says nothing but what ``slices`` says, at every moment, and to a reader that is held up, too."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from isthmus.plane.kernel.blocks import GENERATION, UNTIL_AT, Blocks, block_of, follows
from isthmus.plane.kernel.direct import DIRECT
from isthmus.plane.kernel.pinned import BLOCK_SLICES
from plane.fixture import NOW, build
from plane.kernel_under_test import KernelUnderTest, whole_second
from plane.xdp_under_test import XdpUnderTest

FREE, TAKEN = 1, 1 | DIRECT


def word(holder: int, minutes: int) -> int:
    """A direct word of a lease with a deadline in so many 64 s."""
    return (minutes << 6 | 5) << 32 | holder << 8 | TAKEN


def assert_true(words: Sequence[int], pairs: Sequence[int]) -> None:
    """Every slice that has a bit has the word that the rule says, for at least as long."""
    for block in range(len(pairs) // 2):
        rule, followers = pairs[2 * block], pairs[2 * block + 1]
        for nth in range(BLOCK_SLICES):
            if followers >> nth & 1:
                said = words[block * BLOCK_SLICES + nth]
                assert follows(rule, nth, said), (block, nth)
                assert said >> UNTIL_AT >= rule >> UNTIL_AT, (block, nth)


# --- without a kernel -----------------------------------------------------------------------


class Watched:
    """Blocks over memory of which every write is seen."""

    def __init__(self, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words = memoryview(bytearray(8 * BLOCK_SLICES * blocks)).cast("Q")
        self.blocks = Blocks(mmap.mmap(-1, 16 * blocks), self.words)
        self.states: list[tuple[list[int], list[int]]] = []
        "Words and pairs after each write."
        memory, watched = self.blocks.memory, self

        class Memory:
            def __getitem__(self, at: int) -> int:
                return memory[at]

            def __setitem__(self, at: int, value: int) -> None:
                memory[at] = value
                watched.note()

            def __len__(self) -> int:
                return len(memory)

        monkeypatch.setattr(self.blocks, "_pairs", Memory())

    def note(self) -> None:
        self.states.append((self.words.tolist(), [self.blocks._pairs[at] for at in range(len(self.blocks._pairs))]))
        assert_true(*self.states[-1])

    def write(self, changes: dict[int, int]) -> None:
        """As ``write.Writer``."""
        self.blocks.forget(changes)
        for number, value in changes.items():
            self.words[number] = value
            self.note()
        self.blocks.tell(changes)


CHANGES = st.lists(
    st.dictionaries(
        st.integers(0, 9) | st.integers(0, 127),
        st.just(FREE) | st.builds(lambda at, minutes: (at, minutes), st.integers(0, 2), st.integers(1, 4)),
        min_size=1,
        max_size=4,
    ),
    max_size=12,
)
"""What slices become: nobody's, or (in which of three rows of hosts, until when)."""


def as_words(change: dict[int, int | tuple[int, int]]) -> dict[int, int]:
    return {at: FREE if isinstance(what, int) else word(1000 * what[0] + at, what[1]) for at, what in change.items()}


@settings(max_examples=80, deadline=None)
@given(CHANGES)
def test_whoever_dies_at_any_moment_has_said_nothing_wrong(changes: list[dict[int, int | tuple[int, int]]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        watched = Watched(2, monkeypatch)
        for change in changes:
            watched.write(as_words(change))
        watched.note()
        direct = [at for at, each in enumerate(watched.words) if each & DIRECT]
        for block in {at // BLOCK_SLICES for at in direct}:
            assert watched.blocks.memory[2 * block + 1], "somebody follows where anybody is"


ROWS = st.lists(
    st.dictionaries(
        st.integers(0, 3),
        st.just(FREE) | st.builds(lambda at, minutes: (at, minutes), st.integers(0, 1), st.integers(1, 2)),
        min_size=1,
        max_size=3,
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_reader_that_is_held_up_between_any_two_steps_reads_what_was_true(
    changes: list[dict[int, int | tuple[int, int]]],
) -> None:
    """It reads the rule, later the followers, later the rule again, as ``by_block`` in slices.h."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        watched = Watched(1, monkeypatch)
        for change in changes:
            watched.write(as_words(change))
        states = watched.states
        for first in range(len(states)):
            rule = states[first][1][0]
            last = max(at for at in range(first, len(states)) if states[at][1][0] == rule)
            for words, (_, followers) in states[first : last + 1]:
                assert_true(words, [rule, followers])


def test_a_rule_that_comes_back_is_not_taken_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(1, monkeypatch)
    rules = []
    for host in (0, 1000, 0, 1000, 0):
        watched.write({5: word(host + 5, 9)})
        rules.append(watched.blocks.memory[0])
    assert len(set(rules)) == len(rules)
    assert rules[0] & ~GENERATION == rules[2] & ~GENERATION


def test_a_rule_lasts_until_the_first_deadline_of_those_who_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(1, monkeypatch)

    def until() -> int:
        return watched.blocks.memory[0] >> UNTIL_AT

    watched.write({at: word(at, 9) for at in range(8)})
    watched.write({3: word(3, 4)})
    assert until() == 4
    watched.write({5: word(5000, 2)})
    assert until() == 4, "a stranger's deadline is his own"
    watched.write({3: word(3, 12)})
    assert until() == 9
    watched.write({at: word(at, 20) for at in range(8) if at != 5})
    assert until() == 20
    watched.write(dict.fromkeys(range(8), FREE))
    assert watched.blocks.memory[1] == 0


def test_a_block_has_the_rule_of_the_many_though_one_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(1, monkeypatch)
    watched.write({20: word(77, 9)})
    for at in range(BLOCK_SLICES):
        if at != 20:
            watched.write({at: word(1000 + at, 9)})
    assert watched.blocks.memory[1] == (1 << BLOCK_SLICES) - 1 - (1 << 20)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 32, 64, 128])
def test_leases_of_any_length_are_followed(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    watched = Watched(2, monkeypatch)
    room = 1 << (length - 1).bit_length()
    for first in range(0, 2 * BLOCK_SLICES, room):
        watched.write({first + at: word(1000 + first // room, 9) for at in range(length)})
    for block in range(2):
        words = watched.words[block * BLOCK_SLICES : (block + 1) * BLOCK_SLICES].tolist()
        wanted = sum(1 << at for at, each in enumerate(words) if each & DIRECT)
        assert watched.blocks.memory[2 * block + 1] == wanted
        assert block_of(words)[1] == wanted


def test_a_holder_whose_number_would_be_too_large_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(1, monkeypatch)
    last = (1 << 24) - 1
    other_template = 1 << 4
    watched.write({at: word(at + last - 3 & last, 9) | (at > 3 and other_template) for at in range(8)})
    assert watched.blocks.memory[1] == 0b1111


@pytest.mark.parametrize("seed", range(4))
def test_blocks_of_columns_are_those_of_words_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    words: list[int] = []
    for _ in range(40):
        step, free, strange = chance.randrange(8), chance.choice((0, 0, 0.3, 0.9, 1)), chance.choice((0, 0.1, 0.6))
        for nth in range(BLOCK_SLICES):
            host = chance.randrange(1 << 24) if chance.random() < strange else 5000 + (nth >> step)
            here = word(host, chance.randrange(60)) ^ (chance.random() < 0.05) << 1
            words.append(chance.choice((0, FREE, FREE | 7 << 40)) if chance.random() < free else here)
    del words[-10:]
    for block, found in enumerate(columns.blocks_of(np.array(words, np.uint64)).tolist()):
        assert tuple(found) == block_of(words[block * BLOCK_SLICES : (block + 1) * BLOCK_SLICES])


# --- in the kernel --------------------------------------------------------------------------

PRIVATE, PUBLIC = 1, 2
GATEWAY, LEASED, HOSTS = (Address.parse(each) for each in ("10.0.0.1", "198.51.100.1", "10.0.1.0"))
SIZE, MOST, EACH = 16, 100, 2
"""Ports of a slice, leases, and slices of a lease."""
PEER = "192.0.2.1"
BORDER = Border(
    realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public")),
    tunnel_ends=(TunnelEnd(realm=PRIVATE, address=GATEWAY, leads_to=PUBLIC),),
    claims=(
        Selector(realm=PUBLIC, local=Prefix.of(LEASED), kind=Kind.PORT, values=Ranges.of((0, MOST * EACH * SIZE - 1))),
    ),
    slice_size=SIZE,
)
kernels = KernelUnderTest(), XdpUnderTest()
on_both = pytest.mark.parametrize("kernel", kernels, ids=lambda each: each.name)


def in_plane(kernel: KernelUnderTest, work: Callable[[KernelPlane], None]) -> None:
    if (reason := kernel.available()) is not None:
        pytest.skip(reason)

    def inside() -> None:
        bench = kernel.bench()
        bench.links.forget()
        plane = KernelPlane(BORDER, pin=None, boot_offset=NOW - whole_second(), links=bench.links)
        try:
            for realm in BORDER.realms:
                name = f"realm {realm.number}"
                plane.attach(realm.number, name, punt=name, xdp=kernel.name == "xdp")
            work(plane)
        finally:
            plane.close()

    kernel.bench().do(inside)


def owner(number: int) -> Owner:
    return Owner(PRIVATE, Address(Family.IPV4, HOSTS.number + number))


def register(number: int) -> Register:
    return Register(registration=Registration(owner=owner(number), client_id=number + 1, expires_at=NOW + 9000))


def bind(place: int, number: int, *, lasts: float = 900, admit: Admit = Admit.ANYONE) -> Bind:
    """The place-th lease for the n-th host."""
    first = place * EACH * SIZE
    selector = Selector(
        realm=PUBLIC,
        local=Prefix.of(LEASED),
        kind=Kind.PORT,
        values=Ranges.of((first, first + EACH * SIZE - 1)),
        remote=Remote(admit=admit),
    )
    crossing = Tunnel(realm=PRIVATE, local=GATEWAY, remote=owner(number).address, mtu=1480)
    key = BindingKey(owner(number), 1 + place)
    return Bind(binding=Binding(key=key, selectors=(selector,), crossing=crossing), lease=unnamed(NOW + lasts))


def taken(numbers: Sequence[int], **how: float) -> list[Programmable]:
    return [each for number in numbers for each in (register(number), bind(number, number, **how))]  # type: ignore[arg-type]


def state(plane: KernelPlane) -> list[int]:
    return plane._blocks.memory.tolist()


def followers(plane: KernelPlane) -> int:
    return sum(each.bit_count() for each in state(plane)[1::2])


def crossing(kernel: KernelUnderTest, plane: KernelPlane, numbers: Sequence[int]) -> list[Reason]:
    """What becomes of a packet to each of these hosts, and of one from each; they have to be of one opinion."""
    found = []
    for number in numbers:
        port = number * EACH * SIZE + SIZE + 3
        inner = {"ipv4": f"{LEASED} -> {PEER}", "udp": f"{port} -> 53"}
        outward = build({**inner, "outer": {"ipv4": f"{owner(number).address} -> {GATEWAY}"}})
        reason = kernel.one(plane, BORDER, PRIVATE, outward)[1]
        inward = build({"ipv4": f"{PEER} -> {LEASED}", "udp": f"53 -> {port}"})
        _, back, _, octets = kernel.one(plane, BORDER, PUBLIC, inward)
        if back is Reason.FORWARDED_INWARD:
            assert octets is not None
            assert octets[16:20] == owner(number).address.octets
            assert reason is Reason.FORWARDED_OUTWARD
        found.append(back)
    return found


@pytest.mark.root
@on_both
@pytest.mark.parametrize("admit", Admit)
def test_blocks_alone_decide_and_so_do_words_alone(kernel: KernelUnderTest, admit: Admit) -> None:
    def work(plane: KernelPlane) -> None:
        plane.apply([each for at in range(MOST) for each in (register(at), bind(at, at, admit=admit))])
        assert followers(plane) == MOST * EACH
        blocks, briefs, words = (
            memoryview(each).cast("B") for each in (plane._blocks.memory, plane._briefs.memory, plane._words)
        )
        kept = bytes(blocks)
        forwarded = [Reason.FORWARDED_INWARD] * 5
        whom = [0, 1, 31, 32, MOST - 1]
        for silent in ((briefs, words), (blocks, briefs), (blocks,)):
            before = [bytes(each) for each in silent]
            for each in silent:
                each[:] = bytes(len(each))
            assert crossing(kernel, plane, whom) == forwarded
            for each, octets in zip(silent, before, strict=True):
                each[:] = octets
        assert bytes(blocks) == kept
        for each in (blocks, briefs, words):
            each.release()

    in_plane(kernel, work)


@pytest.mark.root
@on_both
def test_a_lease_ends_on_time_among_others_that_last(kernel: KernelUnderTest) -> None:
    good = Reason.FORWARDED_INWARD

    def work(plane: KernelPlane) -> None:
        plane.apply(taken(range(5)))
        plane.apply([Extend(key=bind(2, 2).binding.key, expires_at=NOW)])
        assert crossing(kernel, plane, range(5)) == [good, good, Reason.LEASE_EXPIRED, good, good]
        plane.apply([Unbind(key=bind(2, 2).binding.key, ending=Ending.EXPIRED)])
        assert plane._blocks.memory[0] >> UNTIL_AT > whole_second() >> 6
        assert crossing(kernel, plane, range(5)) == [good, good, Reason.NO_BINDING, good, good]
        plane.apply([register(9), bind(2, 9)])
        assert crossing(kernel, plane, [1]) == [good]
        back = build({"ipv4": f"{PEER} -> {LEASED}", "udp": f"53 -> {2 * EACH * SIZE}"})
        octets = kernel.one(plane, BORDER, PUBLIC, back)[3]
        assert octets is not None
        assert octets[16:20] == owner(9).address.octets, "a slice that another has now is not the rule's"
        plane.apply([Deregister(owner=owner(3), ending=Ending.FREED)])
        assert followers(plane) == 3 * EACH

    in_plane(kernel, work)


def changes(seed: int) -> Iterator[list[Programmable]]:
    chance = random.Random(seed)
    bound: dict[int, Bind] = {}
    for _ in range(30):
        some: list[Programmable] = []
        for _ in range(chance.randrange(1, 9)):
            place = chance.randrange(MOST)
            match chance.randrange(6):
                case 0 | 1 if place in bound:
                    some.append(Unbind(key=bound.pop(place).binding.key, ending=Ending.FREED))
                case 2 if place in bound:
                    some.append(Extend(key=bound[place].binding.key, expires_at=NOW + chance.randrange(50, 2000)))
                case 3:
                    some.append(Deregister(owner=owner(place), ending=Ending.FREED))
                case _:
                    number = place if chance.random() < 0.7 else chance.randrange(MOST)
                    if place in bound:
                        some.append(Unbind(key=bound.pop(place).binding.key, ending=Ending.FREED))
                    admit = Admit.CONTACTED if chance.random() < 0.1 else Admit.ANYONE
                    bound[place] = bind(place, number, lasts=chance.randrange(50, 2000), admit=admit)
                    some += [register(number), bound[place]]
        yield some


@pytest.mark.root
@pytest.mark.parametrize("seed", range(3))
def test_whatever_changes_blocks_say_nothing_but_what_words_say(seed: int) -> None:
    def work(plane: KernelPlane) -> None:
        for some in changes(seed):
            plane.apply(some)
            assert_true(plane._words.tolist(), state(plane))
        assert followers(plane)

    in_plane(kernels[0], work)


@pytest.mark.root
@pytest.mark.parametrize("large", [False, True])
def test_a_new_process_sets_right_what_it_finds_and_leaves_alone_what_is_right(
    monkeypatch: pytest.MonkeyPatch, *, large: bool
) -> None:
    monkeypatch.setattr(image, "_LARGE", 0 if large else 1000)

    def work(plane: KernelPlane) -> None:
        effects = taken(range(MOST))
        plane.apply(effects)
        before = state(plane)
        plane.reconcile(effects)
        assert state(plane) == before, "the same rules of the same generation"
        # An earlier process ended between two steps: followers of the first block are forgotten, and a rule is left of others.
        plane._blocks.memory[1] = 0
        plane._blocks.memory[8] = before[0]
        plane.reconcile(effects[: 2 * MOST - 20])
        assert_true(plane._words.tolist(), state(plane))
        assert followers(plane) == (MOST - 10) * EACH

    in_plane(kernels[0], work)
