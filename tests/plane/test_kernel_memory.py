# SPDX-License-Identifier: BSD-3-Clause
"""What the kernel plane remembers, and the reference plane behind it with the same memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.border.effect import Bind, Deregister, Ending, Register, Unbind
from isthmus.border.realm import Border
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.kernel.contact import EPOCH_SECONDS, EPOCHS_KEPT
from plane.fixture import NOW, scene, stage
from plane.kernel_under_test import KernelUnderTest
from plane.test_kernel_plane import one, with_plane

kernel = KernelUnderTest()
pytestmark = pytest.mark.root

LOCAL, PEER, STRANGER = (Address.parse(text) for text in ("149.112.240.55", "192.156.136.22", "192.156.136.23"))
FOUR, FIVE = Owner(1, Address.parse("10.0.0.4")), Owner(1, Address.parse("10.0.0.5"))
PUBLIC, ESP = 2, 50
ERROR = {
    "ipv4": "198.51.100.1 -> 149.112.240.55",
    "unreachable": 1,
    "quote": {"ipv4": "149.112.240.55 -> 192.156.136.22", "esp": 77, "octets": 8},
}


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def ipsec() -> tuple[Border, tuple[Programmable, ...]]:
    return stage(scene("ipsec"))


def guarded() -> tuple[Border, tuple[Programmable, ...]]:
    """A port that admits contacted peers only."""
    binding = {
        "owner": "private 10.0.0.4",
        "id": 77,
        "local": "149.112.240.55",
        "ports": "15000",
        "remote": {"admit": "contacted"},
        "tunnel": "10.0.0.1 -> 10.0.0.4",
    }
    return stage(scene("gateway"), [binding])


INWARD = {"ipv4": "192.156.136.22 -> 149.112.240.55", "tcp": "80 -> 15000"}
OUTWARD = {"ipv4": "149.112.240.55 -> 192.156.136.22", "tcp": "15000 -> 80", "outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"}}


# --- contacts ---------------------------------------------------------------------------------


def test_what_the_program_notes_is_known_and_only_that() -> None:
    border, effects = guarded()

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        assert not plane.contacts.knows(FOUR, LOCAL, PEER, now=NOW)
        assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD
        assert plane.contacts.knows(FOUR, LOCAL, PEER, now=NOW)
        assert not plane.contacts.knows(FOUR, LOCAL, STRANGER, now=NOW)
        assert not plane.contacts.knows(FOUR, STRANGER, PEER, now=NOW)
        assert not plane.contacts.knows(FIVE, LOCAL, PEER, now=NOW)
        assert not plane.contacts.knows(Owner(1, PEER), LOCAL, PEER, now=NOW), "nobody of that address"
        later = EPOCH_SECONDS * EPOCHS_KEPT
        assert plane.contacts.knows(FOUR, LOCAL, PEER, now=NOW + later - EPOCH_SECONDS)
        assert not plane.contacts.knows(FOUR, LOCAL, PEER, now=NOW + later + 2 * EPOCH_SECONDS)

    with_plane(border, work)


def test_what_is_noted_the_program_admits() -> None:
    border, effects = guarded()

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        plane.contacts.note(FOUR, LOCAL, STRANGER, now=NOW)
        plane.contacts.note(FIVE, LOCAL, PEER, now=NOW)
        assert one(plane, border, "public", INWARD)[1] is Reason.NOT_CONTACTED
        plane.contacts.note(FOUR, LOCAL, PEER, now=NOW - EPOCH_SECONDS * (EPOCHS_KEPT + 2))
        assert one(plane, border, "public", INWARD)[1] is Reason.NOT_CONTACTED
        plane.contacts.note(FOUR, LOCAL, PEER, now=NOW)
        assert one(plane, border, "public", INWARD)[1] is Reason.FORWARDED_INWARD

    with_plane(border, work)


def test_the_silent_go_first_when_a_bucket_is_full() -> None:
    border, effects = guarded()
    peers = [Address(Family.IPV4, 0xC0000000 + at * 2654435761 % (1 << 24)) for at in range(3000)]

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        for at, peer in enumerate(peers):
            plane.contacts.note(FOUR, LOCAL, peer, now=NOW - EPOCH_SECONDS * (100 - at % 100))
        known = sum(plane.contacts.knows(FOUR, LOCAL, peer, now=NOW) for peer in peers)
        assert known >= 0.99 * len(peers)
        plane.contacts.note(FOUR, LOCAL, PEER, now=NOW)
        assert one(plane, border, "public", INWARD)[1] is Reason.FORWARDED_INWARD

    with_plane(border, work)


def test_an_address_of_another_family_is_nobodys_peer() -> None:
    border, effects = guarded()
    stranger = Address.parse("2001:db8::1")

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        plane.contacts.note(FOUR, LOCAL, stranger, now=NOW)
        assert not plane.contacts.knows(FOUR, LOCAL, stranger, now=NOW)

    with_plane(border, work)


# --- paths ------------------------------------------------------------------------------------


def sent(host: int, *, spi: int = 77, to: str = "192.156.136.22") -> dict[str, object]:
    """ESP to a peer, by the peer's SPI."""
    return {"ipv4": f"149.112.240.55 -> {to}", "esp": spi, "outer": {"ipv4": f"10.0.0.{host} -> 10.0.0.1"}}


