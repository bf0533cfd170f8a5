# SPDX-License-Identifier: BSD-3-Clause
"""Hosts that the store alone knows: everything that concerns them finds them, and a restart makes no objects of them."""

import asyncio
import threading
from dataclasses import replace

import pytest

from daemon import bench_of_a_driver
from daemon.bench_of_a_driver import Bench, assign, conversation, make_gateway
from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind, Ending, Peer, Register
from isthmus.border.plain import as_effects
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon import lapses, recall
from isthmus.errors import StoreUnavailable
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import (
    AssignResponseRsapIp,
    DeregisterResponse,
    ErrorResponse,
    ExtendRequest,
    ExtendResponse,
    FreeResponse,
    RegisterRequest,
    emit,
)
from isthmus.wire.rsip.parameter import BindId, ClientId, MessageCounter

PEERS = [Peer(1, Address.parse(f"10.0.0.{number}"), 40000 + number) for number in range(2, 14)]
KEEP = 4


@pytest.fixture(params=["memory:", "sqlite"])
def path(request, tmp_path):
    return "memory:" if request.param == "memory:" else tmp_path / "leases.db"


async def fill(bench):
    """Everybody registers and gets 16 ports; returns the Client IDs in the order of the hosts."""
    for peer in PEERS:
        bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(1))), peer)
    await bench.until(len(PEERS))
    clients = [answer.client_id.value for answer in bench.answers]
    for peer, client in zip(PEERS, clients, strict=True):
        bench.driver.datagram(assign(client, 2), peer)
    await bench.until(2 * len(PEERS))
    assert all(isinstance(each, AssignResponseRsapIp) for each in bench.answers[len(PEERS) :])
    bench.driver.nudge()
    await asyncio.sleep(0.02)
    return clients


def filled(path, then):
    """A gateway whose hosts are folded, all but a few."""
    bench = Bench(path, keep=KEEP)

    async def talk():
        clients = await fill(bench)
        assert bench.driver.gateway.folding.at_hand <= KEEP
        assert len(bench.driver.gateway) == len(PEERS)
        bench.sent = len(bench.answers)
        return await then(bench, clients)

    return conversation(bench, talk)


def extend(client, counter):
    return emit(ExtendRequest(client_id=ClientId(client), bind_id=BindId(1), message_counter=MessageCounter(counter)))


def test_a_folded_host_goes_on_as_if_nothing_had_been(path):
    async def then(bench, clients):
        for peer, client in zip(PEERS, clients, strict=True):
            bench.driver.datagram(extend(client, 3), peer)
        await bench.until(bench.sent + len(PEERS))
        assert all(isinstance(each, ExtendResponse) for each in bench.answers[bench.sent :])
        before = len(bench.journal)
        for peer, client in zip(PEERS, clients, strict=True):
            bench.driver.datagram(extend(client, 3), peer)
        await bench.until(bench.sent + 2 * len(PEERS))
        assert bench.answers[bench.sent + len(PEERS) :] == bench.answers[bench.sent : bench.sent + len(PEERS)]
        assert {who for who, _ in bench.journal[before:]} == {"send"}, "a copy does nothing twice"
        assert len({key for peer in PEERS for key in bench.driver.held_by(peer.owner)}) == len(PEERS)

    filled(path, then)


def test_what_folded_hosts_hold_is_nobody_elses(path):
    async def then(bench, _clients):
        late = Peer(1, Address.parse("10.0.1.1"), 5000)
        bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(1))), late)
        await bench.until(bench.sent + 1)
        # 256 ports in slices of 64; twelve hosts have 16 each.
        for counter in range(2, 8):
            bench.driver.datagram(assign(bench.answers[-1].client_id.value, counter), late)
            await bench.until(bench.sent + counter)
        granted = [each for each in bench.answers if isinstance(each, AssignResponseRsapIp)]
        ports = [port for each in granted for port in each.local_ports.port_set]
        assert len(set(ports)) == len(ports) == 256
        assert isinstance(bench.answers[-1], ErrorResponse)

    filled(path, then)


