# SPDX-License-Identifier: BSD-3-Clause
"""Destinations that go the same way: what is found of them is what a longest-prefix lookup says of each."""

from __future__ import annotations

import asyncio
import subprocess
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.binding import FOREVER, BindingKey, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Register
from isthmus.border.verdict import Reason
from isthmus.daemon import uniform_routes
from isthmus.daemon.uniform_routes import UniformRoutes
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, uniform
from isthmus.plane.kernel.loader import Map
from isthmus.plane.kernel.uniform import MORE, WORDS, Groups, Nodes, Routes, lay
from plane.kernel_under_test import ETHERNET, KernelUnderTest, context
from plane.neighbours import PRIVATE, PUBLIC, border, lease, no_routes

kernel = KernelUnderTest()
Prefix = tuple[int, int, int]
"First destination, length, group."

# Few first octets, so that prefixes lie in one another.
_octet = st.sampled_from([0, 1, 10, 128, 255])
_address = st.builds(lambda a, b, c, d: a << 24 | b << 16 | c << 8 | d, *[_octet] * 4)


def _aligned(address: int, length: int) -> int:
    return address >> 32 - length << 32 - length if length else 0


_prefix = st.builds(
    lambda address, length, group: (_aligned(address, length), length, group),
    _address,
    st.integers(0, 32),
    st.integers(0, 3),
)
_prefixes = st.lists(_prefix, max_size=12)


def longest(prefixes: list[Prefix], destination: int) -> int:
    """The group of the longest prefix; none if that has several routes."""
    for length in range(32, -1, -1):
        found = [group for first, long, group in prefixes if long == length and first == _aligned(destination, length)]
        if found:
            return found[0] if len(found) == 1 else 0
    return 0


def routes(prefixes: list[Prefix]) -> Routes:
    columns = Routes()
    for each in prefixes:
        columns.add(*each)
    return columns


def said(nodes: Nodes, destination: int) -> int:
    for bits in (8, 16, 24):
        word = nodes[bits, destination >> 32 - bits][destination >> 24 - bits & WORDS - 1]
        if word != MORE:
            return word
    raise AssertionError("there is nothing below an address")


def beside(prefixes: list[Prefix]) -> Iterator[int]:
    """The first and the last destination of every prefix, and those just outside."""
    for first, length, _ in prefixes:
        last = first + (1 << 32 - length) - 1
        yield from (each for each in (first - 1, first, last, last + 1) if 0 <= each < 1 << 32)


@given(_prefixes, st.lists(_address))
def test_every_destination_is_in_the_group_of_its_longest_prefix(prefixes: list[Prefix], asked: list[int]) -> None:
    nodes = lay(routes(prefixes))
    for destination in [*beside(prefixes), *asked]:
        assert said(nodes, destination) == longest(prefixes, destination)


@given(_prefixes)
def test_numpy_lays_them_alike(prefixes: list[Prefix]) -> None:
    if prefixes:
        assert uniform._lay_many(routes(prefixes)) == lay(routes(prefixes))


@settings(max_examples=50)
@given(_prefixes, _prefixes)
def test_what_is_asked_for_by_itself_is_in_no_group(prefixes: list[Prefix], asked: list[Prefix]) -> None:
    nodes = lay(routes(prefixes))
    uniform.exact(nodes, ((first, length) for first, length, _ in asked))
    for destination in [*beside(prefixes), *beside(asked)]:
        inside = any(first == _aligned(destination, length) for first, length, _ in asked)
        assert said(nodes, destination) == (0 if inside else longest(prefixes, destination))


@given(_address, st.integers(0, 32))
def test_a_leaf_is_the_widest_prefix_that_begins_there(address: int, length: int) -> None:
    first, widest = uniform.leaf(_aligned(address, length))
    assert widest <= length
    assert first == _aligned(first, widest)
    assert widest == 0 or first != _aligned(first, widest - 1)


class Maps:
    """The three maps, in the kernel, and what the program would read in them."""

    def __init__(self) -> None:
        self.all = (
            Map.array("groups", octets=2 * WORDS, entries=uniform.ELEMENTS),
            Map.array("gateways", octets=24, entries=2 * uniform.GROUPS),
            Map.array("followed", octets=16, entries=1),
        )
        self.groups = Groups(*self.all)
        self._memory = self.all[0].mapped()

    def group(self, destination: int) -> int:
        words = memoryview(self._memory).cast("H")
        try:
            element = destination >> 24
            for shift in (16, 8, 0):
                word = int(words[element * WORDS + (destination >> shift & WORDS - 1)])
                if not word & MORE:
                    return word
                element = word & ~MORE
        finally:
            words.release()
        return 0

    def close(self) -> None:
        self.groups.close()
        self._memory.close()
        for each in self.all:
            each.close()


