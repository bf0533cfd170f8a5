# SPDX-License-Identifier: BSD-3-Clause
"""The mapping table as a value, and the direct table that planes read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.border import mapping as mapping_module
from isthmus.border.mapping import DirectTable, Mapping, chunks_needed, image_of
from isthmus.errors import PlaneError

ONE, TWO, THREE = image_of(0x81020208), image_of(0x01D54D05), image_of(0x81024B01)


def made(entries):
    return Mapping.of((Prefix.parse(prefix), image) for prefix, image in entries.items())


def ip(text):
    return Address.parse(text)


def room(chunks=8):
    return DirectTable(np.zeros(1 << 24, np.uint32), np.zeros(chunks * 256, np.uint32))


@pytest.mark.rfc("ipae", "5.1")
def test_the_longest_prefix_decides():
    mapping = made({"10.0.0.0/8": ONE, "10.1.0.0/16": TWO, "10.1.2.3/32": THREE})
    assert mapping.lookup(ip("10.0.0.1")) == ONE
    assert mapping.lookup(ip("10.1.0.1")) == TWO
    assert mapping.lookup(ip("10.1.2.3")) == THREE
    assert mapping.lookup(ip("10.1.2.4")) == TWO
    assert mapping.lookup(ip("11.0.0.0")) is None
    assert mapping.lookup(ip("9.255.255.255")) is None
    assert mapping.lookup(ip("::1")) is None
    assert mapping.lookup_entry(ip("10.1.9.9")) == (Prefix.parse("10.1.0.0/16"), TWO)


def test_the_ends_of_the_address_space():
    mapping = made({"0.0.0.0/0": ONE, "0.0.0.0/32": TWO, "255.255.255.255/32": THREE})
    assert mapping.lookup(ip("0.0.0.0")) == TWO
    assert mapping.lookup(ip("0.0.0.1")) == ONE
    assert mapping.lookup(ip("255.255.255.254")) == ONE
    assert mapping.lookup(ip("255.255.255.255")) == THREE


def test_an_empty_table_maps_nothing():
    assert Mapping.of().lookup(ip("10.0.0.1")) is None
    assert len(Mapping.of()) == 0
    assert list(Mapping.of()) == []


def test_equal_tables_are_equal_whatever_the_order_they_were_made_in():
    entries = [(Prefix.parse("10.1.0.0/16"), TWO), (Prefix.parse("10.0.0.0/8"), ONE)]
    one, other = Mapping.of(entries), Mapping.of(reversed(entries))
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest == other.digest
    assert one != Mapping.of(entries[:1])
    assert one.digest != Mapping.of(entries[:1]).digest
    assert list(one) == sorted(entries)


def test_the_same_entry_twice_counts_once():
    assert len(Mapping.of([(Prefix.parse("10.0.0.0/8"), ONE)] * 2)) == 1


@pytest.mark.parametrize(
    ("numbers", "lengths", "uppers", "problem"),
    [
        ([0x0A000000, 0x0A000000], [8, 8], [ONE, TWO], r"10\.0\.0\.0/8 has two values"),
        ([0x0A000001], [8], [ONE], "beyond the prefix length"),
        ([0x0A000000], [33], [ONE], "longer than 32"),
        ([0x0A000000], [8], [image_of(0x00010203)], "countries 0 and 127"),
        ([0x0A000000], [8], [image_of(0x80010203)], "countries 0 and 127"),
        ([0x0A000000], [8], [image_of(0x7F010203)], "countries 0 and 127"),
        ([0x0A000000], [8], [image_of(0xFF010203)], "countries 0 and 127"),
    ],
)
def test_what_is_no_table_is_refused(numbers, lengths, uppers, problem):
    with pytest.raises(ValueError, match=problem):
        Mapping.from_arrays(
            np.array(numbers, np.uint32),
            np.array(lengths, np.uint8),
            np.array([each.address.number >> 32 for each in uppers], np.uint32),
        )


def test_images_are_sip_prefixes_of_32_bits():
    for prefix, image in [
        (Prefix.parse("10.0.0.0/8"), Prefix.parse("10.0.0.0/8")),
        (ONE, ONE),
        (Prefix.parse("10.0.0.0/8"), Prefix(Address(Family.SIP, 1 << 48), 16)),
    ]:
        with pytest.raises(ValueError, match="IPv4 prefix to a SIP /32"):
            Mapping.of([(prefix, image)])


def test_a_difference_says_what_came_went_and_changed():
    old = made({"10.0.0.0/8": ONE, "10.1.0.0/16": TWO, "11.0.0.0/8": ONE})
    new = made({"10.0.0.0/8": ONE, "10.1.0.0/16": THREE, "10.0.0.0/16": ONE})
    difference = old.diff(new)
    assert difference.added == made({"10.0.0.0/16": ONE})
    assert difference.removed == made({"11.0.0.0/8": ONE})
    assert difference.before == made({"10.1.0.0/16": TWO})
    assert difference.after == made({"10.1.0.0/16": THREE})
    assert len(difference) == 3
    assert not old.diff(old)


def test_entries_within_and_covering_a_prefix():
    mapping = made({"10.0.0.0/8": ONE, "10.1.0.0/16": TWO, "10.1.2.0/24": ONE, "10.2.0.0/16": ONE})
    assert mapping.within(Prefix.parse("10.1.0.0/16")) == made({"10.1.0.0/16": TWO, "10.1.2.0/24": ONE})
    assert mapping.covering(Prefix.parse("10.1.2.0/24")) == made(
        {"10.0.0.0/8": ONE, "10.1.0.0/16": TWO, "10.1.2.0/24": ONE}
    )
    assert len(mapping.within(Prefix.parse("0.0.0.0/0"))) == 4
    assert len(mapping.covering(Prefix.parse("192.0.2.1/32"))) == 0
    assert len(made({"0.0.0.0/0": ONE}).covering(Prefix.parse("192.0.2.1/32"))) == 1


def test_a_direct_table_takes_a_chunk_only_where_a_24_is_cut():
    mapping = made({"10.0.0.0/24": ONE, "10.0.1.128/25": TWO, "10.0.2.0/25": TWO, "10.0.2.128/25": TWO})
    assert chunks_needed(mapping) == 1
    direct = room(1)
    direct.load(mapping)
    assert direct.lookup(ip("10.0.0.77")) == ONE
    assert direct.lookup(ip("10.0.1.127")) is None
    assert direct.lookup(ip("10.0.1.128")) == TWO
    assert direct.lookup(ip("10.0.2.1")) == direct.lookup(ip("10.0.2.255")) == TWO


def test_without_room_nothing_is_written():
    top = np.zeros(1 << 24, np.uint32)
    direct = DirectTable(top, np.zeros(256, np.uint32))
    with pytest.raises(PlaneError, match="cuts 2 blocks of 256 addresses; the table has 1 chunks and lacks 1"):
        direct.load(made({"10.0.0.0/8": ONE, "10.0.0.0/25": TWO, "11.0.0.0/25": TWO}))
    assert not top.any()


def test_a_chunk_that_was_given_up_is_filled_again_only_after_reclaim():
    """A reader may have read the word that points to it, and not yet what it points to."""
    cut, other, plain = made({"10.0.0.0/25": ONE}), made({"11.0.0.0/25": ONE}), Mapping.of()
    direct = room(1)
    direct.load(cut)
    direct.change(cut, plain)
    with pytest.raises(PlaneError, match="lacks 1"):
        direct.change(plain, other)
    direct.reclaim()
    direct.change(plain, other)
    assert direct.lookup(ip("11.0.0.1")) == ONE


def test_a_table_left_by_an_earlier_daemon_is_taken_over():
    old, new = made({"10.0.0.0/25": ONE, "12.0.0.0/8": TWO}), made({"10.0.0.0/26": ONE, "11.0.0.0/25": TWO})
    top, chunks = np.zeros(1 << 24, np.uint32), np.zeros(2 * 256, np.uint32)
    DirectTable(top, chunks).load(old)
    again = DirectTable(top, chunks)
    assert again.lookup(ip("10.0.0.127")) == ONE
    again.load(new)
    assert again.lookup(ip("10.0.0.127")) is None
    assert again.lookup(ip("10.0.0.63")) == ONE
    assert again.lookup(ip("11.0.0.1")) == TWO
    assert again.lookup(ip("12.0.0.1")) is None
    assert again.load(new) == 0


def test_a_change_writes_only_what_differs():
    old = made({"10.0.0.0/8": ONE, "11.1.1.0/25": TWO, "12.0.0.0/24": ONE})
    new = made({"10.0.0.0/8": ONE, "11.1.1.0/25": THREE, "12.0.0.0/24": TWO})
    direct = room()
    direct.load(old)
    assert direct.change(old, new) == 128 + 1
    assert direct.change(new, new) == 0


# Few places, so that prefixes meet, lie in each other and cut the same blocks.
_numbers = st.builds(
    lambda high, low: high << 8 | low, st.sampled_from([0, 0x0A0000, 0x0A0001, 0x0A0100, 0xFFFFFF]), st.integers(0, 255)
)
_entries = st.dictionaries(
    st.builds(
        lambda number, length: Prefix(Address(Family.IPV4, number >> (32 - length) << (32 - length)), length),
        _numbers,
        st.one_of(st.integers(0, 32), st.integers(20, 32)),
    ),
    st.sampled_from([ONE, TWO, THREE]),
    max_size=20,
)


def by_hand(entries, address):
    holding = [prefix for prefix in entries if address in prefix]
    return entries[max(holding, key=lambda prefix: prefix.length)] if holding else None


@given(_entries, st.lists(_numbers, min_size=1, max_size=30))
def test_looking_up_is_choosing_the_longest_prefix(entries, numbers):
    mapping = Mapping.of(entries.items())
    for number in numbers:
        address = Address(Family.IPV4, number)
        assert mapping.lookup(address) == by_hand(entries, address)


class Watched(np.ndarray):
    """Calls ``seen`` after every write to it."""

    seen = staticmethod(lambda: None)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        Watched.seen()


@pytest.fixture(scope="module")
def buffers():
    return np.zeros(1 << 24, np.uint32), np.zeros(32 * 256, np.uint32)


@pytest.fixture(scope="module")
def watched(buffers):
    return DirectTable(*(each.view(Watched) for each in buffers))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whoever_reads_during_a_change_finds_the_old_image_or_the_new_one(buffers, watched, data):
    """The promise to the kernel plane; looked at after every single write."""
    old, new = data.draw(_entries), data.draw(_entries)
    places = [(high << 8) + low for high in (0, 0x0A0000, 0x0A0001, 0x0A0100, 0xFFFFFF) for low in range(0, 256, 5)]
    before, after = Mapping.of(old.items()), Mapping.of(new.items())
    numbers = np.array(places, np.uint32)
    watched.reclaim()
    watched.load(before)
    watched.reclaim()

    reader = DirectTable.__new__(DirectTable)
    reader._top, reader._chunks = buffers[0], buffers[1].reshape(-1, 256)
    first = reader.lookup_many(numbers)

    def look():
        seen = reader.lookup_many(numbers)
        assert ((seen == first) | (seen == last)).all()

    last = np.array(
        [(found.address.number >> 32 if (found := after.lookup(Address(Family.IPV4, n))) else 0) for n in places],
        np.uint32,
    )
    Watched.seen = look
    try:
        watched.change(before, after)
    finally:
        Watched.seen = staticmethod(lambda: None)
    assert (reader.lookup_many(numbers) == last).all()


@settings(max_examples=20, deadline=None)
@given(old=_entries, new=_entries)
def test_a_change_leaves_what_loading_afresh_would(watched, old, new):
    before, after = Mapping.of(old.items()), Mapping.of(new.items())
    watched.reclaim()
    watched.load(before)
    watched.reclaim()
    watched.change(before, after)
    assert watched.load(after) == 0


def test_many_scattered_changes_are_one_range(monkeypatch):
    monkeypatch.setattr(mapping_module, "_MANY", 2)
    old = made({f"10.{n}.0.0/16": ONE for n in range(0, 8, 2)})
    new = made({f"10.{n}.0.0/16": TWO for n in range(0, 8, 2)})
    direct = room()
    direct.load(old)
    assert direct.change(old, new) == 4 * 256
    assert direct.lookup(ip("10.4.1.1")) == TWO
    assert direct.lookup(ip("10.5.1.1")) is None


@pytest.mark.rfc("ipae", "8.1")
def test_a_million_networks_fit_and_every_kind_of_lookup_agrees():
    random = np.random.default_rng(8507)
    lengths = random.choice(np.array([16, 19, 20, 21, 22, 23, 24, 27, 32], np.uint8), 1_200_000)
    numbers = random.integers(1 << 24, 224 << 24, len(lengths), np.uint32)
    numbers -= mapping_module.beyond(numbers, lengths).astype(np.uint32)
    _, first = np.unique(mapping_module._keys(numbers, lengths), return_index=True)
    first = first[lengths[first] < 25].tolist() + first[lengths[first] >= 25][:3000].tolist()
    uppers = (random.integers(1, 126, len(numbers), np.uint32) << 24) | np.uint32(mapping_module.C_BIT)
    mapping = Mapping.from_arrays(numbers[first], lengths[first], uppers[first])
    direct = DirectTable.allocate(mapping)
    asked = np.concatenate([random.integers(0, 1 << 32, 2000, np.uint32), mapping.numbers[-3000:]])
    found = direct.lookup_many(asked)
    for number, upper in zip(asked.tolist(), found.tolist(), strict=True):
        image = mapping.lookup(Address(Family.IPV4, number))
        assert (image.address.number >> 32 if image else 0) == upper
        assert image == direct.lookup(Address(Family.IPV4, number))
