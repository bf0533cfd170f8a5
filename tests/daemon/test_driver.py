# SPDX-License-Identifier: BSD-3-Clause
"""The driver keeps the order: persist, program, answer; unprogram, persist, answer."""

import asyncio
import os
import signal
import sqlite3
import threading
from contextlib import closing

import pytest

from daemon.bench_of_a_driver import HOST, Bench, assign, conversation, listen, make_gateway
from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Peer
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon import driver, misuses
from isthmus.daemon.clock import Clock
from isthmus.errors import StoreUnavailable
from isthmus.store.apart import ApartStore
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import (
    AssignResponseRsapIp,
    DeregisterRequest,
    ErrorResponse,
    ListenResponse,
    RegisterRequest,
    RegisterResponse,
    emit,
)
from isthmus.wire.rsip.parameter import ClientId, MessageCounter


async def register(bench):
    bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(1))), HOST)
    await bench.until(1)
    assert isinstance(bench.answers[0], RegisterResponse)
    return bench.answers[0].client_id.value


def steps(journal, kind):
    return [
        at for at, (who, what) in enumerate(journal) if kind in (what if isinstance(what, list) else [what]) and who
    ]


@pytest.mark.rfc("3102", "1.2")
@pytest.mark.rfc("3103", "5")
@pytest.mark.parametrize("kind", ["memory:", "sqlite"])
def test_a_yes_leaves_after_the_lease_is_durable_and_forwarding(tmp_path, kind):
    bench = Bench(tmp_path / "leases.db" if kind == "sqlite" else kind)

    async def talk():
        client = await register(bench)
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        assert isinstance(bench.answers[1], AssignResponseRsapIp)
        stored, programmed = (at for at in steps(bench.journal, "Bind"))
        assert stored < programmed < steps(bench.journal, "AssignResponseRsapIp")[0]
        assert bench.journal[stored][0] == "store"
        bench.driver.datagram(
            emit(DeregisterRequest(client_id=ClientId(client), message_counter=MessageCounter(3))), HOST
        )
        await bench.until(3)
        unprogrammed, stored = (at for at in steps(bench.journal, "Unbind"))
        assert bench.journal[unprogrammed][0] == "plane"
        assert unprogrammed < stored < steps(bench.journal, "DeregisterResponse")[0]

    conversation(bench, talk)


def test_what_arrives_during_a_write_becomes_one_transaction():
    bench = Bench()
    gate = threading.Event()

    async def talk():
        client = await register(bench)
        peers = [Peer(1, Address.parse(f"10.0.1.{each}"), 40001) for each in range(1, 21)]
        for peer in peers:
            bench.driver.datagram(emit(RegisterRequest(message_counter=MessageCounter(1))), peer)
        await bench.until(21)
        bench.before_commit = lambda: gate.wait(5)
        before = bench.driver.batches
        bench.driver.datagram(assign(client, 2), HOST)
        await asyncio.sleep(0.05)
        ids = {answer.client_id.value for answer in bench.answers} - {client}
        # Client IDs were answered in the order of the requests.
        ordered = [answer.client_id.value for answer in bench.answers[1:21]]
        assert set(ordered) == ids
        for peer, each in zip(peers, ordered, strict=True):
            bench.driver.datagram(assign(each, 2, ports=1), peer)
        await asyncio.sleep(0.05)
        assert len(bench.answers) == 21, "nobody is answered before the disk has it"
        gate.set()
        await bench.until(42)
        assert bench.driver.batches - before == 2

    conversation(bench, talk)


@pytest.mark.rfc("3103", "10.4")
def test_a_batch_is_answered_while_the_next_is_written_and_whatever_becomes_of_that():
    bench, first, gate, heard = Bench(), threading.Event(), threading.Event(), threading.Event()
    others = [Peer(1, Address.parse(f"10.0.1.{each}"), 40001) for each in (1, 2)]
    ask = emit(RegisterRequest(message_counter=MessageCounter(1)))

    def before_commit():
        if not first.is_set():
            first.set()
            gate.wait(10)
        else:
            # The next batch is with the store now: the answer to the one before must not wait for it.
            assert heard.wait(10)
            raise StoreUnavailable("the disk is full")

    bench.before_commit = before_commit

    async def talk():
        bench.driver.datagram(ask, others[0])
        await asyncio.to_thread(first.wait, 10)
        bench.driver.datagram(ask, others[1])
        gate.set()
        await bench.until(1)
        assert isinstance(bench.answers[0], RegisterResponse)
        bench.before_commit = lambda: None
        heard.set()
        await bench.until(2)
        assert bench.answers[1].error.value == ErrorCode.INTERNAL_SERVER_ERROR
        bench.driver.datagram(assign(bench.answers[0].client_id.value, 2), others[0])
        await bench.until(3)
        assert isinstance(bench.answers[2], AssignResponseRsapIp)

    conversation(bench, talk)


