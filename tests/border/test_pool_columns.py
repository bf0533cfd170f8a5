# SPDX-License-Identifier: BSD-3-Clause
"""What a pool is given as columns is what it would be given as objects."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.border.pool import Pool, PoolError, Resource
from isthmus.border.ranges import Ranges
from isthmus.rsip.client import still_resting

A, B, GONE = (Address(Family.IPV4, 0xC0000200 + number) for number in range(3))
ALICE = Owner(1, Address.parse("10.0.0.4"))
RUNS = st.lists(
    st.tuples(st.sampled_from([A, B, GONE]), st.integers(990, 1070), st.sampled_from([1, 3, 8, 16, 32])), max_size=8
)
REST = 120.0


def pool():
    return Pool(2, shared=[(A, Ranges.of((1001, 1060))), (B, Ranges.of((1001, 1060)))], slice_size=8, seed=4)


def resource(run):
    address, first, count = run
    return Resource(realm=2, address=address, ports=Ranges.of((first, first + count - 1)))


def columns(runs):
    return (
        np.array([run[0].number for run in runs], np.uint32),
        np.array([run[1] for run in runs], np.uint16),
        np.array([run[2] for run in runs], np.uint32),
    )


def free(one, now):
    """What could be had, port by port, and how many ports are counted as free."""
    found = set()
    for address in (A, B):
        for port in range(985, 1105):
            try:
                taken = one.take_ports(ALICE, address=address, ports=Ranges.of(port), now=now)
            except PoolError:
                continue
            found.add((address, port))
            one.cancel(ALICE, taken)
    return found, one.free_ports()


@settings(deadline=None)
@given(RUNS, st.lists(st.tuples(RUNS.map(tuple), st.integers(0, 100)), max_size=3))
def test_a_restart_by_columns_is_a_restart_by_objects(held, given_back):
    held = [run for at, run in enumerate(held) if not any(overlap(run, other) for other in held[:at])]
    rested = sorted(((float(at), run) for runs, at in given_back for run in runs), key=lambda each: each[0])
    one, two = pool(), pool()
    for run in held:
        one.restore(ALICE, resource(run))
    resting = [(at, resource(run)) for at, run in rested]
    for at, each in still_resting(resting, [resource(run) for run in held], since=110 - REST):
        one.restore_resting(each, until=at + REST)
    two.restore_runs(*columns(held))
    two.restore_resting_runs(*columns([run for _, run in rested]), until=np.array([at for at, _ in rested]) + REST)
    for now in (110.0, 150.0, 190.0, 300.0):
        assert free(one, now) == free(two, now)


@settings(deadline=None)
@given(RUNS)
def test_what_is_given_back_by_columns_rests(runs):
    runs = [run for at, run in enumerate(runs) if not any(overlap(run, other) for other in runs[:at])]
    one, two = pool(), pool()
    for each in (one, two):
        for run in runs:
            each.restore(ALICE, resource(run))
    for run in runs:
        one.release(ALICE, resource(run), now=10.0)
    two.release_runs(*columns(runs), now=10.0)
    for now in (129.0, 131.0):
        assert free(one, now) == free(two, now)


def overlap(one, other):
    return one[0] == other[0] and one[1] < other[1] + other[2] and other[1] < one[1] + one[2]
