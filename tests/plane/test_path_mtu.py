# SPDX-License-Identifier: BSD-3-Clause
"""What is learned of the ways between tunnel ends, how long, and who may not teach it (docs/data-plane.md)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.crossing import Way
from isthmus.border.effect import Bind, Ending, Unbind
from isthmus.border.realm import Border
from isthmus.border.verdict import Forward, Pass, Reason, Reply, Verdict
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.reference import ReferencePlane
from isthmus.plane.reference.path_mtu import LIFETIME_SECONDS
from isthmus.wire.icmp import IcmpView
from isthmus.wire.ipv4 import Ipv4View
from plane.fixture import NOW, Outcome, build, scene, stage
from plane.kernel_under_test import KernelUnderTest

PRIVATE, PUBLIC = 1, 2
END, FOUR = Address.parse("10.0.0.1"), Address.parse("10.0.0.4")
WAY = Way(PRIVATE, END, FOUR)
DOWN = {"ipv4": "192.156.136.22 -> 149.112.240.55", "tcp": "80 -> 10000", "df": True}
INNER = DOWN | {"size": 1480}

kernel = KernelUnderTest()
needs_kernel = pytest.mark.skipif(kernel.available() is not None, reason="needs the kernel plane")


def too_big(mtu: int, *, inner: dict[str, object] = INNER, **fields: object) -> bytes:
    outer = {"ipv4": "10.0.0.99 -> 10.0.0.1", "too_big": mtu, "about": "10.0.0.1 -> 10.0.0.4", **fields}
    return build(inner | {"outer": outer})


def gateway() -> ReferencePlane:
    border, effects = stage(scene("gateway"))
    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


def told(verdict: Verdict) -> int | None:
    """The MTU that a sender is told of, if it is."""
    if not isinstance(verdict, Reply):
        assert isinstance(verdict, Forward)
        return None
    return int.from_bytes(IcmpView.parse(Ipv4View.parse(verdict.packet).payload).rest[2:4], "big")


def tell(plane: ReferencePlane, now: float = NOW) -> int | None:
    return told(plane.process(PUBLIC, build(DOWN | {"size": 1480}), now=now))


@pytest.mark.rfc("2003", "5.1")
def test_a_tunnel_end_remembers_what_the_way_carries_and_relays_it() -> None:
    plane = gateway()
    assert tell(plane) is None
    assert plane.process(PRIVATE, too_big(1400), now=NOW) == Pass()
    assert tell(plane) == 1380
    assert plane.path_mtus(now=NOW) == [(WAY, 1400)]
    assert plane.path_mtus(now=NOW) == []


@pytest.mark.rfc("1191", "6.3")
def test_it_is_forgotten_after_ten_minutes_by_itself() -> None:
    plane = gateway()
    plane.process(PRIVATE, too_big(1400), now=NOW)
    assert plane.memory.path_mtus.expires_at == NOW + LIFETIME_SECONDS
    assert plane.path_mtus(now=NOW) == [(WAY, 1400)]
    assert plane.path_mtus(now=NOW + LIFETIME_SECONDS - 1) == []
    assert plane.path_mtus(now=NOW + LIFETIME_SECONDS) == [(WAY, None)]
    assert plane.memory.path_mtus.expires_at is None
    assert tell(plane, NOW + LIFETIME_SECONDS) is None


def test_the_same_error_again_does_not_make_it_last_longer() -> None:
    plane = gateway()
    for wait in range(0, 600, 100):
        plane.process(PRIVATE, too_big(1400), now=NOW + wait)
    assert tell(plane, NOW + LIFETIME_SECONDS) is None


def test_it_goes_with_the_last_binding_of_the_way() -> None:
    plane = gateway()
    plane.process(PRIVATE, too_big(1400), now=NOW)
    plane.apply([Unbind(key=BindingKey(Owner(PRIVATE, FOUR), 1), ending=Ending.FREED)])
    assert len(plane.memory.path_mtus) == 0
    assert plane.path_mtus(now=NOW) == [(WAY, None)]
    plane.process(PRIVATE, too_big(1400), now=NOW)
    assert len(plane.memory.path_mtus) == 0, "a way without a tunnel has nothing to be known of"


def test_it_stays_while_one_binding_of_the_way_does() -> None:
    plane = gateway()
    (first,) = [each for each in stage(scene("gateway"))[1] if isinstance(each, Bind) and _owner(each) == FOUR]
    local = replace(first.binding.selectors[0].local, address=Address.parse("149.112.240.57"))
    other = replace(
        first.binding,
        key=BindingKey(first.binding.key.owner, 9),
        selectors=(replace(first.binding.selectors[0], local=local),),
    )
    plane.apply([replace(first, binding=other)])
    plane.process(PRIVATE, too_big(1400), now=NOW)
    plane.apply([Unbind(key=other.key, ending=Ending.FREED), first])
    assert tell(plane) == 1380


def _owner(effect: Bind) -> Address:
    return effect.binding.key.owner.address


@given(
    errors=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(41, 1480), st.sampled_from([28, 40, 548])), min_size=1, max_size=12
    )
)
@settings(deadline=None)
def test_it_only_becomes_smaller_and_never_too_small(errors: list[tuple[int, int, int]]) -> None:
    plane, known = gateway(), [1500]
    for mtu, size, octets in errors:
        assert plane.process(PRIVATE, too_big(mtu, inner=DOWN | {"size": size}, octets=octets), now=NOW) == Pass()
        known += [value for _, value in plane.path_mtus(now=NOW) if value is not None]
    assert all(576 <= after < before for before, after in pairwise(known))
    assert (tell(plane) or 1480) == known[-1] - 20


@given(cut=st.integers(0, 120), at=st.integers(0, 90), octet=st.integers(0, 255))
def test_no_octets_are_too_strange_to_be_looked_at(cut: int, at: int, octet: int) -> None:
    packet = bytearray(too_big(1400))
    packet[at] = octet
    plane = gateway()
    plane.process(PRIVATE, bytes(packet), now=NOW)
    plane.process(PRIVATE, bytes(packet[:cut]), now=NOW)


# --- the kernel plane is told ---------------------------------------------------------------


def down(plane: KernelPlane, border: Border, size: int) -> Outcome:
    return kernel.one(plane, border, PUBLIC, build(DOWN | {"size": size}))


PUNTED, FORWARDED = ("punt", Reason.PUNTED), ("forward", Reason.FORWARDED_INWARD)


def on_the_kernel(effects: tuple[Programmable, ...], *, reconciled: bool) -> None:
    border, _ = stage(scene("gateway"))

    def work() -> None:
        plane = kernel.open(border, NOW)
        try:
            plane.reconcile(effects)
            assert down(plane, border, 1480)[:2] == FORWARDED
            plane.limit(WAY, 1400)
            if reconciled:
                plane.reconcile(effects)
            assert down(plane, border, 1381)[:2] == PUNTED, "the reference plane answers"
            assert down(plane, border, 1380)[:2] == FORWARDED
            (first,) = [each for each in effects if isinstance(each, Bind) and _owner(each) == FOUR]
            plane.apply([Unbind(key=first.binding.key, ending=Ending.FREED), first])
            assert down(plane, border, 1381)[:2] == PUNTED, "a new binding goes by the same way"
            plane.limit(WAY, None)
            assert down(plane, border, 1480)[:2] == FORWARDED
            plane.limit(WAY, 1400)
        finally:
            plane.close()
        # Another process takes the maps over: what it knows nothing of is not there any more.
        plane = kernel.open(border, NOW)
        try:
            numbers = {key: value for key, value in plane._maps["endpoints"].items() if any(value)}
            plane.reconcile(effects)
            assert down(plane, border, 1480)[:2] == FORWARDED
            after = {key for key, value in plane._maps["endpoints"].items() if any(value)}
            assert after == set(numbers), "endpoints keep their numbers"
        finally:
            plane.close()

    kernel.bench().do(work)


@needs_kernel
@pytest.mark.parametrize("reconciled", [False, True])
def test_the_kernel_plane_holds_to_it_until_told_otherwise(*, reconciled: bool) -> None:
    on_the_kernel(stage(scene("gateway"))[1], reconciled=reconciled)


@needs_kernel
def test_a_way_that_no_tunnel_takes_may_be_limited() -> None:
    border, effects = stage(scene("gateway"))

    def work() -> None:
        plane = kernel.open(border, NOW)
        try:
            plane.reconcile(())
            plane.limit(WAY, 1400)
            plane.apply(effects)
            assert down(plane, border, 1381)[:2] == PUNTED
            plane.limit(Way(PRIVATE, END, Address.parse("10.9.9.9")), None)
        finally:
            plane.close()

    kernel.bench().do(work)
