# SPDX-License-Identifier: BSD-3-Clause
"""Discovery on real sockets, in a namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import threading
from dataclasses import replace

import pytest
from pyroute2 import netns

from daemon.advertised import AGENT, HERE, REQUEST, URL
from isthmus.address import Address
from isthmus.daemon.discovery.near import near_interface
from isthmus.daemon.discovery.service_agent import ServiceAgent
from isthmus.daemon.discovery.user_agent import Question, find_services
from isthmus.errors import ConfigError, Unsupported
from isthmus.wire.slp.codes import Flag
from isthmus.wire.slp.message import (
    AttrRply,
    DaAdvert,
    Message,
    SrvAck,
    SrvDeReg,
    SrvReg,
    SrvRply,
    SrvRqst,
    UrlEntry,
    emit,
    parse,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")


@pytest.fixture
def segment():
    """A namespace with one interface, which hears its own multicasts; gives ``run(coroutine function)``."""
    name = f"ist-t{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    lines = ["link add eth0 type veth peer name eth0p", "address add 10.0.0.1/24 dev eth0", "link set eth0p up",
             "link set eth0 up", "link set lo up"]  # fmt: skip
    subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def run(scene):
        """Run it in a thread of the namespace."""
        failure = []

        def inside():
            try:
                netns.setns(f"/run/netns/{name}", flags=0)
                asyncio.run(scene(near_interface("eth0")))
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join(60)
        if failure:
            raise failure[0]

    try:
        yield run
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


QUESTION = Question(seconds=2.0, retry=0.1)


@contextlib.asynccontextmanager
async def serving(near, **options):
    agent = ServiceAgent(near, AGENT, **options)
    await agent.start()
    try:
        yield agent
    finally:
        agent.stop()


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "4")
def test_a_user_agent_finds_a_service_agent_by_multicast_and_by_unicast(segment):
    async def scene(near):
        async with serving(near):
            for question in (QUESTION, replace(QUESTION, predicate="(load<=20)")):
                (found,) = await find_services(near, question)
                assert (str(found.url), found.lifetime, found.responder) == (URL, 300, HERE)
                assert found.offer == AGENT.offer()
            assert await find_services(near, replace(QUESTION, scopes=("SOUTH",), seconds=0.5)) == ()
        assert await find_services(near, replace(QUESTION, seconds=0.3)) == (), "a service that is gone is not found"

    segment(scene)


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "6")
def test_of_several_gateways_the_least_loaded_stands_first(segment):
    """A directory agent names three servers; each is asked for its load."""
    loads = {"service:rsip://10.0.0.7:4455": 60, "service:rsip://10.0.0.8": 5, "service:rsip://10.0.0.9": None}
    asked = []

    async def scene(near):
        async with directory_agent(near) as (heard, serve):

            def answer(message):
                if isinstance(message.body, SrvRqst):
                    return SrvRply(urls=tuple(UrlEntry(url=url, lifetime=9) for url in loads))
                asked.append(message.body.url)
                load = loads[message.body.url]
                return AttrRply(attributes="" if load is None else f"(load={load})")

            serve(answer)
            found = await find_services(near, replace(QUESTION, agents=(near.address,), port=heard, seconds=0.5))
        assert [each.url.host for each in found] == ["10.0.0.8", "10.0.0.7", "10.0.0.9"]
        assert sorted(set(asked)) == sorted(loads)

    segment(scene)


@contextlib.asynccontextmanager
async def directory_agent(near, port=0):
    """A UDP socket in the place of a directory agent; gives its port and ``serve(answer)``."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((str(near.address), port))
    opened.setblocking(False)
    loop = asyncio.get_running_loop()

    def serve(answer):
        def read():
            octets, peer = opened.recvfrom(65536)
            message = parse(octets)
            body = answer(message)
            if body is not None:
                opened.sendto(emit(Message(xid=message.xid, body=body)), peer)

        # What comes from 10.0.0.1 to itself passes the loopback; the agents' sockets are bound to eth0.
        loop.add_reader(opened, read)

    try:
        yield opened.getsockname()[1], serve
    finally:
        loop.remove_reader(opened)
        opened.close()


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "4")
def test_a_directory_agent_is_told_of_the_gateway_and_of_its_end(segment):
    there, port = "10.0.0.3", 4427
    told = []

    def answer(message):
        told.append(message)
        return SrvAck() if isinstance(message.body, SrvReg | SrvDeReg) else None

    async def until(holds):
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 - nor does a socket that somebody else reads
                await asyncio.sleep(0.02)

    async def scene(near):
        elsewhere = replace(near, address=Address.parse(there))
        async with directory_agent(elsewhere, port) as (_, serve):
            serve(answer)
            async with serving(near, directory_agents=(elsewhere.address,), port=port, refresh=0.2):
                await until(lambda: len(told) >= 2)
            await until(lambda: isinstance(told[-1].body, SrvDeReg))

    with_address(segment, there)
    segment(scene)
    assert told[0].flags == Flag.FRESH
    assert told[0].body == AGENT.registration
    assert told[0].body.attributes.endswith("(load=17)")
    assert isinstance(told[1].body, SrvReg), "again and again, because the load changes (RFC 3105 §6)"
    assert told[-1].body == AGENT.deregistration