def test_deadlines_of_folded_hosts_come(path, monkeypatch):
    async def then(bench, _clients):
        clock = bench.driver._clock
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + 100000)
        bench.driver.nudge()
        await bench.until(bench.sent + len(PEERS))
        assert all(isinstance(each, DeregisterResponse) for each in bench.answers[bench.sent :])
        assert not bench.store.leases()
        assert len(bench.driver.gateway) == 0

    filled(path, then)


def test_an_operator_reaches_folded_hosts(path):
    async def then(bench, clients):
        first, second = PEERS[0].owner, PEERS[1].owner
        held = {each.binding.key: each.binding for each in bench.store.leases()}
        address, port = held[BindingKey(first, 1)].address, held[BindingKey(first, 1)].selectors[0].values.pairs[0][0]
        assert bench.driver.holders(address, port) == (BindingKey(first, 1),)
        assert set(bench.driver.holders(address)) == held.keys()
        assert bench.driver.revoke([BindingKey(first, 1), BindingKey(first, 9)]) == [BindingKey(first, 1)]
        assert bench.driver.dismiss(second)
        assert not bench.driver.dismiss(Owner(1, Address.parse("10.9.9.9")))
        await bench.until(bench.sent + 2)
        assert {type(each) for each in bench.answers[bench.sent :]} == {FreeResponse, DeregisterResponse}
        assert bench.driver.holders(address, port) == ()
        assert len(bench.store.leases()) == len(PEERS) - 2

    filled(path, then)


def test_a_folded_host_hears_of_its_misuse(path):
    async def then(bench, clients):
        peer = next(each for each in PEERS if each.owner in bench.driver.gateway.folding)
        bad = Violation(
            reason=Reason.SOURCE_ADDRESS_NOT_LEASED, owner=peer.owner, flow=None, tunnel_kind=TunnelKind.IPIP
        )
        bench.driver.violations([bad])
        await bench.until(bench.sent + 1)
        assert bench.answers[-1].error.value == bad.reason.rsip_code
        assert bench.answers[-1].client_id.value == clients[PEERS.index(peer)]

    filled(path, then)


def test_a_store_that_cannot_be_read_recalls_nobody_and_nothing_is_done(path, monkeypatch):
    async def then(bench, clients):
        at = next(n for n, each in enumerate(PEERS) if each.owner in bench.driver.gateway.folding)

        def unreadable(_owners):
            raise StoreUnavailable("leases.db: cannot read")

        with monkeypatch.context() as damaged:
            damaged.setattr(bench.store, "recall", unreadable)
            bench.driver.datagram(extend(clients[at], 3), PEERS[at])
            await asyncio.sleep(0.05)
            assert len(bench.answers) == bench.sent
        bench.driver.datagram(extend(clients[at], 3), PEERS[at])
        await bench.until(bench.sent + 1)
        assert isinstance(bench.answers[-1], ExtendResponse)

    filled(path, then)


def test_a_restart_takes_columns_where_there_is_much(tmp_path):
    async def nothing(bench, clients):
        return clients, bench.store.leases()

    clients, leases = filled(tmp_path / "leases.db", nothing)
    bench = Bench(tmp_path / "leases.db", keep=KEEP)
    restored = bench.driver.restore()
    assert restored.standing == ()
    stands = list(as_effects(restored.plain, restored.registered))
    assert {each.registration.owner for each in stands if isinstance(each, Register)} == {p.owner for p in PEERS}
    bound = {each.binding: each.lease.expires_at for each in stands if isinstance(each, Bind)}
    assert bound == {each.binding: each.lease.expires_at for each in leases}
    assert bench.driver.gateway.folding.at_hand == 0

    async def go_on():
        for peer, client in zip(PEERS, clients, strict=True):
            bench.driver.datagram(extend(client, 3), peer)
        await bench.until(len(PEERS))
        assert all(isinstance(each, ExtendResponse) for each in bench.answers)
        late = Peer(1, Address.parse("10.0.1.1"), 5000)
        bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(1))), late)
        await bench.until(len(PEERS) + 1)
        assert bench.answers[-1].client_id.value not in clients
        for counter in range(2, 7):
            bench.driver.datagram(assign(bench.answers[-1].client_id.value, counter), late)
            await bench.until(len(PEERS) + counter)
        taken = [port for each in leases for port in each.binding.selectors[0].values]
        mine = [each for each in bench.answers if isinstance(each, AssignResponseRsapIp)]
        taken += [port for each in mine for port in each.local_ports.port_set]
        assert len(set(taken)) == len(taken) == 256
        assert bench.answers[-1].error.value == ErrorCode.LOCAL_ADDRPORT_UNAVAILABLE

    conversation(bench, go_on)