@pytest.fixture
def maps() -> Iterator[Maps]:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)
    found = Maps()
    yield found
    found.close()


@pytest.mark.root
def test_the_program_finds_what_was_laid_through_changes_of_any_kind(maps: Maps) -> None:
    @settings(max_examples=40)
    @given(st.lists(st.tuples(_prefixes, _prefixes), min_size=1, max_size=3))
    def changes(turns: list[tuple[list[Prefix], list[Prefix]]]) -> None:
        for prefixes, forgotten in turns:
            maps.groups.change(lay(routes(prefixes)), {0, 1, 2, 3})
            for destination in beside(prefixes):
                assert maps.group(destination) == longest(prefixes, destination)
            for first, length, _ in forgotten:
                maps.groups.forget(first, length)
            for destination in [*beside(prefixes), *beside(forgotten)]:
                if any(first == _aligned(destination, length) for first, length, _ in forgotten):
                    assert maps.group(destination) == 0
                else:
                    # What lies beside may have been forgotten with it, never taken for something else.
                    assert maps.group(destination) in {0, longest(prefixes, destination)}

    changes()


@pytest.mark.root
def test_more_than_there_is_room_for_is_asked_for_by_itself(maps: Maps) -> None:
    prefixes = [(first << 16 | 1 << 8, 24, 1) for first in range(uniform.ELEMENTS)]
    maps.groups.change(lay(routes(prefixes)), {0, 1})
    found = [maps.group(first) for first, _, _ in prefixes]
    assert set(found) == {0, 1}
    assert found.count(1) == uniform.ELEMENTS - 256
    maps.groups.change(lay(routes(prefixes[:1])), {0, 1})
    maps.groups.change(lay(routes(prefixes[-9:])), {0, 1})
    assert [maps.group(first) for first, _, _ in prefixes[-9:]] == [1] * 9


@pytest.mark.root
def test_numbers_of_gateways_are_kept_and_given_back(maps: Maps) -> None:
    first, second = maps.groups.number(7, 1), maps.groups.number(8, 1)
    assert len({0, first, second}) == 3
    maps.groups.change(lay(routes([(0, 0, first)])), {first})
    assert maps.groups.number(7, 1) == first
    rest = {maps.groups.number(9, each) for each in range(2000)}
    assert len(rest - {0}) == uniform.GROUPS - 2
    assert 0 in rest
    again = Groups(*maps.all)
    assert again.number(7, 1) == first, "as another process finds it"
    again.close()


# --- in a kernel ----------------------------------------------------------------------

NEAR, OTHER = "02:00:00:00:00:02", "02:00:00:00:00:03"


def ip(*commands: str) -> None:
    for each in commands:
        subprocess.run(["ip", *each.split()], check=True, timeout=20)


class Gateway:
    """A plane with leases of the hosts 10.0.0.2 and following, and somebody who follows the routes."""

    def __init__(self, plane: KernelPlane, follows: UniformRoutes) -> None:
        self.plane, self.follows = plane, follows

    async def settled(self, *, groups: bool = True) -> None:
        """Wait until what is known of the routes is what they say."""
        until = time.monotonic() + 30
        while (
            not self.follows.is_true if groups else self.follows._true or self.follows._stale or self.follows._reading
        ):
            assert time.monotonic() < until, "the routes were not followed"
            await asyncio.sleep(0.005)

    def group(self, destination: int) -> int:
        words = self.plane.groups._words
        element = destination >> 24
        for shift in (16, 8, 0):
            word = int(words[element * WORDS + (destination >> shift & WORDS - 1)])
            if not word & MORE:
                return word
            element = word & ~MORE
        return 0

    def next_hop(self, host: int) -> str:
        """The link address that a packet for a host gets."""
        port = 1024 + host * 64
        body = bytes.fromhex("4500001c00000000401100000909090901020304")
        body = body[:16] + bytes([192, 0, 2, 0, 0, 53]) + port.to_bytes(2, "big") + bytes([0, 8, 0, 0])
        body = body[:10] + checksum(body[:20]).to_bytes(2, "big") + body[12:]
        found = kernel.bench().links.find(f"realm {PUBLIC}")
        assert found is not None
        before = self.plane.counters()[Reason.FORWARDED_INWARD]
        ran = self.plane._loaded.program.test_run(ETHERNET + body, context(found.index))
        assert self.plane.counters()[Reason.FORWARDED_INWARD] == before + 1
        return ran.packet[:6].hex(":")


