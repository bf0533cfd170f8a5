# SPDX-License-Identifier: BSD-3-Clause
"""The control socket: JSON lines; bad input is answered and harms nobody."""

import asyncio
import contextlib
import gc
import json
import resource
import socket
import stat
import warnings

import pytest

from isthmus.daemon import listener
from isthmus.daemon.control import ControlClient, ControlError, ControlServer, call, find_socket


async def echo(request, _connection):
    return request["say"]


async def hold(_request, connection):
    gone = asyncio.get_running_loop().create_future()
    connection.closing.append(lambda: gone.set_result(None))
    hold.gone = gone
    connection.push({"event": "held"})


def talk(path, handlers, conversation):
    """Serve while a conversation runs in a thread; returns what it returned."""

    async def serve():
        server = ControlServer(path, handlers)
        await server.start()
        try:
            return await asyncio.to_thread(conversation)
        finally:
            await server.stop()

    return asyncio.run(serve())


def test_a_request_is_answered(tmp_path):
    path = tmp_path / "x.sock"
    assert talk(path, {"echo": echo}, lambda: call(path, {"do": "echo", "say": [1, "é"]})) == [1, "é"]
    assert not path.exists()


def test_only_its_owner_may_connect(tmp_path):
    path = tmp_path / "x.sock"
    mode = talk(path, {}, lambda: stat.S_IMODE(path.stat().st_mode))
    assert mode & 0o077 == 0


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"null", b'{"do": 1}', b'{"do": "echo"}', b"\xff", b'{"say": 1}', b'{"do": []}']
)
def test_bad_requests_get_one_error_and_the_next_is_answered(tmp_path, line):
    path = tmp_path / "x.sock"

    def conversation():
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as file:
            client.connect(str(path))
            file.write(line + b"\n")
            file.flush()
            answer = json.loads(file.readline())
            assert answer["ok"] is False
            assert answer["error"]
            file.write(b'{"do": "echo", "say": 7}\n')
            file.flush()
            return json.loads(file.readline())["result"]

    assert talk(path, {"echo": echo}, conversation) == 7


def test_events_and_hanging_up(tmp_path):
    path = tmp_path / "x.sock"

    async def serve():
        server = ControlServer(path, {"hold": hold})
        await server.start()

        def conversation():
            client = ControlClient(path)
            client.request({"do": "hold"})
            assert client.events == [{"event": "held"}]
            client.close()

        await asyncio.to_thread(conversation)
        await asyncio.wait_for(hold.gone, 5)
        await server.stop()

    asyncio.run(serve())


async def hang_up_after(path, rounds):
    """Stop a server so many rounds of the loop after clients have come: silent, half way in a request, waiting."""
    server = ControlServer(path, {"wait": wait})
    await server.start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(9)]
        for client, said in zip(clients, (b"", b'{"do"', b'{"do": "wait"}\n') * 3, strict=True):
            client.settimeout(5)
            client.connect(str(path))
            client.sendall(said)
        for _ in range(rounds):
            await asyncio.sleep(0)
        await server.stop()
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    assert len(asyncio.all_tasks()) == 1


async def wait(_request, _connection):
    await asyncio.Event().wait()


@pytest.mark.parametrize("rounds", range(12))
def test_who_came_just_before_the_end_is_hung_up_on_whatever_had_been_done_for_him(tmp_path, rounds):
    """In the backlog, let in, about to be served, served, halfway in a line, waiting for an answer."""
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(hang_up_after(tmp_path / "x.sock", rounds))
        gc.collect()
    assert not [str(each.message) for each in left_open]


def test_who_comes_when_no_descriptor_is_left_is_served_when_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "_RETRY_SECONDS", 0.05)
    path = tmp_path / "x.sock"

    async def serve():
        server = ControlServer(path, {"echo": echo})
        await server.start()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket(socket.AF_UNIX) as client:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
                client.connect(str(path))
                client.sendall(b'{"do": "echo", "say": 7}\n')
                await asyncio.sleep(0.1)
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 5)
            assert json.loads(answer)["result"] == 7
        await server.stop()

    asyncio.run(serve())


def test_an_end_does_not_wait_for_a_client_that_does_not_read(tmp_path):
    path = tmp_path / "x.sock"

    async def serve():
        server = ControlServer(path, {"echo": echo})
        await server.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(json.dumps({"do": "echo", "say": "x" * 100_000}).encode() + b"\n")
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(json.dumps({"do": "echo", "say": "x" * 100_000}).encode() + b"\n")
                    await asyncio.sleep(0)
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0)
            await asyncio.wait_for(server.stop(), 5)

    asyncio.run(serve())


def test_a_second_daemon_of_the_name_is_refused_and_a_dead_ones_socket_replaced(tmp_path):
    path = tmp_path / "x.sock"

    async def twice():
        first = ControlServer(path, {})
        await first.start()
        with pytest.raises(ControlError, match="another isthmus of this name"):
            await ControlServer(path, {}).start()
        assert path.exists()
        await first.stop()
        path.touch()
        second = ControlServer(path, {})
        await second.start()
        await second.stop()

    asyncio.run(twice())


@pytest.mark.parametrize(
    ("verb", "whom"),
    [
        ("acquire", "host"),
        ("query", "host"),
        ("revoke", "gateway"),
        ("leases", "gateway or host"),
        ("mappings", "border router"),
        ("tunnels", "border router or node"),
    ],
)
def test_what_is_asked_of_the_wrong_daemon_says_of_whom_to_ask(tmp_path, verb, whom):
    path = tmp_path / "x.sock"

    def conversation():
        with pytest.raises(ControlError, match=f"asked of a {whom}, and the daemon at {path} is none"):
            call(path, {"do": verb})
        with pytest.raises(ControlError, match="'dance' is not one of echo"):
            call(path, {"do": "dance"})

    talk(path, {"echo": echo}, conversation)


def test_the_folder_of_sockets_may_be_named_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ISTHMUS_RUN", str(tmp_path))
    (tmp_path / "a.sock").touch()
    assert find_socket() == tmp_path / "a.sock"


def test_a_daemon_of_our_own_network_namespace_is_taken(tmp_path):
    path = tmp_path / "x.sock"

    def conversation():
        client = ControlClient(path)
        client.demand_same_network()
        client.close()

    talk(path, {}, conversation)


def test_nobody_there(tmp_path):
    with pytest.raises(ControlError, match="no isthmus answers here"):
        call(tmp_path / "none.sock", {"do": "status"})
    with pytest.raises(ControlError, match="no isthmus runs here"):
        find_socket(run=tmp_path)
    (tmp_path / "a.sock").touch()
    assert find_socket(run=tmp_path) == tmp_path / "a.sock"
    (tmp_path / "b.sock").touch()
    with pytest.raises(ControlError, match="choose one"):
        find_socket(run=tmp_path)