@pytest.mark.rfc("3103", "10.4")
def test_a_store_that_fails_grants_nothing_and_says_104(tmp_path):
    bench = Bench(tmp_path / "leases.db")

    def full():
        raise StoreUnavailable("leases.db: no space left on device")

    async def talk():
        client = await register(bench)
        bench.before_commit = full
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        assert isinstance(bench.answers[1], ErrorResponse)
        assert bench.answers[1].error.value == ErrorCode.INTERNAL_SERVER_ERROR
        assert bench.answers[1].message_counter.value == 2
        assert bench.store.leases() == ()
        bench.before_commit = lambda: None
        bench.driver.datagram(assign(client, 3), HOST)
        await bench.until(3)
        assert isinstance(bench.answers[2], AssignResponseRsapIp), (
            "it goes on with the same client when the disk is back"
        )
        assert len(bench.store.leases()) == 1

    conversation(bench, talk)


@pytest.mark.rfc("3103", "10.1")
def test_a_store_that_cannot_be_read_either_lets_nobody_hear_yes(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "leases.db")
    monkeypatch.setattr(driver, "AFTER_FAILURE_SECONDS", 0.05)

    def broken(*_, **__):
        raise StoreUnavailable("leases.db: the disk failed")

    async def talk():
        client = await register(bench)
        with monkeypatch.context() as disk:
            disk.setattr(bench, "before_commit", broken)
            disk.setattr(bench.store, "has_more", broken)
            bench.driver.datagram(assign(client, 2), HOST)
            await bench.until(2)
            assert bench.answers[1].error.value == ErrorCode.INTERNAL_SERVER_ERROR
            for _ in range(4):
                bench.driver.datagram(assign(client, 2), HOST)
                await asyncio.sleep(0.05)
            assert len(bench.answers) == 2, "of a copy nobody knows more than of the request"
        await asyncio.sleep(0.2)
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(3)
        assert isinstance(bench.answers[2], AssignResponseRsapIp)
        assert len(bench.store.leases()) == 1

    conversation(bench, talk)


def test_a_writer_that_dies_with_a_lease_under_way_lets_nobody_hear_yes(tmp_path):
    bench = Bench(tmp_path / "leases.db")
    written = ApartStore(tmp_path / "leases.db")
    bench.driver = driver.GatewayDriver(
        make_gateway=make_gateway, store=written, plane=bench.plane, clock=Clock(), send=bench.send
    )

    async def talk():
        client = await register(bench)
        os.kill(written.writer, signal.SIGSTOP)
        bench.driver.datagram(assign(client, 2), HOST)
        await asyncio.sleep(0.05)
        assert len(bench.answers) == 1
        os.kill(written.writer, signal.SIGKILL)
        await bench.until(2)
        assert bench.answers[1].error.value == ErrorCode.INTERNAL_SERVER_ERROR
        assert ("plane", "Bind") not in bench.journal
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(3)
        assert isinstance(bench.answers[2], AssignResponseRsapIp)
        assert len(bench.store.leases()) == 1
        assert bench.journal.index(("plane", "Bind")) < bench.journal.index(("send", "AssignResponseRsapIp"))

    with closing(written):
        conversation(bench, talk)


def test_a_plane_that_fails_leaves_no_lease_behind(tmp_path):
    bench = Bench(tmp_path / "leases.db")

    async def talk():
        client = await register(bench)
        bench.plane.fail = True
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        assert bench.answers[1].error.value == ErrorCode.INTERNAL_SERVER_ERROR
        assert bench.store.leases() == ()
        bench.plane.fail = False
        bench.driver.datagram(assign(client, 3), HOST)
        await bench.until(3)
        assert isinstance(bench.answers[2], AssignResponseRsapIp)

    conversation(bench, talk)


@pytest.mark.rfc("3103", "9.16.3")
def test_a_plane_that_fails_to_listen_leaves_the_ports_with_who_lent_them(tmp_path):
    bench = Bench(tmp_path / "leases.db")

    async def talk():
        client = await register(bench)
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        before = bench.store.leases()
        port = min(bench.answers[1].local_ports.port_set)
        bench.plane.fail = True
        bench.driver.datagram(listen(client, 3, port), HOST)
        await bench.until(3)
        assert bench.answers[2].error.value == ErrorCode.INTERNAL_SERVER_ERROR
        bench.plane.fail = False
        (after,) = bench.store.leases()
        assert after.binding == before[0].binding
        bench.driver.datagram(listen(client, 4, port), HOST)
        await bench.until(4)
        assert isinstance(bench.answers[3], ListenResponse)

    conversation(bench, talk)


@pytest.mark.rfc("3103", "10.1")
def test_a_copy_is_answered_with_the_first_as_long_as_that_is_not_answered_and_by_itself_afterwards():
    bench = Bench()

    async def talk():
        client = await register(bench)
        copy = (assign(client, 2), HOST)
        bench.driver.datagrams((copy, copy))
        bench.driver.datagram(*copy)
        await bench.until(2)
        await asyncio.sleep(0.02)
        assert (len(bench.answers), len(bench.store.leases()), bench.driver.refusals["duplicate"]) == (2, 1, 2)
        bench.driver.datagram(*copy)
        await bench.until(3)
        assert bench.answers[2] == bench.answers[1]
        assert (len(bench.store.leases()), bench.driver.refusals["duplicate"]) == (1, 3)

    conversation(bench, talk)


