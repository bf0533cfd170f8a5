# SPDX-License-Identifier: BSD-3-Clause
"""Any ports for who holds nothing are found without detours: the very ports that the long way finds."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.pool import Pool, PoolError, Quota
from isthmus.border.ranges import Ranges

OWNERS = [Owner(1, Address.parse(f"10.0.0.{number}")) for number in range(1, 4)]
OWNERS.append(Owner(1, Address.parse("2001:db8::4")))
SHARED = [
    (Address.parse(f"149.112.240.{number}"), Ranges.parse(ports)) for number, ports in ((1, "8-31"), (2, "16-39"))
]

takes = st.tuples(st.sampled_from(OWNERS), st.sampled_from([1, 3, 4, 8, 16, 17]))
steps = st.lists(st.one_of(takes, st.integers(0, 7), st.floats(0.0, 40.0)), max_size=40)


def play(pool, steps, note):
    """What comes of takes, givings-back of the nth lease that stands, and time."""
    now, held, came = 0.0, [], []
    for step in steps:
        match step:
            case (owner, count):
                try:
                    held.append((owner, pool.take_ports(owner, ports=count, now=now)))
                    note.setdefault(owner, []).append(held[-1][1])
                    came.append(held[-1])
                except PoolError as error:
                    came.append(error.shortage)
            case int() if step < len(held):
                owner, resource = held.pop(step)
                note[owner].remove(resource)
                pool.release(owner, resource, now=now)
            case float():
                now += step
        came.append(pool.free_ports())
    return came


@given(
    steps,
    st.sampled_from([Quota(), Quota(ports=8), Quota(bindings=0), Quota(bindings=2)]),
    st.integers(0, 3),
    st.booleans(),
)
def test_what_is_found_is_what_the_long_way_finds(steps, quota, seed, computed):
    short, long = (
        Pool(2, shared=SHARED, slice_size=8, quota=quota, rest_seconds=30.0, computed=computed, seed=seed)
        for _ in range(2)
    )
    known = {}
    short.ask(lambda owner: known.get(owner, ()))
    assert play(short, steps, known) == play(long, steps, {})
