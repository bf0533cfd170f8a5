# SPDX-License-Identifier: BSD-3-Clause
"""Sockets of the control protocol: nobody holds anybody up, whatever they send."""

import asyncio
import contextlib
import socket

import pytest

from isthmus.address import Address
from isthmus.daemon import endpoint
from isthmus.daemon.endpoint import DatagramEndpoint, StreamEndpoint
from isthmus.errors import ConfigError
from isthmus.wire.rsip.message import ErrorResponse, RegisterRequest, emit, parse
from isthmus.wire.rsip.parameter import Error, MessageCounter

LOOPBACK = Address.parse("127.0.0.1")
REQUEST = emit(RegisterRequest())
ANSWER = emit(ErrorResponse(error=Error(304)))


class Desk:
    """Answers every message with one error, and records what it is told."""

    def __init__(self):
        self.broken = []
        self.lost = []
        self.endpoint = StreamEndpoint(
            1, LOOPBACK, 0, deliver=self.deliver, broken=self.on_broken, lost=self.lost.append
        )

    def deliver(self, data, peer):
        assert data == REQUEST
        self.endpoint.send(ANSWER, peer)

    def on_broken(self, error, peer):
        self.broken.append(error)
        self.endpoint.send(ANSWER, peer)


def serving(talk):
    async def main():
        desk = Desk()
        await desk.endpoint.start()
        try:
            await talk(desk)
        finally:
            desk.endpoint.stop()
            await asyncio.sleep(0.05)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def client(desk):
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.endpoint.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(desk):
    async with client(desk) as (reader, writer):
        writer.write(REQUEST)
        return await asyncio.wait_for(reader.readexactly(len(ANSWER)), 5)


def test_half_open_and_slow_clients_hold_nobody_up():
    async def talk(desk):
        async with client(desk) as (_, half), client(desk) as (slow_reader, slow), client(desk):
            half.write(REQUEST[:2])
            for octet in REQUEST[:-1]:
                slow.write(bytes([octet]))
                await slow.drain()
                assert await ask(desk) == ANSWER
            slow.write(REQUEST[-1:])
            assert await asyncio.wait_for(slow_reader.readexactly(len(ANSWER)), 5) == ANSWER

    serving(talk)


def test_a_message_that_is_begun_must_be_finished(monkeypatch):
    monkeypatch.setattr(endpoint, "MESSAGE_SECONDS", 0.1)

    async def talk(desk):
        async with client(desk) as (reader, writer):
            writer.write(REQUEST[:3])
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert len(desk.lost) == 1

    serving(talk)


def test_a_client_that_never_reads_is_let_go():
    async def talk(desk):
        async with client(desk) as (_, writer):
            with contextlib.suppress(OSError):
                for _ in range(4000):
                    writer.write(REQUEST * 500)
                    await asyncio.wait_for(writer.drain(), 0.5)
                    if desk.lost:
                        break
        assert await ask(desk) == ANSWER

    serving(talk)


def test_one_host_cannot_take_every_connection():
    async def talk(desk):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(endpoint.CONNECTIONS_PER_HOST):
                await stack.enter_async_context(client(desk))
            await asyncio.sleep(0.05)
            reader, _ = await stack.enter_async_context(client(desk))
            assert await asyncio.wait_for(reader.read(), 5) == b""

    serving(talk)


def test_several_messages_in_one_segment_and_a_broken_stream_gets_one_answer(monkeypatch):
    async def talk(desk):
        async with client(desk) as (reader, writer):
            writer.write(REQUEST * 3 + b"\x09\x09\x00\x01" + REQUEST * 3)
            received = await asyncio.wait_for(reader.read(), 5)
            assert received == ANSWER * 4
        assert len(desk.broken) == 1

    serving(talk)


def test_datagrams_come_with_their_peer_and_answers_go_back():
    async def main():
        seen = []

        def deliver(received):
            for _, peer in received:
                seen.append(peer)
                desk.send(ANSWER, peer)

        desk = DatagramEndpoint(1, LOOPBACK, 0, deliver)
        desk.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.bind(("127.0.0.1", 0))
            host.setblocking(False)
            host.sendto(emit(RegisterRequest(message_counter=MessageCounter(1))), ("127.0.0.1", desk.port))
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(host, 2048), 5)
            assert parse(data) == parse(ANSWER)
            assert seen[0].port == host.getsockname()[1]
            assert seen[0].connection == 0
        desk.stop()

    asyncio.run(main())


def test_an_address_that_is_not_ours_is_said_plainly():
    with pytest.raises(ConfigError, match="is it an address of this machine"):
        DatagramEndpoint(1, Address.parse("192.0.2.1"), 0, lambda *_: None)