Scenario = Callable[[Gateway], Coroutine[None, None, None]]
Play = Callable[[Scenario], None]


def checksum(octets: bytes) -> int:
    total = sum(array("H", octets))
    total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes((~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "little"), "big")


ADDRESSES = (
    "addr replace 10.9.0.1/24 dev ist0",
    "addr replace 198.51.100.1/24 dev ist1",
    f"neigh replace 10.9.0.2 lladdr {NEAR} dev ist0",
    f"neigh replace 10.9.0.3 lladdr {OTHER} dev ist0",
    "route replace 10.0.0.0/16 via 10.9.0.2",
)


def lease_over_ipv6(number: int) -> list[Programmable]:
    """Lease ``number``, whose host is 2001:db8::``number``."""
    bound = lease(number)[1]
    assert isinstance(bound, Bind)
    owner = Owner(PRIVATE, Address.parse(f"2001:db8::{number}"))
    tunnel = Tunnel(realm=PRIVATE, local=Address.parse("2001:db8::ff"), remote=owner.address)
    binding = replace(bound.binding, key=BindingKey(owner, 1), crossing=tunnel)
    return [
        Register(registration=Registration(owner=owner, client_id=1, expires_at=FOREVER)),
        Bind(binding=binding, lease=bound.lease),
    ]


@pytest.fixture(scope="module")
def plane() -> Iterator[KernelPlane]:
    """A plane in the bench's network namespace, of which all hosts are behind one router."""
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)
    effects = [effect for number in range(8) for effect in lease(number)]
    effects += [effect for number in (8, 9) for effect in lease_over_ipv6(number)]

    def make() -> KernelPlane:
        kernel.bench().links.forget()
        ip(*(f"link set isx{at} up" for at in (0, 1)))
        subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, timeout=20)
        plane = KernelPlane(border(10), pin=None, boot_offset=0.0, links=kernel.bench().links)
        for realm in (PRIVATE, PUBLIC):
            plane.attach(realm, f"realm {realm}")
        plane.apply(effects)
        return plane

    found = kernel.bench().do(make)
    yield found
    kernel.bench().do(found.close)
    kernel.bench().do(lambda: ip(*(f"link set isx{at} down" for at in (0, 1))))


