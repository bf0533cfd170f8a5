# SPDX-License-Identifier: BSD-3-Clause
"""Very many that run out at once: ended part by part, told when it is written, and others are served in between."""

import asyncio
import threading
from dataclasses import replace

import pytest

from daemon import bench_of_a_driver
from daemon.bench_of_a_driver import Bench, conversation, make_gateway
from daemon.test_recall import PEERS, fill
from isthmus.address import Address
from isthmus.border.effect import Peer
from isthmus.daemon import driver, lapses, recall
from isthmus.errors import PlaneError, StoreUnavailable
from isthmus.wire.rsip.message import DeregisterResponse, FreeResponse, RegisterRequest, RegisterResponse, emit
from isthmus.wire.rsip.parameter import MessageCounter

PART = 3
LATE = Peer(1, Address.parse("10.0.1.1"), 5000)


@pytest.fixture(autouse=True)
def parts_of_few(monkeypatch):
    monkeypatch.setattr(recall, "RECALLED_AT_ONCE", 4)
    monkeypatch.setattr(lapses, "WORTH_WHILE", 2)
    monkeypatch.setattr(lapses, "LAPSED_AT_ONCE", PART)
    monkeypatch.setattr(driver, "AFTER_FAILURE_SECONDS", 0.02)


@pytest.fixture(params=["memory:", "sqlite"])
def path(request, tmp_path):
    return "memory:" if request.param == "memory:" else tmp_path / "leases.db"


@pytest.fixture(params=["gone", "stay"])
def kind(request, monkeypatch):
    """Whether registrations run out as well, or only leases; and what a host is told."""
    if request.param == "gone":
        return DeregisterResponse

    def registered_longer():
        gateway = make_gateway()
        gateway._service._policy = gateway._policy = replace(gateway._policy, registration_lease=10**6)
        return gateway

    monkeypatch.setattr(bench_of_a_driver, "make_gateway", registered_longer)
    return FreeResponse


def all_but_one_folded(path, monkeypatch, then):
    bench = Bench(path, keep=1)
    time = bench.driver._clock.now()
    monkeypatch.setattr(bench.driver._clock, "now", lambda: time)

    def later():
        nonlocal time
        time += 100000
        bench.driver.nudge()

    async def talk():
        await fill(bench)
        bench.sent = len(bench.answers)
        await then(bench, later)

    conversation(bench, talk)


def said(bench, kind):
    return [each for each in bench.answers[bench.sent :] if isinstance(each, kind)]


def test_nobody_is_told_before_it_is_written_and_others_are_served_after_a_few_parts(path, kind, monkeypatch):
    async def then(bench, later):
        may_write = threading.Semaphore(0)
        monkeypatch.setattr(bench, "before_commit", lambda: may_write.acquire(timeout=5))
        later()
        await asyncio.sleep(0.05)
        bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(1))), LATE)
        await asyncio.sleep(0.05)
        assert not said(bench, kind)
        lapsed = sum(what == "Unbind" for who, what in bench.journal if who == "plane")
        assert lapsed <= PART * lapses.UNDER_WAY + 4, "no more than a few parts are under way"
        for _ in range(lapses.UNDER_WAY + 3):
            may_write.release()
            await asyncio.sleep(0.02)
        assert said(bench, RegisterResponse), "whoever comes in between waits for those that are under way only"
        for _ in range(20):
            may_write.release()
        await bench.until(bench.sent + len(PEERS) + 1)
        assert len(said(bench, kind)) == len(PEERS)
        assert not bench.store.leases()

    all_but_one_folded(path, monkeypatch, then)


@pytest.mark.parametrize("fails", ["store", "plane"])
def test_a_part_that_fails_is_as_if_it_had_not_begun_and_each_host_is_told_once(path, kind, fails, monkeypatch):
    async def then(bench, later):
        times, apply = 0, bench.plane.apply
        reconciled = []
        monkeypatch.setattr(bench.plane, "reconcile", lambda *all_of_it: reconciled.append(all_of_it), raising=False)

        def sometimes(error):
            nonlocal times
            times += 1
            if times == 2:
                raise error

        if fails == "store":
            monkeypatch.setattr(bench, "before_commit", lambda: sometimes(StoreUnavailable("leases.db: disk full")))
        else:
            monkeypatch.setattr(bench.plane, "apply", lambda them: sometimes(PlaneError("no such map")) or apply(them))
        later()
        await bench.until(bench.sent + len(PEERS))
        await asyncio.sleep(0.1)
        assert len(bench.answers) == bench.sent + len(PEERS), "each is told once"
        assert len(said(bench, kind)) == len(PEERS)
        assert len(reconciled) == 1
        assert not bench.store.leases()
        assert len(bench.driver.gateway) == (0 if kind is DeregisterResponse else len(PEERS))

    all_but_one_folded(path, monkeypatch, then)


def test_who_registers_again_while_its_end_is_being_written_is_another(path, monkeypatch):
    async def then(bench, later):
        may_write = threading.Event()
        monkeypatch.setattr(bench, "before_commit", lambda: may_write.wait(5))
        later()
        await asyncio.sleep(0.05)
        assert PEERS[0].owner not in bench.driver.gateway.folding
        bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(7))), PEERS[0])
        await asyncio.sleep(0.02)
        may_write.set()
        await bench.until(bench.sent + len(PEERS) + 1)
        (again,) = said(bench, RegisterResponse)
        assert again.client_id.value not in {each.client_id.value for each in said(bench, DeregisterResponse)}
        assert bench.store.owner_of(again.client_id.value) == PEERS[0].owner
        assert not bench.store.leases()
        assert len(bench.driver.gateway) == bench.store.registered_count() == 1

    all_but_one_folded(path, monkeypatch, then)
