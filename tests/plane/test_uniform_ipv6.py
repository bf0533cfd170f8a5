# SPDX-License-Identifier: BSD-3-Clause
"""Destinations of IPv6 that go the same way: what is found of them is what a longest-prefix lookup says of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.daemon import uniform_routes
from isthmus.daemon.uniform_routes import UniformRoutes
from isthmus.plane.kernel import KernelPlane, uniform_ipv6
from isthmus.plane.kernel.uniform_ipv6 import WIDE_BITS, Groups6, Prefix, Routes6, lay6, wide
from plane.neighbours import PRIVATE, PUBLIC, border, no_routes
from plane.test_uniform import NEAR, OTHER, Gateway, ip, kernel, lease_over_ipv6

Route = tuple[int, int, int]
"First destination, length, group."
_BITS = 128
_octet = st.sampled_from([0, 1, 128, 255])
_address = st.builds(lambda a, b, c, d: a << 120 | b << 32 | c << 24 | d, *[_octet] * 4)
_length = st.sampled_from([0, 1, 8, 9, 96, 100, 103, 104, 105, 120, 128])


def _aligned(address: int, length: int) -> int:
    return address >> _BITS - length << _BITS - length


_prefix = st.builds(lambda address, length: (_aligned(address, length), length), _address, _length)
_route = st.builds(lambda prefix, group: (*prefix, group), _prefix, st.integers(0, 3))


def longest(routes: list[Route], destination: int) -> int:
    """The group of the longest prefix; none if that has several routes."""
    for length in range(_BITS, -1, -1):
        found = [group for first, long, group in routes if long == length and first == _aligned(destination, length)]
        if found:
            return found[0] if len(found) == 1 else 0
    return 0


def said(laid: uniform_ipv6.Laid, destination: int) -> int:
    """What the program would find."""
    inside = [(length, group) for (first, length), group in laid.items() if first == _aligned(destination, length)]
    return max(inside, default=(0, 0))[1]


def lain(routes: list[Route], exact: list[Prefix]) -> uniform_ipv6.Laid:
    columns = Routes6()
    for each in routes:
        columns.add(*each)
    return lay6(columns, exact)


def beside(prefixes: list[Prefix]) -> Iterator[int]:
    """The first and the last destination of every prefix, and those just outside."""
    for first, length in prefixes:
        last = first + (1 << _BITS - length) - 1
        yield from (each for each in (first - 1, first, last, last + 1) if 0 <= each < 1 << _BITS)


@given(st.lists(_route, max_size=12), st.lists(_prefix, max_size=3))
def test_nobody_is_in_another_group_than_that_of_his_longest_prefix(routes: list[Route], exact: list[Prefix]) -> None:
    laid = lain(routes, exact)
    assert all(length <= WIDE_BITS for _, length in laid)
    prefixes = [(first, length) for first, length, _ in routes]
    for destination in beside([*prefixes, *exact, (0, 0)]):
        narrow = [wide(*each) for each in exact] + [wide(*each) for each in prefixes if each[1] > WIDE_BITS]
        if any(first == _aligned(destination, length) for first, length in narrow):
            assert said(laid, destination) == 0
        else:
            assert said(laid, destination) == longest(routes, destination)


def test_routes_that_say_nothing_new_are_left_out() -> None:
    routes = [(0, 0, 1), (1 << 120, 8, 1), (1 << 120, 9, 2), (1 << 120, 10, 2), (1 << 120, 11, 0), (2 << 120, 8, 0)]
    assert lain(routes, []) == {(0, 0): 1, (1 << 120, 9): 2, (1 << 120, 11): 0, (2 << 120, 8): 0}
    many = [(at << 40, 96, 1) for at in range(uniform_ipv6.ENTRIES + 1)]
    assert len(lain(many[:-1], [])) == uniform_ipv6.ENTRIES
    assert lain(many, []) == {}, "then each is asked about by itself"


@pytest.fixture(scope="module")
def plane() -> Iterator[KernelPlane]:
    """A plane in the bench's network namespace whose hosts are 2001:db8::2 and following."""
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)

    def make() -> KernelPlane:
        kernel.bench().links.forget()
        ip(*(f"link set isx{at} up" for at in (0, 1)))
        made = KernelPlane(border(10), pin=None, boot_offset=0.0, links=kernel.bench().links)
        for realm in (PRIVATE, PUBLIC):
            made.attach(realm, f"realm {realm}")
        made.apply(effect for number in range(2, 6) for effect in lease_over_ipv6(number))
        return made

    found = kernel.bench().do(make)
    yield found
    kernel.bench().do(found.close)
    kernel.bench().do(lambda: ip(*(f"link set isx{at} down" for at in (0, 1))))