def test_very_many_that_run_out_at_once_are_ended_without_being_recalled(path, monkeypatch):
    monkeypatch.setattr(recall, "RECALLED_AT_ONCE", 4)
    monkeypatch.setattr(lapses, "WORTH_WHILE", 2)
    recalled = []

    async def then(bench, clients):
        clock, folding = bench.driver._clock, bench.driver.gateway.folding
        here = {each for each in PEERS if each.owner not in folding}
        take = folding.recall
        monkeypatch.setattr(folding, "recall", lambda *kept, now: recalled.extend(kept[0]) or take(*kept, now=now))
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + 100000)
        bench.driver.nudge()
        await bench.until(bench.sent + len(PEERS))
        assert len(here) + len(recalled) < len(PEERS) - 4, "most were not recalled"
        assert {type(each) for each in bench.answers[bench.sent :]} == {DeregisterResponse}
        assert sorted(each.client_id.value for each in bench.answers[bench.sent :]) == sorted(clients)
        assert all(each.message_counter.value == 0 for each in bench.answers[bench.sent :])
        await asyncio.sleep(0.05)
        assert not bench.store.leases()
        assert len(bench.driver.gateway) == 0
        tenures = bench.store.who_had(Address.parse("149.112.240.55"), port=None, at=None)
        assert {each.ending for each in tenures} == {Ending.EXPIRED}
        assert len(tenures) == len(PEERS)
        assert sum(what == "Unbind" for who, what in bench.journal if who == "plane") == len(PEERS)
        # What was held rests, and then is free; who was registered may register again.
        bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(9))), PEERS[0])
        await bench.until(bench.sent + len(PEERS) + 1)
        client = bench.answers[-1].client_id.value
        pool = bench.driver.gateway._pool
        assert pool.free_ports() == 256 - 16 * len(PEERS)
        monkeypatch.setattr(clock, "now", lambda: real() + 100000 + 130)
        bench.driver.datagram(assign(client, 10, ports=1), PEERS[0])
        await bench.until(bench.sent + len(PEERS) + 2)
        assert isinstance(bench.answers[-1], AssignResponseRsapIp)
        assert pool.free_ports() == 255

    filled(path, then)


def test_very_many_that_will_run_out_at_once_are_not_recalled_ahead_of_it(path, monkeypatch):
    monkeypatch.setattr(recall, "RECALLED_AT_ONCE", 4)
    monkeypatch.setattr(lapses, "WORTH_WHILE", 2)
    recalled = []
    bench = Bench(path, keep=KEEP)
    clock, folding = bench.driver._clock, bench.driver.gateway.folding
    time = clock.now()
    monkeypatch.setattr(clock, "now", lambda: time)

    async def talk():
        nonlocal time
        await fill(bench)
        here = folding.at_hand
        take = folding.recall
        monkeypatch.setattr(folding, "recall", lambda *kept, now: recalled.extend(kept[0]) or take(*kept, now=now))
        deadline = bench.store.soonest()
        for ahead in (0.2, 0.15, 0.1, 0.05):
            time = deadline - ahead
            bench.driver.nudge()
            await asyncio.sleep(0.01)
        assert not recalled
        time = deadline
        bench.driver.nudge()
        await bench.until(3 * len(PEERS))
        assert here + len(recalled) < len(PEERS) - 4, "most were not recalled"
        assert {type(each) for each in bench.answers[2 * len(PEERS) :]} == {DeregisterResponse}

    conversation(bench, talk)


