# SPDX-License-Identifier: BSD-3-Clause
"""Several hosts behind one address: what is remembered of them never leads to the wrong one (RFC 3104 §4, §6.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Bind, Ending, Unbind
from isthmus.border.verdict import Drop, Forward, Pass, Reason
from isthmus.plane.reference import KnownPaths, ReferencePlane
from isthmus.plane.reference.ike import LIFETIME_SECONDS, MOST_OF_ONE, MOST_UNANSWERED, Cookies
from plane.fixture import NOW, build, scene, stage

PRIVATE, PUBLIC = 1, 2
SHARED, PEER = Address.parse("149.112.240.55"), Address.parse("192.156.136.22")
FOUR, FIVE = (Owner(PRIVATE, Address.parse(f"10.0.0.{at}")) for at in (4, 5))
TO_PEER = f"{SHARED} -> {PEER}"
FROM_PEER = f"{PEER} -> {SHARED}"


def gateway() -> ReferencePlane:
    border, effects = stage(scene("ipsec"))
    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


def unbind(plane: ReferencePlane, owner: Owner, bind_id: int = 1) -> None:
    plane.apply([Unbind(key=BindingKey(owner, bind_id), ending=Ending.FREED)])


def sent(owner: Owner, **fields: object) -> bytes:
    return build({"outer": {"ipv4": f"{owner.address} -> 10.0.0.1"}, "ipv4": TO_PEER, **fields})


def ike(cookie: int, **fields: object) -> dict[str, object]:
    return {"udp": "500 -> 500", "ike": {"cookie": cookie.to_bytes(8, "big").hex(), **fields}}


def error(spi: int) -> bytes:
    return build(
        {"ipv4": f"198.51.100.1 -> {SHARED}", "unreachable": 4, "mtu": 1300, "quote": {"ipv4": TO_PEER, "esp": spi}}
    )


def receiver(verdict: object) -> Owner | None:
    """Who gets a packet that went inward."""
    if not isinstance(verdict, Forward):
        return None
    return Owner(PRIVATE, Address.from_octets(verdict.packets[0][16:20]))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["esp", "error", "ike", "answer", "free", "lease"]),
        st.sampled_from([FOUR, FIVE]),
        st.integers(1, 3),
    ),
    max_size=40,
)


@pytest.mark.rfc("3104", "4")
@given(actions=ACTIONS)
def test_nothing_is_ever_delivered_to_another_host(actions: list[tuple[str, Owner, int]]) -> None:
    """Who has sent by an SPI or cookie first, while he may, hears of it; nobody else does."""
    plane, users = gateway(), dict[tuple[str, int], Owner]()
    effects = stage(scene("ipsec"))[1]
    leases = {
        each.binding.key.owner: each for each in effects if isinstance(each, Bind) and each.binding.key.bind_id == 1
    }
    held = {FOUR, FIVE}
    for what, owner, number in actions:
        key = ("esp" if what in {"esp", "error"} else "ike", number)
        if what == "free":
            # Five holds another place for cookies, by name.
            unbind(plane, owner)
            held.discard(owner)
            if owner == FOUR:
                users = {each: user for each, user in users.items() if each[0] == "esp" or user != owner}
        elif what == "lease":
            plane.apply([leases[owner]])
            held.add(owner)
        elif what == "esp":
            verdict = plane.process(PRIVATE, sent(owner, esp=number), now=NOW)
            assert isinstance(verdict, Forward) == (owner in held)
            if owner in held and users.get(key) not in held:
                users[key] = owner
        elif what == "error":
            found = receiver(plane.process(PUBLIC, error(number), now=NOW))
            assert found == (users.get(key) if users.get(key) in held else None)
        elif what == "ike":
            verdict = plane.process(PRIVATE, sent(owner, **ike(number)), now=NOW)
            may = owner in held or owner == FIVE
            assert isinstance(verdict, Forward) == (may and users.get(key, owner) == owner)
            if may:
                users.setdefault(key, owner)
        else:
            answer = build({"ipv4": FROM_PEER, **ike(number, responder="aabbccddeeff0011")})
            assert receiver(plane.process(PUBLIC, answer, now=NOW)) == users.get(key)


def test_the_longest_unused_paths_go_first() -> None:
    paths = KnownPaths(capacity=2)
    paths.note(FOUR, SHARED, PEER, 50, 1, realm=PUBLIC)
    paths.note(FOUR, SHARED, PEER, 50, 2, realm=PUBLIC)
    assert paths.owner(SHARED, PEER, 50, 1, realm=PUBLIC) == FOUR
    paths.note(FIVE, SHARED, PEER, 50, 3, realm=PUBLIC)
    assert len(paths) == 2
    assert [paths.owner(SHARED, PEER, 50, spi, realm=PUBLIC) for spi in (1, 2, 3)] == [FOUR, None, FIVE]


def test_a_path_is_of_one_realm_and_one_protocol() -> None:
    paths = KnownPaths()
    paths.note(FOUR, SHARED, PEER, 50, 1, realm=PUBLIC)
    assert paths.owner(SHARED, PEER, 51, 1, realm=PUBLIC) is None
    assert paths.owner(SHARED, PEER, 50, 1, realm=PRIVATE) is None


@pytest.mark.rfc("3102", "6.2")
def test_a_path_is_taken_over_when_its_first_sender_holds_nothing_any_more() -> None:
    plane = gateway()
    plane.process(PRIVATE, sent(FOUR, esp=7), now=NOW)
    plane.process(PRIVATE, sent(FIVE, esp=7), now=NOW)
    assert receiver(plane.process(PUBLIC, error(7), now=NOW)) == FOUR
    unbind(plane, FOUR)
    assert plane.process(PUBLIC, error(7), now=NOW) == Pass()
    plane.process(PRIVATE, sent(FIVE, esp=7), now=NOW)
    assert receiver(plane.process(PUBLIC, error(7), now=NOW)) == FIVE


@pytest.mark.rfc("3104", "6.1")
def test_cookies_are_forgotten_with_the_place_for_them() -> None:
    plane = gateway()
    plane.process(PRIVATE, sent(FOUR, **ike(1)), now=NOW)
    answer = build({"ipv4": FROM_PEER, **ike(1, responder="aabbccddeeff0011")})
    assert receiver(plane.process(PUBLIC, answer, now=NOW)) == FOUR
    unbind(plane, FOUR)
    assert len(plane.memory.cookies) == 0
    assert plane.process(PUBLIC, answer, now=NOW) == Drop(Reason.UNKNOWN_COOKIE)


@pytest.mark.rfc("3104", "6.1")
def test_cookies_stay_while_another_place_for_them_does() -> None:
    plane = gateway()
    plane.process(PRIVATE, sent(FIVE, **ike(1)), now=NOW)
    unbind(plane, FIVE, 1)
    answer = build({"ipv4": FROM_PEER, **ike(1, responder="aabbccddeeff0011")})
    assert receiver(plane.process(PUBLIC, answer, now=NOW)) == FIVE
    unbind(plane, FIVE, 2)
    assert len(plane.memory.cookies) == 0


@pytest.mark.rfc("3104", "6.1")
def test_one_host_has_a_share_of_cookies() -> None:
    cookies = Cookies()
    cookies.use(FIVE, PUBLIC, SHARED, b"neighbour", now=NOW)
    for at in range(MOST_OF_ONE + 1):
        cookies.use(FOUR, PUBLIC, SHARED, at.to_bytes(8, "big"), now=NOW + at)
        cookies.use(FOUR, PUBLIC, SHARED, bytes(8), now=NOW + at)
    assert len(cookies) == MOST_OF_ONE + 1
    kept = [cookies.owner(PUBLIC, SHARED, at.to_bytes(8, "big"), now=NOW) for at in range(4)]
    assert kept == [FOUR, None, FOUR, FOUR], "what is used stays, the longest unused goes"
    assert cookies.owner(PUBLIC, SHARED, b"neighbour", now=NOW) == FIVE


@pytest.mark.rfc("3104", "6.1")
def test_strangers_who_call_a_host_do_not_drive_out_the_cookies_that_it_uses() -> None:
    cookies = Cookies()
    cookies.use(FOUR, PUBLIC, SHARED, b"mine....", now=NOW)
    cookies.use(FOUR, PUBLIC, SHARED, b"answered", now=NOW, by_peer=True)
    cookies.use(FOUR, PUBLIC, SHARED, b"answered", now=NOW)
    for at in range(1, 2 * MOST_OF_ONE):
        cookies.use(FOUR, PUBLIC, SHARED, at.to_bytes(8, "big"), now=NOW + at, by_peer=True)
    assert len(cookies) == 2 + MOST_UNANSWERED
    for each in (b"mine....", b"answered"):
        assert cookies.owner(PUBLIC, SHARED, each, now=NOW) == FOUR
        cookies.use(FOUR, PUBLIC, SHARED, each, now=NOW + 1, by_peer=True)
    cookies.forget(FOUR, PUBLIC, SHARED)
    assert len(cookies) == 0


@pytest.mark.rfc("3104", "6.1")
def test_cookies_are_kept_for_a_day() -> None:
    cookies = Cookies()
    cookies.use(FOUR, PUBLIC, SHARED, b"12345678", now=NOW)
    assert cookies.owner(PUBLIC, SHARED, b"12345678", now=NOW + LIFETIME_SECONDS - 1) == FOUR
    cookies.use(FOUR, PUBLIC, SHARED, b"12345678", now=NOW + LIFETIME_SECONDS - 1)
    assert cookies.owner(PUBLIC, SHARED, b"12345678", now=NOW + LIFETIME_SECONDS) == FOUR
    assert cookies.owner(PUBLIC, SHARED, b"12345678", now=NOW + 2 * LIFETIME_SECONDS) is None
    assert len(cookies) == 0