def test_of_very_many_datagrams_each_is_answered():
    bench = Bench()

    async def talk():
        hosts = [Peer(1, Address(Family.IPV4, 0x0A000100 + number), 40001) for number in range(600)]
        bench.driver.datagrams([(emit(RegisterRequest(message_counter=MessageCounter(1))), host) for host in hosts])
        await bench.until(600)
        assert len(bench.driver.gateway) == 600

    conversation(bench, talk)


def test_a_copy_of_a_request_that_came_to_nothing_is_not_answered_yes(tmp_path):
    bench = Bench(tmp_path / "leases.db")

    async def talk():
        client = await register(bench)
        bench.plane.fail = True
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        bench.plane.fail = False
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(3)
        assert [each.error.value for each in bench.answers[1:]] == [ErrorCode.INTERNAL_SERVER_ERROR] * 2
        assert bench.store.leases() == ()

    conversation(bench, talk)


def test_a_plane_that_is_away_leaves_no_lease_behind_and_is_not_asked_without_pause(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "leases.db")

    async def talk():
        client = await register(bench)
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        bench.plane.away = True
        bench.driver.datagram(assign(client, 3), HOST)
        await bench.until(3)
        assert bench.answers[2].error.value == ErrorCode.INTERNAL_SERVER_ERROR
        assert len(bench.store.leases()) == 1
        clock = bench.driver._clock
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + 100000)
        monkeypatch.setattr(driver, "AFTER_FAILURE_SECONDS", 0.05)
        batches = bench.driver.batches
        bench.driver.nudge()
        await asyncio.sleep(1.0)
        assert 1 <= bench.driver.batches - batches <= 20
        assert len(bench.store.leases()) == 1, "nothing is given up before the plane has let go of it"
        bench.plane.away = False
        await bench.until(4)
        assert bench.store.leases() == ()

    conversation(bench, talk)


def test_a_restart_finds_the_same_client_and_bind_ids_and_repeats_the_answer(tmp_path):
    path = tmp_path / "leases.db"
    first = Bench(path)

    async def before():
        client = await register(first)
        first.driver.datagram(assign(client, 2), HOST)
        await first.until(2)
        return client, first.answers[1]

    client, answer = conversation(first, before)
    second = Bench(path)
    standing = second.driver.restore().standing
    assert [type(each).__name__ for each in standing] == ["Register", "Bind"]
    assert standing[1].binding.key.bind_id == answer.bind_id.value
    assert standing[1].lease.client_id == client

    async def after():
        second.driver.datagram(assign(client, 2), HOST)
        await second.until(1)
        assert second.answers[0] == answer
        assert not steps(second.journal, "Bind"), "a copy does nothing twice"

    conversation(second, after)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_lease_ends_by_itself_without_traffic(monkeypatch):
    bench = Bench()

    async def talk():
        client = await register(bench)
        bench.driver.datagram(assign(client, 2), HOST)
        await bench.until(2)
        clock = bench.driver._clock
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + 100000)
        bench.driver.nudge()
        await bench.until(3)
        assert steps(bench.journal, "Unbind")
        assert [type(each).__name__ for each in bench.answers[2:]] == ["DeregisterResponse"]
        assert all(each.message_counter.value == 0 for each in bench.answers[2:])

    conversation(bench, talk)


def test_a_million_misuses_are_a_line_of_the_log_and_a_number(monkeypatch):
    lines = []
    monkeypatch.setattr(misuses, "log", lambda message, **values: lines.append((message.name, values)))
    monkeypatch.setattr(misuses, "QUIET_SECONDS", 0.05)
    bench = Bench()

    def bad(host, number=1):
        return [Violation(reason=Reason.UNREGISTERED, owner=host, flow=None, tunnel_kind=TunnelKind.IPIP)] * number

    async def talk():
        bench.driver.violations(bad(HOST.owner))
        for _ in range(100):
            bench.driver.violations(bad(HOST.owner, 1000))
        assert [values["packets"] for _, values in lines] == [1]
        await asyncio.sleep(0.1)
        assert [values["packets"] for _, values in lines] == [1, 100000]
        lines.clear()
        for number in range(2000):
            bench.driver.violations(bad(Owner(1, Address.parse(f"10.1.{number // 250}.{number % 250}"))))
        await asyncio.sleep(0.2)
        assert len(lines) <= 2 * (misuses.MOST_LINES + 1)
        assert sum(values["packets"] for _, values in lines) == 2000
        assert lines[-1][0] == "VIOLATIONS"

    conversation(bench, talk)


def test_refusals_are_counted_over_a_new_beginning(tmp_path):
    bench = Bench(tmp_path / "leases.db")

    async def talk():
        bench.driver.datagram(assign(7, 1), HOST)
        await bench.until(1)
        assert bench.driver.refusals[ErrorCode.REGISTER_FIRST] == 1
        bench.driver.restore()
        bench.driver.datagram(assign(7, 2), HOST)
        await bench.until(2)
        return bench.driver.refusals[ErrorCode.REGISTER_FIRST]

    assert conversation(bench, talk) == 2
