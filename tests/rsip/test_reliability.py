# SPDX-License-Identifier: BSD-3-Clause
"""Counters, waits, the cache of answers, deadlines and rates, each by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.effect import Remember
from isthmus.rsip.deadline import Deadlines
from isthmus.rsip.rate import RateLimit
from isthmus.rsip.reliability import (
    KEEP_SECONDS,
    LAST_COUNTER,
    RFC_INITIAL_SECONDS,
    AnswerCache,
    Freshness,
    Retransmission,
    is_newer,
    next_counter,
)
from isthmus.wire.rsip.codes import MessageType

OWNER = Owner(1, Address.parse("10.0.0.4"))
ASSIGN, REGISTER = MessageType.ASSIGN_REQUEST_RSAP_IP, MessageType.REGISTER_REQUEST


@pytest.mark.rfc("3103", "5")
def test_the_rfcs_waits_are_seven_and_sum_to_1587_5_ms():
    waits = Retransmission(initial_seconds=RFC_INITIAL_SECONDS)
    assert [waits.wait(n) * 1000 for n in range(1, 8)] == [12.5, 25, 50, 100, 200, 400, 800]
    assert waits.total_seconds == pytest.approx(1.5875)


@pytest.mark.parametrize(("initial", "count"), [(0, 7), (-1, 7), (0.1, 0)])
def test_waits_that_are_none_are_refused(initial, count):
    with pytest.raises(ValueError):
        Retransmission(initial_seconds=initial, transmissions=count)


@pytest.mark.rfc("3103", "10.1")
def test_after_the_last_counter_comes_one_and_never_zero():
    assert next_counter(0) == 1
    assert next_counter(LAST_COUNTER - 1) == LAST_COUNTER == 2**32 - 1
    assert next_counter(LAST_COUNTER) == 1


@given(st.integers(1, LAST_COUNTER), st.integers(1, 1000))
def test_a_later_counter_is_newer_across_the_wrap(last, steps):
    counter = last
    for _ in range(min(steps, 50)):
        counter = next_counter(counter)
    assert is_newer(counter, last)
    assert not is_newer(last, counter)
    assert not is_newer(last, last)


def judge(cache, counter, request=b"x", *, kind=ASSIGN, port=1, now=0.0, owner=OWNER):
    return cache.judge(owner, port, counter=counter, kind=kind, request=request, now=now)


def kept(counter=5, request=b"x", answer=b"y", *, port=1, keep_seconds=KEEP_SECONDS):
    cache = AnswerCache(keep_seconds=keep_seconds)
    cache.keep(Remember(owner=OWNER, port=port, counter=counter, request=request, answer=answer))
    return cache


@pytest.mark.rfc("3103", "10.1")
@pytest.mark.parametrize(
    ("counter", "request_", "kind", "expected"),
    [
        (5, b"x", ASSIGN, Freshness.DUPLICATE),
        (5, b"other", ASSIGN, Freshness.FRESH),
        (6, b"x", ASSIGN, Freshness.FRESH),
        (900, b"x", ASSIGN, Freshness.FRESH),
        (4, b"x", ASSIGN, Freshness.STALE),
        (4, b"x", REGISTER, Freshness.RESTART),
        (1, b"x", MessageType.DE_REGISTER_REQUEST, Freshness.RESTART),
    ],
)
def test_what_a_request_is_compared_to_the_last(counter, request_, kind, expected):
    freshness, answer = judge(kept(), counter, request_, kind=kind)
    assert freshness is expected
    assert answer == (b"y" if expected is Freshness.DUPLICATE else b"")


def test_another_port_or_another_host_is_another_session():
    assert judge(kept(), 4, port=2)[0] is Freshness.FRESH
    assert judge(kept(), 4, owner=Owner(1, Address.parse("10.0.0.5")))[0] is Freshness.FRESH


@given(st.integers(1, LAST_COUNTER))
def test_any_counter_but_zero_may_be_the_first(counter):
    assert judge(AnswerCache(), counter)[0] is Freshness.FRESH


@pytest.mark.rfc("3103", "10.1")
def test_a_session_goes_on_across_the_wrap():
    cache = kept(LAST_COUNTER)
    assert judge(cache, 1)[0] is Freshness.FRESH
    cache.keep(Remember(owner=OWNER, port=1, counter=1, request=b"x", answer=b"z"))
    assert judge(cache, LAST_COUNTER, b"old")[0] is Freshness.STALE


def test_answers_outlive_the_registration_by_more_than_two_seconds():
    cache = kept()
    cache.leave(OWNER, now=100.0)
    assert judge(cache, 5, now=102.0)[0] is Freshness.DUPLICATE
    assert judge(cache, 5, now=100.0 + Retransmission().total_seconds)[0] is Freshness.DUPLICATE
    assert judge(cache, 5, now=100.0 + KEEP_SECONDS)[0] is Freshness.FRESH
    assert len(cache) == 0


def test_a_host_that_comes_back_in_time_keeps_its_answers():
    cache = kept()
    cache.leave(OWNER, now=100.0)
    cache.stay(OWNER)
    assert judge(cache, 5, now=1000.0)[0] is Freshness.DUPLICATE
    cache.leave(OWNER, now=1000.0)
    assert judge(cache, 5, now=1001.0)[0] is Freshness.DUPLICATE


def test_one_host_cannot_fill_the_memory_with_ports():
    cache = AnswerCache()
    for port in range(1, 2000):
        cache.keep(Remember(owner=OWNER, port=port, counter=1, request=b"", answer=b""))
    assert len(cache._last[OWNER]) <= 16
    assert cache.last_port(OWNER, now=0.0) == 1999


@given(st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 100))), max_size=300))
def test_deadlines_agree_with_a_dictionary(steps):
    deadlines, plain = Deadlines(), {}
    for key, at in steps:
        if at is None:
            deadlines.discard(key)
            plain.pop(key, None)
        else:
            deadlines.set(key, float(at))
            plain[key] = at
        assert len(deadlines) == len(plain)
        assert deadlines.next_at() == min(plain.values(), default=None)
    popped = []
    while (key := deadlines.pop_due(50.0)) is not None:
        popped.append((plain.pop(key), key))
    assert [at for at, _ in popped] == sorted(at for at, _ in popped)
    assert all(at > 50 for at in plain.values())


def test_deadlines_that_only_move_do_not_fill_the_heap():
    deadlines = Deadlines()
    for turn in range(10_000):
        deadlines.set("one", 1000.0 - turn / 100)
        deadlines.set(turn, 5.0)
        deadlines.discard(turn)
    assert len(deadlines._heap) < 300


def test_a_rate_allows_a_burst_and_then_the_rate():
    limit = RateLimit(10.0, burst=5)
    assert [limit.allow("a", now=1e9) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limit.allow("b", now=1e9)
    assert [limit.allow("a", now=1e9 + 0.1 * n) for n in range(1, 20)] == [True] * 19
    assert RateLimit(None).allow("a", now=0.0)


def test_a_flood_of_sources_does_not_fill_the_memory():
    limit = RateLimit(1.0)
    for key in range(70_000):
        limit.allow(key, now=0.0)
    assert len(limit) == 65_536
    assert not limit.allow("late", now=0.0)
    assert limit.allow("late", now=2.0)
    assert len(limit) == 1
