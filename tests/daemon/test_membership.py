# SPDX-License-Identifier: BSD-3-Clause
"""Who listens to which group on the near link."""

import pytest

from isthmus.address import Address, Prefix
from isthmus.daemon import membership
from isthmus.daemon.membership import Members
from isthmus.wire.igmp import Membership

A, B = Address.parse("10.0.0.4"), Address.parse("10.0.0.5")
GROUP = Address.parse("239.1.2.3")


def made():
    return Members([Prefix.parse("239.0.0.0/8"), Prefix.parse("224.0.0.0/8")], query_seconds=125)


def joins(*groups):
    return [Membership(each, wanted=True) for each in groups or (GROUP,)]


LEAVES = [Membership(GROUP, wanted=False)]


@pytest.mark.rfc("3376", "8.4")
def test_a_member_stays_for_two_queries_and_an_answer():
    members = made()
    members.hear(A, joins(), now=1000.0)
    members.expire(now=1259.9)
    assert GROUP in members
    members.expire(now=1260.0)
    assert GROUP not in members


@pytest.mark.rfc("3376", "6.4.2")
def test_who_leaves_stays_until_the_others_had_time_to_answer():
    members = made()
    members.hear(A, joins(), now=0.0)
    members.hear(B, joins(), now=0.0)
    assert members.hear(A, LEAVES, now=10.0) == [GROUP]
    members.hear(B, joins(), now=11.0)
    members.expire(now=13.0)
    assert list(members) == [(GROUP, (B,))]
    assert members.hear(B, LEAVES, now=20.0) == [GROUP]
    members.expire(now=22.0)
    assert list(members) == []
    assert members.hear(B, LEAVES, now=23.0) == [], "nobody has to be asked about what nobody heard"


def test_groups_that_are_not_carried_are_not_kept():
    members = made()
    members.hear(A, joins(Address.parse("224.0.0.251"), Address.parse("232.1.1.1")), now=0.0)
    assert list(members) == []
    assert not members.is_carried(Address.parse("224.0.0.251")), "link-local, whatever is configured"
    assert members.is_carried(Address.parse("224.0.1.1"))


def test_the_number_of_groups_and_members_is_bounded(monkeypatch):
    monkeypatch.setattr(membership, "MOST_GROUPS", 2)
    monkeypatch.setattr(membership, "MOST_MEMBERS", 2)
    members = made()
    first = GROUP.number
    for at in range(3):
        members.hear(A, joins(Address(GROUP.family, first + at)), now=0.0)
        members.hear(Address(A.family, A.number + 1 + at), joins(), now=0.0)
    assert [len(hosts) for _group, hosts in members] == [2, 1]


def test_one_host_cannot_have_all_groups(monkeypatch):
    monkeypatch.setattr(membership, "MOST_GROUPS_OF_ONE", 3)
    members = made()
    groups = [Address(GROUP.family, GROUP.number + at) for at in range(5)]
    members.hear(A, joins(*groups), now=0.0)
    assert [group for group, _ in members] == groups[:3]
    members.hear(A, joins(*groups[:3]), now=1.0)
    members.hear(B, joins(groups[4]), now=1.0)
    assert [group for group, _ in members] == [*groups[:3], groups[4]]
    members.expire(now=261.0)
    members.hear(A, joins(*groups[2:]), now=300.0)
    assert [group for group, _ in members] == groups[2:], "what it had is over, and it may have others"
