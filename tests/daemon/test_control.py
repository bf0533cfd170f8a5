# SPDX-License-Identifier: BSD-3-Clause
"""The control socket: JSON lines; bad input is answered and harms nobody."""

import asyncio
import json
import socket
import stat

import pytest

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


@pytest.mark.parametrize(("verb", "whom"), [("acquire", "host"), ("query", "host"), ("revoke", "gateway")])
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
