# SPDX-License-Identifier: BSD-3-Clause
"""The compact sets of hosts and of Client IDs agree with plain ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.rsip.folded import ClientIds, FoldedHosts

NUMBERS = st.sampled_from([0, 1, 7, 8, 4095, 4096, 4097, 0x0A000001, 0x0A000FFF, 0xFFFFFFFF])
COLUMN = st.lists(NUMBERS, unique=True).map(lambda numbers: np.array(numbers, np.uint32))
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2]), st.one_of(NUMBERS, COLUMN)), max_size=12)


def owner(realm, number):
    return Owner(realm, Address(Family.IPV4, number))


@given(STEPS)
def test_folded_hosts_are_a_set(steps):
    folded, plain = FoldedHosts(1), set()
    for add, realm, what in steps:
        if isinstance(what, int):
            (folded.add if add else folded.discard)(owner(realm, what))
            (plain.add if add else plain.discard)(owner(realm, what))
        else:
            (folded.add_all if add else folded.discard_all)(realm, what)
            owners = {owner(realm, number) for number in what.tolist()}
            plain = plain | owners if add else plain - owners
        assert len(folded) == len(plain)
    everybody = [0, 1, 7, 8, 4095, 4096, 4097, 5000, 0x0A000001, 0x0A000FFF, 0xFFFFFFFF]
    for realm in (1, 2):
        expected = [owner(realm, number) in plain for number in everybody]
        assert [owner(realm, number) in folded for number in everybody] == expected
        assert folded.present(realm, np.array(everybody, np.uint32)).tolist() == expected


def test_hosts_with_ipv6_addresses_may_be_folded():
    folded, host = FoldedHosts(1), Owner(1, Address.parse("2001:db8::7"))
    folded.add(host)
    assert host in folded
    assert len(folded) == 1
    folded.discard(host)
    assert host not in folded


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.sampled_from([5, 5 + (1 << 25), 5 + (1 << 26), 9]), unique=True)),
        max_size=12,
    )
)
def test_a_client_id_that_is_given_is_never_taken_for_free(steps):
    ids, plain = ClientIds(), set()
    for add, numbers in steps:
        chosen = [each for each in numbers if (each in plain) != add]
        if len(chosen) % 2:
            (ids.add_all if add else ids.discard_all)(np.array(chosen, np.uint32))
        else:
            for each in chosen:
                (ids.add if add else ids.discard)(each)
        plain = plain | set(chosen) if add else plain - set(chosen)
        for each in (5, 5 + (1 << 25), 5 + (1 << 26), 9):
            assert (each in ids) == (each & (1 << 25) - 1 in {one & (1 << 25) - 1 for one in plain})
