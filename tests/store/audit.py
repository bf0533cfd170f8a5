# SPDX-License-Identifier: BSD-3-Clause
"""What must be true of any store at any time: its leases and its history say the same."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus.address import Address
from isthmus.border.resource import resource_of
from isthmus.store import LeaseStore, Tenure
from isthmus.store.holding import covers


def history(store: LeaseStore, addresses: Iterable[Address]) -> dict[Address, tuple[Tenure, ...]]:
    return {each: store.who_had(each, port=None, at=None) for each in addresses}


def audit(store: LeaseStore, addresses: Iterable[Address]) -> None:
    """Every lease has one open tenure that agrees with it, and every open tenure its lease.

    A lease that holds nothing with a number, because all of it is lent, is not found by address.
    """
    tenures = [tenure for each in history(store, addresses).values() for tenure in each]
    standing = {tenure.key: tenure for tenure in tenures if tenure.ended_at is None}
    held = [each for each in store.leases() if covers(resource_of(each.binding), None)]
    assert sorted(standing) == [each.binding.key for each in held]
    for each in held:
        tenure = standing[each.binding.key]
        lease = each.lease
        assert (tenure.client_id, tenure.granted_at, tenure.expires_at, tenure.ending) == (
            lease.client_id,
            lease.granted_at,
            lease.expires_at,
            None,
        )
        assert (tenure.resource.realm, tenure.resource.address) == (each.binding.realm, each.binding.address)
    for tenure in tenures:
        if tenure.ended_at is not None:
            assert tenure.ending is not None
            assert tenure.granted_at <= tenure.ended_at