@pytest.fixture
def play(plane: KernelPlane, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays something while the routes are followed."""
    monkeypatch.setattr(uniform_routes, "SETTLE_SECONDS", 0.01)

    async def follow(scenario: Scenario) -> None:
        follows = UniformRoutes(plane.groups)
        follows.start()
        try:
            gateway = Gateway(plane, follows)
            await gateway.settled()
            await scenario(gateway)
        finally:
            follows.close()

    def inside(scenario: Scenario) -> None:
        ip(*ADDRESSES)
        try:
            asyncio.run(follow(scenario))
        finally:
            no_routes()

    return lambda scenario: kernel.bench().do(lambda: inside(scenario))


HOST = 0x0A000002
"10.0.0.2, the first of them."


@pytest.mark.root
def test_a_route_within_what_goes_one_way_is_followed(play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        group = gateway.group(HOST)
        assert group
        assert group == gateway.group(HOST + 5) == gateway.group(HOST + 0xFF00)
        assert [gateway.next_hop(each) for each in (0, 1)] == [NEAR, NEAR]
        ip("route add 10.0.0.3/32 via 10.9.0.3")
        await asyncio.sleep(0.1)
        await gateway.settled()
        assert [gateway.next_hop(each) for each in (0, 1, 2)] == [NEAR, OTHER, NEAR]
        assert gateway.group(HOST) == gateway.group(HOST + 2) == group
        assert gateway.group(HOST + 1) not in {0, group}
        ip("route del 10.0.0.3/32")
        await asyncio.sleep(0.1)
        await gateway.settled()
        assert gateway.next_hop(1) == NEAR
        assert gateway.group(HOST + 1) == group

    play(scenario)


@pytest.mark.root
def test_news_of_a_route_alone_make_its_destinations_be_asked_about(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(gateway: Gateway) -> None:
        monkeypatch.setattr(uniform_routes, "SETTLE_SECONDS", 100.0)
        assert gateway.next_hop(1) == NEAR
        ip("route add 10.0.0.3/32 via 10.9.0.3")
        await asyncio.sleep(0.02)
        assert gateway.group(HOST + 1) == 0
        assert [gateway.next_hop(each) for each in (1, 2)] == [OTHER, NEAR]
        assert gateway.group(HOST + 0x10000) == 0
        ip("route del 10.0.0.0/16")
        await asyncio.sleep(0.02)
        assert gateway.group(HOST + 0x100) == 0

    play(scenario)


@pytest.mark.root
def test_where_nobody_follows_each_is_asked_about_after_the_deadline(play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert gateway.next_hop(0) == NEAR
        asyncio.get_running_loop().remove_reader(gateway.follows._news)
        ip("route add 10.0.0.2/32 via 10.9.0.3")
        gateway.plane.groups.trust(int(time.clock_gettime(time.CLOCK_BOOTTIME)))
        assert gateway.group(HOST), "the words are those of before"
        await asyncio.sleep(0.01)
        assert gateway.next_hop(0) == OTHER

    play(scenario)


@pytest.mark.root
def test_neighbours_on_one_link_are_none_of_a_group(play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        ip("route replace 10.0.0.0/16 dev ist0")
        ip(f"neigh replace 10.0.0.2 lladdr {NEAR} dev ist0", f"neigh replace 10.0.0.3 lladdr {OTHER} dev ist0")
        await asyncio.sleep(0.1)
        await gateway.settled()
        assert gateway.group(HOST) == 0
        assert [gateway.next_hop(each) for each in (0, 1, 0, 1)] == [NEAR, OTHER, NEAR, OTHER]

    play(scenario)


@pytest.mark.root
@pytest.mark.parametrize(
    "surprise",
    [
        "route replace 10.0.0.0/16 nexthop via 10.9.0.2 nexthop via 10.9.0.3",
        "route add 10.0.0.0/16 tos 0x10 via 10.9.0.3",
        "route add 10.0.0.0/16 metric 5 via 10.9.0.3",
        "route replace blackhole 10.0.0.0/16",
        "addr add 10.0.0.2/16 dev ist5",
    ],
)
def test_what_does_not_go_by_destination_alone_is_in_no_group(surprise: str, play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert gateway.group(HOST)
        try:
            ip(surprise)
            await asyncio.sleep(0.1)
            await gateway.settled()
            assert gateway.group(HOST) == 0
        finally:
            ip("addr flush dev ist5", "route flush 10.0.0.0/16", "route flush type blackhole")

    play(scenario)


@pytest.mark.root
def test_with_a_rule_of_somebody_each_is_asked_about(play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert gateway.next_hop(0) == NEAR
        ip("route add 10.0.0.2/32 via 10.9.0.3 table 100")
        try:
            ip("rule add from 10.0.0.1 table 100")
            await gateway.settled(groups=False)
            await asyncio.sleep(0.01)
            assert gateway.next_hop(0) == OTHER
        finally:
            ip("rule del from 10.0.0.1 table 100", "route flush table 100")
        await gateway.settled()
        await asyncio.sleep(0.01)
        assert gateway.next_hop(0) == NEAR

    play(scenario)


@pytest.mark.root
def test_a_neighbour_that_changes_is_followed_by_the_next_tick(play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert gateway.next_hop(0) == NEAR
        ip(f"neigh replace 10.9.0.2 lladdr {OTHER} dev ist0")
        await asyncio.sleep(0.02)
        assert gateway.group(HOST)
        assert gateway.next_hop(0) == OTHER

    play(scenario)


@pytest.mark.root
def test_hosts_of_ipv6_are_asked_about_each_and_followed(play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        ip("addr add 2001:db8::ff/64 dev ist0 nodad")
        ip(f"neigh replace 2001:db8::8 lladdr {NEAR} dev ist0", f"neigh replace 2001:db8::9 lladdr {OTHER} dev ist0")
        assert [gateway.next_hop(each) for each in (8, 9, 8, 9)] == [NEAR, OTHER, NEAR, OTHER]
        ip(f"neigh replace 2001:db8::8 lladdr {OTHER} dev ist0")
        await asyncio.sleep(0.02)
        assert [gateway.next_hop(each) for each in (8, 9, 8, 9)] == [OTHER] * 4

    kernel.bench().do(lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1", encoding="ascii"))
    try:
        play(scenario)
    finally:
        kernel.bench().do(lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("0", encoding="ascii"))