def owner(plane: KernelPlane, *, spi: int = 77) -> Owner | None:
    return plane.paths.owner(LOCAL, PEER, ESP, spi, realm=PUBLIC)


def with_paths(scene_: tuple[Border, tuple[Programmable, ...]], work: Callable[[KernelPlane], None]) -> None:
    border, effects = scene_
    with_plane(border, lambda plane: (plane.apply(effects), work(plane))[1])


def test_the_path_of_what_a_host_sends_is_known(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, _ = ipsec

    def work(plane: KernelPlane) -> None:
        assert owner(plane) is None
        assert one(plane, border, "public", ERROR)[:2] == ("pass", Reason.PASSED)
        assert one(plane, border, "private", sent(4))[1] is Reason.FORWARDED_OUTWARD
        assert owner(plane) == FOUR
        assert owner(plane, spi=78) is None
        assert plane.paths.owner(LOCAL, PEER, 51, 77, realm=PUBLIC) is None
        assert plane.paths.owner(LOCAL, PEER, ESP, 77, realm=1) is None
        assert one(plane, border, "public", ERROR)[1] is Reason.FORWARDED_INWARD

    with_paths(ipsec, work)


def test_a_path_that_is_noted_leads_an_error_to_its_host(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, _ = ipsec

    def work(plane: KernelPlane) -> None:
        plane.paths.note(FIVE, LOCAL, PEER, ESP, 77, realm=PUBLIC)
        verdict = one(plane, border, "public", ERROR)
        assert verdict[1] is Reason.FORWARDED_INWARD
        assert verdict[3] is not None
        assert verdict[3][16:20] == FIVE.address.octets

    with_paths(ipsec, work)


def test_nobody_takes_over_a_path_while_the_first_may_send(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = ipsec
    key = next(each.binding.key for each in effects if isinstance(each, Bind) and each.binding.key.owner == FOUR)

    def work(plane: KernelPlane) -> None:
        assert one(plane, border, "private", sent(4))[1] is Reason.FORWARDED_OUTWARD
        assert one(plane, border, "private", sent(5))[1] is Reason.FORWARDED_OUTWARD
        assert owner(plane) == FOUR
        plane.apply([Unbind(key=key, ending=Ending.FREED)])
        assert one(plane, border, "public", ERROR)[:2] == ("pass", Reason.PASSED), "not the other's"
        assert one(plane, border, "private", sent(5))[1] is Reason.FORWARDED_OUTWARD
        assert owner(plane) == FIVE

    with_paths(ipsec, work)


def test_whose_path_it_was_is_forgotten_with_its_owner(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = ipsec
    keys = [each.binding.key for each in effects if isinstance(each, Bind) and each.binding.key.owner == FOUR]

    def work(plane: KernelPlane) -> None:
        assert one(plane, border, "private", sent(4))[1] is Reason.FORWARDED_OUTWARD
        plane.apply([Unbind(key=each, ending=Ending.FREED) for each in keys])
        plane.apply([Deregister(owner=FOUR, ending=Ending.FREED)])
        assert owner(plane) is None
        plane.paths.note(FOUR, LOCAL, STRANGER, ESP, 77, realm=PUBLIC)
        assert plane.paths.owner(LOCAL, STRANGER, ESP, 77, realm=PUBLIC) is None
        registered = next(each for each in effects if isinstance(each, Register) and each.registration.owner == FOUR)
        plane.apply([replace(registered)])
        assert owner(plane) == FOUR, "the same again"

    with_paths(ipsec, work)


# --- realms and ports -------------------------------------------------------------------------


def test_a_realm_without_an_interface_punts_by_its_port(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = ipsec
    dying = {"ipv4": "192.156.136.22 -> 149.112.240.55", "esp": 4096, "ttl": 1}

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        plane._maps["realms"].put(plane._codec.realm_key(PUBLIC), bytes(plane._maps["realms"].value_octets))
        assert one(plane, border, "public", dying)[:2] == ("drop", Reason.TTL_EXCEEDED)
        plane._ways.clear()
        plane.punt(PUBLIC, "realm 1")
        assert one(plane, border, "public", dying)[0] == "punt"

    with_plane(border, work)


def test_naming_a_port_leaves_the_interface_alone(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = ipsec

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        plane.punt(1, "realm 2")
        assert one(plane, border, "private", sent(4))[1] is Reason.FORWARDED_OUTWARD
        inward = {"ipv4": "192.156.136.22 -> 149.112.240.55", "esp": 4096}
        assert one(plane, border, "public", inward)[1] is Reason.FORWARDED_INWARD

    with_plane(border, work)


def test_the_interfaces_mtu_is_looked_at_anew_by_reconcile(ipsec: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = ipsec
    large = {**sent(4), "df": True, "size": 1000}

    def work(plane: KernelPlane) -> None:
        plane.reconcile(effects)
        assert one(plane, border, "private", large)[1] is Reason.FORWARDED_OUTWARD
        find = plane._links.find
        plane._links.find = lambda name: replace(link, mtu=999) if (link := find(name)) else None  # type: ignore[method-assign]
        try:
            plane.reconcile(effects)
        finally:
            del plane._links.find  # type: ignore[method-assign]
        assert one(plane, border, "private", large)[0] == "punt"

    with_plane(border, work)