@pytest.mark.root
def test_the_map_says_what_was_laid_through_changes_of_any_kind(plane: KernelPlane) -> None:
    shown = plane._maps["groups6"]
    groups = Groups6(shown, plane._maps["gateways"], plane._maps["followed"])

    def entries() -> uniform_ipv6.Laid:
        return {
            (int.from_bytes(key[4:], "big"), int.from_bytes(key[:4], "little")): int.from_bytes(value, "little")
            for key, value in shown.items()
        }

    @settings(max_examples=40)
    @given(st.lists(st.tuples(st.lists(_route, max_size=12), st.lists(_prefix, max_size=4)), min_size=1, max_size=3))
    def changes(turns: list[tuple[list[Route], list[Prefix]]]) -> None:
        for routes, forgotten in turns:
            laid = lain(routes, [])
            assert not groups.take(laid, set(), [(0, 0)]), "the kernel may have left anything out"
            assert groups.take(laid, set(), [])
            assert entries() == laid
            for each in forgotten:
                groups.forget(*each)
            found = entries()
            for destination in beside([(first, length) for first, length, _ in routes] + forgotten):
                if any(first == _aligned(destination, length) for first, length in (wide(*p) for p in forgotten)):
                    assert said(found, destination) == 0
                else:
                    assert said(found, destination) == said(laid, destination)

    changes()
    again = Groups6(shown, plane._maps["gateways"], plane._maps["followed"])
    assert entries() == {}, "another process begins with nothing"
    again.close()
    groups.close()


Scenario = Callable[[Gateway], Coroutine[None, None, None]]
Play = Callable[[Scenario], None]
ADDRESSES = (
    "addr replace 2001:db8:9::1/64 dev ist0 nodad",
    "addr replace 198.51.100.1/24 dev ist1",
    f"neigh replace 2001:db8:9::2 lladdr {NEAR} dev ist0",
    f"neigh replace 2001:db8:9::3 lladdr {OTHER} dev ist0",
    "route replace 2001:db8::/48 via 2001:db8:9::2 dev ist0",
)
HOSTS = Address.parse("2001:db8::").number


