# SPDX-License-Identifier: BSD-3-Clause
"""The alias pool (spec 8.3): right residues, leases, rests, overflow; beside a real binding table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import Translate
from isthmus.border.effect import Bind, Extend, Unbind
from isthmus.border.table import BindingTable
from isthmus.checksum import ones_sum
from isthmus.ipae.alias import AliasPool, Granted, Overflow
from isthmus.ipae.neutral import alias_residue

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())["mapping"]
SITE, SIP = 1, 2
TTL, GRACE = 60.0, 10.0
PEER = Address.parse_sip("1.2.2.8/201.5.7.250")
SMALL = (Prefix.parse("100.64.0.0/15"),)


def make_pool(pools=SMALL, identity=None):
    return AliasPool(realm=SITE, sip=SIP, pools=pools, identity=identity, ttl=TTL, grace=GRACE)


def like(peer, number):
    """Another SIP address with the same low half, hence the same residue."""
    return Address.of_halves(0x01020300 + number, peer.low)


@pytest.mark.parametrize("row", VECTORS["ipv4_alias_rows"])
def test_the_aliases_of_the_vectors(row):
    pool = AliasPool(realm=SITE, sip=SIP)
    assert str(pool.lease(Address.parse_sip(row["peer"]), now=0).alias) == row["alias"]


@given(st.integers(0, (1 << 64) - 1), st.none() | st.integers(0, (1 << 63) - 1))
def test_an_alias_has_the_residue_that_is_wanted(number, identity):
    peer = Address(Family.SIP, number)
    identity = None if identity is None else Address(Family.SIP, identity)
    alias = make_pool(identity=identity).lease(peer, now=0).alias
    assert ones_sum(alias.octets) % 0xFFFF == alias_residue(peer, identity=identity)
    assert alias in SMALL[0]


def test_an_alias_is_a_binding_that_translates_to_the_whole_address():
    granted = make_pool().lease(PEER, now=1000)
    (bind,) = granted.effects
    assert isinstance(bind, Bind)
    (selector,) = bind.binding.selectors
    assert (selector.realm, selector.local) == (SITE, Prefix.of(granted.alias))
    assert bind.binding.crossing == Translate(realm=SIP, image=Prefix.of(PEER))
    assert bind.lease.expires_at == 1000 + TTL + GRACE
    assert granted.ttl == TTL


def test_a_second_question_gets_the_same_alias_and_a_longer_lease():
    pool = make_pool()
    first = pool.lease(PEER, now=0)
    again = pool.lease(PEER, now=30)
    assert again.alias == first.alias
    assert again.effects == (Extend(key=first.effects[0].binding.key, expires_at=30 + TTL + GRACE),)
    assert len(pool) == 1


def test_two_peers_with_equal_low_halves_have_two_aliases_of_one_residue():
    """Two sites both have a 10.0.0.7 (milestone R)."""
    pool = make_pool()
    one, other = Address.parse_sip("5.6.0.7/10.0.0.7"), Address.parse_sip("5.6.0.8/10.0.0.7")
    aliases = [pool.lease(each, now=0).alias for each in (one, other)]
    assert aliases[0] != aliases[1]
    assert len({ones_sum(each.octets) for each in aliases}) == 1
    assert [pool.peer_of(each) for each in aliases] == [one, other]


def test_a_lease_lasts_while_packets_flow():
    pool = make_pool()
    alias = pool.lease(PEER, now=0).alias
    for now in range(50, 1000, 50):
        assert pool.used(alias, now=now)
        assert pool.expire(now=now) == ()
    assert pool.peer_of(alias) == PEER


def test_a_lease_that_nobody_uses_ends():
    pool = make_pool()
    granted = pool.lease(PEER, now=0)
    assert pool.expire(now=pool.deadline - 0.1) == ()
    (unbind,) = pool.expire(now=pool.deadline)
    assert isinstance(unbind, Unbind)
    assert unbind.key == granted.effects[0].binding.key
    assert pool.peer_of(granted.alias) is None
    assert pool.alias_of(PEER) is None
    assert len(pool) == 0
    assert pool.used(granted.alias, now=100) == ()


def test_an_alias_is_not_anothers_for_twice_the_ttl():
    pool = make_pool()
    alias = pool.lease(PEER, now=0).alias
    end = TTL + GRACE
    pool.expire(now=end)
    pool.expire(now=end + 2 * TTL - 1)
    assert pool.lease(like(PEER, 1), now=end + 2 * TTL - 1).alias != alias
    pool.expire(now=end + 2 * TTL)
    assert pool.lease(like(PEER, 2), now=end + 2 * TTL).alias == alias


def test_a_peer_that_comes_back_in_that_time_gets_its_own_alias_again():
    pool = make_pool()
    alias = pool.lease(PEER, now=0).alias
    pool.expire(now=100)
    granted = pool.lease(PEER, now=110)
    assert granted.alias == alias
    assert isinstance(granted.effects[0], Bind)


def test_an_overflow_is_reported_with_the_time_when_it_could_end():
    pool = make_pool()
    for number in range(2):
        assert isinstance(pool.lease(like(PEER, number), now=number), Granted)
    overflow = pool.lease(like(PEER, 2), now=2)
    assert overflow == Overflow(residue=alias_residue(PEER), free_at=0 + TTL + GRACE + 2 * TTL)
    assert pool.overflows == 1
    assert pool.lease(Address.parse_sip("1.2.2.8/201.5.7.251"), now=2).alias  # another residue has room


def test_the_default_pool_has_64_aliases_for_a_residue():
    pool = AliasPool(realm=SITE, sip=SIP)
    aliases = {pool.lease(like(PEER, number), now=0).alias for number in range(64)}
    assert len(aliases) == 64
    assert isinstance(pool.lease(like(PEER, 64), now=0), Overflow)


def test_one_site_takes_no_more_than_half_of_a_residue():
    """Whoever makes up sources of a site, and a packet is enough, leaves as many to the others (spec 8.3)."""
    pool = AliasPool(realm=SITE, sip=SIP)
    same = [Address.of_halves(0x05060001, Address(Family.IPV4, number << 16 | 0xFFFF - number)) for number in range(40)]
    assert len({alias_residue(each) for each in same}) == 1
    given = [isinstance(pool.lease(each, now=0), Granted) for each in same]
    assert given == [True] * 32 + [False] * 8
    other = Address.of_halves(0x05060002, same[0].low)
    assert isinstance(pool.lease(other, now=0), Granted)
    pool.expire(now=TTL + GRACE)
    pool.expire(now=TTL + GRACE + 2 * TTL)
    assert isinstance(pool.lease(same[-1], now=TTL + GRACE + 2 * TTL), Granted)


def test_aliases_are_no_more_than_planes_can_hold_and_one_site_has_half_of_them():
    pool = AliasPool(realm=SITE, sip=SIP, most=100)
    sites = [
        [Address.of_halves(0x05060000 | site, Address(Family.IPV4, number)) for number in range(100)] for site in (1, 2)
    ]
    for peers in sites:
        assert sum(isinstance(pool.lease(each, now=0), Granted) for each in peers) == 50
    overflow = pool.lease(Address.parse_sip("1.2.2.8/201.5.7.250"), now=1)
    assert isinstance(overflow, Overflow)
    assert overflow.free_at == TTL + 10 + 2 * TTL
    assert isinstance(pool.lease(sites[0][0], now=1), Granted)


def test_zero_and_65535_are_one_residue_so_its_low_word_has_a_twin():
    pool = make_pool()
    peer = Address.parse_sip("1.2.2.8/100.65.0.0")  # residue 0x6441: in 100.65/16 the low word is 0 or 65535
    aliases = [str(pool.lease(like(peer, number), now=0).alias) for number in range(2)]
    assert aliases == ["100.64.0.1", "100.65.0.0"]
    assert isinstance(pool.lease(like(peer, 3), now=0), Overflow)  # 100.65.255.255 is the last of the pool
    wide = make_pool((Prefix.parse("100.64.0.0/14"),))
    assert len({wide.lease(like(peer, number), now=0).alias for number in range(5)}) == 5


def test_an_alias_outlives_a_restart():
    pool = make_pool()
    (bind,) = pool.lease(PEER, now=0).effects
    fresh = make_pool()
    assert fresh.restore(bind.binding.address, PEER, until=bind.lease.expires_at) == bind.binding
    assert fresh.alias_of(PEER) == bind.binding.address
    assert fresh.lease(like(PEER, 1), now=1).alias != bind.binding.address
    assert [each.key for each in fresh.expire(now=TTL + GRACE)] == [bind.binding.key]


def test_what_these_pools_would_not_have_given_is_not_taken_back():
    elsewhere = make_pool((Prefix.parse("10.1.0.0/16"),)).lease(PEER, now=0).alias
    given = make_pool().lease(PEER, now=0).alias
    pool = make_pool()
    for alias, peer in ((elsewhere, PEER), (given, Address.parse_sip("1.2.2.8/201.5.7.251"))):
        with pytest.raises(ValueError, match=f"{alias}"):
            pool.restore(alias, peer, until=9)
    pool.restore(given, PEER, until=9)
    with pytest.raises(ValueError, match="cannot stand"):
        pool.restore(given, like(PEER, 1), until=9)


def test_an_alias_that_could_not_be_bound_rests():
    pool = make_pool()
    granted = pool.lease(PEER, now=0)
    pool.withdraw(granted.effects, now=0)
    assert len(pool) == 0
    assert pool.lease(like(PEER, 1), now=0).alias != granted.alias
    pool.expire(now=2 * TTL)
    assert pool.lease(like(PEER, 2), now=2 * TTL).alias == granted.alias


@pytest.mark.parametrize(
    "pools", [["100.64.0.0/17"], ["100.64.0.0/10", "100.65.0.0/16"], ["fd00::/16"]], ids=["small", "twice", "IPv6"]
)
def test_pools_that_cannot_be_are_refused(pools):
    with pytest.raises(ValueError, match="alias pool"):
        make_pool(tuple(map(Prefix.parse, pools)))


class Aliases(RuleBasedStateMachine):
    """A pool of two aliases a residue, and the table that its effects are carried out in."""

    peers = st.builds(like, st.sampled_from([PEER, Address.parse_sip("1.2.2.8/10.0.0.7")]), st.integers(0, 3))

    def __init__(self):
        super().__init__()
        self.pool = make_pool()
        self.table = BindingTable()
        self.now = 0.0
        self.ended: dict[Address, tuple[Address, float]] = {}
        "When an alias was last somebody's, and whose."

    def carry_out(self, effects):
        for effect in effects:
            if isinstance(effect, Bind):
                alias, peer = effect.binding.address, effect.binding.crossing.image.address
                before, at = self.ended.get(alias, (peer, self.now))
                assert before == peer or self.now >= at + 2 * TTL
            if isinstance(effect, Unbind):
                entry = next(each for each in self.table if each.binding.key == effect.key)
                assert entry.expires_at <= self.now
                self.ended[entry.binding.address] = (entry.binding.crossing.image.address, self.now)
            self.table.apply(effect)

    @rule(peer=peers)
    def lease(self, peer):
        granted = self.pool.lease(peer, now=self.now)
        if isinstance(granted, Granted):
            self.carry_out(granted.effects)
            assert self.pool.alias_of(peer) == granted.alias

    @rule(peer=peers)
    def use(self, peer):
        alias = self.pool.alias_of(peer)
        if alias is not None:
            self.carry_out(self.pool.used(alias, now=self.now))

    @rule(seconds=st.sampled_from([1, 15, 59, 70, 119, 121, 400]))
    def wait(self, seconds):
        self.now += seconds
        self.carry_out(self.pool.expire(now=self.now))

    @invariant()
    def the_table_says_what_the_pool_says(self):
        entries = list(self.table)
        assert len(entries) == len(self.pool)
        assert list(self.pool.leased()) == sorted(
            (each.binding.address, each.binding.crossing.image.address, each.expires_at) for each in entries
        )
        for entry in entries:
            alias, peer = entry.binding.address, entry.binding.crossing.image.address
            assert self.pool.peer_of(alias) == peer
            assert self.table.route(SITE, alias) == entry
            assert self.table.known_as(SITE, SIP, peer) == alias
            assert entry.expires_at > self.now


Aliases.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestAliases = Aliases.TestCase


def test_a_fixed_alias_is_given_whatever_its_residue_and_never_ends():
    pool = make_pool()
    alias = Address.parse("100.64.0.9")
    binding = pool.fix(alias, PEER)
    assert binding.address == alias
    assert binding.crossing == Translate(realm=SIP, image=Prefix.of(PEER))
    assert pool.lease(PEER, now=0) == Granted(alias=alias, ttl=TTL, effects=())
    assert pool.expire(now=1e12) == ()
    assert pool.peer_of(alias) == PEER
    assert len(pool) == 1


@pytest.mark.parametrize(
    ("alias", "peer"),
    [("100.64.0.9", like(PEER, 1)), ("100.64.0.10", PEER), ("10.0.0.1", like(PEER, 1))],
)
def test_a_fixed_alias_takes_nothing_from_another(alias, peer):
    pool = make_pool()
    pool.fix(Address.parse("100.64.0.9"), PEER)
    with pytest.raises(ValueError, match="cannot stand for"):
        pool.fix(Address.parse(alias), peer)


def test_a_fixed_alias_is_nobody_elses():
    pool = make_pool()
    taken = pool.lease(like(PEER, 1), now=0).alias
    other = make_pool()
    other.fix(taken, like(PEER, 2))
    assert other.lease(like(PEER, 3), now=0).alias != taken