def test_who_is_heard_while_a_lease_of_its_own_is_being_ended_does_not_end_it_twice(path, monkeypatch):
    monkeypatch.setattr(recall, "RECALLED_AT_ONCE", 4)
    monkeypatch.setattr(lapses, "WORTH_WHILE", 2)

    def registered_longer():
        gateway = make_gateway()
        gateway._service._policy = gateway._policy = replace(gateway._policy, registration_lease=10**6)
        return gateway

    monkeypatch.setattr(bench_of_a_driver, "make_gateway", registered_longer)

    async def then(bench, clients):
        clock, gateway, may_write = bench.driver._clock, bench.driver.gateway, threading.Event()
        lapsed = [each for each in PEERS if each.owner in gateway.folding]
        monkeypatch.setattr(bench, "before_commit", lambda: may_write.wait(5))
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + 100000)
        bench.driver.nudge()
        await asyncio.sleep(0.05)
        for peer in lapsed:
            bench.driver.datagram(extend(clients[PEERS.index(peer)], 3), peer)
        may_write.set()
        await bench.until(bench.sent + len(PEERS) + len(lapsed))
        said = bench.answers[bench.sent :]
        assert sum(isinstance(each, FreeResponse) for each in said) == len(PEERS), "each is told once"
        assert sum(what == "Unbind" for who, what in bench.journal if who == "plane") == len(PEERS)
        refused = [each.error.value for each in said if isinstance(each, ErrorResponse)]
        assert refused == [ErrorCode.BAD_BIND_ID] * len(lapsed)
        assert len(gateway._pool._resting) == len(PEERS), "what rests twice would be free while it is somebody's"

    filled(path, then)


def test_a_store_that_cannot_be_read_is_not_asked_for_deadlines_without_pause(path, monkeypatch):
    async def then(bench, _clients):
        asked = []

        def unreadable(**_):
            asked.append(1)
            raise StoreUnavailable("leases.db: cannot read")

        monkeypatch.setattr(bench.store, "due", unreadable)
        await asyncio.sleep(0.5)
        assert 1 <= len(asked) <= 3

    filled(path, then)


@pytest.mark.parametrize("keep", [3, 100])
def test_what_rests_for_hours_rests_over_a_restart(path, keep, monkeypatch):
    def resting_long():
        gateway = make_gateway()
        gateway._pool.rest_seconds = 7200.0
        return gateway

    monkeypatch.setattr(bench_of_a_driver, "make_gateway", resting_long)
    bench = Bench(path, keep=keep)

    async def come_and_go():
        await fill(bench)
        for peer in PEERS:
            bench.driver.dismiss(peer.owner)
        await bench.until(3 * len(PEERS))
        real = bench.driver._clock.now
        monkeypatch.setattr(bench.driver._clock, "now", lambda: real() + 3700)
        assert bench.driver.restore().standing == ()
        pool = bench.driver.gateway._pool
        assert pool.free_ports() == 256 - 16 * len(PEERS)
        pool._wake(real() + 7300)
        assert pool.free_ports() == 256

    conversation(bench, come_and_go)


def test_those_who_cannot_lapse_do_not_stay_before_the_others(path, monkeypatch):
    monkeypatch.setattr(recall, "RECALLED_AT_ONCE", 4)
    monkeypatch.setattr(lapses, "WORTH_WHILE", 2)
    monkeypatch.setattr(lapses, "LAPSED_AT_ONCE", 6)
    bench = Bench(path, keep=1)
    clock = bench.driver._clock
    time = clock.now()
    monkeypatch.setattr(clock, "now", lambda: time)

    async def talk():
        nonlocal time
        clients = await fill(bench)
        # A refusal is not in the store, and yet a copy of what was refused is to hear the same.
        for peer, client in zip(PEERS[:5], clients, strict=False):
            wrong = ExtendRequest(client_id=ClientId(client), bind_id=BindId(9), message_counter=MessageCounter(3))
            bench.driver.datagram(emit(wrong), peer)
        await bench.until(2 * len(PEERS) + 5)
        await asyncio.sleep(0.02)
        assert all(peer.owner in bench.driver.gateway.folding for peer in PEERS[:4])
        asked, lapsing = [], bench.store.lapsing
        monkeypatch.setattr(bench.store, "lapsing", lambda *a, **k: asked.append(1) or lapsing(*a, **k))
        time += 100000
        bench.driver.nudge()
        await bench.until(3 * len(PEERS) + 5)
        assert {type(each) for each in bench.answers[2 * len(PEERS) + 5 :]} == {DeregisterResponse}
        assert len(asked) <= 5

    conversation(bench, talk)