@pytest.fixture
def play(plane: KernelPlane, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays something while the routes are followed."""
    monkeypatch.setattr(uniform_routes, "SETTLE_SECONDS", 0.01)

    async def follow(scenario: Scenario) -> None:
        follows: UniformRoutes[Any, Any] = UniformRoutes(plane.groups6)
        follows.start()
        try:
            gateway = Gateway(plane, follows)
            await gateway.settled()
            await scenario(gateway)
        finally:
            follows.close()

    def inside(scenario: Scenario) -> None:
        forwarding = Path("/proc/sys/net/ipv6/conf/all/forwarding")
        forwarding.write_text("1", encoding="ascii")
        ip(*ADDRESSES)
        try:
            asyncio.run(follow(scenario))
        finally:
            no_routes()
            ip("-6 route flush dev ist0", "-6 addr flush dev ist0", "-6 neigh flush dev ist0 nud permanent")
            forwarding.write_text("0", encoding="ascii")

    return lambda scenario: kernel.bench().do(lambda: inside(scenario))


def group(plane: KernelPlane, last: int = 0) -> int:
    return said(plane.groups6._laid, HOSTS + last)


async def changed(gateway: Gateway, *commands: str) -> None:
    ip(*commands)
    await asyncio.sleep(0.1)
    await gateway.settled()


@pytest.mark.root
def test_a_route_that_changes_is_followed(plane: KernelPlane, play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        before = group(plane)
        await changed(gateway, "route add 2001:db8::3/128 via 2001:db8:9::3 dev ist0")
        assert group(plane) == 0, "it has its last 24 bits of its own"
        assert group(plane, 1 << 24) == before
        assert [gateway.next_hop(each) for each in (2, 3, 4)] == [NEAR, OTHER, NEAR]
        await changed(gateway, "route del 2001:db8::3/128")
        assert group(plane) == before
        assert gateway.next_hop(3) == NEAR
        await changed(gateway, "route replace 2001:db8::/48 via 2001:db8:9::3 dev ist0")
        assert group(plane) not in {0, before}
        assert [gateway.next_hop(each) for each in (2, 3)] == [OTHER] * 2

    play(scenario)


@pytest.mark.root
def test_news_of_a_route_alone_make_its_destinations_be_asked_about(
    plane: KernelPlane, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(gateway: Gateway) -> None:
        monkeypatch.setattr(uniform_routes, "SETTLE_SECONDS", 100.0)
        assert gateway.next_hop(3) == NEAR
        ip("route add 2001:db8::3/128 via 2001:db8:9::3 dev ist0")
        await asyncio.sleep(0.05)
        assert group(plane) == 0
        assert group(plane, 1 << 24)
        assert [gateway.next_hop(each) for each in (2, 3)] == [NEAR, OTHER]
        ip("route del 2001:db8::/48 dev ist0")
        await asyncio.sleep(0.05)
        assert group(plane, 1 << 24) == 0

    play(scenario)


@pytest.mark.root
def test_one_is_asked_about_for_all_until_nobody_follows(plane: KernelPlane, play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        asyncio.get_running_loop().remove_reader(gateway.follows._news)
        ip("route add 2001:db8::3/128 via 2001:db8:9::3 dev ist0")
        await asyncio.sleep(0.02)
        # Whoever is the first of a tick is asked about; most ticks are longer than two packets.
        found = [(gateway.next_hop(2), gateway.next_hop(3)) for _ in range(20)]
        assert (NEAR, NEAR) in found, "nobody has said that it has changed"
        plane.groups6.trust(int(time.clock_gettime(time.CLOCK_BOOTTIME)))
        assert group(plane), "what is written is that of before"
        await asyncio.sleep(0.02)
        assert [gateway.next_hop(each) for each in (2, 3)] == [NEAR, OTHER]

    play(scenario)


@pytest.mark.root
def test_a_neighbour_that_changes_is_followed_by_the_next_tick(plane: KernelPlane, play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert gateway.next_hop(2) == NEAR
        ip(f"neigh replace 2001:db8:9::2 lladdr {OTHER} dev ist0")
        await asyncio.sleep(0.02)
        assert group(plane)
        assert [gateway.next_hop(each) for each in (2, 3)] == [OTHER] * 2

    play(scenario)


@pytest.mark.root
@pytest.mark.parametrize(
    "surprise",
    [
        "route append 2001:db8::/48 via 2001:db8:9::3 dev ist0",
        "route add 2001:db8::/48 via 2001:db8:9::3 dev ist0 metric 5",
        "route add 2001:db8::/48 from 2001:db8:9::/64 via 2001:db8:9::3 dev ist0",
        "route replace 2001:db8::/48 via 2001:db8:9::2 dev ist0 expires 100",
        "route add blackhole 2001:db8::/64",
        "route add 2001:db8::/64 dev ist0",
        "addr add 2001:db8::ff/128 dev ist5 nodad",
    ],
)
def test_what_does_not_go_by_destination_alone_is_in_no_group(surprise: str, plane: KernelPlane, play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert group(plane)
        try:
            await changed(gateway, f"-6 {surprise}")
            assert group(plane) == 0
        finally:
            ip("-6 addr flush dev ist5", "-6 route flush 2001:db8::/48", "-6 route flush type blackhole")

    play(scenario)


@pytest.mark.root
def test_with_a_rule_of_somebody_each_is_asked_about(plane: KernelPlane, play: Play) -> None:
    async def scenario(gateway: Gateway) -> None:
        assert gateway.next_hop(2) == NEAR
        ip("-6 route add 2001:db8::2/128 via 2001:db8:9::3 dev ist0 table 100")
        try:
            ip("-6 rule add to 2001:db8::/64 table 100")
            await gateway.settled(groups=False)
            await asyncio.sleep(0.02)
            assert gateway.next_hop(2) == OTHER
        finally:
            ip("-6 rule del to 2001:db8::/64 table 100", "-6 route flush table 100")
        await gateway.settled()
        await asyncio.sleep(0.02)
        assert gateway.next_hop(2) == NEAR

    play(scenario)