def with_address(segment, address):
    """Give the segment's interface one more address."""

    async def scene(_near):
        process = await asyncio.create_subprocess_exec("ip", "address", "add", f"{address}/32", "dev", "eth0")
        assert await process.wait() == 0

    segment(scene)


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "4")
def test_a_directory_agent_that_advertises_itself_is_told_unless_its_scopes_are_others(segment):
    async def scene(near):
        async with serving(near) as agent:
            speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, near.address.octets)

            async def say(host, scopes=("DEFAULT",), boot=5, error=0):
                body = DaAdvert(
                    url=f"service:directory-agent://{host}", scopes=scopes, boot_timestamp=boot, error=error
                )
                speaker.sendto(emit(Message(xid=0, body=body)), ("239.255.255.253", 427))
                await asyncio.sleep(0.1)

            await say("10.0.0.3", scopes=("SOUTH",))
            await say("10.0.0.3", error=4)
            await say("directory.example")
            assert agent.directory_agents == ()
            await say("10.0.0.3")
            assert agent.directory_agents == ("10.0.0.3",)
            await say("10.0.0.3", boot=0)
            assert agent.directory_agents == (), "it said that it goes down"
            for number in range(20):
                await say(f"10.0.0.{100 + number}")
            assert len(agent.directory_agents) == 8, "a flood of them is not listened to"
            await asyncio.sleep(1.0)
            before = len(agent._tasks)
            for number in range(20):
                await say("10.0.0.100", boot=6 + number)
            assert len(agent._tasks) <= before, "one that is started anew all the time is told as before"
            speaker.close()

    segment(scene)


@needs_root
@pytest.mark.root
@pytest.mark.rfc("2608", "6.2")
def test_requests_over_tcp_are_answered(segment):
    async def scene(near):
        async with serving(near):
            reader, writer = await asyncio.open_connection(HERE, 427)
            for number in (1, 2):
                writer.write(emit(Message(xid=number, body=REQUEST)))
                start = await reader.readexactly(5)
                reply = start + await reader.readexactly(int.from_bytes(start[2:], "big") - 5)
                assert parse(reply) == Message(xid=number, body=SrvRply(urls=(AGENT.entry,)))
            writer.write(b"\2\1\0\0\1")
            assert await reader.read() == b"", "a length that cannot be: the connection ends"
            writer.close()

    segment(scene)


@needs_root
@pytest.mark.root
def test_one_asker_gets_so_many_answers_a_second_and_no_more(segment):
    async def scene(near):
        async with serving(near):
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asker.setblocking(False)
            for _ in range(200):
                asker.sendto(emit(Message(xid=7, body=REQUEST)), (HERE, 427))
            await asyncio.sleep(0.5)
            answered = 0
            with contextlib.suppress(BlockingIOError):
                while asker.recv(65536):
                    answered += 1
            assert 20 <= answered <= 40
            asker.close()

    segment(scene)


@needs_root
@pytest.mark.root
def test_a_port_that_is_taken_is_said(segment):
    async def scene(near):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((HERE, 427))
            with pytest.raises(Unsupported, match="port 427 of eth0"):
                ServiceAgent(near, AGENT)

    segment(scene)


def test_an_interface_that_does_not_exist_is_said():
    with pytest.raises(ConfigError, match="'nosuch0' does not exist"):
        near_interface("nosuch0")
