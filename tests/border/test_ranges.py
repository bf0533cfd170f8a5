# SPDX-License-Identifier: BSD-3-Clause
"""``Ranges`` against Python's own sets."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.border.ranges import Ranges, merge

NUMBERS = st.sets(st.integers(0, 60))
PAIRS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


def ranges(numbers) -> Ranges:
    return Ranges.of(*numbers)


@given(NUMBERS)
def test_a_set_comes_back(numbers):
    made = ranges(numbers)
    assert list(made) == sorted(numbers)
    assert len(made) == len(numbers)
    assert bool(made) == bool(numbers)
    assert [number in made for number in range(-1, 70)] == [number in numbers for number in range(-1, 70)]


@given(PAIRS)
def test_pairs_overlap_in_any_order(pairs):
    plain = {number for first, last in pairs for number in range(first, last + 1)}
    assert Ranges.of(*pairs) == ranges(plain) == Ranges.of(*(range(first, last + 1) for first, last in pairs))


@given(NUMBERS)
def test_the_normal_form_is_the_shortest(numbers):
    pairs = ranges(numbers).pairs
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(pairs))


@given(NUMBERS, NUMBERS)
def test_set_operations(one, other):
    a, b = ranges(one), ranges(other)
    assert set(a | b) == one | other
    assert set(a - b) == one - other
    assert a.overlaps(b) == bool(one & other)
    assert a.covers(b) == (one >= other)
    assert merge([a, b]) == a | b
    Ranges((a - b).pairs)  # is in normal form


@given(NUMBERS, st.sampled_from([1, 2, 4, 8, 16]))
def test_blocks_are_whole_and_aligned(numbers, size):
    expected = [first for first in range(0, 80, size) if all(first + n in numbers for n in range(size))]
    assert list(ranges(numbers).blocks(size)) == expected


@given(NUMBERS.filter(bool))
def test_text_comes_back(numbers):
    assert Ranges.parse(str(ranges(numbers))) == ranges(numbers)


@pytest.mark.parametrize(("text", "numbers"), [("80", {80}), (" 3 , 1-2 ", {1, 2, 3}), ("5-5", {5})])
def test_text_is_read_with_spaces_and_in_any_order(text, numbers):
    assert set(Ranges.parse(text)) == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5-4", "1,,2", "1-2-3"])
def test_what_is_not_a_set_is_refused(text):
    with pytest.raises(ValueError):
        Ranges.parse(text)


@pytest.mark.parametrize("pairs", [((5, 4),), ((1, 3), (4, 5)), ((1, 3), (2, 5)), ((4, 5), (1, 2)), ((-1, 2),)])
def test_pairs_that_are_not_normal_are_refused(pairs):
    with pytest.raises(ValueError):
        Ranges(pairs)


@pytest.mark.parametrize("items", [((9, 3),), ((1, 5), (9, 3))])
def test_a_pair_the_wrong_way_round_is_refused(items):
    with pytest.raises(ValueError):
        Ranges.of(*items)


def test_empty_ranges_add_nothing():
    assert Ranges.of(range(0), range(5, 5), 3) == Ranges.of(3)
    assert Ranges.of() == Ranges(())
