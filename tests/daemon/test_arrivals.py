# SPDX-License-Identifier: BSD-3-Clause
"""Datagrams that wait: no copy among them, none lost that is not a copy, in their order."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.effect import Peer
from isthmus.daemon.arrivals import MOST_WAITING, WAIT_SECONDS, Arrivals

A, B = (Peer(1, Address.parse("10.0.0.4"), port) for port in (40001, 40002))


def test_a_copy_is_left_out_until_the_answer_has_gone_out():
    arrivals = Arrivals()
    arrivals.add([(b"one", A), (b"one", B), (b"one", A)], now=0.0)
    assert arrivals.take(8) == [(b"one", A), (b"one", B)]
    arrivals.add([(b"one", A)], now=0.1)
    arrivals.begin()
    arrivals.add([(b"one", A)], now=0.2)
    assert (len(arrivals), arrivals.refused["duplicate"]) == (0, 3)
    arrivals.answered()
    arrivals.add([(b"one", A)], now=0.3)
    assert arrivals.take(8) == [(b"one", A)]


def test_what_was_taken_after_the_batch_had_begun_is_not_answered_with_it():
    arrivals = Arrivals()
    arrivals.add([(b"one", A), (b"one", B)], now=0.0)
    arrivals.take(1)
    arrivals.begin()
    arrivals.take(1)
    arrivals.answered()
    arrivals.add([(b"one", A), (b"one", B)], now=0.1)
    assert arrivals.take(8) == [(b"one", A)]


def test_a_batch_that_began_before_the_one_before_was_answered_is_answered_after_it():
    arrivals = Arrivals()
    arrivals.add([(b"one", A), (b"one", B)], now=0.0)
    for _ in range(2):
        arrivals.take(1)
        arrivals.begin()
    arrivals.answered()
    arrivals.add([(b"one", A), (b"one", B)], now=0.1)
    assert arrivals.take(8) == [(b"one", A)]
    arrivals.answered()
    arrivals.add([(b"one", B)], now=0.2)
    assert arrivals.take(8) == [(b"one", B)]


def test_only_the_last_of_a_source_has_copies():
    arrivals = Arrivals()
    arrivals.add([(b"one", A), (b"two", A), (b"one", A)], now=0.0)
    assert arrivals.take(8) == [(b"one", A), (b"two", A), (b"one", A)]


def test_nothing_is_put_behind_what_has_waited_for_long():
    arrivals = Arrivals()
    arrivals.add([(b"one", A), (b"two", A)], now=0.0)
    arrivals.add([(b"three", A)], now=WAIT_SECONDS)
    arrivals.add([(b"four", A)], now=WAIT_SECONDS * 1.5)
    assert arrivals.take(2) == [(b"one", A), (b"two", A)]
    arrivals.add([(b"five", A)], now=WAIT_SECONDS * 1.5)
    assert arrivals.take(8) == [(b"three", A), (b"five", A)]
    assert arrivals.refused == {"busy": 1}


def test_no_more_wait_than_may():
    arrivals = Arrivals()
    arrivals.add(((number.to_bytes(4, "big"), A) for number in range(MOST_WAITING + 5)), now=0.0)
    assert (len(arrivals), arrivals.refused["busy"]) == (MOST_WAITING, 5)
    # One that was left out is no copy's first.
    arrivals.take(MOST_WAITING)
    arrivals.add([((MOST_WAITING + 4).to_bytes(4, "big"), A)], now=0.0)
    assert len(arrivals) == 1


@given(st.lists(st.one_of(st.tuples(st.sampled_from([b"one", b"two"]), st.sampled_from([A, B])), st.integers(0, 3))))
def test_every_datagram_is_served_or_is_a_copy_of_the_last_unanswered_one(steps):
    arrivals, served, expected = Arrivals(), [], []
    unanswered = {}
    taken, under_way = [], []
    for step in steps:
        match step:
            case 0:
                arrivals.begin()
                under_way.append(taken)
                taken = []
            case 1 if under_way:
                arrivals.answered()
                for at, (_, peer) in under_way.pop(0):
                    if unanswered.get(peer, (None, None))[0] == at:
                        del unanswered[peer]
            case 1:
                pass
            case 2 | 3:
                some = arrivals.take(step - 1)
                taken += list(enumerate(expected))[len(served) : len(served) + len(some)]
                served += some
            case (data, peer):
                arrivals.add([(bytes(bytearray(data)), peer)], now=0.0)  # as each comes in octets of its own
                if unanswered.get(peer, (None, None))[1] != data:
                    unanswered[peer] = len(expected), data
                    expected.append(step)
    assert served + list(arrivals.take(len(steps))) == expected
